"""Scans of any kind in, masks in their own grid out: NIfTI, DICOM, arrays, pictures."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "example": ["example_truth", "write_example_scan"],
        "io": ["read_scan", "write_masks"],
        "scan": ["Scan"],
        "sources": ["find_scans"],
    },
)
