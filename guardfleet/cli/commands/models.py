"""`guardfleet models`: deploy, try, compare, go back; and what of it can be seen."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from guardfleet.cli import DONE, FAILED_ROWS, terminal
from guardfleet.domain.detection import DETECTOR_NAME
from guardfleet.domain.states import DeploymentState
from guardfleet.embedded.stack import database_of
from guardfleet.errors import RejectedError
from guardfleet.sampling.agreement import share_of
from guardfleet.sampling.estimates import Estimate
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings
from guardfleet.store.deployments import comparisons, deployments, seats
from guardfleet.store.deployments.comparisons import SEVERITY, Cell
from guardfleet.store.deployments.deployments import Asked, Deployment
from guardfleet.store.postgres.database import Database

POLL_S = 0.5
SHOWN = 10  # flips, and texts that were judged differently
UNDER_WAY = (DeploymentState.SHADOW, DeploymentState.CANARY, DeploymentState.ROLLING)


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
    alone: bool,
    wait: bool,
    reading: Any,
) -> int:
    """Store the deployment, which workers take up; print its label."""
    if alone and canary is not None:
        raise RejectedError("--canary compares two models in one worker, --alone allows one: give one of them.")
    asked = Asked(
        detector=_detector(detector),
        model=model,
        revision=revision,
        state=DeploymentState.CANARY if canary is not None else DeploymentState.ROLLING,
        share=_share(canary, "--canary") if canary is not None else 0.0,
        canary_texts=canary_texts,
        min_agreement=min_agreement,
        alone=alone,
        golden=_golden(settings, golden, reading) if golden is not None else [],
        golden_accuracy=golden_accuracy,
    )
    return _begin(settings, asked, wait=wait)


def shadow(settings: Settings, model: str, *, revision: str | None, detector: str, share: str) -> int:
    """Store a shadow, which workers take up; print its label."""
    asked = Asked(
        detector=_detector(detector), model=model, revision=revision, state=DeploymentState.SHADOW, share=_share(share, "--share")
    )
    return _begin(settings, asked, wait=False)


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
        terminal.say(f"  {seat.worker} serves {_served(seat)}" + (f": {seat.reason}" if seat.reason else ""))
    if not found:
        terminal.say("nothing was deployed: workers serve the model of their settings")
    return DONE


def show(settings: Settings, label: str | None, *, detector: str, as_json: bool) -> int:
    """Print all that is known of one."""
    with _database(settings) as (db, _):
        one = deployments.get(db, label, detector=_detector(detector))
        cells, places = comparisons.cells(db, one.id), comparisons.places(db, one.id, limit=SHOWN)
        workers = seats.there(db, one.detector)
    if as_json:
        flips = {
            kind: {name: {"texts": n, "changed": changed} for name, (n, changed) in _flips(cells, kind).items()} for kind in KINDS
        }
        print(json.dumps(_as_dict(one) | flips | {"severities": _severities(cells), "examples": places}))
        return DONE
    print(f"{one.label}  {one.detector}  {one.version}  {_state(one)}")
    terminal.say(f"  asked for by {one.actor} at {one.created_at:%Y-%m-%d %H:%M} UTC", to=terminal.answers)
    if one.golden_right is not None:
        terminal.say(f"  golden texts: {one.golden_right:,} of {one.golden_texts:,} judged rightly", to=terminal.answers)
    if one.compared:
        _show_comparison(one, cells, places)
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
    return DONE


def rollback(settings: Settings, detector: str) -> int:
    """Go back to the model from before; print the label of what was rolled back."""
    with _database(settings) as (db, _):
        gone, now = deployments.roll_back(db, _detector(detector))
    print(gone.label)
    terminal.say(f"rolled back; workers go back to {now.version if now else 'the model of their settings'}")
    return DONE


def _begin(settings: Settings, asked: Asked, *, wait: bool) -> int:
    with _database(settings) as (db, complete):
        made = deployments.begin(db, Keyring.of(complete), asked)
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
    found = deployments.standing(db, _detector(detector)).candidate
    if found is None:
        raise RejectedError(f"the detector {detector} has no deployment under way: `guardfleet models list` shows all.")
    return found


def _detector(name: str) -> str:
    if not DETECTOR_NAME.fullmatch(name):
        raise RejectedError(
            f"{name!r} is no detector: its name is of small letters, digits, - and _, as GUARDFLEET_ENGINE__DETECTOR."
        )
    return name


def _share(said: str, flag: str) -> float:
    try:
        share = float(said.removesuffix("%")) / (100 if said.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        raise RejectedError(f"{flag} {said!r} is no share: give 5%, or 0.05.")
    return share


def _golden(settings: Settings, path: str, reading: Any) -> list[Any]:
    from guardfleet.cli.commands.evaluate import labelled_texts

    rows, labels, _ = labelled_texts([path], reading, settings, None)
    return [[row.content, is_unsafe] for row, is_unsafe in zip(rows, labels, strict=True)]


def _state(one: Deployment) -> str:
    share = f" {one.share:.3g}".rstrip("0").rstrip(".") if one.told in UNDER_WAY and one.share else ""
    return f"{one.told.label}{share}" + (f": {one.reason}" if one.reason else "")


def _served(seat: seats.Seat) -> str:
    served = f"deployment_{seat.deployment_id}" if seat.deployment_id else "the model of its settings"
    return served + (f", with deployment_{seat.beside_id} beside it" if seat.beside_id else "")


KINDS = ("category", "language")


def _flips(cells: dict[Cell, int], kind: str) -> dict[str, tuple[int, int]]:
    """Return by category (those that either model named) or by language: texts, and how many of them changed."""
    texts, changed = Counter[str](), Counter[str]()
    for cell, n in cells.items():
        if (cell.subject == SEVERITY) == (kind == "language"):
            name = cell.language if kind == "language" else cell.subject
            texts[name] += n
            changed[name] += n if cell.live != cell.candidate else 0
    return {name: (n, changed[name]) for name, n in texts.most_common()}


def _severities(cells: dict[Cell, int]) -> dict[str, int]:
    found = Counter[str]()
    for cell, n in cells.items():
        if cell.subject == SEVERITY:
            found[f"{cell.live} -> {cell.candidate}"] += n
    return dict(found.most_common())


def _show_comparison(one: Deployment, cells: dict[Cell, int], places: list[tuple[str, int, str, str]]) -> None:
    def say(line: str) -> None:
        terminal.say(line, to=terminal.answers)

    say(f"  agreement: {_estimate(share_of(one.agreed, one.compared))} of {one.compared:,} texts that both models judged")
    say(f"  without a verdict: {one.errors:,}, by the model beside it {one.live_errors:,}")
    for pair, n in _severities(cells).items():
        old, _, new = pair.partition(" -> ")
        if old != new:
            say(f"    {pair}: {n:,}")
    for kind in KINDS:
        for name, (n, changed) in list(_flips(cells, kind).items())[:SHOWN]:
            say(f"  {kind} {name}: {_estimate(share_of(changed, n))} of {n:,} changed")
    per_1000 = [1000 * seconds / one.compared for seconds in (one.candidate_s, one.live_s)]
    say(f"  device seconds for 1,000 texts: {per_1000[0]:.3g}, of the model beside it {per_1000[1]:.3g}")
    if one.skipped:
        say(f"  {one.skipped:,} texts of the share were not compared: no worker had time")
    for job, seq, live, candidate in places:
        say(f"    {job} text {seq}: {live} -> {candidate}")


def _estimate(found: Estimate | None) -> str:
    return "undefined" if found is None else f"{found.value:.2%} ({found.low:.2%} to {found.high:.2%})"


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
