"""Run the notebooks in order with papermill: checked parameters in, executed copies and `run.json` out."""

import json
import logging
import os
import platform
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lungseg_utils import installed_versions
from lungseg_utils.core.files import (
    CHECKOUT,
    InputError,
    atomic_write,
    clear_leftovers,
    locked,
    quoted,
    resolve_path,
)
from lungseg_utils.core.language import ENGLISH, check_language
from lungseg_utils.core.stopping import stops_interrupt
from lungseg_utils.series.live import showing
from lungseg_utils.series.parameters import (
    NOTEBOOKS,
    Parameter,
    check_meaning,
    check_parameters,
    declared_parameters,
    load_profile,
)

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
RUNNER_LOCK = ".run.lock"  # beside files.LOCK, which the notebooks' own processes take
NOTE = "note: "  # what a notebook prints after it is for the terminal too
PATIENCE = 240.0  # seconds that a kernel has after a stop: training finishes its step and saves


class NotebookError(RuntimeError):
    """A notebook failed.

    Three lines: which notebook and where its partial copy is, which cell, which error.
    """


class NotebookStopped(NotebookError):
    """A notebook was told to stop, and saved what it had: the same three lines."""


def find_notebooks(folder: Path = NOTEBOOKS) -> list[Path]:
    """The series in order; InputError if the package is installed without its notebooks."""
    notebooks = sorted(folder.glob("0[0-9]_*.ipynb"))
    if not notebooks:
        raise InputError(
            f"no notebooks in {folder}; expected the series 00 to 05; run from a checkout "
            "(git clone, then pip install -e .), since the installed package carries no notebooks"
        )
    return notebooks


def all_notebooks(folder: Path = NOTEBOOKS) -> list[Path]:
    """The series and what goes beyond it: 1x improvements, 2x your own scan."""
    return sorted(folder.glob("[0-9][0-9]_*.ipynb"))


def edition_of(language: str, folder: Path = NOTEBOOKS) -> Path:
    """The folder of the notebooks in a language; of a folder without such an edition, itself."""
    edition = folder / check_language(language)
    return edition if edition.is_dir() else folder


def select_notebooks(
    notebooks: list[Path], only: str | None = None, start: str | None = None, end: str | None = None
) -> list[Path]:
    """Those to run: all, `only` one, or all from `start` on and up to `end`.

    Each given by number ("03") or name ("03_training").
    """
    if only and (start or end):
        raise InputError("both --only and --from were given; expected one of them; leave one out")
    first, last = _place(notebooks, only or start or notebooks[0].stem), len(notebooks) - 1
    if only or end:
        last = _place(notebooks, only or end or "")
    return notebooks[first : last + 1]


def _place(notebooks: list[Path], wanted: str) -> int:
    for place, path in enumerate(notebooks):
        if wanted in (path.name, path.stem, path.stem.split("_")[0]):
            return place
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


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _read_json(path: Path) -> dict:
    """The object in a JSON file; empty if there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _last_run(run_dir: Path, needed: bool) -> dict:
    """run.json of a run directory; empty if there is none that a runner wrote.

    Raises InputError if it is damaged and needed: a run that goes on takes its parameters from there.
    """
    path = run_dir / "run.json"
    found = _read_json(path)
    given, notebooks = found.get("given", {}), found.get("notebooks", {})
    entries = notebooks.values() if isinstance(notebooks, dict) else [None]
    if found and all(isinstance(part, dict) for part in (given, *entries)):
        return found
    if needed and path.exists():
        raise InputError(
            f"{path} is damaged; expected the parameters of the last run, to go on with them; name them by "
            "--profile, or delete that file to go on with the notebooks' own"
        )
    return {}


def _write_record(run_dir: Path, record: dict) -> None:
    record["device"] = _read_json(run_dir / "model" / "config.json").get(
        "device"
    )  # notebook 03 states it there
    with atomic_write(run_dir / "run.json") as handle:
        json.dump(record, handle, indent=2)
        handle.write("\n")


def _failure(notebook: Path, copy: Path, error: BaseException, stopped: bool = False) -> NotebookError:
    """The three lines. The cell is the last one that started, counted from 1 as in the notebook itself.

    stopped: a stop was asked for, whatever the error says.
    """
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
    run_dir, number = copy.parent.parent, notebook.stem.split("_")[0]
    again = f"lungseg run --run-dir {quoted(run_dir)} --from {number}"
    if name != "Stopped" and (stopped or name == "KeyboardInterrupt"):
        stopped, what = True, f"Stopped: {_saved(run_dir, number)}"
    stopped |= name == "Stopped"
    kind, verb = (NotebookStopped, "stopped") if stopped else (NotebookError, "failed")
    return kind(
        f"notebook {notebook.stem} {verb}; partial copy: {copy}; go on with: {again}\n{where}\n{what}"
    )


def _saved(run_dir: Path, number: str) -> str:
    """What a stopped notebook leaves to go on with, in words."""
    progress = _read_json(run_dir / "checkpoint" / "progress.json")
    if number == "03" and progress:
        return (
            f"everything is saved in {run_dir / 'checkpoint'}, up to epoch {progress.get('epoch')} after "
            "step "
            f"{progress.get('step')}; the training goes on from there"
        )
    return "what the notebooks before it wrote is whole; this one starts again from its beginning"


def _notes(copy: Path) -> list[str]:
    """The lines that an executed notebook printed for the terminal."""
    outputs = [output for cell in _read_json(copy).get("cells", ()) for output in cell.get("outputs", ())]
    lines = "".join("".join(output.get("text", "")) for output in outputs).splitlines()
    return [line for line in dict.fromkeys(lines) if line.startswith(NOTE)]


def check_loopback() -> None:
    """Raises InputError if this machine cannot talk to itself, as a notebook and its kernel do."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), 10).close()
    except OSError as error:
        raise InputError(
            f"127.0.0.1 does not answer ({error.strerror or error}); expected a loopback network interface, "
            "by which a notebook "
            "and its kernel talk; switch it on (ip link set lo up), or allow it in the container or sandbox"
        ) from error


