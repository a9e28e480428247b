"""Queues for those who run them: made, changed, how far they are, how far people agree, and the cases in which they differ."""

from collections.abc import Mapping
from http import HTTPStatus

from starlette.responses import Response

from api.console.asking import NOTICES, Ask
from api.console.pages.review.text import CATEGORY_KEYS, SEVERITIES, Text
from api.console.routing import action, page
from api.http.problems import ProblemError
from guardfleet.domain import ids
from guardfleet.domain.reviews import QueueOptions
from guardfleet.domain.verdict import Category, Severity, category_names
from guardfleet.errors import RejectedError
from guardfleet.jobs import reviewing
from guardfleet.sampling.estimates import share_of
from guardfleet.sampling.reliability import alpha
from guardfleet.store import keys
from guardfleet.store.jobs import views
from guardfleet.store.labels import progress, queues
from guardfleet.store.labels.progress import Pair
from guardfleet.store.labels.queues import Queue
from guardfleet.store.labels.tasks import Outcome

SCOPE = "batches:write"
HOME = "/console/review"
CASES = 50  # of a page
MOST_ID_DIGITS = 18
LEVELS = ("nominal", "ordinal")
SOURCES = ("job", "sample")
NOTICES |= {
    "review_made": "The queue is made.",
    "review_changed": "The queue is changed.",
    "review_resolved": "Resolved: this decision counts from now on.",
    "review_already": "Somebody has resolved this already: nothing was stored.",
    "review_own": "You are one of the two who differ: somebody else has to decide.",
    "review_unsaid": "Choose what the text is first.",
}
RESOLVED = {Outcome.DONE: "review_resolved", Outcome.KNOWN: "review_already", Outcome.TAKEN: "review_own"}


async def form(ask: Ask) -> Response:
    """Show the form of a new queue."""
    return await _form(ask, None, _shown(QueueOptions("new")) | {"name": ""} | {name: ask.query.get(name, "") for name in SOURCES})


async def create(ask: Ask) -> Response:
    """Make a queue; show the form again, as it was filled in, with what is wrong in it."""
    job, sample = (ask.form.get(name, "").strip() or None for name in SOURCES)
    try:
        made = await ask.of(reviewing.create, ask.db, ask.caller.tenant_id, _options(ask, is_open=True), job=job, sample=sample)
    except RejectedError as wrong:
        return await _form(ask, None, _typed(ask), wrong)
    return ask.back(f"{HOME}/{made.label}/results", done="review_made")


async def show(ask: Ask) -> Response:
    """Show the form of a queue."""
    queue = await _queue(ask)
    return await _form(ask, queue, _shown(queue.options))


async def change(ask: Ask) -> Response:
    """Change a queue; show the form again, as it was filled in, with what is wrong in it."""
    queue = await _queue(ask)
    try:
        await ask.of(reviewing.change, ask.db, queue, _options(ask, is_open="is_open" in ask.form))
    except RejectedError as wrong:
        return await _form(ask, queue, _typed(ask), wrong)
    return ask.back(f"{HOME}/{queue.label}/results", done="review_changed")


async def _form(ask: Ask, queue: Queue | None, typed: Mapping[str, str], wrong: RejectedError | None = None) -> Response:
    people = await ask.of(progress.people, ask.db, ask.caller.tenant_id)
    status = HTTPStatus.OK if wrong is None else HTTPStatus.UNPROCESSABLE_ENTITY
    return ask.render("review/queue.html", status, queue=queue, typed=typed, people=people, wrong=wrong)


def _shown(options: QueueOptions) -> dict[str, str]:
    """Return options as the fields of the form have them; a switch that is on has any value."""
    return {
        "name": options.name,
        "reviewers": "\n".join(options.reviewers or ()),
        "second": str(round(100 * options.second_share)),
        "golden": str(round(100 * options.golden_share)),
        "break_after": str(options.break_after),
        "lease_s": str(options.lease_s),
        "shows_verdict": "on" if options.shows_verdict else "",
        "is_open": "on" if options.is_open else "",
    }


def _typed(ask: Ask) -> dict[str, str]:
    return {name: ask.form.get(name, "") for name in (*_shown(QueueOptions("new")), *SOURCES)}


