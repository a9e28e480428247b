"""The document of a policy: ordered rules over what a verdict says, the first that fires decides (docs/policies.md).

Everything that a rule reads is stored with the verdict, so a policy can be applied to the past without a model.
"""

from collections.abc import Mapping
from enum import IntEnum
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from guardfleet.domain.decision import ActionName
from guardfleet.domain.detection import ENTRY
from guardfleet.domain.verdict import CATEGORY_NAMES, ServedBy, Severity

MOST_RULES = 200  # with the outcomes for other verdicts and for errors, the number of one fits a byte
MOST_TOKENS = 1_000_000_000
MOST_VALUES = 1000  # of one condition
WORD = r"^[A-Za-z0-9_.:-]{1,64}$"
LANGUAGE_KEYS = ("lang", "language")  # of a text's metadata, the first that there is
SOURCE_KEY = "source"  # of a text's metadata: where it comes from


class Action(IntEnum):
    """What to do with a text, mildest first; stored as its number."""

    ALLOW = 0
    FLAG = 1  # publish it, marked and logged
    REVIEW = 2  # a person decides
    BLOCK = 3

    @property
    def label(self) -> str:
        """The name in documents, files, URLs and metrics: `allow`, `flag`, `review`, `block`."""
        return self.name.lower()


SeverityName = Literal["safe", "controversial", "unsafe", "error", "unrated"]
JUDGED = ("safe", "controversial", "unsafe")
CategoryName = Literal[tuple(CATEGORY_NAMES.values())]  # type: ignore[valid-type]
ServedByName = Literal[tuple(one.label for one in ServedBy)]  # type: ignore[valid-type]
NUMBERS = (*JUDGED, "not_safe", *CATEGORY_NAMES.values())
ListName = Annotated[str, Field(pattern=WORD)]
LabelName = Annotated[str, Field(min_length=1, max_length=200)]
Scalar = str | int | float | bool | None


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _some(kind: Any) -> Any:
    """One or several values of a kind: `a` means `[a]`."""
    one_or_several = BeforeValidator(_listed, json_schema_input_type=kind | list[kind])
    return Annotated[list[kind], one_or_several, Field(min_length=1, max_length=MOST_VALUES)]


class Strict(BaseModel):
    """Refuses members that it does not know, values of another type, and a member without a value: it would condition nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _has_values(cls, given: Any) -> Any:
        if isinstance(given, dict) and (empty := [name for name, value in given.items() if value is None]):
            raise ValueError(f"{empty[0]} has no value: give one, or leave the line out")
        return given


class Range(Strict):
    """Bounds, at least one of which is given."""

    @model_validator(mode="before")
    @classmethod
    def _has_bounds(cls, given: Any) -> Any:
        if isinstance(given, dict) and not given:
            raise ValueError(f"it has no bounds: give {' or '.join(cls.model_fields)}")
        return given


class Bounds(Range):
    """From `at_least`, up to but without `below`; both between 0 and 1. Compared with the number as it is shown."""

    at_least: float = Field(0.0, ge=0.0, le=1.0)
    below: float | None = Field(None, ge=0.0, le=1.0)

    @model_validator(mode="after")
    def _is_not_empty(self) -> "Bounds":
        if self.below is None and self.at_least == 0:
            raise ValueError("every probability is at least 0: leave it out")
        if self.below is not None and self.below <= self.at_least:
            raise ValueError(f"no probability is at least {self.at_least:g} and below {self.below:g}")
        return self


class Tokens(Range):
    """The length of a text in tokens of its model, the policy's own left out."""

    at_least: int = Field(0, ge=0, le=MOST_TOKENS)
    at_most: int | None = Field(None, ge=0, le=MOST_TOKENS)

    @model_validator(mode="after")
    def _is_not_empty(self) -> "Tokens":
        if self.at_most is not None and self.at_most < self.at_least:
            raise ValueError(f"no text has at least {self.at_least} and at most {self.at_most} tokens")
        return self


