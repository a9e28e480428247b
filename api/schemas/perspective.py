"""What Perspective's operations answer. The names are Google's."""

from typing import Literal

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from api.schemas.base import Answer, may_lack
from api.schemas.verdicts import Score


class AttributeScore(Answer):
    """A score."""

    value: Score
    type: Literal["PROBABILITY"]


class SpanScore(Answer):
    """The score of a part of the comment, in characters."""

    begin: int
    end: int
    score: AttributeScore


class AttributeScores(Answer):
    """The scores of an attribute."""

    spanScores: list[SpanScore]  # noqa: N815 - Google's names
    summaryScore: AttributeScore  # noqa: N815


class AnalyzedComment(Answer):
    """The scores of a comment."""

    attributeScores: dict[str, AttributeScores]  # noqa: N815
    languages: list[str]
    detectedLanguages: list[str] = Field(description="`und`: the guard names no language.")  # noqa: N815
    unsupportedAttributes: list[str] | SkipJsonSchema[None] = may_lack("Those that nothing answers, if any.")  # noqa: N815
    clientToken: str | SkipJsonSchema[None] = may_lack("As it was sent.")  # noqa: N815


class SuggestedComment(Answer):
    """A suggestion that was taken; the header `guardfleet-label` says what became of it."""

    detectedLanguages: list[str]  # noqa: N815
    requestedLanguages: list[str]  # noqa: N815
    unsupportedAttributes: list[str] | SkipJsonSchema[None] = may_lack("Those of which no label is made, if any.")  # noqa: N815
    clientToken: str | SkipJsonSchema[None] = may_lack("As it was sent.")  # noqa: N815
