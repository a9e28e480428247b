"""Verdicts of all jobs: found by filters, one with all that is known of it, its text, and words looked for in texts."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from starlette.responses import Response

from api.console.asking import Ask
from api.console.routing import action, page
from api.http.problems import ProblemError
from guardfleet.domain.decision import ACTIONS
from guardfleet.domain.detection import Outcome
from guardfleet.domain.ids import JOB
from guardfleet.domain.verdict import ERROR_CODES
from guardfleet.errors import NotFoundError, RejectedError
from guardfleet.store import audit, models
from guardfleet.store.browsing import details, pages, searching
from guardfleet.store.browsing.details import Detail
from guardfleet.store.jobs import texts
from guardfleet.verdicts.cursors import pack_place, unpack_place
from guardfleet.verdicts.filters import CATEGORIES, SEVERITIES
from guardfleet.verdicts.page import Content, Cursor, Page
from guardfleet.verdicts.wanted import PROBABILITIES, Place, Wanted

PATH = "/console/verdicts"
PER_PAGE = 50
MOST_WORDS = 200  # characters
MOST_SHOWN = 20_000  # characters of a text, or of another value that somebody wrote
MOST_SEQ = 2**31 - 1
FIELDS = ("severity", "category", "action", "row", "finding", "of", "least", "most", "error", "job", "since", "until")
OUTCOMES = [outcome.label for outcome in Outcome if outcome is not Outcome.LABELLED]
FEW = ("severity", "category", "action", "row")  # the filters that are always seen


async def browse(ask: Ask) -> Response:
    """Show a page of the verdicts that the filters ask for."""
    asked = _asked(ask.query)
    after = _after(ask, ask.query.get("after"))
    wanted = Wanted.of(_words(asked))
    tenant_id = ask.caller.tenant_id

    def look() -> dict[str, Any]:
        found = pages.page(ask.db, tenant_id, wanted, after, limit=PER_PAGE)
        of_all, is_all = (0, True) if found.is_full else pages.total(ask.db, tenant_id, wanted.job)
        return {
            "rows": details.of_hits(ask.db, found.hits),
            "found": found,
            "total": of_all,
            "is_all": is_all,
            "labels": {} if ask.is_fragment else models.labels_of_detectors(ask.db),
        }

    shown = await ask.of(look)
    reached = _packed(ask, shown["found"].reached)
    more = f"{PATH}?{urlencode(asked | {'after': reached})}" if reached else ""
    is_going_on = ask.is_fragment and "on" in ask.query and bool(more) and not shown["rows"]
    template = "verdicts/found.html" if ask.is_fragment else "verdicts/list.html"
    return ask.render(template, asked=asked, more=more, reached=reached, is_going_on=is_going_on, **_choices(), **shown)


async def search(ask: Ask) -> Response:
    """Look for words in the texts that are kept of the verdicts that the filters ask for."""
    asked, words = _asked(ask.form), ask.form.get("words", "").strip()
    if not words or len(words) > MOST_WORDS:
        raise ProblemError(400, "invalid_parameter", f"write what to look for, at most {MOST_WORDS} characters.", param="words")
    after = _after(ask, ask.form.get("after"))
    wanted, tenant_id = Wanted.of(_words(asked)), ask.caller.tenant_id

    def look() -> dict[str, Any]:
        found = searching.search(ask.db, ask.context.keyring, tenant_id, wanted, words, after, limit=PER_PAGE)
        of_all, is_all = pages.total(ask.db, tenant_id, wanted.job)
        rows = details.of_hits(ask.db, found.hits)
        jobs = [row["job"].label for row in rows]
        for label in dict.fromkeys(jobs):
            audit.note(ask.db, tenant_id, "job.read", label, by="search", texts=jobs.count(label))
        return {"found": found, "rows": rows, "total": of_all, "is_all": is_all}

    shown = await ask.of(look)
    reached = _packed(ask, shown["found"].reached)
    return ask.render("verdicts/search.html", asked=asked, words=words, reached=reached, **_choices(), **shown)


async def show(ask: Ask) -> Response:
    """Show one verdict with all that is known of it."""
    one = await ask.of(_one, ask)
    return ask.render("verdicts/verdict.html", one=one, written=_written(one), content=None, most=MOST_SHOWN)


async def show_text(ask: Ask) -> Response:
    """Show the text of a verdict, and record that somebody read it."""

    def read() -> tuple[Detail, Content | None]:
        one = _one(ask)
        bare = Page([one.row], {}, Cursor())
        (read,) = texts.beside(ask.db, ask.context.keyring, one.job, [bare])
        (content,) = read.contents or (None,)
        if content is not None:
            audit.note(ask.db, ask.caller.tenant_id, "job.read", one.job.label, by="place", seq=one.row.seq, texts=1)
        return one, content

    one, content = await ask.of(read)
    if content is None:
        raise NotFoundError("its text is not kept any more: only the verdict is left.")
    template = "verdicts/text.html" if ask.is_fragment else "verdicts/verdict.html"
    turns = [{"role": "", "content": content}] if isinstance(content, str) else content
    return ask.render(template, one=one, written=_written(one), content=turns, most=MOST_SHOWN)


def _one(ask: Ask) -> Detail:
    seq = ask.path["seq"]
    if not (seq.isascii() and seq.isdecimal() and len(seq) < 11 and int(seq) <= MOST_SEQ):  # noqa: PLR2004
        raise NotFoundError("there is no such verdict.")
    return details.one(ask.db, ask.caller.tenant_id, JOB.parse(ask.path["job"]), int(seq))


def _written(one: Detail) -> dict[str, str]:
    """Return what is shown as it is stored: evidence that has no table of its own, and the caller's metadata."""
    told = {"metadata": one.said["metadata"], "evidence": one.said["evidence"]}
    return {name: json.dumps(value, indent=2, ensure_ascii=False) for name, value in told.items() if value is not None}


def _asked(given: Mapping[str, str]) -> dict[str, str]:
    """Return what was asked for, as the form has it."""
    asked = {name: given[name].strip() if name != "row" else given[name] for name in FIELDS if given.get(name)}
    if not {"least", "most"} & asked.keys():
        asked.pop("of", None)  # the choice of a probability, without a range
    return asked


def _words(asked: Mapping[str, str]) -> dict[str, str]:
    """Return the same as `Wanted` takes it: a finding is a detector, and a label of it behind a colon."""
    detector, _, label = asked.get("finding", "").partition(":")
    return {**asked, "detector": detector, "label": label}


def _after(ask: Ask, packed: str | None) -> Place | None:
    if not packed:
        return None
    if not packed.isascii():
        raise RejectedError("this link to a next page is none of yours, or was cut off: begin with the first page.", param="after")
    return unpack_place(packed, tenant_id=ask.caller.tenant_id, keys=ask.context.keyring.cursor_keys)


def _packed(ask: Ask, place: Place | None) -> str:
    return "" if place is None else pack_place(place, tenant_id=ask.caller.tenant_id, key=ask.context.keyring.cursor_keys[0])


def _choices() -> dict[str, Any]:
    return {
        "severities": list(SEVERITIES), "categories": list(CATEGORIES), "actions": ACTIONS, "codes": list(ERROR_CODES),
        "chances": list(PROBABILITIES), "outcomes": OUTCOMES, "few": FEW,
    }  # fmt: skip


routes = [
    page("/verdicts", browse, scope="batches:read"),
    action("/verdicts/search", search, scope="batches:read"),
    page("/verdicts/{job}/{seq}", show, scope="batches:read"),
    action("/verdicts/{job}/{seq}/text", show_text, scope="batches:read"),
]
