"""Pictures: grey to HU by the image's own tissues, whatever the window; what is no CT picture is refused."""

import numpy as np
import pytest
from helpers import LANDMARK, chest, marked
from PIL import Image

from lungseg_utils.core.classes import CLASSES, GROUND_GLASS
from lungseg_utils.core.files import InputError
from lungseg_utils.data.grey import fit_grey
from lungseg_utils.data.phantom import phantom_slice
from lungseg_utils.scans.io import read_scan, write_masks

SLICE = chest()[LANDMARK[0]]


def windowed(hu, low=-1350, high=150, top=255):
    return np.rint(np.clip((hu - low) / (high - low), 0, 1) * top).astype(
        np.uint8 if top == 255 else np.uint16
    )


@pytest.mark.parametrize("window", [(-1350, 150), (-1000, 400), (-1150, 350), (-1024, 1024), (-1400, 250)])
def test_a_picture_in_a_lung_window_comes_back_near_its_hu(tmp_path, window):
    Image.fromarray(windowed(SLICE, *window)).save(tmp_path / "a.png")
    scan = read_scan(tmp_path / "a.png")
    assert (scan.kind, scan.is_hu, scan.spacing, scan.hu.shape) == ("picture", False, None, (1, *SLICE.shape))
    for tissue in (-1000, -850, -100, 50):
        where = np.abs(SLICE - tissue) < 10
        assert abs(np.median(scan.hu[0][where]) - tissue) < 40
    for words in ("air, fat, muscle", "patient's right"):
        assert any(words in note for note in scan.notes)


def test_phantom_slices_come_back_near_their_hu():
    errors = []
    for seed in range(4):
        hu, _ = phantom_slice(np.random.default_rng(seed), 160)
        low, high = float(hu.min()), float(hu.max())
        scale = fit_grey([windowed(hu, low, high)])
        errors.append(abs(np.median((scale.hu(windowed(hu, low, high)) - hu)[(hu > -950) & (hu < -700)])))
    assert np.median(errors) < 40 and max(errors) < 120


def test_a_dark_frame_around_a_round_field_of_view_is_not_taken_for_air():
    framed = SLICE.copy()
    y, x = np.mgrid[-1 : 1 : framed.shape[0] * 1j, -1 : 1 : framed.shape[1] * 1j]
    framed[x**2 + y**2 > 1] = -2000
    scale = fit_grey([windowed(framed)])
    assert abs(scale.slope * windowed(np.array(-1000)) + scale.intercept + 1000) < 40


@pytest.mark.parametrize("name", ["a.jpg", "rgb.png", "rgba.png", "a16.png"])
def test_grey_pictures_in_every_mode(tmp_path, name):
    image = Image.fromarray(windowed(SLICE))
    if name == "a16.png":
        image = Image.fromarray(windowed(SLICE, top=65535))
    elif name.startswith("rgb"):
        image = image.convert("RGBA" if "rgba" in name else "RGB")
    image.save(tmp_path / name)
    scan = read_scan(tmp_path / name)
    assert abs(np.median(scan.hu[0][np.abs(SLICE + 850) < 10]) + 850) < 40


def test_the_mask_has_the_pictures_size_and_the_classes_colours(tmp_path):
    Image.fromarray(windowed(SLICE, -1000, 2000)).save(tmp_path / "a.png")
    scan = read_scan(tmp_path / "a.png")
    picture, array = write_masks(scan, marked(scan), tmp_path / "out")
    assert (picture.name, array.name) == ("mask.png", "mask.npy")
    image = Image.open(picture)
    np.testing.assert_array_equal(np.asarray(image), np.load(array))
    assert image.size == (112, 100) and image.getpixel((25, 30)) == GROUND_GLASS
    assert (
        "#{:02X}{:02X}{:02X}".format(*image.convert("RGB").getpixel((25, 30))) == CLASSES[GROUND_GLASS].color
    )


def test_text_in_a_picture_reaches_no_output(tmp_path):
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text("Patient", "MARKER7")
    Image.fromarray(windowed(SLICE)).save(tmp_path / "MARKER7.png", pnginfo=text)
    scan = read_scan(tmp_path / "MARKER7.png")
    written = write_masks(scan, marked(scan), tmp_path / "out")
    assert "MARKER7" not in repr(scan) and all(b"MARKER7" not in path.read_bytes() for path in written)


def test_pictures_that_show_no_chest_ct_are_refused(tmp_path):
    grey = windowed(SLICE)
    colour = np.stack([grey] * 3, -1)
    colour[40:50, 40:50] = (255, 40, 40)
    cases = {
        "have colour": Image.fromarray(colour),
        "same value": Image.new("L", (200, 200), 7),
        "as labels have": Image.fromarray(grey > 100),
        "plain black": Image.fromarray(windowed(SLICE, -160, 240)),
        "expected at least 96": Image.fromarray(grey[:64, :64]),
        "the header claims": Image.new("L", (5000, 100)),
    }
    for i, (words, image) in enumerate(cases.items()):
        image.save(tmp_path / f"{i}.png")
        with pytest.raises(InputError, match=words):
            read_scan(tmp_path / f"{i}.png")


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_a_picture_that_ends_early_is_refused(tmp_path, name):
    Image.fromarray(windowed(SLICE)).save(tmp_path / name)
    raw = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(raw[: len(raw) // 2])
    with pytest.raises(InputError, match="not all of it"):
        read_scan(tmp_path / name)


def test_a_png_that_claims_a_billion_pixels_is_refused_before_memory_is_taken(tmp_path):
    import struct
    import zlib

    head = b"IHDR" + struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0)
    raw = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    (tmp_path / "a.png").write_bytes(
        raw + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    )
    with pytest.raises(InputError, match="the header claims|no PNG"):
        read_scan(tmp_path / "a.png")
