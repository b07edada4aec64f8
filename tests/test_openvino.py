"""OpenVINO answers what PyTorch answers, runs only where it pays, and is not needed."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import AS_IS, CPU

from lungseg_utils.core.device import Device
from lungseg_utils.core.files import InputError
from lungseg_utils.inference import segmenter as inference
from lungseg_utils.inference.openvino import compile_network
from lungseg_utils.inference.segmenter import Segmenter
from lungseg_utils.inference.settings import InferenceSettings
from lungseg_utils.model import ARCHITECTURES, Members, build_model

SIZE = 64
CONFIG = {"image_size": SIZE, "preprocessing": AS_IS.to_dict()}


@pytest.fixture(scope="module")
def segmenter():
    torch.manual_seed(0)
    return Segmenter(build_model("resnet18", "none").eval(), CONFIG, CPU)


@pytest.fixture(scope="module")
def hu():
    return np.random.default_rng(0).integers(-1200, 400, (5, 80, 96), np.int16)


class Constant(torch.nn.Module):
    """Leaves torch for NumPy: tracing takes its answer to the example for its answer to everything."""

    def forward(self, images):
        return torch.from_numpy(np.repeat(images.numpy() + 1, 4, axis=1) * np.arange(1, 5)[:, None, None])


@pytest.fixture
def compilations(monkeypatch):
    """The networks that were compiled, each by leaving it as it is; 10 slices of SIZE are worth it."""
    seen = []
    monkeypatch.setattr(inference, "compile_network", lambda model, size: seen.append(model) or model)
    monkeypatch.setattr(inference, "is_installed", lambda: True)
    monkeypatch.setattr(inference, "WORTH_COMPILING", 10 * SIZE**2)
    return seen


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_logits_are_those_of_pytorch_for_any_batch(architecture):
    pytest.importorskip("openvino")
    torch.manual_seed(0)
    model = build_model("resnet18", "none", architecture).eval()
    network = compile_network(model, SIZE)
    for n in (1, 3):
        images = torch.randn(n, 1, SIZE, SIZE).to(memory_format=torch.channels_last)
        with torch.inference_mode():
            expected = model(images)
        torch.testing.assert_close(
            network(images), expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item()
        )


def test_members_answer_alike_too():
    pytest.importorskip("openvino")
    torch.manual_seed(0)
    both = Members(build_model("resnet18", "none") for _ in range(2)).eval()
    images = torch.randn(2, 1, SIZE, SIZE)
    with torch.inference_mode():
        torch.testing.assert_close(compile_network(both, SIZE)(images), both(images), rtol=1e-4, atol=1e-4)


def test_an_answer_stays_when_the_next_slice_is_seen(segmenter):
    pytest.importorskip("openvino")
    network = compile_network(segmenter.model, SIZE)
    first = network(torch.zeros(1, 1, SIZE, SIZE))
    kept = first.clone()
    network(torch.ones(1, 1, SIZE, SIZE))
    assert torch.equal(first, kept)


@pytest.mark.parametrize(
    "settings", [InferenceSettings(), InferenceSettings(flip=True, thresholds=(0.5, 0.5, 1, 1))]
)
def test_the_labels_are_those_of_pytorch(segmenter, hu, settings):
    pytest.importorskip("openvino")
    plain = replace(segmenter, settings=settings)
    compiled = replace(plain, backend="openvino")
    np.testing.assert_allclose(compiled.probabilities(hu, 2), plain.probabilities(hu), atol=1e-4)
    assert (compiled(hu) != plain(hu)).mean() < 1e-4


def test_compiling_warns_of_nothing_and_reports_nothing_to_the_maker(segmenter, monkeypatch):
    pytest.importorskip("openvino")

    def report(*_args, **_kwargs):
        raise AssertionError("telemetry was started")

    monkeypatch.setattr("openvino.tools.ovc.convert_impl.init_ovc_telemetry", report)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compile_network(segmenter.model, SIZE)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # what tracing cannot follow is the point
def test_a_network_that_it_gets_wrong_is_left_to_pytorch(segmenter, hu, monkeypatch):
    pytest.importorskip("openvino")
    monkeypatch.setattr(inference, "WORTH_COMPILING", 0)
    odd = replace(segmenter, model=Constant())
    with pytest.raises(
        InputError, match=r"OpenVINO cannot run this network \(its logits differ .*backend 'torch'"
    ):
        replace(odd, backend="openvino")(hu)
    with pytest.warns(UserWarning, match="PyTorch does, more slowly"):
        labels = replace(odd, backend="auto")(hu)
    np.testing.assert_array_equal(labels, odd(hu))


def test_auto_compiles_once_and_only_for_many_slices(segmenter, hu, compilations):
    auto = replace(segmenter, backend="auto")
    auto(hu)
    assert compilations == []
    for _ in range(2):
        np.testing.assert_array_equal(auto(np.concatenate([hu, hu])), np.concatenate([segmenter(hu)] * 2))
    assert compilations == [segmenter.model]
    replace(auto, settings=InferenceSettings(flip=True))(hu)  # twice the work for each slice
    assert len(compilations) == 2


def test_only_a_cpu_with_the_package_gets_it(segmenter, hu, compilations, monkeypatch):
    many = np.concatenate([hu, hu])
    segmenter(many)
    gpu = replace(segmenter, backend="auto", device=Device("cuda", "tests", "tests"))
    assert gpu._network(len(many)) is segmenter.model
    with pytest.raises(InputError, match="device cuda; it needs a CPU; use 'auto'"):
        replace(gpu, backend="openvino")
    monkeypatch.setattr(inference, "is_installed", lambda: False)
    replace(segmenter, backend="auto")(many)
    assert compilations == []
    with pytest.raises(InputError, match="not installed; run `pip install openvino`"):
        replace(segmenter, backend="openvino")


def test_an_unknown_backend_is_refused(segmenter):
    with pytest.raises(InputError, match="backend is 'onnx'; expected one of auto, torch, openvino"):
        replace(segmenter, backend="onnx")
