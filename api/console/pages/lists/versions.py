"""Lists: their names and versions, what a version looks for, how two of them differ, and which are applied."""

from starlette.responses import RedirectResponse, Response

from api.console.asking import Ask
from api.console.pages.lists import editing, trying
from api.console.pages.lists.documents import entries_read, version_of
from api.console.routing import action, page
from api.http.problems import ProblemError
from api.http.threads import beside
from guardfleet.lists import reading
from guardfleet.lists.document import Entry
from guardfleet.store.policy import lists, names, policies
from guardfleet.store.policy.lists import Version

AT_ONCE, MOST_VERSIONS = 50, 200
SHOWN = 100  # entries of a page
READ, WRITE = "policies:read", "policies:write"


async def listing(ask: Ask) -> Response:
    """Show the names, the one that changed last first."""
    found = await ask.of(names.names, ask.db, ask.caller.tenant_id, "term_list", after=ask.query.get("after"), limit=AT_ONCE + 1)
    after = found[AT_ONCE - 1].name if len(found) > AT_ONCE else None
    return ask.render("lists/list.html", found=found[:AT_ONCE], after=after)


async def newest(ask: Ask) -> Response:
    """Go to the newest version of a name."""
    found = await version_of(ask, ask.path["name"])
    return RedirectResponse(f"/console/lists/{found.label}", 303)


async def show(ask: Ask) -> Response:
    """Show a version without its entries: how many of which kind, and who asks for it."""
    version = await version_of(ask)
    beside_it = await ask.of(names.versions, ask.db, ask.caller.tenant_id, "term_list", version.name, limit=MOST_VERSIONS)
    return ask.render(
        "lists/version.html",
        version=version,
        kinds=await ask.of(lists.kinds, ask.db, version),
        versions=beside_it,
        active=next((one.label for one in beside_it if one.is_active), None),
        asked_by=await _asked_by(ask, version),
    )


async def _asked_by(ask: Ask, version: Version) -> list[tuple[str, str]]:
    """Return the rules of the policy that is applied, or of the shadow, that ask for the list."""
    applied = await ask.of(policies.applied_labels, ask.db, ask.caller.tenant_id)
    out = list[tuple[str, str]]()
    for label in filter(None, applied.values()):
        found = await ask.of(policies.get, ask.db, ask.caller.tenant_id, label)
        for rule in found.document.get("rules") or ():
            if isinstance(rule, dict) and version.name in ((rule.get("when") or {}).get("lists") or ()):
                out.append((label, str(rule.get("id"))))
    return out


async def entries(ask: Ask) -> Response:
    """Show a page of a version's entries, which is recorded."""
    version = await version_of(ask)
    at = ask.number("at", otherwise=0)
    found = await entries_read(ask, version)
    uses = await ask.of(lists.uses, ask.db, ask.caller.tenant_id, version.name)
    rows = [(entry, uses.get(entry.name)) for entry in found[at : at + SHOWN]]
    return ask.render("lists/entries.html", version=version, rows=rows, at=at, shown=SHOWN)


async def difference(ask: Ask) -> Response:
    """Say how many entries two versions do not share; the entries themselves only after a form has asked for them."""
    old, new = [await version_of(ask, ask.query.get(which) or "?") for which in ("old", "new")]
    return await _difference(ask, old, new, with_entries=False)


async def difference_with_entries(ask: Ask) -> Response:
    """Show the entries that two versions do not share, which is recorded."""
    old, new = [await version_of(ask, ask.form.get(which) or "?") for which in ("old", "new")]
    return await _difference(ask, old, new, with_entries=True)


async def _difference(ask: Ask, old: Version, new: Version, *, with_entries: bool) -> Response:
    read = entries_read if with_entries else _entries_counted
    both = [await read(ask, version) for version in (old, new)]
    found = await beside(ask.context.body_threads, reading.difference, *both)
    return ask.render("lists/diff.html", old=old.label, new=new.label, found=found, with_entries=with_entries, shown=SHOWN)


async def _entries_counted(ask: Ask, version: Version) -> list[Entry]:
    return await beside(ask.context.body_threads, lists.entries, ask.db, version)


async def activate(ask: Ask) -> Response:
    """Look for a version from now on; going back is the same."""
    version = await version_of(ask)
    await ask.of(lists.activate, ask.db, version)
    return ask.back(f"/console/lists/{version.label}", done="activated")


async def deactivate(ask: Ask) -> Response:
    """Look for a version no longer."""
    version = await version_of(ask)
    if not await ask.of(lists.deactivate, ask.db, version):
        raise ProblemError(409, "list_not_active", f"{version.label} is not active.")
    return ask.back(f"/console/lists/{version.label}", done="deactivated")


LABEL = "{name}@{version}"
routes = [
    page("/lists", listing, scope=READ),
    page("/lists/diff", difference, scope=READ),
    action("/lists/diff", difference_with_entries, scope=READ),
    page("/lists/named/{name}", newest, scope=READ),
    *editing.routes,
    *trying.routes,
    page(f"/lists/{LABEL}", show, scope=READ),
    action(f"/lists/{LABEL}/entries", entries, scope=READ),
    action(f"/lists/{LABEL}/activate", activate, scope=WRITE),
    action(f"/lists/{LABEL}/deactivate", deactivate, scope=WRITE),
]
