"""What the doctor says about faked machines, and its command."""

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from lungseg_utils import doctor as facts
from lungseg_utils.cli import main
from lungseg_utils.core.device import OLD_BUILD
from lungseg_utils.core.files import CHECKOUT
from lungseg_utils.doctor import GIB, PYTHON, Folder, Machine, can_run, diagnose, report

CU126 = ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"]
CU130 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]
LAPTOP = Machine(
    python="3.12.3",
    requirements=(
        "numpy>=1.26",
        "torch>=2.6",
        "torchvision>=0.21",
        "albumentations>=2.0.8,<2.1",
        "jupyter>=1.0",
    ),
    installed={
        "numpy": "2.4",
        "torch": "2.15.0",
        "torchvision": "0.30.0",
        "albumentations": "2.0.8",
        "jupyter": "1.1",
    },
    broken={},
    probe={"kind": None, "build": "2.15.0+cpu", "threads": 8, "amx": False},
    nvidia=False,
    cuda=0,
    memory=(16 * GIB, 12 * GIB),
    shared_memory=8 * GIB,
    cores=8,
    load=0.5,
    waiting="GOMP_SPINCOUNT=3000",
    runs=Folder(Path("/home/student/lungseg/runs"), 60 * GIB, True),
    data=Folder(Path("/home/student/lungseg/data"), 60 * GIB, True),
    arrays=Path("/home/student/lungseg/data"),
    arrays_error="",
    phantom=True,
    cached=True,
    hub_error="",
)


def with_gpus(*gpus, archs=CU130, error=None, build="2.15.0+cu130 (CUDA 13.0)"):
    """LAPTOP with these GPUs: (name, capability, GiB of memory)."""
    listed = [
        {"name": name, "capability": capability, "memory": [(size - 1) * GIB, size * GIB], "works": not error}
        for name, capability, size in gpus
    ]
    found = {
        "kind": "cuda",
        "gpus": listed,
        "archs": archs,
        "error": error,
        "build": build,
        "threads": 4,
        "amx": False,
    }
    return replace(LAPTOP, nvidia=True, probe=found | {"bf16": bool(gpus) and gpus[0][1] >= [8, 0]})


P100 = ("Tesla P100-PCIE-16GB", [6, 0], 16)
NO_KERNEL = "CUDA error: no kernel image is available for execution on the device"


def said(machine, item):
    """(level, found, fix) of one line."""
    [finding] = [finding for finding in diagnose(machine) if finding.item == item]
    return finding.level, finding.found, finding.fix


def test_a_machine_on_which_all_is_well():
    findings = diagnose(LAPTOP)
    assert {finding.level for finding in findings} == {"ok"} and not any(finding.fix for finding in findings)
    text = report(findings)
    assert (
        text.endswith("\nThe series can run (all is well).") and len(text.splitlines()) == len(findings) + 1
    )
    items = {
        "torch",
        "device",
        "precision",
        "memory",
        "threads",
        "disk, runs",
        "real data",
        "ImageNet weights",
    }
    assert items <= {finding.item for finding in findings}


def test_p100_with_a_build_that_has_dropped_it():
    machine = with_gpus(P100, error=NO_KERNEL)
    level, found, fix = said(machine, "device")
    assert level == "note" and found.startswith(
        "cpu (4 threads): Tesla P100-PCIE-16GB is there, but torch 2.15.0"
    )
    assert "torch 2.14 for CUDA 12.6" in fix and OLD_BUILD in fix
    assert said(machine, "precision")[1].startswith("float32") and can_run(diagnose(machine))


def test_p100_with_the_last_build_that_has_it():
    machine = with_gpus(P100, archs=CU126, build="2.14.1+cu126 (CUDA 12.6)")
    assert said(machine, "device") == ("ok", "cuda (Tesla P100-PCIE-16GB): a small convolution ran on it", "")
    assert said(machine, "precision")[1] == "float32: no tensor cores (capability 6.0)"


def test_two_t4():
    machine = with_gpus(("Tesla T4", [7, 5], 15), ("Tesla T4", [7, 5], 15))
    level, found, fix = said(machine, "device")
    assert (level, found) == (
        "ok",
        "cuda (2 x Tesla T4): a small convolution ran on each",
    ) and "processes 2" in fix
    assert said(machine, "precision")[1].startswith("float16 with a gradient scaler")
    assert said(machine, "GPU 1") == ("ok", "Tesla T4: 14.0 GiB free of 15.0 GiB", "")


def test_h100():
    machine = with_gpus(("NVIDIA H100 80GB HBM3", [9, 0], 80))
    assert said(machine, "device")[:2] == (
        "ok",
        "cuda (NVIDIA H100 80GB HBM3): a small convolution ran on it",
    )
    assert said(machine, "precision")[1] == "bfloat16: native (capability 9.0)"
    assert all(finding.level == "ok" for finding in diagnose(machine))


def test_a_small_or_busy_gpu():
    level, _, fix = said(with_gpus(("GeForce GTX 1650", [7, 5], 4)), "GPU 0")
    assert level == "note" and "accumulation" in fix


@pytest.mark.parametrize(
    ("build", "fix"), [("2.15.0+cpu", "built for CUDA"), ("2.15.0 (CUDA 13.0)", "nvidia-smi")]
)
def test_a_driver_without_a_gpu_for_torch(build, fix):
    machine = replace(LAPTOP, nvidia=True, probe=LAPTOP.probe | {"build": build})
    assert said(machine, "device")[0] == "note" and fix in said(machine, "device")[2]


