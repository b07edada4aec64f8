"""Where many scans lie: in several paths, in a folder or an archive of patients, in a text file of paths."""

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from lungseg_utils.core.files import InputError, input_path, standing_path
from lungseg_utils.scans.archives import files_in, open_source
from lungseg_utils.scans.io import DICOMDIR, kind_in, kind_of, read_scan
from lungseg_utils.scans.scan import Scan

MOST_FILES = 1_000_000  # in a folder of patients
SCAN_NAMES = (".nii", ".nii.gz", ".dcm", ".mha", ".mhd", ".nrrd", ".npy", ".zip", ".tar", ".tgz", ".tar.gz")
MACS_OWN = "._"  # begins the name of what macOS keeps beside a file on other disks
LIST = ".txt"  # ends the name of a text file of paths
BLOCK = 2**20  # bytes

# In the header of a MetaImage or NRRD file whose pixels lie in another file.
PIXELS_APART = re.compile(rb"(?:ElementDataFile\s*=|\ndata ?file:)[ \t]*([^\r\n]+)", re.IGNORECASE)


@dataclass(frozen=True)
class Source:
    """One scan that can be read, here or on another machine that sees the same files."""

    path: Path  # a file, a folder or an archive
    members: tuple[str, ...] = ()  # the scan's files in a folder or an archive; none: all
    series: str = ""  # of DICOM: what a list says of it
    notes: tuple[str, ...] = ()  # what was chosen of its study
    chosen: bool = True  # False: a series of a study of which another is predicted

    def read(self) -> Scan:
        """The scan, as `read_scan` reads it. Raises InputError."""
        scan = read_scan(self.path, members=self.members)
        return replace(scan, notes=(*self.notes, *scan.notes))

    def fingerprint(self) -> str:
        """SHA-256 of the content of its files, whatever they are called and wherever they lie.

        Raises InputError or OSError where they cannot be read.
        """
        if self.members or self.path.is_dir():
            with open_source(self.path, self.members) as openers:
                parts = [_sha256(opener()) for opener in openers.values()]
            if not self._is_pictures():  # their names are their order
                parts.sort()
        else:
            parts = sorted(_sha256(file.open("rb")) for file in _with_pixels(self.path))
        return hashlib.sha256("".join(parts).encode()).hexdigest()

    def _is_pictures(self) -> bool:
        return self.path.is_dir() and bool(self.members) and kind_of(self.path / self.members[0]) == "picture"

    @property
    def place(self) -> str:
        """The path that leads to it; into an archive too."""
        if not self.members:
            return str(self.path)
        return str(self.path / os.path.commonpath(self.members))


def _with_pixels(path: Path) -> set[Path]:
    """The file, and the one with its pixels that a header of MetaImage or NRRD names; else all beside it."""
    with path.open("rb") as handle:
        found = PIXELS_APART.search(handle.read(2**14))
    if not found or found[1].strip() == b"LOCAL":
        return {path}
    named = path.parent / os.fsdecode(found[1].strip())
    return {path, named} if named.is_file() else {file for file in path.parent.iterdir() if file.is_file()}


def _sha256(handle: IO[bytes]) -> str:
    with handle:
        checksum = hashlib.sha256()
        while block := handle.read(BLOCK):
            checksum.update(block)
    return checksum.hexdigest()


def is_list(path: str | Path) -> bool:
    """Whether this is a text file of paths: its name says so, and it holds no scan."""
    path = standing_path(path)
    return path.suffix.lower() == LIST and path.is_file() and kind_of(path) is None


