"""The choice of the device, with faked hardware."""

import subprocess
import sys

import pytest
import torch

from lungseg_utils import device
from lungseg_utils.device import choose_device


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def p100(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)


def test_without_a_gpu(no_gpu):
    assert choose_device().type == "cpu" and "no GPU" in choose_device().reason


@pytest.mark.parametrize(("script", "expected"), [("", "cuda"), ("raise RuntimeError('no kernel image')", "cpu")])
def test_a_listed_gpu_must_also_compute(p100, monkeypatch, script, expected):
    # runs in a process of its own, as the real one does
    monkeypatch.setattr(device, "PROBE", f"print('Tesla P100-PCIE-16GB', flush=True)\n{script}")
    chosen = choose_device()
    assert chosen.type == expected and "Tesla P100" in str(chosen)
    assert "ran on it" in chosen.reason if expected == "cuda" else "no kernel image" in chosen.reason


def test_the_probe_is_valid_python():
    script = device.PROBE.replace(".cuda()", "").replace("torch.cuda.get_device_name()", "'name'")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "name\n", done.stderr
