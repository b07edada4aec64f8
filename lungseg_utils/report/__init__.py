"""A scan's result for people: the case, its severity, its doubts, the page, the slice browser."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "browser": ["browse", "slice_montage", "slice_picture"],
        "case": ["Case", "predict_case"],
        "cases": ["Making", "cases_folder", "predict_cases", "save_cases"],
        "figures": ["regions_of"],
        "page": ["report_page", "save_case"],
        "quality": ["check_scan"],
        "severity": ["SIDES", "THIRDS", "zone_grade"],
    },
)
