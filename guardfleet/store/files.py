"""Uploaded files: what is known of them. Their contents lie outside of the database, sealed with the data key that is here."""

import datetime as dt
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text
from uuid_utils.compat import uuid7

from guardfleet.domain import ids
from guardfleet.domain.states import FileState
from guardfleet.errors import NotFoundError
from guardfleet.security.encryption import Keyring
from guardfleet.store import installation
from guardfleet.store.database import Database
from guardfleet.store.jobs.views import audit
from guardfleet.store.words import KEPT_FILE, LEFT_FILE, UPLOADING_FILE, WHOLE_FILE

UPLOAD_S = 86_400.0  # an upload that is not whole after so long was cut off
COLUMNS = "public_id, tenant_id, filename, purpose, size, lines, digest, data_key, created_at, expires_at"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A whole file, or one that is on its way (`digest` is None)."""

    public_id: uuid.UUID
    tenant_id: int
    filename: str
    purpose: str
    size: int
    lines: int | None  # None: of a version that did not count them
    digest: bytes | None
    data_key: bytes
    created_at: dt.datetime
    expires_at: dt.datetime | None

    @property
    def label(self) -> str:
        """Its public id."""
        return ids.FILE.of(self.public_id)


def create(db: Database, keyring: Keyring, *, tenant_id: int, filename: str) -> StoredFile:
    """A file on its way in, what it is for not known yet. A crash leaves it so; `overdue` finds it a day later."""
    with db.begin() as connection:
        installation.follow(connection, keyring)
        row = connection.execute(
            text(f"""insert into file (public_id, tenant_id, filename, purpose, key_id, data_key, expires_at)
                     values (:id, :tenant, :filename, '', :key_id, :data_key, now() + make_interval(secs => :upload))
                     returning {COLUMNS}"""),
            {
                "id": uuid7(),
                "tenant": tenant_id,
                "filename": filename,
                "key_id": keyring.key_id,
                "data_key": keyring.new_data_key(),
                "upload": UPLOAD_S,
            },
        ).one()
    return StoredFile(*row)


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
    """The content is whole: from now on the file is seen. `also` is done in the same transaction."""
    with db.begin() as connection:
        row = connection.execute(
            text(f"""update file set state = {FileState.WHOLE}, purpose = :purpose, size = :size, lines = :lines,
                            digest = :digest,
                            expires_at = created_at + make_interval(secs => cast(:expires as double precision))
                     where public_id = :id and {UPLOADING_FILE} returning {COLUMNS}"""),
            {
                "id": file.public_id,
                "purpose": purpose,
                "size": size,
                "lines": lines,
                "digest": digest,
                "expires": expires_s,
            },
        ).one()
        audit(connection, file.tenant_id, "file.create", file.label)
        if also is not None:
            also(connection)
    return StoredFile(*row)


def get(db: Database, public_id: uuid.UUID, *, tenant_id: int) -> StoredFile:
    """A whole file; raises NotFoundError, for another tenant's file too."""
    with db.session() as connection:
        row = connection.execute(
            text(f"select {COLUMNS} from file where public_id = :id and tenant_id = :tenant and {WHOLE_FILE}"),
            {"id": public_id, "tenant": tenant_id},
        ).one_or_none()
    if row is None:
        raise NotFoundError(ids.FILE.unknown)
    return StoredFile(*row)


def page(
    db: Database, *, tenant_id: int, after: uuid.UUID | None, limit: int, purpose: str | None, newest_first: bool
) -> list[StoredFile]:
    """Up to `limit` whole files after the named one, by age."""
    direction, side = ("desc", "<") if newest_first else ("asc", ">")
    with db.session() as connection:
        rows = connection.execute(
            text(f"""select {COLUMNS} from file where tenant_id = :tenant and {WHOLE_FILE}
                       and (cast(:purpose as text) is null or purpose = :purpose)
                       and (cast(:after as uuid) is null
                            or id {side} (select id from file where public_id = :after and tenant_id = :tenant))
                     order by id {direction} limit :limit"""),
            {"tenant": tenant_id, "purpose": purpose, "after": after, "limit": limit},
        ).all()
    return [StoredFile(*row) for row in rows]


def delete(db: Database, public_id: uuid.UUID, *, tenant_id: int) -> None:
    """Forget a file and the key that opens it: from now on its content is noise. Raises NotFoundError."""
    with db.begin() as connection:
        gone = connection.execute(
            text(f"""update file set state = {FileState.DELETED}, data_key = null, expires_at = null
                    where public_id = :id and tenant_id = :tenant and {WHOLE_FILE}"""),
            {"id": public_id, "tenant": tenant_id},
        ).rowcount
        if not gone:
            raise NotFoundError(ids.FILE.unknown)
        audit(connection, tenant_id, "file.delete", ids.FILE.of(public_id))


def overdue(db: Database, *, skip: Sequence[int] = (), limit: int = 100) -> list[int]:
    """Files whose time is over, and uploads that were cut off."""
    with db.session() as connection:
        rows = connection.execute(
            text(f"""select id from file where {KEPT_FILE} and expires_at < now() and id <> all(cast(:skip as bigint[]))
                     order by expires_at limit :limit"""),
            {"skip": list(skip), "limit": limit},
        )
        return list(rows.scalars())


def expire(db: Database, file_ids: Sequence[int]) -> int:
    """Forget those of these files whose time is over, as delete() would; returns how many."""
    with db.session() as connection:
        return connection.execute(
            text(f"""with x as materialized (
                      select id from file where {KEPT_FILE} and expires_at < now() and id = any(cast(:files as bigint[]))
                      for update skip locked)
                    update file f set state = {FileState.DELETED}, data_key = null, expires_at = null from x where f.id = x.id"""),
            {"files": list(file_ids)},
        ).rowcount


def left(db: Database, *, limit: int = 50) -> list[uuid.UUID]:
    """Forgotten files whose contents may still be there; by lot, so that one that cannot be removed holds up no others."""
    with db.session() as connection:
        rows = connection.execute(
            text(f"select public_id from file where {LEFT_FILE} order by random() limit :limit"), {"limit": limit}
        )
        return list(rows.scalars())


def removed(db: Database, public_id: uuid.UUID) -> None:
    """The content of a forgotten file is gone."""
    with db.session() as connection:
        connection.execute(
            text(f"update file set state = {FileState.REMOVED} where public_id = :id and {LEFT_FILE}"), {"id": public_id}
        )