def find_scans(paths: Sequence[str | Path]) -> list[Source]:
    """The scans under several paths, and the series that were not chosen.

    Files of one scan are told by their content. What has a scan's name and cannot be read is listed too: so
    it is missed by nobody.

    Args:
        paths: Of files, folders, archives, and text files (.txt) with a path on each line: relative ones
            start at the text file, and what follows a # at the beginning of a line is a comment.

    Returns:
        In the order of the paths and of the names in them, each once.

    Raises:
        InputError: A list cannot be read, or nothing is there.
    """
    found = [source for path in paths for source in (_listed(path) if is_list(path) else _found(path))]
    if not any(source.chosen for source in found):
        named = ", ".join(map(str, paths))
        raise InputError(f"there is no scan in {named}; expected some; name the scans or their folder.")
    return list(dict.fromkeys(found))


def _listed(path: str | Path) -> Iterator[Source]:
    """The scans of a text file of paths."""
    path = input_path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text in UTF-8; expected one path a line; save it so.") from error
    for line in map(str.strip, lines):
        if line and not line.startswith("#"):
            yield from _found(path.parent / Path(line).expanduser())


def _found(path: str | Path) -> list[Source]:
    """The scans under one path; what cannot be read is a source that says so when it is read."""
    path = standing_path(path)
    try:
        if path.is_dir():
            sources = _in_folder(path)
        elif (kind := kind_of(path)) == "archive":
            sources = _in_archive(path)
        elif kind == "dicom" and _is_dicomdir(path):
            sources = _in_folder(path.parent)
        else:
            sources = [Source(path)]
    except (OSError, InputError):
        return [Source(path)]
    return sources if any(source.chosen for source in sources) else [Source(path)]


def _is_dicomdir(path: Path) -> bool:
    with path.open("rb") as handle:
        return DICOMDIR in handle.read(2048)


def _in_folder(folder: Path) -> list[Source]:
    """The scans of a folder with its subfolders."""
    dicom: list[str] = []
    pictures: dict[Path, list[str]] = {}
    sources: list[Source] = []
    for file in files_in(folder, MOST_FILES):
        try:
            kind = kind_of(file)
        except OSError:
            sources.append(Source(file))
            continue
        if kind == "dicom" and not _is_dicomdir(file):
            dicom.append(str(file.relative_to(folder)))
        elif kind == "picture":
            pictures.setdefault(file.parent, []).append(file.name)
        elif kind == "archive":
            sources += _found(file)
        elif kind or (file.name.lower().endswith(SCAN_NAMES) and not file.name.startswith(MACS_OWN)):
            sources.append(Source(file))
    with_dicom = {(folder / name).parent for name in dicom}
    sources += [Source(place, tuple(names)) for place, names in pictures.items() if place not in with_dicom]
    if dicom:
        sources += _in_dicom(folder, dicom)
    return sorted(sources, key=lambda source: source.place)


def _in_archive(path: Path) -> list[Source]:
    """The scans of an archive: files that are whole scans, and DICOM."""
    with open_source(path) as openers:
        kinds = {name: kind_in(opener) for name, opener in openers.items()}
    sources = [Source(path, (name,)) for name, kind in kinds.items() if kind in ("nifti", "array", "itk")]
    dicom = [name for name, kind in kinds.items() if kind == "dicom"]
    return sorted(sources + (_in_dicom(path, dicom) if dicom else []), key=lambda source: source.place)


def _in_dicom(path: Path, members: list[str]) -> list[Source]:
    """The series of a folder or an archive, and the folders in it that hold no slice.

    Those are not chosen if that is in order, as with scout views; damaged ones are, and say so when read.
    """
    from lungseg_utils.scans.dicom import find_series, in_order

    series, problems = find_series(path, members)
    sources = [Source(path, one.members, one.about, one.notes, one.chosen) for one in series]
    whole = {Path(name).parent for one in series for name in one.members}
    others: dict[Path, list[str]] = {}
    for name in problems:
        if Path(name).parent not in whole:
            others.setdefault(Path(name).parent, []).append(name)
    for names in others.values():
        found = sorted({problems[name] for name in names})
        chosen = not all(map(in_order, found))
        sources.append(Source(path, tuple(names), " and ".join(found), chosen=chosen))
    return sources
