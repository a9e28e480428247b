"""The verdict: the answer for one text, and the names that every part of guardfleet uses for it.

Standard library only: the engine runs on machines that have none of guardfleet's other dependencies.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum, IntFlag
from typing import Any


class Severity(IntEnum):
    """How harmful a text is; stored as its number.

    `ERROR` and `UNRATED` are not severities but the lack of one, and never safe: no verdict could be given, or none was asked for,
    as the job names detectors without the guard.
    """

    SAFE = 0
    CONTROVERSIAL = 1
    UNSAFE = 2
    ERROR = 3
    UNRATED = -1

    @property
    def label(self) -> str:
        """The name in files, URLs and metrics: `safe`, `controversial`, `unsafe`, `error`, `unrated`."""
        return self.name.lower()


class Category(IntFlag):
    """Qwen3Guard's categories as bits; `CATEGORY_NAMES` has the spelling that the model prints."""

    NONE = 0
    VIOLENT = 1
    ILLEGAL = 2
    SEXUAL = 4
    PII = 8
    SELF_HARM = 16
    UNETHICAL = 32
    POLITICAL = 64
    COPYRIGHT = 128
    JAILBREAK = 256


CATEGORY_NAMES: Mapping[Category, str] = {
    Category.VIOLENT: "Violent",
    Category.ILLEGAL: "Non-violent Illegal Acts",
    Category.SEXUAL: "Sexual Content or Sexual Acts",
    Category.PII: "PII",
    Category.SELF_HARM: "Suicide & Self-Harm",
    Category.UNETHICAL: "Unethical Acts",
    Category.POLITICAL: "Politically Sensitive Topics",
    Category.COPYRIGHT: "Copyright Violation",
    Category.JAILBREAK: "Jailbreak",
}
PLAIN_BITS = [(int(bit), name) for bit, name in CATEGORY_NAMES.items()]  # `&` of a Flag takes twenty times as long as of integers
CATEGORY_CHOICES = ("None", *CATEGORY_NAMES.values())  # the model's choices for the first category, in column order


class ServedBy(IntEnum):
    """What produced a verdict; stored as its number."""

    MODEL = 0
    CACHE = 1  # an earlier verdict of the same tenant, model revision and policy
    DUPLICATE = 2  # the same text elsewhere in the same job
    RULE_EMPTY = 3  # nothing to judge: empty or blank
    NOBODY = 4  # no verdict could be given, or none was asked for
    LIST = 5  # an entry of a list of the tenant, without a model

    @property
    def label(self) -> str:
        """The name in files: `model`, `cache`, `duplicate`, `rule:empty`, `nobody`, `list`."""
        return "rule:empty" if self is ServedBy.RULE_EMPTY else self.name.lower()


ERASED = "erased"
ERROR_CODES: Mapping[str, str] = {
    "unparsed": "the model's answer is not in its own grammar",
    "too_long": "the text is longer than may be judged",
    "invalid_conversation": "the messages cannot be judged as a conversation",
    "engine_failed": "the engine failed on this text",
    "abandoned": "its shard failed too often",
    ERASED: "its text was erased on request",
    "other_labels": "the second detector answers in other labels than the first",
    "policy_refused": "the detector does not judge by that policy, or by none",
    "unreadable_text": "most of it is nothing that the detector's model can read",
    "unreadable": "what is known of it makes no verdict that this version understands",
}


@dataclass(frozen=True, slots=True)
class Judgement:
    """The guard's answer for one text, before it is bound to a row.

    `probabilities` are P(safe), P(controversial), P(unsafe) at the label's position, summing to 1; None if no model ran.
    `raw` is the model's answer if it differs from `canonical_answer` of the other fields, or cannot be parsed; else None.
    `category_odds`: the probability of each of `CATEGORY_CHOICES` to be named first, given an answer that the text is unsafe in one
    of them, whatever the answer was; None if the tokenizer allows none.
    `evidence`: for long texts the windows, the one that decided, and what was left out (docs/long-texts.md); how many lines of
    the text look like turns (`role_labels`), and whether they were neutralised for the model; and `notes` on what was left out
    of the row.
    """

    severity: Severity
    categories: Category = Category.NONE
    refusal: bool | None = None
    served_by: ServedBy = ServedBy.MODEL
    probabilities: tuple[float, float, float] | None = None
    raw: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    error: str | None = None  # a key of ERROR_CODES, set exactly when severity is ERROR
    error_detail: str | None = None  # never holds the text
    category_odds: tuple[float | None, ...] | None = None
    evidence: Mapping[str, Any] | None = None


GUARD = "guard"  # the detector that gives severities and categories; every other one gives labels with scores


@dataclass(frozen=True, slots=True)
class Model:
    """The identity that a verdict is tied to. `policy`: a digest of what else decides the answer, as the template and its policy.

    `detector`: what it judges as. `labels`: of a detector other than the guard, in the order of its scores; `neutral` is the one of
    them that finds nothing, None if each label is found apart (several may hold of a text, or none). `prompt_policy`: whether it
    takes a policy in its prompt, a word of PROMPT_POLICY; None if a version wrote it that did not know.
    """

    name: str
    revision: str
    policy: str
    is_demo: bool = False
    detector: str = GUARD
    labels: tuple[str, ...] = ()
    neutral: str | None = None
    prompt_policy: str | None = "none"

    @property
    def label(self) -> str:
        """How verdicts name it: its name, and as much of its revision as tells two apart."""
        return f"{self.name}@{self.revision[:12]}"


PROMPT_POLICY = ("none", "optional", "required")
NOBODY = Model("nobody", "0", "none")  # of a text that no model has judged
NO_VERDICT = (Severity.ERROR, Severity.UNRATED)


def unrated() -> Judgement:
    """Return the judgement of a text that no guard was asked about."""
    return Judgement(Severity.UNRATED, served_by=ServedBy.NOBODY)


def failure(code: str, detail: str | None = None, *, served_by: ServedBy = ServedBy.NOBODY, **known: Any) -> Judgement:
    """Return an error judgement; `code` is a key of `ERROR_CODES`."""
    if code not in ERROR_CODES:
        raise KeyError(code)
    return Judgement(Severity.ERROR, served_by=served_by, error=code, error_detail=detail, **known)


def with_notes(judgement: Judgement, notes: Sequence[str]) -> Judgement:
    """Return the judgement with notes in its evidence on what of its row was left out."""
    return replace(judgement, evidence={**(judgement.evidence or {}), "notes": list(notes)}) if notes else judgement


def category_names(categories: Category) -> list[str]:
    """Return the names of the set bits in the model's spelling, in the policy's order."""
    bits = int(categories)
    return [name for bit, name in PLAIN_BITS if bits & bit]


def categories_of(names: Iterable[str]) -> Category:
    """Return the bits of category names. Raises KeyError for an unknown name."""
    bits = {name: bit for bit, name in CATEGORY_NAMES.items()}
    out = Category.NONE
    for name in names:
        out |= bits[name]
    return out
