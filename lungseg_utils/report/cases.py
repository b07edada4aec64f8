"""Many scans from the network to one folder: a case folder each, and the tables of all of them.

Only sources.csv says which case comes from which file.
"""

import hashlib
import io
import json
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from lungseg_utils import __version__
from lungseg_utils.core.classes import CLASSES, LESIONS
from lungseg_utils.core.cluster import dask_client, needs_dask
from lungseg_utils.core.device import usable_cores
from lungseg_utils.core.files import (
    LOCK,
    InputError,
    atomic_write,
    clear_leftovers,
    first_line,
    in_words,
    locked,
    write_csv,
)
from lungseg_utils.core.language import ENGLISH, language_now, set_language
from lungseg_utils.inference.segmenter import Segmenter
from lungseg_utils.report.browser import slice_picture, square_pixels
from lungseg_utils.report.case import Case, predict_case
from lungseg_utils.report.cases_page import cases_html
from lungseg_utils.report.page import THUMBNAIL, check_room, save_case
from lungseg_utils.report.severity import SIDES
from lungseg_utils.scans.sources import Source

if TYPE_CHECKING:
    from distributed import Future

TABLE, PAGE, SOURCES = "cases.csv", "cases.html", "sources.csv"
PREFIX = "case-"
DIGITS = 12  # hexadecimal, of a case's name: among 10,000 scans two share one once in five million times
WIDTH = 160  # pixels of a thumbnail
WRITTEN_EVERY = 60  # seconds, the tables, while cases are made
DONE, FAILED, LEFT_OUT = "done", "failed", "left out"
IDENTIFYING = "path (identifies the patient)"  # a column of sources.csv


@dataclass(frozen=True)
class Making:
    """What all cases of a call are made with; a case made with another is made again."""

    model: str  # the model's folder
    model_sha256: str  # of its weights and its config
    keep_identity: bool = False  # see `scans.write_masks`
    language: str = ENGLISH  # of the reports
    software: str = f"lungseg {__version__}"

    @classmethod
    def of(cls, model: str | Path, keep_identity: bool = False) -> "Making":
        """With the model in a folder, in the language that is set.

        Raises InputError if the folder holds no model that can be used.
        """
        Segmenter.load(model)  # checks it before the first scan
        config = Path(model, "config.json").read_bytes()  # it holds the weights' checksum
        return cls(str(model), hashlib.sha256(config).hexdigest(), keep_identity, language_now())

    def stamp(self, fingerprint: str) -> dict[str, Any]:
        """What a case says that it was made from and with: no path."""
        made = {name: value for name, value in asdict(self).items() if name != "model"}
        return {"source_sha256": fingerprint, **made}


@dataclass(frozen=True)
class CaseOutcome:
    """What became of one scan."""

    source: Source
    case: str  # its name; empty if not even its bytes could be read
    summary: dict[str, Any] | None  # report.json; None if there is none
    message: str = ""  # why there is none: one sentence, with paths
    shown: str = ""  # the same without them, for who is not to know whose the scan is
    made: bool = True  # False: it was there before


def check_cases_folder(folder: Path) -> Path:
    """The folder; InputError unless it is new, empty or holds nothing but what `save_cases` writes."""
    inside = {path.name for path in folder.iterdir()} if folder.exists() else set()
    ours = {TABLE, PAGE, SOURCES}
    if others := sorted(name for name in inside - ours if not name.startswith((PREFIX, "."))):
        raise InputError(
            f"{folder} holds {others[0]}; expected nothing but earlier cases; choose another folder."
        )
    return folder


def is_cases_folder(folder: Path) -> bool:
    """Whether `save_cases` has written here, or has begun to."""
    return (folder / SOURCES).exists() or (folder / LOCK).exists()


@lru_cache(maxsize=1)
def worker_segmenter(making: Making, threads: int | None) -> Segmenter:
    """The model of a worker, loaded once."""
    if threads:
        torch.set_num_threads(threads)
    return Segmenter.load(making.model)


def predict_source(source: Source, out: Path, making: Making, threads: int | None = None) -> CaseOutcome:
    """Make the case of one scan, unless it is there already; whatever fails is told and not raised.

    Args:
        source: The scan.
        out: The folder of all cases; a case lands in one of its own in it.
        making: With what.
        threads: Of a worker that shares a machine with others; None: all.

    Returns:
        The case, or why there is none.
    """
    set_language(making.language)  # in a worker, too
    began, name = time.monotonic(), ""
    try:
        fingerprint = source.fingerprint()
        name = PREFIX + fingerprint[:DIGITS]
        stamp = making.stamp(fingerprint)
        if summary := _finished(out / name, stamp):
            return CaseOutcome(source, name, summary, made=False)
        segmenter = worker_segmenter(making, threads)
        scan = source.read()
        check_room(out / name, scan)
        case = predict_case(scan, segmenter)
        seconds = round(time.monotonic() - began, 2)
        case = replace(case, summary=case.summary | {"case": name, "seconds": seconds, "made": stamp})
        save_case(case, out / name, making.keep_identity, thumbnail(case))
        return CaseOutcome(source, name, case.summary)
    except (InputError, OSError) as error:
        message = str(error if isinstance(error, InputError) else in_words(error, source.path))
        return CaseOutcome(source, name, None, message, without_paths(message, source, out))
    except Exception as error:  # one scan, whatever is wrong with it, is not the end of the others
        found = f"ended in {type(error).__name__}"  # whose own words may quote the scan's header
        message = f"{source.path} {found}: {first_line(error)}"
        return CaseOutcome(source, name, None, message, f"the scan {found}")


