"""The example scan.

Read as any scan is, the same bytes each time, its front in front and its liver at the left.
"""

import numpy as np

from lungseg_utils.core.classes import CONSOLIDATION, GROUND_GLASS, LUNG_OTHER
from lungseg_utils.report.quality import check_scan
from lungseg_utils.scans.example import example_truth, write_example_scan
from lungseg_utils.scans.io import read_scan


def test_it_is_a_chest_ct_that_lies_as_the_file_says(tmp_path):
    path = write_example_scan(tmp_path / "a.nii.gz", slices=15, size=96)
    scan = read_scan(path)
    assert (scan.kind, scan.is_hu, scan.hu.shape, scan.notes) == ("nifti", True, (15, 96, 96), ())
    np.testing.assert_allclose(scan.spacing, (290 / 15, 380 / 96, 380 / 96), rtol=1e-6)
    assert scan.is_volume and not check_scan(scan)
    lowest = (
        scan.hu[0] > -300
    )  # the liver, at the image's left, is more than the spleen; the spine is at the back
    assert lowest[:, :48].sum() > lowest[:, 48:].sum()
    bone = scan.hu[7] > 150
    assert bone[48:].sum() > 2 * bone[:48].sum()


def test_same_seed_same_bytes(tmp_path):
    first, second = (
        write_example_scan(tmp_path / name, slices=2, size=96) for name in ("a.nii.gz", "b.nii.gz")
    )
    assert first.read_bytes() == second.read_bytes()


def test_the_truth_lies_on_the_scan_as_it_is_read(tmp_path):
    scan = read_scan(write_example_scan(tmp_path / "a.nii.gz", slices=15, size=96))
    truth = example_truth(slices=15, size=96)
    mean = [scan.hu[truth == c].mean() for c in (LUNG_OTHER, GROUND_GLASS, CONSOLIDATION)]
    assert mean[0] < -600 < mean[1] < -300 < mean[2]
