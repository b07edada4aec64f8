"""The four classes of a pixel, in the order of the competition's mask channels, and how they are shown.

Defined only here.
"""

from dataclasses import dataclass

from lungseg_utils.core.language import marked as N_
from lungseg_utils.core.language import translate as _

GROUND_GLASS, CONSOLIDATION, LUNG_OTHER, BACKGROUND = range(4)
LESIONS = (GROUND_GLASS, CONSOLIDATION)
LUNG_WINDOW = (
    -1350,
    150,
)  # HU: black to white in every picture; also the window that most Radiopaedia slices came in
UNKNOWN = 255  # for losses that cannot use a set of classes: see only_known


@dataclass(frozen=True)
class TissueClass:
    """One class: channel index, full English name, column name, and how every figure shows it.

    color fills an area, line is for lines, dots and edges on white paper (RGB hex); hatch is matplotlib's.
    """

    index: int
    english: str
    short: str
    color: str
    line: str
    hatch: str = ""

    @property
    def name(self) -> str:
        """The full name in the reader's language."""
        return _(self.english)

    @property
    def brief(self) -> str:
        """The name in the reader's language, as short as people say it."""
        return _(self.english.removesuffix(" opacity"))


# The darker, the denser: other lung, ground glass and consolidation each differ from the next by a contrast
# of 3 and more, in a grey print and for readers without green, too. A fourth class cannot (3 x 3 x 3 is more
# than the 21 from black to white), so consolidation is hatched besides, and lesions have outlines.
CLASSES = (
    TissueClass(0, N_("ground glass opacity"), "ground_glass", "#2E92DA", "#2E92DA"),
    TissueClass(1, N_("consolidation"), "consolidation", "#6A1020", "#6A1020", "////"),
    TissueClass(2, N_("lung other"), "lung_other", "#EAF6E4", "#2E7D4F"),
    TissueClass(3, N_("background"), "background", "#000000", "#000000"),
)
NUM_CLASSES = len(CLASSES)
SHORT_NAMES = tuple(c.short for c in CLASSES)
FOREGROUND = [c for c in range(NUM_CLASSES) if c != BACKGROUND]
# Only stored labels of further data sets hold these; the competition's never do, nor does a prediction.
LESION = NUM_CLASSES  # ground glass or consolidation, the source does not say which
NOT_LESION = NUM_CLASSES + 1  # other lung or background, the source does not say which
CLASS_SETS = {LESION: LESIONS, NOT_LESION: (LUNG_OTHER, BACKGROUND)}
