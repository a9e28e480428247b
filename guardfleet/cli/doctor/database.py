"""The database: whether it answers, its version, schema, pooler, clock, and the secret key that it was made with."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing

from guardfleet.cli.doctor.findings import Caution, Check, Pitfall, TroubleError
from guardfleet.errors import GuardfleetError
from guardfleet.settings import Settings
from guardfleet.store.postgres.database import Database

SKEW_S, MOST_SKEW_S = 5.0, 120.0  # receivers of webhooks refuse a signature that is minutes off
Clock = Callable[[], float]


def checks(settings: Settings, *, clock: Clock = time.time) -> Iterator[list[Check]]:
    """Yield the chains of checks of the database."""
    seen = _Seen(settings, clock)
    reach = "check GUARDFLEET_DATABASE_URL, that the server runs, and that no firewall keeps this machine off: `nc -vz HOST PORT`."
    yield [
        Check("database", seen.database, reach, Pitfall.PORT),
        Check("schema", seen.schema, "`guardfleet db upgrade`, with the newest version of guardfleet.", after=("database",)),
        Check("pooler", seen.pooler, "docs/scaling.md says which can be used, and how.", after=("database",)),
        Check("clock", seen.clock, "run a time service (chrony, systemd-timesyncd) on both machines.", after=("database",)),
    ]
    key = "set GUARDFLEET_SECRET_KEY to the key that the other processes have (docs/security.md)."
    yield [Check("secret key", seen.secret, key)]


class _Seen:
    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings, self._clock = settings, clock

    def database(self) -> str:
        from guardfleet.store.postgres import server

        with closing(self._opened()) as db:
            return f"PostgreSQL {server.require_supported(db)} answers"

    def schema(self) -> str:
        from guardfleet.store import migrate

        with closing(self._opened()) as db:
            migrate.require_head(db)
        return f"at migration {migrate.head()}"

    def pooler(self) -> str:
        from guardfleet.store.postgres import pooler

        with closing(self._opened()) as db:
            pooler.require_prepared(db)
        return "none, or one that keeps prepared statements"

    def clock(self) -> str | Caution:
        from guardfleet.store.postgres import server

        with closing(self._opened()) as db:
            skew_s = server.skew_s(db, clock=self._clock)
        return told(skew_s, "the database")

    def secret(self) -> str | Caution:
        from guardfleet.security.encryption import Keyring
        from guardfleet.store import installation, migrate

        keyring = Keyring.of(self._settings)
        with closing(self._opened()) as db:
            try:
                migrate.require_head(db)
            except GuardfleetError:
                return Caution(
                    f"key {keyring.key_id} was not compared: the database cannot be used", "see `database` and `schema`."
                )
            is_pinned = installation.is_pinned(db, keyring)
        if is_pinned:
            return f"key {keyring.key_id} is the installation's"
        first = "check that it is the right one, and keep a copy: without it nothing can be decrypted (docs/security.md)."
        return Caution(f"key {keyring.key_id} becomes the installation's when the first process starts with it", first)

    def _opened(self) -> Database:
        return Database(self._settings.required("database_url"), application="guardfleet-doctor", pool_size=2)


def told(skew_s: float, whose: str) -> str | Caution:
    """Say how far this machine's clock is from a server's. Raises TroubleError if it is minutes."""
    said = f"this machine's is {abs(skew_s):.1f} s {'ahead of' if skew_s > 0 else 'behind'} that of {whose}"
    if abs(skew_s) > MOST_SKEW_S:
        raise TroubleError(
            f"{said}: receivers of webhooks would refuse their signatures.",
            "set the clocks by a time service (chrony, systemd-timesyncd) on both machines.",
        )
    return said if abs(skew_s) <= SKEW_S else Caution(said)
