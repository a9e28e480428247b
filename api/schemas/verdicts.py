"""Verdicts, moderations and detections."""

from typing import Annotated, Any, Literal

from pydantic import Field, create_model
from pydantic.json_schema import SkipJsonSchema

from api.openai.categories import CATEGORIES
from api.schemas.base import Answer, CodedReason, IsoTime, UnixTime, may_lack, one_of
from guardfleet.domain.detection import Outcome
from guardfleet.domain.states import BATCH_STATUS
from guardfleet.domain.verdict import CATEGORY_NAMES, ERROR_CODES, ServedBy, Severity
from guardfleet.policy.document import Action

SeverityWord = Annotated[str, one_of(severity.label for severity in Severity)]
CategoryWord = Annotated[str, one_of(CATEGORY_NAMES.values())]
ServedByWord = Annotated[str, one_of(by.label for by in ServedBy)]
ActionWord = Annotated[str, one_of(action.label for action in Action)]
Score = Annotated[float, Field(ge=0, le=1)]


class Probabilities(Answer):
    """How sure the model was of each severity; they add up to 1."""

    safe: Score
    controversial: Score
    unsafe: Score


class Decision(Answer):
    """What the policy in force says to do."""

    action: ActionWord
    policy: str = Field(description="The policy that decided, as `name@version`.")
    rule: str | None = Field(description="The rule of it; null: its default.")
    reason: str | None
    labels: list[str]


class Said(Answer):
    """What the guard said of a text, whatever row it is in."""

    severity: SeverityWord
    categories: list[CategoryWord]
    refusal: bool | None = Field(description="Whether the judged answer is a refusal; null where no answer was judged.")
    probabilities: Probabilities | None = Field(description="null: no model ran.")
    category_probabilities: dict[str, Score] | None = Field(description="Of each category: that it would be named first.")
    rationale: str = Field(description="Why, in a sentence.")
    evidence: dict[str, Any] | None = Field(description="Windows of long texts, hits of lists, notes: docs/long-texts.md.")
    served_by: ServedByWord
    model: str
    revision: str
    policy: str
    is_demo: bool
    error: CodedReason | None = Field(description=f"Why there is no verdict. Codes: {', '.join(ERROR_CODES)}.")
    raw: str | None = Field(description="The model's own words, where they say more than this.")


class TokenCounts(Answer):
    """Tokens read and written."""

    input: int
    output: int


class Detection(Answer):
    """What a detector said of a text."""

    outcome: Annotated[str, one_of(outcome.label for outcome in Outcome)]
    label: str | None
    scores: dict[str, Score] | None
    served_by: ServedByWord
    model: str
    revision: str
    policy: str
    is_demo: bool
    evidence: dict[str, Any] | None
    error: CodedReason | None
    models_words: str | SkipJsonSchema[None] = may_lack("What the model wrote in its answer, where it wrote more than the label.")


class Verdict(Said):
    """A text's verdict."""

    id: str | None = Field(description="Your id of the text; null: it was erased.")
    tokens: TokenCounts
    done_at: IsoTime
    metadata: Annotated[Any, may_lack("What the row had beside its text.")]
    action: ActionWord | SkipJsonSchema[None] = may_lack("What to do, if a policy decided.")
    decision: Decision | SkipJsonSchema[None] = may_lack("Why, if a policy decided.")
    detections: dict[str, Detection] | SkipJsonSchema[None] = may_lack("By detector, if any were asked.")


class VerdictPage(Answer):
    """A page of verdicts, in the order in which they were committed."""

    object: Literal["list"]
    data: list[Verdict]
    first_id: str | None
    last_id: str | None
    has_more: bool
    next: str = Field(description="Pass it as `after` until `complete`.")
    complete: bool = Field(description="Whether the batch has ended and this is its last page.")
    status: Annotated[str, one_of(BATCH_STATUS.values())]


class Rejection(Answer):
    """A refused line of the input."""

    line: int
    code: str
    detail: str
    row_id: str | None
    last_line: int | None = Field(description="The last of several lines in a row with the same fault.")


class RejectionPage(Answer):
    """A page of refused lines."""

    object: Literal["list"]
    data: list[Rejection]
    has_more: bool
    next: str = Field(description="Pass it as `after` for the next page.")


class SaidHere(Said):
    """What the guard said, and what the policy in force decided."""

    decision: Decision | SkipJsonSchema[None] = may_lack("If a policy decided.")


def _by_category(name: str, kind: Any, doc: str) -> type[Answer]:
    members: dict[str, Any] = {"_".join(word.replace("/", "_").split("-")): (kind, Field(alias=word)) for word in CATEGORIES}
    made: type[Answer] = create_model(name, __base__=Answer, __doc__=doc, **members)
    return made


ModerationCategories = _by_category("ModerationCategories", bool, "Whether the text is flagged in each category.")
ModerationScores = _by_category("ModerationScores", Score, "How high the text ranks in each category: no calibrated probability.")
ModerationInputs = _by_category("ModerationInputs", list[Literal["text"]], "What each category was judged on; none: not judged.")


class ModerationResult(Answer):
    """OpenAI's result of one input, and the guard's own words."""

    flagged: bool
    categories: ModerationCategories  # type: ignore[valid-type]
    category_scores: ModerationScores  # type: ignore[valid-type]
    category_applied_input_types: ModerationInputs  # type: ignore[valid-type]
    guardfleet: SaidHere


class InputError(Answer):
    """Why one of several inputs has no verdict."""

    index: int
    param: str
    code: str
    message: str
    final: Literal[True] = Field(description="Sending it again gives no verdict either.")


class InputErrors(Answer):
    """The inputs without a verdict."""

    errors: list[InputError]


class Moderation(Answer):
    """OpenAI's moderation."""

    id: str
    model: str
    results: list[ModerationResult]
    guardfleet: InputErrors | SkipJsonSchema[None] = may_lack("If any of several inputs has no verdict.")


class OwnModeration(Answer):
    """A verdict in the guard's own terms."""

    id: str
    object: Literal["moderation"]
    verdict: Verdict


class DetectedText(Answer):
    """What detectors said of one text."""

    index: int
    detections: dict[str, Detection]
    verdict: Verdict | SkipJsonSchema[None] = may_lack("If `guard` was among the detectors.")


class DetectedTexts(Answer):
    """What detectors said, text by text."""

    id: str
    object: Literal["detection"]
    results: list[DetectedText]


class ServedModel(Answer):
    """A model that has served verdicts."""

    id: str
    object: Literal["model"]
    created: UnixTime
    owned_by: str


class ModelList(Answer):
    """All models that have served verdicts."""

    object: Literal["list"]
    data: list[ServedModel]


class Health(Answer):
    """Health in a word, and why."""

    status: Literal["healthy", "degraded", "unhealthy"]
    reasons: list[str]
