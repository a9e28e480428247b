"""Write a list: typed, pasted or from a file, checked while it is typed, and stored as the next version of its name."""

import re
from typing import Any

from starlette.responses import Response

from api.console.asking import Ask
from api.console.pages.lists.documents import Checked, checked, entries_read, version_of
from api.console.routing import action, page
from api.http.problems import ProblemError
from api.http.threads import beside
from guardfleet.domain.versions import NotNewestError, name_of, parse
from guardfleet.lists import reading
from guardfleet.lists.document import Entry
from guardfleet.policy.document import WORD
from guardfleet.store.policy import lists
from guardfleet.store.policy.lists import Version

MOST_EDITED = 2 << 20  # characters that an editor is given
SHOWN = 100  # entries of a comparison
UNPROCESSABLE, CONFLICT = 422, 409
BEGINNING = "value,id,decide,categories\n"


async def begin(ask: Ask) -> Response:
    """Show an empty list."""
    return _editor(ask, text=BEGINNING, form="csv")


async def edit(ask: Ask) -> Response:
    """Show a version's entries, ready to be changed, which is recorded."""
    version = await version_of(ask)
    found = await entries_read(ask, version)
    text = await beside(ask.context.body_threads, _written, found)
    if len(text) > MOST_EDITED:
        raise ProblemError(413, "too_large", f"{version.label} is too long for an editor: use `guardfleet lists export`.")
    newest = await version_of(ask, version.name)
    return _editor(ask, name=version.name, text=text, form="csv", base=newest.label)


def _written(entries: list[Entry]) -> str:
    return "".join(reading.write(entries, "csv")).replace("\r\n", "\n")


def _editor(ask: Ask, status: int = 200, **given: Any) -> Response:
    values: dict[str, Any] = {"name": "", "text": "", "form": "csv", "base": "", "found": None, "problem": None}
    return ask.render("lists/edit.html", status, **(values | {"conflict": None, "difference": None, "shown": SHOWN} | given))


async def check(ask: Ask) -> Response:
    """Say what is wrong with a list; nothing is stored."""
    given = _given(ask)
    found = await checked(ask, given["text"], given["form"])
    if ask.is_fragment:
        return ask.render("lists/problems.html", found=found)
    return _editor(ask, **given, found=found)


async def save(ask: Ask) -> Response:
    """Store the next version, unless somebody has stored one since this one was begun: then show what that changed."""
    given = _given(ask)
    found = await checked(ask, given["text"], given["form"])
    problem = None if re.fullmatch(WORD, given["name"]) else ask.say("A name has letters, digits, and _ . : -, up to 64.")
    if found.entries is None or problem is not None:
        return _editor(ask, UNPROCESSABLE, **given, found=found, problem=problem)
    seen = (parse(given["base"], "list")[1] or 0) if name_of(given["base"]) == given["name"] else 0
    try:
        made, is_new = await ask.of(lists.add, ask.db, ask.caller.tenant_id, given["name"], found.entries, on_top_of=seen)
    except NotNewestError as error:
        return await _conflict(ask, given, found, await version_of(ask, error.newest))
    return ask.back(f"/console/lists/{made.label}", done="stored" if is_new else "unchanged")


async def _conflict(ask: Ask, given: dict[str, Any], found: Checked, newest: Version) -> Response:
    stored = await entries_read(ask, newest)
    changes = await beside(ask.context.body_threads, reading.difference, stored, found.entries or [])
    more = {"base": newest.label, "conflict": newest.label, "difference": changes, "found": found}
    return _editor(ask, CONFLICT, **(given | more))


def _given(ask: Ask) -> dict[str, Any]:
    given = {name: ask.form.get(name, "") for name in ("name", "form", "base")}
    return given | {"text": ask.form.get("entries", "").replace("\r\n", "\n")}


routes = [
    page("/lists/new", begin, scope="policies:write"),
    action("/lists/{name}@{version}/edit", edit, scope="policies:write"),
    action("/lists/check", check, scope="policies:read", most_bytes=None),
    action("/lists/save", save, scope="policies:write", most_bytes=None),
]
