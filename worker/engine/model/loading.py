"""Load a model from a folder or the hub, checked before it is trusted: every failure is one sentence with cause and fix."""

import functools
import hashlib
import json
import logging
import pathlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers

from guardfleet.domain.verdict import GUARD, Model
from guardfleet.errors import ConfigurationError, NoRoomError
from worker.engine.device import has_bf16_units
from worker.engine.families.detector import labels_as
from worker.engine.families.family import Family, family_of
from worker.engine.model.decoding_rules import require_greedy, require_readable
from worker.engine.model.memory import Plan, Precision, device_of, plan_for
from worker.engine.model.model_files import DEMO, folder_of, name_of
from worker.engine.model.quantize import ARITHMETIC, quantize
from worker.engine.model.quantize import require as require_eight_bits
from worker.engine.model.source import Source, detach, quiet, sentence, translating
from worker.engine.model.vocabulary import require_reading, require_vocabulary
from worker.engine.model.weights import (
    require_complete,
    require_finite,
    require_safe,
    require_servable,
    require_stored,
    require_wide,
)
from worker.engine.prompting.prompt import POLICY, Content, InvalidConversationError, Prompter, Turns, messages_of
from worker.engine.rendering import MAX_NEW_TOKENS

PROBES: tuple[Content, ...] = (  # what byte-level tokenizers join, split or normalise, on both sides of a cut
    "hi",
    " hi ?",
    "Is it so?\n",
    "\n\nx",
    "e\u0301a, \u6f22\u5b57 1234",
    "\r\n:\t",
    [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "no!"}],
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b\n"}, {"role": "user", "content": " c"}],
)
POLICY_PROBE: Turns = ((POLICY, " 1. No text about ships?\n"),)
PROMPTING = "2"  # how contents become tokens: raised with each change, so that verdicts cached under another way are not reused
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class LoadedModel:
    """Weights on their device, and everything derived from the model's own tokenizer and template."""

    network: Any  # a transformers causal LM in eval mode
    tokenizer: Any
    prompter: Prompter
    device: torch.device
    identity: Model
    max_positions: int
    is_quantized: bool = False
    plan: Plan | None = None  # of the device's memory, if it could be made
    family: Family = field(default_factory=lambda: Family("qwen3guard"))


def load(
    name: str,
    *,
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "float32",
    threads: int = 0,
    quantized: str = "none",
    memory: pathlib.Path | None = None,
    neutralises: bool = True,
    detector: str = GUARD,
    neutral: str = "",
) -> LoadedModel:
    """Load `name` (`demo`, a folder, or a hub name), `quantized` to int8 or fp8 if asked for. Raises ConfigurationError.

    `dtype`: `auto` is bf16 if the device has units for it. `memory`: folder that remembers digests of model files;
    `neutralises`: as in `Prompter`. `detector` and `neutral`: as `Spec.detector` and `Spec.neutral_label`.
    """
    quiet()
    if threads:
        torch.set_num_threads(threads)
    source = Source.of(name, revision=revision, memory=memory, require_sound=require_sound)
    config = source.config(functools.partial(require_servable, name))
    on = device_for(device, quantized)
    as_type = DTYPES[dtype if dtype != "auto" else dtype_for(on, quantized)]
    plan = plan_for(name, config, Precision(str(as_type).removeprefix("torch."), quantized), device_of(on))
    pinned = source.pinned()
    tokenizer, network, report = pinned.read(transformers.AutoModelForCausalLM, as_type)
    with source.reading():
        require_guard(name, network, tokenizer)
    require_complete(name, report)
    require_finite(name, network)
    network = _placed(name, network, on, quantized)
    pinned.require_unchanged()
    is_quantized = quantized != "none"
    family = family_of(tokenizer) or Family("qwen3guard")
    labels, nothing = labels_as(name, family, detector, neutral)
    identity = Model(
        name_of(name),
        f"{quantized}:{pinned.revision}" if is_quantized else pinned.revision,  # other numbers, other verdicts
        _policy_of(tokenizer, neutralises=neutralises, is_quantized=is_quantized),
        is_demo=name == DEMO or bool(getattr(network.config, "guardfleet_demo", False)),
        detector=detector,
        labels=labels,
        neutral=nothing,
        prompt_policy="none" if not family.takes_policy else "optional" if family.is_complete else "required",
    )
    positions = int(network.config.max_position_embeddings)
    with source.reading():
        prompter = prompter_of(tokenizer, neutralises=neutralises)
        _require_room(name, prompter, positions)
    return LoadedModel(network, tokenizer, prompter, on, identity, positions, is_quantized, plan, family)


def _placed(name: str, network: Any, on: torch.device, quantized: str) -> Any:
    """Move the network to its device, in eight bits if asked for, and detach it from its files."""
    try:
        network = network.eval()
        if quantized != "none":
            quantize(network, quantized, on)
        network = network.to(on)
        detach(network)
    except torch.OutOfMemoryError as error:
        raise NoRoomError(f"model {name!r} does not fit in the memory of {on}: use a smaller model or another device.") from error
    return network


