"""Which device to compute on, in which precision, and why."""

import json
import math
import os
import re
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch

PRECISIONS = {"bf16": "bfloat16", "fp16": "float16 with a gradient scaler", "no": "float32"}
# GPUs older than sm_75, such as P100 and V100: the last build that has code for them.
OLD_ARCHS = ("sm_50", "sm_60", "sm_70")
OLD_BUILD = (
    'pip install "torch==2.14.*" "torchvision==0.29.*" --index-url https://download.pytorch.org/whl/cu126'
)
PROBE_SECONDS = 300  # a first start from a cluster's network disk is slow
PROBE = Path(__file__).with_name("device_probe.py")  # run in a process of its own
CONTROL_GROUPS, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")  # Linux: containers, clusters


@dataclass(frozen=True)
class Device:
    """Where to compute, in which precision, and why.

    Attributes:
        type: What torch calls it: cuda, mps or cpu.
        name: Of the hardware.
        reason: Why it was chosen, for people.
        precision: In Accelerate's words: "bf16", "fp16", or "no" for float32.
        precision_reason: Why that one.
        count: How many of them there are, so how many processes can share the training.
    """

    type: str
    name: str
    reason: str
    precision: str = "no"
    precision_reason: str = "the plain choice"
    count: int = 1

    def __str__(self) -> str:
        name = f"{self.count} x {self.name}" if self.count > 1 else self.name
        return f"{self.type} ({name}): {self.reason}; {PRECISIONS[self.precision]}: {self.precision_reason}"


def choose_device() -> Device:
    """The fastest device on which one small operation works.

    Returns:
        A device; never an error, a CPU is always there.
    """
    return decide(probe())


def probe() -> dict[str, Any]:
    """What `decide` needs to know of this machine; nothing here starts CUDA in this process.

    kind: cuda, mps or None; gpus: of each, up to the first that fails, its name, capability [major, minor],
    memory [free, total] in bytes, works; error: of the one that fails, else None; archs: what this torch has
    code for; bf16: native, not emulated; build: of torch; threads: of torch on the CPU.
    """
    build = torch.__version__ + (f" (CUDA {torch.version.cuda})" if torch.version.cuda else "")
    found: dict[str, Any] = {
        "kind": None,
        "build": build,
        "threads": torch.get_num_threads(),
        "amx": has_amx(),
    }
    if torch.cuda.device_count():  # asks the driver's library, and leaves CUDA itself alone
        found["kind"] = "cuda"
    elif torch.backends.mps.is_available():
        found["kind"] = "mps"
    return found | (run_probe(found["kind"]) if found["kind"] else {})


def has_amx() -> bool:
    """Whether the CPU multiplies bfloat16 matrices natively (Intel AMX); False where Linux does not say."""
    flags = Path("/proc/cpuinfo")
    return flags.is_file() and " amx_bf16" in flags.read_text(encoding="utf-8", errors="replace")


def run_probe(kind: str) -> dict[str, Any]:
    """PROBE's answer for this kind of device, whatever becomes of the process."""
    nothing = {"gpus": [], "archs": [], "bf16": False}
    try:
        command = [sys.executable, "-P", str(PROBE), kind]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PROBE_SECONDS)
        return json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return nothing | {"error": f"no answer in {PROBE_SECONDS} s"}
    except (ValueError, IndexError):  # it died before its last line
        why = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        return nothing | {"error": why[0]}


def decide(found: dict[str, Any]) -> Device:
    """Device and precision for what `probe` found."""
    threads = found["threads"]
    name = f"{threads} thread{'s' if threads != 1 else ''}"
    precision = ("no", "bfloat16 is slower than float32 on most CPUs")
    if found["amx"]:
        # A step takes 0.57 of float32's time: see benchmarks/training.md.
        precision = ("bf16", "this CPU has AMX")
    if not found["kind"]:
        return Device("cpu", name, "torch sees no GPU", *precision)
    gpus = found["gpus"]
    if not gpus or not gpus[0]["works"]:
        return Device("cpu", name, "; ".join(why_not(found)), *precision)
    # Processes take the first GPUs, and CUDA puts the fastest first: another kind behind it would only slow
    # it down.
    count = len(list(takewhile(lambda gpu: gpu["works"] and gpu["name"] == gpus[0]["name"], gpus)))
    reason = f"a small convolution ran on {'each' if count > 1 else 'it'}"
    if found["error"]:
        reason += f", but failed on GPU {len(gpus) - 1}, {gpus[-1]['name']} ({found['error']})"
    return Device(found["kind"], gpus[0]["name"], reason, *_precision(gpus[0], found["bf16"]), count)


