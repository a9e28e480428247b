"""Deployments: begun by people, taken further by workers, ended by either. Every verb writes its audit row.

Lock order: the active one of a detector before its candidate, and each before its counts.
"""

from collections.abc import Callable
from typing import Any

from psycopg.rows import class_row

from guardfleet.domain.ids import DEFAULT_TENANT
from guardfleet.domain.states import DeploymentState
from guardfleet.errors import ConfigurationError, NotFoundError, RejectedError
from guardfleet.security.encryption import Keyring
from guardfleet.store import audit
from guardfleet.store.deployments.row import COLUMNS, SELECT, Asked, Deployment, Standing
from guardfleet.store.postgres.database import Connection, Database
from guardfleet.store.words import (
    ACTIVE_DEPLOYMENT,
    CANDIDATE_DEPLOYMENT,
    COMPARED_DEPLOYMENT,
    ROLLING_DEPLOYMENT,
    SUPERSEDED_DEPLOYMENT,
)

KIND = "golden"  # what the encrypted rows are
MOST_REASON = 500  # characters
MOST_DIGITS = 18  # of a label's number
FORGET = "golden = null, data_key = null, key_id = null"  # the labelled rows of one that has ended
ENDED = f"changed_at = clock_timestamp(), {FORGET}"


def begin(db: Database, keyring: Keyring, asked: Asked) -> Deployment:
    """Store what is asked for; workers take it up within seconds. Raises RejectedError if the detector has a candidate already."""
    values: dict[str, Any] = {name: getattr(asked, name) for name in Asked.__slots__ if name != "golden"}
    values |= {"golden": None, "data_key": None, "key_id": None, "golden_texts": len(asked.golden)}
    if asked.golden:
        key = keyring.new_data_key()
        sealed = keyring.seal(key, asked.golden, kind=KIND, job_id=0, shard_no=0)
        values |= {"golden": sealed, "data_key": key, "key_id": keyring.key_id}
    with db.begin() as connection:
        values["actor"] = audit.actor_of(connection).name
        names = ", ".join(values)
        made = _row(
            connection,
            f"""insert into deployment ({names}) values ({", ".join(f"%({name})s" for name in values)})
                on conflict do nothing returning {COLUMNS}""",
            values,
        )
        if made is None:
            raise RejectedError(
                f"the detector {asked.detector} has a deployment under way: see `guardfleet models show`, and end it with"
                " `guardfleet models stop`, `promote` or `rollback` first."
            )
        _record(connection, "deployment.create", made, state=made.told.label, share=made.share)
    return made


def standing(db: Database, detector: str) -> Standing:
    """Return what the detector's workers are to do now."""
    with db.session() as connection:
        cursor = connection.cursor(row_factory=class_row(Deployment))
        rows = cursor.execute(
            f"{SELECT} where detector = %(detector)s and ({ACTIVE_DEPLOYMENT} or {CANDIDATE_DEPLOYMENT})", {"detector": detector}
        ).fetchall()
    active = next((row for row in rows if row.told is DeploymentState.ACTIVE), None)
    return Standing(active, next((row for row in rows if row.told is not DeploymentState.ACTIVE), None))


def every(db: Database, *, limit: int = 50) -> list[Deployment]:
    """Return the newest deployments of all detectors, newest first."""
    with db.session() as connection:
        cursor = connection.cursor(row_factory=class_row(Deployment))
        return cursor.execute(f"{SELECT} order by id desc limit %(limit)s", {"limit": limit}).fetchall()


def get(db: Database, label: str | None, *, detector: str) -> Deployment:
    """Return a deployment by its label; without one the detector's candidate, else its newest. Raises NotFoundError."""
    number = (label or "").removeprefix("deployment_")
    if label is not None and not (number.isascii() and number.isdecimal() and len(number) <= MOST_DIGITS):
        raise NotFoundError(f"there is no deployment {label!r}: `guardfleet models list` shows all.")
    where = "id = %(id)s" if label is not None else "detector = %(detector)s"
    with db.session() as connection:
        found = _row(
            connection,
            f"{SELECT} where {where} order by {CANDIDATE_DEPLOYMENT} desc, id desc limit 1",
            {"id": int(number or 0), "detector": detector},
        )
    if found is None:
        raise NotFoundError(f"there is no deployment {label or f'of {detector}'}: `guardfleet models list` shows all.")
    return found


def golden(db: Database, keyring: Keyring, deployment_id: int) -> list[Any]:
    """Return the labelled rows that the model must judge rightly, as `Asked` has them. Raises ConfigurationError."""
    with db.session() as connection:
        row: Any = connection.execute("select golden, data_key from deployment where id = %(id)s", {"id": deployment_id}).fetchone()
    if row is None or row.golden is None:
        return []
    found: list[Any] = keyring.open(bytes(row.data_key), bytes(row.golden), kind=KIND, job_id=0, shard_no=0)
    return found


def record_golden(db: Database, deployment_id: int, right: int) -> None:
    """Write how many of the labelled rows a worker's new engine judged rightly."""
    with db.begin() as connection:
        connection.execute(
            "update deployment set golden_right = %(right)s where id = %(id)s", {"id": deployment_id, "right": right}
        )


