"""The slice browser: what the widgets' values draw, and that nothing live is shown where nobody looks on."""

import base64
import io
import re
from types import SimpleNamespace

import numpy as np
import pytest
from ipykernel.kernelbase import Kernel
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from PIL import Image

from lungseg_utils.core.classes import BACKGROUND, CLASSES, CONSOLIDATION, GROUND_GLASS, LUNG_OTHER
from lungseg_utils.report.browser import (
    SliceBrowser,
    browse,
    has_front_end,
    slice_montage,
    slice_picture,
    square_pixels,
)

CORNERS = {GROUND_GLASS: (0, 0), CONSOLIDATION: (0, 15), LUNG_OTHER: (15, 0), BACKGROUND: (15, 15)}


def quarters():
    """Five slices (5, 16, 16), a class in each quarter.

    Only slice 4 has consolidation, only 3 and 4 ground glass.
    """
    labels = np.full((5, 16, 16), BACKGROUND, np.uint8)
    labels[1:, 8:, :8] = LUNG_OTHER
    labels[2:4, :8, :8] = GROUND_GLASS
    labels[3, :8, 8:] = CONSOLIDATION
    hu = np.arange(-1000, -500, 100, dtype=np.int16)[:, None, None] + np.zeros((5, 16, 16), np.int16)
    return hu, labels, (np.arange(5, dtype=np.uint8) * 50)[:, None, None] + np.zeros((5, 16, 16), np.uint8)


def test_it_opens_at_the_slice_with_most_lesion_and_each_widget_changes_what_it_names():
    shown = SliceBrowser(*quarters(), spacing=(5.0, 0.7, 0.7))
    assert shown.slice.value == 4 and (shown.slice.min, shown.slice.max) == (1, 5)
    grey = round(255 * (-700 + 1350) / 1500)

    def corner(c):
        return shown.draw()[CORNERS[c]].tolist()

    assert corner(BACKGROUND) == corner(LUNG_OTHER) == [grey] * 3  # the lung is not painted at first
    orange = np.array(to_rgb(CLASSES[CONSOLIDATION].color))
    assert corner(CONSOLIDATION) == pytest.approx(0.55 * grey + 0.45 * 255 * orange, abs=1)
    shown.opacity.value = 1.0
    assert corner(GROUND_GLASS) == pytest.approx([255 * v for v in to_rgb(CLASSES[0].color)], abs=1)
    shown.classes[GROUND_GLASS].value = False
    assert corner(GROUND_GLASS) == [grey] * 3
    shown.classes[LUNG_OTHER].value = True
    assert corner(LUNG_OTHER) == pytest.approx([255 * v for v in to_rgb(CLASSES[2].color)], abs=1)
    shown.window.value = "wide"
    assert corner(BACKGROUND) == [round(255 * 300 / 2000)] * 3
    shown.window.value = "mediastinum"
    assert corner(BACKGROUND) == [0, 0, 0]
    shown.slice.value = 1
    assert len(np.unique(shown.draw())) == 1  # no lung here


def test_entropy_takes_the_place_of_the_classes_within_the_lung():
    shown = SliceBrowser(*quarters())
    shown.entropy.value, shown.opacity.value = True, 1.0
    drawn = shown.draw()
    expected = list(colormaps["magma"](150, bytes=True)[:3])
    assert drawn[CORNERS[GROUND_GLASS]].tolist() == drawn[CORNERS[LUNG_OTHER]].tolist() == expected
    hu, labels, _ = quarters()
    assert drawn[CORNERS[BACKGROUND]].tolist() == slice_picture(hu[3], labels[3], classes=())[15, 15].tolist()


