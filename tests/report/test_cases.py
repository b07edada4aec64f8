"""Many cases in one folder: a row for each scan, none half written, nothing made twice, no name anywhere."""

import json
import os
import signal
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from helpers import SERVER, Reader, chest_scan, phantom_chest, write_series

from lungseg_utils.cli import main
from lungseg_utils.core.files import InputError, locked
from lungseg_utils.inference.segmenter import Segmenter
from lungseg_utils.report import cases, page
from lungseg_utils.report.case import predict_case
from lungseg_utils.report.cases import (
    IDENTIFYING,
    Making,
    cases_folder,
    check_cases_folder,
    is_cases_folder,
    predict_cases,
    save_cases,
    thumbnail,
)
from lungseg_utils.scans.sources import find_scans

MARKER = "ZQMARKER"
MAKING = Making("model", "0" * 64)


@pytest.fixture(autouse=True)
def loaded(monkeypatch):
    """A segmenter that needs no network, reports that take no time; the list counts what is loaded."""
    folders = []
    monkeypatch.setattr(Segmenter, "load", lambda folder: folders.append(folder) or Reader())
    monkeypatch.setattr(page, "write_report", stub_report)
    cases.worker_segmenter.cache_clear()
    yield folders
    cases.worker_segmenter.cache_clear()


def stub_report(case, folder):
    (folder / "report.json").write_text(json.dumps(case.summary))


@pytest.fixture
def scans(tmp_path):
    """Three arrays and a broken one, in a folder whose name is nobody's concern."""
    folder = tmp_path / MARKER
    folder.mkdir()
    for i in range(3):
        np.save(folder / f"{MARKER}{i}.npy", phantom_chest()[5:8] + i)
    (folder / f"{MARKER}3.npy").write_bytes(b"\x93NUMPY\x01\x00")
    return folder


def predicted(scans, out, making=MAKING):
    """All in this process: the outcomes by the number in the scan's name."""
    sources = find_scans([scans])
    with cases_folder(out):
        save_cases(sources, predict_cases(sources, out, making), out)
    table = pd.read_csv(out / "cases.csv", keep_default_na=False, dtype=str)
    return table.set_index("case")


def case_folders(out):
    return sorted(path for path in out.iterdir() if path.is_dir())


def test_each_scan_is_a_row_and_what_is_read_has_a_folder(scans, tmp_path, loaded):
    table = predicted(scans, tmp_path / "out")
    assert list(table["status"]) == ["done", "done", "done", "failed"] and loaded == ["model"]
    assert [path.name for path in case_folders(tmp_path / "out")] == sorted(table.index[:3])
    for name in table.index[:3]:
        folder = tmp_path / "out" / name
        assert {path.name for path in folder.iterdir()} == {"mask.npy", "report.json", "thumbnail.jpg"}
        summary = json.loads((folder / "report.json").read_text())
        assert summary["case"] == name and "both_involved_percent" in table
        assert float(table["both_involved_percent"][name]) == summary["all"]["percent_of_lung"]["involved"]
        left = summary["sides"]["left"]["percent_of_lung"]["ground_glass"]
        assert float(table["left_ground_glass_percent"][name]) == left
        assert table["slices"][name] == "3" and table["seconds"][name]
        assert table["warnings"][name] == " | ".join(summary["warnings"])
    assert "no array of numbers" in table["warnings"].iloc[3] and table["slices"].iloc[3] == ""


def test_a_worker_speaks_the_call_s_language_and_a_case_in_another_is_made_again(scans, tmp_path):
    out = tmp_path / "out"
    english = predicted(scans, out)
    spanish = predicted(scans, out, replace(MAKING, language="es"))
    for name in english.index[:3]:
        assert spanish["warnings"][name] and spanish["warnings"][name] != english["warnings"][name]
    assert list(spanish.columns) == list(english.columns)
    assert '<html lang="es">' in (out / "cases.html").read_text(encoding="utf-8")


