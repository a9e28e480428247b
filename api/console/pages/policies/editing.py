"""Write a policy: from a preset or a version, checked while it is typed, and stored as the next version of its name."""

from typing import Any

from starlette.responses import Response

from api.console.asking import Ask
from api.console.lines import compared
from api.console.pages.policies.documents import Checked, checked, version_of, written
from api.console.routing import action, page
from guardfleet.domain.versions import NotNewestError, name_of, parse
from guardfleet.errors import NotFoundError
from guardfleet.policy import presets, writing
from guardfleet.policy.document import Policy
from guardfleet.store.policy import policies

UNPROCESSABLE, CONFLICT = 422, 409


async def begin(ask: Ask) -> Response:
    """Show a preset or a version, ready to be changed."""
    if (start := ask.query.get("from")) is not None:
        version = await version_of(ask, start)
        newest = await version_of(ask, version.name)
        return await _editor(ask, written(version), base=newest.label)
    text = presets.text(ask.query.get("preset", "strict"))
    return await _editor(ask, text, base=await _newest_of(ask, text))


async def _newest_of(ask: Ask, text: str) -> str:
    """Return the newest version of the name that a document has; empty if there is none."""
    policy = (await checked(ask, text)).policy
    if policy is None:
        return ""
    try:
        return (await version_of(ask, policy.name)).label
    except NotFoundError:
        return ""


async def _editor(ask: Ask, text: str, *, base: str, found: Checked | None = None, status: int = 200, **more: Any) -> Response:
    found = await checked(ask, text) if found is None else found
    values: dict[str, Any] = {"conflict": None, "lines": [], "document": text, "base": base, "found": found}
    return ask.render("policies/edit.html", status, **(values | more))


async def check(ask: Ask) -> Response:
    """Say what is wrong with a document; nothing is stored."""
    text = _document(ask)
    found = await checked(ask, text)
    if ask.is_fragment:
        return ask.render("policies/problems.html", found=found)
    return await _editor(ask, text, base=ask.form.get("base", ""), found=found)


async def save(ask: Ask) -> Response:
    """Store the next version, unless somebody has stored one since this one was begun: then show what that changed."""
    text, base = _document(ask), ask.form.get("base", "")
    found = await checked(ask, text)
    if found.policy is None:
        return await _editor(ask, text, base=base, found=found, status=UNPROCESSABLE)
    seen = _version_seen(base, found.policy)
    try:
        made, is_new = await ask.of(policies.add, ask.db, ask.caller.tenant_id, found.policy, on_top_of=seen)
    except NotNewestError as error:
        newest = await version_of(ask, error.newest)
        lines = await ask.of(compared, written(newest), writing.write(found.policy))
        more = {"conflict": newest.label, "lines": lines}
        return await _editor(ask, text, base=newest.label, found=found, status=CONFLICT, **more)
    return ask.back(f"/console/policies/{made.label}", done="stored" if is_new else "unchanged")


def _version_seen(base: str, policy: Policy) -> int:
    """Return the version of the policy's name that its writer has seen; 0: none."""
    if name_of(base) != policy.name:
        return 0
    return parse(base, "policy")[1] or 0


def _document(ask: Ask) -> str:
    return ask.form.get("document", "").replace("\r\n", "\n")


routes = [
    page("/policies/new", begin, scope="policies:read"),
    action("/policies/check", check, scope="policies:read"),
    action("/policies/save", save, scope="policies:write"),
]
