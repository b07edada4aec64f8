"""The network: its size, its batch norms, weights from files and the hub, saved and loaded offline."""

import json
import os
import re
import subprocess
import sys

import pytest
import segmentation_models_pytorch as smp
import torch
from safetensors.torch import save_file
from torch import nn

from lungseg_utils.core.files import InputError
from lungseg_utils.model import (
    ARCHITECTURES,
    Members,
    build_model,
    check_image_size,
    load_model,
    maps_of,
    parameters_by_part,
    save_model,
    stage_sizes,
)

CONFIG = {"architecture": "unet", "encoder": "resnet18", "image_size": 32, "preprocessing": {}}


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return build_model("resnet18", "none").eval()


def test_the_reference_network_has_the_decks_size():
    network = build_model("efficientnet-b2", "none")
    assert (
        sum(parameters_by_part(network).values())
        == sum(p.numel() for p in network.parameters())
        == 10_046_150
    )
    sizes = stage_sizes(network, 64)
    assert [row["side"] for row in sizes if row["part"] == "encoder"] == [64, 32, 16, 8, 4, 2]
    assert [row["channels"] for row in sizes if row["part"] == "decoder"] == [256, 128, 64, 32, 16]
    assert sizes[-1] == {"part": "head", "stage": 0, "channels": 4, "side": 64}
    assert network.training  # as it was before


def test_batch_norm_momentum_from_scratch_and_pretrained(tmp_path):
    def momenta(network):
        return {
            round(m.momentum, 3) for m in network.encoder.modules() if isinstance(m, torch.nn.BatchNorm2d)
        }

    path = tmp_path / "encoder.safetensors"
    save_file(smp.encoders.get_encoder("efficientnet-b0", in_channels=3).state_dict(), path)
    assert momenta(build_model("efficientnet-b0", "none")) == {0.1}
    assert momenta(build_model("efficientnet-b0", str(path))) == {0.01}


def test_weights_of_a_local_file_arrive_and_colours_are_summed(tmp_path):
    encoder = smp.encoders.get_encoder("resnet18", in_channels=3)
    torch.save(encoder.state_dict(), tmp_path / "encoder.pt")
    network = build_model("resnet18", str(tmp_path / "encoder.pt"))
    assert torch.allclose(network.encoder.conv1.weight, encoder.conv1.weight.sum(1, keepdim=True))
    assert torch.equal(network.encoder.layer4[1].conv2.weight, encoder.layer4[1].conv2.weight)


@pytest.mark.parametrize("encoder", ["efficientnet-b2", "resnet18"])
@pytest.mark.parametrize("channels", [1, 3])
def test_safetensors_of_grey_and_colour_encoders_load(encoder, channels, tmp_path):
    saved = smp.encoders.get_encoder(encoder, in_channels=channels).state_dict()
    save_file(saved, tmp_path / "encoder.safetensors")
    loaded = build_model(encoder, str(tmp_path / "encoder.safetensors")).encoder.state_dict()
    same = [
        key for key in saved if saved[key].shape == loaded[key].shape and torch.equal(saved[key], loaded[key])
    ]
    assert len(saved) - len(same) == (channels == 3)  # all but the first convolution


@pytest.mark.parametrize(
    ("encoder", "weights", "message"),
    [
        ("resnet19", "none", "encoder is 'resnet19'"),
        ("resnet18", "no/such/file.pt", "no such file"),
        ("resnet18", "wrong.safetensors", "does not hold the weights of resnet18's encoder"),
    ],
)
def test_bad_names_and_files_are_refused(encoder, weights, message, tmp_path, monkeypatch):
    monkeypatch.setenv("LUNGSEG_HOME", str(tmp_path))
    save_file({"a.weight": torch.zeros(3, 3)}, tmp_path / "wrong.safetensors")
    with pytest.raises(InputError, match=message):
        build_model(encoder, weights)


@pytest.mark.slow
def test_no_network_says_what_to_do(tmp_path):
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    script = "from lungseg_utils.model import build_model; build_model('efficientnet-b2', 'imagenet')"
    done = subprocess.run([sys.executable, "-c", script], env=offline, capture_output=True, text=True)
    assert done.returncode == 1 and "InputError" in done.stderr.splitlines()[-1]
    assert "encoder_weights to 'none'" in done.stderr.splitlines()[-1]


