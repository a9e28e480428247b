"""Reviewing: one text at a time, by keyboard; veiled until somebody looks, and never shown to who is not asked about it."""

import datetime as dt
import random
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from api.console.asking import NOTICES, Ask
from api.console.pages.review import queues as pages_of_queues
from api.console.pages.review.text import CATEGORY_KEYS, SEVERITIES, Text
from api.console.routing import action, page
from guardfleet.domain import ids
from guardfleet.domain.reviews import MOST_BREAK_AFTER, unsafe_since_rest
from guardfleet.domain.scopes import REVIEW
from guardfleet.domain.verdict import Severity
from guardfleet.jobs import reviewing
from guardfleet.store import sessions
from guardfleet.store.labels import people, queues, tasks
from guardfleet.store.labels.queues import Queue
from guardfleet.store.labels.tasks import Held, Outcome
from guardfleet.store.postgres import server

SCOPE = REVIEW
HOME = "/console/review"
SWITCHES = ("review_veil", "review_mask", "review_grey")  # on unless somebody turns them off
BREAK_AFTER, RESTED_AT = "review_break_after", "review_rested_at"
MOST_NUMBER = 2**63 - 1
NOTICES |= {
    "review_undone": "Taken back: decide again.",
    "review_skipped": "Skipped: it goes to somebody else.",
    "review_taken": "Your claim on that text was over, or it was decided elsewhere: nothing was stored. Here is the next one.",
    "review_gone": "That text was deleted meanwhile: nothing was stored.",
    "review_no_undo": "That decision can no longer be taken back.",
    "review_rested": "Welcome back.",
}
AFTER = {Outcome.TAKEN: "review_taken", Outcome.GONE: "review_gone"}
CHANCE = random.SystemRandom()


async def index(ask: Ask) -> Response:
    """List the queues in which the person reviews, and for operators all others too."""
    tenant_id, who = ask.caller.tenant_id, ask.session.who
    mine = await ask.of(queues.of_tenant, ask.db, tenant_id, who=who)
    every = await ask.of(queues.of_tenant, ask.db, tenant_id) if ask.may("batches:write") else []
    known = await ask.of(people.named, ask.db, tenant_id, {who for one in every for who in one.options.reviewers or ()})
    never = {one.id: sum(known[who].never for who in one.options.reviewers or ()) for one in every}
    return ask.render("review/index.html", mine=mine, every=every, never=never)


async def item(ask: Ask) -> Response:
    """Show the text that the person holds, or that nothing waits, or that a break is due."""
    queue = await _queue(ask)
    last = await ask.of(tasks.last, ask.db, queue, ask.session.who)
    unsafe = await _unsafe_since_rest(ask)
    after = break_after(ask, queue)
    if after and unsafe >= after:
        return ask.render("review/rest.html", queue=queue, unsafe=unsafe)
    task = await ask.of(tasks.of_person, ask.db, queue, ask.session.who)
    if task is None:
        return ask.render("review/none.html", queue=queue, last=last)
    shown = await ask.of(reviewing.show, ask.db, ask.context.keyring, task.job_id, task.seq)
    before = None if last is None else await ask.of(reviewing.show, ask.db, ask.context.keyring, last.job_id, last.seq)
    return ask.render(
        "review/item.html", queue=queue, task=task, last=last, severities=SEVERITIES, categories=CATEGORY_KEYS,
        text=None if shown.content is None else Text.of(shown.content, shown.evidence), prefers=preferences(ask),
        verdict=shown.verdict if queue.options.shows_verdict and not task.is_measured else None,
        said_before=before and before.verdict, severity_before=last and Severity(last.severity).label,
    )  # fmt: skip


async def following(ask: Ask) -> Response:
    """Take the next text."""
    return await _on(ask, await _queue(ask), "")


async def decide(ask: Ask) -> Response:
    """Store what the person says, and take the next text."""
    queue = await _queue(ask)
    if ask.form.get("label") not in SEVERITIES:
        return ask.back(f"{HOME}/{queue.label}", done="review_unsaid")
    given = reviewing.answer(
        ask.session.who,
        *_held(ask),
        label=ask.form["label"],
        categories=[value for name, value in ask.fields if name == "category"],
    )
    outcome = await ask.of(reviewing.decide, ask.db, queue, given)
    return await _on(ask, queue, AFTER.get(outcome, ""))


