"""The notebooks as a series: papermill over all of them, their parameters, the checks of their exercises."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "batch": ["run_batch"],
        "exercises": ["check", "solution"],
        "grading": ["collect_answers"],
        "parameters": ["check_values", "load_profile"],
        "run": ["run_series"],
    },
)
