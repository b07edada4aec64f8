"""Where the competition's five arrays lie: the phantom, Kaggle's input, a folder."""

import os
from pathlib import Path

from lungseg_utils.core.files import InputError, resolve_path, split_words
from lungseg_utils.data.arrays import FILES, how_to_get

KAGGLE_INPUT = Path("/kaggle/input")
PHANTOM_DIR = "data/phantom"  # below the home of relative paths


def find_data(data_dir: str | Path = "phantom") -> Path:
    """Folder of the arrays.

    Args:
        data_dir: "phantom": data/phantom, always the default set of this version's generator (made if there
            is none, made anew if there is another); no environment variable changes that. "auto": the folder
            in LUNGSEG_DATA_DIR, else wherever images_medseg.npy lies under /kaggle/input, else data/.
            Anything else: that folder.

    Raises:
        InputError: If there is nothing there, or data/phantom holds other files.
    """
    marker = FILES["medseg"][0]
    if data_dir == "phantom":
        from lungseg_utils.data.phantom import default_phantom  # it imports this module

        return default_phantom(resolve_path(PHANTOM_DIR))
    if data_dir != "auto":
        folder = resolve_path(data_dir)
        if not folder.is_dir():
            raise InputError(
                f"{folder} is not a folder; expected the folder of the five .npy files; {how_to_get(folder)}"
            )
        return folder
    if os.environ.get("LUNGSEG_DATA_DIR"):
        folder = resolve_path(os.environ["LUNGSEG_DATA_DIR"])
        if not (folder / marker).is_file():
            raise InputError(
                f"no {marker} in LUNGSEG_DATA_DIR, {folder}; correct or unset the variable; "
                f"{how_to_get(folder)}"
            )
        return folder
    # The mount point depends on how the data were attached, so search; the shallowest, then the first by
    # name.
    found = sorted(KAGGLE_INPUT.rglob(marker), key=lambda path: (len(path.parts), path))
    for folder in [*(path.parent for path in found), resolve_path("data")]:
        if (folder / marker).is_file():
            return folder
    raise InputError(
        f"no {marker} under {KAGGLE_INPUT} or in {resolve_path('data')}, and LUNGSEG_DATA_DIR is not set; "
        f"{how_to_get(resolve_path('data'))}"
    )


def listed_folders(text: str) -> list[Path]:
    """The folders of a list separated by spaces; quotes hold a name with spaces together, as in a shell.

    Raises InputError for what is no folder.
    """
    if text and resolve_path(text).is_dir():
        return [resolve_path(text)]  # one folder, whatever its name holds
    try:
        folders = [resolve_path(part) for part in split_words(text)]
    except ValueError as error:
        raise InputError(
            f"{text!r} is no list of folders ({error}); quote a name that holds spaces"
        ) from error
    for folder in folders:
        if not folder.is_dir():
            raise InputError(
                f"{folder} is not a folder; expected folders separated by spaces, names with spaces in quotes"
            )
    return folders