def _require_room(name: str, prompter: Prompter, positions: int) -> None:
    least = len(prompter.encode([messages_of("a")])[0].ids) + MAX_NEW_TOKENS
    if least > positions:
        raise ConfigurationError(
            f"model {name!r} has {positions} positions (max_position_embeddings); its policy, a word and an answer need {least}."
        )


def _policy_of(tokenizer: Any, *, neutralises: bool, is_quantized: bool) -> str:
    """Return a digest of the template, of how texts are put into it, and of the arithmetic if it is not the model's own."""
    parts = [str(tokenizer.chat_template), PROMPTING, f"neutralises={neutralises}"]
    if is_quantized:
        parts.append(f"eight_bits={ARITHMETIC}")
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def tokenizer_of(name: str) -> Any:
    """Return the tokenizer and chat template of `demo`, a folder (which needs no more than these), or a hub name.

    Raises ConfigurationError.
    """
    quiet()
    folder = pathlib.Path(name).expanduser()
    where = folder if name != DEMO and folder.is_dir() else folder_of(name) or name
    with translating(name, ""):
        return transformers.AutoTokenizer.from_pretrained(str(where))


def prompter_of(tokenizer: Any, *, neutralises: bool = True) -> Prompter:
    """Return a prompter on clones of the tokenizer's core, so that nobody else's padding or truncation settings reach it.

    The clone for contents has no added tokens. A setting could spell out those marked `special`, but not `<think>`.
    """
    from tokenizers import Tokenizer  # noqa: PLC0415 - comes with transformers; not needed to read this module

    core = tokenizer.backend_tokenizer.to_str()
    control = Tokenizer.from_str(core)
    plain = Tokenizer.from_str(json.dumps(json.loads(core) | {"added_tokens": []}))
    added = tokenizer.added_tokens_decoder
    for found in plain.encode_batch([str(token) for token in added.values()], add_special_tokens=False):
        if not added.keys().isdisjoint(found.ids):
            raise ConfigurationError("the model's tokenizer cannot spell out its control tokens, so a text could end the prompt.")
    for clone in (plain, control):
        clone.no_padding()
        clone.no_truncation()
    probes = [messages_of(probe) for probe in PROBES]
    template = (family_of(tokenizer) or Family("qwen3guard")).template
    if template is None:
        made = Prompter(
            functools.partial(tokenizer.apply_chat_template, tokenize=False), plain=plain, control=control, neutralises=neutralises
        )
    else:
        labels, trims = template.labels(), template.trims()
        made = Prompter(template, plain=plain, control=control, neutralises=neutralises, labels=labels, trims=trims)
        probes = _shown([*probes, *((*POLICY_PROBE, *probe) for probe in probes)], made)
    if not made.check(probes):
        logging.getLogger(__name__).warning("prompt_fallback: this tokenizer joins text and template; whole prompts are tokenised")
    return made


def _shown(probes: Sequence[Turns], prompter: Prompter) -> list[Turns]:
    """Return the conversations that the template shows whole."""
    out = []
    for probe in probes:
        with suppress(InvalidConversationError):
            out.append(prompter.shown_whole(probe))
    return out


def device_for(device: str, quantized: str = "none") -> torch.device:
    """Return the device that a setting names. Raises ConfigurationError if it does not exist or cannot compute `quantized`."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigurationError("device is set to cuda, but torch sees no GPU: check the driver, or set device to cpu.")
    try:
        found = torch.device(device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
        require_eight_bits(quantized, found)
    except (RuntimeError, AssertionError) as error:
        raise ConfigurationError(f"device {device!r} cannot be used: {sentence(error)}") from error
    return found


def dtype_for(device: torch.device, quantized: str = "none") -> str:
    """Return the dtype to compute in by default: the one that the device is fast at.

    With eight-bit products, a CPU's bf16 units have nothing to do (measured: 4 % slower than fp32, and less exact).
    """
    is_fast = device.type == "cuda" or (device.type == "cpu" and has_bf16_units() and quantized == "none")
    return "bfloat16" if is_fast else "float32"


def require_sound(name: str, folder: pathlib.Path) -> None:
    """Refuse files that the library would silently read wrongly or skip."""
    for require in (require_safe, require_stored, require_wide, require_vocabulary, require_readable):
        require(name, folder)


def require_guard(name: str, network: Any, tokenizer: Any) -> None:
    """Refuse a network, its generation settings, or a tokenizer that are not a guard's. Raises ConfigurationError."""
    ends = network.generation_config.eos_token_id
    if not all(end is None or type(end) is int for end in (ends if isinstance(ends, list) else [ends])):
        raise ConfigurationError(
            f"model {name!r}: eos_token_id in its generation_config.json is {ends!r}, which is not a token id or a list of them."
        )
    if getattr(network, "_hf_peft_config_loaded", False):
        raise ConfigurationError(f"model {name!r} has an adapter besides its weights: merge it into them.")
    if family_of(tokenizer) is None:
        raise ConfigurationError(f"model {name!r} has no guard chat template: without its policy, its answers would be noise.")
    if len(tokenizer) > network.config.vocab_size:
        raise ConfigurationError(
            f"model {name!r}: its tokenizer has {len(tokenizer)} entries, but its weights {network.config.vocab_size}."
        )
    require_reading(name, tokenizer, network.config.vocab_size)
    require_greedy(name, network.generation_config)
