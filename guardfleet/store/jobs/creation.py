"""A job before its first text: created with its options, its owner, its key and its callback; the intake fills it."""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from psycopg.types.json import Jsonb
from uuid_utils.compat import uuid7

from guardfleet.domain import ids
from guardfleet.domain.events import END_KINDS
from guardfleet.domain.ids import DEFAULT_TENANT
from guardfleet.domain.lanes import Lane
from guardfleet.domain.options import JobOptions
from guardfleet.errors import OverloadedError
from guardfleet.rows.row import MODERATIONS
from guardfleet.security.encryption import Keyring
from guardfleet.store import audit, installation
from guardfleet.store.jobs.intake import INTAKE_LEASE_S, OpenJob
from guardfleet.store.jobs.new import columns, placeholders, values_of
from guardfleet.store.partitions import ensure_day
from guardfleet.store.postgres.database import Connection, Database
from guardfleet.store.words import OPEN_JOB

DEFAULTS = JobOptions()
OVERLOAD_PAUSE_S = 60.0  # Retry-After for a refused caller


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job before its first text: its options, its owner, and where its texts come from.

    `fingerprint`: of the input and the options; the next submit with the same one resumes an interrupted intake. `input_file_id`:
    the uploaded file that holds its texts, and its `reading` if that is no file of batch lines; `endpoint`: where its lines are
    requests to. `brings_workers`: the submitter starts the workers that the job names, so they need not have served yet.
    `retry_of`: the first job, whose texts it judges again.
    """

    options: JobOptions = DEFAULTS
    tenant_id: int = DEFAULT_TENANT
    fingerprint: bytes | None = None
    callback_secret: str | None = field(default=None, repr=False)
    input_file_id: uuid.UUID | None = None
    reading: Mapping[str, Any] | None = None
    endpoint: str = MODERATIONS
    brings_workers: bool = False
    retry_of: int | None = None


OWN_COLUMNS = (
    "public_id",
    "tenant_id",
    "day",
    "fingerprint",
    "key_id",
    "data_key",
    "input_file_id",
    "reading",
    "endpoint",
    "retry_of",
)
INSERT = f"""insert into job ({columns()}, {", ".join(OWN_COLUMNS)}, expires_at, intake_lease_until)
             values ({placeholders()}, {", ".join(f"%({name})s" for name in OWN_COLUMNS)},
                     now() + make_interval(secs => cast(%(window_s)s as double precision)),
                     now() + make_interval(secs => %(lease)s))
             returning id"""


def create(
    db: Database, keyring: Keyring, new: NewJob, *, max_backlog: int, also: Callable[[Connection, uuid.UUID], None] | None = None
) -> OpenJob:
    """Create a job in state INGESTING, its day's partitions, and its callback endpoint.

    Raises OverloadedError while `max_backlog` or more texts of all jobs wait for a verdict. `also` runs in the same transaction,
    with the job's public id. `guardfleet.jobs.submit` makes the other checks before.
    """
    public_id, options = uuid7(), new.options
    with db.begin() as connection:
        installation.follow(connection, keyring)
        data_key = keyring.new_data_key()
        _refuse_overload(connection, max_backlog)
        day = connection.scalar("select (now() at time zone 'utc')::date")
        ensure_day(connection, day)
        values = values_of(options) | {
            "public_id": public_id,
            "tenant_id": new.tenant_id,
            "day": day,
            "fingerprint": new.fingerprint,
            "key_id": keyring.key_id,
            "data_key": data_key,
            "input_file_id": new.input_file_id,
            "reading": None if new.reading is None else Jsonb(dict(new.reading)),
            "endpoint": new.endpoint,
            "retry_of": new.retry_of,
            "window_s": options.window_s,
            "lease": INTAKE_LEASE_S,
        }
        job_id: int = connection.scalar(INSERT, values)
        if options.callback_url and new.callback_secret:
            _add_callback(connection, job_id, options.callback_url, keyring.encrypt_secret(new.callback_secret))
        audit.record(connection, new.tenant_id, "job.create", ids.JOB.of(public_id), **_told(new))
        if also is not None:
            also(connection, public_id)
    return OpenJob(
        id=job_id,
        public_id=public_id,
        tenant_id=new.tenant_id,
        day=day,
        lane=Lane(options.interactive),
        data_key=data_key,
        model=options.plan.first_route,
        callback_secret=new.callback_secret,
        retry_of=new.retry_of,
    )


def _told(new: NewJob) -> dict[str, audit.Fact]:
    """Return what the audit trail says of a new job: nothing that its caller wrote."""
    return {
        "lane": Lane(new.options.interactive).label,
        "priority": new.options.priority,
        "text_retention_hours": new.options.text_retention_hours,
        "has_callback": new.options.callback_url is not None,
        "input_file": None if new.input_file_id is None else ids.FILE.of(new.input_file_id),
    }


def _refuse_overload(connection: Connection, max_backlog: int) -> None:
    waiting = connection.scalar(f"select coalesce(sum(total - done), 0) from job where {OPEN_JOB}")
    if waiting >= max_backlog:
        raise OverloadedError(
            f"{waiting:,} texts wait for their verdict already, and {max_backlog:,} is the limit: try again later.",
            retry_after_s=OVERLOAD_PAUSE_S,
        )


def _add_callback(connection: Connection, job_id: int, url: str, sealed: bytes) -> None:
    connection.execute(
        """insert into endpoint (tenant_id, job_id, url, secret, kinds, key_id)
          select tenant_id, id, %(url)s, %(secret)s, %(kinds)s, key_id from job where id = %(job)s""",
        {"job": job_id, "url": url, "secret": sealed, "kinds": list(END_KINDS)},
    )


def stored_callback_secret(db: Database, keyring: Keyring, job: OpenJob) -> str | None:
    """Return the secret that signs the job's callback; None if it has no callback."""
    with db.begin() as connection:
        sealed = connection.scalar("select secret from endpoint where job_id = %(job)s", {"job": job.id})
    return None if sealed is None else keyring.decrypt_secret(bytes(sealed))
