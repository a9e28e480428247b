"""A model with random weights and scripted answers, for timing shapes whose weights are not at hand.

Random weights do not produce the answer grammar, so answers are scripted: the pass does all of its work, including the argmax, and
then takes the scripted token.
"""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from guardfleet.domain.verdict import Model
from guardfleet.errors import ConfigurationError
from worker.engine.decoding.drafts import grammar
from worker.engine.decoding.model_runner import PackedBackend
from worker.engine.decoding.partial_answers import PromptRow
from worker.engine.families.family import family_of
from worker.engine.forward.geometry import Ints
from worker.engine.model.loading import LoadedModel, prompter_of, tokenizer_of
from worker.engine.model.memory import PUBLISHED
from worker.engine.model.quantize import quantize

SHAPES: dict[str, dict[str, Any]] = {
    size.lower(): {
        "hidden_size": sizes.shape.hidden,
        "intermediate_size": sizes.shape.intermediate,
        "num_hidden_layers": sizes.shape.layers,
        "num_attention_heads": sizes.shape.heads,
        "tie_word_embeddings": sizes.is_tied,
    }
    for size, sizes in PUBLISHED.items()
}
TINY = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 8, "tie_word_embeddings": True}
SHAPES["tiny"] = TINY  # for timing everything but arithmetic
POSITIONS = 32_768
COMMON = {"vocab_size": 151_936, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": POSITIONS, "rope_theta": 1e6}


SHAPES["1.7b"] = {  # Qwen3-1.7B's, which DynaGuard has
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "tie_word_embeddings": True,
}
RULES = (  # a template of DynaGuard's shape
    "<|im_start|>system\nSay FAIL if a rule is broken, otherwise PASS.<|im_end|>\n<|im_start|>user\n"
    "<rules>\n{{ policy }}\n</rules>\n<transcript>\n"
    "{% for message in messages %}'User': {{ message.content }}\n{% endfor %}"
    "</transcript><|im_end|>\n<|im_start|>assistant\n<answer>\n{{ '' }}"
)


class RehearsedBackend(PackedBackend):
    """Takes each token from a script after computing it. The drafts do not learn, so that slow rows stay slow."""

    def __init__(self, loaded: LoadedModel, budget_tokens: int, **options: Any) -> None:
        super().__init__(loaded, budget_tokens=budget_tokens, **options)
        self.slow_path = 0.0
        self._random = random.Random(1)
        self._scripts: dict[int, list[int]] = {}
        for mode in self.modes:
            mode.learns = False
        end = min(self._ending.ids)
        seeds = grammar(self.encode, end, responds=False)
        drafted = [*self.modes[0].draft.tokens, end]
        self._fast, self._slow = drafted, [tokens for tokens, _ in seeds if tokens[: len(drafted)] != drafted]

    def _choices(self, rows: Sequence[PromptRow], likeliest: Ints) -> Ints:
        chosen = np.broadcast_to(np.array(self._fast), likeliest.shape).copy()
        for i, row in enumerate(rows):
            if self.slow_path and self._random.random() < self.slow_path:
                script = self._scripts[id(row)] = self._random.choice(self._slow)
                chosen[i, : len(script)] = script[: chosen.shape[1]]
        return chosen

    def _choice(self, row: PromptRow, begun: Sequence[int], likeliest: int) -> int:
        script = self._scripts[id(row)]
        token = script[len(begun)]
        if len(begun) + 1 == len(script):
            del self._scripts[id(row)]
        return token


def random_model(name: str, tokenizer_folder: str, device: str, dtype: str, quantized: str = "none") -> LoadedModel:
    """Build a network of the given shape with random weights, with a tokenizer and template from a folder or `demo`."""
    tokenizer = tokenizer_of(tokenizer_folder)
    on = torch.device(device)
    network = _network(name, tokenizer, on, dtype)
    if quantized != "none":
        quantize(network, quantized, on)
    identity = Model(f"random-{name}", "1", "none", is_demo=True)
    return LoadedModel(network, tokenizer, prompter_of(tokenizer), on, identity, POSITIONS, quantized != "none")


def random_policy_model(name: str, tokenizer_folder: str, device: str, dtype: str, layers: int | None = None) -> LoadedModel:
    """Do the same for a model that judges by a policy, cut to some layers. Its template is a family's, or else `RULES`."""
    tokenizer = tokenizer_of(tokenizer_folder)
    family = family_of(tokenizer)
    if family is None or family.grammar is None:
        tokenizer.chat_template = RULES
        family = family_of(tokenizer)
    if family is None or family.grammar is None:
        raise ConfigurationError(
            f"the template of {tokenizer_folder!r} is of no family that judges by a policy: see docs/custom-policies.md."
        )
    on = torch.device(device)
    network = _network(name, tokenizer, on, dtype, **({} if layers is None else {"num_hidden_layers": layers}))
    grammar = family.grammar
    identity = Model(f"random-{name}", "1", "none", True, "policy", grammar.labels, grammar.neutral)
    return LoadedModel(network, tokenizer, prompter_of(tokenizer), on, identity, POSITIONS, family=family)


def _network(name: str, tokenizer: Any, on: torch.device, dtype: str, **changed: Any) -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM  # noqa: PLC0415 - takes seconds to import

    torch.manual_seed(1)
    default = torch.get_default_dtype()
    torch.set_default_dtype({"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[dtype])
    try:
        with on:
            config = Qwen3Config(**(COMMON | SHAPES[name] | changed), eos_token_id=tokenizer.eos_token_id)
            return Qwen3ForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(default)
