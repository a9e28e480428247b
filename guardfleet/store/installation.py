"""Which secret key this installation was made with: pinned by the first process that has one, compared by all others.

A process with another key could open nothing, and what it sealed nobody else could: each text would end as an error.
"""

from guardfleet.errors import ConfigurationError, GuardfleetError
from guardfleet.security.encryption import Keyring
from guardfleet.store.postgres.database import Connection, Database

CURRENT = "select key_id from installation_key where is_current"
# A database of an earlier version has jobs and no pin: only a key that some of them are sealed with is believed.
PIN = """insert into installation_key (key_id, is_current)
         select %(id)s, true
         where not exists (select from installation_key)
           and (not exists (select from job) or exists (select from job where key_id = %(id)s))
         on conflict do nothing"""


def require_key(db: Database, keyring: Keyring) -> None:
    """Raise ConfigurationError unless the ring has the installation's key; pin it where none is pinned. The schema has to be there.

    From now on the ring writes under the pinned key. A rotation that is not finished needs the key before, too.
    """
    with db.begin() as connection:
        connection.execute(PIN, {"id": keyring.key_id})
        _follow(_pinned(connection), keyring)
        others = connection.scalars("select key_id from installation_key where not is_current")
        if missing := next((key_id for key_id in others if not keyring.opens(key_id)), None):
            raise ConfigurationError(
                f"the rotation from secret key {missing} is not finished: set GUARDFLEET_PREVIOUS_SECRET_KEY to it, and run "
                "`guardfleet keys rotate-secret` (docs/security.md)."
            )


def is_pinned(db: Database, keyring: Keyring) -> bool:
    """Whether the ring has the pinned key; False where none is pinned yet. ConfigurationError where another is."""
    with db.begin() as connection:
        pinned = _pinned(connection)
    if pinned is None:
        return False
    _follow(pinned, keyring)
    return True


def follow(connection: Connection, keyring: Keyring) -> None:
    """Let the ring write under the pinned key, which does not change before the transaction ends. Raises ConfigurationError."""
    pinned = connection.scalar(f"{CURRENT} for share")
    if pinned is not None and pinned != keyring.key_id:
        _follow(pinned, keyring)


def look(db: Database, keyring: Keyring) -> None:
    """The same for what is not written, or in a statement of its own."""
    with db.session() as connection:
        pinned = connection.scalar(CURRENT)
    if pinned is not None:
        _follow(pinned, keyring)


def is_foreign(db: Database, keyring: Keyring) -> bool:
    """Whether the pinned key is one that the ring has not: the key was rotated, and this process not restarted with it."""
    try:
        look(db, keyring)
    except ConfigurationError:
        return True
    return False


def wrong(db: Database, keyring: Keyring) -> str | None:
    """Why nothing can be taken or judged here now, or None: the database cannot be used, or has another key."""
    try:
        db.ping()
        look(db, keyring)
    except GuardfleetError as error:
        return str(error)
    return None


def _pinned(connection: Connection) -> str | None:
    """The pinned key's id, else that of the newest job's."""
    found: str | None = connection.scalar(f"select coalesce(({CURRENT}), (select key_id from job order by id desc limit 1))")
    return found


def _follow(pinned: str | None, keyring: Keyring) -> None:
    if pinned is None or not keyring.opens(pinned):
        raise ConfigurationError(
            f"this installation's secret key is {pinned}, and the one set here is {keyring.newest_id}: "
            "set GUARDFLEET_SECRET_KEY to the key it was made with (docs/security.md)."
        )
    keyring.follow(pinned)
