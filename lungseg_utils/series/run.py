"""Run the notebooks in order with papermill: checked parameters in, executed copies and `run.json` out."""

import json
import logging
import os
import platform
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from lungseg_utils import installed_versions
from lungseg_utils.core.files import CHECKOUT, InputError, atomic_write, resolve_path
from lungseg_utils.series.parameters import NOTEBOOKS, check_parameters, declared_parameters, load_profile

WIDGET = "application/vnd.jupyter.widget-view+json"
LIBRARIES = (
    "torch",
    "torchvision",
    "segmentation-models-pytorch",
    "accelerate",
    "timm",
    "albumentations",
    "monai",
    "numpy",
    "scipy",
    "pandas",
    "matplotlib",
    "papermill",
)
PATIENCE = 240.0  # seconds that a kernel has after a stop: training finishes its step and saves


class NotebookError(RuntimeError):
    """A notebook failed.

    Three lines: which notebook and where its partial copy is, which cell, which error.
    """


class NotebookStopped(NotebookError):
    """A notebook was told to stop, and saved what it had: the same three lines."""


def find_notebooks(folder: Path = NOTEBOOKS) -> list[Path]:
    """The series in order; InputError if the package is installed without its notebooks."""
    notebooks = sorted(folder.glob("0[1-4]_*.ipynb"))
    if not notebooks:
        raise InputError(
            f"no notebooks in {folder}; expected the series 01 to 04; run from a checkout "
            "(git clone, then pip install -e .), since the installed package carries no notebooks"
        )
    return notebooks


def all_notebooks(folder: Path = NOTEBOOKS) -> list[Path]:
    """The series and what goes beyond it: 1x improvements, 2x your own scan."""
    return sorted(folder.glob("[0-9][0-9]_*.ipynb"))


def select_notebooks(notebooks: list[Path], only: str | None = None, start: str | None = None) -> list[Path]:
    """Those to run: all, `only` one, or all from `start` on.

    Each given by number ("03") or name ("03_training").
    """
    if only and start:
        raise InputError("both --only and --from were given; expected one of them; leave one out")
    wanted = only or start
    if not wanted:
        return notebooks
    for place, path in enumerate(notebooks):
        if wanted in (path.name, path.stem, path.stem.split("_")[0]):
            return [path] if only else notebooks[place:]
    raise InputError(
        f"there is no notebook {wanted!r}; expected one of {', '.join(p.stem for p in notebooks)}"
    )


