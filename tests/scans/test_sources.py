"""Where many scans lie: each is found once, none is missed, and of a study the chest CT is chosen."""

import shutil
import zipfile

import nibabel as nib
import numpy as np
import pytest
from helpers import LPS, affine_of, chest, write_series
from PIL import Image
from pydicom.uid import generate_uid

from lungseg_utils.core.files import InputError
from lungseg_utils.scans.io import read_scan
from lungseg_utils.scans.scan import SeveralScans
from lungseg_utils.scans.sources import Source, find_scans, is_list


def write_nifti(path):
    nib.save(nib.Nifti1Image(chest(), affine_of()), path)
    return path


def of_patient(number, **values):
    """What `write_series` changes so that the slices are another patient's."""

    def change(dataset, i):
        dataset.PatientID = dataset.PatientName = str(number)
        dataset.StudyInstanceUID = f"1.2.3.{number}"
        for keyword, value in values.items():
            setattr(dataset, keyword, value)

    return change


def chosen(*paths):
    return [source for source in find_scans(paths) if source.chosen]


@pytest.fixture
def patients(tmp_path):
    """A folder of patients as people have them: several kinds, three broken, and what is no scan."""
    folder = tmp_path / "patients"
    for number in (1, 2):
        folder.mkdir(exist_ok=True)
        write_series(folder / f"dicom{number}", chest(), series=str(number), change=of_patient(number))
    write_nifti(folder / "a.nii.gz")
    np.save(folder / "b.npy", chest())
    (folder / "pictures").mkdir()
    for i, hu in enumerate(chest()[:2]):
        Image.fromarray(((hu.clip(-1350, 150) + 1350) // 6).astype(np.uint8)).save(
            folder / f"pictures/{i}.png"
        )
    (folder / "cut.nii.gz").write_bytes((folder / "a.nii.gz").read_bytes()[:3000])
    (folder / "empty.nii.gz").touch()
    (folder / "damaged").mkdir()
    whole = next((folder / "dicom1").iterdir()).read_bytes()
    (folder / "damaged" / "1").write_bytes(whole[:400])
    (folder / "README.txt").write_text("about them")
    (folder / "dicom1" / "preview.png").write_bytes((folder / "pictures" / "0.png").read_bytes())
    return folder


def test_a_folder_of_patients_has_each_scan_once_and_what_is_broken_too(patients):
    names = "a.nii.gz b.npy cut.nii.gz damaged/1 dicom1 dicom2 empty.nii.gz pictures".split()
    sources = chosen(patients)
    assert [source.place for source in sources] == [str(patients / name) for name in names]
    for source in sources:
        if "cut" in source.place or "empty" in source.place or "damaged" in source.place:
            with pytest.raises(InputError, match="; expected"):
                source.read()
        else:
            assert len(source.read().hu) == (2 if "pictures" in source.place else 6)


def test_what_looks_like_one_scan_is_not_read_as_one_where_there_are_several(patients):
    with pytest.raises(SeveralScans):
        read_scan(patients)
    for name in ("dicom2", "b.npy", "pictures"):
        shutil.rmtree(patients / name) if (patients / name).is_dir() else (patients / name).unlink()
    with pytest.raises(SeveralScans, match="DICOM and NIfTI"):  # and not the DICOM alone
        read_scan(patients)


def test_of_a_study_the_thinnest_axial_reconstruction_of_each_acquisition_is_chosen(tmp_path):
    folder = tmp_path / "study"
    for series, values in {
        "2": {"SliceThickness": "5", "AcquisitionNumber": 1},
        "3": {"SliceThickness": "1", "AcquisitionNumber": 1},
        "4": {"SliceThickness": "3", "AcquisitionNumber": 2},
        "5": {"SliceThickness": "0.5", "AcquisitionNumber": 1, "ImageType": ["DERIVED", "SECONDARY", "MPR"]},
    }.items():
        write_series(folder, chest(), series=series, change=of_patient(7, **values))
    coronal = dict(order=(1, 0, 2), spacing=(5.0, 5.0, 0.9), directions=LPS)
    write_series(folder, chest(), series="6", change=of_patient(7), **coronal)
    scout = of_patient(7, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write_series(folder / "scout", chest(1), series="1", change=scout)
    sources = find_scans([folder])
    taken = [source for source in sources if source.chosen]
    assert sorted(source.series[:2] for source in taken) == ["3:", "4:"]
    assert sorted(source.series[:2] for source in sources if not source.chosen) == ["2:", "5:", "6:", "sc"]
    (note, *_) = taken[0].read().notes
    assert note.startswith("Of 5 series of the study, 3: 6 slices") and "left out: 2: 6 slices" in note
    assert {source.read().thickness for source in taken} == {1.0, 3.0}


def test_two_patients_in_one_series_are_asked_about_and_two_series_are_two_scans(tmp_path):
    uid = generate_uid()
    for number, patient in (("1", 7), ("2", 8)):
        write_series(tmp_path / "apart", chest(), series=number, change=of_patient(patient))
        one = of_patient(patient, SeriesInstanceUID=uid)
        write_series(tmp_path / "mixed", chest(), series=number, change=one)
    with pytest.raises(InputError, match="2 series or acquisitions of 2 patients.*--series from") as caught:
        read_scan(tmp_path / "mixed")
    assert not isinstance(caught.value, SeveralScans)
    with pytest.raises(SeveralScans):
        read_scan(tmp_path / "apart")


def test_a_study_without_an_axial_series_says_so_when_it_is_read(tmp_path):
    for series in ("1", "2"):
        change = of_patient(1, ImageType=["DERIVED", "SECONDARY", "MPR"])
        write_series(tmp_path / "study", chest(), series=series, change=change)
    (source,) = find_scans([tmp_path / "study"])
    with pytest.raises(InputError, match="2 series or acquisitions, and none was chosen"):
        source.read()


def test_a_zip_of_patients_is_read_from_memory(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number in (1, 2):
            folder = write_series(
                tmp_path / f"p{number}", chest(), series=str(number), change=of_patient(number)
            )
            for file in folder.iterdir():
                archive.write(file, f"p{number}/{file.name}")
    sources = find_scans([tmp_path / "a.zip"])
    assert [source.place for source in sources] == [str(tmp_path / "a.zip" / f"p{n}") for n in (1, 2)]
    for source, folder in zip(sources, ("p1", "p2")):
        np.testing.assert_array_equal(source.read().hu, chest())
        (unpacked,) = find_scans([tmp_path / folder])
        assert source.fingerprint() == unpacked.fingerprint()
    assert sources[0].fingerprint() != sources[1].fingerprint()


def test_volumes_in_a_zip_are_read_and_other_files_in_archives_say_what_to_do(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(write_nifti(tmp_path / "b.nii"), "p1/b.nii")
        archive.write(write_nifti(tmp_path / "c.nii.gz"), "p2/c.nii.gz")
        np.save(tmp_path / "d.npy", chest())
        archive.write(tmp_path / "d.npy", "d.npy")
    array, *volumes = find_scans([tmp_path / "a.zip"])
    for source in volumes:
        np.testing.assert_array_equal(source.read().hu, chest())
    with pytest.raises(InputError, match="unpack it and name the file"):
        array.read()
    with pytest.raises(SeveralScans):
        read_scan(tmp_path / "a.zip")


def test_neither_results_nor_what_a_mac_leaves_are_scans(tmp_path):
    write_nifti(tmp_path / "p1.nii.gz")
    (tmp_path / "._p1.nii.gz").write_bytes(b"\0\5\x16\7" + bytes(400))
    case = tmp_path / "cases" / "case-1"
    case.mkdir(parents=True)
    write_nifti(case / "mask.nii.gz")
    (case / "report.json").write_text('{"case": "case-1"}')
    (source,) = find_scans([tmp_path])
    assert source.path.name == "p1.nii.gz" and len(read_scan(tmp_path).hu)


def test_the_one_volume_of_a_zip_is_read_beside_what_is_no_scan(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(write_nifti(tmp_path / "b.nii.gz"), "p/b.nii.gz")
        archive.writestr("__MACOSX/p/._b.nii.gz", b"\0\5\x16\7" + bytes(400))
    np.testing.assert_array_equal(read_scan(tmp_path / "a.zip").hu, chest())


def test_other_images_are_listed_and_not_chosen(tmp_path):
    folder = tmp_path / "two"
    write_series(folder, chest(), change=of_patient(1))
    write_series(folder / "mr", chest(), series="9", change=of_patient(1, Modality="MR"))
    sources = find_scans([folder])
    assert [(source.series, source.chosen) for source in sources if not source.chosen] == [
        ("images of modality MR", False)
    ]
    (named,) = find_scans([folder / "mr"])  # whoever names it gets its sentence
    with pytest.raises(InputError, match="images of modality MR"):
        named.read()


def test_a_text_file_of_paths(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    write_nifti(tmp_path / "in" / "a.nii")
    paths = tmp_path / "paths.txt"
    paths.write_text(f"# scans\nin/a.nii\n\n{tmp_path / 'in'}\nabsent.nii\n")
    monkeypatch.chdir(tmp_path / "in")
    assert is_list(paths) and not is_list(tmp_path / "in" / "a.nii")
    sources = find_scans([paths])
    assert [source.path.name for source in sources] == ["a.nii", "absent.nii"]
    with pytest.raises(InputError, match="No such file"):
        sources[1].read()
    paths.write_text("# none\n")
    with pytest.raises(InputError, match="there is no scan in"):
        find_scans([paths])
    paths.write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(InputError, match="no text in UTF-8"):
        find_scans([paths])


def test_a_fingerprint_is_of_the_content_alone(tmp_path):
    path = write_nifti(tmp_path / "a.nii")
    (source,) = find_scans([path])
    before = source.fingerprint()
    (tmp_path / "deeper").mkdir()
    (copy,) = find_scans([shutil.copy(path, tmp_path / "deeper" / "b.nii")])
    assert copy.fingerprint() == before
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    assert source.fingerprint() != before


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("h.mhd", "ObjectType = Image\nElementDataFile = image.raw\n"),
        ("h.MHD", "ElementDataFile=image.raw\n"),
        ("h.nhdr", "NRRD0004\ntype: short\ndata file: image.raw\n"),
    ],
)
def test_pixels_beside_a_header_are_part_of_a_scan(tmp_path, name, header):
    prints = set()
    for patient in ("a", "b"):
        (tmp_path / patient).mkdir()
        (tmp_path / patient / name).write_text(header)
        (tmp_path / patient / "image.raw").write_text(f"pixels of {patient}")
        prints.add(Source(tmp_path / patient / name).fingerprint())
    assert len(prints) == 2
