"""How a network learns: settings, losses, the loop, checkpoints, several processes, the model's card."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "config": ["TrainingConfig"],
        "launcher": ["launch"],
        "loop": ["kept_by_monitor", "run_epoch", "train", "validate"],
        "losses": ["build_loss"],
    },
)
