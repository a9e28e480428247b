"""Check a model's weights: all of a Qwen3's, in 16 or 32 bits, and nothing else.

transformers fills missing weights with random numbers and skips those it has no place for; either would make answers noise.
"""

import json
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

import torch
from safetensors import safe_open

from guardfleet.errors import ConfigurationError

STORED_IN = ("quantization_config", "compression_config")  # fields of a config.json that say so; the second is an older name
WIDE = ("F16", "BF16", "F32", "F64")  # safetensors' names of the types that can be cast to one another without changing meaning
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"  # the second if there are several files
INSTEAD = "use the model with 16-bit weights, and set GUARDFLEET_ENGINE__QUANTIZE to int8 or fp8 for eight bits."
SHOWN = 2  # names of weights in a message


def require_servable(name: str, config: Any) -> None:
    """Refuse, by its config.json alone, a network of another type, and weights stored in fewer bits."""
    if any(str(kind).endswith("ForSequenceClassification") for kind in getattr(config, "architectures", None) or ()):
        raise ConfigurationError(
            f"model {name!r} is a classifier, not a guard: set GUARDFLEET_ENGINE__DETECTOR to what it detects, such as ai-text."
        )
    if config.model_type != "qwen3":
        raise ConfigurationError(f"model {name!r} is of type {config.model_type!r}; guardfleet serves Qwen3Guard-Gen (qwen3).")
    require_not_quantized(name, config)


def require_not_quantized(name: str, config: Any) -> None:
    """Refuse, by its config.json alone, weights stored in fewer bits."""
    stored = next((found for field in STORED_IN if (found := getattr(config, field, None))), None)
    if stored is not None:
        raise ConfigurationError(
            f"model {name!r} is stored quantized (its config.json says {_method(stored)}), which guardfleet does not read: "
            f"{INSTEAD}"
        )


def require_wide(name: str, folder: pathlib.Path) -> None:
    """Refuse, by their files' headers alone, weights in eight bits or integers: a cast would not give what they represent."""
    kinds: dict[str, list[str]] = {}
    for file in stored_in(folder):
        with safe_open(file, "pt") as stored:
            for key in stored.keys():  # noqa: SIM118 - it is not a mapping
                kinds.setdefault(stored.get_slice(key).get_dtype(), []).append(key)
    narrow = next((kind for kind in sorted(kinds) if kind not in WIDE), None)
    if narrow is not None:
        raise ConfigurationError(
            f"model {name!r} stores weights ({_some(kinds[narrow])}) as {narrow}, but its config.json has no quantization_config "
            f"that says what they represent: {INSTEAD}"
        )


def require_stored(name: str, folder: pathlib.Path) -> None:
    """Refuse a folder that lacks a file which its index names: a download that was interrupted."""
    if gone := [file.name for file in stored_in(folder) if not file.is_file()]:
        raise ConfigurationError(f"model {name!r} lacks {', '.join(gone)}, which its {INDEX} names: download its files again.")


def require_safe(name: str, folder: pathlib.Path) -> None:
    """Refuse a folder without safetensors: other files of weights (pickles) can run code, and are not read."""
    if not stored_in(folder):
        raise ConfigurationError(
            f"model {name!r} has no weights (*.safetensors) in {folder}: download its files again, or save it as safetensors."
        )


@torch.inference_mode()
def require_finite(name: str, network: Any) -> None:
    """Refuse weights that hold something which is no number; the extremes of a tensor show it in one pass over its memory."""
    for key, weight in network.state_dict().items():
        if weight.is_floating_point() and weight.numel() and not torch.stack(torch.aminmax(weight)).isfinite().all():
            raise ConfigurationError(
                f"model {name!r}: its weight {key} holds numbers that are not finite: download its files again."
            )


def stored_in(folder: pathlib.Path) -> list[pathlib.Path]:
    """Return the safetensors files that transformers would read."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        return [folder / file for file in sorted(set(json.loads((folder / INDEX).read_text())["weight_map"].values()))]
    return []


def _method(stored: Any) -> str:
    """Return the method's name; bitsandbytes is recognised by its bits, since older configs name nothing else."""
    fields = stored if isinstance(stored, Mapping) else stored.to_dict()
    method = fields.get("quant_method") or fields.get("quant_algo")
    if method is None:
        return "bitsandbytes" if fields.get("load_in_4bit") or fields.get("load_in_8bit") else "by a method without a name"
    return str(getattr(method, "value", method))


def require_complete(name: str, report: Mapping[str, Collection[Any]], kind: str = "Qwen3") -> None:
    """Refuse what the library could load only partly; `report` is its own, from `output_loading_info`. `kind`: of network."""
    for finding, said in (
        ("missing_keys", "lacks weights"),
        ("mismatched_keys", "has weights of other sizes than its config.json says"),
    ):
        if report.get(finding):
            raise ConfigurationError(f"model {name!r} {said} ({_some(report[finding])}): download its files again.")
    if report.get("unexpected_keys"):
        raise ConfigurationError(
            f"model {name!r} holds weights that a {kind} lacks ({_some(report['unexpected_keys'])}): merge an adapter into its "
            "weights, use 16-bit weights instead of quantized ones, and leave out what was only for training."
        )


def _some(keys: Collection[Any]) -> str:
    names = sorted(str(key if isinstance(key, str) else next(iter(key))) for key in keys)
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")
