"""Ideas that were tried and are not in the package.

`python benchmarks/tried.py PREPARED OUT [options of ablation.py]`.

Each is added to ablation.py's list, so that they are compared on its folds.
"""

import os

import ablation
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from ablation import IDEAS, Idea, main

from lungseg_utils import model
from lungseg_utils.core.classes import CONSOLIDATION, GROUND_GLASS, LESION, LESIONS, LUNG_OTHER
from lungseg_utils.core.files import InputError
from lungseg_utils.training import loop, losses

# z-scores of the windows' ends: HU -1350..150 (all), -1000..-400 (lung), -160..150 (soft tissue) by the
# Radiopaedia slices' mean and deviation, -587 and 478 HU
WINDOWS = ((-1.6, 1.54), (-0.86, 0.39), (0.89, 1.54))


def three_windows(_: torch.nn.Module, inputs: tuple[torch.Tensor]) -> torch.Tensor:
    """One channel of z-scores becomes three, each 0 to 1 in its window, then as ImageNet's photographs."""
    return torch.cat([((inputs[0] - low) / (high - low)).clamp(0, 1) for low, high in WINDOWS], 1) * 4 - 2


def windowed(encoder: str, weights: str | None = None) -> torch.nn.Module:
    network = smp.Unet(encoder, encoder_weights=weights, in_channels=3, classes=4)
    network.register_forward_pre_hook(three_windows)
    return network


def with_windows():
    plain_build, plain_empty = loop_build(), model.empty_model
    from lungseg_utils.training import learner

    def build(encoder, weights, architecture):
        if architecture != "unet_windows":
            return plain_build(encoder, weights, architecture)
        network = windowed(encoder)
        package = __import__(model.LITE_PACKAGES[encoder])
        source = next(value for name, value in vars(package).items() if name.endswith("ModelFile"))
        state = torch.load(source.get_model_file_path(), "cpu", weights_only=True)
        tensors = [tensor for name, tensor in state.items() if not name.startswith(model.BEYOND_THE_ENCODER)]
        network.encoder.load_state_dict(dict(zip(network.encoder.state_dict(), tensors, strict=True)))
        return network

    def empty(encoder, architecture, *rest, **options):
        if architecture == "unet_windows":
            return windowed(encoder)
        return plain_empty(encoder, architecture, *rest, **options)

    model.ARCHITECTURES["unet_windows"] = ("unet", {})
    learner.build_model, model.empty_model = build, empty


def loop_build():
    from lungseg_utils.training import learner

    return learner.build_model


