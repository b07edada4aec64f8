"""The choice of device and precision, on faked hardware.

What the probe would answer there, and what is made of it.
"""

import json
from dataclasses import asdict

import pytest
import torch

from lungseg_utils.core import device
from lungseg_utils.core.device import OLD_BUILD, choose_device, decide, probe, run_probe, runs_on

CU126 = ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"]
CU130 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]
RAN = "a small convolution ran on"
NO_KERNEL = "CUDA error: no kernel image is available for execution on the device"


def gpu(name, capability, works=True):
    return {"name": name, "capability": capability, "memory": [15 * 2**30, 16 * 2**30], "works": works}


def found(*gpus, kind="cuda", archs=CU130, error=None, build="2.14.1+cu130 (CUDA 13.0)"):
    bf16 = bool(gpus) and (gpus[0]["capability"] or [0]) >= [8, 0]
    return {
        "kind": kind,
        "gpus": [*gpus],
        "archs": archs,
        "bf16": bf16,
        "error": error,
        "build": build,
        "threads": 2,
        "amx": False,
    }


P100, T4 = gpu("Tesla P100-PCIE-16GB", [6, 0]), gpu("Tesla T4", [7, 5])
APPLE = {"name": "Apple GPU", "capability": None, "memory": None, "works": True}


@pytest.mark.parametrize(
    ("facts", "expected", "precision"),
    [
        (found(P100, archs=CU126), f"cuda (Tesla P100-PCIE-16GB): {RAN} it; float32: no tensor cores", "no"),
        (
            found(T4, T4),
            f"cuda (2 x Tesla T4): {RAN} each; float16 with a gradient scaler: tensor cores, ",
            "fp16",
        ),
        (found(gpu("Tesla V100", [7, 0]), archs=CU126), f"cuda (Tesla V100): {RAN} it; float16 ", "fp16"),
        (found(gpu("GeForce GTX 1650", [7, 5])), f"cuda (GeForce GTX 1650): {RAN} it; float32: ", "no"),
        (found(gpu("A100", [8, 0])), f"cuda (A100): {RAN} it; bfloat16: native (capability 8.0)", "bf16"),
        (found(gpu("H100", [9, 0])), f"cuda (H100): {RAN} it; bfloat16: native (capability 9.0)", "bf16"),
        (found(APPLE, kind="mps"), f"mps (Apple GPU): {RAN} it; float32: ", "no"),
        ({"kind": None, "threads": 1, "amx": False}, "cpu (1 thread): torch sees no GPU; float32: ", "no"),
        (
            {"kind": None, "threads": 2, "amx": True},
            "cpu (2 threads): torch sees no GPU; bfloat16: this CPU has AMX",
            "bf16",
        ),
    ],
)
def test_device_and_precision(facts, expected, precision):
    chosen = decide(facts)
    assert str(chosen).startswith(expected) and chosen.precision == precision
    assert json.loads(json.dumps(asdict(chosen))) == asdict(chosen)  # config.json holds it


@pytest.mark.parametrize(
    ("name", "capability", "remedy"),
    [
        ("Tesla P100", [6, 0], "the last build that has it is torch 2.14 for CUDA 12.6: " + OLD_BUILD),
        ("Tesla V100", [7, 0], OLD_BUILD),
        ("GeForce GTX 1080", [6, 1], OLD_BUILD),
        ("Tesla K80", [3, 7], "no torch from 2.6 on has it: use the CPU"),
        ("NVIDIA X900", [13, 0], "install a newer torch and torchvision"),
    ],
)
def test_a_build_without_code_for_the_gpu_says_what_to_install(name, capability, remedy):
    chosen = decide(found(gpu(name, capability, works=False), error=NO_KERNEL))
    assert (chosen.type, chosen.precision, chosen.count) == ("cpu", "no", 1)
    assert chosen.reason.startswith(
        f"{name} is there, but torch 2.14.1+cu130 (CUDA 13.0) has no code for its "
    )
    assert chosen.reason.endswith(remedy)


def test_an_unknown_failure_is_quoted():
    chosen = decide(found(gpu("NVIDIA A10G", [8, 6], works=False), error="CUDA error: out of memory"))
    assert chosen.type == "cpu"
    assert "A10G is there, but a small convolution failed on it: CUDA error: out of memory;" in chosen.reason
    assert "a GPU is there" in decide(found(error="the driver is too old")).reason