@contextmanager
def own_kernel() -> Iterator[None]:
    """Within, the kernel `python3` is this very Python, whatever Jupyter finds elsewhere.

    Figures are inline.
    """
    from ipykernel.kernelspec import get_kernel_dict

    spec = get_kernel_dict(
        extra_arguments=["--log-level=50"]
    )  # the kernel's own chatter; not a cell's output
    spec["env"] = {
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    before = os.environ.get("JUPYTER_PATH")
    with tempfile.TemporaryDirectory(prefix="lungseg-kernel-") as folder:
        with atomic_write(Path(folder, "kernels", "python3", "kernel.json")) as handle:
            json.dump(spec, handle)
        os.environ["JUPYTER_PATH"] = os.pathsep.join(
            filter(None, (folder, before))
        )  # first place that Jupyter looks
        try:
            yield
        finally:
            if before is None:
                del os.environ["JUPYTER_PATH"]
            else:
                os.environ["JUPYTER_PATH"] = before


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Within, SIGTERM does what Ctrl-C does.

    The kernel is shut down and told so, not left to die with this process.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def _write_record(run_dir: Path, record: dict) -> None:
    record["device"] = _read_json(run_dir / "model" / "config.json").get(
        "device"
    )  # notebook 03 states it there
    with atomic_write(run_dir / "run.json") as handle:
        json.dump(record, handle, indent=2)
        handle.write("\n")


def _failure(notebook: Path, copy: Path, error: BaseException) -> NotebookError:
    """The three lines. The cell is the last one that started, counted from 1 as in the notebook itself."""
    added = {"injected-parameters", "papermill-error-cell-tag"}
    cells = [c for c in _read_json(copy).get("cells", ()) if not added & {*c["metadata"].get("tags", ())}]
    started = [n for n, c in enumerate(cells, 1) if c["metadata"].get("papermill", {}).get("start_time")]
    where = "before its first cell"
    if started:
        where = (
            f"cell {started[-1]}: {''.join(cells[started[-1] - 1]['source']).strip().partition(chr(10))[0]}"
        )
    name, text = getattr(error, "ename", type(error).__name__), getattr(error, "evalue", str(error))
    what = f"{name}: {' '.join(text.split())}"
    again = f"lungseg run --run-dir {copy.parent.parent} --from {notebook.stem.split('_')[0]}"
    stopped = name in ("Stopped", "KeyboardInterrupt")
    kind, verb = (NotebookStopped, "stopped") if stopped else (NotebookError, "failed")
    return kind(
        f"notebook {notebook.stem} {verb}; partial copy: {copy}; go on with: {again}\n{where}\n{what}"
    )


def run_series(
    *,
    profile: str | Path | None = None,
    data_dir: str | None = None,
    run_dir: str | None = None,
    parameters: Mapping[str, object] | None = None,
    only: str | None = None,
    start: str | None = None,
    folder: Path = NOTEBOOKS,
    progress: bool = True,
) -> Path:
    """Run the series, `only` one, or all from `start` on; return the run directory.

    `only` may also be one beyond the series.

    Values win in this order: `parameters` (text is converted to the declared kind), `data_dir` and `run_dir`,
    `profile`, the notebooks' own defaults. Going on (`only`, `start`) without a profile takes the values that
    the run directory's last run was given. Everything is checked before anything runs (InputError). The run
    directory gets notebooks/ (executed copies, the failing one as far as it came) and run.json, rewritten
    after each notebook. A notebook that fails raises NotebookError.
    """
    notebooks = find_notebooks(folder)
    chosen = select_notebooks(all_notebooks(folder) if only else notebooks, only, start)
    notebooks += [path for path in chosen if path not in notebooks]
    declared_by = {path: declared_parameters(path) for path in notebooks}
    declared = {name: parameter for own in declared_by.values() for name, parameter in own.items()}
    options = {"data_dir": data_dir, "run_dir": run_dir}
    explicit = {
        **check_parameters(declared, {k: v for k, v in options.items() if v is not None}, "the command line"),
        **check_parameters(declared, parameters or {}, "-p"),
    }
    base = check_parameters(declared, load_profile(profile, folder) if profile else {}, f"profile {profile}")
    out = resolve_path(explicit.get("run_dir") or base.get("run_dir") or declared["run_dir"].default)
    earlier = _read_json(out / "run.json") if only or start else {}
    if not profile:
        base = check_parameters(declared, earlier.get("given", {}), f"{out / 'run.json'}")
        profile = earlier.get("profile")
    given = {**base, **explicit}
    given["run_dir"] = str(out)
    if out.exists() and not out.is_dir():
        raise InputError(
            f"the run directory {out} is a file; expected a folder, new or an earlier run's; name another"
        )
    if given.get("data_dir", "phantom") not in ("phantom", "auto"):
        given["data_dir"] = str(resolve_path(given["data_dir"]))

    resolved = {name: given.get(name, p.default) for name, p in declared.items()}
    done = earlier.get("notebooks", {})
    record = {
        "schema": 1,
        "status": "running",
        "started": _now(),
        "finished": None,
        "device": None,
        "profile": str(profile) if profile else None,
        "given": given,
        "parameters": resolved,
        "seed": resolved.get("seed"),
        "versions": installed_versions(*LIBRARIES),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "notebooks": {
            p.stem: {"status": "pending"} if p in chosen else done[p.stem]
            for p in notebooks
            if p in chosen or p.stem in done
        },
    }
    copies = out / "notebooks"
    copies.mkdir(parents=True, exist_ok=True)
    for path in chosen:  # what an earlier run left under these names is not this run's
        (copies / path.name).unlink(missing_ok=True)
    with own_kernel(), sigterm_interrupts():
        for path in chosen:
            entry = record["notebooks"][path.stem]
            entry.update(
                status="running",
                started=_now(),
                finished=None,
                seconds=None,
                parameters={name: resolved[name] for name in declared_by[path]},
            )
            _write_record(out, record)
            clock = time.monotonic()
            try:
                _execute(
                    path,
                    copies / path.name,
                    {k: v for k, v in given.items() if k in declared_by[path]},
                    progress,
                )
                entry["status"] = "finished"
            except BaseException as error:
                failed = isinstance(error, NotebookError) and not isinstance(error, NotebookStopped)
                entry.update(
                    status="failed" if failed else "interrupted", error=str(error) or type(error).__name__
                )
                record.update(status=entry["status"], finished=_now())
                raise
            finally:
                entry.update(finished=_now(), seconds=round(time.monotonic() - clock, 2))
                _write_record(out, record)
    record.update(status="finished", finished=_now())
    _write_record(out, record)
    return out


def _execute(notebook: Path, copy: Path, parameters: dict[str, object], progress: bool) -> None:
    import papermill
    from traitlets.config import Config

    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # parameters are checked, failures told here
    source, target = (
        str(path).replace("{", "{{").replace("}", "}}") for path in (notebook, copy)
    )  # it formats paths
    try:
        papermill.execute_notebook(
            source,
            target,
            parameters,
            kernel_name="python3",
            language="python",
            cwd=notebook.parent,
            progress_bar=progress and {"desc": notebook.stem},
            config=Config({"KernelManager": {"shutdown_wait_time": PATIENCE}}),
        )
    except (Exception, KeyboardInterrupt) as error:
        raise _failure(notebook, copy, error) from error


def refresh_notebooks(folder: Path = NOTEBOOKS) -> None:
    """Re-execute all notebooks in place on their own defaults, the phantom (`make notebooks`).

    In a fresh temporary home.

    Whatever differs from run to run without meaning is left out, so that diffs stay small: timings, widgets,
    the interpreter's version, absolute paths.
    """
    import nbformat
    from nbclient import NotebookClient

    with tempfile.TemporaryDirectory(prefix="lungseg-") as home, own_kernel():
        env = {k: v for k, v in os.environ.items() if k not in ("LUNGSEG_DATA_DIR", "LUNGSEG_REAL_DATA")}
        for path in all_notebooks(folder):
            print(f"{path.stem} ...", flush=True)
            notebook = nbformat.read(path, as_version=4)
            NotebookClient(
                notebook,
                kernel_name="python3",
                timeout=None,
                record_timing=False,
                store_widget_state=False,
                resources={"metadata": {"path": str(folder)}},
            ).execute(env={**env, "LUNGSEG_HOME": home})
            kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
            notebook.metadata = nbformat.from_dict(
                {"kernelspec": kernel, "language_info": {"name": "python"}}
            )
            for cell in notebook.cells:
                cell.metadata.pop("execution", None)
                if cell.cell_type == "code":  # a progress bar without its kernel is a dead widget
                    cell.outputs = [o for o in cell.outputs if WIDGET not in o.get("data", ())]
            text = nbformat.writes(notebook)
            for place in (home, str(CHECKOUT)):
                text = text.replace(f"{place}{os.sep}", "")
            with atomic_write(path) as handle:
                handle.write(text.rstrip("\n") + "\n")
