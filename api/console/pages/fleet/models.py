"""Models: what was deployed, how it compares, and the verbs of `guardfleet models`.

They concern all tenants: the tenant `default` alone sees them, and of it those alone change them who may change its policies.
"""

from typing import Any

from starlette.responses import Response

from api.console.asking import Ask
from api.console.pages.fleet.area import FLEET, show
from api.console.routing import action, page
from api.http.problems import ProblemError
from guardfleet.domain.states import DeploymentState
from guardfleet.domain.verdict import GUARD
from guardfleet.errors import RejectedError
from guardfleet.jobs import deploying
from guardfleet.sampling.estimates import share_of
from guardfleet.store.deployments import comparisons, deployments, flips, seats
from guardfleet.store.deployments.row import Asked, Deployment

MODELS = f"{FLEET}/models"
HOW = {"canary": DeploymentState.CANARY, "shadow": DeploymentState.SHADOW, "all": DeploymentState.ROLLING}
SHOWN = 20  # flips of a kind, and texts that were judged differently
LEAST_TEXTS, MOST_TEXTS = 50, 1_000_000


async def listing(ask: Ask) -> Response:
    """Show the newest deployments, and the form of a new one."""
    _require_sight(ask)
    found = await ask.of(deployments.every, ask.db)
    may_change = deploying.may_change(ask.caller)
    return show(
        ask, "models.html", "models", deployments=found, under_way=deploying.UNDER_WAY, may_change=may_change, how=HOW, guard=GUARD,
        can_go_back=_detectors_to_roll_back(found),
    )  # fmt: skip


async def one(ask: Ask) -> Response:
    """Show all that is known of a deployment. Texts are named by their place, and only those of the person's own jobs."""
    _require_sight(ask)
    found = await _found(ask)
    cells = await ask.of(comparisons.cells, ask.db, found.id)
    places = await ask.of(comparisons.places, ask.db, found.id, limit=SHOWN, tenant_id=ask.caller.tenant_id)
    values: dict[str, Any] = {
        "one": found,
        "agreement": share_of(found.agreed, found.compared),
        "changes": flips.changes(cells),
        "flips": {kind: list(flips.by(cells, kind).items())[:SHOWN] for kind in flips.kinds(found.detector)},
        "places": places,
        "seats": await ask.of(seats.there, ask.db, found.detector),
        "is_under_way": found.told in deploying.UNDER_WAY,
        "is_compared": found.told in (DeploymentState.SHADOW, DeploymentState.CANARY),
        "may_change": deploying.may_change(ask.caller),
    }
    return show(ask, "model.html", "models", **values)


async def deploy(ask: Ask) -> Response:
    """Store a deployment, which workers take up within seconds."""
    _require_change(ask)
    form = {name: value.strip() for name, value in ask.form.items()}
    how = HOW.get(form.get("how", ""))
    if how is None:
        raise RejectedError("choose how to deploy it: to a share first, beside the others, or to all workers.", param="how")
    is_canary = how is DeploymentState.CANARY
    asked = Asked(
        detector=form.get("detector", GUARD),
        model=form.get("model", ""),
        revision=form.get("revision") or None,
        state=how,
        share=0.0 if how is DeploymentState.ROLLING else deploying.share_of(f"{form.get('share', '')}%", "share"),
        canary_texts=ask.number("canary_texts", otherwise=1000, least=LEAST_TEXTS, most=MOST_TEXTS) if is_canary else 0,
        min_agreement=ask.number("min_agreement", otherwise=98, most=100) / 100 if is_canary else 0.0,
    )
    made = await ask.of(deploying.begin, ask.db, ask.context.keyring, asked)
    return ask.back(f"{MODELS}/{made.label}", done="deployed")


async def promote(ask: Ask) -> Response:
    """Roll a shadow or a canary out."""
    _require_change(ask)
    found = await _found(ask)
    await ask.of(deployments.promote, ask.db, found)
    return ask.back(f"{MODELS}/{found.label}", done="promoted")


async def stop(ask: Ask) -> Response:
    """End a candidate."""
    _require_change(ask)
    found = await _found(ask)
    await ask.of(deployments.stop, ask.db, found)
    return ask.back(f"{MODELS}/{found.label}", done="stopped")


async def roll_back(ask: Ask) -> Response:
    """Have the model from before served again."""
    _require_change(ask)
    await ask.of(deployments.roll_back, ask.db, deploying.detector_of(ask.form.get("detector", "")))
    return ask.back(MODELS, done="rolled_back")


async def _found(ask: Ask) -> Deployment:
    return await ask.of(deployments.get, ask.db, ask.path["deployment"], detector=GUARD)


def _detectors_to_roll_back(found: list[Deployment]) -> list[str]:
    """Return the detectors that have something to go back from, as `roll_back` sees it."""
    gone = (DeploymentState.CANARY, DeploymentState.ROLLING, DeploymentState.ACTIVE)
    return sorted({one.detector for one in found if one.told in gone})


def _require_sight(ask: Ask) -> None:
    if not deploying.may_see(ask.caller):
        raise ProblemError(404, "not_found", "There is no such page.")


def _require_change(ask: Ask) -> None:
    _require_sight(ask)
    if not deploying.may_change(ask.caller):
        detail = f"the models judge all tenants' texts: {deploying.CHANGES} in the tenant default is needed."
        raise ProblemError(403, "insufficient_scope", detail)


routes = [
    page("/fleet/models", listing, scope="batches:read"),
    action("/fleet/models", deploy, scope=deploying.CHANGES),
    action("/fleet/models/roll-back", roll_back, scope=deploying.CHANGES),
    page("/fleet/models/{deployment}", one, scope="batches:read"),
    action("/fleet/models/{deployment}/promote", promote, scope=deploying.CHANGES),
    action("/fleet/models/{deployment}/stop", stop, scope=deploying.CHANGES),
]
