"""The options of a job. Command line, HTTP, clients and the INSERT are all made from this one model.

A new option is one field here and one column of the table `job`.
"""

import inspect
import pathlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, LiteralString, Self

import pydantic
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from guardfleet.domain.plan import DEFAULT_PLAN, NAME_CHARS, Plan, cascades_of, detectors_of
from guardfleet.domain.verdict import GUARD
from guardfleet.errors import RejectedError

PRIORITIES = range(-100, 101)
WINDOW = r"^[1-9][0-9]{0,3}[mhd]$"
UNITS_S = {"m": 60, "h": 3600, "d": 86_400}
MOST_RETENTION_HOURS = 8760
BEYOND_SCHEMA = "beyond_schema"  # type of an error that no JSON schema can tell beforehand: over HTTP 400, not 422
# Option names before 0.2, accepted for one more version. The columns and the resume keys still use them.
OLD_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "strict": "all_or_nothing",
        "second_model": "escalate_to",
        "sure": "confidence_threshold",
        "sample": "audit_fraction",
        "reuse": "use_cache",
        "purge_hours": "text_retention_hours",
    }
)


@dataclass(frozen=True)
class Stored:
    """Marks an option with its column in the table `job`."""

    column: str


def _whole(value: object) -> object:
    if isinstance(value, bool):
        raise PydanticCustomError("int_type", "a boolean is not a number")
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _or_else(kind: LiteralString, sentence: LiteralString, **context: object) -> WrapValidator:
    """Return a validator that says this one sentence, whatever of a value is wrong."""

    def checked(value: object, check: ValidatorFunctionWrapHandler) -> object:
        try:
            return check(value)
        except ValidationError:
            raise PydanticCustomError(kind, sentence, context) from None

    return WrapValidator(checked)


def _named(value: object) -> object:
    """Accept names in a list or joined by commas; the guard alone is the same as none."""
    if value is None:
        return None
    names = _listed(value, detectors_of, otherwise="detectors are names, such as guard and ai-text")
    return None if names == [GUARD] else names


def _escalated(value: object) -> object:
    """Accept second detectors in a list or joined by commas."""
    if value is None or value == []:
        return None
    return _listed(
        value,
        cascades_of,
        otherwise="second detectors are named as ai-text=ai-text-large@0.8",
    )


def _listed(value: object, check: Callable[[Sequence[str]], Sequence[str]], *, otherwise: LiteralString) -> list[str]:
    """Return what `check` makes of names in a list or joined by commas; `otherwise`: what is said if they are neither."""
    parts = [value] if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise PydanticCustomError("names", otherwise)
    try:
        return list(check([name.strip() for part in parts for name in part.split(",")]))
    except ValueError as error:
        raise PydanticCustomError(BEYOND_SCHEMA, "{reason}", {"reason": str(error)}) from None


A_PRIORITY = _or_else(
    "priority", "a priority must be a whole number from {least} to {most}", least=PRIORITIES[0], most=PRIORITIES[-1]
)
A_WINDOW = _or_else("window", "a time is a whole number up to 9999 with its unit m, h or d: 90m, 24h or 7d")
# A JSON number without a fraction is an integer, however it is written; a boolean is not. Must follow the field's limits.
WHOLE = BeforeValidator(_whole)
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=NAME_CHARS)]


OF_THE_MODEL = (__file__, str(pathlib.Path(pydantic.__file__).parent))  # files between whoever makes options and the validators


def _callers_level() -> int:
    """Return the stack level of whoever makes options: a warning that points into pydantic is shown to nobody."""
    frame, level = inspect.currentframe(), 0
    while frame is not None and (frame.f_code.co_filename.startswith(OF_THE_MODEL)):
        frame, level = frame.f_back, level + 1
    return level


