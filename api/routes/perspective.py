"""A drop-in replacement for Perspective's `comments:analyze` and `comments:suggestscore`: what is answered is in `attributes`.

Callers of that service send their key in the URL, so these routes accept it there; queries are not logged. Errors are Google's
(`api/google/errors.py`), and clients that are built from Google's description of the API find it here.
"""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response, Security
from fastapi.security import APIKeyHeader, APIKeyQuery
from pydantic import ConfigDict, Field, StringConstraints

from api.body.duplicate_members import unambiguous
from api.context import BEARER, AppContext, Context, admitted, caller_of
from api.google import attributes, discovery
from api.google.attributes import ATTRIBUTES, NAME_CHARS, PLAIN_NAME
from api.http.fields import IGNORED, JUDGED, Asked
from api.http.problems import ProblemError
from api.http.threads import in_thread
from api.routes.moderations import ACTION, judge
from api.schemas.base import answer
from api.schemas.perspective import AnalyzedComment, SuggestedComment
from guardfleet.domain.ids import EVERY_TENANT
from guardfleet.domain.labels import Source
from guardfleet.domain.verdict import Category, Severity
from guardfleet.store.keys import Caller
from guardfleet.store.labels import labels
from guardfleet.store.labels.labels import Given
from guardfleet.store.policy import lists

SCOPE = "moderate"
BY_HEADER = APIKeyHeader(name="x-goog-api-key", scheme_name="keyInHeader", auto_error=False)
BY_URL = APIKeyQuery(name="key", scheme_name="keyInUrl", description="Proxies log URLs: prefer a header.", auto_error=False)
router = APIRouter(tags=["perspective"], dependencies=[Security(BEARER, scopes=[SCOPE]), Depends(unambiguous)])

MOST_ATTRIBUTES = 30
WITHOUT_EFFECT = ("sessionId", "communityId", "spanAnnotations", "context")
UNKNOWN_LANGUAGE = "und"  # of BCP 47: the guard judges 119 languages and names none
UNSUPPORTED = "guardfleet-unsupported-attributes"
ANSWERED_BY = "guardfleet-answered-by"  # a header: attributes that something else than the guard's category of that name answered
MAP = "guardfleet-score-map"  # a header: whether the map of scores is of the model that judged
LABEL = "guardfleet-label"  # a header: what became of a suggested score
PLACE = "/v1alpha1/comments:"


class Comment(Asked):
    """The text to judge."""

    model_config = ConfigDict(strict=True, extra="forbid")
    text: Annotated[str, JUDGED]
    type: Literal["PLAIN_TEXT", "HTML", "TEXT_TYPE_UNSPECIFIED"] = "PLAIN_TEXT"


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
    dropUnsupportedAttributes: bool = Field(True, description="Answer the other attributes; false is `strict`.")  # noqa: N815
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
    request: Request, in_header: Annotated[str | None, Security(BY_HEADER)], in_url: Annotated[str | None, Security(BY_URL)]
) -> Caller:
    """Return the caller, by a header or by the URL."""
    return await admitted(request, SCOPE, in_url if in_header is None else in_header)


AnyKey = Annotated[Caller, Security(caller_by_url, scopes=[SCOPE])]


@router.post(f"{PLACE}analyze", operation_id="analyzeComment", responses=answer(AnalyzedComment))
async def analyze(
    asked: AnalyzeRequest,
    request: Request,
    response: Response,
    context: AppContext,
    caller: AnyKey,
    strict: Annotated[bool, Query(description="Refuse a request for an attribute that cannot be answered.")] = False,
) -> dict[str, Any]:
    """Score a comment. The span is the part of a long comment that decided, the place of a list's hit, or all of any other.

    Attributes that nothing answers are left out of `attributeScores` and listed in `unsupportedAttributes` and in a header.
    """
    names, answers = list(asked.requestedAttributes), await _answers(context, caller, asked)
    if not answers or ((strict or not asked.dropUnsupportedAttributes) and len(answers) < len(names)):
        raise _unsupported(next(name for name in names if name not in answers), "requestedAttributes")
    text = asked.comment.text
    _, row, model, decision = await judge(request, context, caller, {"text": text}, None, keeps_nothing=asked.doNotStore)
    if any(map(attributes.is_list, answers.values())):  # a list may have been replaced before it was looked for
        after = await _answers(context, caller, asked)
        answers = {name: by for name, by in answers.items() if name in after}
    shown = {}
    for name, by in answers.items():
        found = attributes.scores(row, by, len(text), context.maps.of)
        wanted = asked.requestedAttributes[name]
        if found["summaryScore"]["value"] >= (wanted.scoreThreshold if wanted else 0.0):
            shown[name] = found
    if context.maps.of:
        response.headers[MAP] = "applied" if model.label == context.maps.model else "fitted for another model"
    if decision is not None:
        response.headers[ACTION] = decision.action
    if told := [f"{name}={by}" for name, by in answers.items() if name != by]:
        response.headers[ANSWERED_BY] = ", ".join(told)
    if ignored := [name for name in WITHOUT_EFFECT if getattr(asked, name)]:
        response.headers[IGNORED] = ", ".join(ignored)
    answer: dict[str, Any] = {
        "attributeScores": shown,
        "languages": asked.languages or [UNKNOWN_LANGUAGE],
        "detectedLanguages": [UNKNOWN_LANGUAGE],
    }
    return _told(answer, response, [name for name in names if name not in answers], asked.clientToken)


