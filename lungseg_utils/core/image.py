"""What is done with one slice anywhere: its size, its thumbnail, its largest piece, the body in it."""

import base64

import cv2
import numpy as np
from scipy import ndimage

from lungseg_utils.core.npy import chunks

THINNED = 256  # pixels a side
SOLID = -400  # HU; above it is body, below it air or aerated lung
LEAST_OUTSIDE = 0.1  # of a picture's edge is air, if it shows more than the body
CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
FRAME_RIM = 0.02  # of the body's longer side, on each side
LEAST_FRAME = 1 / 3  # of a slice's side: what is smaller than that is no chest, and to be seen as small
AERATED = (-930, -500)  # HU of aerated lung: darker is plain gas, outside and in bowel, sinuses and windpipe


def thumbnails(images: np.ndarray) -> np.ndarray:
    """Small pictures of slices, by the mean of the area that each pixel covers.

    Args:
        images: (N, H, W), of any number type.

    Returns:
        float32 (N, 64, 64).
    """
    small = np.empty((len(images), 64, 64), np.float32)
    for first, chunk in chunks(images):
        for index, image in enumerate(chunk, first):
            cv2.resize(
                np.asarray(image, np.float32), (64, 64), dst=small[index], interpolation=cv2.INTER_AREA
            )
    return small


def resize_nearest(slices: np.ndarray, size: int) -> np.ndarray:
    """Slices or labels by the nearest pixel: the one that OpenCV takes in validation.

    Args:
        slices: (N, H, W), of any type.
        size: Pixels a side of the result.

    Returns:
        (N, size, size), of the same type.
    """

    def nearest(side: int) -> np.ndarray:
        return np.minimum(np.floor(np.arange(size) * (1 / (size / side))).astype(int), side - 1)

    rows, columns = map(nearest, slices.shape[1:])
    return slices[:, rows[:, None], columns]


