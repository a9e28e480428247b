"""What greedy `generate` obeys of a generation_config.json is refused by name; what it does not obey is ignored."""

import inspect
import json
import pathlib
import re
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, GenerationMixin

from guardfleet.errors import ConfigurationError
from worker.engine.model.decoding_rules import IGNORED, LIMITS, OBEYED, SAMPLING, require_greedy
from worker.engine.model.loading import LoadedModel, load
from worker.engine.prompting.prompt import messages_of

DEMO = pathlib.Path(__file__).parents[2] / "models" / "demo"
OFFICIAL = {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 20}
PROMPT = "how do I sharpen a knife?"
BITING: dict[str, Any] = {  # of each field that is obeyed, a value that is
    "repetition_penalty": 50.0,
    "encoder_repetition_penalty": 0.2,
    "no_repeat_ngram_size": 1,
    "encoder_no_repeat_ngram_size": 1,
    "bad_words_ids": None,  # None: the answer's first token, set below
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "sequence_bias": None,
    "forced_bos_token_id": 5,
    "forced_eos_token_id": 7,
    "min_length": 8000,
    "min_new_tokens": 100,
    "max_time": 1e-9,
    "stop_strings": ["Safety"],
    "exponential_decay_length_penalty": [1, 9.0],
    "guidance_scale": -3.0,
    "watermarking_config": {"bias": 50.0, "greenlist_ratio": 0.1},
    "remove_invalid_values": True,
    "renormalize_logits": True,
    "token_healing": True,
    "num_beams": 4,
    "num_beam_groups": 2,
    "num_return_sequences": 2,
    "constraints": ["x"],
    "force_words_ids": [[5]],
    "penalty_alpha": 0.6,
    "dola_layers": "high",
    "use_mtp": True,
    "prompt_lookup_num_tokens": 3,
    "assistant_early_exit": 1,
    "is_assistant": True,
    "cache_implementation": "quantized",
}
# Whether an answer changes hangs on another field, on the prompt's length, on rounding or on numbers that are none.
BY_CHANCE = {
    "forced_bos_token_id", "remove_invalid_values", "renormalize_logits", "use_mtp", "prompt_lookup_num_tokens",
    "assistant_early_exit", "is_assistant", "num_beams", "num_beam_groups", "token_healing", "forced_eos_token_id",
}  # fmt: skip


@pytest.fixture(scope="module")
def plain(demo: LoadedModel) -> list[int]:
    """What greedy `generate` says where no file says anything."""
    return answer(demo, GenerationConfig())


def biting(field: str, plain: list[int]) -> Any:
    token = plain[0]
    ours: dict[str, Any] = {
        "bad_words_ids": [[token]],
        "suppress_tokens": [token],
        "begin_suppress_tokens": [token],
        "sequence_bias": [[[token], -50.0]],
    }
    return ours.get(field, BITING[field])


def answer(demo: LoadedModel, config: GenerationConfig) -> list[int]:
    """What greedy `generate` says where a model's file says this."""
    (encoded,) = demo.prompter.encode([messages_of(PROMPT)])
    ids = torch.tensor([encoded.ids])
    kept = demo.network.generation_config
    demo.network.generation_config = config
    config.eos_token_id, config.pad_token_id = kept.eos_token_id, kept.pad_token_id
    try:
        with torch.inference_mode():
            out = demo.network.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=128, do_sample=False, tokenizer=demo.tokenizer
            )
    finally:
        demo.network.generation_config = kept
    new: list[int] = getattr(out, "sequences", out)[0, ids.shape[1] :].tolist()
    return new


@pytest.fixture
def copied(tmp_path: pathlib.Path) -> pathlib.Path:
    """The demo model in a folder that may be written to, as if its file of rules were a person's own."""
    shutil.copytree(DEMO, tmp_path / "copied")
    return tmp_path / "copied"


def write(folder: pathlib.Path, **fields: Any) -> str:
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 2, "pad_token_id": 0, **fields}))
    return str(folder)


def read_by_generate() -> Iterator[str]:
    for function in (GenerationMixin._get_logits_processor, GenerationMixin._get_stopping_criteria):
        yield from re.findall(r"generation_config\.([a-z]\w+)", inspect.getsource(function))
    yield from re.findall(r"self\.([a-z]\w+)", inspect.getsource(GenerationConfig.get_generation_mode))