class JobOptions(BaseModel):
    """How a job is to be run. Immutable; an unknown name or a value out of bounds raises pydantic's ValidationError."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    warns: ClassVar[bool] = True  # about old names; faces with a warning of their own turn it off

    name: Annotated[str, StringConstraints(max_length=200), Stored("name")] = Field(default="texts", description="Name of the job.")
    interactive: Annotated[bool, Stored("lane")] = Field(
        default=False, description="Run before all bulk work: for a few texts that somebody waits for."
    )
    all_or_nothing: Annotated[bool, Stored("strict")] = Field(
        default=False, description="Fail the whole job at the first unusable line; nothing is judged before every line was read."
    )
    model: Annotated[ModelName | None, Stored("first_model")] = Field(
        default=None, description="Let only this model judge the job, by the name that verdicts give it."
    )
    escalate_to: Annotated[ModelName | None, Stored("second_model")] = Field(
        default=None, description="Second model, which judges again the texts that the first is unsure of."
    )
    confidence_threshold: Annotated[float, Stored("sure")] = Field(
        default=DEFAULT_PLAN.sure,
        gt=0,
        le=1,
        description="Accept the first model's verdict from this probability of its severity on.",
    )
    audit_fraction: Annotated[float, Stored("sample")] = Field(
        default=DEFAULT_PLAN.sample,
        ge=0,
        le=1,
        description="Share of the remaining texts that the second model judges too, for comparison.",
    )
    long_texts: Annotated[Literal["windows", "head", "tail", "ends"] | None, Stored("long_texts")] = Field(
        default=None, description="Judge all windows of a text that is longer than one, or only its head, tail or ends."
    )
    detectors: Annotated[
        list[str] | None, BeforeValidator(_named, json_schema_input_type=list[str] | str | None), Stored("detectors")
    ] = Field(
        default=None,
        description="Who judges: guard, ai-text, custom/POLICY by a policy, joined by commas; by default the guard alone.",
    )
    detector_cascades: Annotated[
        list[str] | None,
        BeforeValidator(_escalated, json_schema_input_type=list[str] | str | None),
        Stored("detector_cascades"),
    ] = Field(
        default=None,
        description="Second detectors for texts that a detector is unsure of, as ai-text=ai-text-large@0.8, joined by commas; "
        "without a number, confidence_threshold applies.",
    )
    priority: Annotated[int, Field(ge=PRIORITIES.start, le=PRIORITIES.stop - 1), WHOLE, A_PRIORITY, Stored("priority")] = Field(
        default=0, description="Order among your jobs of the same lane, -100 to 100; higher runs first."
    )
    use_cache: Annotated[bool, Stored("reuse")] = Field(
        default=True, description="Reuse verdicts of your other jobs for equal texts."
    )
    text_retention_hours: Annotated[float | None, Stored("purge_hours")] = Field(
        default=None, ge=0, le=MOST_RETENTION_HOURS, description="Delete the texts this many hours after the job ended."
    )
    completion_window: Annotated[
        Annotated[str, StringConstraints(pattern=WINDOW)] | None, A_WINDOW, Stored("completion_window")
    ] = Field(default=None, description="Expire the job after this time: minutes, hours or days, such as 90m, 24h or 7d.")
    callback_url: Annotated[str, StringConstraints(max_length=2000)] | None = Field(
        default=None, description="URL that receives a signed webhook when the job ends."
    )
    metadata: Annotated[dict[str, Any] | None, Stored("metadata")] = Field(
        default=None, description="Metadata of the job, returned with it and in its webhooks."
    )
    webhook_metadata: Annotated[dict[str, Any] | None, Stored("webhook_metadata")] = Field(
        default=None, description="Metadata for webhooks, in place of `metadata`."
    )

    @classmethod
    def of(cls, **given: Any) -> Self:
        """Build options from values that a person typed. Raises RejectedError that names the first wrong one."""
        try:
            return cls(**given)
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0]) if first["loc"] else None
            raise RejectedError(f"{name or 'an option'} cannot be {first['input']!r}: {first['msg']}.", param=name) from None

    @model_validator(mode="before")
    @classmethod
    def _under_old_names(cls, given: Any) -> Any:
        """Accept options under their old names; refuse an option that is given under both."""
        if not isinstance(given, Mapping) or not (old := OLD_NAMES.keys() & given.keys()):
            return given
        if twice := next((name for name in old if OLD_NAMES[name] in given), None):
            raise PydanticCustomError(BEYOND_SCHEMA, f"{twice} is the old name of {OLD_NAMES[twice]}: give only one of them")
        for name in old if cls.warns else ():
            warnings.warn(f"{name} is deprecated: use {OLD_NAMES[name]}", DeprecationWarning, stacklevel=_callers_level())
        return {OLD_NAMES.get(name, name): value for name, value in given.items()}

    @property
    def plan(self) -> Plan:
        """How the job is judged, as workers read it. `Plan.check` checks what a single field cannot tell."""
        return Plan(
            self.model,
            self.escalate_to,
            self.confidence_threshold,
            self.audit_fraction,
            self.long_texts,
            tuple(self.detectors or [GUARD]),
            tuple(self.detector_cascades or ()),
        )

    @property
    def window_s(self) -> float | None:
        """Seconds until the job expires; None: never."""
        window = self.completion_window
        return None if window is None else float(int(window[:-1]) * UNITS_S[window[-1]])

    def stored(self) -> dict[str, Any]:
        """Return the value of each column of the table `job`."""
        return {column: getattr(self, name) for name, column in COLUMNS.items()}

    def under_old_names(self) -> dict[str, Any]:
        """Return all options but the name under their old names, which resume keys are made of: those outlive releases.

        Options that came later are left out where they are not given.
        """
        new = {new: old for old, new in OLD_NAMES.items()}
        late = {name for name in ("detectors", "detector_cascades") if getattr(self, name) is None}
        return {new.get(name, name): getattr(self, name) for name in type(self).model_fields if name not in {"name", *late}}


COLUMNS: Mapping[str, str] = MappingProxyType(
    {name: mark.column for name, field in JobOptions.model_fields.items() for mark in field.metadata if isinstance(mark, Stored)}
)
