"""Models for the tests: the demo model, and one with random weights that answers nonsense."""

import json
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import transformers

from worker.engine.decoding.padded import GenerateBackend
from worker.engine.device import keep_freed_memory
from worker.engine.model import loading
from worker.engine.model.loading import LoadedModel, load, tokenizer_of
from worker.engine.prompting.prompt import Prompter
from worker.engine.verification import reference
from worker.engine.verification.reference import Reference

OF_NETWORK = ("config.json", "generation_config.json", "model.safetensors.index.json")
OF_TOKENIZER = ("model_type", "tokenizer_class", "auto_map", "transformers_version")  # what its library reads in config.json


def _kind_in(config: pathlib.Path) -> object:
    """What says in config.json which tokenizer it is; all of it if that is no JSON object."""
    content = config.read_bytes() if config.is_file() else b""
    try:
        found = json.loads(content)
    except ValueError:
        return content
    return repr([found.get(name) for name in OF_TOKENIZER]) if isinstance(found, dict) else content


@pytest.fixture(scope="session", autouse=True)
def _freed_memory_is_kept() -> None:
    """As a worker keeps it from its first model on: faulting it in again is a sixth of what the references cost."""
    keep_freed_memory()


@pytest.fixture(scope="session", autouse=True)
def _tokenizers_are_read_once() -> Iterator[None]:
    """Cache tokenizers by their files, and prompters by tokenizer: the real one takes 2 s to load, and the tests load 80 models."""
    read, made = transformers.AutoTokenizer.from_pretrained, loading.prompter_of
    tokenizers: dict[object, Any] = {}
    prompters: dict[object, Prompter] = {}

    def from_pretrained(where: str, **asked: Any) -> Any:
        folder = pathlib.Path(where)
        if not folder.is_dir():
            return read(where, **asked)
        files = [file for file in folder.iterdir() if file.suffix in (".json", ".jinja") and file.name not in OF_NETWORK]
        key = tuple(sorted((file.name, file.read_bytes()) for file in files)), _kind_in(folder / "config.json"), repr(asked)
        if key not in tokenizers:
            tokenizers[key] = read(where, **asked)
        return tokenizers[key]

    def prompter_of(tokenizer: Any, *, neutralises: bool = True) -> Prompter:
        if (tokenizer, neutralises) not in prompters:
            prompters[tokenizer, neutralises] = made(tokenizer, neutralises=neutralises)
        return prompters[tokenizer, neutralises]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transformers.AutoTokenizer, "from_pretrained", from_pretrained)
        patch.setattr(loading, "prompter_of", prompter_of)
        yield


@pytest.fixture(scope="session", autouse=True)
def _transformers_is_asked_once() -> Iterator[None]:
    """Cache what transformers says of a model that is opened: the packed pass is held against it each time all the same."""
    ask = reference.ask_transformers
    said: dict[object, Reference] = {}

    def ask_transformers(loaded: LoadedModel) -> Reference:
        asked = reference.LENGTHS, reference.TEXTS, str(reference.PATIENCE_FLOP)
        network = loaded.network.dtype, loaded.network.config.to_json_string(), loaded.device
        key = loaded.identity, network, asked, GenerateBackend._decode
        if key not in said:
            said[key] = ask(loaded)
        return said[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("worker.engine.opening.ask_transformers", ask_transformers)
        yield


@pytest.fixture(scope="session")
def demo() -> LoadedModel:
    """The demo model as transformers loads it. The packed engine takes its network apart, so it loads its own."""
    return load("demo")


@pytest.fixture(scope="session")
def real_tokenizer(shared: pathlib.Path) -> Any:
    """Qwen3Guard's own, which takes seconds to load."""
    return tokenizer_of(str(shared / "qwen3guard"))


@pytest.fixture
def babbling(tmp_path: pathlib.Path, shared: pathlib.Path) -> pathlib.Path:
    """A folder with a tiny network of random weights behind the real tokenizer and template."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(1)
    config = Qwen3Config(
        vocab_size=151_936,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=4096,
        eos_token_id=151_645,
        pad_token_id=151_643,
    )
    Qwen3ForCausalLM(config).save_pretrained(tmp_path)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(shared / "qwen3guard" / file, tmp_path)
    return tmp_path