def pin(db: Database, deployment: Deployment, *, name: str, revision: str) -> None:
    """Write what the first worker has loaded. Raises ConfigurationError in a worker that has loaded something else."""
    plain = revision.rpartition(":")[2]  # without the precision that the worker's settings ask for
    with db.begin() as connection:
        found: Any = connection.execute(
            """update deployment set name = coalesce(name, %(name)s), found = coalesce(found, %(found)s) where id = %(id)s
               returning name, found""",
            {"id": deployment.id, "name": name, "found": plain},
        ).fetchone()
    if found is not None and (found.name, found.found) != (name, plain):
        raise ConfigurationError(
            f"this worker has {name}@{plain[:12]} where another has {found.name}@{found.found[:12]}: give all the same files."
        )


def promote(db: Database, deployment: Deployment) -> Deployment:
    """Roll a shadow or a canary out. Raises RejectedError if it is neither any more."""
    state = f"state = {DeploymentState.ROLLING}, changed_at = clock_timestamp()"
    return _moved(db, deployment, "deployment.promote", state, f"{COMPARED_DEPLOYMENT}", "is no shadow and no canary")


def stop(db: Database, deployment: Deployment) -> Deployment:
    """End a candidate; workers go back to what was active. Raises RejectedError if it is none any more."""
    state = f"state = {DeploymentState.HALTED}, reason = 'stopped by ' || %(actor)s, {ENDED}"
    return _moved(db, deployment, "deployment.stop", state, f"{CANDIDATE_DEPLOYMENT}", "is not under way")


def halt(db: Database, deployment: Deployment, reason: str) -> bool:
    """End a candidate that failed; return False if it was none any more. `reason` holds no text."""
    with db.begin() as connection:
        values = {"id": deployment.id, "reason": reason[:MOST_REASON]}
        done = connection.execute(
            f"""update deployment set state = {DeploymentState.HALTED}, reason = %(reason)s, {ENDED}
                where id = %(id)s and {CANDIDATE_DEPLOYMENT}""",
            values,
        ).rowcount
        if done:
            _record(connection, "deployment.halt", deployment, state=deployment.told.label)
    return bool(done)


def settle(db: Database, deployment: Deployment, is_done: Callable[[Connection], bool]) -> bool:
    """Make one that was rolled out the active one, if `is_done` says so; return whether it did."""
    with db.begin() as connection:
        connection.execute(
            f"select from deployment where detector = %(detector)s and {ACTIVE_DEPLOYMENT} for update",
            {"detector": deployment.detector},
        )
        found = connection.execute(
            f"select from deployment where id = %(id)s and {ROLLING_DEPLOYMENT} for update", {"id": deployment.id}
        ).rowcount
        if not found or not is_done(connection):
            return False
        connection.execute(
            f"""update deployment set state = {DeploymentState.SUPERSEDED}, {ENDED}
                where detector = %(detector)s and {ACTIVE_DEPLOYMENT}""",
            {"detector": deployment.detector},
        )
        connection.execute(
            f"""update deployment set state = {DeploymentState.ACTIVE}, changed_at = clock_timestamp(),
                       activated_at = clock_timestamp() where id = %(id)s""",
            {"id": deployment.id},
        )
        _record(connection, "deployment.settle", deployment)
    return True


def roll_back(db: Database, detector: str) -> tuple[Deployment, Deployment | None]:
    """Have the model from before served again; return what was rolled back, and what is served now: None is the settings' model.

    One that is being tried or rolled out is rolled back by itself; otherwise the active one, and the one that it superseded is
    active again. Raises RejectedError if there is neither.
    """
    values: dict[str, Any] = {"detector": detector}
    with db.begin() as connection:
        active = _row(connection, f"{SELECT} where detector = %(detector)s and {ACTIVE_DEPLOYMENT} for update", values)
        candidate = _row(
            connection,
            f"{SELECT} where detector = %(detector)s and {CANDIDATE_DEPLOYMENT} and state <> {DeploymentState.SHADOW} for update",
            values,
        )
        gone = candidate or active
        if gone is None:
            raise RejectedError(f"the detector {detector} serves its workers' own model: there is nothing to roll back.")
        connection.execute(
            f"update deployment set state = {DeploymentState.ROLLED_BACK}, reason = %(reason)s, {ENDED} where id = %(id)s",
            {"id": gone.id, "reason": f"rolled back by {audit.actor_of(connection).name}"},
        )
        now = active if candidate else _reactivated(connection, detector)
        _record(connection, "deployment.roll_back", gone, before=now.label if now else None)
    return gone, now


def _reactivated(connection: Connection, detector: str) -> Deployment | None:
    return _row(
        connection,
        f"""update deployment set state = {DeploymentState.ACTIVE}, changed_at = clock_timestamp(),
                   activated_at = clock_timestamp()
            where id = (select id from deployment where detector = %(detector)s and {SUPERSEDED_DEPLOYMENT}
                        order by activated_at desc limit 1)
            returning {COLUMNS}""",
        {"detector": detector},
    )


def _moved(db: Database, deployment: Deployment, action: str, change: str, where: str, otherwise: str) -> Deployment:
    with db.begin() as connection:
        values = {"id": deployment.id, "actor": audit.actor_of(connection).name}
        made = _row(connection, f"update deployment set {change} where id = %(id)s and {where} returning {COLUMNS}", values)
        if made is None:
            raise RejectedError(f"{deployment.label} {otherwise}: it is {deployment.told.label}.")
        _record(connection, action, deployment, state=deployment.told.label)
    return made


def _row(connection: Connection, statement: str, values: dict[str, Any]) -> Deployment | None:
    return connection.cursor(row_factory=class_row(Deployment)).execute(statement, values).fetchone()


def _record(connection: Connection, action: str, deployment: Deployment, **detail: Any) -> None:
    audit.record(connection, DEFAULT_TENANT, action, deployment.label, detector=deployment.detector, **detail)
