"""The facts about this machine that decide whether the series runs on it: `lungseg doctor` judges them."""

import importlib
import math
import os
import platform
import shutil
import threading
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from packaging.requirements import Requirement

from lungseg_utils.files import CHECKOUT, InputError, first_line, resolve_path

MODULES = {  # of packages that are often there and yet broken
    "torch": "torch",
    "torchvision": "torchvision",
    "segmentation-models-pytorch": "segmentation_models_pytorch",
    "opencv-python-headless": "cv2",
    "albumentations": "albumentations",
}
ENCODER = "efficientnet-b2"  # the default of 03_training
HUB_SECONDS = 5
CONTROL_GROUPS, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")  # Linux: containers, clusters


class Folder(NamedTuple):
    """Where it is or will be, free bytes there, and whether we may write."""

    path: Path
    free: int
    writable: bool


@dataclass(frozen=True)
class Machine:
    """The facts. Memory in bytes, (total, available)."""

    python: str
    requirements: tuple[str, ...]  # the lines of requirements.txt
    installed: dict[str, str]  # version of each that is there
    broken: dict[str, str]  # why each of MODULES that cannot be imported cannot
    probe: dict[str, Any] | None  # what device.probe says; None if torch is broken
    nvidia: bool  # NVIDIA's driver is installed
    memory: tuple[int, int]  # of the container, if it has less than the machine
    shared_memory: int | None  # free in /dev/shm, where there is one
    cores: int  # that this process may use
    runs: Folder
    data: Folder
    arrays: Path | None  # folder of the real data
    arrays_error: str  # why there is none
    phantom: bool  # it is made
    cached: bool  # the ImageNet weights are here
    hub_error: str  # why the hub does not answer; empty if it does


def examine() -> Machine:
    """Look at this machine; some seconds, without a network too. What is missing or broken is a fact, not an error."""
    broken, probe = {}, None
    for name, module in MODULES.items():
        try:
            importlib.import_module(module)
        except Exception as error:  # libraries that do not fit each other raise anything
            broken[name] = first_line(error)
    if "torch" not in broken:
        from lungseg_utils import device

        probe = device.probe()
    requirements = _requirements()
    shared = Path("/dev/shm")
    arrays, arrays_error = _arrays()
    cached, hub_error = _hub()
    return Machine(
        python=platform.python_version(),
        requirements=requirements,
        installed=_installed(requirements),
        broken=broken,
        probe=probe,
        nvidia=shutil.which("nvidia-smi") is not None,
        memory=_memory(),
        shared_memory=shutil.disk_usage(shared).free if shared.is_dir() else None,
        cores=usable_cores(),
        runs=_folder("runs"),
        data=_folder("data"),
        arrays=arrays,
        arrays_error=arrays_error,
        phantom=resolve_path("data/phantom/phantom.json").is_file(),
        cached=cached,
        hub_error=hub_error,
    )


def _requirements() -> tuple[str, ...]:
    """The lines of requirements.txt; of the installed package, where there is no checkout."""
    path = CHECKOUT / "requirements.txt"
    if path.is_file():
        lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
        return tuple(filter(None, lines))
    return tuple(line for line in metadata.requires("lungseg") or () if "extra ==" not in line)


def _installed(requirements: tuple[str, ...]) -> dict[str, str]:
    versions = {}
    for name in (Requirement(line).name for line in requirements):
        for distribution in (name, name.removesuffix("-headless")):  # of OpenCV either will do
            with suppress(metadata.PackageNotFoundError):
                versions.setdefault(name, metadata.version(distribution))
    return versions


def _memory() -> tuple[int, int]:
    """Total and available bytes of the machine, or of the tightest container around this process."""
    total, available = psutil.virtual_memory()[:2]
    for group in _control_groups("memory"):
        limit, used, cache = "memory.max", "memory.current", "inactive_file"
        if not (group / limit).exists():  # version 1
            limit, used, cache = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
        with suppress(OSError, ValueError, KeyError):  # no such file, or "max": no limit here
            allowed = int((group / limit).read_text())
            statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            free = allowed - int((group / used).read_text()) + int(statistics[cache])
            total, available = min(total, allowed), min(available, free)
    return total, available


def usable_cores() -> int:
    """Cores that this process may use: a container's share of the machine's, rounded up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    for group in _control_groups("cpu"):
        with suppress(OSError, ValueError):  # no such file, or "max"
            if (group / "cpu.max").exists():
                quota, period = (group / "cpu.max").read_text().split()
            else:
                quota, period = ((group / f"cpu.cfs_{word}_us").read_text() for word in ("quota", "period"))
            if int(quota) > 0:
                cores = min(cores, math.ceil(int(quota) / int(period)))
    return cores


def _control_groups(controller: str) -> list[Path]:
    """Folders of this process's control groups and those around them; only on Linux. See man 7 cgroups."""
    folders = []
    for line in OWN_GROUPS.read_text().splitlines() if OWN_GROUPS.exists() else ():
        _, controllers, path = line.split(":", 2)
        if not controllers or controller in controllers.split(","):  # version 2, or version 1
            root, own = CONTROL_GROUPS / (controller if controllers else ""), Path(path.lstrip("/"))
            folders += [root / group for group in (own, *own.parents)]
    return folders


def _folder(name: str) -> Folder:
    path = resolve_path(name)
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    return Folder(path, shutil.disk_usage(there).free, os.access(there, os.W_OK))


def _arrays() -> tuple[Path | None, str]:
    """Folder of the real data, and why there is none."""
    try:
        from lungseg_utils.data import HOW_TO_GET, find_data
    except Exception as error:  # it imports cv2
        return None, first_line(error)
    try:
        return find_data("auto"), ""
    except InputError as error:
        return None, str(error).removesuffix(f"; {HOW_TO_GET}")


def _hub() -> tuple[bool, str]:
    """Whether the ImageNet weights are in the cache, and why the hub does not answer (empty if it does)."""
    try:
        from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
        from segmentation_models_pytorch.encoders import encoders
    except Exception as error:
        return False, first_line(error)
    source = encoders[ENCODER]["pretrained_settings"]["imagenet"]
    repository, revision = source["repo_id"], source["revision"]
    names = ("config.json", "model.safetensors")
    files = [try_to_load_from_cache(repository, name, revision=revision) for name in names]
    url = hf_hub_url(repository, names[1], revision=revision)
    answer = [f"no answer in {HUB_SECONDS} s"]

    def ask() -> None:
        try:
            get_hf_file_metadata(url, timeout=HUB_SECONDS)
            answer[0] = ""
        except Exception as error:
            answer[0] = first_line(error)

    # Its timeout holds for each address, and not for the name's look-up: a firewall could hold us for a minute.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_SECONDS)
    return all(isinstance(file, str) for file in files), answer[0]
