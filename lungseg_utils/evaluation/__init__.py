"""From labels to scores, intervals and comparisons, and the competition's submission."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "burden": ["involved_share"],
        "calibration": ["calibration_summary", "entropy"],
        "compare": ["compare_runs", "load_runs"],
        "evaluator": ["collect_predictions", "evaluate"],
        "improvements": [
            "compare_recipes",
            "effects",
            "most_disputed",
            "read_results",
            "seed_scores",
            "table_for_people",
        ],
        "intervals": ["clusters", "interval_note", "paired_difference", "volume_scores"],
        "lesions": ["lesion_confusion"],
        "metrics": [
            "confusion_matrix",
            "dice",
            "iou",
            "mean_dice",
            "mean_iou",
            "reference_definition",
            "slice_confusion",
        ],
        "results": ["conclusions", "save_results", "split_statement", "worst_to_best"],
        "scores": ["HEADLINE", "Score"],
        "settings": ["compare_settings"],
        "submission": ["read_submission", "scored_model", "submit", "write_submission"],
    },
)
