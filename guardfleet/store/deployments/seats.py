"""What each worker serves, and the turns in which workers change to another model."""

from dataclasses import asdict, dataclass

from psycopg.rows import class_row

from guardfleet.domain.states import WorkerState
from guardfleet.store.fleet import SEEN_S
from guardfleet.store.postgres.database import UNFLUSHED, Connection, Database

SHARE_AT_ONCE = 0.25  # of a detector's workers that may be loading another model; at least one
TURN_S = 900.0  # after which a turn is over, whatever became of it: longer than any model takes to load
IS_THERE = f"""exists (select from worker w where w.name = s.worker and w.state <> {WorkerState.STOPPED})
               and s.seen_at > now() - make_interval(secs => {SEEN_S})"""
HOST = "split_part(split_part({}, '@', 2), ':', 1)"  # of a worker's name


@dataclass(frozen=True, slots=True)
class Seat:
    """What a worker serves: of which deployment (None: of none), what it has beside it, and why it does not do what it should."""

    worker: str
    detector: str
    deployment_id: int | None
    beside_id: int | None
    follows: bool
    reason: str | None


def report(db: Database, seat: Seat) -> None:
    """Write a worker's seat. A crash of PostgreSQL may lose it: the next one follows within seconds."""
    with db.session() as connection:
        connection.execute(
            f"""insert into seat (worker, detector, deployment_id, beside_id, follows, reason)
                select %(worker)s, %(detector)s, %(deployment_id)s, %(beside_id)s, %(follows)s, %(reason)s from {UNFLUSHED}
                on conflict (worker) do update set detector = excluded.detector, deployment_id = excluded.deployment_id,
                  beside_id = excluded.beside_id, follows = excluded.follows, reason = excluded.reason, seen_at = now()""",
            asdict(seat),
        )


def there(db: Database, detector: str) -> list[Seat]:
    """Return the seats of the detector's workers that were heard of in the last seconds."""
    with db.session() as connection:
        cursor = connection.cursor(row_factory=class_row(Seat))
        return cursor.execute(
            f"""select worker, detector, deployment_id, beside_id, follows, reason from seat s
                where detector = %(detector)s and {IS_THERE} order by worker""",
            {"detector": detector},
        ).fetchall()


def take_turn(db: Database, seat: Seat, *, alone: bool) -> bool:
    """Take a turn to load another model, and return whether it is granted: to few workers at a time, and to one of a host.

    `alone`: the worker will serve nothing meanwhile, which needs another one that does.
    """
    values = {"detector": seat.detector, "worker": seat.worker, "share": SHARE_AT_ONCE, "turn": TURN_S, "alone": alone}
    is_swapping = f"{IS_THERE} and s.swapping_at > now() - make_interval(secs => %(turn)s) and s.worker <> %(worker)s"
    with db.begin() as connection:
        connection.execute("select pg_advisory_xact_lock(hashtext('seat'), hashtext(%(detector)s))", values)
        granted = connection.execute(
            f"""update seat set swapping_at = now() where worker = %(worker)s
                  and (select count(*) < greatest(1, floor(%(share)s * (
                         select count(*) from seat s where s.detector = %(detector)s and {IS_THERE})))
                       from seat s where s.detector = %(detector)s and {is_swapping})
                  and not exists (
                    select from seat s where {is_swapping} and {HOST.format("s.worker")} = {HOST.format("%(worker)s")})
                  and (not %(alone)s or exists (
                    select from seat s where s.detector = %(detector)s and {IS_THERE} and s.worker <> %(worker)s
                      and s.swapping_at is null))""",
            values,
        ).rowcount
    return bool(granted)


def end_turn(db: Database, worker: str) -> None:
    """End the worker's turn; safe to call twice."""
    with db.begin() as connection:
        connection.execute("update seat set swapping_at = null where worker = %(worker)s", {"worker": worker})


def all_serve(connection: Connection, detector: str, deployment_id: int) -> bool:
    """Return whether all of the detector's workers that follow deployments serve this one, and at least one does."""
    found: bool = connection.scalar(
        f"""select count(*) > 0 and bool_and(coalesce(s.deployment_id = %(id)s, false)) from seat s
            where s.detector = %(detector)s and s.follows and {IS_THERE}""",
        {"detector": detector, "id": deployment_id},
    )
    return found
