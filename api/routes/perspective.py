"""A drop-in replacement for Perspective's `comments:analyze` and `comments:suggestscore`, as far as the guard's categories allow.

The guard does not tell insults, attacks on identity and other unethical speech apart: INSULT and IDENTITY_ATTACK are both its
Unethical Acts. It has nothing for PROFANITY, which is left out and reported, never invented. Callers of that service send their
key in the URL, so these two routes accept it there; queries are not logged.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import ConfigDict, Field, StringConstraints

from api.body.duplicate_members import unambiguous
from api.context import AppContext, Context, admitted
from api.http.fields import IGNORED, JUDGED, Asked
from api.http.problems import ProblemError
from api.http.threads import in_thread
from api.openai.categories import not_safe, score
from api.routes.moderations import ACTION, judge
from guardfleet.domain.ids import EVERY_TENANT
from guardfleet.domain.labels import Source
from guardfleet.domain.verdict import CATEGORY_NAMES, Category, Severity
from guardfleet.store.keys import Caller
from guardfleet.store.labels import labels
from guardfleet.store.labels.labels import Given
from guardfleet.verdicts.encoding import StoredVerdict

router = APIRouter(prefix="/v1alpha1", tags=["perspective"], dependencies=[Depends(unambiguous)])

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
UNKNOWN_LANGUAGE = "und"  # of BCP 47: the guard judges 119 languages and names none
NAME_CHARS = 50
PLAIN_NAME = re.compile(rf"[A-Z_]{{1,{NAME_CHARS}}}")  # other names are in the body only: a header cannot hold other characters
UNSUPPORTED = "guardfleet-unsupported-attributes"
LABEL = "guardfleet-label"  # a header: what became of a suggested score
LEAST_SCORES = ((2 / 3, Severity.UNSAFE), (1 / 3, Severity.CONTROVERSIAL))


class Comment(Asked):
    """The text to judge."""

    model_config = ConfigDict(strict=True, extra="forbid")
    text: Annotated[str, JUDGED]
    type: Literal["PLAIN_TEXT", "HTML"] = "PLAIN_TEXT"


class Wanted(Asked):
    """How an attribute is requested."""

    model_config = ConfigDict(strict=True, extra="forbid")
    scoreType: Literal["PROBABILITY", "SCORE_TYPE_UNSPECIFIED"] = "PROBABILITY"  # noqa: N815 - their name
    scoreThreshold: Annotated[float, Field(ge=0, le=1)] = 0.0  # noqa: N815


class AnalyzeRequest(Asked):
    """A comment, and the requested attributes.

    Members of Perspective without an effect here are accepted, and listed in the answer's header `guardfleet-ignored`.
    """

    model_config = ConfigDict(strict=True, extra="forbid")
    comment: Comment
    requestedAttributes: Annotated[  # noqa: N815
        dict[str, Wanted | None],
        Field(min_length=1, max_length=MOST_ATTRIBUTES),
    ]
    languages: Annotated[list[Annotated[str, StringConstraints(max_length=35)]], Field(max_length=20)] | None = None
    clientToken: Annotated[str, StringConstraints(max_length=1000)] | None = None  # noqa: N815
    doNotStore: bool = Field(False, description="Delete the text in the commit of its verdict.")  # noqa: N815
    sessionId: Annotated[str, StringConstraints(max_length=1000)] | None = None  # noqa: N815
    communityId: Annotated[str, StringConstraints(max_length=1000)] | None = None  # noqa: N815
    spanAnnotations: bool | None = None  # noqa: N815
    context: dict[str, Any] | None = None


class SuggestedScore(Asked):
    """What the caller would have answered."""

    model_config = ConfigDict(strict=True, extra="forbid")
    value: Annotated[float, Field(ge=0, le=1)]
    type: Literal["PROBABILITY", "SCORE_TYPE_UNSPECIFIED"] = "PROBABILITY"


class SuggestedAttribute(Asked):
    """The suggested score of an attribute; scores of spans are accepted, and no label is made of them."""

    model_config = ConfigDict(strict=True, extra="forbid")
    summaryScore: SuggestedScore  # noqa: N815
    spanScores: Annotated[list[Any], Field(max_length=1000)] | None = None  # noqa: N815


class SuggestRequest(Asked):
    """A comment, and the scores that it should have got."""

    model_config = ConfigDict(strict=True, extra="forbid")
    comment: Comment
    attributeScores: Annotated[dict[str, SuggestedAttribute], Field(min_length=1, max_length=MOST_ATTRIBUTES)]  # noqa: N815
    languages: Annotated[list[Annotated[str, StringConstraints(max_length=35)]], Field(max_length=20)] | None = None
    clientToken: Annotated[str, StringConstraints(max_length=1000)] | None = None  # noqa: N815
    sessionId: Annotated[str, StringConstraints(max_length=1000)] | None = None  # noqa: N815
    communityId: Annotated[str, StringConstraints(max_length=1000)] | None = None  # noqa: N815
    context: dict[str, Any] | None = None


async def caller_by_url(
    request: Request,
    key: Annotated[str | None, Query(max_length=200, description="Your key, if it is not in a header.")] = None,
) -> Caller:
    """Return the caller, by a header or by the URL."""
    return await admitted(request, "moderate", request.headers.get("x-goog-api-key", key))


@router.post("/comments:analyze")
async def analyze(
    asked: AnalyzeRequest,
    request: Request,
    response: Response,
    context: AppContext,
    caller: Annotated[Caller, Depends(caller_by_url)],
    strict: Annotated[bool, Query(description="Refuse a request for an attribute that cannot be answered.")] = False,
) -> dict[str, Any]:
    """Score a comment. The span is the part of a long comment that decided, and all of any other.

    Attributes without a matching category are left out of `attributeScores` and listed in `unsupportedAttributes` and in a header.
    """
    unsupported = [name for name in asked.requestedAttributes if name not in ATTRIBUTES]
    if unsupported and (strict or len(unsupported) == len(asked.requestedAttributes)):
        name = unsupported[0][:NAME_CHARS]
        detail = f"attribute {name!r} matches none of the guard's categories; use {', '.join(ATTRIBUTES)}."
        raise ProblemError(400, "attribute_not_supported", detail, param=f"requestedAttributes.{name}")
    _, row, _, decision = await judge(request, context, caller, {"text": asked.comment.text}, None, keeps_nothing=asked.doNotStore)
    shown = {}
    for name, wanted in asked.requestedAttributes.items():
        if name in ATTRIBUTES:
            found = attribute(row, name, len(asked.comment.text))
            if found["summaryScore"]["value"] >= (wanted.scoreThreshold if wanted else 0.0):
                shown[name] = found
    if decision is not None:
        response.headers[ACTION] = decision.action
    if ignored := [name for name in WITHOUT_EFFECT if getattr(asked, name)]:
        response.headers[IGNORED] = ", ".join(ignored)
    answer: dict[str, Any] = {
        "attributeScores": shown,
        "languages": asked.languages or [UNKNOWN_LANGUAGE],
        "detectedLanguages": [UNKNOWN_LANGUAGE],
    }
    if unsupported:
        response.headers[UNSUPPORTED] = ", ".join(name for name in unsupported if PLAIN_NAME.fullmatch(name))
        answer["unsupportedAttributes"] = [name[:NAME_CHARS] for name in unsupported]
    return answer if asked.clientToken is None else answer | {"clientToken": asked.clientToken}


@router.post("/comments:suggestscore")
async def suggest(
    asked: SuggestRequest,
    response: Response,
    context: AppContext,
    caller: Annotated[Caller, Depends(caller_by_url)],
) -> dict[str, Any]:
    """Take a suggested score as a label of the newest text of yours with the same words.

    The highest score counts: from 2/3 it is unsafe, from 1/3 controversial, below safe. The answer's header `guardfleet-label` is
    `stored`, or `known` if this key has said so before, or `unknown_text`: only a text with a verdict can have a label.
    """
    known = {name: one.summaryScore.value for name, one in asked.attributeScores.items() if name in ATTRIBUTES}
    if not known:
        name = next(iter(asked.attributeScores))[:NAME_CHARS]
        detail = f"attribute {name!r} matches none of the guard's categories; use {', '.join(ATTRIBUTES)}."
        raise ProblemError(400, "attribute_not_supported", detail, param=f"attributeScores.{name}")
    severity, categories = suggested(known)
    response.headers[LABEL] = await in_thread(_label, context, caller, asked.comment.text, severity, categories)
    if ignored := [name for name in WITHOUT_EFFECT if getattr(asked, name, None)]:
        response.headers[IGNORED] = ", ".join(ignored)
    answer: dict[str, Any] = {"detectedLanguages": [UNKNOWN_LANGUAGE], "requestedLanguages": asked.languages or []}
    if unsupported := [name for name in asked.attributeScores if name not in ATTRIBUTES]:
        response.headers[UNSUPPORTED] = ", ".join(name for name in unsupported if PLAIN_NAME.fullmatch(name))
        answer["unsupportedAttributes"] = [name[:NAME_CHARS] for name in unsupported]
    return answer if asked.clientToken is None else answer | {"clientToken": asked.clientToken}


def suggested(scores: Mapping[str, float]) -> tuple[Severity, Category]:
    """Return the label that suggested scores stand for; categories only of attributes that are about one."""
    highest = max(scores.values())
    severity = next((severity for least, severity in LEAST_SCORES if highest >= least), Severity.SAFE)
    categories = Category.NONE
    for name, value in scores.items():
        if value >= LEAST_SCORES[-1][0] and ATTRIBUTES[name] in CATEGORY_NAMES:
            categories |= ATTRIBUTES[name]
    return severity, categories if severity is not Severity.SAFE else Category.NONE


def _label(context: Context, caller: Caller, text: str, severity: Severity, categories: Category) -> str:
    tenants = (caller.tenant_id, EVERY_TENANT)
    place = labels.of_digest(context.db, caller.tenant_id, [context.keyring.digest(tenant, text) for tenant in tenants])
    if place is None:
        return "unknown_text"
    given = Given(*place, Source.SUGGESTSCORE, caller.label, severity, categories)
    return "stored" if labels.add(context.db, caller.tenant_id, [given]) else "known"


def attribute(row: StoredVerdict, name: str, length: int) -> dict[str, Any]:
    """Return the scores of one attribute: its highest category; for SEVERE_TOXICITY, the part of it that is unsafe."""
    said = row.judgement
    value = max(score(said, category) for category in ATTRIBUTES[name])
    if name == "SEVERE_TOXICITY" and said.probabilities is not None:
        doubt = not_safe(said)
        value = round(value * said.probabilities[2] / doubt, 3) if doubt else 0.0
    begin, end = (row.evidence or {}).get("decided") or (0, length)
    found = {"value": min(1.0, value), "type": "PROBABILITY"}
    return {"spanScores": [{"begin": begin, "end": end, "score": found}], "summaryScore": found}
