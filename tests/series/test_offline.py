"""The folder for laptops without the internet: what is fetched for whom, and what a laptop then finds."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from lungseg_utils.core.files import InputError
from lungseg_utils.series import offline
from lungseg_utils.series.classroom import write_class

NEEDED = (
    "numpy==2.4.6\ntorch==2.14.1\ntorchvision==0.29.1\nnvidia-cublas==13.1\ncuda-toolkit==13.0\ntriton==3.8\n"
)


@pytest.fixture
def fetched(monkeypatch):
    """What pip would download, call by call; uv answers NEEDED, and nothing is drawn or asked of the web."""
    calls = []

    def run(command, **options):
        words = [str(word) for word in command]
        if "compile" in words:
            return SimpleNamespace(returncode=0, stdout=NEEDED)
        calls.append(words)
        [place] = [word.removeprefix("--dest=") for word in words if word.startswith("--dest=")]
        Path(place).mkdir(parents=True, exist_ok=True)
        return SimpleNamespace(returncode=run.status, stdout="")

    run.status = 0
    monkeypatch.setattr(offline.subprocess, "run", run)
    monkeypatch.setattr(offline.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(offline, "default_phantom", lambda folder: folder)
    return SimpleNamespace(calls=calls, run=run)


def test_linux_gets_pytorchs_build_for_a_cpu_and_no_cuda(fetched, tmp_path):
    offline.fill_offline(tmp_path, ["linux"], ["3.12"])
    pair, rest = fetched.calls
    assert "--index-url=https://download.pytorch.org/whl/cpu" in pair
    assert pair[-2:] == ["torch==2.14.1+cpu", "torchvision==0.29.1+cpu"]
    assert rest[-1] == "numpy==2.4.6" and not any("nvidia" in word or "triton" in word for word in rest)


def test_every_system_and_python_gets_its_own(fetched, tmp_path):
    offline.fill_offline(tmp_path, pythons=["3.12", "3.13"], torch="pypi")
    asked = [
        [word for word in words if word.startswith(("--platform", "--python"))] for words in fetched.calls
    ]
    assert len(asked) == 6 and ["--python-version=3.13", "--platform=win_amd64"] in asked
    assert (tmp_path / "wheels" / "pythons.txt").read_text() == "3.12 3.13"


def test_a_laptop_finds_a_checkout_with_the_students_notebooks(fetched, tmp_path):
    student = write_class(tmp_path / "class", complete=offline.fill_offline) / "student"
    for name in (
        "start.py",
        "pyproject.toml",
        "lungseg_utils/weights/weights.safetensors",
        "notebooks/profiles",
    ):
        assert (student / name).exists(), name
    assert "solution(" not in (student / "notebooks" / "01_eda.ipynb").read_text()
    assert not list(student.rglob("__pycache__"))


def test_what_cannot_be_fetched_leaves_nothing(fetched, tmp_path, monkeypatch):
    fetched.run.status = 1
    with pytest.raises(InputError, match="PyTorch's builds cpu for Linux .*not to be had"):
        write_class(tmp_path / "class", complete=lambda new: offline.fill_offline(new, ["linux"]))
    monkeypatch.setattr(offline.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="uv is not installed"):
        write_class(tmp_path / "class", complete=offline.fill_offline)
    assert list(tmp_path.iterdir()) == []
