"""The report: one page that needs nothing else and escapes what it shows, for every kind of case."""

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import matplotlib as mpl
import numpy as np
import pytest
from helpers import Blind, Reader, chest_scan
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from PIL import Image

from lungseg_utils.core.language import set_language, translate
from lungseg_utils.plots import slices as pictures_of_slices
from lungseg_utils.plots.parts import alt_text
from lungseg_utils.report import figures, montage
from lungseg_utils.report.case import STATEMENT, predict_case
from lungseg_utils.report.montage import most_affected
from lungseg_utils.report.page import TITLE, key_numbers, model_line, report_html, report_page, write_report

pytestmark = pytest.mark.usefixtures("coarse_pictures")
EVIL = '<script src="http://evil.example/x.js">&'


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def case():
    config = {
        "architecture": "unet",
        "encoder": EVIL,
        "best_epoch": {"val_miou": 0.5, "val_lesion_dice": 0.25},
    }
    return predict_case(chest_scan(notes=(f"A doubt {EVIL}",)), Reader(config=config))


@pytest.fixture(scope="module")
def html(case):
    return report_html(case)


def test_the_page_needs_nothing_and_escapes_everything(html):
    page = Page(html)
    assert (
        EVIL in page.text and f"A doubt {EVIL}" in page.text and STATEMENT in page.text
    )  # as text, not as tags
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object", "form"})
    assert not any(
        name.startswith("on") or name == "href" for _, attributes in page.tags for name in attributes
    )
    images = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 13 and all(src.startswith("data:image/jpeg;base64,") for src in images)
    for src in images:
        Image.open(io.BytesIO(base64.b64decode(src.partition(",")[2]))).verify()
    assert "url(" not in html and "@import" not in html


def test_the_page_shows_the_measured_numbers(case, html):
    text = " ".join(Page(html).text.split())
    for value, words in key_numbers(case.summary):
        assert value in text and words in text
    for region in (case.summary["all"], *case.summary["sides"].values(), *case.summary["thirds"].values()):
        assert f"{region['percent_of_lung']['ground_glass']:.1f} %" in text
        assert f"{region['millilitres']['lung']:,.0f} ml" in text
    assert case.summary["case"] in text and "230:836, adapted" in text
    assert "mIoU 0.50, lesion Dice 0.25" in text


def test_the_page_speaks_its_reader_s_language_and_its_files_keep_their_names(html):
    set_language("es")
    case = predict_case(chest_scan(), Reader())
    spoken = report_html(case)
    assert '<html lang="es">' in spoken and translate(TITLE) in spoken and translate(STATEMENT) in spoken
    english = ("The most affected slices", "Doubts and notes", "right lung", "upper third", TITLE, STATEMENT)
    assert not [words for words in english if words in spoken]
    assert case.summary["language"] == "es" and case.summary["score"]["zones"].keys() >= {"right_upper"}
    assert "consolidation" in case.summary["all"]["percent_of_lung"]
    assert alt_text(report_page(case)).startswith("Informe de case-") and '<html lang="en">' in html


def test_pictures_are_described_and_a_phone_shows_the_page(html):
    page = Page(html)
    pictures = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    for start in (
        "CT slice 8 of 12",
        "Slice 8 with the lesions outlined: ground glass",
        "Entropy in the lungs",
    ):
        assert any(alt.startswith(start) for alt in pictures), pictures
    assert len(set(pictures)) == len(pictures)
    assert ("html", {"lang": "en"}) in page.tags
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags
    assert {attributes.get("scope") for tag, attributes in page.tags if tag == "th"} == {"col", "row"}
    assert min(int(size) for size in re.findall(r"font(?:-size)?:[^;}]*?(\d+)px", html)) >= 12
    assert min(int(size) for size in re.findall(r"font-size: (\d+)pt", html)) >= 8  # in print
    bar, wide = re.search(r'class="bar" style="width:([\d.]+)%">5 cm', html), html.count(">5 cm<")
    assert 5 < float(bar[1]) < 60 and wide == 12


