"""Jobs that cause errors in a dispatcher: rows that the server refuses to change, blobs nested deeper than new ones can be."""

import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from guardfleet.domain.states import JobState
from guardfleet.security.encryption import Keyring
from guardfleet.store.jobs import control, views
from guardfleet.store.jobs.views import JobView
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import leases, publishing
from tests.services.stored import finish, scalar, take

# By kind of damage to a table: the statements that cause and undo it. With the first two, the server quotes the refused row.
DAMAGES = {
    "refused": ("alter table {table} add constraint damage check (false) not valid", "alter table {table} drop constraint damage"),
    "quoted": (
        """create function damage() returns trigger language plpgsql as
             $f$ begin raise exception using errcode = 'XX000', message = new::text; end $f$;
           create trigger damage before insert or update on {table} for each row execute function damage()""",
        "drop function damage cascade",
    ),
    "renamed": ("alter table {table} rename to gone", "alter table gone rename to {table}"),
}


@contextmanager
def damaged(db: Database, table: str, how: str) -> Iterator[None]:
    """Damage the table, one of `DAMAGES`, for as long as the block lasts."""
    come, go = DAMAGES[how]
    change(db, come.format(table=table))
    try:
        yield
    finally:
        change(db, go.format(table=table))


def change(db: Database, sql: str) -> None:
    """Change rows or their table directly."""
    with db.begin() as connection:
        connection.cursor().execute(sql, binary=False)  # allows several statements in one string


def refuse(db: Database, table: str, job: JobView, when: str = "update or delete", code: str = "XX000") -> None:
    """Have the server refuse every write to rows of one job, as a damaged page or a constraint would."""
    column, name = "id" if table == "job" else "job_id", f"refuse_{table}_{job.id}"
    change(
        db,
        f"""create function {name}() returns trigger language plpgsql as $f$ begin
              if coalesce(old.{column}, new.{column}) = {job.id} then raise exception using errcode = '{code}'; end if;
              return coalesce(new, old); end $f$;
            create trigger {name} before {when} on {table} for each row execute function {name}()""",
    )


def allow(db: Database, table: str, job: JobView) -> None:
    """Undo `refuse`."""
    change(db, f"drop trigger refuse_{table}_{job.id} on {table}")


def overdue_shard(db: Database, job: JobView) -> None:
    assert take(db, job, 0, lease_s=-1)


def exhausted_shard(db: Database, job: JobView) -> None:
    change(db, f"update shard set failures = 99 where job_id = {job.id}")


def overdue_job(db: Database, job: JobView) -> None:
    change(db, f"update job set expires_at = now() - interval '1 s' where id = {job.id}")


def cancelling_job(db: Database, job: JobView) -> None:
    held = take(db, job, 0)
    assert held
    control.cancel(db, job.id)
    change(db, f"update shard set state = 2 where job_id = {job.id}")


def purgeable_job(db: Database, job: JobView) -> None:
    for no in (0, 1):
        held = take(db, job, no)
        assert held
        assert finish(db, held)
    change(db, f"update job set purge_hours = 0, finished_at = now() - interval '1 h' where id = {job.id}")


def idle_intake(db: Database, job: JobView) -> None:
    change(db, f"update job set state = 0, intake_lease_until = now() - interval '1 d' where id = {job.id}")


def lost_doorbells(db: Database, job: JobView) -> None:
    change(db, f"update shard set published_at = now() - interval '1 h' where job_id = {job.id}")


def ready_shard(db: Database, job: JobView) -> None:
    assert publishing.windows(db)


def state_of(db: Database, job: JobView) -> JobState:
    return views.get(db, job.public_id).state


def none(where: str) -> Callable[[Database, JobView], bool]:
    """A check that no shard of the job matches `where`."""
    return lambda db, job: scalar(db, f"select count(*) from shard where job_id = {job.id} and {where}") == 0


Case = tuple[Callable[[Database, JobView], None], str, Callable[[Database, JobView], bool]]
UNITS: dict[str, Case] = {
    "rescue": (overdue_shard, "shard", none("state = 1")),
    "give_up": (exhausted_shard, "shard", none("failures = 99")),
    "expire_jobs": (overdue_job, "job", lambda db, job: state_of(db, job) is JobState.EXPIRED),
    "settle_cancelled": (cancelling_job, "job", lambda db, job: state_of(db, job) is JobState.CANCELLED),
    "purge": (purgeable_job, "job", lambda db, job: bool(scalar(db, f"select purged_at is not null from job where id = {job.id}"))),
    "abandon_idle": (idle_intake, "job", lambda db, job: state_of(db, job) is JobState.FAILED),
    "forget_lost": (lost_doorbells, "shard", none("published_at < now() - interval '30 m'")),
    "mark_shards": (ready_shard, "shard", none("published_at is null")),
}


def nested_blob(db: Database, keyring: Keyring, job: JobView, depths: range) -> list[tuple[str, str, str]]:
    """Replace the shard's rows by metadata that the previous version accepted from a caller."""
    rows = [
        (f"id{i}", f"text {i}", '{"a":' + "[" * depth + "1" + "]" * depth + "}") for i, depth in zip(range(8), depths, strict=False)
    ]
    plain = "[" + ",".join(f"[{json.dumps(i)},{json.dumps(text)},{more}]" for i, text, more in rows) + "]"
    held = take(db, job, 0)
    assert held
    assert held.data_key
    sealed = keyring.encrypt_bytes(held.data_key, zlib.compress(plain.encode()), associated_data=b"%d/0/zlib-json" % job.id)
    assert leases.release(db, held)
    with db.begin() as connection:
        connection.execute("update shard_payload set blob = %s where job_id = %s and shard_no = 0", (sealed, job.id))
    return rows