def test_only_equal_gpus_that_work_are_counted():
    display = gpu("Quadro K600", [3, 0], works=False)
    chosen = decide(found(T4, T4, display, error=NO_KERNEL))
    assert (chosen.count, chosen.name) == (2, "Tesla T4") and "failed on GPU 2, Quadro K600" in chosen.reason
    assert decide(found(gpu("A100", [8, 0]), T4)).count == 1
    assert decide(found(T4, T4 | {"works": False}, error=NO_KERNEL)).count == 1


@pytest.mark.parametrize(
    ("capability", "archs", "expected"),
    [
        ([8, 6], ["sm_80"], True),  # a later minor version
        ([8, 0], ["sm_86"], False),
        ([9, 0], ["sm_80", "sm_86"], False),  # another major version
        ([9, 0], ["sm_80", "compute_80"], True),  # PTX
        ([7, 5], ["compute_80"], False),
        ([9, 0], ["sm_90a"], True),
        ([10, 0], ["compute_90a"], False),
        ([10, 3], ["sm_100f"], True),
        ([12, 0], ["compute_100f"], False),
        ([12, 0], CU130, True),
        ([6, 0], CU130, False),
        ([9, 0], ["gfx90a"], True),  # AMD's say nothing here
    ],
)
def test_compatibility_of_architectures(capability, archs, expected):
    assert runs_on(capability, archs) is expected


@pytest.mark.slow
def test_the_probe_runs_and_names_an_error():
    answer = run_probe("cpu")
    assert answer["error"] is None and answer["gpus"][0]["works"]
    assert run_probe("nonsense")["error"]


@pytest.fixture
def instead(tmp_path, monkeypatch):
    """Takes a program to run in place of the probe."""

    def use(script):
        (tmp_path / "probe.py").write_text(script)
        monkeypatch.setattr(device, "PROBE", tmp_path / "probe.py")

    return use


@pytest.mark.parametrize(
    ("script", "patience", "error"),
    [
        ("import os; os.abort()", 300, "exit status -6"),
        ("import sys; sys.exit('libcuda is broken')", 300, "libcuda is broken"),
        ("import time; time.sleep(60)", 1, "no answer in 1 s"),
    ],
)
def test_a_process_that_dies_or_hangs_is_an_error_too(instead, monkeypatch, script, patience, error):
    instead(script)
    monkeypatch.setattr(device, "PROBE_SECONDS", patience)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert probe()["error"] == error
    assert choose_device().reason.startswith(
        f"a GPU is there, but a small convolution failed on it: {error};"
    )


def test_a_listed_gpu_is_asked_in_a_process_of_its_own(instead, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    answer = {
        name: value for name, value in found(T4, T4).items() if name not in ("kind", "build", "threads")
    }
    instead(f"import sys; assert sys.argv[1] == 'cuda'; print({json.dumps(answer)!r})")
    chosen = choose_device()
    assert (chosen.name, chosen.count) == ("Tesla T4", 2)


@pytest.mark.slow
def test_the_probe_of_gpus_stops_at_the_first_that_fails(instead):
    fake = """
import torch, types
torch.cuda.init = lambda: None
torch.cuda.device_count = lambda: 3
torch.cuda.get_arch_list = lambda: ["sm_75"]
torch.cuda.get_device_properties = lambda i: types.SimpleNamespace(name=f"GPU {i}", major=7, minor=5)
torch.cuda.mem_get_info = lambda i: (1, 2)
torch.device = lambda kind, i: "cpu" if i == 0 else "meta"  # where .item() raises
"""
    instead(fake + device.PROBE.read_text())
    answer = run_probe("cuda")
    working = {"name": "GPU 0", "capability": [7, 5], "memory": [1, 2], "works": True}
    assert answer["gpus"] == [working, working | {"name": "GPU 1", "works": False}]
    assert (answer["archs"], answer["bf16"]) == (["sm_75"], False) and "meta" in answer["error"]


def test_looking_at_this_machine_leaves_cuda_alone():
    before = torch.cuda.is_initialized()  # another test may have used it
    assert choose_device().type in ("cuda", "mps", "cpu") and torch.cuda.is_initialized() == before