def largest_piece(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The largest piece of mask, bool (H, W), thin bridges cut, and the same with its holes filled.

    Both empty if it is.
    """
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(_without_bridges(mask), connectivity=4)
    sizes = stats[:, cv2.CC_STAT_AREA]
    sizes[0] = 0
    piece = (pieces == sizes.argmax()) & (pieces > 0)
    return piece, holes_filled(piece)


def _without_bridges(mask: np.ndarray) -> np.ndarray:
    """mask, bool (H, W), opened by two pixels: uint8 (H, W)."""
    return cv2.morphologyEx(
        mask.astype(np.uint8),
        cv2.MORPH_OPEN,
        CROSS,
        iterations=2,
        borderType=cv2.BORDER_CONSTANT,
        borderValue=0,
    )


def holes_filled(mask: np.ndarray) -> np.ndarray:
    """mask, bool (H, W), and all that it encloses."""
    outside = np.pad(~mask, 1, constant_values=True).astype(np.uint8)
    _, around = cv2.connectedComponents(outside, connectivity=4)
    return (around != around[0, 0])[1:-1, 1:-1]


def enclosed(piece: np.ndarray) -> np.ndarray:
    """piece, bool (H, W), with its holes filled.

    Also those that the picture's edge cuts open, as lungs in a tight crop.

    On each side of the picture the piece is taken to be closed from its first to its last pixel there.
    """
    closed = np.pad(piece, 1)
    for edge, inner in (
        (closed[0], closed[1]),
        (closed[-1], closed[-2]),
        (closed[:, 0], closed[:, 1]),
        (closed[:, -1], closed[:, -2]),
    ):
        touched = np.flatnonzero(inner)
        if len(touched):
            edge[touched[0] : touched[-1] + 1] = True
    return holes_filled(closed)[1:-1, 1:-1]


def body_mask(hu: np.ndarray) -> np.ndarray:
    """The largest piece of solid tissue with all that it encloses, bool (H, W): the trunk with the lungs.

    hu: (H, W).

    An opening by two pixels takes the table and sleeves away, a closing mends a wall that noise broke: meant
    for slices thinned to about 256 px. Where a tight crop cuts the lungs open, they count as the body by
    their values.
    """
    smooth = _smooth(hu)
    body = _trunk(smooth)
    if not body.any() or shows_outside(smooth):
        return body
    return body | _aerated_pieces(smooth, ~body & (smooth < SOLID))


def _smooth(hu: np.ndarray) -> np.ndarray:
    """hu, (H, W), less its noise: float32, a Gaussian of one pixel."""
    return cv2.GaussianBlur(np.asarray(hu, np.float32), (9, 9), 1, borderType=cv2.BORDER_REFLECT)


def _trunk(smooth: np.ndarray) -> np.ndarray:
    """`body_mask` of a picture that shows the body's outside."""
    piece, _ = largest_piece(smooth > SOLID)
    wall = cv2.morphologyEx(np.pad(piece, 4).astype(np.uint8), cv2.MORPH_CLOSE, CROSS, iterations=4)
    return enclosed(wall[4:-4, 4:-4].astype(bool) | piece)


def _aerated_pieces(smooth: np.ndarray, where: np.ndarray) -> np.ndarray:
    """The pieces of `where`, (H, W), that are large and have the HU of aerated lung: bool (H, W)."""
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(where.astype(np.uint8), connectivity=4)
    lungs = np.zeros(where.shape, bool)
    for piece in range(1, len(stats)):
        if stats[piece, cv2.CC_STAT_AREA] <= where.size / 100:
            continue
        here = pieces == piece
        if AERATED[0] < np.median(smooth[here]) < AERATED[1]:
            lungs |= here
    return lungs


def shows_outside(hu: np.ndarray) -> bool:
    """Whether a picture, (H, W) in HU, goes on beyond the body: some of its edge is plain air."""
    edge = np.r_[hu[0], hu[-1], hu[:, 0], hu[:, -1]]
    return bool((edge < AERATED[0]).mean() > LEAST_OUTSIDE)


def body_with_rim(hu: np.ndarray) -> np.ndarray:
    """The body and a little around it, bool (H, W) for hu (H, W).

    All that a picture beside burned-in text may show.
    """
    step = max(round(max(hu.shape) / THINNED), 1)
    body = ndimage.binary_dilation(body_mask(hu[::step, ::step]), iterations=3)
    return np.kron(body, np.ones((step, step), bool))[: hu.shape[0], : hu.shape[1]]


def body_frame(square: np.ndarray) -> tuple[slice, slice]:
    """The smallest frame around the body that has the slice's proportions: a body in much air is seen larger.

    A rim of FRAME_RIM is left around the body, and no frame is smaller than LEAST_FRAME. What may be lung
    outside the body widens the frame, so that nothing of a picture of lungs alone is lost.

    Args:
        square: A slice in HU, (H, W), a square in mm.

    Returns:
        Rows and columns, within the slice; all of them if there is no body, or no air around it.
    """
    whole = slice(0, square.shape[0]), slice(0, square.shape[1])
    step = max(round(max(square.shape) / THINNED), 1)
    smooth = _smooth(square[::step, ::step])
    if not shows_outside(smooth):
        return whole
    shown = _trunk(smooth)
    beside = ~shown & (smooth > AERATED[0]) & (smooth < AERATED[1])
    shown |= _aerated_pieces(smooth, _without_bridges(beside))
    if not shown.any():
        return whole
    used = [np.flatnonzero(shown.any(axis)) for axis in (1, 0)]
    ends = [(each[0] / side, (each[-1] + 1) / side) for each, side in zip(used, shown.shape, strict=True)]
    longer = max(last - first for first, last in ends)
    share = min(max(longer * (1 + 2 * FRAME_RIM), LEAST_FRAME), 1)
    frame = []
    for (first, last), side in zip(ends, square.shape, strict=True):
        length = round(share * side)
        start = round((first + last - share) / 2 * side)
        frame.append(slice(start := min(max(start, 0), side - length), start + length))
    return frame[0], frame[1]


def lung_box(lung: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns around all lung, bool (n, H, W), with a tenth more on each side; all without lung."""
    box = []
    for axes, side in (((0, 2), lung.shape[1]), ((0, 1), lung.shape[2])):
        used = np.flatnonzero(lung.any(axes)) if lung.any() else np.array([0, side - 1])
        margin = (used[-1] - used[0]) // 10 + 4
        box.append(slice(max(used[0] - margin, 0), min(used[-1] + margin + 1, side)))
    return box[0], box[1]


def shrink_by_area(slices: np.ndarray, size: int) -> np.ndarray:
    """Slices (N, H, W) as float32 (N, size, size): a pixel is the mean of the area it covers.

    Linear if enlarged.
    """
    small = np.empty((len(slices), size, size), np.float32)
    how = cv2.INTER_AREA if size < min(slices.shape[1:]) else cv2.INTER_LINEAR
    for slice_, out in zip(slices, small, strict=True):
        cv2.resize(np.asarray(slice_, np.float32), (size, size), dst=out, interpolation=how)
    return small


def data_address(picture: bytes, kind: str = "jpeg") -> str:
    """A picture as an address within HTML.

    Args:
        picture: The file's bytes.
        kind: jpeg or png.

    Returns:
        The address.
    """
    return f"data:image/{kind};base64," + base64.b64encode(picture).decode()
