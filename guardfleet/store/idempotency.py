"""Requests that create something, remembered for a while: the same request sent again finds what the first one created.

Invariant: of several equal requests at the same time, only the one that inserts the row, or takes over an abandoned row, proceeds.
It holds the newest `token` until another takes over, and what it created is recorded only under that token.
"""

from dataclasses import dataclass

from guardfleet.errors import RejectedError
from guardfleet.store.postgres.database import Connection, Database

LEFT_S = 60.0  # a request that was not renewed for so long counts as interrupted


@dataclass(frozen=True, slots=True)
class Mine:
    """The right to create what was asked for, as long as `token` is the newest."""

    token: int


@dataclass(frozen=True, slots=True)
class Earlier:
    """An earlier equal request. `subject` is None while it is at work, `body` if the fingerprint covers the whole request."""

    fingerprint: bytes
    subject: str | None
    body: bytes | None


def begin(db: Database, *, tenant_id: int, key: bytes, fingerprint: bytes, memory_s: float) -> Mine | Earlier | None:
    """Remember a request that is about to create something, or return what is known of the same one within `memory_s`.

    None if the earlier one was forgotten just now: treat it as still at work.
    """
    values = {"tenant": tenant_id, "key": key, "fingerprint": fingerprint, "memory": memory_s, "left": LEFT_S}
    with db.begin() as connection:
        mine = connection.scalar(
            """insert into repeat (tenant_id, key, fingerprint) values (%(tenant)s, %(key)s, %(fingerprint)s)
               on conflict (tenant_id, key) do update
                 set fingerprint = excluded.fingerprint, subject = null, body = null, created_at = now(),
                     token = repeat.token + 1
               where repeat.created_at < now() - make_interval(secs => case when repeat.subject is null then %(left)s
                                                                     else %(memory)s end)
               returning token""",
            values,
        )
        if mine is not None:
            return Mine(mine)
        row = connection.execute(
            "select fingerprint, subject, body from repeat where tenant_id = %(tenant)s and key = %(key)s", values
        ).fetchone()
    return Earlier(row.fingerprint, row.subject, row.body) if row else None


def renew(db: Database, *, tenant_id: int, key: bytes, token: int) -> bool:
    """Renew the request; return False if another has taken it over, or if it is settled."""
    with db.session() as connection:
        return bool(
            connection.execute(
                """update repeat set created_at = now()
                   where tenant_id = %(tenant)s and key = %(key)s and token = %(token)s and subject is null""",
                {"tenant": tenant_id, "key": key, "token": token},
            ).rowcount
        )


def settle(connection: Connection, *, tenant_id: int, key: bytes, token: int, subject: str, body: bytes | None = None) -> None:
    """Record what the request created, in the transaction that creates it. Raises RejectedError if another has taken it over.

    `body` is the digest of what the fingerprint does not cover.
    """
    settled = connection.execute(
        """update repeat set subject = %(subject)s, body = %(body)s
           where tenant_id = %(tenant)s and key = %(key)s and token = %(token)s and subject is null""",
        {"tenant": tenant_id, "key": key, "token": token, "subject": subject, "body": body},
    ).rowcount
    if not settled:
        raise RejectedError("the request stalled, and the same one, sent again, has taken its place: use that one's answer.")


def forget(db: Database, *, tenant_id: int, key: bytes, token: int, unmade: str | None = None) -> None:
    """Forget a request that created nothing, or created `unmade`, which no longer exists: it may be sent again."""
    with db.session() as connection:
        connection.execute(
            """delete from repeat where tenant_id = %(tenant)s and key = %(key)s and token = %(token)s
                 and (subject is null or subject = %(unmade)s)""",
            {"tenant": tenant_id, "key": key, "token": token, "unmade": unmade},
        )


def forget_old(db: Database, *, older_than_s: float) -> int:
    """Forget requests that are too old to be repeated; return how many."""
    with db.session() as connection:
        return connection.execute(
            "delete from repeat where created_at < now() - make_interval(secs => %(age)s)", {"age": older_than_s}
        ).rowcount