def _finished(folder: Path, stamp: dict[str, Any]) -> dict[str, Any] | None:
    """report.json of a case that was made so; None if there is none."""
    summary = _summary(folder)
    return summary if summary and summary.get("made") == stamp else None


def _summary(folder: Path) -> dict[str, Any] | None:
    """report.json of a case, None if there is none."""
    try:
        summary = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return summary if isinstance(summary, dict) and "made" in summary else None


def thumbnail(case: Case) -> bytes:
    """A JPEG of the slice with the most lesion: the lungs, lesions in colour, no text beside the body."""
    plan, profile = case.montage, case.summary["profile"]
    lesion = np.sum([profile[CLASSES[c].short] for c in LESIONS], axis=0)
    i = max(plan.chosen, key=lambda index: lesion[index])
    hu, labels = case.picture(i), case.labels[i, plan.rows, plan.columns]
    square = square_pixels(hu.shape, case.scan.spacing)
    picture = Image.fromarray(slice_picture(hu[square], labels[square]))
    picture.thumbnail((WIDTH, WIDTH))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


@contextmanager
def cases_folder(folder: Path) -> Iterator[Path]:
    """The folder of all cases, for one call at a time; what killed ones left is cleared."""
    with locked(check_cases_folder(folder), "lungseg predict"):
        clear_leftovers(folder)
        yield folder