def test_only_sources_csv_says_whose_a_case_is(scans, tmp_path, monkeypatch):
    write_series(
        scans / MARKER, phantom_chest(), change=lambda dataset, i: setattr(dataset, "PatientName", MARKER)
    )
    damaged = min((scans / MARKER).iterdir())
    damaged.write_bytes(damaged.read_bytes()[:5000])
    (scans / f"{MARKER}.zip").write_bytes(b"PK\3\4" + bytes(600))
    (scans / f"{MARKER}.mha").write_bytes(b"ObjectType = Image\nNDims = 3\n")
    (scans / f"{MARKER}.nii.gz").write_bytes(b"\x1f\x8b" + bytes(600))
    (scans / f"{MARKER}.nii").write_text("text")
    (scans / f"{MARKER}0.npy").write_bytes((scans / f"{MARKER}1.npy").read_bytes() + bytes(1))
    predict = cases.predict_case

    def quoting(scan, segmenter):
        if len(segmenter.seen):
            raise ValueError(f"{MARKER} of somebody")
        return predict(scan, segmenter)

    monkeypatch.setattr(cases, "predict_case", quoting)
    paths = [str(scans), str(scans / f"{MARKER}absent.nii")]
    sources, out = find_scans(paths), tmp_path / "out"
    with cases_folder(out):
        save_cases(sources, predict_cases(sources, out, MAKING), out)
    table = pd.read_csv(out / "cases.csv")
    assert set(table["status"]) == {"done", "failed"} and len(table) == 10
    texts = (MARKER.encode(), str(tmp_path).encode())
    for path in out.rglob("*"):
        named = path.is_file() and any(text in path.read_bytes() for text in texts)
        assert named == (path.name == "sources.csv"), path
    whose = pd.read_csv(out / "sources.csv", keep_default_na=False)
    assert set(whose["case"]) == set(table["case"]) and "identifies the patient" in IDENTIFYING
    for case, status, place in zip(whose["case"], whose["status"], whose[IDENTIFYING]):
        assert place.startswith(str(scans)) and (out / case).is_dir() == (status == "done")


def test_finished_cases_are_skipped_and_what_changed_is_made_again(scans, tmp_path, monkeypatch):
    out = tmp_path / "out"
    first = predicted(scans, out)
    made = {path: path.stat().st_ino for path in case_folders(out)}
    monkeypatch.setattr(Segmenter, "load", lambda folder: pytest.fail("nothing is to be predicted"))
    pd.testing.assert_frame_equal(predicted(scans, out), first)
    assert {path: path.stat().st_ino for path in case_folders(out)} == made
    monkeypatch.setattr(Segmenter, "load", lambda folder: Reader())
    for other in (replace(MAKING, model_sha256="1" * 64), replace(MAKING, keep_identity=True)):
        predicted(scans, out, other)
        again = {path: path.stat().st_ino for path in case_folders(out)}
        assert all(again[path] != made[path] for path in made)
        made = again
    np.save(scans / f"{MARKER}0.npy", phantom_chest()[:4])
    table = predicted(scans, out, other)
    assert len(case_folders(out)) == 4 and set(first.index) < set(
        table.index
    )  # the earlier case keeps its row


def test_cases_of_an_earlier_call_keep_their_rows(scans, tmp_path):
    out = tmp_path / "out"
    one, all_ = predicted(scans / f"{MARKER}1.npy", out), predicted(scans, out)
    assert len(one) == 1 and len(all_) == 4
    table = predicted(scans / f"{MARKER}2.npy", out)
    assert set(table.index) == set(all_.index[:3])
    sources = pd.read_csv(out / "sources.csv", dtype=str)
    assert set(sources["case"]) == set(table.index) and len(sources) == 3


def test_copies_of_a_scan_are_one_case_of_two_sources(scans, tmp_path):
    (scans / "copy.npy").write_bytes((scans / f"{MARKER}0.npy").read_bytes())
    assert len(predicted(scans, tmp_path / "out")) == 4
    assert len(pd.read_csv(tmp_path / "out" / "sources.csv")) == 5