def test_imagenet_weights_are_pinned_to_a_revision():
    imagenet = smp.encoders.encoders["efficientnet-b2"]["pretrained_settings"]["imagenet"]
    assert re.fullmatch("[0-9a-f]{40}", imagenet["revision"])


def test_saved_and_loaded_it_answers_the_same(small, tmp_path):
    save_model(tmp_path, small, CONFIG)
    save_model(tmp_path, build_model("resnet18", "none"), CONFIG, name="last")
    again, config = load_model(tmp_path)
    image = torch.randn(1, 1, 32, 32)
    assert torch.equal(again(image), small(image)) and not again.training
    assert config["encoder"] == "resnet18" and config["classes"][0] == "ground_glass"
    assert not torch.equal(load_model(tmp_path, "last")[0](image), small(image))


def test_members_answer_with_their_mean_probability_and_come_back_as_one(tmp_path):
    torch.manual_seed(0)
    networks = [build_model("resnet18", "none").eval() for _ in range(2)]
    both, image = Members(networks).eval(), torch.randn(2, 1, 32, 32)
    expected = sum(network(image).softmax(1) for network in networks) / 2
    torch.testing.assert_close(both(image).softmax(1), expected)
    save_model(tmp_path, both, {**CONFIG, "members": 2})
    assert torch.equal(load_model(tmp_path)[0](image), both(image))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_architecture_comes_back_as_it_was_saved(architecture, tmp_path):
    network = build_model("resnet18", "none", architecture).eval()
    save_model(tmp_path, network, {**CONFIG, "architecture": architecture})
    again, config = load_model(tmp_path)
    image = torch.randn(1, 1, 32, 32)
    assert torch.equal(again(image), network(image)) and config["architecture"] == architecture
    sizes = stage_sizes(network, 32)
    assert sizes[-1] == {"part": "head", "stage": 0, "channels": 4, "side": 32}
    sides = {8} if architecture == "fpn" else {2, 4, 8, 16, 32}
    assert {row["side"] for row in sizes if row["part"] == "decoder"} == sides


def test_the_u_nets_differ_in_the_decoder_alone():
    u_nets = [name for name in ARCHITECTURES if name.startswith("unet")]
    parts = {name: parameters_by_part(build_model("resnet18", "none", name)) for name in u_nets}
    assert (
        len({part["encoder"] for part in parts.values()})
        == 1
        == len({part["head"] for part in parts.values()})
    )
    assert parts["unet"]["decoder"] < parts["unet_scse"]["decoder"] < parts["unetplusplus"]["decoder"]


def test_a_model_of_before_there_was_a_choice_still_loads_and_an_unknown_one_is_refused(small, tmp_path):
    save_model(tmp_path, small, {**CONFIG, "architecture": "Unet"})
    image = torch.randn(1, 1, 32, 32)
    assert torch.equal(load_model(tmp_path)[0](image), small(image))
    save_model(tmp_path, small, {**CONFIG, "architecture": "segformer"})
    with pytest.raises(
        InputError, match="architecture is 'segformer'; expected one of unet, unet_scse, unetplusplus, fpn"
    ):
        load_model(tmp_path)
    with pytest.raises(InputError, match="architecture is 'Unet'"):
        build_model("resnet18", "none", "Unet")


def test_missing_or_mixed_files_are_refused(small, tmp_path):
    with pytest.raises(InputError, match="run 03_training first"):
        load_model(tmp_path)
    save_model(tmp_path, small, CONFIG)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "weights_sha256": "0"}))
    with pytest.raises(InputError, match="is not the file"):
        load_model(tmp_path)


@pytest.mark.parametrize("size", [0, 16, 100, -32])
def test_image_size_must_be_a_multiple_of_32(size):
    with pytest.raises(InputError, match="multiple of 32"):
        check_image_size(size)


def test_maps_come_in_order_and_the_model_stays_in_its_mode():
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.MaxPool2d(2), nn.Dropout(0.5)).train()
    maps = maps_of(model, torch.ones(1, 1, 8, 8), model[0], model[1])
    assert [m.shape for m in maps] == [(2, 8, 8), (2, 4, 4)] and model.training
    assert not model[0]._forward_hooks
