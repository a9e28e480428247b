"""The fleet's own rows: which workers there are, what they can do, and how many are wanted."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from psycopg.rows import class_row

from guardfleet.domain.states import WorkerState
from guardfleet.store.postgres.database import UNFLUSHED, Database

SEEN_S = 7.0  # a worker that was not heard of for longer does not count: three of its reports are missing
FORGET_DAYS = 7.0  # until then a worker's row says what a worker of its model can do


@dataclass(frozen=True, slots=True)
class Sighting:
    """What a worker says of itself: its state, its model if it knows it, and what it has measured."""

    name: str
    state: WorkerState
    model: str | None = None
    revision: str | None = None
    tokens_per_s: float | None = None
    tokens_per_byte: float | None = None
    device: str | None = None
    used_bytes: int | None = None
    total_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a worker: its row, and its seat if it has one; `silent_s`: since its last sign of life."""

    name: str
    state: int
    model: str | None
    revision: str | None
    tokens_per_s: float | None
    device: str | None
    used_bytes: int | None
    total_bytes: int | None
    started_at: dt.datetime
    seen_at: dt.datetime
    silent_s: float
    detector: str | None
    deployment_id: int | None
    beside_id: int | None
    reason: str | None

    @property
    def told(self) -> str:
        """Its state in a word: `lost` if it has neither reported nor stopped in order."""
        state = WorkerState(self.state)
        return state.label if state is WorkerState.STOPPED or self.silent_s < SEEN_S else "lost"

    @property
    def is_there(self) -> bool:
        """Whether it was heard of in the last seconds and has not stopped."""
        return self.told not in ("lost", WorkerState.STOPPED.label)


@dataclass(frozen=True, slots=True)
class Wanted:
    """How many workers a route needs, and when the leading dispatcher said so."""

    route: str
    wanted: int
    at: dt.datetime


def report(db: Database, seen: Sighting) -> None:
    """Write a worker's row. A crash of PostgreSQL may lose it: the next one follows within seconds."""
    with db.session() as connection:
        connection.execute(
            f"""insert into worker (name, state, model, revision, tokens_per_s, tokens_per_byte, device, used_bytes, total_bytes)
               select %(name)s, %(state)s, %(model)s, %(revision)s, %(tokens_per_s)s, %(tokens_per_byte)s, %(device)s,
                      %(used_bytes)s, %(total_bytes)s from {UNFLUSHED}
               on conflict (name) do update set state = excluded.state, model = excluded.model, revision = excluded.revision,
                 tokens_per_s = excluded.tokens_per_s, tokens_per_byte = excluded.tokens_per_byte, device = excluded.device,
                 used_bytes = excluded.used_bytes, total_bytes = excluded.total_bytes, seen_at = now()""",
            asdict(seen),
        )


def heard_of(db: Database) -> list[Sighting]:
    """Return the workers that were heard of in the last seconds and have not stopped."""
    with db.session() as connection:
        rows = connection.execute(
            f"""select name, state, model, revision, tokens_per_s, tokens_per_byte, device, used_bytes, total_bytes from worker
               where seen_at > now() - make_interval(secs => %(seen)s) and state <> {WorkerState.STOPPED}""",
            {"seen": SEEN_S},
        )
        return [Sighting(row.name, WorkerState(row.state), *row[2:]) for row in rows]


def known(db: Database, *, within_s: float, limit: int = 500) -> list[Known]:
    """Return the workers that were heard of within this time, those that are there first, then those heard of last."""
    with db.session() as connection:
        cursor = connection.cursor(row_factory=class_row(Known))
        return cursor.execute(
            f"""select w.name, w.state, w.model, w.revision, w.tokens_per_s, w.device, w.used_bytes, w.total_bytes, w.started_at,
                       w.seen_at, extract(epoch from now() - w.seen_at)::float8 as silent_s,
                       s.detector, s.deployment_id, s.beside_id, s.reason
                from worker w left join seat s on s.worker = w.name
                where w.seen_at > now() - make_interval(secs => %(within)s)
                order by (w.state <> {WorkerState.STOPPED} and w.seen_at > now() - make_interval(secs => {SEEN_S})) desc,
                         case when w.seen_at > now() - make_interval(secs => {SEEN_S}) then null else w.seen_at end desc,
                         w.name
                limit %(limit)s""",
            {"within": within_s, "limit": limit},
        ).fetchall()


def wanted(db: Database) -> list[Wanted]:
    """Return how many workers each route needs, as far as the leading dispatcher has said it lately, as autoscalers read it."""
    with db.session() as connection:
        cursor = connection.cursor(row_factory=class_row(Wanted))
        return cursor.execute("select route, wanted, at from guardfleet_workers_wanted order by route").fetchall()


def rates(db: Database) -> dict[str, tuple[float, float]]:
    """Return tokens per second and per byte of a worker of each model: of those last heard of that measured both."""
    with db.session() as connection:
        rows = connection.execute(
            """select model, avg(tokens_per_s) as tokens_per_s, avg(tokens_per_byte) as tokens_per_byte from (
                 select w.*, max(seen_at) over (partition by model) as newest from worker w
                 where model is not null and tokens_per_s is not null and tokens_per_byte is not null) w
               where seen_at > newest - make_interval(secs => %(seen)s) group by model""",
            {"seen": SEEN_S},
        )
        return {row.model: (row.tokens_per_s, row.tokens_per_byte) for row in rows}


def forget_old(db: Database) -> None:
    """Delete the rows of workers that have not been heard of for days."""
    with db.session() as connection:
        for table in ("worker", "seat"):
            old = "seen_at < now() - make_interval(days => %(days)s)"
            connection.execute(f"delete from {table} where {old}", {"days": int(FORGET_DAYS)})


def write_wanted(db: Database, wanted: Mapping[str, int]) -> None:
    """Write how many workers each route needs, for autoscalers that read the view."""
    with db.begin() as connection:
        connection.execute("delete from scaling where route <> all(%(routes)s)", {"routes": list(wanted)})
        connection.execute(
            f"""insert into scaling (route, wanted)
               select r.route, r.wanted from unnest(%(routes)s::text[], %(counts)s::int[]) r (route, wanted), {UNFLUSHED}
               on conflict (route) do update set wanted = excluded.wanted, at = now()""",
            {"routes": list(wanted), "counts": list(wanted.values())},
        )
