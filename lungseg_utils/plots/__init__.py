"""Every figure of the notebooks, by what it shows."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "comparison": ["plot_comparison"],
        "exploration": [
            "plot_bars",
            "plot_class_shares",
            "plot_distributions",
            "plot_hu_histograms",
            "plot_lesions",
            "plot_steps",
            "plot_volumes",
        ],
        "improvements": ["plot_effects", "plot_recipes"],
        "results": [
            "in_words",
            "plot_borders",
            "plot_burden",
            "plot_confusion",
            "plot_definitions",
            "plot_inference_steps",
            "plot_intervals",
            "plot_lesion_confusion",
            "plot_lesion_sizes",
            "plot_monitors",
            "plot_pooled_and_per_slice",
            "plot_reliability",
            "plot_results",
            "show_agreement",
            "show_entropy",
        ],
        "slices": ["overlay", "save_figure", "set_style", "show_slices"],
        "submission": ["plot_submission"],
        "training": ["LiveChart", "plot_history", "plot_learning_rate", "plot_strip"],
    },
)
