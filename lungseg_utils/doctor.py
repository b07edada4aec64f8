"""`lungseg doctor`: whether the series runs on a machine, on what, and what to mend.

It looks at nothing but the facts that machine.py gathers, so any machine can be put before it.
"""

from typing import NamedTuple

from packaging.requirements import Requirement

from lungseg_utils.machine import Folder, Machine

GIB = 2**30
PYTHON = "python>=3.11"
OPTIONAL = ("jupyter", "nbval")  # to open the notebooks, to test them; `lungseg run` needs neither
# Peak of a training process in float32, measured on a CPU: 1.0 GiB for the demo (96 px, 4 slices a batch), 6.5 GiB for
# the reference recipe (256 px, 24 slices), 2.7 GiB for it with 8 slices.
DEMO_MEMORY, REFERENCE_MEMORY = 3 * GIB // 2, 7 * GIB
DEMO_DISK, REFERENCE_DISK = GIB, 5 * GIB  # phantom, prepared slices, checkpoint, models; the real arrays
LESS = "for the reference recipe set accumulation to 3 (pieces of 8 slices take 3 GiB, 24 take 7)"
SHARED_MEMORY = GIB // 2  # for batches on their way from the loader's workers; Docker gives 64 MB


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
        findings += _judge_device(machine)
    findings += _judge_resources(machine)
    findings.append(_judge_folder("runs", machine.runs, needed=True))
    findings.append(_judge_folder("data", machine.data, needed=not machine.phantom))
    return [*findings, *_judge_data(machine), _judge_weights(machine)]


def can_run(findings: list[Finding]) -> bool:
    """Whether nothing keeps the series from running."""
    return all(finding.level != "problem" for finding in findings)


def report(findings: list[Finding]) -> str:
    """The findings as a table in plain text: what to do stands below its line, the verdict is the last line."""
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
    if not version or not requirement.specifier.contains(version, prereleases=True):
        found = f"{version or 'missing'}, expected {requirement.specifier}"
        return Finding("note" if name in OPTIONAL else "problem", name, found, fix)
    if broken:
        return Finding("problem", name, f"{version}, but it cannot be imported: {broken}", fix)
    return Finding("ok", name, version)


def _judge_device(machine: Machine) -> list[Finding]:
    from lungseg_utils.device import PRECISIONS, decide, why_not

    probe, device = machine.probe, decide(machine.probe)
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
    for number, gpu in enumerate(probe.get("gpus", ())):
        if gpu["memory"]:
            free, total = gpu["memory"]
            found, fix = f"{gpu['name']}: {_gib(free)} free of {_gib(total)}", f"stop what else uses it; {LESS}"
            findings.append(_judge_amount(f"GPU {number}", found, free, 0, REFERENCE_MEMORY, fix))
    return findings


def _judge_resources(machine: Machine) -> list[Finding]:
    (total, free), shared, cores = machine.memory, machine.shared_memory, machine.cores
    found, fix = f"{_gib(free)} free of {_gib(total)}", f"close other programs; {LESS}"
    findings = [_judge_amount("memory", found, free, DEMO_MEMORY, REFERENCE_MEMORY, fix)]
    if shared is not None:
        fix = "keep workers at 0, or give the container more: docker run --shm-size=1g"
        findings.append(_judge_amount("shared memory", f"{_gib(shared)} free", shared, 0, SHARED_MEMORY, fix))
    threads = machine.probe["threads"] if machine.probe else cores
    fix = f"set OMP_NUM_THREADS={cores}: they wait for each other" if threads > cores else ""
    findings.append(Finding("note" if fix else "ok", "threads", f"{threads} of torch, {cores} cores to run on", fix))
    return findings


def _judge_amount(item: str, found: str, free: int, demo: int, reference: int, fix: str) -> Finding:
    """By what the demo and the reference recipe need."""
    level = "problem" if free < demo else "note" if free < reference else "ok"
    return Finding(level, item, found, fix if level != "ok" else "")


def _judge_folder(name: str, folder: Folder, needed: bool) -> Finding:
    fix = "make room, or name a folder on a larger disk in LUNGSEG_HOME"
    found = f"{_gib(folder.free)} free for {folder.path}"
    finding = _judge_amount(f"disk, {name}", found, folder.free, DEMO_DISK if needed else 0, REFERENCE_DISK, fix)
    if folder.writable:
        return finding
    fix = "name a folder of your own in LUNGSEG_HOME"
    return finding._replace(level="problem" if needed else "note", found=f"{folder.path} is not writable", fix=fix)


def _judge_data(machine: Machine) -> list[Finding]:
    arrays = Finding("ok", "real data", f"{machine.arrays}; `lungseg check auto` looks into them")
    if not machine.arrays:
        fix = "begin with the phantom; data/README.md says how to get the arrays, LUNGSEG_DATA_DIR where they are"
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
