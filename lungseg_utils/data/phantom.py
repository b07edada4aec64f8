"""A synthetic chest CT in the competition's format.

The demo, the fixture of the tests, the data of the class.

anatomy.py makes the patients; here they get disease, a scanner, a reader's labels and files. Nothing is a
real scan: all numbers were tuned until the classes' shares and HU matched the competition's arrays.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from scipy import ndimage

from lungseg_utils.core.classes import BACKGROUND, CONSOLIDATION, GROUND_GLASS, LUNG_OTHER, NUM_CLASSES
from lungseg_utils.core.files import InputError, atomic_write, replace_folder, resolve_path
from lungseg_utils.core.image import body_mask
from lungseg_utils.core.progress import tqdm
from lungseg_utils.data.anatomy import AIR, OUTSIDE, Patient, Section, draw_section, make_patient
from lungseg_utils.data.arrays import FILES

GENERATOR = 1  # raise it when the same arguments give other pixels: an older data/phantom is then made anew
STAMP = "phantom.json"  # the generator and the arguments of the set that it lies with
NAMES = tuple(name for names in FILES.values() for name in names if name)
SLICE_STEP = 13.5  # mm between slices; wider steps would blur the line between a new slice and a new volume
LEAST_STEP = 150.0  # HU, mean absolute difference where a new volume begins; 138 to 360 in the real data
# Shares of the lung that are (ground glass, consolidation), one pair a volume: as uneven as in the real nine.
BURDENS = (
    (0.12, 0.04), (0.007, 0.018), (0.003, 0.02), (0.14, 0.006), (0.05, 0.015), (0.002, 0.0), (0.01, 0.0),
    (0.02, 0.0), (0.22, 0.0),
)  # fmt: skip
# the last MedSeg-like slice shows this one's patient, across the reference split, as in the real data
TWIN_OF = 3
# slices from which a set has a twin: 24 validate, the twin is left out, one is left to train on
TWIN_FROM = 26
PARTS = {"medseg": 0, "test": 1}  # of the seed, for each source of single slices


def _risk(p: Patient, s: Section) -> np.ndarray:
    """(2, size, size), log scale: the higher, the earlier ground glass, or consolidation, comes."""
    c, risk = s.canvas, np.full((2, *s.depth.shape), OUTSIDE, np.float32)
    for x, y, z, radius, tall, solid in p.patches:
        away = 0.5 * ((c.z - z) / tall) ** 2
        if away < 3:
            bump = -away - ((c.x - x) ** 2 + (c.y - y) ** 2) / radius**2
            risk[0] = np.maximum(risk[0], bump)
            risk[1] = np.maximum(risk[1], bump) if solid else risk[1]
    risk += (
        0.45 * s.texture[:2] + 0.3 * s.texture[2] - np.clip(s.depth, 0, 40) / 35
    )  # ragged, and along the pleura
    return risk


def _limits(risks: np.ndarray, burden: tuple[float, float]) -> list[float]:
    """Risks above which lung is diseased, so that all slices together carry the burden.

    risks: (2, lung pixels).
    """
    shares = (min(sum(burden), 0.95), burden[1])  # consolidation lies inside ground glass
    pairs = zip(risks, shares, strict=True)
    return [
        max(float(np.quantile(risk, 1 - share)), -3.0) if share and risk.size else np.inf
        for risk, share in pairs
    ]


def _fill(p: Patient, s: Section, risk: np.ndarray, limits: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Fill the lungs with tissue, vessels and lesions: HU and labels, (size, size) each."""
    c = s.canvas
    haze, solid = (np.clip((r - limit) * 2.5 + 0.5, 0, 1) for r, limit in zip(risk, limits, strict=True))
    lung = p.lung_hu + 0.5 * c.y + 15 * s.texture[0]  # heavier at the back: the patient lies on it
    lung += haze * np.maximum(p.haze + 60 * s.texture[1] + 80 * np.abs(s.texture[2]) - lung, 0)
    lung += s.vessel * (30 - lung)  # drawn over ground glass, under consolidation
    lung += solid * np.clip(1 - 0.35 * s.texture[2], 0.4, 1) * (30 - lung)  # air stays here and there
    middle = 0.35 * (np.abs(c.x) - 66) + c.along((40, -60), (250, 70)) + 6 * np.sin(c.x / 25 + p.bend[4])
    lung += 130 * np.clip(1 - np.abs(c.y - middle) / max(c.pixel, 1.2), 0, 1)  # fissure
    labels = np.full(c.hu.shape, BACKGROUND, np.uint8)
    labels[s.outline] = LUNG_OTHER
    labels[s.outline & (risk[0] > limits[0])] = GROUND_GLASS
    labels[s.outline & (risk[1] > limits[1] - p.loose)] = CONSOLIDATION
    return c.hu + s.lung * (lung - c.hu), labels