def run_series(
    *,
    profile: str | Path | None = None,
    data_dir: str | None = None,
    run_dir: str | None = None,
    parameters: Mapping[str, object] | None = None,
    only: str | None = None,
    start: str | None = None,
    end: str | None = None,
    folder: Path = NOTEBOOKS,
    progress: bool = True,
    patience: float = 0.0,
) -> Path:
    """Run the series, one notebook of it, or all from one on.

    Values win in this order: `parameters`, `data_dir` and `run_dir`, `profile`, the notebooks' own defaults.
    Going on (`only`, `start`) without a profile takes the values that the run directory's last run was given.
    Everything is checked before anything runs. The run directory gets notebooks/ (executed copies, the
    failing one as far as it came) and run.json, rewritten after each notebook: its
    status is running, finished, failed or stopped, and killed where the next call finds a run that ended
    without a word.

    Args:
        profile: A name, or a YAML file.
        data_dir: See `find_data`.
        run_dir: Where results go.
        parameters: Text is converted to the declared kind.
        only: The one notebook to run; it may be one beyond the series.
        start: The first notebook to run.
        end: The last one.
        folder: The notebooks'.
        progress: Show papermill's bars, and how far a training is.
        patience: Seconds to wait for another process that writes in the run directory.

    Returns:
        The run directory.

    Raises:
        InputError: Before anything runs.
        NotebookError: When a notebook fails.
        NotebookStopped: When one is stopped.
    """
    notebooks = find_notebooks(folder)
    chosen = select_notebooks(all_notebooks(folder) if only else notebooks, only, start, end)
    notebooks += [path for path in chosen if path not in notebooks]
    declared_by = {path: declared_parameters(path) for path in notebooks}
    declared = {name: parameter for own in declared_by.values() for name, parameter in own.items()}
    options = {"data_dir": data_dir, "run_dir": run_dir}
    explicit = {
        **check_parameters(declared, {k: v for k, v in options.items() if v is not None}, "the command line"),
        **check_parameters(declared, parameters or {}, "-p"),
    }
    _check_effect(explicit, chosen, declared_by)
    base = check_parameters(declared, load_profile(profile, folder) if profile else {}, f"profile {profile}")
    out = resolve_path(str((base | explicit).get("run_dir", declared["run_dir"].default)))
    last = _last_run(out, needed=bool((only or start) and not profile))
    earlier = last if only or start else {}
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
    edition = edition_of(resolved.get("language", ENGLISH), folder)
    used = {name: resolved[name] for path in chosen for name in declared_by[path]}
    check_meaning(used)
    if "data_dir" in used:
        _check_data(used["data_dir"], out, values=chosen[0].stem == "02_preprocessing")
    _check_inputs(chosen[0].stem, out, used.get("model", ""))
    check_loopback()
    with locked(out, "lungseg run", RUNNER_LOCK, patience):
        # A notebook that is open elsewhere may be writing.
        with locked(out, "lungseg run", patience=patience):
            for place in (out, out / "checkpoint", out / "results", out / "figures", out / "notebooks"):
                clear_leftovers(place)
        for stem, entry in last.get("notebooks", {}).items():
            if entry.get("status") == "running":  # but no process has the lock
                entry.update(status="killed", error="it ended without a word")
                print(f"{NOTE}the last run in {out} was killed in {stem}", file=sys.stderr)
        return _run(chosen, edition, out, given, resolved, declared_by, earlier, profile, progress)


