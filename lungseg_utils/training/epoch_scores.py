"""What one pass over the slices adds up to: loss, confusion counts, clipped and skipped steps.

Is it still finite?
"""

from typing import Any

import torch
from accelerate import Accelerator

from lungseg_utils.core.classes import NUM_CLASSES
from lungseg_utils.evaluation import metrics

WAIT_AT_MOST = 50  # batches whose loss a GPU has computed and nobody has looked at: looking makes it wait


class Tally:
    """Sums over a pass, kept on the device: adding a batch does not wait for it.

    Several processes add up to one result.

    name: `train` or `val`; epoch: counted from 1, for messages; max_norm: gradients longer than that were
    clipped.
    """

    def __init__(self, accelerator: Accelerator, name: str, epoch: int, max_norm: float = 0.0):
        self.accelerator, self.name, self.epoch, self.max_norm = accelerator, name, epoch, max_norm
        device = accelerator.device
        real = torch.float32 if device.type == "mps" else torch.float64  # Metal has no float64
        self.sums = {"loss": torch.zeros((), dtype=real, device=device)}
        for key in ("slices", "clipped", "skipped"):
            self.sums[key] = torch.zeros((), dtype=torch.int64, device=device)
        self.sums["counts"] = torch.zeros(NUM_CLASSES**2, dtype=torch.int64, device=device)
        self.recent: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]] = []

    @torch.no_grad()
    def add(
        self,
        loss: torch.Tensor,
        logits: torch.Tensor,
        labels: torch.Tensor,
        rows: torch.Tensor,
        norm: torch.Tensor | None = None,
        rate: float = 0.0,
    ) -> None:
        """A batch: its mean loss, logits (B, 4, S, S), labels (B, S, S), rows (B,) of slices.csv.

        norm: length of the whole gradient before clipping, where a step ends with this batch; rate: learning
        rate. Raises FloatingPointError, some batches late on a GPU, if loss or gradient is not finite.
        """
        loss, sane = loss.detach(), torch.isfinite(loss)
        pairs = labels * NUM_CLASSES + logits.argmax(1)
        self.sums["loss"] += loss * len(labels)
        self.sums["slices"] += len(labels)
        self.sums["counts"] += torch.stack([(pairs == pair).sum() for pair in range(NUM_CLASSES**2)])
        if norm is not None:
            finite = torch.isfinite(norm)
            if self.accelerator.is_main_process:  # all have the same gradient
                self.sums["clipped"] += finite & (norm > self.max_norm) if self.max_norm else 0
                self.sums["skipped"] += ~finite
            if self.accelerator.scaler is None:  # which would skip the step and try a smaller scale
                sane = sane & finite
        self.recent.append((sane, loss, rows, rate))
        if self.accelerator.device.type == "cpu" or len(self.recent) >= WAIT_AT_MOST:
            self.check()

    def check(self) -> None:
        """Look at the batches since the last look.

        Raises FloatingPointError at the first that was not finite.
        """
        recent, self.recent = self.recent, []
        if not recent or torch.stack([sane for sane, *_ in recent]).all().item():
            return
        _, loss, rows, rate = next(batch for batch in recent if not batch[0].item())
        scaler = self.accelerator.scaler
        what = f"loss is {loss.item()}" if not torch.isfinite(loss) else "gradient is not finite"
        raise FloatingPointError(
            f"Epoch {self.epoch}: the {self.name} {what} on slices {rows.tolist()}, learning rate {rate:.3g}"
            + (f", loss scale {scaler.get_scale():g}" if scaler else "")
            + "; lower the learning_rate or set max_grad_norm."
        )

    def state(self) -> dict[str, Any]:
        """The sums of all processes as plain numbers, to save or to score.

        All processes must ask together.
        """
        self.check()
        return {key: self.accelerator.reduce(value, "sum").tolist() for key, value in self.sums.items()}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from saved sums; they are the first process's from now on."""
        if self.accelerator.is_main_process:
            for key, value in state.items():
                self.sums[key] += torch.tensor(
                    value, dtype=self.sums[key].dtype, device=self.accelerator.device
                )

    def scores(self) -> dict[str, float]:
        """loss, accuracy, miou and lesion_dice under names that start with `name`_.

        From all pixels counted together.

        A tally of steps also says how many were clipped and how many were skipped.
        """
        sums = self.state()
        counts = torch.tensor(sums["counts"]).reshape(NUM_CLASSES, NUM_CLASSES).numpy()
        scores = {
            f"{self.name}_loss": sums["loss"] / sums["slices"],
            f"{self.name}_accuracy": metrics.accuracy(counts),
            f"{self.name}_miou": metrics.mean_iou(counts),
            f"{self.name}_lesion_dice": metrics.lesion_dice(counts),
        }
        return scores | ({key: sums[key] for key in ("clipped", "skipped")} if self.name == "train" else {})
