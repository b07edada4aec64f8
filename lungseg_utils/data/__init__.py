"""From the competition's arrays, the phantom or a published data set to slices to learn from."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "arrays": ["CTData", "load_data"],
        "augmentation": ["AUGMENTATIONS", "augment", "build_augmentation"],
        "checks": ["check_data"],
        "datasets": ["SliceDataset", "class_pixels"],
        "exploration": ["HU_BINS", "explore"],
        "features": ["FEATURES", "slice_features"],
        "find": ["find_data", "listed_folders"],
        "importers": ["add_to_prepared", "import_data"],
        "phantom": ["phantom_slice", "with_scanner_extremes", "write_phantom"],
        "preprocessing": ["Preprocessing", "fingerprint", "fit_preprocessing", "load_prepared", "prepare"],
        "similarity": ["VOLUME_JUMP", "infer_volumes", "near_duplicates"],
        "splits": ["REFERENCE_VALIDATION", "make_slices"],
    },
)