@router.post(f"{PLACE}suggestscore", operation_id="suggestCommentScore", responses=answer(SuggestedComment))
async def suggest(
    asked: SuggestRequest,
    response: Response,
    context: AppContext,
    caller: AnyKey,
) -> dict[str, Any]:
    """Take a suggested score as a label of the newest text of yours with the same words.

    The highest score counts: from 2/3 it is unsafe, from 1/3 controversial, below safe. The answer's header `guardfleet-label` is
    `stored`, or `known` if this key has said so before, or `unknown_text`: only a text with a verdict can have a label.
    """
    known = {name: one.summaryScore.value for name, one in asked.attributeScores.items() if name in ATTRIBUTES}
    if not known:
        raise _unsupported(next(iter(asked.attributeScores)), "attributeScores")
    severity, categories = attributes.suggested(known)
    response.headers[LABEL] = await in_thread(_label, context, caller, asked.comment.text, severity, categories)
    if ignored := [name for name in WITHOUT_EFFECT if getattr(asked, name, None)]:
        response.headers[IGNORED] = ", ".join(ignored)
    answer: dict[str, Any] = {"detectedLanguages": [UNKNOWN_LANGUAGE], "requestedLanguages": asked.languages or []}
    return _told(answer, response, [name for name in asked.attributeScores if name not in ATTRIBUTES], asked.clientToken)


@router.get("/$discovery/rest", include_in_schema=False)
@router.get(f"/discovery/v1/apis/{discovery.API}/{discovery.VERSION}/rest", include_in_schema=False)
async def described(request: Request, version: str = discovery.VERSION, key: str | None = None) -> dict[str, Any]:
    """Describe this API to Google's client libraries. A key that is given must be valid: clients try it here."""
    if version != discovery.VERSION:
        raise ProblemError(404, "not_found", f"there is only version {discovery.VERSION}.", param="version")
    if key is not None:
        await caller_of(request, key)
    return discovery.document(str(request.base_url))


async def _answers(context: Context, caller: Caller, asked: AnalyzeRequest) -> dict[str, str]:
    """Return what answers each attribute; the lists are asked for only if one could."""
    names = list(asked.requestedAttributes)
    wanted = [name for each in names if (name := attributes.list_of(each)) is not None]
    active = await in_thread(lists.active_among, context.db, caller.tenant_id, wanted) if wanted else []
    return attributes.answered_by(names, active)


def _unsupported(name: str, member: str) -> ProblemError:
    name = name[:NAME_CHARS]
    detail = f"attribute {name!r} matches none of the guard's categories and no active list of yours; use {', '.join(ATTRIBUTES)}."
    return ProblemError(400, "attribute_not_supported", detail, param=f"{member}.{name}")


def _told(answer: dict[str, Any], response: Response, unsupported: list[str], token: str | None) -> dict[str, Any]:
    if unsupported:
        response.headers[UNSUPPORTED] = ", ".join(name for name in unsupported if PLAIN_NAME.fullmatch(name))
        answer["unsupportedAttributes"] = [name[:NAME_CHARS] for name in unsupported]
    return answer if token is None else answer | {"clientToken": token}


def _label(context: Context, caller: Caller, text: str, severity: Severity, categories: Category) -> str:
    tenants = (caller.tenant_id, EVERY_TENANT)
    place = labels.of_digest(context.db, caller.tenant_id, [context.keyring.digest(tenant, text) for tenant in tenants])
    if place is None:
        return "unknown_text"
    given = Given(*place, Source.SUGGESTSCORE, caller.label, severity, categories)
    return "stored" if labels.add(context.db, caller.tenant_id, [given]) else "known"
