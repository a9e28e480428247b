"""`guardfleet models`: deploy, try, compare, go back; and what of it can be seen."""

import json
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

from guardfleet.cli import DONE, FAILED_ROWS, comparison, terminal
from guardfleet.domain.states import DeploymentState
from guardfleet.domain.verdict import GUARD
from guardfleet.embedded.stack import database_of
from guardfleet.errors import RejectedError
from guardfleet.jobs import deploying
from guardfleet.jobs.deploying import UNDER_WAY
from guardfleet.sampling.estimates import share_of
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings
from guardfleet.store.deployments import comparisons, deployments, seats
from guardfleet.store.deployments.row import Asked, Deployment
from guardfleet.store.postgres.database import Database

POLL_S = 0.5


def deploy(
    settings: Settings,
    model: str,
    *,
    revision: str | None,
    detector: str,
    canary: str | None,
    canary_texts: int,
    min_agreement: float,
    golden: str | None,
    golden_accuracy: float,
    label_field: str | None,
    positive: str | None,
    alone: bool,
    wait: bool,
    reading: Any,
) -> int:
    """Store the deployment, which workers take up; print its label."""
    if alone and canary is not None:
        raise RejectedError("--canary compares two models in one worker, --alone allows one: give one of them.")
    if (label_field or positive) and (golden is None or detector == GUARD):
        raise RejectedError("--label-field and --positive are for the --golden rows of another --detector than the guard.")
    asked = Asked(
        detector=deploying.detector_of(detector),
        model=model,
        revision=revision,
        state=DeploymentState.CANARY if canary is not None else DeploymentState.ROLLING,
        share=deploying.share_of(canary, "--canary") if canary is not None else 0.0,
        canary_texts=canary_texts,
        min_agreement=min_agreement,
        alone=alone,
        golden_accuracy=golden_accuracy,
    )
    with _database(settings) as (db, complete):
        if golden is not None:
            from guardfleet.cli.golden_rows import golden_rows

            rows = golden_rows(complete, db, detector, golden, reading, label_field=label_field, positive=positive)
            asked = replace(asked, golden=rows)
        return _begin(db, complete, asked, wait=wait)


def shadow(settings: Settings, model: str, *, revision: str | None, detector: str, share: str) -> int:
    """Store a shadow, which workers take up; print its label."""
    asked = Asked(
        detector=deploying.detector_of(detector),
        model=model,
        revision=revision,
        state=DeploymentState.SHADOW,
        share=deploying.share_of(share, "--share"),
    )
    with _database(settings) as (db, complete):
        return _begin(db, complete, asked, wait=False)


def listing(settings: Settings, *, as_json: bool) -> int:
    """Print the newest deployments and what each worker of their detectors serves."""
    with _database(settings) as (db, _):
        found = deployments.every(db)
        workers = [seat for detector in sorted({one.detector for one in found}) for seat in seats.there(db, detector)]
    if as_json:
        for one in found:
            print(json.dumps(_as_dict(one)))
        return DONE
    for one in found:
        print(f"{one.changed_at:%Y-%m-%d %H:%M:%S}  {one.label}  {one.detector}  {one.version}  {_state(one)}")
    for seat in workers:
        terminal.say(f"  {seat.worker} of {seat.detector} serves {_served(seat)}" + (f": {seat.reason}" if seat.reason else ""))
    if not found:
        terminal.say("nothing was deployed: workers serve the model of their settings")
    return DONE


def show(settings: Settings, label: str | None, *, detector: str, as_json: bool) -> int:
    """Print all that is known of one."""
    with _database(settings) as (db, _):
        one = deployments.get(db, label, detector=deploying.detector_of(detector))
        cells, places = comparisons.cells(db, one.id), comparisons.places(db, one.id, limit=comparison.SHOWN)
        workers = seats.there(db, one.detector)
    if as_json:
        print(json.dumps(_as_dict(one) | comparison.as_dict(one.detector, cells) | {"examples": places}))
        return DONE
    print(f"{one.label}  {one.detector}  {one.version}  {_state(one)}")
    terminal.say(f"  asked for by {one.actor} at {one.created_at:%Y-%m-%d %H:%M} UTC", to=terminal.answers)
    if one.golden_right is not None:
        terminal.say(f"  golden texts: {one.golden_right:,} of {one.golden_texts:,} judged rightly", to=terminal.answers)
    if one.compared:
        comparison.show(one, cells, places)
    for seat in workers:
        terminal.say(f"  {seat.worker} serves {_served(seat)}" + (f": {seat.reason}" if seat.reason else ""), to=terminal.answers)
    return DONE


