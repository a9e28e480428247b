"""The rows of uploaded files. Their contents lie outside the database, encrypted with the data key in the row."""

import datetime as dt
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from psycopg.rows import class_row
from uuid_utils.compat import uuid7

from guardfleet.domain import ids
from guardfleet.domain.states import FileState
from guardfleet.errors import NotFoundError, RejectedError
from guardfleet.security.encryption import Keyring
from guardfleet.store import audit, installation
from guardfleet.store.postgres.database import Connection, Database
from guardfleet.store.words import KEPT_FILE, LEFT_FILE, UPLOADING_FILE, WHOLE_FILE
from guardfleet.store.words import public_id as label_of

UPLOAD_S = 86_400.0  # an upload that is not complete after so long was interrupted
IS_HELD = "exists (select from job h where h.input_file_id = file.public_id and h.holds > 0)"  # by a batch that was made of it
HELD = "a batch that was made of this file is under a legal hold, or has a text that is."
COLUMNS = "public_id, tenant_id, filename, purpose, size, lines, digest, data_key, created_at, expires_at"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A complete file, or one that is being uploaded (`digest` is None)."""

    public_id: uuid.UUID
    tenant_id: int
    filename: str
    purpose: str
    size: int
    lines: int | None  # None: uploaded by a version that did not count them
    digest: bytes | None
    data_key: bytes
    created_at: dt.datetime
    expires_at: dt.datetime | None

    @property
    def label(self) -> str:
        """Its public id."""
        return ids.FILE.of(self.public_id)


def create(db: Database, keyring: Keyring, *, tenant_id: int, filename: str) -> StoredFile:
    """Create a file that is being uploaded, its purpose unknown. A crash leaves it so; `overdue` finds it a day later."""
    with db.begin() as connection:
        installation.follow(connection, keyring)
        cursor = connection.cursor(row_factory=class_row(StoredFile))
        (file,) = cursor.execute(
            f"""insert into file (public_id, tenant_id, filename, purpose, key_id, data_key, expires_at)
                values (%(id)s, %(tenant)s, %(filename)s, '', %(key_id)s, %(data_key)s, now() + make_interval(secs => %(upload)s))
                returning {COLUMNS}""",
            {
                "id": uuid7(),
                "tenant": tenant_id,
                "filename": filename,
                "key_id": keyring.key_id,
                "data_key": keyring.new_data_key(),
                "upload": UPLOAD_S,
            },
        )
    return file


def complete(
    db: Database,
    file: StoredFile,
    *,
    purpose: str,
    size: int,
    lines: int,
    digest: bytes,
    expires_s: float | None,
    also: Callable[[Connection], None] | None = None,
) -> StoredFile:
    """Mark the content as complete, which makes the file visible. `also` runs in the same transaction."""
    with db.begin() as connection:
        cursor = connection.cursor(row_factory=class_row(StoredFile))
        (whole,) = cursor.execute(
            f"""update file set state = {FileState.WHOLE}, purpose = %(purpose)s, size = %(size)s, lines = %(lines)s,
                       digest = %(digest)s,
                       expires_at = created_at + make_interval(secs => cast(%(expires)s as double precision))
                where public_id = %(id)s and {UPLOADING_FILE} returning {COLUMNS}""",
            {
                "id": file.public_id,
                "purpose": purpose,
                "size": size,
                "lines": lines,
                "digest": digest,
                "expires": expires_s,
            },
        )
        audit.record(connection, file.tenant_id, "file.create", file.label, size_bytes=size, n_lines=lines)
        if also is not None:
            also(connection)
    return whole


def get(db: Database, public_id: uuid.UUID, *, tenant_id: int) -> StoredFile:
    """Return a complete file. Raises NotFoundError, for another tenant's file too."""
    with db.session() as connection:
        cursor = connection.cursor(row_factory=class_row(StoredFile))
        file = cursor.execute(
            f"select {COLUMNS} from file where public_id = %(id)s and tenant_id = %(tenant)s and {WHOLE_FILE}",
            {"id": public_id, "tenant": tenant_id},
        ).fetchone()
    if file is None:
        raise NotFoundError(ids.FILE.unknown)
    return file


