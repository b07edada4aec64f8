"""A synthetic patient, and what one CT slice of them shows before disease.

Body, organs, bones, airways, vessels.

Organs are simple shapes in millimetres in one canonical patient: x to the image's right (the patient's left),
y to the back, z from the liver (0) to the shoulders (300). Every patient bends and scales that space, so no
two look alike. Nothing here is a real scan: sizes and HU are those of textbooks. phantom.py adds disease and
scanner.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

AIR, FAT, MUSCLE, BLOOD, BONE = -1000.0, -100.0, 50.0, 45.0, 280.0  # HU
OUTSIDE = -99.0  # mm, the depth in a shape that this slice does not meet
NODE_STEP = 2.0  # mm between the points of a vessel


@dataclass(frozen=True)
class Patient:
    """One scan: anatomy, disease, reader and scanner; all that its slices share."""

    scale: tuple[float, float]  # of the canonical patient, across and front to back
    bend: np.ndarray  # (5,) phases of the deformation
    fat: float  # mm under the skin
    heart: float  # size, 1 is the average
    domes: tuple[float, float]  # z in mm of the top of the diaphragm, image left and right
    vessels: np.ndarray  # (points, 4): x, y, z, radius in mm
    lung_hu: float
    blood_hu: float
    patches: np.ndarray  # (patches, 6): x, y, z, radius across, radius along z, 1 if it may consolidate
    burden: tuple[float, float]  # share of the lung: ground glass, consolidation
    texture: np.ndarray  # (3, 24, 64, 64) smooth random fields: channel, z, y, x
    haze: float  # HU of ground glass
    effusion: tuple[float, float]  # mm of fluid at the back, image left and right; 0 for none
    slop: float  # mm by which the reader's outline of the lung is loose
    loose: float  # how far the reader's consolidation reaches into what is only half solid
    fov: float  # mm across the picture
    shift: tuple[float, float]  # mm, of the patient in the picture
    surround: float | None  # HU outside the scanner's round field of view, None where it does not show
    table: float  # curvature of the table
    noise: float  # HU
    blur: float  # mm
    window: tuple[float, float]  # HU of grey 0 and 255
    gain: float  # of the HU above air: MedSeg's HU are estimates


def make_patient(rng: np.random.Generator, z_range=(30, 285), burden=(0.1, 0.03), **known) -> Patient:
    """A random patient; `z_range` (mm) bounds vessels and lesions, `known` sets any other field of Patient.

    All fields are drawn, known or not: what is known does not change the others.
    """
    drawn = dict(
        scale=(rng.uniform(0.9, 1.1), rng.uniform(0.9, 1.12)),
        bend=rng.uniform(0, 2 * np.pi, 5),
        fat=rng.uniform(6, 30),
        heart=rng.uniform(0.88, 1.15),
        domes=(rng.uniform(100, 125), rng.uniform(85, 108)),
        vessels=np.vstack([_vessel_tree(rng, side, z_range) for side in (-1, 1)]),
        lung_hu=rng.uniform(-900, -840),
        blood_hu=BLOOD + rng.choice((0, 10, 110), p=(0.4, 0.3, 0.3)),  # the last with contrast medium
        patches=_patches(rng, 2 + int(90 * sum(burden)), (z_range[0], min(z_range[1], 240))),
        burden=burden,
        texture=ndimage.gaussian_filter(
            rng.standard_normal((3, 24, 64, 64), np.float32), (0, 1, 1, 1), mode="wrap"
        ),
        haze=rng.uniform(-740, -600),
        effusion=tuple((rng.random(2) < 0.15) * rng.uniform(8, 35, 2)),
        slop=0.8,
        loose=0.06,
        fov=rng.uniform(325, 415),
        shift=(rng.uniform(-20, 20), rng.uniform(-45, 50)),
        surround=None,
        table=rng.uniform(0, 0.0012),
        noise=rng.uniform(12, 45),
        blur=rng.uniform(0.6, 1.2),
        window=(-1350.0, 150.0),
        gain=1.0,
    )
    drawn["texture"] /= drawn["texture"].std()
    return Patient(**(drawn | known))


def _vessel_tree(rng: np.random.Generator, side: int, z_range: tuple[float, float]) -> np.ndarray:
    """(points, 4) x, y, z, radius in mm of one lung's vessels.

    Targets join the nearest branch, hilum first.
    """
    targets = int(np.clip(2.5 * (z_range[1] - z_range[0]), 80, 600))
    goals = rng.uniform(-1, 1, (targets * 2, 3))
    goals = goals[np.linalg.norm(goals[:, :2], axis=1) < 1][:targets]
    goals[:, 2] = np.interp(goals[:, 2], (-1, 1), z_range)
    goals[:, 0], goals[:, 1] = _in_lung(side, goals[:, 0], goals[:, 1], goals[:, 2])
    hilum = np.array((side * 26.0, 2.0, 165.0))
    reach = np.linalg.norm(goals - hilum, axis=1)
    goals = goals[np.argsort(reach)]
    room = int((reach / NODE_STEP + 2).sum()) + 1  # enough even if every target hung on the hilum itself
    points, way, parents, count = np.empty((room, 3)), np.zeros(room), [-1], 1
    points[0] = hilum
    for goal in goals:
        offset = points[:count:3] - goal
        distance = np.sqrt(np.einsum("ij,ij->i", offset, offset))
        near = int(
            np.argmin(distance + 0.35 * way[:count:3])
        )  # a short detour beats a long way back to the hilum
        start, gap = 3 * near, distance[near]
        steps = int(gap / NODE_STEP) + 1
        along = np.arange(1, steps + 1)[:, None] / steps
        sag = rng.normal(0, 0.06 * gap, 3) * np.sin(np.pi * along)
        points[count : count + steps] = points[start] + along * (goal - points[start]) + sag
        way[count : count + steps] = way[start] + along[:, 0] * gap
        parents += [start, *range(count, count + steps - 1)]
        count += steps
    flow = [1 / 15] * count  # each point feeds its own bit of lung, and all that lies beyond it
    for i in range(count - 1, 0, -1):
        flow[parents[i]] += flow[i]
    radius = np.minimum(np.power(flow, 0.37), 8)  # Murray's law asks for an exponent of 1/3
    return np.column_stack((points[:count], radius))


def _in_lung(side, across: np.ndarray, down: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(x, y) in mm of places given in the unit disc of a lung's section, which narrows towards the apex.

    `side` is -1 for the lung at the image's left and 1 for the other: a number, or one for each place.
    """
    narrow = np.interp(z, (0, 180, 290), (1.0, 1.0, 0.25))
    return side * (64 + 54 * across * narrow), 78 * down * narrow + 25 * (1 - narrow)


