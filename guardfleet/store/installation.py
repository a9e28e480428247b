"""Which secret key this installation was made with: pinned by the first process that has one, compared by all others.

A process with another key could decrypt nothing, and nobody else could decrypt what it wrote: each text would end as an error.
"""

from guardfleet.domain.ids import DEFAULT_TENANT
from guardfleet.errors import ConfigurationError, GuardfleetError
from guardfleet.security.encryption import Keyring
from guardfleet.store import audit
from guardfleet.store.postgres.database import Connection, Database
from guardfleet.telemetry import metrics
from guardfleet.telemetry.health import Part

CURRENT = "select key_id from installation_key where is_current"
# A database of an earlier version has jobs but no pin: accept only a key that encrypts some of them.
PIN = """insert into installation_key (key_id, is_current)
         select %(id)s, true
         where not exists (select from installation_key)
           and (not exists (select from job) or exists (select from job where key_id = %(id)s))
         on conflict do nothing"""


def require_key(db: Database, keyring: Keyring) -> None:
    """Raise ConfigurationError unless the ring has the installation's key; pin the ring's if none is pinned. Needs the schema.

    Afterwards the ring writes under the pinned key. While a rotation is unfinished, the ring must have the previous key too.
    """
    with db.begin() as connection:
        if connection.execute(PIN, {"id": keyring.key_id}).rowcount:
            audit.record(connection, DEFAULT_TENANT, "secret_key.pin", keyring.key_id)
        _follow(_pinned(connection), keyring)
        others = connection.scalars("select key_id from installation_key where not is_current")
        if missing := next((key_id for key_id in others if not keyring.opens(key_id)), None):
            raise ConfigurationError(
                f"the rotation from secret key {missing} is not finished: set GUARDFLEET_PREVIOUS_SECRET_KEY to it, and run "
                "`guardfleet keys rotate-secret` (docs/security.md)."
            )


def is_pinned(db: Database, keyring: Keyring) -> bool:
    """Return True if the ring has the pinned key, False if none is pinned. Raises ConfigurationError if it lacks the pinned one."""
    with db.begin() as connection:
        pinned = _pinned(connection)
    if pinned is None:
        return False
    _follow(pinned, keyring)
    return True


def follow(connection: Connection, keyring: Keyring) -> None:
    """Make the ring write under the pinned key, which cannot change before the transaction ends. Raises ConfigurationError."""
    pinned = connection.scalar(f"{CURRENT} for share")
    if pinned is not None and pinned != keyring.key_id:
        _follow(pinned, keyring)


def look(db: Database, keyring: Keyring) -> None:
    """Do the same as `follow`, without holding the pin: for reads, and for writes in a statement of their own."""
    with db.session() as connection:
        pinned = connection.scalar(CURRENT)
    if pinned is not None:
        _follow(pinned, keyring)


def is_foreign(db: Database, keyring: Keyring) -> bool:
    """Return whether the ring lacks the pinned key: it was rotated, and this process not restarted with the new one."""
    try:
        look(db, keyring)
    except ConfigurationError:
        return True
    return False


def part(db: Database, keyring: Keyring) -> Part:
    """Return the database as a part of a process's health; looking at it also counts the pool's connections."""

    def look() -> str | None:
        in_use, idle = db.connections()
        metrics.CONNECTIONS.replace({("in_use",): in_use, ("idle",): idle})
        return wrong(db, keyring)

    return Part("database", look, address=db.address)


def size_bytes(db: Database) -> int:
    """Return the size of the database on its server's disk."""
    with db.session() as connection:
        found: int = connection.scalar("select pg_database_size(current_database())")
        return found


def wrong(db: Database, keyring: Keyring) -> str | None:
    """Return why this process cannot work now, or None: the database cannot be used, or is pinned to another key."""
    try:
        db.ping()
        look(db, keyring)
    except GuardfleetError as error:
        return str(error)
    return None


def _pinned(connection: Connection) -> str | None:
    """Return the id of the pinned key, otherwise that of the newest job's key."""
    found: str | None = connection.scalar(f"select coalesce(({CURRENT}), (select key_id from job order by id desc limit 1))")
    return found


def _follow(pinned: str | None, keyring: Keyring) -> None:
    if pinned is None or not keyring.opens(pinned):
        raise ConfigurationError(
            f"this installation's secret key is {pinned}, and the one set here is {keyring.newest_id}: "
            "set GUARDFLEET_SECRET_KEY to the key it was made with (docs/security.md)."
        )
    keyring.follow(pinned)
