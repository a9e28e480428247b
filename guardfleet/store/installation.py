"""Which secret key this installation was made with: pinned by the first process that has one, compared by all others.

A process with another key could open nothing, and what it sealed nobody else could: each text would end as an error.
"""

from sqlalchemy import Connection, text

from guardfleet.errors import ConfigurationError
from guardfleet.sealing import Keyring
from guardfleet.store.database import Database

CURRENT = "select key_id from installation_key where is_current"
# A database of an earlier version has jobs and no pin: only a key that some of them are sealed with is believed.
PIN = """insert into installation_key (key_id, is_current)
         select :id, true
         where not exists (select from installation_key)
           and (not exists (select from job) or exists (select from job where key_id = :id))
         on conflict do nothing"""


def require_key(db: Database, keyring: Keyring) -> None:
    """Raise ConfigurationError unless the key is the installation's; pin it where none is pinned. The schema has to be there."""
    with db.begin() as connection:
        connection.execute(text(PIN), {"id": keyring.key_id})
        _compare(_pinned(connection), keyring)


def is_pinned(db: Database, keyring: Keyring) -> bool:
    """Whether the key is the pinned one; False where none is pinned yet. ConfigurationError where another is."""
    with db.begin() as connection:
        pinned = _pinned(connection)
    if pinned is None:
        return False
    _compare(pinned, keyring)
    return True


def _pinned(connection: Connection) -> str | None:
    """The pinned key's id, else that of the newest job's."""
    found: str | None = connection.execute(
        text(f"select coalesce(({CURRENT}), (select key_id from job order by id desc limit 1))")
    ).scalar_one()
    return found


def _compare(pinned: str | None, keyring: Keyring) -> None:
    if pinned != keyring.key_id:
        raise ConfigurationError(
            f"this installation's secret key is {pinned}, and the one set here is {keyring.key_id}: "
            "set GUARDFLEET_SECRET_KEY to the key it was made with (docs/security.md)."
        )
