"""Queues for those who run them: made, changed, how far they are, how far people agree, and the cases in which they differ."""

from starlette.responses import Response

from api.console.asking import NOTICES, Ask
from api.console.pages.review.text import CATEGORY_KEYS, SEVERITIES, Text
from api.console.routing import action, page
from api.http.problems import ProblemError
from guardfleet.domain import ids
from guardfleet.domain.reviews import MOST_LEASE_S, QueueOptions
from guardfleet.domain.verdict import Category, Severity, category_names
from guardfleet.jobs import reviewing
from guardfleet.sampling.estimates import share_of
from guardfleet.sampling.reliability import alpha
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
    people = await ask.of(progress.people, ask.db, ask.caller.tenant_id)
    job, sample = (ask.query.get(name, "") for name in ("job", "sample"))
    return ask.render("review/queue.html", queue=None, options=QueueOptions("new"), people=people, job=job, sample=sample)


async def create(ask: Ask) -> Response:
    """Make a queue."""
    job, sample = (ask.form.get(name, "").strip() or None for name in ("job", "sample"))
    made = await ask.of(reviewing.create, ask.db, ask.caller.tenant_id, _options(ask, is_open=True), job=job, sample=sample)
    return ask.back(f"{HOME}/{made.label}/results", done="review_made")


async def show(ask: Ask) -> Response:
    """Show the form of a queue."""
    queue = await _queue(ask)
    people = await ask.of(progress.people, ask.db, ask.caller.tenant_id)
    return ask.render("review/queue.html", queue=queue, options=queue.options, people=people, job=queue.job, sample=queue.sample)


async def change(ask: Ask) -> Response:
    """Change a queue."""
    queue = await _queue(ask)
    await ask.of(queues.change, ask.db, queue, _options(ask, is_open="is_open" in ask.form))
    return ask.back(f"{HOME}/{queue.label}/results", done="review_changed")


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
    said = [
        (found.first_by, _word(found.first), category_names(Category(found.first_categories))),
        (found.second_by, _word(found.second), category_names(Category(found.second_categories))),
    ]
    return ask.render(
        "review/case.html", queue=queue, case=found, said=said, words=_word, severities=SEVERITIES, categories=CATEGORY_KEYS,
        text=None if shown.content is None else Text.of(shown.content, shown.evidence), verdict=shown.verdict,
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
    named = tuple(dict.fromkeys(one.strip() for one in ask.form.get("reviewers", "").splitlines() if one.strip()))
    return QueueOptions(
        name=ask.form.get("name", "").strip(),
        reviewers=named or None,
        second_share=ask.number("second", otherwise=10, most=100) / 100,
        golden_share=ask.number("golden", otherwise=0, most=100) / 100,
        break_after=ask.number("break_after", otherwise=20),
        shows_verdict="shows_verdict" in ask.form,
        lease_s=ask.number("lease_s", otherwise=900, most=MOST_LEASE_S),
        is_open=is_open,
    )


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
