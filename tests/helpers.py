"""What several test modules share.

Devices and settings, scans built by hand, segmenters that need no network.
"""

import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import pydicom
import pytest
import torch
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    generate_uid,
)

from lungseg_utils.core.classes import BACKGROUND, CONSOLIDATION, GROUND_GLASS, LUNG_OTHER
from lungseg_utils.core.device import Device
from lungseg_utils.core.files import WINDOWS
from lungseg_utils.core.image import body_mask
from lungseg_utils.data.phantom import phantom_volume
from lungseg_utils.data.preprocessing import Preprocessing
from lungseg_utils.inference.settings import InferenceSettings
from lungseg_utils.scans.orientation import AS_IT_IS, LPS, ArrayFrame
from lungseg_utils.scans.scan import Scan
from lungseg_utils.training.config import TrainingConfig

CPU = Device("cpu", "tests", "tests")


TINY_CONFIG = TrainingConfig(
    encoder="resnet18",
    encoder_weights="none",
    image_size=32,
    epochs=2,
    batch_size=8,
    augmentation="reference",
)


# Processes that can be killed or work together: they come from a server that has imported torch and the
# package once.
SERVER = multiprocessing.get_context("spawn" if WINDOWS else "forkserver")
if not WINDOWS:
    SERVER.set_forkserver_preload(["lungseg_utils.training.launcher"])

LONG = pytest.mark.skipif("LUNGSEG_LONG" not in os.environ, reason="takes minutes: LUNGSEG_LONG=1 runs it")
no_windows = pytest.mark.skipif(WINDOWS, reason="Windows has no such links, signals, rights or forks")


LANDMARK = (4, 30, 25)  # slice, row, column: to the head, to the front, to the patient's right


