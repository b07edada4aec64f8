"""What is wrong with a folder of arrays ends the series with one sentence, and the sentence leads on."""

import shutil
import zipfile

import numpy as np
import pytest

from lungseg_utils.core.files import InputError
from lungseg_utils.data.arrays import FILES, load_data
from lungseg_utils.data.checks import check_data
from lungseg_utils.data.find import find_data, listed_folders


@pytest.fixture
def arrays(tiny_phantom, tmp_path):
    return shutil.copytree(tiny_phantom, tmp_path / "my data")


def test_pictures_of_8_bits_end_the_series_with_the_tables_worst_line(arrays):
    path = arrays / FILES["medseg"][0]
    images = np.load(path)
    np.save(path, np.rint(np.interp(images, (-1500, 500), (0, 255))))
    with pytest.raises(
        InputError, match=rf"{path}: found \d+ to \d+, not HU.*lungseg check '.*my data'"
    ) as caught:
        check_data(arrays).require_usable()
    assert "\n" not in str(caught.value)


def test_what_is_only_odd_is_noted(arrays, capsys):
    check_data(arrays).require_usable()
    path = arrays / FILES["medseg"][0]
    images = np.load(path)
    images[1] = images[0]
    np.save(path, images)
    capsys.readouterr()
    check_data(arrays).require_usable()
    assert "note: images_medseg.npy: duplicates: 1 slice" in capsys.readouterr().out


def test_arrays_one_folder_deeper_are_named(arrays):
    with pytest.raises(
        InputError, match=f"they are in {arrays}: name that folder, as in --data-dir '{arrays}'"
    ):
        load_data(arrays.parent)


@pytest.mark.parametrize("named", ["folder", "archive"])
def test_an_archive_that_is_not_unpacked_is_named(tmp_path, named):
    archive = tmp_path / "covid segmentation.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(FILES["medseg"][0], "")
    with pytest.raises(InputError, match=f"they are packed in {archive}: python -m zipfile -e '{archive}' "):
        load_data(find_data(tmp_path if named == "folder" else archive))


def test_a_list_of_folders_may_hold_names_with_spaces(tmp_path):
    plain, spaced = tmp_path / "a", tmp_path / "b c"
    for folder in (plain, spaced):
        folder.mkdir()
    assert listed_folders("") == []
    assert listed_folders(str(spaced)) == [spaced]
    assert listed_folders(f"{plain} '{spaced}'") == [plain, spaced]
    for text in (f"{plain} {spaced}", "'"):
        with pytest.raises(InputError, match=r"in quotes|quote a name"):
            listed_folders(text)