def predict_cases(
    sources: Sequence[Source],
    out: Path,
    making: Making,
    jobs: int | None = None,
    scheduler: str | None = None,
    scheduler_file: str | None = None,
) -> Iterator[CaseOutcome]:
    """`predict_source` of each chosen source, as they end: in this process, or in those of a Dask scheduler.

    Args:
        sources: From `find_scans`.
        out: The folder of all cases; workers on other machines must see it and the scans at the same paths.
        making: With what.
        jobs: See `core.cluster.needs_dask`, as the two that follow.
        scheduler: An address.
        scheduler_file: A file.

    Yields:
        One outcome a chosen source, as they end.

    Raises:
        InputError: As `core.cluster.dask_client`.
    """
    chosen = [source for source in sources if source.chosen]
    if not needs_dask(jobs, scheduler, scheduler_file):
        yield from (predict_source(source, out, making) for source in chosen)
        return
    from distributed import as_completed

    threads = max(usable_cores() // jobs, 1) if jobs else None
    with dask_client(jobs, scheduler, scheduler_file) as client:
        tasks = {
            client.submit(_in_worker, source, out, making, threads, pure=False): source for source in chosen
        }
        for task in as_completed(tasks):
            yield _outcome(task, tasks[task])


def _in_worker(source: Source, out: Path, making: Making, threads: int | None) -> CaseOutcome:
    """`predict_source` without its progress bars, which would cover that of all scans."""
    with redirect_stderr(io.StringIO()):
        return predict_source(source, out, making, threads)


def _outcome(task: "Future", source: Source) -> CaseOutcome:
    """What a worker made of a scan, or that none did: it died as often as Dask tries, or Dask is gone."""
    try:
        return task.result()
    except Exception as error:
        found = "was finished by no worker"
        return CaseOutcome(
            source, "", None, f"{source.path} {found}: {first_line(error)}", f"the scan {found}"
        )


def save_cases(sources: Sequence[Source], outcomes: Iterable[CaseOutcome], folder: Path) -> list[CaseOutcome]:
    """Gather what becomes of the scans, and write the tables now and then, at the end, and when stopped.

    Args:
        sources: All, in their order; those that were not chosen only stand in sources.csv.
        outcomes: In any order, as they come; those that no outcome comes of are missing in the tables.
        folder: Of all cases. Earlier ones in it, made from other scans, keep their rows.

    Returns:
        The outcomes, in the order of the sources.
    """
    came: dict[Source, CaseOutcome] = {}
    left_out = [source for source in sources if not source.chosen]

    def named() -> list[CaseOutcome]:
        ordered = [came[source] for source in sources if source in came]
        return [
            outcome if outcome.case else replace(outcome, case=f"unread-{number:03d}")
            for number, outcome in enumerate(ordered, 1)
        ]

    written = time.monotonic()
    try:
        for outcome in outcomes:
            came[outcome.source] = outcome
            if time.monotonic() - written > WRITTEN_EVERY:
                with suppress(InputError):  # such as open in a spreadsheet: the last write says so
                    write_tables(left_out, named(), folder)
                written = time.monotonic()
    finally:
        write_tables(left_out, named(), folder)
    return named()


def write_tables(left_out: Sequence[Source], outcomes: Sequence[CaseOutcome], folder: Path) -> None:
    """Write cases.csv, cases.html and sources.csv."""
    known = {outcome.case for outcome in outcomes}
    earlier = [path.name for path in sorted(folder.glob(f"{PREFIX}*")) if path.name not in known]
    rows = {name: case_row(summary) for name in earlier if (summary := _summary(folder / name))}
    for outcome in outcomes:
        failed = failed_row(outcome.case, outcome.shown)
        rows[outcome.case] = case_row(outcome.summary) if outcome.summary else failed
    write_csv(folder / SOURCES, _sources_table(left_out, outcomes, folder))
    columns = list(failed_row("", ""))
    table = pd.DataFrame(list(rows.values()), columns=columns, dtype=object)  # whole numbers stay whole
    write_csv(folder / TABLE, table.assign(warnings=table["warnings"].map(" | ".join)))
    pictures = {name: _picture(folder / name) for name in rows}
    with atomic_write(folder / PAGE) as handle:
        handle.write(cases_html(list(rows.values()), pictures))


def _picture(folder: Path) -> bytes | None:
    try:
        return (folder / THUMBNAIL).read_bytes()
    except OSError:
        return None


def case_row(summary: dict[str, Any]) -> dict[str, Any]:
    """A row of cases.csv: a case's report in numbers, None for what it does not say."""
    row = failed_row(summary["case"], "") | {"status": DONE, "slices": summary["scan"]["slices"]}
    for place, region in _regions(summary).items():
        for kind, unit in (("percent_of_lung", "percent"), ("millilitres", "ml")):
            for name, value in (region[kind] or {}).items():
                if (column := f"{place}_{name}_{unit}") in row:
                    row[column] = value
    score = summary["score"]
    return row | {
        "severity_score": score["total"] if score else None,
        "severity_score_of": score["of"] if score else None,
        "seconds": summary["seconds"],
        "warnings": summary["warnings"],
        "model": summary["model"]["weights"],
    }


def _regions(summary: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {"both": summary["all"], **{side: summary["sides"][side] for side in SIDES}}


def failed_row(case: str, message: str) -> dict[str, Any]:
    """A row of cases.csv of a scan that could not be read: the columns of all rows, in their order."""
    kinds = ["involved", *(CLASSES[c].short for c in LESIONS)]
    places = ["both", *SIDES]
    numbers = [f"{place}_{kind}_percent" for place in places for kind in kinds]
    numbers += [f"{place}_{kind}_ml" for place in places for kind in ("lung", *kinds)]
    numbers += ["severity_score", "severity_score_of", "slices", "seconds"]
    row = {"case": case, "status": FAILED, **dict.fromkeys(numbers)}
    return row | {"warnings": [message], "model": None}


def without_paths(message: str, source: Source, out: Path) -> str:
    """A sentence about a scan without its paths, the names of its files, and the path of the results."""
    files = [source.path, *(source.path / name for name in source.members)]
    paths = {path for file in files for path in (file, file.resolve())}
    paths |= {parent for path in paths for parent in path.parents if parent != parent.parent}
    words = {out.resolve(): "the results", out: "the results", **dict.fromkeys(paths, "the scan")}
    for path in sorted(words, key=lambda path: len(str(path)), reverse=True):
        message = message.replace(str(path), words[path])
    for name in {file.name for file in files if len(file.name) > 3}:
        message = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "the scan", message)
    return message


def _sources_table(left_out: Sequence[Source], outcomes: Sequence[CaseOutcome], folder: Path) -> pd.DataFrame:
    """Case, path and series of each scan; and of earlier cases that are still in the folder."""
    rows = [
        (o.case, o.source.place, o.source.series, DONE if o.summary else FAILED, o.message) for o in outcomes
    ]
    rows += [("", source.place, source.series, LEFT_OUT, "") for source in left_out]
    table = pd.DataFrame(rows, columns=["case", IDENTIFYING, "series", "status", "message"])
    try:
        before = pd.read_csv(folder / SOURCES, dtype=str, keep_default_na=False)[list(table)]
    except (OSError, ValueError, KeyError):
        return table
    there = before["case"].map(lambda name: name not in set(table["case"]) and (folder / name).is_dir())
    return pd.concat([table, before[there & (before["case"] != "")]], ignore_index=True)
