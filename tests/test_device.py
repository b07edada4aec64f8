"""The choice of the device, with faked hardware."""

import subprocess
import sys

import pytest
import torch

from lungseg_utils import device
from lungseg_utils.device import choose_device


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def p100(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla P100-PCIE-16GB")


def test_without_a_gpu(no_gpu):
    assert choose_device().type == "cpu" and "no GPU" in choose_device().reason


@pytest.mark.parametrize(("script", "expected"), [("pass", "cuda"), ("raise RuntimeError('no kernel image')", "cpu")])
def test_a_listed_gpu_must_also_compute(p100, monkeypatch, script, expected):
    monkeypatch.setattr(device, "PROBE", script)  # runs in a process of its own, as the real one does
    chosen = choose_device()
    assert chosen.type == expected
    assert "ran on it" in chosen.reason if expected == "cuda" else "no kernel image" in str(chosen)


def test_the_probe_is_valid_python(no_gpu):
    done = subprocess.run([sys.executable, "-c", device.PROBE.replace(".cuda()", "")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
