"""The folders for Kaggle hold what its own tool asks for, and what runs there finds and leaves its files."""

import ast
import json
import os
from types import SimpleNamespace

import nbformat
import pytest

from lungseg_utils.core.files import InputError
from lungseg_utils.data import find
from lungseg_utils.series import kaggle
from lungseg_utils.series.parameters import NOTEBOOKS
from lungseg_utils.series.run import find_notebooks

TITLE = 50  # characters at most


@pytest.fixture
def write(tmp_path, monkeypatch):
    """write_kernels into tmp_path/out, with pip's wheels made of nothing."""

    def pip(command, **_):
        folder = command[command.index("-w") + 1]
        for name in ("lungseg", "monai"):
            (tmp_path / folder / f"{name}-1-py3-none-any.whl").touch()
        return SimpleNamespace(returncode=write.status)

    def write(owner="jane-doe", **options):
        return kaggle.write_kernels(tmp_path / "out", owner, **options)

    write.status = 0
    monkeypatch.setattr(kaggle.subprocess, "run", pip)
    monkeypatch.setattr(kaggle.shutil, "rmtree", lambda *_, **__: None)
    return write


def metadata(folder):
    name = "dataset" if folder.name == "dataset" else "kernel"
    return json.loads((folder / f"{name}-metadata.json").read_text(encoding="utf-8"))


def cells(folder):
    return nbformat.read(folder / "notebook.ipynb", as_version=4).cells


def test_the_data_set_is_flat_and_complete(write):
    folder, _ = write()
    names = {path.name for path in folder.iterdir() if path.is_file()}
    assert len(names) == len(list(folder.iterdir()))  # `kaggle datasets create` skips sub-folders
    assert names >= {"lungseg-1-py3-none-any.whl", "hosted.txt", *(p.name for p in NOTEBOOKS.glob("*.ipynb"))}
    about = metadata(folder)
    assert about["id"] == "jane-doe/lungseg-series" and 6 <= len(about["title"]) <= TITLE
    assert len(about["licenses"]) == 1
    lines = (folder / "hosted.txt").read_text(encoding="utf-8").splitlines()
    assert lines[:3] == ["--no-index", "--find-links .", "lungseg"] and "@" not in "".join(lines)


def test_one_kernel_runs_the_whole_series_with_the_internet_off(write):
    _, kernel = write(given={"epochs": "9"})
    about = metadata(kernel)
    assert about["id"] == "jane-doe/lungseg-best" and about["title"] == "lungseg best"
    assert (about["enable_internet"], about["machine_shape"]) == (False, "NvidiaTeslaT4")
    assert about["dataset_sources"] == ["jane-doe/lungseg-series"] and about["kernel_sources"] == []
    assert about["competition_sources"] == ["covid-segmentation"]
    [parameters] = [cell for cell in cells(kernel) if "parameters" in cell.metadata.get("tags", ())]
    found = {}
    exec(parameters.source, found)
    assert found["parameters"]["epochs"] == 9 and found["parameters"]["image_size"] == 320
    assert found["parameters"]["processes"] == 0  # as many as there are GPUs


def test_a_kernel_each_takes_the_output_of_the_one_before(write):
    _, *kernels = write(one_each=True, given={"run_dir": "runs/mine"})
    identities = [metadata(kernel)["id"] for kernel in kernels]
    assert kernels[0].name == "lungseg-best-00-first-network" and len(kernels) == len(find_notebooks())
    assert [metadata(kernel)["kernel_sources"] for kernel in kernels] == [[], *([i] for i in identities[:-1])]
    for kernel in kernels:
        sources = [cell.source for cell in cells(kernel)]
        assert len(metadata(kernel)["title"]) <= TITLE
        assert any("# Parameters\n" in source and '"runs/mine"' in source for source in sources)
        assert sum("fetch_run('runs/mine')" in source for source in sources) == 1
        assert ("hand_in" in sources[-1]) == ("-05-" in kernel.name)


def test_several_runs_are_a_kernel_each_beside_one_data_set(write, tmp_path):
    runs = {f"loss=dice,seed={seed}": {"seed": seed} for seed in (0, 1)}
    dataset, *kernels = kaggle.write_folders(tmp_path / "out", "jane-doe", runs)
    names = [kernel.name for kernel in kernels]
    assert dataset.name == "dataset" and names == ["lungseg-loss-dice-seed-0", "lungseg-loss-dice-seed-1"]
    for seed, kernel in enumerate(kernels):
        assert f"{{'seed': {seed}}}" in "".join(cell.source for cell in cells(kernel))


