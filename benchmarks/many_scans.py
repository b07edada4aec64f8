"""What `lungseg predict` costs for many scans: `python benchmarks/many_scans.py [--scans N] [--singles N]`.

Phantom scans of twelve slices, 256 x 256, half of them NIfTI and half DICOM, three of them broken, in one
folder: predicted with one job, with two, and again when all are finished; against single calls of
`lungseg predict`, of which a few are timed. Each call is a process of its own, from its start to its end.
Memory is the largest resident set that any of its processes was seen with, ten times a second.

Prints Markdown. The table is in benchmarks/many_scans.md.
"""

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import fmean

import click
import pandas as pd
import psutil
import pydicom
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from lungseg_utils.core.device import usable_cores
from lungseg_utils.scans.example import write_example_scan
from lungseg_utils.scans.io import read_scan
from lungseg_utils.scans.scan import Scan

SLICES, SIZE, BROKEN = 12, 256, 3


@dataclass(frozen=True)
class Cost:
    """What a call took."""

    seconds: float
    cpu: float  # seconds
    memory: float  # GB, of its largest process


def write_dicom(folder: Path, scan: Scan, patient: int) -> None:
    """A scan as the DICOM slices of a patient."""
    folder.mkdir()
    study, series, frame = (generate_uid(entropy_srcs=[name, str(patient)]) for name in ("st", "se", "fr"))
    for i, hu in enumerate(scan.hu):
        slice_ = pydicom.Dataset()
        slice_.file_meta = pydicom.dataset.FileMetaDataset()
        slice_.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        slice_.SOPClassUID, slice_.Modality = CTImageStorage, "CT"
        slice_.SOPInstanceUID = generate_uid(entropy_srcs=["sl", str(patient), str(i)])
        slice_.StudyInstanceUID, slice_.SeriesInstanceUID, slice_.FrameOfReferenceUID = study, series, frame
        slice_.PatientID, slice_.PatientName = str(patient), f"Phantom^{patient}"
        slice_.SeriesNumber, slice_.InstanceNumber = 1, i + 1
        slice_.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        slice_.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        slice_.ImagePositionPatient = [-190, -190, round(i * scan.spacing[0], 4)]
        slice_.PixelSpacing = [round(step, 6) for step in scan.spacing[1:]]
        slice_.SliceThickness = round(scan.spacing[0], 4)
        slice_.Rows, slice_.Columns = hu.shape
        slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
        slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 16, 16, 15, 1
        slice_.RescaleSlope, slice_.RescaleIntercept = 1, 0
        slice_.PixelData = hu.astype("<i2").tobytes()
        slice_.save_as(folder / f"{i:03d}.dcm", enforce_file_format=True)


def write_scans(folder: Path, count: int) -> None:
    """Half NIfTI, half DICOM; the last three are broken: one of no bytes, one cut short, a damaged slice."""
    folder.mkdir()
    for i in range(count):
        path = write_example_scan(folder / f"patient{i:02d}.nii.gz", slices=SLICES, size=SIZE, seed=i)
        if i % 2:
            write_dicom(folder / f"patient{i:02d}", read_scan(path), i)
            path.unlink()
    nifti, dicom = sorted(folder.glob("*.gz"))[-2:], max(folder.glob("*/"))
    nifti[0].write_bytes(b"")
    nifti[1].write_bytes(nifti[1].read_bytes()[:50_000])
    damaged = dicom / "005.dcm"
    damaged.write_bytes(damaged.read_bytes()[:20_000])


def call(*arguments: str | Path) -> Cost:
    """Run `lungseg predict` to its end; exit status 1 is of scans that could not be read."""
    began, memory = time.monotonic(), 0
    before = os.times()
    command = [sys.executable, "-m", "lungseg_utils", "predict", *map(str, arguments)]
    process = psutil.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while process.poll() is None:
        try:
            alive = [process, *process.children(recursive=True)]
            memory = max(memory, *(one.memory_info().rss for one in alive))
        except psutil.NoSuchProcess:
            pass
        time.sleep(0.1)
    seconds, after = time.monotonic() - began, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    if process.returncode not in (0, 1):
        raise click.ClickException(process.stdout.read().decode())
    return Cost(seconds, cpu, memory / 1e9)


@click.command()
@click.option("--scans", type=click.IntRange(8), default=40, show_default=True)
@click.option("--singles", type=click.IntRange(1), default=5, show_default=True, help="Single calls to time.")
def main(scans: int, singles: int) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, out = Path(scratch, "scans"), Path(scratch, "out")
        write_scans(folder, scans)
        paths = iter(sorted(folder.iterdir())[:singles])
        many: dict[str, Cost] = {}
        alone: list[Cost] = []

        def some(count: int) -> None:
            alone.extend(call(path, "--out", out / path.name) for path in islice(paths, count))

        some(singles // 3)  # before, between and after: the machine may have other work
        for jobs in (1, 2):
            many[f"one call, `--jobs {jobs}`"] = call(folder, "--out", out / str(jobs), "--jobs", str(jobs))
            some(singles if jobs == 2 else singles // 3)
        many["the same again, all finished"] = call(folder, "--out", out / "2")
        tables = [pd.read_csv(out / str(jobs) / "cases.csv").drop(columns="seconds") for jobs in (1, 2)]
    each = fmean(cost.seconds for cost in alone)
    cpu, memory = fmean(cost.cpu for cost in alone), max(cost.memory for cost in alone)
    rows = {f"{scans} single calls, {singles} of them timed": Cost(each * scans, cpu * scans, memory)} | many
    print("| what | minutes | scans a minute | times as fast | CPU seconds a scan | largest process, GB |")
    print("|---|---|---|---|---|---|")
    for name, cost in rows.items():
        speed = f"{scans * 60 / cost.seconds:.1f} | {each * scans / cost.seconds:.1f}"
        print(f"| {name} | {cost.seconds / 60:.1f} | {speed} | {cost.cpu / scans:.1f} | {cost.memory:.2f} |")
    counts = dict(tables[0]["status"].value_counts())
    same = "the same" if tables[0].equals(tables[1]) else "NOT the same"
    print(f"\ncases.csv: {counts['done']} done, {counts['failed']} failed; {same} with one job and with two.")
    load, threads = os.getloadavg()[0], os.environ.get("OMP_NUM_THREADS", "not set")
    print(f"{usable_cores()} cores, load {load:.1f} at the end, OMP_NUM_THREADS {threads}.")


if __name__ == "__main__":
    main()