def test_one_call_at_a_time(scans, tmp_path):
    with locked(tmp_path / "out", "another call"):
        assert is_cases_folder(tmp_path / "out")
        with pytest.raises(InputError, match="is being written by another call"):
            predicted(scans, tmp_path / "out")
    assert len(predicted(scans, tmp_path / "out")) == 4


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(InputError, match="holds letter.txt; expected nothing but earlier cases"):
        check_cases_folder(tmp_path)


def killed_while_it_writes(scans, out):
    def kill(case, folder):
        if len(case_folders(out)) == 2:  # one that is finished, and the hidden one at work
            os.kill(os.getpid(), signal.SIGKILL)
        stub_report(case, folder)

    Segmenter.load, page.write_report = (lambda folder: Reader()), kill
    predicted(scans, out)


def test_a_kill_leaves_no_half_written_case_and_the_same_call_goes_on(scans, tmp_path):
    out = tmp_path / "out"
    process = SERVER.Process(target=killed_while_it_writes, args=(scans, out))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    finished, hidden = sorted(case_folders(out), key=lambda path: path.name.startswith("."))
    assert (finished / "report.json").exists() and hidden.name.startswith(".case-")
    made = finished.stat().st_ino
    assert len(predicted(scans, out)) == 4
    assert len(case_folders(out)) == 3 and finished.stat().st_ino == made


def test_a_full_disk_is_a_row_and_no_half_written_case(scans, tmp_path, monkeypatch):
    out = tmp_path / "out"

    def full(case, folder):
        stub_report(case, folder)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(page, "write_report", full)
    table = predicted(scans, out)
    assert set(table["status"]) == {"failed"} and not case_folders(out)
    assert "No space left on device" in table["warnings"].iloc[0]
    monkeypatch.setattr(page, "write_report", stub_report)
    assert list(predicted(scans, out)["status"]) == ["done", "done", "done", "failed"]


def test_an_error_that_nobody_foresaw_ends_one_scan_and_not_the_others(scans, tmp_path, monkeypatch):
    class Failing(Reader):
        def classes(self, hu):
            if not self.seen[1:]:
                raise RuntimeError(f"no memory for {MARKER}\nmore")
            return super().classes(hu)

    monkeypatch.setattr(Segmenter, "load", lambda folder: Failing())
    table = predicted(scans, tmp_path / "out")
    assert list(table["status"]) == ["failed", "done", "done", "failed"]
    assert "RuntimeError" in table["warnings"].iloc[0]


def test_what_is_there_when_it_is_stopped_is_in_the_tables(scans, tmp_path):
    sources, out = find_scans([scans]), tmp_path / "out"

    def stopped():
        outcomes = predict_cases(sources, out, MAKING)
        yield next(outcomes)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_cases(sources, stopped(), out)
    assert list(pd.read_csv(out / "cases.csv")["status"]) == ["done"]


