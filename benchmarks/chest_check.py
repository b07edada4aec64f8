"""Is it a chest? Aerated lung as a share of the body in real slices, of chests and of other regions.

chest_check.md.

python benchmarks/chest_check.py ARRAYS [FILES...]: ARRAYS is a folder with the competition's arrays (any
size), FILES are DICOM slices of other regions.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
from pydicom.pixels import apply_modality_lut, pixel_array
from scipy import ndimage

from lungseg_utils.core.classes import BACKGROUND
from lungseg_utils.data.phantom import phantom_volume
from lungseg_utils.data.similarity import infer_volumes
from lungseg_utils.report.quality import CHEST_SLICE, CHEST_VOLUME, aerated_share

LUNG_SHARE = (
    0.02  # of the picture, labelled as lung, from which a single slice is counted as one of the chest
)


def real_slices(folder: Path) -> pd.DataFrame:
    """Kind, group (the volume) and aerated share of each slice of the competition's arrays."""
    rows = []
    for source in ("medseg", "radiopedia"):
        images = np.load(folder / f"images_{source}.npy", mmap_mode="r")
        masks = np.load(folder / f"masks_{source}.npy", mmap_mode="r")
        volumes = infer_volumes(images[..., 0]) if source == "radiopedia" else np.arange(len(images))
        for image, mask, volume in zip(images, masks, volumes, strict=True):
            lung = 1 - float(np.asarray(mask[..., BACKGROUND], float).mean())
            kind = "chest" if lung >= LUNG_SHARE else "little lung" if lung else "belly and neck"
            rows.append((f"{source}: {kind}", f"{source} {volume}", aerated_share(np.asarray(image[..., 0]))))
    return pd.DataFrame(rows, columns=["kind", "volume", "share"])


def file_slices(paths: list[Path]) -> list[tuple[str, float]]:
    """Aerated share of DICOM files."""
    found = []
    for path in paths:
        dataset = pydicom.dcmread(path, force=True)
        hu = apply_modality_lut(pixel_array(dataset), dataset)
        region = str(dataset.get("BodyPartExamined") or "region not named").lower()
        found.append((f"{path.name}, {region}", aerated_share(hu.reshape(-1, *hu.shape[-2:])[0])))
    return found


def built() -> list[tuple[str, float]]:
    """What looks like a chest to a network: gas in a belly, sinuses in a head, rods in plastic."""
    y, x = np.mgrid[-1:1:256j, -1:1:256j]
    rng = np.random.default_rng(0)
    body = np.where((x / 0.9) ** 2 + (y / 0.7) ** 2 < 1, 40.0, -1000.0)

    def with_holes(
        value: float, holes: list[tuple[float, float, float]], noise: float, body: np.ndarray = body
    ) -> float:
        hu = body.copy()
        for at_x, at_y, radius in holes:
            hu[(x - at_x) ** 2 + (y - at_y) ** 2 < radius**2] = value
        return aerated_share(rng.normal(ndimage.gaussian_filter(hu, 0.7), noise))

    bowel = [(-0.4, -0.2, 0.15), (0.1, -0.3, 0.2), (0.45, 0.1, 0.12)]
    skull = np.where((x / 0.7) ** 2 + (y / 0.9) ** 2 < 1, 1000.0, -1000.0)
    skull[(x / 0.65) ** 2 + (y / 0.85) ** 2 < 1] = 40
    return [
        ("belly with gas, noise 15 HU", with_holes(-970, bowel, 15)),
        ("belly with gas, noise 60 HU", with_holes(-970, bowel, 60)),
        (
            "head with sinuses",
            with_holes(-990, [(-0.2, -0.5, 0.15), (0.2, -0.5, 0.15), (0, -0.2, 0.1)], 20, skull),
        ),
        (
            "plastic with two lung-equivalent rods (-700 HU, 3 cm)",
            with_holes(-700, [(-0.4, 0, 0.08), (0.4, 0, 0.08)], 20),
        ),
        (
            "plastic with rods of air",
            with_holes(-1000, [(-0.4, 0, 0.15), (0.4, 0, 0.15), (0, 0.3, 0.15)], 20),
        ),
    ]


def main(folder: str, *files: str) -> None:
    slices = real_slices(Path(folder))
    table = (
        slices.groupby("kind")
        .share.describe(percentiles=[0.01, 0.05, 0.5, 0.95])
        .drop(columns=["mean", "std"])
    )
    table["below"] = slices.groupby("kind").share.apply(lambda share: int((share < CHEST_SLICE).sum()))
    print(table.round(4).to_string(), "\n")
    volumes = slices[slices.kind.str.startswith("radio")].groupby("volume").share.max()
    print("Fullest slice of each Radiopaedia volume:", volumes.round(3).tolist(), "\n")
    chests = [phantom_volume(np.random.default_rng(seed), 12, 256, (0.1, 0.03))[0] for seed in range(4)]
    print("Fullest slice of four phantoms:", [round(max(map(aerated_share, hu)), 3) for hu in chests], "\n")
    for name, share in [*file_slices([Path(file) for file in files]), *built()]:
        print(f"| {name} | {share:.4f} | {'refused' if share < CHEST_SLICE else 'taken as a slice'} | "
              f"{'refused' if share < CHEST_VOLUME else 'taken as a volume'} |")  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
