"""A verdict as callers get it, over HTTP and directly."""

from typing import Any, NotRequired, TypedDict


class Probabilities(TypedDict):
    """Of each severity, 0 to 1."""

    safe: float
    controversial: float
    unsafe: float


class Tokens(TypedDict):
    """What the model read and wrote for it."""

    input: int
    output: int


class Failure(TypedDict):
    """Why there is no severity: a code, and a detail that holds no text."""

    code: str
    detail: str | None


class Verdict(TypedDict):
    """What is known of one text. `severity` is safe, controversial, unsafe or error: an error is never safe."""

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
