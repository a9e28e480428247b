"""A policy over stored verdicts: tried, which writes nothing, and applied; a few seconds a pass, with what earlier passes found."""

import hashlib
from typing import Any

from starlette.responses import Response

from api.console.asking import Ask
from api.console.carried import opened, sealed
from api.console.pages.policies.documents import checked, version_of, written
from api.console.routing import action, page
from api.http.problems import ProblemError
from api.http.threads import beside
from api.services.policy_passes import PER_HOUR, place_of, redecided, tried
from api.services.stored_scope import scope_of
from guardfleet.jobs.simulation import added
from guardfleet.policy.document import Action, Policy
from guardfleet.store.policy.decisions import Scope
from guardfleet.store.postgres import server

PASS_S = 4  # what a person waits for
DAYS, MOST_DAYS, DAY_S = 7, 3650, 86_400
MOST_PER_HOUR = 1_000_000
UNPROCESSABLE = 422
OLD = (*(action.label for action in Action), "none")


async def ask_simulation(ask: Ask) -> Response:
    """Ask on what a version is to be tried."""
    version = await version_of(ask, ask.query.get("version") or "?")
    return _page(ask, written(version), batch=ask.query.get("batch", ""))


async def simulate(ask: Ask) -> Response:
    """Try a document: the first pass, or the next one; without a scope, ask for it."""
    text = ask.form.get("document", "").replace("\r\n", "\n")
    found = await checked(ask, text)
    if found.policy is None:
        return ask.render("policies/edit.html", UNPROCESSABLE, document=text, base="", found=found, conflict=None, lines=[])
    if "so_far" in ask.form:
        carried = opened(ask, "simulation", ask.form["so_far"])
        if carried["document"] != _digest(text):
            raise ProblemError(400, "invalid_form", "the policy was changed between two passes: begin again.")
    elif "days" in ask.form or "batch" in ask.form:
        carried = {"document": _digest(text), "told": None, "next": None, **await _asked(ask)}
    else:
        return _page(ask, text)
    told = await _pass(ask, found.policy, carried)
    seal = None if told["complete"] else sealed(ask, "simulation", carried | {"told": told, "next": told["next"]})
    if ask.is_fragment:
        return ask.render("policies/result.html", document=text, told=told, so_far=seal, old=OLD, asked=carried)
    return _page(ask, text, told=told, so_far=seal, asked=carried, batch=carried["batch"] or "")


async def _asked(ask: Ask) -> dict[str, Any]:
    """Return what a form asks for: a job, or the last days."""
    batch = ask.form.get("batch", "").strip() or None
    days = ask.number("days", otherwise=DAYS, least=1, most=MOST_DAYS)
    since = None if batch else (await ask.of(server.now, ask.db)).timestamp() - DAY_S * days
    return {
        "batch": batch,
        "since": since,
        "per_hour": ask.number("per_hour", otherwise=int(PER_HOUR), least=1, most=MOST_PER_HOUR),
    }


async def _scope(ask: Ask, asked: dict[str, Any]) -> Scope:
    return await ask.of(scope_of, ask.db, ask.caller.tenant_id, asked["batch"], asked["since"])


async def _pass(ask: Ask, policy: Policy, carried: dict[str, Any]) -> dict[str, Any]:
    """Look at more verdicts; return what all passes found together."""
    scope = await _scope(ask, carried)
    start = await ask.of(place_of, ask.db, scope, carried["next"])
    with ask.context.passes.taken(ask.caller.key_id):
        told = await beside(ask.context.pass_threads, tried, ask.db, policy, scope, start, PASS_S, carried["per_hour"])
    return added(carried["told"], told)


def _page(ask: Ask, text: str, **more: Any) -> Response:
    values: dict[str, Any] = {"document": text, "told": None, "so_far": None, "old": OLD, "asked": None, "batch": "", "days": DAYS}
    return ask.render("policies/simulate.html", **(values | {"per_hour": int(PER_HOUR)} | more))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


async def ask_redecision(ask: Ask) -> Response:
    """Ask to which stored verdicts a version is to be applied."""
    version = await version_of(ask)
    return ask.render("policies/redecide.html", version=version, days=DAYS, told=None, so_far=None, done=0)


async def redecide(ask: Ask) -> Response:
    """Decide of more stored verdicts by a version; what it has decided of is left as it is."""
    version = await version_of(ask)
    given = ask.form.get("so_far")
    carried = {"done": 0, **await _asked(ask)} if given is None else opened(ask, f"redecision.{version.id}", given)
    scope = await _scope(ask, carried)
    with ask.context.passes.taken(ask.caller.key_id):
        told = await beside(ask.context.pass_threads, redecided, ask.db, version, scope, PASS_S)
    done = carried["done"] + told["texts"]
    seal = None if told["complete"] else sealed(ask, f"redecision.{version.id}", carried | {"done": done})
    template = "policies/redecided.html" if ask.is_fragment else "policies/redecide.html"
    return ask.render(template, version=version, days=DAYS, told=told, so_far=seal, done=done)


LABEL = "{name}@{version}"
routes = [
    page("/policies/simulate", ask_simulation, scope="policies:read"),
    action("/policies/simulate", simulate, scope="policies:read"),
    page(f"/policies/{LABEL}/redecide", ask_redecision, scope="policies:write"),
    action(f"/policies/{LABEL}/redecide", redecide, scope="policies:write"),
]