def test_the_picture_and_the_caption_follow_every_change():
    shown = SliceBrowser(*quarters(), spacing=(5.0, 0.7, 0.7))
    assert shown.caption.value == (
        "slice 4 of 5, 15 mm above the lowest; of its lung: ground glass opacity 33.3 %, consolidation 33.3 %"
    )
    before = shown.picture.value
    shown.slice.value = 3
    page = shown.picture.value
    sent = np.asarray(Image.open(io.BytesIO(base64.b64decode(re.search(r"base64,([^\"]+)", page)[1]))))
    assert f'alt="{shown.caption.value}"' in page and ">R</span>" in page and ">L</span>" in page
    assert shown.picture.value != before
    assert np.abs(sent.astype(int) - shown.draw()).mean() < 3  # JPEG
    shown.slice.value = 1
    assert shown.caption.value == "slice 1 of 5, 0 mm above the lowest; of its lung: no lung"


def test_every_control_is_named_and_so_are_the_keys():
    controls = SliceBrowser(*quarters()).widget.children[1].children
    assert all(len(control.description) > 10 for control in controls[:-1])
    assert "arrows" in controls[-1].value and controls[0].tooltip


def test_lesions_are_outlined_on_any_grey_and_consolidation_is_striped():
    hu = np.full((40, 40), -600, np.int16)
    labels = np.full((40, 40), BACKGROUND, np.uint8)
    labels[5:35, 5:18], labels[5:35, 22:35] = GROUND_GLASS, CONSOLIDATION
    picture = slice_picture(hu, labels, opacity=1)
    assert (picture[20, [4, 5, 21, 22]] == [[0] * 3, [255] * 3] * 2).all()  # dark outside, light inside
    inside = {c: picture[6:34, first : first + 11] for c, first in ((GROUND_GLASS, 6), (CONSOLIDATION, 23))}
    assert len(np.unique(inside[GROUND_GLASS].reshape(-1, 3), axis=0)) == 1
    striped = (inside[CONSOLIDATION] == 255).all(-1)
    assert 0.1 < striped.mean() < 0.3 and striped.any(0).all() and striped.any(1).all()


def test_without_entropy_or_spacing_there_is_no_box_and_no_place():
    hu, labels, entropy = quarters()
    assert entropy.shape == hu.shape
    assert len(SliceBrowser(hu, labels, entropy).widget.children[1].children) == 8
    plain = SliceBrowser(hu, labels)
    assert len(plain.widget.children[1].children) == 7 and " mm " not in plain.caption.value


def test_oblong_pixels_are_shown_square_and_no_line_is_lost():
    rows, columns = square_pixels((4, 6), (5.0, 1.5, 1.0))
    assert rows.ravel().tolist() == [0, 1, 1, 2, 3, 3] and columns.ravel().tolist() == list(range(6))
    hu, labels, _ = quarters()
    assert SliceBrowser(hu, labels, spacing=(5.0, 2.0, 1.0)).draw().shape == (32, 16, 3)
    assert SliceBrowser(hu[:, :, :8], labels[:, :, :8], spacing=(5.0, 0.7, 1.4)).draw().shape == (16, 16, 3)


def test_the_montage_spreads_over_the_lungs():
    hu, labels, _ = quarters()
    titles = [ax.get_title() for ax in slice_montage(hu, labels, count=3).axes if ax.get_title()]
    assert titles == ["slice 2 of 5", "slice 3 of 5", "slice 5 of 5"]
    nothing = slice_montage(hu[:1], np.full_like(labels[:1], BACKGROUND))
    assert [ax.get_title() for ax in nothing.axes if ax.get_title()] == ["slice 1 of 1"]


@pytest.mark.parametrize(
    ("metadata", "live"), [({"cellId": "c20-14", "trusted": True}, True), ({}, False), (None, False)]
)
def test_only_a_front_end_that_names_its_cell_gets_widgets(metadata, live, monkeypatch, capsys):
    """JupyterLab's, then nbclient's and papermill's request; at last no kernel at all."""
    kernel = Kernel()
    kernel.set_parent([b""], {"header": {}, "metadata": metadata})
    monkeypatch.setattr(
        "IPython.get_ipython", lambda: None if metadata is None else SimpleNamespace(kernel=kernel)
    )
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    assert has_front_end() is live
    browse(*quarters())
    assert len(shown) == live and bool(capsys.readouterr().out) is not live
    browse(*quarters(), live=not live)
    assert len(shown) == 1