def _patches(rng: np.random.Generator, count: int, z_range: tuple[float, float]) -> np.ndarray:
    """Lesions as in Patient.patches: under the pleura and at the back more often than not.

    A few lie close.
    """
    angle = (
        np.where(rng.random(count) < 0.7, rng.uniform(0.03, 0.5, count), rng.uniform(-0.6, 0.75, count))
        * np.pi
    )
    depth = rng.uniform(0.65, 1.0, count)
    z = rng.uniform(*z_range) + rng.uniform(-1, 1, count) * (8 + 4.5 * count)
    x, y = _in_lung(rng.choice((-1, 1), count), depth * np.cos(angle), depth * np.sin(angle), z)
    radius = rng.uniform(10, 34, count)
    return np.column_stack((x, y, z, radius, radius * rng.uniform(0.7, 1.2, count), rng.random(count) < 0.6))


@dataclass
class Canvas:
    """A slice being painted; all arrays are (size, size).

    Shapes are given as depth: mm from a pixel to the shape's edge, positive inside; minimum cuts, maximum
    joins.
    """

    x: np.ndarray  # canonical mm
    y: np.ndarray
    z: float
    pixel: float  # size in mm
    hu: np.ndarray  # so far

    def nothing(self) -> np.ndarray:
        """Depth of a shape that the slice does not meet."""
        return np.full_like(self.hu, OUTSIDE)

    def ellipse(self, x, y, a, b, power=2.0, tilt=0.0) -> np.ndarray:
        """Depth of an ellipse at (x, y) with half axes a and b.

        Power above 2 makes it boxy, tilt slants it.
        """
        if min(a, b) < 0.5:
            return self.nothing()
        dx, dy = np.abs((self.x - x - tilt * (self.y - y)) / a), np.abs((self.y - y) / b)
        r = np.sqrt(dx * dx + dy * dy) if power == 2 else (dx**power + dy**power) ** (1 / power)
        return (1 - r) * min(a, b)

    def blob(self, x, y, z, a, b, c, tilt=0.0) -> np.ndarray:
        """Depth of the section of an ellipsoid at (x, y, z) with half axes a, b and c."""
        q = max(1 - ((self.z - z) / c) ** 2, 0) ** 0.5
        return self.ellipse(x, y, a * q, b * q, tilt=tilt)

    def along(self, *knots: tuple[float, float]) -> float:
        """A measure that changes with z: linear between (z, value) knots, constant beyond them."""
        places, values = zip(*knots, strict=True)
        return float(np.interp(self.z, places, values))

    def cover(self, depth: np.ndarray) -> np.ndarray:
        """Share of each pixel inside a shape: soft edges instead of stairs."""
        return np.clip(depth / self.pixel + 0.5, 0, 1)

    def paint(self, depth: np.ndarray, hu: float) -> None:
        """Fill a shape with one HU."""
        self.hu += self.cover(depth) * (hu - self.hu)


