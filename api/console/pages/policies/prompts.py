"""Policies for prompts: what detectors that take one judge by; their versions, and a new one."""

from typing import Any

from starlette.responses import Response

from api.console.asking import Ask
from api.console.lines import compared
from api.console.routing import action, page
from guardfleet.domain.versions import NotNewestError, name_of, parse
from guardfleet.errors import RejectedError
from guardfleet.store.policy import names, prompt_policies
from guardfleet.store.policy.prompt_policies import Version

AT_ONCE, MOST_VERSIONS = 50, 200
CONFLICT, UNPROCESSABLE = 409, 422


async def listing(ask: Ask) -> Response:
    """Show the names, the one that changed last first."""
    found = await ask.of(
        names.names, ask.db, ask.caller.tenant_id, "prompt_policy", after=ask.query.get("after"), limit=AT_ONCE + 1
    )
    after = found[AT_ONCE - 1].name if len(found) > AT_ONCE else None
    return ask.render("policies/prompts.html", found=found[:AT_ONCE], after=after)


async def show(ask: Ask) -> Response:
    """Show a version and the others of its name."""
    version = await _version(ask, f"{ask.path['name']}@{ask.path['version']}")
    beside = await ask.of(names.versions, ask.db, ask.caller.tenant_id, "prompt_policy", version.name, limit=MOST_VERSIONS)
    return ask.render("policies/prompt.html", version=version, versions=beside)


async def difference(ask: Ask) -> Response:
    """Compare two versions."""
    old, new = [await _version(ask, ask.query.get(which) or "?") for which in ("old", "new")]
    lines = await ask.of(compared, old.text, new.text)
    return ask.render("policies/diff.html", old=old.label, new=new.label, lines=lines, area="policies/prompts")


async def begin(ask: Ask) -> Response:
    """Show an empty text or a version's, ready to be changed."""
    start = ask.query.get("from")
    if start is None:
        return _editor(ask)
    version = await _version(ask, start)
    newest = await _version(ask, version.name)
    return _editor(ask, name=version.name, text=version.text, base=newest.label)


def _editor(ask: Ask, status: int = 200, **given: Any) -> Response:
    values: dict[str, Any] = {"name": "", "text": "", "base": "", "problem": None, "conflict": None, "lines": []}
    return ask.render("policies/prompt_edit.html", status, **(values | given))


async def save(ask: Ask) -> Response:
    """Store the next version, unless somebody has stored one since this one was begun."""
    given = {name: ask.form.get(name, "") for name in ("name", "base")}
    given["text"] = ask.form.get("text", "").replace("\r\n", "\n")
    seen = (parse(given["base"], "policy")[1] or 0) if name_of(given["base"]) == given["name"] else 0
    try:
        made, is_new = await ask.of(prompt_policies.add, ask.db, ask.caller.tenant_id, given["name"], given["text"], on_top_of=seen)
    except NotNewestError as error:
        newest = await _version(ask, error.newest)
        lines = await ask.of(compared, newest.text, given["text"])
        return _editor(ask, CONFLICT, **(given | {"base": newest.label, "conflict": newest.label, "lines": lines}))
    except RejectedError as error:
        return _editor(ask, UNPROCESSABLE, **given, problem=str(error))
    return ask.back(f"/console/policies/prompts/{made.label}", done="stored" if is_new else "unchanged")


async def _version(ask: Ask, label: str) -> Version:
    return await ask.of(prompt_policies.get, ask.db, ask.caller.tenant_id, label)


routes = [
    page("/policies/prompts", listing, scope="policies:read"),
    page("/policies/prompts/diff", difference, scope="policies:read"),
    page("/policies/prompts/new", begin, scope="policies:write"),
    action("/policies/prompts/save", save, scope="policies:write"),
    page("/policies/prompts/{name}@{version}", show, scope="policies:read"),
]
