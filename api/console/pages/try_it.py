"""Try it: a text or a conversation is judged while somebody waits, alone or by two models or policies side by side.

Nothing is changed, so a result is no page of its own: it stands below the form, which keeps its text.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from api.console import marking
from api.console.asking import Ask
from api.console.pages.try_it_form import ROLES, Wanted, choices, wanted_of
from api.console.routing import action, page
from api.http.problems import ProblemError, unavailable
from api.routes.detections import plan_of
from api.routes.moderations import judged, row_for, verdict_in
from guardfleet.domain.verdict import GUARD
from guardfleet.errors import NotFoundError, OverloadedError, RejectedError, RetryableError
from guardfleet.jobs import trial
from guardfleet.rows.payload import PayloadRow
from guardfleet.store.policy import policies
from guardfleet.store.policy.policies import Version
from guardfleet.verdicts.page import Page
from guardfleet.verdicts.rendering import decision_object

FORM = "try_it/form.html"
MOST_BYTES = 4 << 20  # of the form: a text of a megabyte, each byte written as three
TOLD = (ProblemError, NotFoundError, RejectedError, OverloadedError, RetryableError)


@dataclass(frozen=True, slots=True)
class Answer:
    """What one model said; a page without a verdict, or none at all, has a problem."""

    seconds: float
    page: Page | None = None
    problem: ProblemError | None = None


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison, as it is shown."""

    model: str
    policy: str
    seconds: float
    problem: ProblemError | None
    verdict: dict[str, Any] | None = None
    decision: dict[str, Any] | None = None
    turns: Sequence[marking.Turn] = ()

    @property
    def word(self) -> str:
        """The severity, or `error`."""
        return "error" if self.verdict is None else str(self.verdict["severity"])


async def first(ask: Ask) -> Response:
    """Show an empty form."""
    return await _page(ask, Wanted())


async def attempt(ask: Ask) -> Response:
    """Judge what the form holds, or change its turns."""
    wanted = wanted_of(ask.fields)
    if (edited := wanted.edited()) is not None:
        return await _page(ask, edited, edits=True)
    try:
        sides = await _sides(ask, wanted)
    except TOLD as error:
        sides = [Side(*wanted.sides[0], 0.0, _problem_of(ask, error))]
    if ask.is_fragment:
        return ask.render("try_it/result.html", sides=sides, detectors=wanted.detectors)
    wrong = next((side.problem for side in sides if side.problem is not None), None)
    status = 200 if wrong is None or any(side.problem is None for side in sides) else wrong.status_code
    return await _page(ask, wanted, status=status, sides=sides)


async def _page(ask: Ask, wanted: Wanted, *, status: int = 200, sides: Sequence[Side] = (), edits: bool = False) -> Response:
    known = {"choices": await choices(ask), "roles": ROLES, "detectors": wanted.detectors}
    return ask.render(FORM, status, wanted=wanted, sides=sides, edits=edits, **known)


async def _sides(ask: Ask, wanted: Wanted) -> list[Side]:
    """Return each side; one model is asked once, however many policies look at what it says."""
    row = row_for(0, wanted.row, ask.context, param="messages" if wanted.turns else "text")
    detectors = plan_of([GUARD, *wanted.detectors]) if wanted.detectors else None
    versions = {label: await _version(ask, label) for _, label in wanted.sides if label}
    names = list(dict.fromkeys(model for model, _ in wanted.sides))
    answers = await asyncio.gather(*(_answer(ask, row, name, detectors) for name in names))
    by_name = dict(zip(names, answers, strict=True))
    return [_side(row, by_name[model], model, policy, versions.get(policy)) for model, policy in wanted.sides]


async def _version(ask: Ask, label: str) -> Version:
    ask.require("policies:read")
    return await ask.of(policies.get, ask.db, ask.caller.tenant_id, label)


async def _answer(ask: Ask, row: PayloadRow, model: str, detectors: Sequence[str] | None) -> Answer:
    """Ask one model, as POST /v1/moderate and POST /v1/detect do."""
    began = time.monotonic()
    found: Page | None = None
    try:
        _, found = await judged(ask.request, ask.context, ask.caller, [row], model or None, detectors=detectors)
        verdict_in(found)
    except TOLD as error:
        return Answer(time.monotonic() - began, found, _problem_of(ask, error))
    return Answer(time.monotonic() - began, found)


def _side(row: PayloadRow, answer: Answer, model: str, policy: str, version: Version | None) -> Side:
    if answer.page is None:
        return Side(model, policy, answer.seconds, answer.problem)
    (verdict,) = answer.page.fields()
    decision = verdict["decision"]
    if version is not None:
        made = trial.decide(version, answer.page.rows[0], verdict["detections"] or {})
        decision = None if made is None else decision_object(made)
    turns = marking.turns(row.content, verdict["evidence"])
    return Side(model, policy, answer.seconds, answer.problem, verdict, decision, turns)


def _problem_of(ask: Ask, error: Exception) -> ProblemError:
    """Return the error as the API would answer it."""
    if isinstance(error, ProblemError):
        return error
    if isinstance(error, RetryableError) and not isinstance(error, OverloadedError):
        return unavailable(ask.request, error)
    status = {NotFoundError: 404, OverloadedError: 429}.get(type(error), 400)
    return ProblemError(status, "refused", str(error))


routes = [page("/try", first, scope="moderate"), action("/try", attempt, scope="moderate", most_bytes=MOST_BYTES)]
