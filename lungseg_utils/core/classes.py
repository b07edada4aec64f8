"""The four classes of a pixel, in the order of the competition's mask channels, and how they are shown.

Defined only here.
"""

from dataclasses import dataclass

GROUND_GLASS, CONSOLIDATION, LUNG_OTHER, BACKGROUND = range(4)
LESIONS = (GROUND_GLASS, CONSOLIDATION)
LUNG_WINDOW = (
    -1350,
    150,
)  # HU: black to white in every picture; also the window that most Radiopaedia slices came in
UNKNOWN = 255  # for losses that cannot use a set of classes: see only_known


@dataclass(frozen=True)
class TissueClass:
    """One class: channel index, full name, column name, and the colour of every figure (RGB hex)."""

    index: int
    name: str
    short: str
    color: str


# Okabe-Ito colours: told apart by colour-blind readers.
CLASSES = (
    TissueClass(0, "ground glass opacity", "ground_glass", "#56B4E9"),
    TissueClass(1, "consolidation", "consolidation", "#D55E00"),
    TissueClass(2, "lung other", "lung_other", "#009E73"),
    TissueClass(3, "background", "background", "#000000"),
)
NUM_CLASSES = len(CLASSES)
SHORT_NAMES = tuple(c.short for c in CLASSES)
FOREGROUND = [c for c in range(NUM_CLASSES) if c != BACKGROUND]
# Only stored labels of further data sets hold these; the competition's never do, nor does a prediction.
LESION = NUM_CLASSES  # ground glass or consolidation, the source does not say which
NOT_LESION = NUM_CLASSES + 1  # other lung or background, the source does not say which
CLASS_SETS = {LESION: LESIONS, NOT_LESION: (LUNG_OTHER, BACKGROUND)}
