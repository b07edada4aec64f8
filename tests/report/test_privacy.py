"""A marker in every text of a scan and around it is in no byte of what `lungseg predict` writes."""

import base64
import gzip
import io
import json
import re
import zlib

import nibabel as nib
import numpy as np
import pydicom
import pytest
from click.testing import CliRunner
from helpers import Reader, affine_of, chest_scan, write_series
from PIL import Image, PngImagePlugin
from pydicom.datadict import DicomDictionary

from lungseg_utils.cli import main
from lungseg_utils.inference.segmenter import Segmenter

pytestmark = pytest.mark.usefixtures("coarse_pictures")
HU = chest_scan(3).hu
MARKER = "ZQMARKER"
BIRTH = "19010203"  # what a date can carry
TEXTS = {"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"}
GROUPS = {0x08, 0x10, 0x12, 0x18, 0x20, 0x28, 0x32, 0x38, 0x40, 0x54, 0x88}
STEERING = {"SpecificCharacterSet", "Modality", "ImageType", "PhotometricInterpretation", "RescaleType"}


def plant(dataset, _):
    """The marker in the standard's text attributes, in a private one and in a nested one.

    The date in all dates.
    """
    for tag, (vr, multiplicity, _, retired, keyword) in DicomDictionary.items():
        if tag >> 16 in GROUPS and not retired and keyword not in STEERING and multiplicity in ("1", "1-n"):
            if vr in TEXTS:
                setattr(dataset, keyword, MARKER)
            elif vr in ("DA", "DT"):
                setattr(dataset, keyword, BIRTH)
    dataset.private_block(0x11, MARKER, create=True).add_new(1, "LO", MARKER)
    item = pydicom.Dataset()
    item.CodeMeaning = item.CodeValue = MARKER
    dataset.ProcedureCodeSequence = [item]
    dataset.preamble = MARKER.encode().ljust(128, b"\0")


def write_nifti(folder):
    image = nib.Nifti1Image(HU, affine_of(spacing=(13.5, 3.7, 3.7)))
    for name in ("descrip", "aux_file", "intent_name", "db_name"):
        image.header[name] = MARKER
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", f"{MARKER} {BIRTH}".encode()))
    nib.save(image, folder / f"{MARKER}.nii.gz")
    return folder / f"{MARKER}.nii.gz"


def write_dicom(folder):
    write_series(folder / f"{MARKER}-series", HU, spacing=(13.5, 3.7, 3.7), change=plant)
    for path in list((folder / f"{MARKER}-series").iterdir()):
        path.rename(path.with_name(f"{MARKER}{path.name}"))
    return folder / f"{MARKER}-series"


def write_picture(folder):
    grey = ((HU[1].clip(-1350, 150) + 1350.0) / 1500 * 255).round().astype(np.uint8)
    info = PngImagePlugin.PngInfo()
    info.add_text("Author", MARKER)
    info.add_itxt("Comment", MARKER, zip=True)
    Image.fromarray(grey).save(folder / f"{MARKER}.png", pnginfo=info)
    return folder / f"{MARKER}.png"


def write_array(folder):
    np.save(folder / f"{MARKER}.npy", HU)
    return folder / f"{MARKER}.npy"


WRITERS = {"nifti": write_nifti, "dicom": write_dicom, "picture": write_picture, "array": write_array}


def predicted(folder, kind, monkeypatch, *options):
    """Run the command on a scan full of markers; the folder with its results, whose own name has none."""
    source, model, out = folder / MARKER, folder / f"{MARKER}-model", folder / "out"
    source.mkdir()
    model.mkdir()
    training = {"encoder_weights": f"/home/{MARKER}/weights.pt", "prepared": MARKER}
    (model / "config.json").write_text(
        json.dumps({"encoder": "resnet18", "training": training, "device": MARKER})
    )
    monkeypatch.setattr(Segmenter, "load", lambda folder: Reader())
    scan = WRITERS[kind](source)
    result = CliRunner().invoke(
        main, ["predict", str(scan), "--model", str(model), "--out", str(out), *options]
    )
    assert result.exit_code == 0, result.output
    assert MARKER not in result.output
    return out


def readings(data):
    """The bytes of a file, and all that is packed in them.

    Gzip, PNG's compressed chunks, pictures in HTML.
    """
    yield data
    if data[:2] == b"\x1f\x8b":
        yield from readings(gzip.decompress(data))
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        with Image.open(io.BytesIO(data)) as image:
            yield repr(image.info).encode()
    for packed in re.findall(rb"data:image/png;base64,([A-Za-z0-9+/=]+)", data):
        yield from readings(base64.b64decode(packed))


def finds(folder, text):
    """Names of the files under `folder` that hold the text, in any usual encoding, or are called so."""
    codes = {text.encode(code) for code in ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le")}
    return [
        path.name
        for path in folder.rglob("*")
        if text in path.name
        or any(code in reading for reading in readings(path.read_bytes()) for code in codes)
    ]


@pytest.mark.parametrize("kind", WRITERS)
def test_no_byte_of_the_results_names_anybody(tmp_path, monkeypatch, kind):
    out = predicted(tmp_path, kind, monkeypatch)
    assert finds(tmp_path / MARKER, MARKER)  # the search works: the scan itself is full of it
    masks = {
        "nifti": "mask.nii.gz",
        "dicom": "mask.dcm",
        "picture": "mask.npy mask.png",
        "array": "mask.npy",
    }[kind]
    written = sorted(path.name for path in out.iterdir())
    assert written == [*masks.split(), "report.html", "report.json", "report.png"]
    for text in (
        MARKER,
        MARKER.lower(),
        str(tmp_path),
        tmp_path.name,
        *([BIRTH] if kind != "picture" else []),
    ):
        assert finds(out, text) == []


def test_only_the_dicom_mask_keeps_an_identity_and_only_if_asked(tmp_path, monkeypatch):
    out = predicted(tmp_path, "dicom", monkeypatch, "--keep-identity")
    assert finds(out, MARKER) == finds(out, BIRTH) == ["mask.dcm"]


def test_the_search_opens_what_is_packed(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_itxt("Comment", MARKER, zip=True)
    buffer = io.BytesIO()
    Image.new("L", (4, 4)).save(buffer, "png", pnginfo=info)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(MARKER.encode()))
    (tmp_path / "b.html").write_bytes(
        b'src="data:image/png;base64,' + base64.b64encode(buffer.getvalue()) + b'"'
    )
    (tmp_path / "c.dcm").write_bytes(MARKER.encode("utf-16-le"))
    (tmp_path / "d.png").write_bytes(zlib.compress(b"nothing"))
    assert sorted(finds(tmp_path, MARKER)) == ["a.nii.gz", "b.html", "c.dcm"]
