"""Figures: pictures that carry a claim, pixel by pixel; every figure can be drawn and saved."""

import nbformat
import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb
from PIL import Image

from lungseg_utils import plots
from lungseg_utils.core.classes import CLASSES
from lungseg_utils.core.files import CHECKOUT
from lungseg_utils.plots.agreement import AGREEMENT, agreement
from lungseg_utils.plots.parts import alt_text


def test_agreement_shows_what_was_found_missed_and_a_false_alarm():
    truth = np.array([[0, 0, 0, 1, 2, 3, 3]])
    prediction = np.array([[0, 1, 2, 1, 2, 0, 3]])
    expected = ["hit", "found, other lesion class", "miss", "hit", None, "false alarm", None]
    picture = agreement(truth, prediction, np.full((1, 7), -1350.0))
    for pixel, name in zip(picture[0], expected):
        assert tuple(pixel) == pytest.approx(to_rgb(AGREEMENT[name]) if name else (0, 0, 0))


def test_colours_of_agreement_are_no_class_colours():
    assert not {c.color.lower() for c in CLASSES} & {color.lower() for color in AGREEMENT.values()}


def test_overlay_colours_only_the_named_classes():
    labels = np.array([[0, 1, 2, 3]])
    picture = plots.overlay(np.full((1, 4), 150.0), labels, classes=(0,), alpha=1)
    assert tuple(picture[0, 0]) == pytest.approx(to_rgb(CLASSES[0].color)) and (picture[0, 1:] == 1).all()


def test_four_rows_one_column_a_slice_and_every_class_named():
    stack = np.zeros((3, 8, 8), np.uint8)
    figure = plots.plot_results(stack.astype(float), stack, stack, ["a", "b", "c"])
    assert len(figure.axes) == 12 and [ax.get_title() for ax in figure.axes[:3]] == ["a", "b", "c"]
    named = {text.get_text() for text in figure.legends[0].get_texts()}
    assert named == {c.name for c in CLASSES} | set(AGREEMENT)


def test_confusion_is_in_percent_of_the_truth():
    counts = np.diag([1, 2, 3, 4])
    counts[3, 0] = 4
    texts = [text.get_text() for text in plots.plot_confusion(counts).axes[0].texts]
    assert texts[-4:] == ["50.0", "0.0", "0.0", "50.0"]


def test_a_saved_figure_is_whole_and_closed(tmp_path):
    figure = plots.plot_bars({"a": 1.0, "b": 2.0}, "units", "title")
    assert plots.save_figure(figure, tmp_path / "new", "bars") is figure
    assert (tmp_path / "new" / "bars.png").read_bytes().startswith(b"\x89PNG") and not plt.get_fignums()


def test_slices_show_the_named_classes_over_the_lung_window():
    hu = np.full((5, 4, 4), -600.0)
    labels = np.zeros((5, 4, 4), np.uint8)
    figure = plots.show_slices(hu, labels, ["a", "b"], columns=3, classes=(0,))
    drawn = [ax for ax in figure.axes if ax.images]
    assert len(drawn) == 5 and [ax.get_title() for ax in drawn] == ["a", "b", "", "", ""]
    expected = plots.overlay(hu[0], labels[0], classes=(0,))
    np.testing.assert_allclose(drawn[0].images[0].get_array(), expected)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [CLASSES[0].name]
    assert not plots.show_slices(hu).legends


def test_agreement_is_a_picture_a_slice():
    truth, prediction = np.zeros((5, 2, 2), np.uint8), np.full((5, 2, 2), 3, np.uint8)
    figure = plots.show_agreement(np.full((5, 2, 2), -600.0), truth, prediction, list("abcde"), "missed")
    drawn = [ax for ax in figure.axes if ax.images]
    assert [ax.get_title() for ax in drawn] == list("abcde") and figure.get_suptitle() == "missed"
    for ax in drawn:
        assert (ax.images[0].get_array() == to_rgb(AGREEMENT["miss"])).all()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(AGREEMENT)


def test_a_submission_says_its_shares_and_draws_consolidation_on_top():
    masks = np.zeros((2, 4, 4, 2), np.uint8)
    masks[0, :2] = 1  # both lesions on half of the first slice
    figure = plots.plot_submission(masks)
    first, second = (ax for ax in figure.axes if ax.images)
    assert first.get_title() == "test 0: 50.0% + 50.0%" and second.get_title() == "test 1: 0.0% + 0.0%"
    expected = plots.overlay(np.full((1, 1), -1350.0), np.ones((1, 1), int))[0, 0]
    np.testing.assert_allclose(first.images[0].get_array()[0, 0], expected)
    assert (second.images[0].get_array() == 0).all()


def test_the_alternative_text_goes_into_a_notebooks_output_and_into_the_file(tmp_path, monkeypatch):
    shell = InteractiveShell()
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    monkeypatch.setattr("matplotlib_inline.backend_inline.InteractiveShell.instance", lambda: shell)
    with plt.rc_context():
        plots.set_style()
        figure = plots.show_slices(np.full((1, 8, 8), -600.0), np.zeros((1, 8, 8), np.uint8), ["slice 7"])
        data, metadata = shell.display_formatter.format(figure)
    text = alt_text(figure)
    assert "slice 7: ground glass opacity 100 % of the lung" in text
    assert metadata["image/jpeg"]["alt"] == data["text/plain"] == text and data["image/jpeg"]
    plots.save_figure(figure, tmp_path, "slices")
    assert Image.open(tmp_path / "slices.png").text["Description"] == text


def test_a_notebooks_page_hands_the_text_to_a_screen_reader():
    nbconvert = pytest.importorskip("nbconvert")
    picture = {"image/jpeg": "AAAA", "text/plain": "a figure"}
    metadata = {"image/jpeg": {"alt": "what is <seen>"}}
    outputs = [
        nbformat.v4.new_output("display_data", picture, metadata=metadata),
        nbformat.v4.new_output("display_data", picture),
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", outputs=outputs)])
    templates = CHECKOUT / "notebooks" / "templates"
    exporter = nbconvert.HTMLExporter(template_name="described", extra_template_basedirs=[str(templates)])
    page, _ = exporter.from_notebook_node(notebook)
    assert page.count('alt="what is &lt;seen&gt;"') == 1 and page.count("base64,AAAA") == 2
