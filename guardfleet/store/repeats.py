"""Requests that make something, remembered for a while: the same one sent again finds what the first has made.

Invariant: of several that come at the same time only the one that inserts the row, or takes over one that was left, goes on.
"""

from dataclasses import dataclass

from sqlalchemy import text

from guardfleet.store.database import Database

LEFT_S = 60.0  # a request that has made nothing for so long was cut off


@dataclass(frozen=True, slots=True)
class Earlier:
    """The same request, before. `subject` is None while that is at it."""

    fingerprint: bytes
    subject: str | None


def begin(db: Database, *, tenant_id: int, key: bytes, fingerprint: bytes, memory_s: float) -> Earlier | None:
    """Remember a request that is about to make something; what is known of the same one if it came within `memory_s`."""
    values = {"tenant": tenant_id, "key": key, "fingerprint": fingerprint, "memory": memory_s, "left": LEFT_S}
    with db.begin() as connection:
        mine = connection.execute(
            text("""insert into repeat (tenant_id, key, fingerprint) values (:tenant, :key, :fingerprint)
                    on conflict (tenant_id, key) do update
                      set fingerprint = excluded.fingerprint, subject = null, created_at = now()
                    where repeat.created_at < now() - make_interval(secs => case when repeat.subject is null then :left
                                                                          else :memory end)"""),
            values,
        ).rowcount
        if mine:
            return None
        row = connection.execute(
            text("select fingerprint, subject from repeat where tenant_id = :tenant and key = :key"), values
        ).one_or_none()
    return Earlier(bytes(row.fingerprint), row.subject) if row else None


def settle(db: Database, *, tenant_id: int, key: bytes, subject: str) -> None:
    """Say what the request has made."""
    with db.session() as connection:
        connection.execute(
            text("update repeat set subject = :subject where tenant_id = :tenant and key = :key"),
            {"tenant": tenant_id, "key": key, "subject": subject},
        )


def forget(db: Database, *, tenant_id: int, key: bytes) -> None:
    """The request made nothing: it may come again."""
    with db.session() as connection:
        connection.execute(
            text("delete from repeat where tenant_id = :tenant and key = :key and subject is null"),
            {"tenant": tenant_id, "key": key},
        )


def forget_old(db: Database, *, older_than_s: float) -> int:
    """Drop what no repeat is expected of any more; returns how many."""
    with db.session() as connection:
        return connection.execute(
            text("delete from repeat where created_at < now() - make_interval(secs => :age)"), {"age": older_than_s}
        ).rowcount