def _precision(gpu: dict[str, Any], native_bf16: bool) -> tuple[str, str]:
    """In Accelerate's words, and why.

    Tensor cores came with capability 7.0 (Volta); the GTX 16 series has none.
    """
    if gpu["capability"] is None:
        return "no", "mixed precision is not tried on Apple's GPUs"
    capability = "capability {}.{}".format(*gpu["capability"])
    if native_bf16:
        return "bf16", f"native ({capability})"
    if gpu["capability"] >= [7, 0] and "GTX 16" not in gpu["name"]:
        return "fp16", f"tensor cores, but bfloat16 only emulated ({capability})"
    return "no", f"no tensor cores ({capability})"


def why_not(found: dict[str, Any]) -> tuple[str, str]:
    """Why the GPU that `probe` found is not used, and what to do."""
    gpu: dict[str, Any] = found["gpus"][0] if found["gpus"] else {"name": "a GPU", "capability": None}
    if not gpu["capability"] or runs_on(gpu["capability"], found["archs"]):
        why = f"{gpu['name']} is there, but a small convolution failed on it: {found['error']}"
        return why, "stop what else uses it, or update its driver"
    why = "{} is there, but torch {} has no code for its capability {}.{} (only {})".format(
        gpu["name"], found["build"], *gpu["capability"], ", ".join(found["archs"])
    )
    if runs_on(gpu["capability"], OLD_ARCHS):
        return why, f"the last build that has it is torch 2.14 for CUDA 12.6: {OLD_BUILD}"
    if gpu["capability"] >= [7, 5]:
        return why, "install a newer torch and torchvision"
    return why, "no torch from 2.6 on has it: use the CPU"


def runs_on(capability: list[int], archs: list[str] | tuple[str, ...]) -> bool:
    """Whether one of torch's architectures runs on a GPU of this capability, [major, minor].

    Machine code (sm_80) runs on its own major version, from its minor version on (8.0, 8.6, 8.9); PTX
    (compute_80) on everything from 8.0 on, compiled by the driver; either with an a (sm_90a) on exactly that
    one. True if the list names none of NVIDIA's: then it says nothing.
    Source: CUDA C++ Programming Guide, "Binary Compatibility" and "PTX Compatibility".
    """
    known = [match for arch in archs if (match := re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", arch))]
    for kind, major, minor, feature in (match.groups() for match in known):
        built, same_major = [int(major), int(minor)], capability[0] == int(major)
        if capability == built:
            return True
        if feature != "a" and capability > built and (same_major or (kind == "compute" and not feature)):
            return True
    return not known


def usable_cores() -> int:
    """Cores that this process may use: a container's share of the machine's, rounded up.

    PYTHON_CPU_COUNT, Python's own variable, makes them fewer: a job's share.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(ValueError):
        cores = max(1, min(cores, int(os.environ.get("PYTHON_CPU_COUNT", cores))))
    for group in control_groups("cpu"):
        with suppress(OSError, ValueError):  # no such file, or "max"
            if (group / "cpu.max").exists():
                quota, period = (group / "cpu.max").read_text().split()
            else:
                quota, period = ((group / f"cpu.cfs_{word}_us").read_text() for word in ("quota", "period"))
            if int(quota) > 0:
                cores = min(cores, math.ceil(int(quota) / int(period)))
    return cores


def control_groups(controller: str) -> list[Path]:
    """Folders of this process's control groups and those around them; only on Linux. See man 7 cgroups."""
    folders = []
    for line in OWN_GROUPS.read_text(encoding="utf-8").splitlines() if OWN_GROUPS.exists() else ():
        _, controllers, path = line.split(":", 2)
        if not controllers or controller in controllers.split(","):  # version 2, or version 1
            root, own = CONTROL_GROUPS / (controller if controllers else ""), Path(path.lstrip("/"))
            folders += [root / group for group in (own, *own.parents)]
    return folders
