"""The files of a folder or an archive, each opened when it is needed.

An archive is never unpacked to disk.
"""

import gzip
import io
import json
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, cast

from lungseg_utils.core.files import InputError
from lungseg_utils.scans.scan import SeveralScans

GZIP = b"\x1f\x8b"
REPORT = "report.json"  # in each case's folder
MAX_FILES = 20_000
MAX_UNPACKED = 4 * 2**30  # bytes in a zip, all members together
MAX_MEMBER = 2**28  # bytes of one member: it is held in memory
MAX_EXPANSION = 200  # times; slices shrink to a half or a tenth, even blank ones seldom to a hundredth


@contextmanager
def open_source(path: Path, members: Collection[str] = ()) -> Iterator[dict[str, Callable[[], IO[bytes]]]]:
    """How to open each file under `path`: a folder, a zip, a tar or a file, each also gzipped.

    Folders are followed through links. Members of an archive come from memory, so that nothing is unpacked to
    disk.

    Args:
        path: The folder, archive or file.
        members: The only ones that are wanted; all if there are none.

    Yields:
        The openers by their names: of a file in a folder its path from there, in an archive its member's.
    """
    if path.is_dir():
        names = members or [str(file.relative_to(path)) for file in files_in(path)]
        yield {name: partial(open_plain, path / name) for name in names}
        return

    only = frozenset(members)

    def wanted(name: str) -> bool:
        return not only or name in only

    kind = archive_kind(path)
    try:
        if kind == "zip":
            with zipfile.ZipFile(path) as archive:
                infos = _safe_members(archive, path)
                yield {i.filename: partial(_from_zip, archive, i) for i in infos if wanted(i.filename)}
        elif kind == "tar":
            with tarfile.open(path) as tar:
                tar_infos = _safe_tar_members(tar, path)
                yield {i.name: partial(_from_tar, tar, i) for i in tar_infos if wanted(i.name)}
        else:
            yield {path.name: partial(open_plain, path)}
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError) as error:
        found = f"a damaged {kind or 'gzip'} file"
        raise InputError(f"{path} is {found}; expected one with DICOM files; pack it again.") from error


def files_in(folder: Path, most: int = MAX_FILES) -> list[Path]:
    """The files of a folder and its subfolders, by name, without the results of earlier predictions.

    Raises InputError for none or more than `most`.
    """

    def refuse(error: OSError) -> None:
        raise error  # os.walk would pass over a folder without rights

    files: list[Path] = []
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        folders[:] = [name for name in folders if os.path.realpath(Path(place, name)) not in seen]
        seen.update(os.path.realpath(Path(place, name)) for name in folders)  # a link may lead up
        if REPORT not in names or not is_case(Path(place)):
            files += [Path(place, name) for name in names]
        if len(files) > most:
            break
    files = sorted(file for file in files if file.is_file())
    if not 0 < len(files) <= most:
        expected = f"the slices of a scan, at most {most:,} files"
        kind = SeveralScans if files else InputError
        raise kind(f"{folder} has {len(files)} files; expected {expected}; name the scan's own folder.")
    return files


def is_case(folder: Path) -> bool:
    """Whether a folder holds what a prediction wrote: a case and no scan."""
    try:
        return "case" in json.loads((folder / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def open_plain(path: Path) -> IO[bytes]:
    """A file opened for reading, through gzip if it is packed so."""
    with path.open("rb") as handle:
        packed = handle.read(2) == GZIP
    return cast(IO[bytes], gzip.open(path, "rb")) if packed else path.open("rb")


def _from_zip(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> IO[bytes]:
    return _through_gzip(io.BytesIO(archive.read(member)))


def _from_tar(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    handle = archive.extractfile(member)
    if handle is None:
        raise tarfile.ReadError(f"{member.name} is no file")
    return _through_gzip(handle)


def _through_gzip(handle: IO[bytes]) -> IO[bytes]:
    packed = handle.read(2) == GZIP
    handle.seek(0)
    return cast(IO[bytes], gzip.GzipFile(fileobj=handle)) if packed else handle


def archive_kind(path: Path) -> str | None:
    """zip or tar (also a gzipped tar) by a file's content; None for any other."""
    with open_plain(path) as handle:
        try:
            head = handle.read(512)
        except (OSError, EOFError, zlib.error):
            return None
    if head[:4] in (b"PK\3\4", b"PK\5\6"):
        return "zip"
    return "tar" if head[257:262] == b"ustar" else None


def _safe_tar_members(archive: tarfile.TarFile, path: Path) -> list[tarfile.TarInfo]:
    """The files of a tar. Raises InputError, before anything is unpacked, for a harmful one."""
    members, unpacked = [], 0
    for member in archive:
        unpacked += member.size
        if not (member.isfile() or member.isdir()):
            raise InputError(
                f"{path} has a link or a device in it; expected plain files; pack the files themselves."
            )
        members += [member] if member.isfile() else []
        if unpacked > MAX_UNPACKED or member.size > MAX_MEMBER or len(members) > MAX_FILES:
            most = f"at most {MAX_UNPACKED:,} bytes in {MAX_FILES:,} files"
            raise InputError(
                f"{path} would unpack to more than a scan; expected {most}; unpack it yourself if you trust "
                "it."
            )
    return members


def _safe_members(archive: zipfile.ZipFile, path: Path) -> list[zipfile.ZipInfo]:
    """The files of an archive. Raises InputError, before anything is unpacked, for a harmful one."""
    members = [member for member in archive.infolist() if not member.is_dir()]
    for member in members:
        parts = member.filename.replace("\\", "/").split("/")
        if ".." in parts or parts[0] == "" or ":" in parts[0]:
            raise InputError(
                f"{path} has a member with a path outside; expected plain files; do not trust it."
            )
        if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
            raise InputError(
                f"{path} has a link or a device in it; expected plain files; pack the files themselves."
            )
        if member.flag_bits & 1:
            raise InputError(f"{path} is encrypted; expected a zip without a password; unpack it first.")
    unpacked, packed = sum(m.file_size for m in members), sum(m.compress_size for m in members)
    if (
        unpacked > MAX_UNPACKED
        or unpacked > MAX_EXPANSION * max(packed, 1)
        or len(members) > MAX_FILES
        or any(member.file_size > MAX_MEMBER for member in members)
    ):
        raise InputError(
            f"{path} would unpack {len(members):,} files to {unpacked:,} bytes from {packed:,}; expected one "
            "scan, at "
            f"most {MAX_UNPACKED:,} bytes and {MAX_EXPANSION} times; unpack it yourself if you trust it."
        )
    return members
