"""Queues for those who run them: made, changed, how far they are, how far people agree, and the cases in which they differ."""

from starlette.responses import Response

from api.console.asking import NOTICES, Ask
from api.console.pages.review import queue_form
from api.console.pages.review.text import CATEGORY_KEYS, SEVERITIES, Text
from api.console.routing import action, page
from api.http.problems import ProblemError
from guardfleet.domain import ids
from guardfleet.domain.verdict import Category, Severity, category_names
from guardfleet.errors import RejectedError
from guardfleet.jobs import reviewing
from guardfleet.sampling.estimates import share_of
from guardfleet.sampling.reliability import alpha
from guardfleet.store.jobs import views
from guardfleet.store.labels import people, progress, queues
from guardfleet.store.labels.progress import Pair
from guardfleet.store.labels.queues import Queue
from guardfleet.store.labels.tasks import Outcome

SCOPE = "batches:write"
HOME = "/console/review"
CASES = 50  # of a page
MOST_ID_DIGITS = 18
LEVELS = ("nominal", "ordinal")
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
    sources = {name: ask.query.get(name, "") for name in queue_form.SOURCES}
    return await queue_form.show(ask, None, queue_form.shown(queue_form.NEW, **{**sources, "name": ""}))


async def create(ask: Ask) -> Response:
    """Make a queue; show the form again, as it was filled in, with what is wrong in it."""
    given = queue_form.typed(ask)
    job, sample = (given.fields[name].strip() or None for name in queue_form.SOURCES)
    try:
        options = queue_form.options(given, is_open=True)
        made = await ask.of(reviewing.create, ask.db, ask.caller.tenant_id, options, job=job, sample=sample)
    except RejectedError as wrong:
        return await queue_form.show(ask, None, given, wrong)
    return ask.back(f"{HOME}/{made.label}/results", done="review_made")


async def show(ask: Ask) -> Response:
    """Show the form of a queue."""
    queue = await _queue(ask)
    return await queue_form.show(ask, queue, queue_form.shown(queue.options))


async def change(ask: Ask) -> Response:
    """Change a queue; show the form again, as it was filled in, with what is wrong in it."""
    queue, given = await _queue(ask), queue_form.typed(ask)
    try:
        await ask.of(reviewing.change, ask.db, queue, queue_form.options(given, is_open="is_open" in ask.form))
    except RejectedError as wrong:
        return await queue_form.show(ask, queue, given, wrong)
    return ask.back(f"{HOME}/{queue.label}/results", done="review_changed")


async def results(ask: Ask) -> Response:
    """Show how far a queue is, and how far those who review in it agree."""
    queue = await _queue(ask)
    found = await ask.of(progress.progress, ask.db, queue)
    judged = await ask.of(progress.reviewers, ask.db, queue)
    named = await ask.of(people.named, ask.db, queue.tenant_id, queue.options.reviewers or ())
    pairs = await ask.of(progress.pairs, ask.db, queue)
    after = whole(ask.query.get("after", "0"))
    cases = await ask.of(progress.cases, ask.db, queue, after=after, limit=CASES + 1)
    jobs = await ask.of(views.labels, ask.db, {one.job_id for one in cases})
    return ask.render(
        "review/results.html", queue=queue, progress=found, pairs=pairs, words=_word, jobs=jobs, cases=cases[:CASES],
        reviewers=[(one, share_of(one.golden_right, one.golden)) for one in judged], agreement=_agreement(pairs),
        more=f"{HOME}/{queue.label}/results?after={cases[CASES - 1].id}" if len(cases) > CASES else None,
        never=[(one, queue_form.note(one)) for one in named.values() if one.never],
    )  # fmt: skip


async def case(ask: Ask) -> Response:
    """Show a text on which two people differ, with what they said."""
    queue = await _queue(ask)
    found = await ask.of(reviewing.case, ask.db, queue, whole(ask.path["task"]))
    shown = await ask.of(reviewing.show, ask.db, ask.context.keyring, found.job_id, found.seq)
    spoke = [found.first_by, found.second_by, *filter(None, [found.resolved_by])]
    names = {who: one.name for who, one in (await ask.of(people.named, ask.db, ask.caller.tenant_id, spoke)).items() if one.name}
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