def _scan(rng: np.random.Generator, p: Patient, hu: np.ndarray) -> np.ndarray:
    """What scanner and export do: motion, blur, correlated noise, field of view, 256 grey levels.

    HU, float64.
    """
    size, pixel = len(hu), p.fov / len(hu)
    if rng.random() < 0.08:  # the heart beat or the patient breathed: two positions in one picture
        hu = 0.55 * hu + 0.45 * ndimage.shift(hu, rng.uniform(-3, 3, 2) / pixel, order=1, mode="nearest")
    hu = ndimage.gaussian_filter(hu, p.blur / pixel * 0.6 + 0.25)
    grain = ndimage.gaussian_filter(rng.normal(size=hu.shape), max(0.7 / pixel, 0.45))
    hu = hu + grain * p.noise * min(1.6 / pixel, 1) / grain.std()  # large pixels average the noise away
    hu = AIR + (hu - AIR) * p.gain
    low, high = p.window
    if p.surround is not None:
        unit = (np.arange(size) + 0.5) / size * 2 - 1
        hu[unit[:, None] ** 2 + unit**2 > 1] = p.surround
    return low + (high - low) / 255 * np.clip(np.round((hu - low) / (high - low) * 255), 0, 255)


def render(rng: np.random.Generator, p: Patient, zs: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Slices of a patient at zs (mm), which share the patient's burden.

    HU float64, labels uint8, (zs, size, size).
    """
    sections = [draw_section(p, float(z), size) for z in zs]
    risks = [_risk(p, s) for s in sections]
    in_lung = np.concatenate([risk[:, s.outline] for risk, s in zip(risks, sections, strict=True)], axis=1)
    limits = _limits(in_lung, p.burden)
    pairs = [_fill(p, s, risk, limits) for risk, s in zip(risks, sections, strict=True)]
    return np.stack([_scan(rng, p, hu) for hu, _ in pairs]), np.stack([labels for _, labels in pairs])


def with_scanner_extremes(hu: np.ndarray) -> np.ndarray:
    """A slice with what scanners deliver and exports have cut off, for showing what clipping is for.

    Air outside the round field of view (-3024 HU), metal under the skin (3071 HU), dense contrast medium in
    the great veins (900 HU).

    Args:
        hu: (H, W), HU; the original stays as it is.

    Returns:
        float32 (H, W), HU.
    """
    hu = np.array(hu, np.float32)
    rows, columns = np.indices(hu.shape)
    height, width = hu.shape
    hu[(2 * rows / height - 1) ** 2 + (2 * columns / width - 1) ** 2 > 1] = -3024
    body = body_mask(hu)
    down, across = np.flatnonzero(body.any(1)), np.flatnonzero(body.any(0))
    tall, wide = np.ptp(down), np.ptp(across)
    for y, x, radius, value in ((0.13, 0.72, 0.035, 3071), (0.38, 0.46, 0.02, 900)):
        away = np.hypot(rows - (down[0] + y * tall), columns - (across[0] + x * wide))
        hu[away < radius * wide] = value
    return hu


def phantom_slice(rng: np.random.Generator, size: int, move: float = 0) -> tuple[np.ndarray, np.ndarray]:
    """One slice as MedSeg's: mid-thorax, diseased, often cropped.

    Args:
        rng: What the patient is drawn from.
        size: Pixels a side.
        move: mm; another slice of the patient that the same generator would give.

    Returns:
        HU float64 and labels uint8, (size, size) each.
    """
    z = float(np.clip(rng.normal(145, 48), 45, 265))
    sick = rng.beta(0.9, 2.0)
    burden = (max(sick * rng.uniform(0.4, 1), 0.01), sick * rng.uniform(0, 0.45) * (rng.random() < 0.8))
    window, gain = (rng.uniform(-1500, -1050), rng.uniform(170, 380)), rng.uniform(0.92, 1.15)
    known: dict[str, Any] = dict(
        window=window, gain=gain, slop=rng.uniform(0.5, 3), loose=rng.uniform(0, 0.8)
    )
    if rng.random() < 0.72:  # cut out close to the chest, often pulled into a square
        scale = (rng.uniform(0.95, 1.1), rng.uniform(1.05, 1.45))
        known |= dict(fov=rng.uniform(265, 335), scale=scale, shift=rng.uniform(-7, 7, 2))
    else:
        surround = rng.choice(np.array([None, -2000.0, 2000.0]), p=(0.5, 0.35, 0.15))  # dark or bright
        known |= dict(fov=rng.uniform(340, 430), shift=rng.uniform(-25, 25, 2), surround=surround)
    patient = make_patient(rng, (z - 50, z + 50), burden, **known)
    still, moved = rng.spawn(2)
    hu, labels = render(moved if move else still, patient, np.array([z + move]), size)
    if rng.random() < 0.25:
        _burn_text(rng, hu[0], window[1])
    return hu[0], labels[0]


def _burn_text(rng: np.random.Generator, hu: np.ndarray, value: float) -> None:
    """Write into hu (size, size) as a viewer burns in corner text.

    Lines of unreadable glyphs of 3 x 5 cells.
    """
    cell = max(len(hu) // 256, 1)
    for corner in rng.permutation(4)[: rng.integers(1, 4)]:
        view = hu[:: -1 if corner % 2 else 1, :: -1 if corner // 2 else 1]
        for line in range(rng.integers(2, 6)):
            glyphs = rng.random((5, 4 * rng.integers(5, 14))) < 0.55
            glyphs[:, 3::4] = False
            ink = np.kron(glyphs, np.ones((cell, cell), bool))
            place = view[(4 + 7 * line) * cell :, 4 * cell :][: ink.shape[0], : ink.shape[1]]
            place[ink[: place.shape[0], : place.shape[1]]] = value


def phantom_volume(
    rng: np.random.Generator,
    slices: int,
    size: int,
    burden: tuple[float, float],
    before: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """A volume as Radiopaedia's, from base to apex: HU float64 and labels uint8, (slices, size, size) each.

    `burden` is the share of the lung that is (ground glass, consolidation). The first slice is unlike the
    slice `before` (size, size), the end of the volume before it, so that the jump between the two tells
    volumes apart.
    """
    span = min(270.0, SLICE_STEP * (slices - 1))
    for _ in range(60):
        zs = rng.uniform(-25, 295 - span) + np.linspace(0, span, slices)
        circle = rng.random() < 0.75
        window = (-1350.0, 150.0) if circle else (-1030.0, rng.choice((150.0, 230.0, 290.0)))
        scale = (rng.uniform(0.9, 1.1), rng.uniform(0.9, 1.12))
        known = dict(scale=scale, fov=rng.uniform(335, 395) * np.prod(scale) ** 0.5)  # set to fit the patient
        known |= dict(window=window, surround=-2000.0 if circle else None)
        patient = make_patient(rng, burden=burden, **known)
        if (
            before is None
            or _jump(before, render(rng.spawn(1)[0], patient, zs[:1], len(before))[0][0]) > LEAST_STEP
        ):
            break
    return render(rng, patient, zs, size)


def _jump(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference in HU of two (size, size) slices, seen at about 64 pixels."""
    block = max(len(a) // 64, 1)
    return float(np.abs(ndimage.uniform_filter(a - b, block)[::block, ::block]).mean())


def write_phantom(
    out_dir: str | Path,
    *,
    medseg: int = 40,
    volumes: int = 9,
    slices_per_volume: int = 13,
    test: int = 10,
    size: int = 256,
    seed: int = 0,
) -> Path:
    """Write the competition's five arrays, made of phantoms; same seed, same bytes.

    Images are float64 HU (N, size, size, 1), masks uint8 one-hot (N, size, size, 4). phantom.json beside them
    names the generator and these arguments. An older phantom is replaced at the end, and stays as it was if
    anything fails.

    Args:
        out_dir: The folder to write.
        medseg: Slices of single patients.
        volumes: Volumes of neighbouring slices.
        slices_per_volume: Slices in each of them.
        test: Slices without masks.
        size: Pixels a side.
        seed: Of all that is drawn.

    Returns:
        The folder.

    Raises:
        InputError: For impossible numbers, or a folder that holds other files.
    """
    out_dir = resolve_path(out_dir)
    counts = dict(medseg=medseg, volumes=volumes, slices_per_volume=slices_per_volume, test=test)
    _check_arguments(out_dir, counts, size, seed)
    with replace_folder(out_dir) as new:
        _write_arrays(new, **counts, size=size, seed=seed)
        with atomic_write(new / STAMP) as handle:
            handle.write(
                json.dumps({"generator": GENERATOR, **counts, "size": size, "seed": seed}, indent=2) + "\n"
            )
    return out_dir


def kept_labels(test: int, size: int, seed: int) -> np.ndarray:
    """The labels that `write_phantom` keeps back, uint8 (test, size, size): drawn anew, by its arguments."""
    rngs = [np.random.default_rng([seed, PARTS["test"], i]) for i in range(test)]
    return np.stack([phantom_slice(rng, size)[1] for rng in rngs])


DEFAULT_STAMP = {"generator": GENERATOR, **(write_phantom.__kwdefaults__ or {})}


def default_phantom(folder: Path) -> Path:
    """The default set of this generator in `folder`.

    What is there if it is that, else written (anew, saying why).
    """
    missing = [name for name in NAMES if not (folder / name).is_file()]
    try:
        stamp = json.loads((folder / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        stamp = None
    if not missing and stamp == DEFAULT_STAMP:
        return folder
    stale = folder.exists()
    write_phantom(folder)  # which may refuse, so nothing is said before it is done
    if stale:
        why = (
            f"{missing[0]} is missing" if missing else "it is not the default set of this version's generator"
        )
        print(f"{folder} is made anew: {why}")
    return folder


def _check_arguments(out_dir: Path, counts: dict[str, int], size: int, seed: int) -> None:
    for name, value in (counts | {"size": size, "seed": seed}).items():
        least = {"size": 32, "seed": 0}.get(name, 1)
        if value < least:
            raise InputError(f"{name} is {value}; expected at least {least}; choose a larger number")
    if out_dir.exists() and not out_dir.is_dir():
        raise InputError(f"{out_dir} is a file; expected a folder for the phantom; choose another name")
    inside = {f.name for f in out_dir.iterdir()} if out_dir.exists() else set()
    others = sorted(inside - {*NAMES, STAMP}) or sorted(
        inside if STAMP not in inside else ()
    )  # they may be real arrays
    if others:
        raise InputError(
            f"{out_dir} holds {others[0]}; expected nothing but an older phantom; choose another folder"
        )


def _write_arrays(folder: Path, medseg, volumes, slices_per_volume, test, size, seed) -> None:
    counts = {"medseg": medseg, "radiopaedia": volumes * slices_per_volume, "test": test}
    images, masks = {}, {}
    for source, (image_name, mask_name) in FILES.items():
        shape = (counts[source], size, size)
        images[source] = open_memmap(folder / image_name, "w+", np.float64, (*shape, 1))
        if mask_name:
            masks[source] = open_memmap(folder / mask_name, "w+", np.uint8, (*shape, NUM_CLASSES))
    one_hot = np.eye(NUM_CLASSES, dtype=np.uint8)
    with tqdm(total=sum(counts.values()), desc="phantom", unit="slice") as bar:
        for source, part in PARTS.items():
            for i in range(counts[source]):
                twin = source == "medseg" and i == medseg - 1 and medseg >= TWIN_FROM
                rng = np.random.default_rng([seed, part, TWIN_OF if twin else i])
                images[source][i, ..., 0], labels = phantom_slice(rng, size, move=3.0 * twin)
                if source in masks:
                    masks[source][i] = one_hot[labels]
                bar.update()
        order, before = np.random.default_rng([seed, 2]).permutation(len(BURDENS)), None
        for v in range(volumes):
            rng, burden = np.random.default_rng([seed, 3, v]), BURDENS[order[v % len(order)]]
            hu, labels = phantom_volume(rng, slices_per_volume, size, burden, before)
            at, before = slice(v * slices_per_volume, (v + 1) * slices_per_volume), hu[-1]
            images["radiopaedia"][at, ..., 0], masks["radiopaedia"][at] = hu, one_hot[labels]
            bar.update(slices_per_volume)
    for array in (*images.values(), *masks.values()):
        array.flush()