class Table(HTMLParser):
    """The tags of a page, each with its attributes, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def test_the_page_needs_nothing_else_and_everybody_can_use_it(scans, tmp_path, monkeypatch):
    evil = "<script>alert(1)</script>"
    monkeypatch.setattr(cases, "predict_case", lambda *_: predict_case(chest_scan(notes=(evil,)), Reader()))
    table = predicted(scans, tmp_path / "out")
    text = (tmp_path / "out" / "cases.html").read_text(encoding="utf-8")
    html = Table(text)
    assert evil not in text and evil in html.text
    assert html.all("html")[0]["lang"] and any(meta.get("name") == "viewport" for meta in html.all("meta"))
    assert not html.all("link") and all("src" not in script for script in html.all("script"))
    assert all(image["src"].startswith("data:") and image["alt"] for image in html.all("img"))
    assert {head["scope"] for head in html.all("th")} == {"row", "col"}
    assert len([head for head in html.all("th") if head["scope"] == "row"]) == len(table)
    assert {link["href"] for link in html.all("a")} == {f"{name}/report.html" for name in table.index[:3]}
    assert len(html.all("button")) == len([head for head in html.all("th") if head["scope"] == "col"])


def test_a_thumbnail_shows_no_text_beside_the_body(monkeypatch):
    shown = []
    monkeypatch.setattr(
        cases, "slice_picture", lambda hu, labels: shown.append(hu) or np.zeros((*hu.shape, 3), np.uint8)
    )
    scan = chest_scan(1)
    hu = np.full((1, 256, 256), -1000, np.int16)
    hu[:, 80:176, 80:176] = scan.hu
    glyph = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1], [1, 0, 0], [1, 0, 0]])  # a P
    for k in range(12):
        hu[:, 10:15, 10 + 5 * k : 13 + 5 * k] = np.where(glyph, 300, -1000)
    case = predict_case(scan, Reader())
    labels = np.full(hu.shape, 2, np.uint8)  # lung to the corners: all is shown
    burned = replace(case, scan=replace(scan, hu=hu), labels=labels)
    assert thumbnail(burned)[:2] == b"\xff\xd8"
    assert shown[0].shape == (256, 256) and shown[0][:60].max() < -900 and shown[0].max() > 0


def test_the_command_says_what_failed_and_exits_1(scans, tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    out = tmp_path / "out"
    options = ["--model", str(tmp_path / "model"), "--out", str(out)]
    result = CliRunner().invoke(main, ["predict", str(scans), *options])
    assert result.exit_code == 1, result.output
    assert "4 scans: 3 cases, 0 made earlier; 1 not read" in result.stdout
    assert f"{MARKER}3.npy" in result.stderr.replace("\n", "") and "Traceback" not in result.stderr
    files = [str(scans / f"{MARKER}{i}.npy") for i in range(3)]
    result = CliRunner().invoke(main, ["predict", *files, *options])
    assert result.exit_code == 0 and "3 scans: 3 cases, 3 made earlier" in result.stdout
    paths = tmp_path / "paths.txt"
    paths.write_text(files[0])
    result = CliRunner().invoke(main, ["predict", str(paths), *options])
    assert result.exit_code == 0 and "1 scans: 1 cases, 1 made earlier" in result.stdout
    result = CliRunner().invoke(main, ["predict", *files, "--series", "1", *options])
    assert result.exit_code == 2 and "--series chooses of one scan" in result.stderr


def test_the_command_lists_what_tells_the_series_of_a_study_apart(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    for series, kernel in (("2", "B70f"), ("3", "B30f")):
        kernels = {"ConvolutionKernel": kernel, "PatientName": MARKER}
        write_series(
            tmp_path / "s", phantom_chest()[:4], series=series, change=lambda d, i, k=kernels: d.update(k)
        )
    options = ["--model", str(tmp_path / "model"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(main, ["predict", str(tmp_path / "s"), *options])
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["chosen", "2:", "4", "slices"] in [line[:4] for line in lines]
    assert ["not", "chosen", "3:", "4"] in [line[:4] for line in lines]
    assert "B70f" in result.stdout and "B30f" in result.stdout
    assert MARKER not in result.stdout.replace(str(tmp_path), "")


@pytest.mark.slow
def test_two_processes_make_the_same_cases_as_one(scans, tmp_path, trained_dir, monkeypatch):
    monkeypatch.undo()
    pytest.importorskip("distributed")
    tables = []
    for jobs in (None, 2):
        out = tmp_path / f"out{jobs}"
        options = ["--model", str(trained_dir / "model"), "--out", str(out)]
        options += ["--jobs", str(jobs)] if jobs else []
        result = CliRunner().invoke(main, ["predict", str(scans), *options])
        assert result.exit_code == 1, result.output
        tables.append(pd.read_csv(out / "cases.csv").drop(columns="seconds"))
        assert not [path for path in out.iterdir() if path.name.startswith(".case")]
    pd.testing.assert_frame_equal(*tables)