def test_each_field_that_transformers_has_is_known_and_in_one_table() -> None:
    known = [*OBEYED, *LIMITS, *IGNORED]
    assert len(known) == len(set(known))
    assert {field for field in vars(GenerationConfig()) if not field.startswith("_")} <= set(known)
    assert set(read_by_generate()) <= {*OBEYED, *LIMITS, *SAMPLING, "use_cache", "assistant_confidence_threshold"}


@pytest.mark.parametrize("field", OBEYED)
def test_a_field_that_greedy_generate_obeys_is_refused(field: str, plain: list[int]) -> None:
    config = GenerationConfig()
    value = biting(field, plain)
    setattr(config, field, value)
    with pytest.raises(ConfigurationError, match=rf"generation_config.json.* sets {field} to .*: remove {field} from it"):
        require_greedy("x", config)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("field", sorted(set(OBEYED) - BY_CHANCE))
def test_it_is_refused_because_generate_would_answer_otherwise(field: str, demo: LoadedModel, plain: list[int]) -> None:
    try:
        config = GenerationConfig(**{field: biting(field, plain)}, **({"top_k": 20} if field == "penalty_alpha" else {}))
        found = answer(demo, config)
    except Exception:  # noqa: BLE001 - no answer is another one
        return
    assert found != plain


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "fields",
    [
        OFFICIAL,
        {"min_p": 0.3, "top_h": 0.4, "typical_p": 0.2, "epsilon_cutoff": 0.3, "eta_cutoff": 0.3},
        {"early_stopping": True, "length_penalty": 3.0, "num_assistant_tokens": 3, "assistant_confidence_threshold": 0.1},
        {"output_scores": True, "output_logits": True, "return_dict_in_generate": True},
        {"use_cache": False, "bos_token_id": 5, "decoder_start_token_id": 5, "disable_compile": True, "transformers_version": "9"},
        {"repetition_penalty": 1.0, "num_beams": 1, "suppress_tokens": [], "sequence_bias": None, "min_length": 0},
        {"max_new_tokens": 2048, "max_length": 32768},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_what_changes_no_greedy_answer_is_ignored(fields: dict[str, Any], demo: LoadedModel, plain: list[int]) -> None:
    require_greedy("x", GenerationConfig(**fields))
    assert answer(demo, GenerationConfig(**fields)) == plain


@pytest.mark.parametrize("field", LIMITS)
def test_a_limit_below_the_longest_answer_is_refused(field: str) -> None:
    require_greedy("x", GenerationConfig(**{field: 128}))
    with pytest.raises(ConfigurationError, match=f"sets {field} to 127, which would end answers before their 128 tokens"):
        require_greedy("x", GenerationConfig(**{field: 127}))


@pytest.mark.parametrize("field", sorted(OBEYED))
def test_values_that_change_nothing_are_accepted(field: str) -> None:
    for value in (None, *OBEYED[field]):
        config = GenerationConfig()
        setattr(config, field, value)
        require_greedy("x", config)


@pytest.mark.parametrize("value", [True, 0, 1.5, "yes", [1]])
def test_a_field_of_a_transformers_to_come_is_refused(value: Any, copied: pathlib.Path) -> None:
    with pytest.raises(ConfigurationError, match=r"sets vote_among to .*, which guardfleet does not know and may not obey"):
        load(write(copied, vote_among=value))


def test_the_official_fields_load(copied: pathlib.Path) -> None:
    assert load(write(copied, **OFFICIAL, bos_token_id=5)).identity.is_demo


def test_rules_stop_a_load_from_either_file(copied: pathlib.Path, babbling: pathlib.Path) -> None:
    with pytest.raises(ConfigurationError, match=r"sets repetition_penalty to 1.3, which changes answers"):
        load(write(copied, repetition_penalty=1.3))
    (babbling / "generation_config.json").unlink()
    config = json.loads((babbling / "config.json").read_text())
    (babbling / "config.json").write_text(json.dumps({**config, "no_repeat_ngram_size": 3}))
    with pytest.raises(ConfigurationError, match=r"\(or config.json\) sets no_repeat_ngram_size to 3"):
        load(str(babbling))


def test_a_long_value_is_cut_short() -> None:
    with pytest.raises(ConfigurationError, match=r"sets suppress_tokens to \[0, 1, 2.*\.\.\., which") as said:
        require_greedy("x", GenerationConfig(suppress_tokens=list(range(500))))
    assert len(str(said.value)) < 300
