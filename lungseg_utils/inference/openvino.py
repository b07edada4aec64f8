"""The network compiled by OpenVINO (Intel, Apache 2.0): the same logits in float32, faster on a CPU.

An optional package.
"""

import warnings
from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import nn

from lungseg_utils.core.device import usable_cores

TOLERANCE = 1e-4  # of the largest logit; measured 5e-6 for float32, while bfloat16 errs by 1e-2
EXAMPLE_SIZE = 64  # pixels; only the path through the network counts, so that a small one does


def is_installed() -> bool:
    """Whether OpenVINO is there; does not import it."""
    return find_spec("openvino") is not None


def compile_network(model: nn.Module, image_size: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """What answers as `model` (on the CPU, in `eval()` mode) does.

    Float32 (B, 1, S, S) in, logits (B, 4, S, S) out.

    Takes one to three seconds. It uses as many threads as torch, and no more than the cores that this process
    may use. Raises RuntimeError if OpenVINO cannot run the network, or answers otherwise than PyTorch on an
    example (TOLERANCE).

    OpenVINO's front end is called directly, because `openvino.convert_model` reports its use to Intel unless
    forbidden.
    """
    import openvino
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", r"`torch\.jit\.trace", FutureWarning
        )  # torch would rather export: twice as slow
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # the answers are compared below
        example = torch.zeros(1, 1, EXAMPLE_SIZE, EXAMPLE_SIZE)
        traced = torch.jit.trace(model, example, check_trace=False)  # type: ignore[no-untyped-call]  # torch's own
    manager = FrontEndManager()  # like the decoder, to be kept until all is converted
    front_end, decoder = manager.load_by_framework("pytorch"), TorchScriptPythonDecoder(traced)
    converted = front_end.convert(front_end.load(decoder))
    converted.reshape([-1, 1, image_size, image_size])
    compiled = openvino.compile_model(
        converted,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": "f32",  # where a CPU has bfloat16, OpenVINO would take that
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": min(torch.get_num_threads(), usable_cores()),
        },
    )

    def network(images: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(compiled(images.contiguous().numpy())[0])

    example = torch.randn(1, 1, image_size, image_size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, found = model(example), network(example)
    if not torch.allclose(found, expected, rtol=0, atol=TOLERANCE * expected.abs().max().item()):
        raise RuntimeError(f"its logits differ from PyTorch's by up to {(found - expected).abs().max():.2g}")
    return network
