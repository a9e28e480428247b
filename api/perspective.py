"""A drop-in for Perspective's `comments:analyze`, as far as the guard's categories carry it.

The guard does not tell insults, attacks on identity and other unethical speech apart: INSULT and IDENTITY_ATTACK are both its
Unethical Acts. It has nothing for PROFANITY: who asks for that is told so. Callers of that service send their key in the URL, so
this one route takes it from there; queries are in no log.
"""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import ConfigDict, Field, StringConstraints

from api.context import AppContext, admitted
from api.fields import IGNORED, JUDGED, Asked
from api.mapping import score
from api.moderations import judge
from api.problems import ProblemError
from guardfleet.rendering import StoredVerdict
from guardfleet.store.keys import Caller
from guardfleet.verdict import Category

router = APIRouter(prefix="/v1alpha1", tags=["perspective"])

ATTRIBUTES = {
    "TOXICITY": Category.UNETHICAL | Category.VIOLENT | Category.SEXUAL,
    "SEVERE_TOXICITY": Category.UNETHICAL | Category.VIOLENT | Category.SEXUAL,
    "IDENTITY_ATTACK": Category.UNETHICAL,
    "INSULT": Category.UNETHICAL,
    "THREAT": Category.VIOLENT,
    "SEXUALLY_EXPLICIT": Category.SEXUAL,
}
MOST_ATTRIBUTES = 30
WITHOUT_EFFECT = ("sessionId", "communityId", "spanAnnotations", "context")
UNKNOWN_LANGUAGE = "und"  # BCP 47's: the guard judges 119 languages and names none


class Comment(Asked):
    """What is to be judged."""

    model_config = ConfigDict(strict=True, extra="forbid")
    text: Annotated[str, JUDGED]
    type: Literal["PLAIN_TEXT", "HTML"] = "PLAIN_TEXT"


class Wanted(Asked):
    """How an attribute is wanted."""

    model_config = ConfigDict(strict=True, extra="forbid")
    scoreType: Literal["PROBABILITY", "SCORE_TYPE_UNSPECIFIED"] = "PROBABILITY"  # noqa: N815 - their name
    scoreThreshold: Annotated[float, Field(ge=0, le=1)] = 0.0  # noqa: N815


class AnalyzeRequest(Asked):
    """A comment, and the attributes that are asked for.

    Members of Perspective that do nothing here are taken, and named in the header `guardfleet-ignored` of the answer.
    """

    model_config = ConfigDict(strict=True, extra="forbid")
    comment: Comment
    requestedAttributes: Annotated[  # noqa: N815
        dict[str, Wanted | None],
        Field(min_length=1, max_length=MOST_ATTRIBUTES, json_schema_extra={"propertyNames": {"enum": list(ATTRIBUTES)}}),
    ]
    languages: Annotated[list[Annotated[str, StringConstraints(max_length=35)]], Field(max_length=20)] | None = None
    clientToken: Annotated[str, StringConstraints(max_length=1000)] | None = None  # noqa: N815
    doNotStore: bool = Field(False, description="The text is deleted in the commit of its verdict.")  # noqa: N815
    sessionId: Annotated[str, StringConstraints(max_length=1000)] | None = None  # noqa: N815
    communityId: Annotated[str, StringConstraints(max_length=1000)] | None = None  # noqa: N815
    spanAnnotations: bool | None = None  # noqa: N815
    context: dict[str, Any] | None = None


async def caller_by_url(
    request: Request,
    key: Annotated[str | None, Query(max_length=200, description="Your key, where it is not in the header.")] = None,
) -> Caller:
    """Who is asking, by a header or by the URL."""
    return await admitted(request, "moderate", request.headers.get("x-goog-api-key", key))


@router.post("/comments:analyze")
async def analyze(
    asked: AnalyzeRequest,
    request: Request,
    response: Response,
    context: AppContext,
    caller: Annotated[Caller, Depends(caller_by_url)],
) -> dict[str, Any]:
    """Score a comment. The span is what decided of a long one, and all of any other."""
    for name in asked.requestedAttributes:
        if name not in ATTRIBUTES:
            detail = f"attribute {name[:50]!r} is not carried by the guard's categories; there are {', '.join(ATTRIBUTES)}."
            raise ProblemError(400, "attribute_not_supported", detail, param=f"requestedAttributes.{name[:50]}")
    value = {"id": "0", "text": asked.comment.text}
    _, page, _ = await judge(request, context, caller, [value], None, keeps_nothing=asked.doNotStore)
    (row,) = page.rows
    scores = {name: attribute(row, name, len(asked.comment.text)) for name in asked.requestedAttributes}
    shown = {
        name: found
        for name, found in scores.items()
        if found["summaryScore"]["value"] >= (wanted.scoreThreshold if (wanted := asked.requestedAttributes[name]) else 0.0)
    }
    if ignored := [name for name in WITHOUT_EFFECT if getattr(asked, name)]:
        response.headers[IGNORED] = ", ".join(ignored)
    answer: dict[str, Any] = {
        "attributeScores": shown,
        "languages": asked.languages or [UNKNOWN_LANGUAGE],
        "detectedLanguages": [UNKNOWN_LANGUAGE],
    }
    return answer if asked.clientToken is None else answer | {"clientToken": asked.clientToken}


def attribute(row: StoredVerdict, name: str, length: int) -> dict[str, Any]:
    """The scores of one attribute: the likeliest of its categories; of SEVERE_TOXICITY as far as the text is unsafe."""
    opinion = row.opinion
    value = max(score(opinion, category) for category in ATTRIBUTES[name])
    if name == "SEVERE_TOXICITY" and opinion.probabilities is not None:
        not_safe = 255 - opinion.probabilities[0]
        value = round(value * opinion.probabilities[2] / not_safe, 3) if not_safe else 0.0
    begin, end = (row.evidence or {}).get("decided") or (0, length)
    found = {"value": min(1.0, value), "type": "PROBABILITY"}
    return {"spanScores": [{"begin": begin, "end": end, "score": found}], "summaryScore": found}
