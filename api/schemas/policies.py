"""Policies, lists and policies for prompts: versions, checks, and what they would or did decide."""

from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from api.schemas.base import Answer, Page, UnixTime, may_lack
from api.schemas.verdicts import ActionWord

Texts = Annotated[int, Field(description="How many texts.")]
Actions = dict[ActionWord, Texts]


class PolicySummary(Answer):
    """A version of a policy, without its document."""

    id: str = Field(description="As `name@version`.")
    object: Literal["policy"]
    version: int
    active: bool
    created_at: UnixTime
    name: str
    shadow: bool
    rules: int


class PolicyVersion(PolicySummary):
    """A version of a policy."""

    document: dict[str, Any]
    unknown_lists: list[str] | SkipJsonSchema[None] = may_lack("Lists that it asks for and that are not stored.")
    unknown_detectors: list[str] | SkipJsonSchema[None] = may_lack("Detectors that it asks for and that no worker has ever served.")


class ActivatedPolicy(PolicySummary):
    """A version that is applied from now on."""

    replaced: str | None
    unknown_lists: list[str]
    unknown_detectors: list[str]


class PolicyPage(Page[PolicySummary]):
    """Versions, newest first, and those that are applied."""

    active: str | None
    shadow: str | None


class PolicyCheck(Answer):
    """A policy without a fault."""

    object: Literal["policy.check"]
    valid: Literal[True]
    name: str
    shadow: bool
    rules: int


class Example(Answer):
    """A text whose action would change."""

    job: str | None
    seq: int
    old: str
    new: str


class PolicyTest(Answer):
    """What a policy would change; add the counts of all answers up until one is `complete`."""

    object: Literal["policy.test"]
    texts: Texts
    changed: Texts
    actions: Actions
    rules: dict[str, Texts]
    matrix: dict[str, dict[str, Texts]] = Field(description="By the action in force, `none` if there is none: by the new action.")
    by_language: dict[str, list[int]] = Field(description="Texts, and how many of them change.")
    by_source: dict[str, list[int]]
    by_category: dict[str, list[int]]
    before_after: dict[str, dict[str, dict[str, dict[str, Texts]]]]
    examples: list[Example]
    review_hours: float
    seconds: float
    labelled: dict[str, Any] | None = Field(description="What labels say of both: docs/labels.md.")
    complete: bool
    next: str | None


class Redecision(Answer):
    """How far a policy has decided again."""

    object: Literal["redecision"]
    policy: str
    active: bool
    texts: Texts
    texts_left: int
    shards_without_verdicts: int
    complete: bool


class PromptPolicy(Answer):
    """A version of a policy for prompts."""

    id: str
    object: Literal["prompt_policy"]
    name: str
    version: int
    created_at: UnixTime
    text: str


class PromptPolicyPage(Page[PromptPolicy]):
    """Versions, newest first."""


class ListVersion(Answer):
    """A version of a list, without its entries."""

    id: str
    object: Literal["list.version"]
    name: str
    version: int
    entries: int
    active: bool
    created_at: UnixTime


class ActivatedList(ListVersion):
    """A version that is looked for from now on."""

    replaced: str | None


class ListPage(Page[ListVersion]):
    """Versions, newest first."""


class ListCheck(Answer):
    """A list without a fault."""

    object: Literal["list.check"]
    valid: Literal[True]
    entries: int


class ListHit(Answer):
    """How often an entry was found."""

    entry: str
    texts: Texts
    last_day: Annotated[str, Field(json_schema_extra={"format": "date"})]


class ListHits(Answer):
    """How often each entry of a version was found."""

    object: Literal["list.hits"]
    id: str
    data: list[ListHit]
    n_never: int
    never: list[str]
