"""Augmentation pipelines by name: `none`, `reference` (the slides') and `medical` (what a chest CT can really look like).

A pipeline takes `image`, float32 (H, W) in HU, and `mask`, uint8 (H, W) class index, and returns both at image_size.
Intensities change in HU, before normalisation, so that every number below has a meaning on the scanner.
"""

import albumentations as A
import cv2
import numpy as np

from lungseg_utils.core.classes import LUNG_WINDOW
from lungseg_utils.core.files import InputError

AUGMENTATIONS = ("none", "reference", "medical")


# Two loader workers already share the cores; OpenCV's own threads would only fight them.
cv2.setNumThreads(0)


class ScannerJitter(A.ImageOnlyTransform):
    """Differences between scanners and exports, in HU: an offset, a contrast gain, a gamma inside the lung window, and noise.

    Args: offset (largest shift, HU), gain (largest relative change about -500 HU), gamma (largest log2 exponent),
    noise (largest standard deviation of white noise, HU), p (probability). Each is drawn uniformly.
    MedSeg's HU are estimates per slice, so that offsets of some tens of HU between slices are to be expected.
    """

    def __init__(
        self, offset: float = 40.0, gain: float = 0.1, gamma: float = 0.2, noise: float = 25.0, p: float = 0.8
    ):
        super().__init__(p=p)
        self.offset, self.gain, self.gamma, self.noise = offset, gain, gamma, noise

    def apply(self, img: np.ndarray, **_) -> np.ndarray:
        draw = self.random_generator.uniform
        low, high = LUNG_WINDOW
        position = np.clip((img - low) / (high - low), 0, 1)
        bent = (
            position ** np.float32(2 ** draw(-self.gamma, self.gamma)) - position
        )  # zero outside the window
        hu = img + bent * (high - low)
        hu = (hu + 500) * (1 + draw(-self.gain, self.gain)) - 500 + draw(-self.offset, self.offset)
        noise = self.random_generator.standard_normal(img.shape, dtype=np.float32) * draw(0, self.noise)
        return (hu + noise).astype(np.float32)


def build_augmentation(name: str, image_size: int, slice_size: int = 512) -> A.Compose:
    """Pipeline `name` for slices of slice_size pixels a side; the result has image_size pixels a side.

    `reference` is the slides': any rotation, a crop of 75 to 100 % of the side (384 to 512 pixels of 512), a mirror image;
    nearest-neighbour interpolation. `medical` stays with what a patient in a scanner can look like: rotations up to
    15 degrees, scale and position, mild elastic deformation (breathing), a mirror image, and ScannerJitter; crops keep at
    least 85 % of the side, since MedSeg's slices are cropped around the body already. Images are interpolated linearly,
    masks never. Raises InputError for an unknown name.
    """
    nearest = {"interpolation": cv2.INTER_NEAREST}
    edge = {"border_mode": cv2.BORDER_REPLICATE}
    size = (image_size, image_size)
    if name == "none":
        steps = [A.Resize(*size, **nearest)]
    elif name == "reference":
        steps = [
            A.Rotate(limit=360, p=0.9, **edge, **nearest),
            A.RandomSizedCrop((round(0.75 * slice_size), slice_size), size=size, **nearest),
            A.HorizontalFlip(p=0.5),
        ]
    elif name == "medical":
        steps = [
            A.Affine(rotate=(-15, 15), scale=(0.9, 1.1), translate_percent=(-0.05, 0.05), p=0.9, **edge),
            A.RandomSizedCrop((round(0.85 * slice_size), slice_size), size=size),
            A.ElasticTransform(alpha=image_size / 8, sigma=image_size / 32, p=0.2, **edge),
            A.HorizontalFlip(p=0.5),
            ScannerJitter(),
        ]
    else:
        raise InputError(f"augmentation is {name!r}; expected one of {', '.join(AUGMENTATIONS)}.")
    return A.Compose(steps, strict=True)


def augment(
    pipeline: A.Compose, hu: np.ndarray, labels: np.ndarray, key: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """One slice through the pipeline, every draw a pure function of key = (seed, epoch, slice).

    hu: float32 (H, W); labels: uint8 (H, W). The number of loader workers and the order of the slices change nothing,
    and no two epochs repeat each other.
    """
    pipeline.set_random_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
    out = pipeline(image=hu, mask=labels)
    return out["image"], out["mask"]
