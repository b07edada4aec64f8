"""Every figure of the notebooks, by what it shows."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "agreement": ["plot_results", "show_agreement"],
        "calibration": ["plot_reliability", "show_entropy"],
        "comparison": ["plot_comparison", "plot_settings"],
        "drawings": [
            "draw_borders",
            "draw_chain",
            "draw_convolution",
            "draw_draws",
            "draw_hu_scale",
            "draw_mixture",
            "draw_overlap",
            "draw_pixel",
            "draw_split",
            "plot_lines",
            "show_maps",
            "show_outlines",
        ],
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
        "lesions": ["plot_borders", "plot_burden", "plot_lesion_confusion", "plot_lesion_sizes"],
        "openings": ["opening", "two_networks"],
        "scores": [
            "plot_confusion",
            "plot_definitions",
            "plot_inference_steps",
            "plot_intervals",
            "plot_pooled_and_per_slice",
        ],
        "slices": ["overlay", "save_figure", "set_style", "show_slices"],
        "sliders": ["slide", "two_shapes", "windowed"],
        "submission": ["plot_submission"],
        "unet": ["plot_unet"],
        "training": ["LiveChart", "plot_history", "plot_learning_rate", "plot_monitors", "plot_strip"],
    },
)
