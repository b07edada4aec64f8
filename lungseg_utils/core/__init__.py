"""What every room uses.

The classes, files, the device, stopping, arrays on disk, what is done with one image.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "classes": [
            "BACKGROUND",
            "CLASSES",
            "CONSOLIDATION",
            "FOREGROUND",
            "GROUND_GLASS",
            "LESIONS",
            "LUNG_OTHER",
            "LUNG_WINDOW",
            "NUM_CLASSES",
            "SHORT_NAMES",
        ],
        "device": ["Device", "choose_device"],
        "files": ["InputError", "resolve_path"],
        "language": ["set_language", "translate"],
        "image": ["resize_nearest", "thumbnails"],
    },
)
