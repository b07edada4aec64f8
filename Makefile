# Needs git, make and Python 3.11 or newer. start.py does the work, also where there is no make: `python start.py run`.
PYTHON ?= python3
START := $(PYTHON) start.py

.PHONY: help setup run test quick lint lab notebooks translations site clean

help:
	@echo "make run        the six notebooks on the phantom (ARGS='--profile reference --data-dir DIR' for more)"
	@echo "make test       the linters and the tests (ARGS='-k metrics' for some)"
	@echo "make quick      the tests that take seconds"
	@echo "make lint       ruff, mypy and import-linter (FIX=1 mends what ruff can)"
	@echo "make lab        open the notebooks in Jupyter"
	@echo "make notebooks  re-execute the committed notebooks in place, on the phantom"
	@echo "make translations  bring the catalogues and notebooks of other languages up to date"
	@echo "make site       notebooks and pages as a web site in site/, English and Spanish (ARGS=--serve to look at it)"
	@echo "make setup      only .venv (TORCH=cpu: a small one, without CUDA)"
	@echo "make clean      remove .venv and what was built, not runs/ and data/"

setup run test quick lab notebooks translations site clean:
	@$(START) $@ $(ARGS)

lint:
	@$(START) lint $(if $(FIX),--fix)