def test_a_plans_runs_are_kernels_whose_long_names_stay_apart(write, tmp_path):
    plan = tmp_path / "plan.yaml"
    plan.write_text(
        "profile: best\ngrid:\n  loss: [cross_entropy, dice_cross_entropy]\n"
        "  sampling: [sources, lesions]\n  augmentation: [medical, scanners]\nseeds: [0, 1]\n"
    )
    _, *kernels = write(plan=plan)
    assert len({metadata(kernel)["title"] for kernel in kernels}) == len(kernels) == 16
    assert all(len(metadata(kernel)["title"]) <= TITLE for kernel in kernels)
    parameters = [cell.source for cell in cells(kernels[-1]) if "parameters" in cell.metadata.get("tags", ())]
    values = ast.literal_eval(parameters[0].partition(" = ")[2])
    assert (values["loss"], values["seed"], values["processes"]) == ("dice_cross_entropy", 1, 0)


@pytest.mark.parametrize(
    ("owner", "options", "message"),
    [
        ("Jane Doe", {}, "the owner is 'Jane Doe'"),
        (
            "jane-doe",
            {"profile": "reference"},
            "efficientnet-b2 come from the internet.*weights none",
        ),
        ("jane-doe", {"given": {"epoch": "3"}}, "did you mean epochs"),
        ("jane-doe", {"given": {"batch_size": "0"}}, "batch_size is 0"),
    ],
)
def test_what_would_fail_there_is_refused_here(write, tmp_path, owner, options, message):
    with pytest.raises(InputError, match=message):
        write(owner, **options)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_and_a_failing_pip_leave_things_as_they_are(write, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="holds other things"):
        write()
    (tmp_path / "out").rmdir()
    write(given={"encoder_weights": "none"}, profile="reference")
    write.status = 1
    with pytest.raises(InputError, match="PyPI"):
        write()
    assert (tmp_path / "out" / "lungseg-reference").is_dir()


@pytest.mark.parametrize("owner", ["jane-doe", "x1"])
def test_kaggles_own_tool_takes_the_folders(write, monkeypatch, capsys, owner):
    """Where its package is installed: all that it checks before it sends anything."""
    monkeypatch.setenv("KAGGLE_USERNAME", "nobody")
    monkeypatch.setenv("KAGGLE_KEY", "none")
    api = pytest.importorskip("kaggle.api.kaggle_api_extended", exc_type=ImportError).KaggleApi()
    api.config_values = {"username": owner}

    class Reached(Exception):
        """All checks have passed: here it would talk to Kaggle."""

    def reached(*_):
        raise Reached

    monkeypatch.setattr(api, "build_kaggle_client", reached)
    monkeypatch.setattr(api, "dataset_status", reached)
    dataset, *kernels = write(owner, one_each=True)
    with pytest.raises(Reached):
        api.dataset_create_new(str(dataset))
    for kernel in kernels:
        with pytest.raises(Reached):
            api.kernels_push(str(kernel))
    assert capsys.readouterr().out == ""  # no advice, such as a title that is not its address


# --- on Kaggle ---


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """An empty /kaggle."""
    monkeypatch.setattr(find, "KAGGLE_INPUT", tmp_path / "kaggle" / "input")
    for name in ("input", "working"):
        (tmp_path / "kaggle" / name).mkdir(parents=True)
    monkeypatch.setenv("LUNGSEG_HOME", str(tmp_path / "elsewhere"))
    return tmp_path / "kaggle"


@pytest.mark.parametrize("place", ["lungseg-series", "datasets/jane-doe/lungseg-series"])
def test_the_attached_notebooks_run_in_working(tree, monkeypatch, place):
    calls = []
    monkeypatch.setattr(kaggle, "run_series", lambda **options: calls.append(options))
    with pytest.raises(InputError, match="attach it"):
        kaggle.run_attached({})
    folder = tree / "input" / place
    folder.mkdir(parents=True)
    for name in ("01_eda.ipynb", "hosted.txt"):
        (folder / name).touch()
    kaggle.run_attached({"epochs": 3})
    assert (calls[0]["folder"], calls[0]["parameters"]) == (folder, {"epochs": 3})
    assert os.environ["LUNGSEG_HOME"] == str(tree / "working")


def test_a_run_goes_on_where_the_kernel_before_left_it_and_is_handed_in(tree):
    kaggle.fetch_run("runs/best")  # nothing is attached to the first
    left = tree / "input" / "notebooks" / "jane-doe" / "lungseg-best-03-training" / "runs" / "best"
    (left / "results").mkdir(parents=True)
    (left / "results" / "sub.csv").write_text("Id,Predicted\n")
    kaggle.fetch_run("runs/best")
    kaggle.hand_in("runs/best")
    assert (tree / "working" / "submission.csv").read_text() == "Id,Predicted\n"
