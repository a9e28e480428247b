"""Models of every family that judges by a policy: random weights behind a real tokenizer, with templates of each family's shape."""

import copy
from typing import Any

import torch

from worker.engine.decoding.policy_runner import PolicyBackend
from worker.engine.families.detector import labels_as
from worker.engine.families.family import family_of
from worker.engine.model import loading
from worker.engine.model.loading import LoadedModel

RISKS = {"sec": "Safe-Safe", "dw": "Crimes-Weapons", "fin": "Advice-Finance", "med": "Advice-Medicine"}
RULES = """<|im_start|>system
Judge. Say PASS or FAIL.<|im_end|>
<|im_start|>user
<rules>
{{ policy }}
</rules>
<transcript>
{% for message in messages %}{{ "'Agent': " if message.role == "assistant" else "'User': " }}{{ message.content }}
{% endfor %}</transcript><|im_end|>
<|im_start|>assistant
<think>

</think>

"""
WORDS = """<|im_start|>user
Choose one of these.

# Category List
- sec: Safe
- dw: Weapons
{%- if policy is defined and policy %}

# Dynamic Policy
{{ policy | trim }}
{%- endif %}

# Instructions
{% if reason_first %}- Explain between <explanation> and </explanation> first.
{% else %}- Name the category, then explain between <explanation> and </explanation>.
{% endif %}
---

Input Text: {% if messages|length == 1 %}{{ messages[0].content | trim }}{% else %}[User Query] {{ messages[0].content | trim }}

[LLM Response] {{ messages[1].content | trim }}{% endif %}<|im_end|>
<|im_start|>assistant
<think>

</think>

"""
SHAPES = {"dynaguard": RULES, "xguard": WORDS}
TINY: dict[str, Any] = {
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "initializer_range": 0.2,  # with smaller weights, what a prefix says would not reach the logits
}


_MADE: dict[tuple[int, str], Any] = {}


def tokenizer_of_family(tokenizer: Any, family: str) -> Any:
    """The tokenizer with a template of a family; the same one each time, since its prompter takes seconds."""
    if (id(tokenizer), family) not in _MADE:
        _MADE[id(tokenizer), family] = copy_of_family(tokenizer, family)
    return _MADE[id(tokenizer), family]


def copy_of_family(tokenizer: Any, family: str) -> Any:
    """One to change."""
    made = copy.deepcopy(tokenizer)
    made.chat_template = SHAPES[family] + '{{ "" }}'  # a template's last line break is dropped
    if family == "xguard":
        made.init_kwargs["id2risk"] = RISKS
    return made


def random_of(tokenizer: Any, family: str, **shape: Any) -> LoadedModel:
    """A network of random weights, as `load` gives it."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(3)
    made = tokenizer_of_family(tokenizer, family)
    config = Qwen3Config(vocab_size=151_936, max_position_embeddings=4096, eos_token_id=made.eos_token_id, **(TINY | shape))
    return loaded_of(Qwen3ForCausalLM(config).eval(), made)


def loaded_of(network: Any, tokenizer: Any) -> LoadedModel:
    """A network with its tokenizer, as `load` gives them."""
    from guardfleet.domain.verdict import Model

    family = family_of(tokenizer)
    assert family is not None
    labels, neutral = labels_as("random", family, "policy", "")
    identity = Model("random", "1", "none", is_demo=True, detector="policy", labels=labels, neutral=neutral)
    positions = network.config.max_position_embeddings
    return LoadedModel(network, tokenizer, loading.prompter_of(tokenizer), torch.device("cpu"), identity, positions, family=family)


def backend_of(loaded: LoadedModel, **options: Any) -> PolicyBackend:
    """The backend, which takes the network apart."""
    assert loaded.family.grammar is not None
    return PolicyBackend(loaded, loaded.family.grammar, budget_tokens=8192, streams=1, **options)
