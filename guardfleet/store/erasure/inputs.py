"""Uploaded files that erased texts came from: deleted whole, once nothing is taken from them any more.

A file is encrypted chunk by chunk and may have gigabytes; cutting lines out would write it again. Whoever uploaded it has it.
"""

import uuid

from guardfleet.domain import ids
from guardfleet.domain.states import FileState
from guardfleet.store import audit
from guardfleet.store.erasure import receipts
from guardfleet.store.erasure.receipts import Receipt
from guardfleet.store.postgres.database import Connection, Database
from guardfleet.store.words import INGESTING_JOB, WHOLE_FILE


def erase(db: Database, receipt: Receipt) -> None:
    """Delete the erasure's input files with their keys; one that a job is still being filled from waits, a held one is counted.

    The content is noise from then on, and an API process removes it within a minute. Name and digest go too.
    """
    for public_id in receipt.input_files:
        with db.begin() as connection:
            _erase(connection, receipt, public_id)


def _erase(connection: Connection, receipt: Receipt, public_id: uuid.UUID) -> None:
    values = {"file": public_id, "tenant": receipt.tenant_id, "id": receipt.id}
    use = connection.execute(
        f"""select coalesce(bool_or({INGESTING_JOB}), false) as is_read, coalesce(bool_or(holds > 0), false) as is_held
            from job where tenant_id = %(tenant)s and input_file_id = %(file)s""",
        values,
    ).fetchone()
    assert use is not None  # noqa: S101 - an aggregate has a row
    if use.is_read and not use.is_held:
        return
    gone = 0 if use.is_held else delete(connection, receipt.tenant_id, public_id)
    taken = connection.execute(
        "update erasure set input_files = array_remove(input_files, %(file)s) where id = %(id)s and input_files @> array[%(file)s]",
        values,
    ).rowcount
    if taken:
        receipts.add(connection, receipt.id, files=gone, held=int(use.is_held))


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
