"""Tries the GPUs in a process of its own, and prints what `device.probe` adds, as JSON.

A failed kernel poisons the CUDA context, and a notebook that has touched CUDA cannot launch one process per
GPU afterwards. The sum is a kernel of torch's own; the convolution may be cuDNN's.
"""

import json
import sys
from typing import Any

import torch


def try_devices(kind: str) -> dict[str, Any]:
    """What the GPUs of this kind are and whether each works, up to the first that fails."""
    found: dict[str, Any] = {"gpus": [], "archs": torch.cuda.get_arch_list(), "bf16": False, "error": None}
    try:
        if kind == "cuda":
            torch.cuda.init()  # type: ignore[no-untyped-call]  # torch's own lacks the annotation
            found["bf16"] = torch.cuda.is_bf16_supported(including_emulation=False)
        for i in range(torch.cuda.device_count() if kind == "cuda" else 1):
            found["gpus"].append(_describe(kind, i))
            device = torch.device(kind, i)
            torch.nn.Conv2d(1, 8, 3).to(device)(torch.zeros(1, 1, 8, 8).to(device)).sum().item()
            found["gpus"][-1]["works"] = True
    except Exception as error:
        found["error"] = (str(error) or type(error).__name__).splitlines()[0]
    return found


def _describe(kind: str, index: int) -> dict[str, Any]:
    if kind != "cuda":
        return {"name": "Apple GPU", "capability": None, "memory": None, "works": False}
    about = torch.cuda.get_device_properties(index)
    memory = torch.cuda.mem_get_info(index)
    return {"name": about.name, "capability": [about.major, about.minor], "memory": memory, "works": False}


if __name__ == "__main__":
    print(json.dumps(try_devices(sys.argv[1])))