def lesion_first(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Lesion, lung or background first; the kind within true lesions, averaged over them; Dice as usual."""
    log_p = F.log_softmax(logits.float(), 1)
    lesion = log_p[:, list(LESIONS)].logsumexp(1)
    where = F.nll_loss(
        torch.stack([lesion, log_p[:, 2], log_p[:, 3]], 1),
        three_parts(labels),
        weight=logits.new_tensor([3.0, 1.0, 0.5]),
    )
    known = torch.isin(labels, labels.new_tensor(LESIONS))
    kind = F.cross_entropy(
        logits[:, list(LESIONS)].float(),
        labels.clamp_max(CONSOLIDATION),
        weight=logits.new_tensor([1.0, 1.5]),
        reduction="none",
    )
    kind = (kind * known).sum() / known.sum().clamp_min(1)
    return (
        where
        + 0.5 * kind
        + losses._soft_dice(logits, losses.only_known(labels))
        + losses.lesion_dice(logits, labels)
    )


def three_parts(labels: torch.Tensor) -> torch.Tensor:
    parts = (labels - 1).clamp(0, 2)  # lesions 0, lung 1, background 2
    return parts.masked_fill(labels == LESION, 0)


def consolidation_twice(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    weights = logits.new_tensor((2.0, 8.0, 1.0, 0.5, 3.0, 0.75))
    entropy = F.nll_loss(losses.partial_log_probabilities(logits), labels, weight=weights)
    return entropy + losses._soft_dice(logits, losses.only_known(labels)) + losses.lesion_dice(logits, labels)


def distilled(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The usual loss, and what two networks of other seeds say of the same augmented slices."""
    device = logits.device.type
    if NOW.get("teacher_of") != NOW.get("folder", "given"):
        if "TEACHERS" in os.environ:
            folders = os.environ["TEACHERS"].split(",")
        else:
            fold = NOW["folder"].name.split("_")[1]
            folders = [NOW["folder"].parent / f"seed{seed}_{fold}_reference" / "model" for seed in (0, 1)]
        NOW["teachers"] = model.Members([model.load_model(folder, "last")[0] for folder in folders]).to(
            logits.device
        )
        NOW["teacher_of"] = NOW.get("folder", "given")
    base = losses.LOSSES["lesion_dice_cross_entropy"](logits, labels)
    if len(logits) != len(NOW["images"]):
        return base
    with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        teacher = NOW["teachers"].eval()(NOW["images"])
    away = (
        F.kl_div(F.log_softmax(logits.float(), 1), teacher.float(), log_target=True, reduction="none")
        .sum(1)
        .mean()
    )
    return base + 5 * away


def capture(_: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
    NOW["images"] = inputs[0].detach()


def with_capture():
    from lungseg_utils.training import learner

    before, run = learner.build_model, ablation.run_idea

    def build(*arguments):
        network = before(*arguments)
        network.register_forward_pre_hook(capture)
        return network

    def run_idea(prepared, slices, idea, config, folder):
        NOW["folder"] = folder
        return run(prepared, slices, idea, config, folder)

    learner.build_model, ablation.run_idea = build, run_idea


def pasting(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return losses.LOSSES["lesion_dice_cross_entropy"](logits, labels)


def pasted(batch):
    """Lesions of the slice before into the healthy lung of every second slice, shifted by nothing."""
    images, labels, rows = torch.utils.data.default_collate(batch)
    others, other_labels = images.roll(1, 0), labels.roll(1, 0)
    into = (labels == LUNG_OTHER) & ((other_labels == GROUND_GLASS) | (other_labels == CONSOLIDATION))
    into[1::2] = False
    return torch.where(into[:, None], others, images), torch.where(into, other_labels, labels), rows


def with_pasting():
    plain = loop.make_loader

    def make(dataset, batches, workers=0, pin_memory=False):
        loader = plain(dataset, batches, workers, pin_memory)
        if dataset.augmentation != "none" and paste_now():
            loader.collate_fn = pasted
        return loader

    loop.make_loader = make


def paste_now() -> bool:
    return NOW["loss"] == "pasting"


NOW = {"loss": ""}
plain_loss = loop.build_loss


def build_loss(name):
    NOW["loss"] = name
    return plain_loss(name)


# the loader is made before the loss in the loop: the config names it earlier
from lungseg_utils.training import config as config_module  # noqa: E402

plain_check = config_module.build_loss


def check_loss(name):
    NOW["loss"] = name
    return plain_check(name)


if __name__ == "__main__":
    losses.LOSSES.update(
        lesion_first=lesion_first,
        consolidation_twice=consolidation_twice,
        pasting=pasting,
        distilled=distilled,
    )
    config_module.build_loss = check_loss
    with_windows()
    with_pasting()
    with_capture()
    IDEAS["three windows as channels"] = Idea("tried", {"architecture": "unet_windows"})
    IDEAS["lesion first then its kind"] = Idea("tried", {"loss": "lesion_first"})
    IDEAS["consolidation counts twice"] = Idea("tried", {"loss": "consolidation_twice"})
    IDEAS["lesions pasted into other slices"] = Idea("tried", {"loss": "pasting"})
    IDEAS["distilled from two"] = Idea("tried", {"loss": "distilled"})
    IDEAS["five times the weight decay"] = Idea("tried", {"weight_decay": 0.05})
    try:
        main()
    except InputError as error:
        raise SystemExit(f"error: {error}") from error
