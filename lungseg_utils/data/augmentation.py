"""Augmentation pipelines by name.

`none`; `reference`: the slides'; `medical`: what a chest CT can really look like; `scanners`: what people
make of one: other fields of view, windows, 8-bit pictures, low resolution.

A pipeline takes `image`, float32 (H, W) in HU, and `mask`, uint8 (H, W) class index, and returns both at
image_size. Intensities change in HU, before normalisation, so that every number below has a meaning on the
scanner.
"""

import albumentations as A
import cv2
import numpy as np

from lungseg_utils.core.classes import BACKGROUND, LESIONS, LUNG_OTHER, LUNG_WINDOW
from lungseg_utils.core.files import InputError
from lungseg_utils.data.grey import AIR_HU, fit_grey

AUGMENTATIONS = ("none", "reference", "medical", "scanners")
RESIZES = ("nearest", "area")
FRAMES = ("slice", "body")


# Two loader workers already share the cores; OpenCV's own threads would only fight them.
cv2.setNumThreads(0)


class ScannerJitter(A.ImageOnlyTransform):
    """Differences between scanners and exports, in HU.

    An offset, a contrast gain, a gamma inside the lung window, and noise.

    Args: offset (largest shift, HU), gain (largest relative change about -500 HU), gamma (largest log2
    exponent), noise (largest standard deviation of white noise, HU), p (probability). Each is drawn
    uniformly. MedSeg's HU are estimates per slice, so that offsets of some tens of HU between slices are to
    be expected.
    """

    def __init__(
        self, offset: float = 40.0, gain: float = 0.1, gamma: float = 0.2, noise: float = 25.0, p: float = 0.8
    ):
        super().__init__(p=p)
        self.offset, self.gain, self.gamma, self.noise = offset, gain, gamma, noise

    def apply(self, img: np.ndarray, **_) -> np.ndarray:
        """One slice (H, W, 1)."""
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


class Unsharp(A.ImageOnlyTransform):
    """A soft kernel or a lower resolution, either alike.

    Gaussian of sigma 0.4 to 1.6 pixels; 0.5 to 0.9 of the pixels a side.

    albumentations' own take float images to lie between 0 and 1, and clip.
    """

    def __init__(self, p: float = 0.2):
        super().__init__(p=p)

    def apply(self, img: np.ndarray, **_) -> np.ndarray:
        """One slice (H, W)."""
        draw = self.random_generator.uniform
        if draw() < 0.5:
            return cv2.GaussianBlur(img, (0, 0), draw(0.4, 1.6))
        few = round(img.shape[0] * draw(0.5, 0.9))
        return cv2.resize(cv2.resize(img, (few, few), interpolation=cv2.INTER_AREA), img.shape[::-1])


class Picture(A.ImageOnlyTransform):
    """A slice that went through 8 bits and was read back as `lungseg predict` reads a picture.

    See grey.fit_grey.

    Some window of low HU (-1400 to -1000) to high (50 to 500), 256 grey levels, with probability `equalise` a
    local contrast equalisation (CLAHE, Zuiderveld 1994: clip limit 1 to 4, 4 to 12 tiles a side), then the
    estimate of the HU, which errs most where the contrast was equalised. A slice in which it finds no body or
    no air stays as it was.
    """

    def __init__(self, equalise: float = 0.7, p: float = 0.3):
        super().__init__(p=p)
        self.equalise = equalise

    def apply(self, img: np.ndarray, **_) -> np.ndarray:
        """One slice (H, W)."""
        draw = self.random_generator.uniform
        low, high = draw(-1400, -1000), draw(50, 500)
        grey = np.rint(np.clip((img - low) / (high - low), 0, 1) * 255).astype(np.uint8)
        if draw() < self.equalise:
            tiles = int(self.random_generator.integers(4, 13))
            grey = cv2.createCLAHE(draw(1, 4), (tiles, tiles)).apply(grey)
        try:
            return fit_grey([grey]).hu(grey).astype(np.float32)
        except InputError:
            return img


def check_augmentation(name: str) -> None:
    """Raises InputError for a name that is not in AUGMENTATIONS."""
    if name not in AUGMENTATIONS:
        raise InputError(f"augmentation is {name!r}; expected one of {', '.join(AUGMENTATIONS)}.")


def check_resize(resize: str) -> None:
    """Raises InputError for a name that is not in RESIZES."""
    if resize not in RESIZES:
        raise InputError(f"resize is {resize!r}; expected one of {', '.join(RESIZES)}.")


def check_frame(frame: str) -> None:
    """Raises InputError for a name that is not in FRAMES."""
    if frame not in FRAMES:
        raise InputError(f"frame is {frame!r}; expected one of {', '.join(FRAMES)}.")


