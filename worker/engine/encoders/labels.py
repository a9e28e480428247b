"""A classifier's labels: their names in the order of its head, and which of them finds nothing. What is not known is refused.

Whether scores sum to 1 or each label is found apart is the model's own word (`problem_type`), never guessed from its labels.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from guardfleet.domain.detection import folded, why_no_label
from guardfleet.errors import ConfigurationError

NEUTRAL_NAMES = frozenset(  # `folded`: labels that say that nothing was found
    (
        *("safe", "benign", "human", "human_written", "neutral", "none", "clean", "ham", "normal", "legit", "legitimate"),
        *("acceptable", "appropriate", "ok", "other", "not_spam", "no_spam", "real"),
        *("non_toxic", "not_toxic", "nontoxic", "no_toxicity", "non_hate", "not_hate", "nothate", "no_hate", "not_offensive"),
        *("non_offensive", "no_injection", "not_injection", "no_attack", "no_jailbreak", "sfw", "not_harmful", "harmless"),
    )
)
UNNAMED = re.compile(r"label_?\d+|\d+", re.IGNORECASE)  # what transformers calls labels that nobody named
SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"
MENDS = "set GUARDFLEET_ENGINE__NEUTRAL_LABEL to the one that finds nothing"
SHOWN = 8  # labels in a message


class Labels(NamedTuple):
    """The names in the order of the head's outputs. `neutral`: as `domain.verdict.Model.neutral`."""

    names: tuple[str, ...]
    neutral: str | None


def labels_of(name: str, config: Any, n_outputs: int, neutral: str = "") -> Labels:
    """Return the labels of a model's config.json; `neutral`: the setting. Raises ConfigurationError, naming the model."""
    said = {int(index): str(label).strip() for index, label in dict(config.id2label or {}).items()}
    if sorted(said) != list(range(n_outputs)):
        raise ConfigurationError(
            f"model {name!r}: its head has {n_outputs} outputs, but id2label in its config.json names {_listed(sorted(said))}: "
            "name each output, from 0 on."
        )
    names = tuple(said[index] for index in range(n_outputs))
    problem = config.problem_type or SINGLE
    if problem not in (SINGLE, MULTI, REGRESSION):
        raise ConfigurationError(
            f"model {name!r}: problem_type in its config.json is {_listed([problem])}, which says nothing of its labels: make it "
            f"{SINGLE} if scores sum to 1, or {MULTI} if each label is found apart."
        )
    if n_outputs == 1 or problem == REGRESSION:
        raise ConfigurationError(
            f"model {name!r} gives a number instead of labels (regression): use a model that has at least two labels."
        )
    _require_names(name, names)
    _require_inverse(name, config, names)
    if problem == MULTI:
        _require_no_neutral(name, neutral)
        return Labels(names, None)
    return Labels(names, _neutral(name, names, neutral))


def _require_names(name: str, names: Sequence[str]) -> None:
    if unnamed := [label for label in names if not label or UNNAMED.fullmatch(label)]:
        raise ConfigurationError(
            f"model {name!r} does not name its labels ({_listed(unnamed)}): write what each of them means into id2label (and "
            f"label2id) of its config.json, as its author documents it, and {MENDS}."
        )
    for label in names:
        if why := why_no_label(label):
            raise ConfigurationError(f"model {name!r} has a label that {why} ({_listed([label])}): rename it in its config.json.")
    if len({label.casefold() for label in names}) < len(names):
        raise ConfigurationError(f"model {name!r} has two labels of one name ({_listed(names)}): rename one in its config.json.")


def _require_inverse(name: str, config: Any, names: Sequence[str]) -> None:
    """Refuse a label2id that contradicts id2label: the order of one of them is wrong, and nothing says which."""
    inverse = {str(label).strip(): int(index) for label, index in dict(config.label2id or {}).items()}
    wrong = [label for index, label in enumerate(names) if inverse.get(label, index) != index]
    if wrong:
        raise ConfigurationError(
            f"model {name!r}: id2label and label2id of its config.json disagree on {_listed(wrong)}: correct the one that is wrong."
        )


def _require_no_neutral(name: str, neutral: str) -> None:
    if neutral:
        raise ConfigurationError(
            f"model {name!r} finds each label apart, so none of them is neutral: unset GUARDFLEET_ENGINE__NEUTRAL_LABEL."
        )


def _neutral(name: str, names: Sequence[str], asked: str) -> str:
    found = [label for label in names if (label.casefold() == asked.casefold() if asked else folded(label) in NEUTRAL_NAMES)]
    if asked and not found:
        raise ConfigurationError(
            f"model {name!r} has no label {asked!r}, but {_listed(names)}: set GUARDFLEET_ENGINE__NEUTRAL_LABEL to one of them."
        )
    if len(found) != 1:
        several = f"several of its labels ({_listed(found)}) are called as if they found nothing"
        why = several if found else f"none of its labels ({_listed(names)}) is known by its name to find nothing"
        raise ConfigurationError(f"model {name!r}: {why}: {MENDS}.")
    return found[0]


def _listed(labels: Sequence[object]) -> str:
    shown = ", ".join(_shown(label) for label in labels[:SHOWN]) or "nothing"
    return shown + (f" and {len(labels) - SHOWN} more" if len(labels) > SHOWN else "")


def _shown(label: object) -> str:
    shown = str(label)[:40] or "''"
    return shown if shown.isprintable() else ascii(shown)
