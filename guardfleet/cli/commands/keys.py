"""`guardfleet keys`: API keys from the command line. A key is printed when it is made, and never again."""

import datetime as dt
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from guardfleet.cli import DONE, terminal
from guardfleet.embedded.stack import database_of
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings
from guardfleet.store import installation, keys
from guardfleet.store.keys import ApiKey
from guardfleet.store.postgres.database import Database


def create(settings: Settings, *, name: str, tenant: str, scopes: Sequence[str], days: float | None) -> int:
    """Create a key and print it."""
    with _store(settings) as (db, keyring):
        expires_s = None if days is None else days * 86_400
        print(keys.create(db, keyring, name=name, tenant=tenant, scopes=scopes, expires_s=expires_s))
    return DONE


def listing(settings: Settings, *, as_json: bool) -> int:
    """List all keys."""
    with _store(settings) as (db, _):
        found = keys.every(db)
    if as_json:
        for key in found:
            print(json.dumps(_as_dict(key)))
        return DONE
    names = ("key", "ends in", "last used", "state", "tenant", "name: scopes")
    rows = [
        (key.label, key.hint, f"{key.last_used_at:%Y-%m-%d}" if key.last_used_at else "never", _state(key), key.tenant,
         f"{key.name}: {' '.join(key.scopes)}")
        for key in found
    ]  # fmt: skip
    if rows:
        terminal.say(terminal.listed(names, rows, to=terminal.answers, cut="name: scopes"), to=terminal.answers)
    else:
        terminal.say("no keys")
    return DONE


def revoke(settings: Settings, label: str) -> int:
    """Revoke a key."""
    with _store(settings) as (db, _):
        keys.revoke(db, label)
    terminal.say(f"{label} is revoked; API processes that have cached it refuse it within seconds")
    return DONE


def rotate(settings: Settings, label: str, *, overlap_hours: float) -> int:
    """Create a key's successor and print it."""
    with _store(settings) as (db, keyring):
        print(keys.rotate(db, keyring, label, overlap_s=overlap_hours * 3600)[1])
    return DONE


def rotate_secret(settings: Settings) -> int:
    """Wrap every data key with the new secret key."""
    from guardfleet.store import rotation

    with _store(settings) as (db, keyring):
        with terminal.busy("rewrapping data keys") as change:
            done = rotation.rotate(db, keyring, lambda n: change(f"rewrapping data keys: {n:,}"))
        terminal.say(
            f"{keyring.key_id} is the installation's secret key: {done.data_keys:,} data keys and the secrets of "
            f"{done.endpoints:,} webhook endpoints were rewrapped.",
        )
        if done.unopened:
            terminal.warn(f"{done.unopened:,} values were left unchanged: neither key decrypts them, a third one encrypted them.")
        if done.api_keys_left:
            terminal.say(
                f"{done.api_keys_left:,} API keys have not been used since: they are valid for as long as "
                "GUARDFLEET_PREVIOUS_SECRET_KEY is set at the API, and for good once they were used there.",
            )
    return DONE


@contextmanager
def _store(settings: Settings) -> Iterator[tuple[Database, Keyring]]:
    with database_of(settings) as complete:
        db = Database(complete.required("database_url"), pool_size=1)
        try:
            keyring = Keyring.of(complete)
            installation.require_key(db, keyring)
            yield db, keyring
        finally:
            db.close()


def _state(key: ApiKey) -> str:
    if key.revoked_at:
        return f"revoked {key.revoked_at:%Y-%m-%d}"
    if key.expires_at is None:
        return "in use"
    is_over = key.expires_at < dt.datetime.now(dt.UTC)
    return f"{'ended' if is_over else 'until'} {key.expires_at:%Y-%m-%d %H:%M}"


def _as_dict(key: ApiKey) -> dict[str, object]:
    times = {name: getattr(key, name) for name in ("created_at", "expires_at", "last_used_at", "revoked_at")}
    shown = {name: moment.isoformat() if moment else None for name, moment in times.items()}
    return {"key": key.label, "tenant": key.tenant, "name": key.name, "hint": key.hint, "scopes": key.scopes, **shown}