def build_augmentation(
    name: str, image_size: int, slice_size: int = 512, resize: str = "nearest"
) -> A.Compose:
    """A pipeline by name.

    `reference` is the slides': any rotation, a crop of 75 to 100 % of the side (384 to 512 pixels of 512), a
    mirror image; nearest-neighbour interpolation. `medical` stays with what a patient in a scanner can look
    like: rotations up to 15 degrees, scale and position, mild elastic deformation (breathing), a mirror
    image, and ScannerJitter; crops keep at least 85 % of the side, since MedSeg's slices are cropped around
    the body already. Images are interpolated linearly, masks never. `scanners` adds to it: one slice in four
    is shrunk to 0.45 to 1 of its size in air and one in five is magnified up to 1.4 times, three in ten pass
    through a `Picture`, few are blurred or of low resolution, and ScannerJitter goes further.

    Args:
        name: One of AUGMENTATIONS.
        image_size: Pixels a side of the result.
        slice_size: Pixels a side of the slices.
        resize: `area` averages the area that a pixel covers wherever slices shrink; `nearest` is the slides'
            (`none`), linear where slices are augmented.

    Raises:
        InputError: For an unknown name.
    """
    check_resize(resize)
    shrink = {"area_for_downscale": "image"} if resize == "area" else {}
    nearest = {"interpolation": cv2.INTER_NEAREST}
    edge = {"border_mode": cv2.BORDER_REPLICATE}
    size = (image_size, image_size)
    if name == "none":
        steps = [A.Resize(*size, **shrink, **({} if shrink else nearest))]
    elif name == "reference":
        steps = [
            A.Rotate(limit=360, p=0.9, **edge, **nearest),
            A.RandomSizedCrop((round(0.75 * slice_size), slice_size), size=size, **nearest),
            A.HorizontalFlip(p=0.5),
        ]
    elif name == "medical":
        steps = [
            A.Affine(rotate=(-15, 15), scale=(0.9, 1.1), translate_percent=(-0.05, 0.05), p=0.9, **edge),
            A.RandomSizedCrop((round(0.85 * slice_size), slice_size), size=size, **shrink),
            A.ElasticTransform(alpha=image_size / 8, sigma=image_size / 32, p=0.2, **edge),
            A.HorizontalFlip(p=0.5),
            ScannerJitter(),
        ]
    elif name == "scanners":
        turn = {"rotate": (-15, 15), "keep_ratio": True}
        air = {"border_mode": cv2.BORDER_CONSTANT, "fill": AIR_HU, "fill_mask": BACKGROUND}
        usual = A.Affine(scale=(0.9, 1.1), translate_percent=(-0.05, 0.05), p=1.0, **turn, **edge)
        wide = A.Affine(scale=(0.45, 1.0), translate_percent=(-0.1, 0.1), p=0.5, **turn, **air)
        tight = A.Affine(scale=(1.1, 1.4), translate_percent=(-0.05, 0.05), p=0.4, **turn, **edge)
        steps = [
            A.OneOf([usual, wide, tight], p=1.0),
            A.RandomSizedCrop((round(0.85 * slice_size), slice_size), size=size, **shrink),
            A.ElasticTransform(alpha=image_size / 8, sigma=image_size / 32, p=0.2, **edge),
            A.HorizontalFlip(p=0.5),
            Unsharp(),
            ScannerJitter(offset=70, gain=0.15, gamma=0.3, noise=40),
            Picture(),
        ]
    else:
        raise InputError(f"augmentation is {name!r}; expected one of {', '.join(AUGMENTATIONS)}.")
    return A.Compose(steps, strict=True)


def augment(
    pipeline: A.Compose, hu: np.ndarray, labels: np.ndarray, key: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """One slice through the pipeline, every draw a pure function of the key.

    The number of loader workers and the order of the slices change nothing, and no two epochs repeat each
    other.

    Args:
        pipeline: From `build_augmentation`.
        hu: float32 (H, W).
        labels: Class index, uint8 (H, W).
        key: (seed, epoch, slice).

    Returns:
        The slice and its labels, of the pipeline's size.
    """
    pipeline.set_random_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
    out = pipeline(image=hu, mask=labels)
    return out["image"], out["mask"]


def paste_lesions(
    hu: np.ndarray, labels: np.ndarray, other_hu: np.ndarray, other_labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The slice with another's lesions where both show lung: other lung here, a lesion of known kind there.

    (Copy-paste augmentation: Ghiasi et al. 2021, arXiv:2012.07177.)

    Args:
        hu: float32 (H, W).
        labels: Class index, uint8 (H, W).
        other_hu: Of the slice that gives its lesions, as hu.
        other_labels: As labels.

    Returns:
        Slice and labels, new arrays.
    """
    taken = (labels == LUNG_OTHER) & np.isin(other_labels, LESIONS)
    return np.where(taken, other_hu, hu), np.where(taken, other_labels, labels)
