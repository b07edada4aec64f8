"""From slices in HU to labels, the same way everywhere.

Settings, views, the network, clean-ups, the shipped weights.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "postprocess": ["predict"],
        "pretrained": ["load_pretrained", "model_folder", "pretrained_dir", "read_history"],
        "segmenter": ["Segmenter"],
        "settings": ["InferenceSettings"],
        "ties": ["check_tie"],
    },
)
