"""Rotation of the secret key while the fleet runs: the pin moves, then what the old key wraps is wrapped by the new one.

Small transactions, each leaving rows that can be decrypted: after a kill, run it again and it resumes. Once the pin has moved,
nobody writes under the old key: writers read the pin in their own transaction and lock it until they commit
(`installation.follow`).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from guardfleet.domain.ids import DEFAULT_TENANT
from guardfleet.errors import ConfigurationError, RejectedError
from guardfleet.security.encryption import Keyring
from guardfleet.store import audit, installation
from guardfleet.store.postgres.database import Connection, Database

LOCK_KEY = 0x6B65_7973  # "keys"
PIECE = 50  # rows per transaction: finishing a shard waits at most for one transaction
SEALED = {  # columns under the secret key
    "job": ("data_key",), "file": ("data_key",), "endpoint": ("secret", "old_secret"), "legal_hold": ("target",),
    "deployment": ("data_key",),
}  # fmt: skip
DATA_KEYS = ("job", "file", "deployment")


@dataclass(frozen=True, slots=True)
class Rotated:
    """What was rewrapped, what neither key decrypts, and the API keys not used since, which need the old key until they are."""

    data_keys: int
    endpoints: int
    unopened: int
    api_keys_left: int


def rotate(db: Database, keyring: Keyring, on_progress: Callable[[int], None] = lambda n: None) -> Rotated:
    """Make `secret_key` the installation's key, and leave only unused API keys under the previous one.

    Idempotent; only one runs at a time (RejectedError). Raises ConfigurationError if the ring lacks a key that is needed.
    """
    with _alone(db):
        installation.require_key(db, keyring)
        _move_pin(db, keyring)
        done = dict.fromkeys(SEALED, 0)
        for table in done:
            while (found := _pass(db, keyring, table, lambda n: on_progress(sum(done.values()) + n))).wrapped:
                done[table] += found.wrapped
        unopened = sum(_pass(db, keyring, table, on_progress).unopened for table in done)
        return Rotated(done["job"] + done["file"], done["endpoint"], unopened, _close(db, keyring))


@dataclass(slots=True)
class Pass:
    """The counts of one walk over a table's rows that are under another key."""

    wrapped: int = 0
    unopened: int = 0


def _move_pin(db: Database, keyring: Keyring) -> None:
    if keyring.key_id == keyring.newest_id:
        return
    old, new = keyring.key_id, keyring.newest_id
    with db.begin() as connection:
        connection.execute("update installation_key set is_current = false where is_current")  # waits for writers
        connection.execute(
            """insert into installation_key (key_id, is_current) values (%(id)s, true)
               on conflict (key_id) do update set is_current = true, pinned_at = now()""",
            {"id": new},
        )
        audit.record(connection, DEFAULT_TENANT, "secret_key.rotate", new, old=old)
    keyring.follow(new)


def _pass(db: Database, keyring: Keyring, table: str, on_progress: Callable[[int], None]) -> Pass:
    found = Pass()
    last: int | None = 0
    while last is not None:
        last = _piece(db, keyring, table, last, found)
        on_progress(found.wrapped)
    return found


def _piece(db: Database, keyring: Keyring, table: str, after: int, found: Pass) -> int | None:
    """Rewrap the next rows after `after`; return the id of the last, None at the end."""
    columns = SEALED[table]
    with db.begin() as connection:
        rows = connection.execute(
            f"""select id, {", ".join(columns)} from {table}
                where id > %(after)s and key_id is distinct from %(key_id)s and {columns[0]} is not null
                order by id limit %(piece)s for no key update""",
            {"after": after, "key_id": keyring.key_id, "piece": PIECE},
        ).fetchall()
        changes = [change for row in rows if (change := _wrapped(keyring, table, row)) is not None]
        if changes:
            settings = ", ".join(f"{column} = %({column})s" for column in (*columns, "key_id"))
            connection.cursor().executemany(f"update {table} set {settings} where id = %(id)s", changes)
    found.wrapped += len(changes)
    found.unopened += len(rows) - len(changes)
    return rows[-1].id if rows else None


def _wrapped(keyring: Keyring, table: str, row: Any) -> dict[str, Any] | None:
    """Return the row's values under the current key; None if no key of the ring decrypts them."""
    anew = keyring.rewrap if table in DATA_KEYS else lambda sealed: keyring.encrypt_secret(keyring.decrypt_secret(sealed))
    try:
        values = {name: None if getattr(row, name) is None else anew(bytes(getattr(row, name))) for name in SEALED[table]}
    except ConfigurationError:
        return None
    return {"id": row.id, "key_id": keyring.key_id, **values}


def _close(db: Database, keyring: Keyring) -> int:
    """Delete the old pin, under which only API keys are left; return how many of them are still valid."""
    with db.begin() as connection:
        retired = connection.execute("delete from installation_key where not is_current").rowcount
        left: int = connection.scalar(
            """select count(*) from api_key where key_id is distinct from %(key_id)s and revoked_at is null
                 and (expires_at is null or expires_at > now())""",
            {"key_id": keyring.key_id},
        )
        if retired:
            audit.record(connection, DEFAULT_TENANT, "secret_key.retire", keyring.key_id, api_keys_left=left)
        return left


@contextmanager
def _alone(db: Database) -> Iterator[Connection]:
    with db.session() as connection:
        if not connection.scalar("select pg_try_advisory_lock(%(key)s)", {"key": LOCK_KEY}):
            raise RejectedError("another `keys rotate-secret` is running: wait until it has ended.")
        try:
            yield connection
        finally:
            connection.execute("select pg_advisory_unlock(%(key)s)", {"key": LOCK_KEY})
