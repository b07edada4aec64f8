"""All that changes while a network learns, together, so that it can be saved and restored as one."""

import time
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from lungseg_utils.core.files import InputError
from lungseg_utils.inference.pretrained import model_folder
from lungseg_utils.model import Adjusted, Members, build_model, empty_model, load_model
from lungseg_utils.training.accelerator import depthwise_in_float32, share_buffers
from lungseg_utils.training.config import TrainingConfig
from lungseg_utils.training.epoch_scores import Tally


def starting_network(config: TrainingConfig) -> nn.Module:
    """The network as training begins: `build_model`'s, or with the weights of config.start_from.

    Of several networks in one model seed 0 takes the first, seed 1 the second, and so on in turn. Raises
    InputError if that model is missing, damaged, or of another architecture or encoder.
    """
    if not config.start_from:
        return build_model(config.encoder, config.encoder_weights, config.architecture, config.drop_path)
    names = (config.architecture, config.encoder)
    model, found = load_model(model_folder(config.start_from, ""))
    if (its := (found["architecture"].lower(), found["encoder"])) != names:
        raise InputError(
            f"start_from is {config.start_from!r}, {' with '.join(its)}; expected {' with '.join(names)}, "
            "as the training has; change one of them."
        )
    model = model.network if isinstance(model, Adjusted) else model
    networks = model.networks if isinstance(model, Members) else [model]
    network = empty_model(config.encoder, config.architecture, drop_path=config.drop_path)
    network.load_state_dict(networks[config.seed % len(networks)].state_dict())
    return network


class Learner:
    """The network with optimizer, schedule, average of the weights, and how far it has come.

    network: the plain network; model: what a step calls, the same or wrapped for several processes; history:
    a row for each finished epoch; step: how many steps of the next one are done; best: the weights to keep,
    in the first process.
    """

    def __init__(self, config: TrainingConfig, accelerator: Accelerator, steps: int):
        self.config, self.accelerator = config, accelerator
        torch.manual_seed(config.seed)
        with accelerator.main_process_first():  # it alone downloads
            self.network = starting_network(config)
        if accelerator.device.type == "cpu" and accelerator.mixed_precision == "bf16":
            depthwise_in_float32(self.network)
        self.network.to(accelerator.device)
        self.network.to(memory_format=torch.channels_last)  # 1.6 times faster on a CPU
        if accelerator.process_index:
            torch.manual_seed(config.seed + accelerator.process_index)  # each drops other connections
        # From scratch a plain average would remember the first weights for long; timm's warm-up lets it
        # follow at first.
        self.ema = ModelEmaV3(self.network, config.ema_decay, use_warmup=True) if config.ema_decay else None
        optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.scheduler = OneCycleLR(optimizer, config.learning_rate, total_steps=config.epochs * steps)
        self.model, self.optimizer = accelerator.prepare(self.network, optimizer)
        self.steps = steps
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, torch.Tensor] | None = None
        self.examples: list[torch.Tensor] = []
        self.start_epoch()

    def start_epoch(self) -> None:
        """A new tally and clock; the encoder frozen or thawed."""
        self.epoch, self.step = len(self.history), 0
        self.tally = Tally(self.accelerator, "train", self.epoch + 1, self.config.max_grad_norm)
        self.rate = self.scheduler.get_last_lr()[0]
        self.seconds, self.clock = 0.0, time.perf_counter()
        self.frozen = self.epoch < self.config.freeze_encoder_epochs
        self.network.encoder.requires_grad_(not self.frozen)

    def train_mode(self) -> nn.Module:
        """The model to call in a step; a frozen encoder keeps its batch-norm averages as well."""
        self.model.train()
        if self.frozen:
            self.network.get_submodule("encoder").eval()
        return self.model

    def eval_mode(self) -> nn.Module:
        """The network that validation measures and that is kept: the average, where there is one."""
        network = self.ema.module if self.ema else self.network
        share_buffers(self.accelerator, network)
        return network.eval()

    def take_step(self) -> torch.Tensor:
        """Clip, move the weights, move the schedule and the average.

        Returns the gradient's length before clipping.
        """
        limit = self.config.max_grad_norm or float("inf")
        norm = self.accelerator.clip_grad_norm_(self.network.parameters(), limit)
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()
        self.step += 1
        if self.ema:
            self.ema.update(self.network, self.epoch * self.steps + self.step)
        return norm

    def elapsed(self) -> float:
        """Seconds that this epoch has taken, earlier sessions included."""
        return self.seconds + time.perf_counter() - self.clock

    def state_dict(self) -> dict[str, Any]:
        """What torch.load(weights_only=True) reads: tensors, numbers, lists and dicts.

        All processes must ask together.

        Random numbers are drawn from torch alone: a slice's augmentation and the order depend on seed and
        epoch only.
        """
        cuda = torch.cuda.get_rng_state() if self.accelerator.device.type == "cuda" else None
        scaler = self.accelerator.scaler
        return {
            "model": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": scaler.state_dict() if scaler else None,
            "ema": self.ema.module.state_dict() if self.ema else None,
            "random": gather_object([{"cpu": torch.get_rng_state(), "cuda": cuda}]),
            "history": self.history,
            "best": self.best,
            "examples": self.examples,
            "step": self.step,
            "rate": self.rate,
            "tally": self.tally.state(),
            "seconds": self.elapsed(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Stand where the saved learner stood.

        Processes that were not there then keep their own random numbers.
        """
        self.network.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        if self.accelerator.scaler and state["scaler"]:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        if self.ema:
            self.ema.module.load_state_dict(state["ema"])
        self.history, self.best, self.examples = state["history"], state["best"], state["examples"]
        self.start_epoch()
        self.step, self.rate, self.seconds = state["step"], state["rate"], state["seconds"]
        self.tally.load(state["tally"])
        if self.accelerator.process_index < len(state["random"]):
            random = state["random"][self.accelerator.process_index]
            torch.set_rng_state(random["cpu"])
            if random["cuda"] is not None and self.accelerator.device.type == "cuda":
                torch.cuda.set_rng_state(random["cuda"])

    def size(self) -> int:
        """Bytes of one copy of the weights."""
        return sum(value.numel() * value.element_size() for value in self.network.state_dict().values())