def page(
    db: Database, *, tenant_id: int, after: uuid.UUID | None, limit: int, purpose: str | None, newest_first: bool
) -> list[StoredFile]:
    """Return up to `limit` complete files after the named one, by age."""
    direction, side = ("desc", "<") if newest_first else ("asc", ">")
    with db.session() as connection:
        cursor = connection.cursor(row_factory=class_row(StoredFile))
        return cursor.execute(
            f"""select {COLUMNS} from file where tenant_id = %(tenant)s and {WHOLE_FILE}
                  and (cast(%(purpose)s as text) is null or purpose = %(purpose)s)
                  and (cast(%(after)s as uuid) is null
                       or id {side} (select id from file where public_id = %(after)s and tenant_id = %(tenant)s))
                order by id {direction} limit %(limit)s""",
            {"tenant": tenant_id, "purpose": purpose, "after": after, "limit": limit},
        ).fetchall()


def delete(db: Database, public_id: uuid.UUID, *, tenant_id: int) -> None:
    """Delete a file and destroy its data key, so that nobody can decrypt its content any more. Raises NotFoundError.

    Raises RejectedError while a batch of it is under a legal hold.
    """
    values = {"id": public_id, "tenant": tenant_id}
    with db.begin() as connection:
        gone = connection.execute(
            f"""update file set state = {FileState.DELETED}, data_key = null, expires_at = null
               where public_id = %(id)s and tenant_id = %(tenant)s and {WHOLE_FILE} and not {IS_HELD}""",
            values,
        ).rowcount
        if not gone:
            if connection.scalar(
                f"select exists (select from file where public_id = %(id)s and tenant_id = %(tenant)s and {IS_HELD})", values
            ):
                raise RejectedError(HELD)
            raise NotFoundError(ids.FILE.unknown)
        audit.record(connection, tenant_id, "file.delete", ids.FILE.of(public_id))


def overdue(db: Database, *, skip: Sequence[int] = (), limit: int = 100) -> list[int]:
    """Return files that have expired and uploads that were interrupted."""
    with db.session() as connection:
        return connection.scalars(
            f"""select id from file
                where {KEPT_FILE} and expires_at < now() and id <> all(cast(%(skip)s as bigint[])) and not {IS_HELD}
                order by expires_at limit %(limit)s""",
            {"skip": list(skip), "limit": limit},
        )


def expire(db: Database, file_ids: Sequence[int]) -> int:
    """Delete those of these files that have expired, as delete() would; return how many."""
    with db.session() as connection:
        return connection.execute(
            f"""with x as materialized (
                 select id from file
                 where {KEPT_FILE} and expires_at < now() and id = any(cast(%(files)s as bigint[])) and not {IS_HELD}
                 for update skip locked),
               f as (update file f set state = {FileState.DELETED}, data_key = null, expires_at = null from x where f.id = x.id
                 returning f.tenant_id, f.public_id)
               {audit.each(f"(select tenant_id, {label_of(ids.FILE)} as subject from f) x")}""",
            {"files": list(file_ids), **audit.recorded(connection, "file.expire")},
        ).rowcount


def left(db: Database, *, limit: int = 50) -> list[uuid.UUID]:
    """Return deleted files whose contents may still exist, in random order: one that cannot be removed holds up no others."""
    with db.session() as connection:
        return connection.scalars(
            f"select public_id from file where {LEFT_FILE} order by random() limit %(limit)s", {"limit": limit}
        )


def removed(db: Database, public_id: uuid.UUID) -> None:
    """Record that the content of a deleted file was removed."""
    with db.session() as connection:
        connection.execute(
            f"update file set state = {FileState.REMOVED} where public_id = %(id)s and {LEFT_FILE}", {"id": public_id}
        )