def _canvas(p: Patient, z: float, size: int) -> Canvas:
    """An empty slice of air; its coordinates bend gently, so that no outline is a perfect ellipse."""
    mm = ((np.arange(size) + 0.5) / size - 0.5) * p.fov
    x, y = np.meshgrid((mm - p.shift[0]) / p.scale[0], (mm - p.shift[1]) / p.scale[1])
    bent_x = x + 3.5 * np.sin(y / 38 + p.bend[0] + z / 90) + 2 * np.sin(x / 30 + p.bend[1])
    bent_y = y + 3.5 * np.sin(x / 42 + p.bend[2] + z / 90) + 2 * np.sin(y / 27 + p.bend[3])
    air = np.full((size, size), AIR, np.float32)
    return Canvas(bent_x.astype(np.float32), bent_y.astype(np.float32), z, p.fov / size, air)


def _body(c: Canvas, p: Patient) -> np.ndarray:
    """Paint table, skin, fat, muscle; return the depth under the skin.

    The back lies on the table at any z.
    """
    back = 110 + p.fat / 2
    for gap, hu in ((14, -550), (34, -700)):  # two thin shells
        shell = 1.5 - np.abs(c.y - back - gap + p.table * c.x**2)
        c.paint(np.minimum(shell, 190 - np.abs(c.x)), hu)
    width = c.along((0, 150), (60, 154), (150, 162), (300, 188)) + p.fat / 2
    depth = c.along((0, 106), (60, 108), (130, 108), (300, 78)) + p.fat / 2
    outline = c.ellipse(0, back - depth, width, depth, 2.25)
    c.paint(outline, 20)
    c.paint(outline - 2, FAT)
    c.paint(outline - p.fat - c.along((0, 2), (120, 0)), MUSCLE)
    for side in (-1, 1):  # fat between the muscles, under the arm and under the pectoralis
        c.paint(c.ellipse(side * (width - 32), 5, 7, c.along((130, 0), (180, 26), (300, 30))), FAT)
        pectoral = c.ellipse(side * 70, c.along((150, -88), (300, -34)), 34, c.along((140, 0), (190, 4)))
        c.paint(np.minimum(pectoral, outline - 2), FAT)
    return outline


def _cavities(c: Canvas) -> tuple[np.ndarray, np.ndarray]:
    """Depth inside the two chest cavities, image left and right.

    One oval cage, two cones towards the apex.
    """
    x = c.along((150, 60), (210, 58), (260, 46), (292, 38))
    y = c.along((0, 0), (120, -4), (200, 2), (260, 22), (292, 30))
    shrink = max(1 - max(c.z - 110, 0) ** 2 / 182**2, 0) ** 0.6
    cage = c.ellipse(0, y, 120 * c.along((150, 1), (300, 0.75)), 81, 2.3)
    left, right = (
        np.minimum(cage, c.ellipse(s * x, y, 66 * shrink, 88 * shrink, 2.4, 0.15 * s)) for s in (-1, 1)
    )
    return left, right


def _dome(c: Canvas, p: Patient, side: int) -> np.ndarray:
    """Depth under the diaphragm: it takes the lung from the front and leaves the recess at the back."""
    left, right = p.domes
    dome = right if side > 0 else left
    q = max(1 - (max(c.z, 0) / dome) ** 1.4, 0) ** 0.55 * 1.1  # the area shrinks evenly with z
    return c.ellipse(side * 58, -12, 70 * q, 92 * q, 2.3)


def _abdomen(c: Canvas, p: Patient) -> None:
    """What the diaphragm covers.

    The liver at the image's left, stomach and spleen at its right, fat between.
    """
    inside = c.ellipse(0, -5, 128, 86, 2.4)
    c.paint(np.minimum(inside, (70 - c.z) / 3), FAT)
    organs = (
        (-58, -6, 0, 78, 84, p.domes[0] - 2, 60),  # liver
        (20, -45, 0, 58, 38, 75, 60),  # its left lobe
        (78, 40, 20, 40, 36, 66, 52),  # spleen
        (66, -25, 15, 44, 40, 66, 25),  # stomach
        (70, -42, 18, 26, 16, 44, -950),  # its air
    )
    for *shape, hu in organs:
        c.paint(np.minimum(c.blob(*shape), inside), hu)


