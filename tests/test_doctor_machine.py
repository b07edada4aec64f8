"""The facts about this machine: the real ones hang together, containers and failures are faked."""

import shutil
import sys
import threading
from importlib import metadata

import pytest
import torch
from packaging.requirements import Requirement

from lungseg_utils import doctor as machine
from lungseg_utils.core import device
from lungseg_utils.data.arrays import FILES
from lungseg_utils.doctor import ENCODER, MODULES, diagnose, examine, report
from lungseg_utils.training.config import TrainingConfig

GIB = 2**30


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LUNGSEG_HOME", str(tmp_path))
    monkeypatch.delenv("LUNGSEG_DATA_DIR", raising=False)
    monkeypatch.setattr("lungseg_utils.data.find.KAGGLE_INPUT", tmp_path / "kaggle")
    return tmp_path


@pytest.fixture
def offline(monkeypatch):
    def refuse(*_, **__):
        raise OSError("Name or service not known\nand more")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", refuse)


def test_this_machine(home, offline):
    seen = examine()
    assert seen.broken == {} and seen.probe["build"].startswith(torch.__version__)
    assert seen.installed["numpy"] == metadata.version("numpy")
    assert 0 < seen.memory[1] <= seen.memory[0] and seen.cores >= 1
    assert seen.runs.path == home / "runs" and seen.runs.writable and seen.runs.free > 0
    assert seen.arrays is None and seen.arrays_error.startswith("no images_medseg.npy")
    assert "kaggle competitions" not in seen.arrays_error  # one line; how to get them stands beside it
    assert not seen.phantom and seen.hub_error == "Name or service not known"
    assert "The series can" in report(diagnose(seen))
    assert not list(home.iterdir())  # looking changes nothing


def test_data_that_are_there(home, offline):
    (home / "data" / "phantom").mkdir(parents=True)
    (home / "data" / "phantom" / "phantom.json").touch()
    (home / "data" / FILES["medseg"][0]).touch()
    assert machine._arrays() == (home / "data", "")


def test_a_library_that_raises_at_import_is_a_fact(home, offline, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)  # import raises ImportError
    assert list(examine().broken) == ["torchvision"]


def test_names_agree_with_the_rest_of_the_package():
    assert TrainingConfig().encoder == ENCODER
    assert MODULES.keys() <= {Requirement(line).name for line in machine._requirements()}


def test_without_a_checkout_the_installed_package_tells_its_requirements(tmp_path, monkeypatch):
    from_file = {Requirement(line).name for line in machine._requirements()}
    monkeypatch.setattr(machine, "CHECKOUT", tmp_path)
    monkeypatch.setattr(metadata, "requires", lambda name: [*from_file, 'pytest>=8; extra == "test"'])
    assert set(machine._requirements()) == from_file


def test_a_silent_firewall_holds_nobody_up(monkeypatch):
    monkeypatch.setattr(machine, "HUB_SECONDS", 0.1)
    answered = threading.Event()
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda *_, **__: answered.wait(60))
    assert machine._hub()[1] == "no answer in 0.1 s"
    answered.set()


def test_the_hub_answers_and_the_weights_are_cached(monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda *_, **__: None)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: "/cache/file")
    assert machine._hub() == (True, "")


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Writes control groups: which ones this process is in, and their files."""
    monkeypatch.setattr(device, "CONTROL_GROUPS", tmp_path)
    monkeypatch.setattr(device, "OWN_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr("psutil.virtual_memory", lambda: (64 * GIB, 60 * GIB))
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: range(16), raising=False)

    def write(own, files):
        (tmp_path / "cgroup").write_text(own)
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)

    return write


def test_a_machine_that_does_not_say(monkeypatch, tmp_path):
    def closed(*_):
        raise PermissionError(13, "Permission denied", "/proc/meminfo")

    for name in ("virtual_memory", "getloadavg"):
        monkeypatch.setattr(f"psutil.{name}", closed)
    assert (machine._memory(), machine._load()) == (None, 0.0)
    (tmp_path / "home").touch()
    monkeypatch.setenv("LUNGSEG_HOME", str(tmp_path / "home"))
    assert not machine._folder("runs").writable


def test_no_container(groups):
    assert (machine._memory(), machine.usable_cores()) == ((64 * GIB, 60 * GIB), 16)


def test_a_container(groups):
    stat = f"anon {2 * GIB}\ninactive_file {1 * GIB}\n"
    files = {"memory.max": f"{8 * GIB}\n", "memory.current": f"{3 * GIB}\n", "memory.stat": stat}
    groups("0::/\n", files | {"cpu.max": "150000 100000\n"})
    assert (machine._memory(), machine.usable_cores()) == ((8 * GIB, 6 * GIB), 2)


def test_a_cluster_job_is_limited_by_a_group_around_it(groups):
    job, stat = "slurm/job_7", "inactive_file 0\n"
    files = {f"{job}/memory.max": str(4 * GIB), f"{job}/memory.current": str(GIB), f"{job}/memory.stat": stat}
    files |= {
        f"{job}/step/memory.max": "max",
        f"{job}/step/cpu.max": "max 100000",
        f"{job}/cpu.max": "400000 100000",
    }
    groups(f"0::/{job}/step\n", files)
    assert (machine._memory(), machine.usable_cores()) == ((4 * GIB, 3 * GIB), 4)


def test_version_1_of_the_control_groups(groups):
    memory = {"limit_in_bytes": 2 * GIB, "usage_in_bytes": GIB, "stat": f"total_inactive_file {GIB // 2}"}
    files = {f"memory/memory.{name}": str(value) for name, value in memory.items()}
    files |= {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}
    groups("5:memory:/docker/abc\n1:cpu,cpuacct:/docker/abc\n", files)
    assert (machine._memory(), machine.usable_cores()) == ((2 * GIB, 3 * GIB // 2), 16)


def test_free_disk_is_that_of_the_nearest_folder(home):
    folder = machine._folder("runs/deep/down")
    assert folder.path == home / "runs/deep/down"
    assert abs(folder.free - shutil.disk_usage(home).free) < GIB
