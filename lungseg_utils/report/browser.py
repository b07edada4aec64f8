"""A volume under its labels, slice by slice.

Sliders in a live notebook, a montage that stays everywhere else.
"""

import io
from collections.abc import Collection
from html import escape

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from scipy import ndimage

from lungseg_utils.core.classes import BACKGROUND, CLASSES, FOREGROUND, LESIONS, LUNG_WINDOW
from lungseg_utils.core.image import data_address
from lungseg_utils.core.language import marked as N_
from lungseg_utils.core.language import translate as _
from lungseg_utils.plots.slices import overlay, show_slices
from lungseg_utils.plots.sliders import has_front_end
from lungseg_utils.report.severity import lung_range

WINDOWS = {
    N_("lung"): LUNG_WINDOW,
    N_("mediastinum"): (-160, 240),
    N_("wide"): (-1000, 1000),
}  # HU: black to white
WIDTH = 480  # px on the screen, whatever the slice has
KEYS = N_(
    "Keys, once a slider is clicked: arrows go by one, Page Up and Page Down by five, Home and End to the "
    "ends; Tab goes to the next control, the space bar ticks a box."
)
MARK = (
    "position:absolute;top:6px;color:white;font:bold 16px Arial,sans-serif;"
    "text-shadow:0 0 3px black,0 0 3px black"
)


def slice_picture(
    hu: np.ndarray,
    labels: np.ndarray,
    window: tuple[int, int] = LUNG_WINDOW,
    classes: Collection[int] = LESIONS,
    opacity: float = 0.45,
) -> np.ndarray:
    """A slice in a window, the named classes in their colours on top; lesions outlined.

    Args:
        hu: (H, W), HU.
        labels: Class index (H, W).
        window: HU that are black and white.
        classes: Those to show.
        opacity: Of the colours, 0..1.

    Returns:
        RGB uint8 (H, W, 3).
    """
    (low, high), (black, white) = window, LUNG_WINDOW
    stretched = black + (hu.astype(np.float32) - low) * (
        (white - black) / (high - low)
    )  # `overlay` has one window
    rgb = overlay(stretched, labels, tuple(classes), opacity)
    for c in LESIONS:
        if c in classes:
            _outline(rgb, labels == c, min(1, 2 * opacity), hatched=bool(CLASSES[c].hatch))
    return np.rint(255 * rgb).astype(np.uint8)


