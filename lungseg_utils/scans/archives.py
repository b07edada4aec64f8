"""The files of a folder or a zip, each opened when it is needed; a zip is never unpacked to disk."""

import io
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from lungseg_utils.core.files import InputError

MAX_FILES = 20_000
MAX_UNPACKED = 4 * 2**30  # bytes in a zip, all members together
MAX_MEMBER = 2**28  # bytes of one member: it is held in memory
MAX_EXPANSION = 200  # times; slices shrink to a half or a tenth, even blank ones seldom to a hundredth


@contextmanager
def open_source(path: Path) -> Iterator[Sequence[Callable[[], IO[bytes]]]]:
    """How to open each file under `path`; members of a zip come from memory, so that nothing is unpacked."""
    if path.is_dir():

        def refuse(error: OSError) -> None:
            raise error  # os.walk would pass over a folder without rights

        files = [Path(folder, name) for folder, _, names in os.walk(path, onerror=refuse) for name in names]
        files = sorted(file for file in files if file.is_file())
        if not 0 < len(files) <= MAX_FILES:
            expected = f"the slices of a scan, at most {MAX_FILES:,} files"
            raise InputError(
                f"{path} has {len(files)} files; expected {expected}; name the scan's own folder."
            )
        yield [lambda file=file: file.open("rb") for file in files]
        return
    with path.open("rb") as handle:
        packed = handle.read(2) == b"PK"
    if packed:
        try:
            with zipfile.ZipFile(path) as archive:
                members = _safe_members(archive, path)
                yield [lambda member=member: io.BytesIO(archive.read(member)) for member in members]
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise InputError(
                f"{path} is a damaged zip; expected a zip of DICOM files; pack it again."
            ) from error
    else:
        yield [lambda: path.open("rb")]


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