class Detected(Range):
    """What a detector says: one of these labels or outcomes (`unlabelled`, `too_short`, `error`), and scores within bounds.

    Where the detector could not say, nobody knows whether it holds; of a text whose job did not ask it, it does not.
    `custom/no-refunds` is the newest version of that policy which the job asked for, `custom/no-refunds@2` that version alone,
    `custom` what it says without a policy.
    """

    label: _some(LabelName) | None = None  # type: ignore[valid-type]
    scores: dict[LabelName, Bounds] = Field(default_factory=dict, max_length=MOST_VALUES)


class When(Strict):
    """Conditions, all of which must hold; of several values in one, any. Without conditions it always holds, except for errors.

    For a text without a verdict it holds only where `severity` names `error`; for one that the guard was not asked about, where it
    names `unrated`, or where `detectors` are read and `severity` is not.
    """

    severity: _some(SeverityName) | None = None  # type: ignore[valid-type]
    category: _some(CategoryName) | None = None  # type: ignore[valid-type]
    probability: dict[str, Bounds] = Field(default_factory=dict)
    refusal: bool | None = None
    served_by: _some(ServedByName) | None = None  # type: ignore[valid-type]
    tokens: Tokens | None = None
    language: _some(str) | None = None  # type: ignore[valid-type]
    metadata: dict[str, _some(Scalar)] = Field(default_factory=dict)  # type: ignore[valid-type]
    lists: _some(ListName) | None = None  # type: ignore[valid-type]
    detectors: dict[Annotated[str, Field(pattern=rf"^{ENTRY.pattern}$")], Detected] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _names_are_known(self) -> "When":
        if unknown := [name for name in self.probability if name not in NUMBERS]:
            raise ValueError(f"probability {unknown[0]!r} is unknown; use one of {', '.join(NUMBERS)}")
        return self

    @property
    def severities(self) -> frozenset[Severity]:
        """The severities for which it can hold."""
        named = self.severity or ((*JUDGED, "unrated") if self.detectors else JUDGED)
        return frozenset(Severity[name.upper()] for name in named)

    @cached_property
    def listed(self) -> Mapping[tuple[str, ...], frozenset[str]]:
        """The values of each condition that has some, as they are written: `7` and `"7"` are two."""
        lists: dict[tuple[str, ...], list[Any] | None] = {("metadata", name): values for name, values in self.metadata.items()}
        lists |= {("category",): self.category, ("served_by",): self.served_by, ("language",): self.language}
        lists |= {("lists",): self.lists}
        return {name: frozenset(map(repr, values)) for name, values in lists.items() if values is not None}


class Rule(Strict):
    """What to do, and when. `reason` is a code of the owner's, told with the decision, as `labels` are."""

    id: str = Field(pattern=WORD)
    when: When = Field(default_factory=When)
    action: ActionName
    reason: str | None = Field(None, pattern=WORD)
    labels: list[Annotated[str, Field(pattern=WORD)]] = Field(default_factory=list, max_length=20)


class Policy(Strict):
    """A policy as its owner writes it. The store gives it a version; `shadow`: its decisions are recorded, and nobody is told them.

    `default` is for a verdict for which no rule fires, `errors` for a text without one: none could be given, or none was asked for.
    """

    name: str = Field(pattern=WORD)
    description: str = Field("", max_length=2000)
    shadow: bool = False
    default: ActionName
    errors: ActionName = "review"
    allow_errors: bool = False  # an error may be allowed only where this is said
    rules: list[Rule] = Field(default_factory=list, max_length=MOST_RULES)

    @property
    def lists(self) -> list[str]:
        """The names of lists that its rules ask for."""
        return sorted({name for rule in self.rules for name in rule.when.lists or ()})

    @property
    def detectors(self) -> list[str]:
        """The names of detectors that its rules read."""
        return sorted({name for rule in self.rules for name in rule.when.detectors})
