"""Models for the tests: the demo model, and one of random weights that talks nonsense."""

import pathlib
import shutil
from typing import Any

import pytest

from worker.engine.model.loading import LoadedModel, load, tokenizer_of


@pytest.fixture(scope="session")
def demo() -> LoadedModel:
    """The demo model as transformers loads it. The packed engine takes a network apart: it loads its own."""
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
