"""Uploaded files that erased texts came from: deleted whole, once nothing is taken from them any more.

A file is encrypted chunk by chunk and may have gigabytes; cutting lines out would write it again. Whoever uploaded it has it.
"""

import uuid
from collections.abc import Collection

from guardfleet.domain import ids
from guardfleet.domain.states import FileState
from guardfleet.store import audit
from guardfleet.store.erasure import receipts
from guardfleet.store.erasure.receipts import Receipt
from guardfleet.store.files import IS_HELD
from guardfleet.store.postgres.database import Connection, Database
from guardfleet.store.words import INGESTING_JOB, WHOLE_FILE


def count(db: Database, tenant_id: int, files: Collection[uuid.UUID | None]) -> int:
    """Return how many of these files exist and are not under a hold."""
    with db.session() as connection:
        n: int = connection.scalar(
            f"""select count(*) from file
                where tenant_id = %(tenant)s and public_id = any(%(files)s::uuid[]) and {WHOLE_FILE} and not {IS_HELD}""",
            {"tenant": tenant_id, "files": list(files)},
        )
        return n


def erase(db: Database, receipt: Receipt, *, kept: Collection[uuid.UUID] = ()) -> None:
    """Delete the erasure's input files with their keys; one that a job is still being filled from waits, a held one is counted.

    `kept`: files that may have a held text, beside those whose jobs are under a hold.
    The content is noise from then on, and an API process removes it within a minute. Name and digest go too.
    """
    for public_id in receipt.input_files:
        with db.begin() as connection:
            _erase(connection, receipt, public_id, may_go=public_id not in kept)


def _erase(connection: Connection, receipt: Receipt, public_id: uuid.UUID, *, may_go: bool) -> None:
    values = {"file": public_id, "tenant": receipt.tenant_id, "id": receipt.id}
    use = connection.execute(
        f"""select coalesce(bool_or({INGESTING_JOB}), false) as is_read, coalesce(bool_or(holds > 0), false) as is_held
            from job where tenant_id = %(tenant)s and input_file_id = %(file)s""",
        values,
    ).fetchone()
    assert use is not None  # noqa: S101 - an aggregate has a row
    is_held = use.is_held or not may_go
    if use.is_read and not is_held:
        return
    gone = 0 if is_held else delete(connection, receipt.tenant_id, public_id)
    taken = connection.execute(
        "update erasure set input_files = array_remove(input_files, %(file)s) where id = %(id)s and input_files @> array[%(file)s]",
        values,
    ).rowcount
    if taken:
        receipts.add(connection, receipt.id, files=gone, held=int(is_held))


def delete(connection: Connection, tenant_id: int, public_id: uuid.UUID) -> int:
    """Delete a file as on request, and what its row says of the content; return how many."""
    label = ids.FILE.of(public_id)
    values = {"file": public_id, "tenant": tenant_id, "label": label}
    gone = connection.execute(
        f"""update file set state = {FileState.DELETED}, data_key = null, expires_at = null, digest = null, filename = ''
            where public_id = %(file)s and tenant_id = %(tenant)s and {WHOLE_FILE}""",
        values,
    ).rowcount
    connection.execute("delete from repeat where tenant_id = %(tenant)s and subject = %(label)s", values)
    if gone:
        audit.record(connection, tenant_id, "file.erase", label)
    return gone
