"""Weights that are not a whole Qwen3's in 16 or 32 bit are refused by name, quantized ones before any is read."""

import json
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from guardfleet.errors import ConfigurationError
from worker.engine.model.loading import load
from worker.engine.model.weights import require_complete, require_servable, require_wide

COMMIT = "0123456789abcdef0123456789abcdef01234567"
STORED: dict[str, dict[str, Any]] = {  # as the tools of each leave them in a config.json
    "fp8": {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm", "zero_point": True},
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True},
    "bitsandbytes": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "compressed-tensors": {"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": {}},
    "modelopt": {"quant_method": "modelopt", "quant_algo": "FP8"},
    "NVFP4": {"quant_algo": "NVFP4"},
    "by a method without a name": {"bits": 4},
}


@pytest.fixture
def copied(tmp_path: pathlib.Path) -> pathlib.Path:
    """The demo model in a folder that may be written to."""
    return pathlib.Path(shutil.copytree(pathlib.Path(__file__).parents[2] / "models" / "demo", tmp_path / "copied"))


def unread(*_: Any, **__: Any) -> Any:
    raise AssertionError("the weights were read")


@pytest.mark.parametrize("field", ["quantization_config", "compression_config"])
@pytest.mark.parametrize("method", STORED)
def test_weights_that_are_stored_quantized_are_refused_before_they_are_read(
    method: str, field: str, copied: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**config, field: STORED[method]}))
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", unread)
    monkeypatch.setattr("worker.engine.model.source.digest_of", unread)
    with pytest.raises(
        ConfigurationError, match=rf"its config.json says {method}\), .*16-bit weights.*GUARDFLEET_ENGINE__QUANTIZE"
    ) as said:
        load(str(copied))
    assert "\n" not in str(said.value)


def test_a_config_of_the_librarys_own_class_is_understood() -> None:
    config = transformers.Qwen3Config(quantization_config=transformers.BitsAndBytesConfig(load_in_8bit=True))
    with pytest.raises(ConfigurationError, match=r"stored quantized \(its config.json says bitsandbytes"):
        require_servable("x", config)
    require_servable("x", transformers.Qwen3Config())


def test_another_type_is_refused_before_its_weights_are_read(copied: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", unread)
    (copied / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ConfigurationError, match="is of type 'llama'; guardfleet serves"):
        load(str(copied))


def without(tensors: dict[str, torch.Tensor]) -> None:
    for name in [name for name in tensors if "q_proj" in name]:
        tensors.pop(name)


def with_scales(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.layers.0.self_attn.q_proj.weight_scale"] = torch.ones(1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without, r"lacks weights \(model.layers.0.self_attn.q_proj.weight, .* and 1 more\): download its files again"),
        (with_scales, r"a Qwen3 lacks \(model.layers.0.self_attn.q_proj.weight_scale\): .*16-bit weights"),
    ],
)
def test_weights_in_part_are_refused(change: Callable[[dict[str, torch.Tensor]], None], said: str, copied: pathlib.Path) -> None:
    """The library would fill them up with random numbers, or leave scales out, and say so in a log alone."""
    file = copied / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ConfigurationError, match=said):
        load(str(copied))


NARROW = {
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I8": torch.int8,
    "U8": torch.uint8,
    "I32": torch.int32,  # as GPTQ packs them
}


@pytest.mark.parametrize("n_files", [1, 2])
@pytest.mark.parametrize("called", NARROW)
def test_weights_of_eight_bits_that_no_config_tells_of_are_refused_before_they_are_read(
    called: str, n_files: int, copied: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library would cast them, and answer with numbers that lack their scales."""
    narrow(copied, called, n_files)
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", unread)
    monkeypatch.setattr("worker.engine.model.source.digest_of", unread)
    with pytest.raises(ConfigurationError, match=rf"copied' stores .*\) as {called}, .*16-bit weights") as said:
        load(str(copied))
    assert "\n" not in str(said.value)


def test_those_in_the_hub_s_cache_are_refused_too(
    copied: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow(copied, "F8_E4M3", 1)
    model = tmp_path / "hub" / "models--Some--Guard"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(COMMIT)
    (model / "snapshots").mkdir()
    copied.rename(model / "snapshots" / COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigurationError, match=r"'Some/Guard' stores .*\) as F8_E4M3"):
        load("Some/Guard")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_weights_of_sixteen_bits_and_more_are_taken_whatever_lies_beside_them(dtype: torch.dtype, copied: pathlib.Path) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(copied / "model.safetensors").items()}
    _store(tensors, copied, 1)
    save_file({"x": torch.ones(2, dtype=torch.int8)}, copied / "model-int8.safetensors")  # not what is read
    require_wide(str(copied), copied)


def narrow(folder: pathlib.Path, called: str, n_files: int) -> None:
    """Store the matrices as a tool leaves them that keeps their scales elsewhere, or nowhere."""
    tensors = load_file(folder / "model.safetensors")
    _store({name: tensor.to(NARROW[called]) if tensor.dim() > 1 else tensor for name, tensor in tensors.items()}, folder, n_files)


def _store(tensors: dict[str, torch.Tensor], folder: pathlib.Path, n_files: int) -> None:
    (folder / "model.safetensors").unlink()
    if n_files == 1:
        return save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    names = sorted(tensors)
    parts = {f"model-{i}.safetensors": names[i::n_files] for i in range(n_files)}
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
    weight_map = {name: file for file, part in parts.items() for name in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return None


def test_weights_of_another_size_are_named() -> None:
    with pytest.raises(ConfigurationError, match=r"other sizes than its config.json says \(a.weight\)"):
        require_complete("x", {"mismatched_keys": {("a.weight", (1, 2), (2, 1))}})
    require_complete("x", {"missing_keys": set(), "unexpected_keys": [], "mismatched_keys": set()})


@pytest.mark.parametrize("others", [(), ("config.json", "tokenizer.json", "chat_template.jinja", "tokenizer_config.json")])
def test_a_folder_of_gguf_alone_is_refused_in_one_sentence(
    others: tuple[str, ...], copied: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    folder = tmp_path / "gguf"
    folder.mkdir()
    (folder / "model.gguf").write_bytes(b"GGUF")
    for name in others:
        if (copied / name).exists():
            shutil.copy(copied / name, folder)
    with pytest.raises(ConfigurationError, match=r"has no weights \(\*.safetensors\)" if others else "has no config.json") as said:
        load(str(folder))
    assert "\n" not in str(said.value)


def test_an_adapter_alone_is_called_one(tmp_path: pathlib.Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ConfigurationError, match="holds an adapter"):
        load(str(tmp_path))