def promote(settings: Settings, detector: str) -> int:
    """Roll out what is a shadow or a canary; print its label."""
    with _database(settings) as (db, _):
        print(deployments.promote(db, _candidate(db, detector)).label)
    return DONE


def stop(settings: Settings, detector: str) -> int:
    """End the candidate; print its label."""
    with _database(settings) as (db, _):
        print(deployments.stop(db, _candidate(db, detector)).label)
    terminal.say("stopped; workers leave it within a few seconds")
    return DONE


def rollback(settings: Settings, detector: str) -> int:
    """Go back to the model from before; print the label of what was rolled back."""
    with _database(settings) as (db, _):
        gone, now = deployments.roll_back(db, deploying.detector_of(detector))
    print(gone.label)
    terminal.say(f"rolled back; workers go back to {now.version if now else 'the model of their settings'}")
    return DONE


def _begin(db: Database, settings: Settings, asked: Asked, *, wait: bool) -> int:
    made = deploying.begin(db, Keyring.of(settings), asked)
    print(made.label)
    if not seats.there(db, asked.detector):
        terminal.say(f"no worker of the detector {asked.detector} is running: one that starts takes it up")
    return _wait(db, made) if wait else DONE


def _wait(db: Database, made: Deployment) -> int:
    with terminal.busy(f"{made.label}: {made.told.label}") as change:
        while (now := deployments.get(db, made.label, detector=made.detector)).told in UNDER_WAY:
            change(f"{now.label}: {_state(now)}")
            time.sleep(POLL_S)
    terminal.say(f"{now.label}: {_state(now)}")
    return DONE if now.told is DeploymentState.ACTIVE else FAILED_ROWS


@contextmanager
def _database(settings: Settings) -> Iterator[tuple[Database, Settings]]:
    with database_of(settings) as complete, closing(Database(complete.required("database_url"), pool_size=1)) as db:
        yield db, complete


def _candidate(db: Database, detector: str) -> Deployment:
    found = deployments.standing(db, deploying.detector_of(detector)).candidate
    if found is None:
        raise RejectedError(f"the detector {detector} has no deployment under way: `guardfleet models list` shows all.")
    return found


def _state(one: Deployment) -> str:
    share = f" {one.share:.3g}".rstrip("0").rstrip(".") if one.told in UNDER_WAY and one.share else ""
    return f"{one.told.label}{share}" + (f": {one.reason}" if one.reason else "")


def _served(seat: seats.Seat) -> str:
    served = f"deployment_{seat.deployment_id}" if seat.deployment_id else "the model of its settings"
    return served + (f", with deployment_{seat.beside_id} beside it" if seat.beside_id else "")


def _as_dict(one: Deployment) -> dict[str, Any]:
    agreement = share_of(one.agreed, one.compared)
    return {
        "deployment": one.label,
        "detector": one.detector,
        "model": one.version,
        "state": one.told.label,
        "reason": one.reason,
        "share": one.share or None,
        "created_at": f"{one.created_at:%FT%TZ}",
        "changed_at": f"{one.changed_at:%FT%TZ}",
        "golden": {"texts": one.golden_texts, "right": one.golden_right} if one.golden_texts else None,
        "compared": one.compared,
        "agreement": agreement.as_dict() if agreement else None,
        "errors": {"candidate": one.errors, "live": one.live_errors},
        "device_s": {"candidate": round(one.candidate_s, 3), "live": round(one.live_s, 3)},
        "skipped": one.skipped,
    }