def chest(slices: int = 6, height: int = 100, width: int = 112) -> np.ndarray:
    """HU int16 (N, H, W): air, a body of fat and muscle, two lungs, and one voxel of bone like no other."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    slice_ = np.full((height, width), -1000.0)
    slice_[(x / 0.9) ** 2 + (y / 0.8) ** 2 < 1] = -100
    slice_[(x / 0.8) ** 2 + (y / 0.7) ** 2 < 1] = 50
    for side in (-1, 1):
        slice_[((x + side * 0.4) / 0.3) ** 2 + (y / 0.5) ** 2 < 1] = -850
    slice_[(x / 0.08) ** 2 + ((y + 0.1) / 0.1) ** 2 < 1] = -1000  # the windpipe
    hu = np.rint(slice_ + rng.normal(0, 8, (slices, height, width))).astype(np.int16)
    hu[min(LANDMARK[0], slices - 1), LANDMARK[1], LANDMARK[2]] = 1200
    return hu


def marked(scan) -> np.ndarray:
    """Labels of scan.hu's grid.

    Ground glass at the landmark, consolidation beside it, lung where it is dark.
    """
    labels = np.where((scan.hu > -950) & (scan.hu < -700), LUNG_OTHER, BACKGROUND).astype(np.uint8)
    place = np.unravel_index(scan.hu.argmax(), scan.hu.shape)
    labels[place] = GROUND_GLASS
    labels[place[0], place[1], place[2] + 1] = CONSOLIDATION
    return labels


AS_IS = Preprocessing(low=-1, high=1, mean=-500, std=500, fit_on="all")


class ByValue(torch.nn.Module):
    """A network that answers by each pixel's z-score: the class whose own value is nearest.

    Notes what it is given.
    """

    values = torch.tensor([0.2, 0.9, -0.6, 1.3])[:, None, None]

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, images):
        self.seen.append(images)
        return -40 * (images - self.values).abs()


@dataclass
class FakeSegmenter:
    """Answers by the HU of each pixel, as sure as `confidence` says; notes the shapes that it is given."""

    confidence: float = 0.97
    settings: InferenceSettings = InferenceSettings()
    config: dict = field(default_factory=dict)
    seen: list = field(default_factory=list)

    def classes(self, hu):
        return hu % 4

    def batches(self, hu, batch_size=8, description=None, pixel=(1.0, 1.0)):
        for start in range(0, len(hu), batch_size):
            batch = hu[start : start + batch_size]
            self.seen.append(batch.shape)
            probabilities = np.full((len(batch), 4, *batch.shape[1:]), (1 - self.confidence) / 3, np.float32)
            np.put_along_axis(probabilities, self.classes(batch)[:, None].astype(int), self.confidence, 1)
            yield slice(start, start + len(batch)), probabilities


class Reader(FakeSegmenter):
    """Finds lung by body and air, as a reader would, and lesions by what is denser in it."""

    ranges = {LUNG_OTHER: (-1100, -600), GROUND_GLASS: (-600, -450), CONSOLIDATION: (-450, -400)}

    def classes(self, hu):
        labels = np.full(hu.shape, BACKGROUND)
        for picture, label in zip(hu, labels):
            body = body_mask(picture)
            for value, (low, high) in self.ranges.items():
                label[body & (picture >= low) & (picture < high)] = value
        return labels


class Blind(FakeSegmenter):
    """Sees one class everywhere: background, unless `answer` says another."""

    answer = BACKGROUND

    def classes(self, hu):
        return np.full(hu.shape, self.answer)


@cache
def phantom_chest() -> np.ndarray:
    """Twelve phantom slices of 96 px, 13.5 mm apart: HU int16 (12, 96, 96)."""
    return phantom_volume(np.random.default_rng(3), 12, 96, (0.1, 0.03))[0].round().astype(np.int16)


def chest_scan(slices=12, spacing=(13.5, 3.7, 3.7), notes=()) -> Scan:
    """The middle `slices` of `phantom_chest`, as of an array."""
    hu = phantom_chest()[6 - slices // 2 :][:slices]
    return Scan(hu, spacing, None, "array", True, None, notes, ArrayFrame(hu.shape, AS_IT_IS))


SPACING = (5.0, 0.75, 0.9)  # mm: slices, rows, columns


ORIGIN = np.array([-40.5, -30.25, 110.0])


STUDY, FRAME = generate_uid(entropy_srcs=["study"]), generate_uid(entropy_srcs=["frame"])


def write_series(
    folder,
    hu,
    order=(0, 1, 2),
    signs=(1, 1, 1),
    directions=LPS,
    spacing=SPACING,
    step=None,
    series="1",
    skip=(),
    change=lambda dataset, i: None,
    strict=True,
):
    """Write hu (N, H, W) as DICOM slices whose axes are hu's in another order and direction.

    Voxels keep their place.

    step: (3,), mm from slice to slice, where it is not along the normal. skip: slices that are left out.
    """
    folder.mkdir(exist_ok=True)
    vectors = directions * np.array(spacing)[:, None]  # hu's indices to mm
    if step is not None:
        vectors[0] = step
    file = hu[tuple(slice(None, None, sign) for sign in signs)].transpose(order)
    origin = ORIGIN + sum(
        v * (n - 1) for v, n, sign in zip(vectors, hu.shape, signs, strict=True) if sign < 0
    )
    along = (vectors * np.array(signs)[:, None])[list(order)]
    between = np.linalg.norm(along, axis=1)
    for i, slice_ in enumerate(file):
        if i in skip:
            continue
        dataset = pydicom.Dataset()
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID, dataset.Modality = CTImageStorage, "CT"
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.StudyInstanceUID, dataset.FrameOfReferenceUID = STUDY, FRAME
        dataset.SeriesInstanceUID = generate_uid(entropy_srcs=["series", series])
        dataset.SOPInstanceUID = generate_uid(entropy_srcs=["slice", series, str(i)])
        dataset.SeriesNumber, dataset.InstanceNumber = series, i + 1
        dataset.PatientName, dataset.PatientID = "Nobody", "0"
        dataset.Rows, dataset.Columns = slice_.shape
        dataset.PixelSpacing = [f"{between[1]:.6f}", f"{between[2]:.6f}"]
        dataset.ImageOrientationPatient = [
            f"{v:.10f}" for v in (*along[2] / between[2], *along[1] / between[1])
        ]
        dataset.ImagePositionPatient = [f"{v:.8f}" for v in origin + i * along[0]]
        dataset.SliceThickness = "4.5"
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = (
            16,
            12,
            11,
            0,
        )
        dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = 1, -1100, "HU"
        dataset.PixelData = (slice_ + 1100).astype("<u2").tobytes()
        change(dataset, i)
        # Names say nothing of the order.
        dataset.save_as(folder / f"{(i * 7 + 3) % 101:03d}{series}", enforce_file_format=strict)
    return folder


RAS = LPS * [-1, -1, 1]  # hu's axes in the coordinates that NIfTI counts in


def affine_of(directions=RAS, spacing=SPACING, origin=(-20.0, 35.0, 100.0)):
    """(4, 4): hu's indices (slice, row, column) to mm, right-anterior-superior."""
    affine = np.eye(4)
    affine[:3, :3] = (directions * np.array(spacing)[:, None]).T
    affine[:3, 3] = origin
    return affine


def wait_for(happened: Callable[[], bool], seconds: float = 900) -> None:
    """Return as soon as it has happened; fail after far longer than a busy machine takes."""
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing happened in {seconds} s")
        time.sleep(0.01)