def _check_effect(
    explicit: Mapping[str, object], chosen: list[Path], declared_by: Mapping[Path, Mapping[str, Parameter]]
) -> None:
    """Raises InputError for a setting that none of the chosen notebooks has: it would do nothing."""
    for name in explicit:
        owners = [path.stem for path, own in declared_by.items() if name in own]
        if name != "run_dir" and not {path.stem for path in chosen} & {*owners}:
            raise InputError(
                f"{name} does nothing in {', '.join(path.stem for path in chosen)}; expected parameters of "
                "what runs; "
                f"leave it out, or run {owners[0]} too"
            )


def _check_data(data_dir: str, run_dir: Path, values: bool) -> None:
    """Raises InputError if there are no data, or if the results would land among them.

    values: also if the data break the contract, which else 01_eda looks at.
    """
    from lungseg_utils.data.checks import check_data
    from lungseg_utils.data.find import PHANTOM_DIR, find_data

    phantom = resolve_path(PHANTOM_DIR)  # made by the notebooks, if it is not there
    folder = phantom if data_dir == "phantom" else find_data(data_dir)
    if values and folder != phantom:
        check_data(folder).require_usable()
    if run_dir == folder:
        raise InputError(
            f"the run directory {run_dir} is the data's; expected another, so that they stay as they "
            "are; name one"
        )


def _check_inputs(stem: str, run_dir: Path, model: str) -> None:
    """Raises InputError if what the first notebook reads there is missing or does not belong together."""
    if stem not in ("03_training", "04_results", "05_how_sure"):
        return
    from lungseg_utils.data.preprocessing import load_prepared
    from lungseg_utils.evaluation.submission import scored_model
    from lungseg_utils.inference.pretrained import model_folder
    from lungseg_utils.inference.ties import check_tie

    load_prepared(run_dir / "prepared")
    if stem == "04_results":
        check_tie(model_folder(model, run_dir), run_dir)
    if stem == "05_how_sure":
        scored_model(run_dir)


def _run(
    chosen: list[Path],
    edition: Path,
    out: Path,
    given: dict[str, object],
    resolved: dict[str, object],
    declared_by: Mapping[Path, Mapping[str, Parameter]],
    earlier: dict,
    profile: str | Path | None,
    progress: bool,
) -> Path:
    """`run_series` after its checks, alone in the run directory."""
    done = earlier.get("notebooks", {})
    record: dict[str, Any] = {
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
            for p in declared_by
            if p in chosen or p.stem in done
        },
    }
    copies = out / "notebooks"
    copies.mkdir(parents=True, exist_ok=True)
    for path in chosen:  # what an earlier run left under these names is not this run's
        (copies / path.name).unlink(missing_ok=True)
    said: list[str] = []  # 01 and 02 both look at the data
    with own_kernel(), stops_interrupt() as came:
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
            own = {k: v for k, v in given.items() if k in declared_by[path]}
            try:
                _execute(edition / path.name, copies / path.name, own, progress)
                entry["status"] = "finished"
            except (Exception, KeyboardInterrupt) as error:
                failure = _failure(path, copies / path.name, error, stopped=bool(came))
                stopped = isinstance(failure, NotebookStopped)
                entry.update(status="stopped" if stopped else "failed", error=str(failure))
                record.update(status=entry["status"], finished=_now())
                raise failure from error
            finally:
                entry.update(finished=_now(), seconds=round(time.monotonic() - clock, 2))
                _write_record(out, record)
            new = [note for note in _notes(copies / path.name) if note not in said]
            print(*new, sep="\n", end="\n" * bool(new), file=sys.stderr, flush=True)
            said += new
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
    with showing(copy.parent.parent) if progress else nullcontext():
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


def _stays(output: Mapping[str, Any]) -> bool:
    """Whether an output means something without its kernel: no widget, and not what a bar leaves behind."""
    return "data" not in output or (bool(output["data"]) and WIDGET not in output["data"])


def refresh_notebooks(folder: Path = NOTEBOOKS) -> None:
    """Re-execute all notebooks of a folder in place on their own defaults, the phantom (`make notebooks`).

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
                    cell.outputs = [o for o in cell.outputs if _stays(o)]
            text = nbformat.writes(notebook)
            for place in (home, str(CHECKOUT)):
                text = text.replace(f"{place}{os.sep}", "")
            with atomic_write(path) as handle:
                handle.write(text.rstrip("\n") + "\n")