async def results(ask: Ask) -> Response:
    """Show how far a queue is, and how far those who review in it agree."""
    queue = await _queue(ask)
    found = await ask.of(progress.progress, ask.db, queue)
    people = await ask.of(progress.reviewers, ask.db, queue)
    pairs = await ask.of(progress.pairs, ask.db, queue)
    after = whole(ask.query.get("after", "0"))
    cases = await ask.of(progress.cases, ask.db, queue, after=after, limit=CASES + 1)
    jobs = await ask.of(views.labels, ask.db, {one.job_id for one in cases})
    return ask.render(
        "review/results.html", queue=queue, progress=found, pairs=pairs, words=_word, jobs=jobs, cases=cases[:CASES],
        reviewers=[(one, share_of(one.golden_right, one.golden)) for one in people], agreement=_agreement(pairs),
        more=f"{HOME}/{queue.label}/results?after={cases[CASES - 1].id}" if len(cases) > CASES else None,
    )  # fmt: skip


async def case(ask: Ask) -> Response:
    """Show a text on which two people differ, with what they said."""
    queue = await _queue(ask)
    found = await ask.of(reviewing.case, ask.db, queue, whole(ask.path["task"]))
    shown = await ask.of(reviewing.show, ask.db, ask.context.keyring, found.job_id, found.seq)
    names = await ask.of(progress.people, ask.db, ask.caller.tenant_id)
    names |= await ask.of(keys.names, ask.db, ask.caller.tenant_id, [found.first_by, found.second_by, found.resolved_by or ""])
    said = [
        (found.first_by, _word(found.first), category_names(Category(found.first_categories))),
        (found.second_by, _word(found.second), category_names(Category(found.second_categories))),
    ]
    return ask.render(
        "review/case.html", queue=queue, case=found, said=said, words=_word, names=names, severities=SEVERITIES,
        categories=CATEGORY_KEYS, verdict=shown.verdict,
        text=None if shown.content is None else Text.of(shown.content, shown.evidence),
        is_own=ask.session.who in (found.first_by, found.second_by),
        prefers={name: ask.session.preferences.get(f"review_{name}") is not False for name in ("veil", "mask", "grey")},
    )  # fmt: skip


async def resolve(ask: Ask) -> Response:
    """Store which answer is right."""
    queue = await _queue(ask)
    found = await ask.of(reviewing.case, ask.db, queue, whole(ask.path["task"]))
    if ask.form.get("label") not in SEVERITIES:
        return ask.back(f"{HOME}/{queue.label}/cases/{found.id}", done="review_unsaid")
    chosen = [value for name, value in ask.fields if name == "category"]
    given = reviewing.answer(ask.session.who, found.id, 0, label=ask.form["label"], categories=chosen)
    outcome = await ask.of(progress.resolve, ask.db, queue, found, given)
    return ask.back(f"{HOME}/{queue.label}/results", done=RESOLVED[outcome])


def whole(given: str) -> int:
    """Return the number of a row. Raises ProblemError 404."""
    if not (given.isascii() and given.isdecimal() and len(given) <= MOST_ID_DIGITS):
        raise ProblemError(404, "not_found", "there is no such text in this queue.")
    return int(given)


async def _queue(ask: Ask) -> Queue:
    return await ask.of(queues.get, ask.db, ids.QUEUE.parse(ask.path["queue"]), tenant_id=ask.caller.tenant_id)


def _options(ask: Ask, *, is_open: bool) -> QueueOptions:
    """Return the options of the form. Raises RejectedError for what no queue can have."""
    named = tuple(dict.fromkeys(one.strip() for one in ask.form.get("reviewers", "").splitlines() if one.strip()))
    try:
        return QueueOptions(
            name=ask.form.get("name", "").strip(),
            reviewers=named or None,
            second_share=ask.number("second", otherwise=10) / 100,
            golden_share=ask.number("golden", otherwise=0) / 100,
            break_after=ask.number("break_after", otherwise=20),
            shows_verdict="shows_verdict" in ask.form,
            lease_s=ask.number("lease_s", otherwise=900),
            is_open=is_open,
        )
    except ProblemError as wrong:  # no number
        raise RejectedError(str(wrong.detail), param=wrong.param) from None


def _agreement(pairs: list[Pair]) -> list[tuple[str, object]]:
    units = [(one.first, one.second) for one in pairs for _ in range(one.texts)]
    return [(level, alpha(units, n_values=len(SEVERITIES), level=level)) for level in LEVELS]  # type: ignore[arg-type]


def _word(severity: int | None) -> str | None:
    return None if severity is None else Severity(severity).label


routes = [
    page("/review/new", form, scope=SCOPE),
    action("/review/new", create, scope=SCOPE),
    page("/review/{queue}/change", show, scope=SCOPE),
    action("/review/{queue}/change", change, scope=SCOPE),
    page("/review/{queue}/results", results, scope=SCOPE),
    page("/review/{queue}/cases/{task}", case, scope=SCOPE),
    action("/review/{queue}/cases/{task}", resolve, scope=SCOPE),
]
