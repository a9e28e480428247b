"""A verdict as callers get it, over HTTP or directly."""

from typing import Any, NotRequired, TypedDict

from guardfleet.domain.decision import ActionName


class Probabilities(TypedDict):
    """Probability of each severity, 0 to 1."""

    safe: float
    controversial: float
    unsafe: float


class Tokens(TypedDict):
    """How many tokens the model read and wrote."""

    input: int
    output: int


class Failure(TypedDict):
    """Why there is no severity: a code, and a detail without any text of the row."""

    code: str
    detail: str | None


class Decision(TypedDict):
    """What a policy says to do with a text, which policy (`name@version`), and by which rule; no rule: by its default."""

    action: ActionName
    policy: str
    rule: str | None
    reason: str | None
    labels: list[str]


class Detection(TypedDict):
    """What a detector says: its label and the score of each, or why there is none (`outcome`: unlabelled, too_short, error)."""

    outcome: str
    label: str | None
    scores: dict[str, float] | None
    served_by: str
    model: str
    revision: str
    policy: str
    is_demo: bool
    evidence: dict[str, Any] | None
    error: Failure | None
    models_words: NotRequired[str]


class Verdict(TypedDict):
    """The answer for one text. `severity` is safe, controversial, unsafe or error: an error is never safe.

    `unrated`: the job did not ask the guard. `action` and `decision` are missing where no policy decided, `detections` where no
    detector was asked.
    """

    id: str
    severity: str
    categories: list[str]
    refusal: bool | None
    probabilities: Probabilities | None
    category_probabilities: dict[str, float] | None
    rationale: str
    evidence: dict[str, Any] | None
    served_by: str
    model: str
    revision: str
    policy: str
    is_demo: bool
    error: Failure | None
    raw: str | None
    tokens: Tokens
    done_at: str
    metadata: NotRequired[dict[str, Any]]
    action: NotRequired[ActionName]
    decision: NotRequired[Decision]
    detections: NotRequired[dict[str, Detection]]
