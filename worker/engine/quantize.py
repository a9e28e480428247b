"""Weights and activations in eight bits, through torchao: an option, off by default.

What it changes in the verdicts is to be measured first, on one's own labelled texts: `guardfleet evaluate FILE --against int8`.
Activations are scaled by row, so a text's answer does not depend on its neighbours in the batch.
"""

from typing import Any

import torch

from guardfleet.errors import ConfigurationError

FP8_CAPABILITY = (8, 9)  # Ada and Hopper: the first NVIDIA GPUs with fp8 matrix units


def quantize(network: Any, kind: str) -> None:
    """Turn the matrices of the network's layers into `int8` or `fp8`, in place; embedding and head stay. ConfigurationError."""
    try:
        from torchao import quantization  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConfigurationError(f"quantize {kind}: torchao is not installed; `pip install 'guardfleet[quantize]'`.") from None
    if kind == "fp8":
        device = network.device
        if device.type != "cuda" or torch.cuda.get_device_capability(device) < FP8_CAPABILITY:
            raise ConfigurationError(f"quantize fp8: {device} has no fp8 matrix units; int8 runs everywhere.")
        config = quantization.Float8DynamicActivationFloat8WeightConfig(granularity=quantization.PerRow())
    else:
        config = quantization.Int8DynamicActivationInt8WeightConfig()
    quantization.quantize_(network.model, config)
