"""Which weights are taken: all of a Qwen3's, in 16 or 32 bit, and nothing beside them.

transformers fills what is missing with random numbers and passes over what it has no place for; either way answers would be noise.
"""

from collections.abc import Collection, Mapping
from typing import Any

from guardfleet.errors import ConfigurationError

STORED_IN = ("quantization_config", "compression_config")  # fields of a config.json that say so; the latter is an older name
SHOWN = 2  # names of weights in a sentence


def require_servable(name: str, config: Any) -> None:
    """Refuse, by its config.json alone, a network of another type, and weights that are stored in fewer bits."""
    if config.model_type != "qwen3":
        raise ConfigurationError(f"model {name!r} is of type {config.model_type!r}; guardfleet serves Qwen3Guard-Gen (qwen3).")
    stored = next((found for field in STORED_IN if (found := getattr(config, field, None))), None)
    if stored is not None:
        raise ConfigurationError(
            f"model {name!r} is stored quantized ({_method(stored)}, says its config.json), which guardfleet does not read: "
            "take the model with 16-bit weights, and set GUARDFLEET_QUANTIZE to int8 or fp8 for eight bits."
        )


def _method(stored: Any) -> str:
    """What the field calls it; bitsandbytes by its bits, as its configs name nothing else in older versions."""
    fields = stored if isinstance(stored, Mapping) else stored.to_dict()
    method = fields.get("quant_method") or fields.get("quant_algo")
    if method is None:
        return "bitsandbytes" if fields.get("load_in_4bit") or fields.get("load_in_8bit") else "by a method without a name"
    return str(getattr(method, "value", method))


def require_complete(name: str, report: Mapping[str, Collection[Any]]) -> None:
    """Refuse what the library could load in part only; `report` is its own, of `output_loading_info`."""
    for finding, said in (
        ("missing_keys", "lacks weights"),
        ("mismatched_keys", "has weights of other sizes than its config.json says"),
    ):
        if report.get(finding):
            raise ConfigurationError(f"model {name!r} {said} ({_some(report[finding])}): get its files anew.")
    if report.get("unexpected_keys"):
        raise ConfigurationError(
            f"model {name!r} holds what a Qwen3 has no place for ({_some(report['unexpected_keys'])}): merge an adapter into its "
            "weights, take 16-bit weights instead of quantized ones, and leave out what was only for training."
        )


def _some(keys: Collection[Any]) -> str:
    names = sorted(str(key if isinstance(key, str) else next(iter(key))) for key in keys)
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")