def _mediastinum(c: Canvas, p: Patient) -> np.ndarray:
    """Paint heart, great vessels, gullet; return the depth inside all that keeps the lungs apart."""
    column = c.ellipse(0, 12, c.along((0, 20), (150, 24), (240, 24), (290, 30)), 46)
    wide, long = (
        c.along((0, 36), (70, 16), (170, 16), (250, 22)),
        c.along((60, 40), (180, 36), (260, 10), (270, 0)),
    )
    front = c.ellipse(0, -55, wide, long)
    chambers = (
        (-8, -26, 115, 36, 40, 76, 0),
        (12, -33, 110, 34, 43, 82, 0),
        (28, -30, 105, 42, 43, 80, -0.2),
    )
    heart = np.maximum.reduce(
        [
            c.blob(x, y, z, p.heart * wide, p.heart * deep, p.heart * high, tilt)
            for x, y, z, wide, deep, high, tilt in chambers
        ]
    )
    roots = np.maximum(
        c.blob(-22, 4, 165, 17, 20, 34, 0.4), c.blob(22, 6, 165, 15, 18, 30, -0.4)
    )  # of the lungs
    whole = np.maximum.reduce(
        (column, front, heart, roots, c.ellipse(0, 74, 29, 30))
    )  # the last: around the spine
    c.paint(whole, -60)  # fat between the organs
    c.paint(column - 6, 20)
    c.paint(np.maximum(heart, roots) - 3, p.blood_hu)
    great = (  # first and last z, x, y, half axes
        (-999, 222, 21, 44, 12, 12),  # descending aorta
        (130, 222, -12, -28, 16, 16),  # ascending aorta
        (130, 192, 14, -22, 14, 12),  # pulmonary trunk
        (125, 270, -30, -18, 9, 9),  # superior vena cava
        *(
            (225, 999, x, y, 6, 6) for x, y in ((-14, -4), (0, 0), (14, 8), (-23, -12), (24, -8))
        ),  # its branches
    )
    for low, high, *shape in great:
        if low < c.z < high:
            c.paint(c.ellipse(*shape), p.blood_hu)
    c.paint(c.blob(6, 5, 216, 15, 46, 14), p.blood_hu)  # arch of the aorta
    c.paint(c.ellipse(8, 36, 6, 5), 35)  # gullet
    return whole


def _bones(c: Canvas, cage: np.ndarray, under_skin: np.ndarray) -> None:
    """Spine, ribs that slant through the slice, breastbone, shoulder blades, collar bones."""
    for *shape, hu in (
        (0, 62, 19, 15, BONE),  # body of the vertebra
        (0, 100, 4, 13, BONE),  # spinous process
        (-20, 84, 17, 5, BONE),  # transverse processes
        (20, 84, 17, 5, BONE),
        (0, 82, 15, 12, BONE),  # arch
        (0, 61, 15, 11, BONE - 110),  # marrow
        (0, 82, 9.5, 7.5, 30),  # spinal canal
    ):
        c.paint(c.ellipse(*shape), hu)
    around = np.abs(np.arctan2(c.x, c.y - 10)) / np.pi  # 0 at the spine, 1 at the breastbone
    rib = np.cos(2 * np.pi * (c.z / 24 + 3.2 * around)) * 10 - 3
    rib = np.minimum.reduce((4 - np.abs(cage + 6), rib, 25 * (0.88 - around)))
    c.paint(rib, BONE + 150)
    c.paint(rib - 1.8, 120)  # marrow
    if 110 < c.z < 270:
        y, half = c.along((110, -97), (190, -88), (270, -48)), c.along((110, 12), (250, 24))
        c.paint(c.ellipse(0, y, half, 6), BONE)
        c.paint(c.ellipse(0, y, half - 3, 3.5), 90)
    for side in (-1, 1):
        across = c.x - side * 112
        blade = 4 - 0.8 * np.abs(c.y - c.along((165, 62), (300, 40)) + 0.75 * side * across)
        c.paint(np.minimum(blade, c.along((165, -9), (170, 12), (230, 40), (300, 46)) - np.abs(across)), BONE)
        across = c.x - side * 62
        collar = 5 - np.abs(c.y + 14 - 0.3 * side * across)
        c.paint(
            np.minimum.reduce((collar, c.along((255, -9), (300, 50)) - np.abs(across), under_skin - 6)), BONE
        )


