"""The settings of a training run, checked when they are made."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from lungseg_utils.core.files import InputError
from lungseg_utils.data.augmentation import check_augmentation, check_frame, check_resize
from lungseg_utils.data.datasets import check_sampling, parse_growth
from lungseg_utils.model import check_architecture, check_drop_path, check_encoder, check_image_size
from lungseg_utils.training.losses import build_loss

MONITORS = {"val_loss": -1, "val_miou": 1, "val_lesion_dice": 1}  # 1: more is better
# How the work is done; may change on the way.
HOW = ("workers", "accumulation", "checkpoint_minutes", "max_minutes")


@dataclass(frozen=True)
class TrainingConfig:
    """The settings of a run; the defaults are the reference recipe.

    Raises InputError for a setting that cannot work.

    start_from: a trained model, `pretrained` or a folder, with whose weights training begins instead of
    encoder_weights; empty: none. See learner.starting_network.

    batch_size is the effective one: the slices of one step, shared out over `accumulation` pieces and all
    processes. image_size is what the network predicts and validates at. growth: smaller slices at first, such
    as `192x5, 256x2`: five epochs at 192 px, two at 256, then image_size. resize: how slices shrink to it,
    `nearest` or `area`. frame: what of a slice the network is shown in validation and in use: `slice`, all of
    it, or `body`, see image.body_frame. shares: of each source among the drawn slices, such as `medseg 0.6,
    radiopaedia 0.4`; empty: see datasets.slice_chances. paste: the share of training slices that get
    another's lesions as well, see datasets.SliceDataset. drop_path: see model.build_model. Both, and
    max_grad_norm, ema_decay, freeze_encoder_epochs, max_minutes: 0 turns them off. workers: -1 lets the
    device decide.
    """

    architecture: str = "unet"
    encoder: str = "efficientnet-b2"
    encoder_weights: str = "imagenet"
    start_from: str = ""
    drop_path: float = 0.0
    image_size: int = 256
    growth: str = ""
    resize: str = "nearest"
    frame: str = "slice"
    augmentation: str = "reference"
    paste: float = 0.0
    sampling: str = "every_slice"
    shares: str = ""
    loss: str = "cross_entropy"
    epochs: int = 10
    batch_size: int = 24
    accumulation: int = 1
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    max_grad_norm: float = 0.0
    ema_decay: float = 0.0
    freeze_encoder_epochs: int = 0
    patience: int = 7
    monitor: str = "val_loss"
    workers: int = -1
    checkpoint_minutes: float = 5.0
    max_minutes: float = 0.0
    seed: int = 0

    def __post_init__(self):
        check_image_size(self.image_size)
        build_loss(self.loss)
        check_architecture(self.architecture)
        check_encoder(self.encoder)
        check_drop_path(self.drop_path, self.encoder)
        check_augmentation(self.augmentation)
        check_sampling(self.sampling, self.shares)
        check_resize(self.resize)
        check_frame(self.frame)
        if len(parse_growth(self.growth)) >= self.epochs and self.growth:
            raise InputError(
                f"growth is {self.growth!r} and epochs {self.epochs}; expected some epochs at image_size."
            )
        if self.monitor not in MONITORS:
            raise InputError(f"monitor is {self.monitor!r}; expected one of {', '.join(MONITORS)}.")
        for name in (
            "epochs",
            "batch_size",
            "accumulation",
            "learning_rate",
            "patience",
            "checkpoint_minutes",
        ):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}; expected a number above 0.")
        for name in ("weight_decay", "max_grad_norm", "freeze_encoder_epochs", "max_minutes"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} is {getattr(self, name)}; expected 0 or a number above it.")
        if self.accumulation > self.batch_size:
            raise InputError(
                f"accumulation is {self.accumulation} and batch_size {self.batch_size}; expected no more "
                "pieces than slices; raise batch_size or lower it."
            )
        if self.workers < -1:
            raise InputError(
                f"workers is {self.workers}; expected a number of processes, or -1: the device decides."
            )
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed is {self.seed}; expected a number from 0 to {2**32 - 1}.")
        if not 0 <= self.paste <= 1:
            raise InputError(f"paste is {self.paste}; expected a share of the slices, from 0 to 1.")
        if not 0 <= self.ema_decay < 1:
            raise InputError(
                f"ema_decay is {self.ema_decay}; expected 0 (no average) or a share below 1, such as 0.999."
            )

    @classmethod
    def from_names(cls, names: Mapping[str, Any]) -> "TrainingConfig":
        """The settings by their names, as in 03's parameters cell; other names are left out.

        Args:
            names: Such as a notebook's `globals()`.

        Returns:
            The settings.

        Raises:
            InputError: A setting has no name there, or cannot work.
        """
        settings = [field.name for field in fields(cls)]
        missing = [name for name in settings if name not in names]
        if missing:
            raise InputError(
                f"there is no {', '.join(missing)}; expected every training setting in the parameters cell; "
                "add it there."
            )
        return cls(**{name: names[name] for name in settings})

    def result(self) -> dict[str, Any]:
        """The settings on which the result depends: a run goes on only with the same."""
        return {name: value for name, value in asdict(self).items() if name not in HOW}
