"""Policies: their names and versions, what each says, how two of them differ, and which are applied."""

from starlette.responses import Response

from api.console.asking import Ask
from api.console.lines import compared
from api.console.pages.policies import editing, passes, prompts
from api.console.pages.policies.documents import understood, unknown, version_of, written
from api.console.pages.policies.words import conditions
from api.console.routing import action, page
from api.http.problems import ProblemError
from guardfleet.jobs.redecide import ready
from guardfleet.policy import presets
from guardfleet.store.policy import names, policies
from guardfleet.store.policy.policies import Version

AT_ONCE, MOST_VERSIONS = 50, 200
READ, WRITE = "policies:read", "policies:write"


async def listing(ask: Ask) -> Response:
    """Show the names, the one that changed last first."""
    found = await ask.of(names.names, ask.db, ask.caller.tenant_id, "policy", after=ask.query.get("after"), limit=AT_ONCE + 1)
    applied = await ask.of(policies.applied_labels, ask.db, ask.caller.tenant_id)
    after = found[AT_ONCE - 1].name if len(found) > AT_ONCE else None
    return ask.render("policies/list.html", found=found[:AT_ONCE], applied=applied, after=after, presets=list(presets.PRESETS))


async def show(ask: Ask) -> Response:
    """Show a version: what it says, in words and as it is written, and the other versions of its name."""
    version = await version_of(ask)
    policy = understood(version)
    beside = await ask.of(names.versions, ask.db, ask.caller.tenant_id, "policy", version.name, limit=MOST_VERSIONS)
    return ask.render(
        "policies/version.html",
        version=version,
        policy=policy,
        rules=[(rule, conditions(ask.say, rule.when)) for rule in policy.rules] if policy else [],
        unknown=await unknown(ask, policy) if policy else {"unknown_lists": [], "unknown_detectors": []},
        lines=written(version).splitlines(),
        versions=beside,
        replaces=await _applied_beside(ask, version),
    )


async def _applied_beside(ask: Ask, version: Version) -> str | None:
    """Return the version in whose place this one is, or would be, applied."""
    applied = await ask.of(policies.applied_labels, ask.db, ask.caller.tenant_id)
    return applied["shadow" if version.shadow else "active"]


async def activate(ask: Ask) -> Response:
    """Apply a version from now on; going back is the same."""
    version = await version_of(ask)
    await ask.of(ready, version)
    await ask.of(policies.activate, ask.db, version)
    return ask.back(f"/console/policies/{version.label}", done="activated")


async def deactivate(ask: Ask) -> Response:
    """Apply a version no longer."""
    version = await version_of(ask)
    if not await ask.of(policies.deactivate, ask.db, version):
        raise ProblemError(409, "policy_not_active", f"{version.label} is not active.")
    return ask.back(f"/console/policies/{version.label}", done="deactivated")


async def difference(ask: Ask) -> Response:
    """Compare two versions, of whichever names."""
    old, new = [await version_of(ask, ask.query.get(which) or "?") for which in ("old", "new")]
    lines = await ask.of(compared, written(old), written(new))
    return ask.render("policies/diff.html", old=old.label, new=new.label, lines=lines, area="policies")


LABEL = "{name}@{version}"
routes = [
    page("/policies", listing, scope=READ),
    page("/policies/diff", difference, scope=READ),
    *editing.routes,
    *passes.routes,
    *prompts.routes,
    page(f"/policies/{LABEL}", show, scope=READ),
    action(f"/policies/{LABEL}/activate", activate, scope=WRITE),
    action(f"/policies/{LABEL}/deactivate", deactivate, scope=WRITE),
]
