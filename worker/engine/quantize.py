"""Weights and activations in eight bits, through torchao: an option, off by default.

What it changes in the verdicts is to be measured first, on one's own labelled texts: `guardfleet evaluate FILE --against int8`.
Activations are scaled by row, so a text's answer does not depend on its neighbours in the batch.
"""

from typing import Any

import torch

from guardfleet.errors import ConfigurationError

FP8_CAPABILITY = (8, 9)  # Ada and Hopper: the first NVIDIA GPUs with fp8 matrix units


def require(kind: str, device: torch.device) -> None:
    """Raise ConfigurationError where `int8` or `fp8` cannot be had; `none` can always."""
    if kind != "none":
        _config(kind, device)


def quantize(network: Any, kind: str, device: torch.device) -> None:
    """Turn the matrices of the network's layers into `int8` or `fp8`, each on its way to the device; embedding and head stay.

    So a device that has room for eight bits need not have it for sixteen.
    """
    from torchao import quantization  # noqa: PLC0415 - an extra

    quantization.quantize_(network.model, _config(kind, device), device=device)


def _config(kind: str, device: torch.device) -> Any:
    try:
        from torchao import quantization  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConfigurationError(f"quantize {kind}: torchao is not installed; `pip install 'guardfleet[quantize]'`.") from None
    if kind == "int8":
        return quantization.Int8DynamicActivationInt8WeightConfig()
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < FP8_CAPABILITY:
        raise ConfigurationError(f"quantize fp8: {device} has no fp8 matrix units; int8 runs everywhere.")
    return quantization.Float8DynamicActivationFloat8WeightConfig(granularity=quantization.PerRow())