def _outline(rgb: np.ndarray, region: np.ndarray, strength: float, hatched: bool) -> None:
    """Draw a region's light line, with a dark one around it, and light stripes within, into rgb (H, W, 3)."""
    light = region & ~ndimage.binary_erosion(region, border_value=1)
    dark = ndimage.binary_dilation(region) & ~region
    if hatched:
        step = max(region.shape[1] // 40, 6)
        stripes = np.add.outer(np.arange(region.shape[0]), np.arange(region.shape[1])) % step < max(
            step // 6, 1
        )
        light |= region & stripes
    for line, grey in ((light, 1), (dark, 0)):
        rgb[line] = (1 - strength) * rgb[line] + strength * grey


def square_pixels(
    shape: tuple[int, int], spacing: tuple[float, float, float] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Open index (rows, columns) into slices of this shape that shows them with square pixels.

    No line is left out.

    spacing: mm between slices, rows and columns; None leaves the slice as it is.
    """
    pixel = spacing[1:] if spacing else (1.0, 1.0)
    lines = [
        np.minimum((np.arange(round(n * step / min(pixel))) + 0.5) * min(pixel) / step, n - 1).astype(int)
        for n, step in zip(shape, pixel)
    ]
    return np.ix_(*lines)


def slice_montage(
    hu: np.ndarray, labels: np.ndarray, spacing: tuple[float, float, float] | None = None, count: int = 8
) -> Figure:
    """Slices evenly over the lungs' height, from feet to head, with the lesions.

    Args:
        hu: (N, H, W), HU.
        labels: Class index (N, H, W).
        spacing: mm between slices, rows, columns, if known.
        count: How many slices.
    """
    first, last = lung_range((labels != BACKGROUND).sum((1, 2))) or (0, len(hu) - 1)
    chosen = np.unique(np.linspace(first, last, count).round().astype(int))
    square = square_pixels(hu.shape[1:], spacing)
    titles = [_("slice {number} of {count}").format(number=i + 1, count=len(hu)) for i in chosen]
    return show_slices(
        [hu[i][square] for i in chosen], [labels[i][square] for i in chosen], titles, classes=LESIONS
    )


class SliceBrowser:
    """Widgets and the picture that follows them; `widget` holds them all.

    hu int16, labels uint8 (class index), entropy uint8 (0..255 for 0..1) or None: (N, H, W); spacing: as in
    Scan. A change redraws one slice and sends it as a JPEG, some milliseconds: no figure is made.
    """

    def __init__(
        self,
        hu: np.ndarray,
        labels: np.ndarray,
        entropy: np.ndarray | None = None,
        spacing: tuple[float, float, float] | None = None,
    ):
        import ipywidgets as w

        self._hu, self._labels, self._entropy, self._spacing = hu, labels, entropy, spacing
        self._square = square_pixels(hu.shape[1:], spacing)
        most = int(np.isin(labels, LESIONS).sum((1, 2)).argmax()) + 1
        named = {"style": {"description_width": "150px"}, "layout": w.Layout(width="440px", max_width="100%")}
        self.slice = w.IntSlider(
            most,
            1,
            len(hu),
            description=_("Slice, from the feet:"),
            tooltip=_("Which slice is shown"),
            **named,
        )
        ranges = [
            _("{name}: {low} to {high} HU").format(name=_(name), low=low, high=high)
            for name, (low, high) in WINDOWS.items()
        ]
        self.window = w.ToggleButtons(
            options=[(_(name), name) for name in WINDOWS],
            tooltips=ranges,
            description=_("Window of the greys:"),
            **named,
        )
        self.window.style.button_width = "auto"
        self.opacity = w.FloatSlider(
            0.45,
            min=0,
            max=1,
            step=0.05,
            description=_("Opacity of colours:"),
            tooltip=_("0: only the slice, 1: only the colours"),
            **named,
        )
        # The boxes are the legend, too.
        self.classes = {c: self._box(CLASSES[c].color, CLASSES[c].name, c in LESIONS) for c in FOREGROUND}
        magma = ", ".join(
            f"rgb({r}, {g}, {b})" for r, g, b, __ in colormaps["magma"](np.linspace(0, 1, 5), bytes=True)
        )
        self.entropy = self._box(
            f"linear-gradient(to right, {magma})", _("entropy instead, 0 to 1"), False, 60
        )
        self.picture = w.HTML(layout=w.Layout(width="100%"))
        self.caption = w.HTML()
        boxes = [*self.classes.values(), *([self.entropy] if entropy is not None else [])]
        controls = [self.slice, self.window, self.opacity, *boxes]
        for control in controls:
            control.observe(self._show, "value")
        left = w.VBox([self.picture, self.caption], layout=w.Layout(width=f"{WIDTH}px", max_width="100%"))
        keys = w.HTML(f"<small>{_(KEYS)}</small>", layout=w.Layout(max_width="440px"))
        right = w.VBox([*controls, keys], layout=w.Layout(margin="0 0 0 12px"))
        self.widget = w.HBox([left, right], layout=w.Layout(flex_flow="row wrap"))
        self._show()

    def draw(self) -> np.ndarray:
        """What the widgets ask for: RGB uint8 (h, w, 3), pixels square."""
        i = self.slice.value - 1
        hu, labels = self._hu[i][self._square], self._labels[i][self._square]
        window, opacity = WINDOWS[self.window.value], self.opacity.value
        if self._entropy is None or not self.entropy.value:
            return slice_picture(
                hu, labels, window, [c for c, box in self.classes.items() if box.value], opacity
            )
        rgb, lung = slice_picture(hu, labels, window, ()), labels != BACKGROUND
        undecided = colormaps["magma"](self._entropy[i][self._square][lung], bytes=True)[:, :3]
        rgb[lung] = np.rint((1 - opacity) * rgb[lung] + opacity * undecided)
        return rgb

    def describe(self) -> str:
        """The slice in one line: where it is, and how much of its lung each lesion class takes."""
        i = self.slice.value - 1
        pixels = np.bincount(self._labels[i].ravel(), minlength=len(CLASSES))
        lung = pixels[FOREGROUND].sum()
        shares = (
            [f"{CLASSES[c].name} {100 * pixels[c] / lung:.1f} %" for c in LESIONS] if lung else [_("no lung")]
        )
        said = _("slice {number} of {count}; of its lung: {shares}")
        above = self._spacing[0] * i if self._spacing and len(self._hu) > 1 else None
        if above is not None:
            said = _("slice {number} of {count}, {above:.0f} mm above the lowest; of its lung: {shares}")
        return said.format(number=i + 1, count=len(self._hu), above=above, shares=", ".join(shares))

    @staticmethod
    def _box(colour: str, name: str, checked: bool, width: int = 12):
        import ipywidgets as w

        swatch = f'<span style="display:inline-block;width:{width}px;height:12px;background:{colour}"></span>'
        text = {"description": f"{swatch} {name}", "description_allow_html": True}
        return w.Checkbox(checked, **text, indent=False, layout=w.Layout(width="auto"))

    def _show(self, _change: object = None) -> None:
        from PIL import Image

        file = io.BytesIO()
        Image.fromarray(self.draw()).save(file, "JPEG", quality=90, subsampling=0)
        said = self.describe()
        address = data_address(file.getvalue())
        self.picture.value = (
            f'<div style="position:relative"><img alt="{escape(said)}" src="{address}" style="width:100%">'
            f'<span style="{MARK};left:8px">R</span><span style="{MARK};right:8px">L</span></div>'
        )
        self.caption.value = said


def browse(
    hu: np.ndarray,
    labels: np.ndarray,
    entropy: np.ndarray | None = None,
    spacing: tuple[float, float, float] | None = None,
    live: bool | None = None,
) -> None:
    """Show a SliceBrowser where somebody can use it, else a sentence.

    Args:
        hu: (N, H, W), HU.
        labels: Class index (N, H, W).
        entropy: (N, H, W), if known.
        spacing: mm between slices, rows, columns, if known.
        live: Whether somebody can; None finds out, True where that fails.
    """
    if live is None:
        live = has_front_end()
    if not live:
        print(_("The browser of slices appears here when the cell runs in Jupyter."))
        return
    from IPython.display import display

    display(SliceBrowser(hu, labels, entropy, spacing).widget)