@pytest.mark.parametrize(
    ("name", "version", "found", "fix"),
    [
        (
            "albumentations",
            "2.1.0",
            "2.1.0, expected <2.1,>=2.0.8",
            'pip install "albumentations>=2.0.8,<2.1"',
        ),
        (
            "torchvision",
            None,
            "missing, expected >=0.21",
            "install torch and torchvision anew, both from one source",
        ),
    ],
)
def test_a_version_outside_its_range(name, version, found, fix):
    installed = {key: value for key, value in (LAPTOP.installed | {name: version}).items() if value}
    machine = replace(LAPTOP, installed=installed)
    assert said(machine, name)[:2] == ("problem", found) and said(machine, name)[2].startswith(fix)
    assert not can_run(diagnose(machine)) and report(diagnose(machine)).endswith("cannot run (1 problem).")


def test_a_development_build_of_torch_is_a_torch():
    assert said(replace(LAPTOP, installed=LAPTOP.installed | {"torch": "2.9.0a0+git145"}), "torch")[0] == "ok"


def test_a_library_that_does_not_load():
    machine = replace(LAPTOP, broken={"torchvision": "operator torchvision::nms does not exist"})
    level, found, fix = said(machine, "torchvision")
    assert level == "problem" and "operator torchvision::nms does not exist" in found and "one source" in fix


def test_without_torch_the_rest_is_still_told():
    machine = replace(
        LAPTOP, installed={}, broken=dict.fromkeys(facts.MODULES, "No module named 'torch'"), probe=None
    )
    findings = diagnose(machine)
    assert said(machine, "torch")[0] == "problem" and said(machine, "memory")[0] == "ok"
    assert said(machine, "jupyter")[0] == "note"  # only to open the notebooks
    assert not any(finding.item == "device" for finding in findings)


def test_an_old_python():
    assert said(replace(LAPTOP, python="3.10.12"), "python")[0] == "problem"
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    assert f"python{project['requires-python']}" == PYTHON


def test_no_data_and_no_hub_do_not_keep_the_series_from_running():
    nothing = replace(LAPTOP, arrays=None, arrays_error="no images_medseg.npy", phantom=False)
    machine = replace(nothing, cached=False, hub_error="down")
    level, found, fix = said(machine, "real data")
    assert (level, found) == ("note", "no images_medseg.npy") and "phantom" in fix
    level, found, fix = said(machine, "ImageNet weights")
    assert level == "note" and found.endswith(": down") and "encoder_weights none" in fix
    assert report(diagnose(machine)).endswith("The series can run (2 notes).")
    assert said(replace(LAPTOP, hub_error="down"), "ImageNet weights")[0] == "ok"  # the cache is enough
    assert said(replace(LAPTOP, cached=False), "ImageNet weights")[0] == "ok"


@pytest.mark.parametrize(
    ("folder", "phantom", "level"),
    [
        (Folder(Path("/x"), GIB // 2, True), False, "problem"),
        (Folder(Path("/x"), GIB // 2, True), True, "note"),  # what is there needs no room
        (Folder(Path("/x"), 3 * GIB, True), False, "note"),
        (Folder(Path("/x"), 60 * GIB, False), False, "problem"),
        (Folder(Path("/x"), 60 * GIB, False), True, "note"),
    ],
)
def test_little_disk_or_none_to_write_on(folder, phantom, level):
    machine = replace(LAPTOP, data=folder, phantom=phantom)
    assert said(machine, "disk, data")[0] == level and "LUNGSEG_HOME" in said(machine, "disk, data")[2]
    always = said(replace(LAPTOP, runs=folder), "disk, runs")[0]
    assert always == ("note" if folder.writable and folder.free > GIB else "problem")


def test_little_memory_and_too_many_threads():
    assert said(replace(LAPTOP, memory=(2 * GIB, GIB)), "memory")[0] == "problem"
    assert said(replace(LAPTOP, memory=(8 * GIB, 4 * GIB)), "memory")[0] == "note"
    assert said(replace(LAPTOP, memory=None), "memory")[:2] == ("note", "the machine does not say")
    assert "--shm-size" in said(replace(LAPTOP, shared_memory=2**26), "shared memory")[2]
    assert said(replace(LAPTOP, cores=2), "threads")[2].startswith("set OMP_NUM_THREADS=2")


def test_a_machine_that_others_use_and_threads_that_wait():
    level, found, fix = said(replace(LAPTOP, load=12.2), "threads")
    assert (level, fix) == ("note", "set OMP_NUM_THREADS=1 while others use the machine")
    assert "GOMP_SPINCOUNT=3000" in found and "12 processes" in found


def test_libraries_for_a_gpu_that_is_not_there():
    heavy = replace(LAPTOP, cuda=5 * GIB)
    assert said(heavy, "CUDA")[0] == "note" and "TORCH=cpu" in said(heavy, "CUDA")[2]
    for machine in (
        LAPTOP,
        replace(heavy, nvidia=True),
        replace(with_gpus(("Tesla T4", [7, 5], 15)), cuda=5 * GIB),
    ):
        assert "CUDA" not in [finding.item for finding in diagnose(machine)]


@pytest.mark.parametrize(("machine", "code"), [(LAPTOP, 0), (replace(LAPTOP, installed={}), 1)])
def test_command(monkeypatch, machine, code):
    monkeypatch.setattr(facts, "examine", lambda: machine)
    result = CliRunner().invoke(main, ["doctor"])
    assert (result.exit_code, result.output) == (code, report(diagnose(machine)) + "\n")