def _airways(c: Canvas) -> np.ndarray:
    """Depth inside trachea and main bronchi: air, yet labelled background."""
    if c.z > 192:
        return c.ellipse(0, 18, 9, 9)
    fall = 192 - c.z  # mm below the fork
    if fall >= 38:
        return c.nothing()
    left = c.ellipse(-8 - 0.55 * fall, 12, 7.5 - fall / 15, 6.5)
    return np.maximum(left, c.ellipse(8 + 0.7 * fall, 14, 7.5 - fall / 12, 6))


def _vessel_cover(c: Canvas, p: Patient) -> tuple[np.ndarray, np.ndarray]:
    """Share of each pixel that is vessel: any vessel, and those too large to count as lung."""
    mm, size = c.pixel, len(c.hu)
    near = p.vessels[np.abs(p.vessels[:, 2] - c.z) < 2.5 * np.maximum(p.vessels[:, 3], 1.5)]
    column, row = ((near[:, i] * p.scale[i] + p.shift[i]) / mm + size / 2 for i in (0, 1))
    seen = (column >= 0) & (column < size) & (row >= 0) & (row < size)
    cover = []
    for low, high in ((0, 0.8), (0.8, 1.4), (1.4, 2.6), (2.6, 99)):  # one blur a group is fast
        mine = seen & (near[:, 3] >= low) & (near[:, 3] < high)
        radius, dots = near[mine, 3], np.zeros((size, size), np.float32)
        if mine.any():
            sigma = max(0.75 * radius.mean() / mm, 0.5)
            line = (
                np.sqrt(2 * np.pi) * sigma * NODE_STEP / mm
            )  # makes a row of points, once blurred, 1 at its centre
            weight = np.exp(-0.5 * ((near[mine, 2] - c.z) / np.maximum(radius, 1.5)) ** 2) * line
            np.add.at(
                dots,
                (row[mine].astype(int), column[mine].astype(int)),
                weight * min(2 * radius.mean() / mm, 1),
            )
            dots = ndimage.gaussian_filter(dots, sigma)
        cover.append(np.minimum(1.2 * dots, 1))
    return np.maximum.reduce(cover), cover[-1]


def _texture(c: Canvas, p: Patient) -> np.ndarray:
    """(3, size, size) smooth random fields that go on from slice to slice."""
    at = np.clip(c.z / 300, 0, 0.999) * (p.texture.shape[1] - 1)
    flat = p.texture[:, int(at)] * (1 - at % 1) + p.texture[:, int(at) + 1] * (at % 1)
    cells, pixels = np.arange(flat.shape[1]), np.linspace(0, flat.shape[1] - 1, len(c.hu))
    linear = np.maximum(1 - np.abs(pixels[:, None] - cells), 0).astype(np.float32)  # interpolation weights
    return linear @ flat @ linear.T


@dataclass(frozen=True)
class Section:
    """A slice of a patient but for what fills the lungs; arrays are (size, size)."""

    canvas: Canvas  # painted, the lungs left out
    depth: np.ndarray  # mm inside the lungs
    lung: np.ndarray  # share of each pixel
    outline: np.ndarray  # bool: what a reader outlines as lung
    vessel: np.ndarray  # share of each pixel
    texture: np.ndarray  # (3, size, size) smooth random fields


def draw_section(p: Patient, z: float, size: int) -> Section:
    """The slice of a patient at z (mm), size x size pixels."""
    c = _canvas(p, z, size)
    under_skin, cavities = _body(c, p), _cavities(c)
    _abdomen(c, p)
    whole = _mediastinum(c, p)
    lung = fluid = c.nothing()
    for side, cavity, level in zip((-1, 1), cavities, p.effusion, strict=True):
        free = np.minimum.reduce((cavity, -whole, -_dome(c, p, side)))
        water = c.y - 86 + level * c.along((30, 1.3), (120, 0.9), (220, 0)) if level else c.nothing()
        fluid, lung = np.maximum(fluid, np.minimum(free, water)), np.maximum(lung, np.minimum(free, -water))
    c.paint(fluid, 10)  # an effusion: looks like consolidation, is labelled background
    _bones(c, np.maximum.reduce((*cavities, c.ellipse(0, -5, 122, 84, 2.3) - max(c.z - 60, 0))), under_skin)
    airway = _airways(c)
    c.paint(airway + 1.5, 20)  # its wall
    c.paint(airway, AIR + 20)
    (vessel, large), texture = _vessel_cover(c, p), _texture(c, p)
    outline = (lung + 0.5 * texture[2] > -p.slop) & (airway < 0) & (large < 0.75)
    return Section(c, lung, c.cover(np.minimum(lung, -airway - 1.5)), outline, vessel, texture)