async def skip(ask: Ask) -> Response:
    """Give the text back, and take the next one."""
    queue = await _queue(ask)
    task_id, token = _held(ask)
    mine = Held(task_id, token, ask.session.who)
    outcome = await ask.of(reviewing.skip, ask.db, ask.context.keyring, queue, mine)
    return await _on(ask, queue, AFTER.get(outcome, "review_skipped"))


async def undo(ask: Ask) -> Response:
    """Take the last decision back; its text is shown again."""
    queue = await _queue(ask)
    outcome = await ask.of(tasks.undo, ask.db, queue, ask.session.who, _number(ask, "task"))
    return ask.back(f"{HOME}/{queue.label}", done="review_no_undo" if outcome is Outcome.TAKEN else "review_undone")


async def rest(ask: Ask) -> Response:
    """Note that the person has had a break, or goes on without one."""
    queue = await _queue(ask)
    await _prefer(ask, {RESTED_AT: (await ask.of(server.now, ask.db)).isoformat()})
    return await _on(ask, queue, "review_rested")


async def show_settings(ask: Ask) -> Response:
    """Show how the person wants texts shown."""
    return ask.render(
        "review/settings.html", prefers=preferences(ask), after=ask.session.preferences.get(BREAK_AFTER), most=MOST_BREAK_AFTER
    )


async def save_settings(ask: Ask) -> Response:
    """Store it."""
    wanted: dict[str, Any] = {name: name in ask.form for name in SWITCHES}
    given = ask.form.get(BREAK_AFTER, "")
    wanted[BREAK_AFTER] = None if not given else ask.number(BREAK_AFTER, otherwise=0, most=MOST_BREAK_AFTER)
    await _prefer(ask, wanted)
    return ask.back(f"{HOME}/settings", done="saved")


def preferences(ask: Ask) -> Mapping[str, bool]:
    """Return how the person wants texts shown."""
    return {name.removeprefix("review_"): ask.session.preferences.get(name) is not False for name in SWITCHES}


def break_after(ask: Ask, queue: Queue) -> int:
    """Return after how many unsafe texts a break is suggested: as the person prefers, else as the queue says; 0: never."""
    own = ask.session.preferences.get(BREAK_AFTER)
    return own if isinstance(own, int) else queue.options.break_after


async def _on(ask: Ask, queue: Queue, done: str) -> Response:
    await ask.of(reviewing.take, ask.db, queue, ask.session.who, rng=CHANCE)
    return ask.back(f"{HOME}/{queue.label}", done=done)


async def _queue(ask: Ask) -> Queue:
    public_id = ids.QUEUE.parse(ask.path["queue"])
    return await ask.of(reviewing.queue_for, ask.db, ask.caller.tenant_id, public_id, who=ask.session.who)


async def _unsafe_since_rest(ask: Ask) -> int:
    decided = await ask.of(tasks.decided, ask.db, ask.caller.tenant_id, ask.session.who)
    rested = ask.session.preferences.get(RESTED_AT)
    rested_at = dt.datetime.fromisoformat(rested) if isinstance(rested, str) else None
    return unsafe_since_rest(decided, rested_at=rested_at, now=await ask.of(server.now, ask.db))


async def _prefer(ask: Ask, wanted: Mapping[str, Any]) -> None:
    await ask.of(sessions.prefer, ask.db, ask.session, wanted)
    ask.access.forget(ask.access.token_of(ask.request) or "")


def _held(ask: Ask) -> tuple[int, int]:
    return _number(ask, "task"), ask.number("token", otherwise=0)


def _number(ask: Ask, name: str) -> int:
    return pages_of_queues.whole(ask.form.get(name, ""))


routes = [
    page("/review", index, scope=SCOPE),
    page("/review/settings", show_settings, scope=SCOPE),
    action("/review/settings", save_settings, scope=SCOPE),
    *pages_of_queues.routes,
    page("/review/{queue}", item, scope=SCOPE),
    action("/review/{queue}/next", following, scope=SCOPE),
    action("/review/{queue}/decide", decide, scope=SCOPE),
    action("/review/{queue}/skip", skip, scope=SCOPE),
    action("/review/{queue}/undo", undo, scope=SCOPE),
    action("/review/{queue}/rest", rest, scope=SCOPE),
]