def test_no_print_on_the_page_is_below_eight_points(case):
    page = report_page(case)
    page.draw_without_rendering()
    assert min(text.get_fontsize() for text in page.findobj(Text) if text.get_text()) >= 8
    assert case.summary["case"] in alt_text(page) and "of the lungs involved" in alt_text(page)


def test_a_zone_is_coloured_by_its_share():
    colors = [figures.zone_color({"percent": percent}) for percent in (0, 5, 24, 26, 49, 80)]
    brightness = [sum(to_rgb(color)) for color in colors]
    assert brightness == sorted(brightness, reverse=True) and len(set(colors)) == 6
    assert figures.zone_color(None) == "#ffffff" and figures.zone_words(None) == ("-", "no lung")


def test_three_files_are_written(case, tmp_path):
    write_report(case, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"report.json", "report.html", "report.png"}
    assert json.loads((tmp_path / "report.json").read_text()) == case.summary
    width, height = Image.open(tmp_path / "report.png").size
    assert height / width == pytest.approx(11.69 / 8.27, rel=0.01)  # one A4 page


@pytest.mark.parametrize("kind", ["single slice", "two slices", "unordered", "no lung", "many doubts"])
def test_every_kind_of_case_has_its_page(kind):
    slices = {"single slice": 1, "two slices": 2}.get(kind, 3)
    scan = chest_scan(slices=slices, spacing=None if kind != "many doubts" else (10.0, 3.0, 4.0))
    case = predict_case(scan, Blind() if kind == "no lung" else Reader())
    if kind == "many doubts":
        case = replace(
            case, warnings=("A long sentence about something that is doubtful in this scan. " * 5,) * 30
        )
    height = report_page(case).get_size_inches()[1]
    assert height > 12 if kind == "many doubts" else height == 11.69
    html = report_html(case)
    assert html.count("<img") == 3 * slices + (slices > 1) and "Severity score" not in Page(html).text
    assert case.montage.grid == {1: (1, 3), 2: (2, 3), 3: (3, 3)}[slices]
    assert " nan" not in html and ("ml</i>" in html) == (kind == "many doubts")


def test_the_most_affected_slices_are_spread_and_stand_head_first():
    lung = np.full(40, 100)
    lesion = np.zeros(40)
    lesion[[10, 11, 12, 30]] = [50, 60, 55, 20]
    assert most_affected(lesion, lung, 2) == [30, 11]
    assert most_affected(np.zeros(3), np.array([5, 9, 1])) == [2, 1, 0]
    assert most_affected(np.zeros(2), np.zeros(2)) == [1, 0]
    assert len(most_affected(np.arange(40.0), lung)) == 4


def test_text_beside_the_body_is_not_shown(case, monkeypatch):
    shown = []
    grey = pictures_of_slices.grey_picture  # every picture is made of it
    monkeypatch.setattr(pictures_of_slices, "grey_picture", lambda hu: shown.append(hu) or grey(hu))
    monkeypatch.setattr(montage, "lung_box", lambda lung: (slice(0, 256), slice(0, 256)))
    hu = np.full((12, 256, 256), -1000, np.int16)
    hu[:, 80:176, 80:176] = case.scan.hu
    glyph = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1], [1, 0, 0], [1, 0, 0]])  # a P
    for k in range(12):
        hu[:, 10:15, 10 + 5 * k : 13 + 5 * k] = np.where(glyph, 300, -1000)
    labels = np.pad(case.labels, ((0, 0), (80, 80), (80, 80)), constant_values=3)
    burned = replace(case, scan=replace(case.scan, hu=hu), labels=labels, entropy=np.zeros_like(labels))
    figures.draw_montage(mpl.figure.Figure(), burned)
    assert len(shown) == 12 and all(
        picture[:60].max() < -900 and picture[80:176].max() > 0 for picture in shown
    )


def test_a_model_that_says_little_is_still_named():
    assert model_line(dict.fromkeys(("architecture", "encoder", "image_size"))) == "network not named"
    card = {"architecture": "unet", "encoder": "resnet18", "image_size": 256}
    assert model_line(card) == "unet, resnet18; slices at 256 pixels"
