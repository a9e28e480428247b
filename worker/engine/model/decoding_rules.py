"""Check a model's generation_config.json: nothing in it may be obeyed by greedy `generate` and ignored by the engine.

Verdicts are greedy, and the engine takes the largest logit as it is. A field that changes which token that is, or where an answer
ends, is refused by name; so is an unknown field, since a newer transformers may obey it.
"""

import json
import pathlib
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from transformers import GenerationConfig

from guardfleet.errors import ConfigurationError
from worker.engine.rendering import MAX_NEW_TOKENS

NOTHING: tuple[Any, ...] = ([], {})  # rules without content
OBEYED: Mapping[str, tuple[Any, ...]] = MappingProxyType(  # obeyed by greedy `generate`: values besides None that change no answer
    {
        "repetition_penalty": (1.0,),
        "encoder_repetition_penalty": (1.0,),
        "no_repeat_ngram_size": (0,),
        "encoder_no_repeat_ngram_size": (0,),
        "bad_words_ids": NOTHING,
        "suppress_tokens": NOTHING,
        "begin_suppress_tokens": NOTHING,
        "sequence_bias": NOTHING,
        "forced_bos_token_id": (),
        "forced_eos_token_id": (),
        "min_length": (0,),
        "min_new_tokens": (0,),
        "max_time": (),
        "stop_strings": ("", *NOTHING),
        "exponential_decay_length_penalty": (),
        "guidance_scale": (1.0,),
        "watermarking_config": (),
        "remove_invalid_values": (False,),
        "renormalize_logits": (False,),
        "token_healing": (False,),
        # other ways to choose than one greedy beam
        "num_beams": (1,),
        "num_beam_groups": (1,),
        "num_return_sequences": (1,),
        "constraints": NOTHING,
        "force_words_ids": NOTHING,
        "penalty_alpha": (0.0,),
        "dola_layers": (),
        "use_mtp": (False,),
        "prompt_lookup_num_tokens": (),
        "assistant_early_exit": (),
        "is_assistant": (False,),
        "cache_implementation": ("dynamic", "static", "offloaded", "offloaded_static"),  # not `quantized`: it changes the numbers
    }
)
LIMITS = ("max_length", "max_new_tokens")  # of the answer: callers of `generate` pass the engine's limit, which must not be longer
# The official model's file has do_sample, temperature, top_p and top_k. A sampled verdict is worthless: they are ignored on
# purpose, as greedy `generate` ignores them.
SAMPLING = ("do_sample", "temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")
BESIDE_OTHERS = (  # without effect except beside a refused field: of beams, of contrastive search, of assistants
    "early_stopping",
    "length_penalty",
    "diversity_penalty",
    "low_memory",
    "num_assistant_tokens",
    "num_assistant_tokens_schedule",
    "assistant_confidence_threshold",
    "assistant_lookbehind",
    "target_lookbehind",
    "assistant_ensemble_weight",
    "max_matching_ngram_size",
    "speculation_type",
    "cache_config",
)
OUTPUT = ("output_attentions", "output_hidden_states", "output_scores", "output_logits", "return_dict_in_generate")
MEANS = (  # how the same numbers are computed
    "use_cache",
    "max_cache_len",
    "prefill_chunk_size",
    "compile_config",
    "disable_compile",
    "continuous_batching_config",
)
TOKENS = ("eos_token_id", "pad_token_id", "bos_token_id", "decoder_start_token_id")  # the first two are obeyed here as well
IGNORED = frozenset((*SAMPLING, *BESIDE_OTHERS, *OUTPUT, *MEANS, *TOKENS, "transformers_version"))
LONGEST_SHOWN = 60  # characters of a value
FILE = "generation_config.json"


def require_readable(name: str, folder: pathlib.Path) -> None:
    """Raise ConfigurationError for a file that is not a JSON object: transformers treats an unreadable one as missing."""
    path = folder / FILE
    content = path.read_bytes() if path.is_file() else b"{}"
    try:
        is_object = isinstance(json.loads(content), dict)
    except ValueError:
        is_object = False
    if not is_object:
        found = "not a JSON object" if content.strip() else "empty"
        raise ConfigurationError(f"model {name!r}: its {FILE} is {found}: download the model's files again, or remove this one.")


def require_greedy(name: str, config: GenerationConfig) -> None:
    """Raise ConfigurationError for the first field that would make answers differ from the engine's, with name and value."""
    for field, value, why in _broken(config):
        shown = str(value) if len(str(value)) <= LONGEST_SHOWN else f"{str(value)[:LONGEST_SHOWN]}..."
        raise ConfigurationError(
            f"model {name!r}: its {FILE} (or config.json) sets {field} to {shown}, {why}: "
            f"remove {field} from it (the official model's file has none)."
        )


def _broken(config: GenerationConfig) -> Iterator[tuple[str, Any, str]]:
    """Yield each bad field, its value, and what is wrong with it."""
    defaults = vars(GenerationConfig())
    for field, value in vars(config).items():
        if value is None or field.startswith("_") or field in IGNORED or value == defaults.get(field):
            continue
        if field in LIMITS:
            if not isinstance(value, int) or value < MAX_NEW_TOKENS:
                yield field, value, f"which would end answers before their {MAX_NEW_TOKENS} tokens"
        elif field not in OBEYED:
            yield field, value, "which guardfleet does not know and may not obey"
        elif value not in OBEYED[field]:
            yield field, value, "which changes answers, but verdicts must be the model's own greedy ones"
