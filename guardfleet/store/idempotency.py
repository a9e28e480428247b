"""Requests that make something, remembered for a while: the same one sent again finds what the first has made.

Invariant: of several that come at the same time only the one that inserts the row, or takes over one that was left, goes on; the
`token` that it holds is the newest for as long as that is so, and what it made is recorded under no other.
"""

from dataclasses import dataclass

from guardfleet.errors import RejectedError
from guardfleet.store.postgres.database import Connection, Database

LEFT_S = 60.0  # a request that gave no sign of life for so long was cut off


@dataclass(frozen=True, slots=True)
class Mine:
    """The right to make what was asked for, as long as `token` is the newest."""

    token: int


@dataclass(frozen=True, slots=True)
class Earlier:
    """The same request, before. `subject` is None while that is at it; `body` where the fingerprint says all of what was asked."""

    fingerprint: bytes
    subject: str | None
    body: bytes | None


def begin(db: Database, *, tenant_id: int, key: bytes, fingerprint: bytes, memory_s: float) -> Mine | Earlier | None:
    """Remember a request that is about to make something; what is known of the same one if it came within `memory_s`.

    None where the earlier one has just been forgotten: it is as if it were still at it.
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
    return Earlier(bytes(row.fingerprint), row.subject, None if row.body is None else bytes(row.body)) if row else None


def renew(db: Database, *, tenant_id: int, key: bytes, token: int) -> bool:
    """Give a sign of life; whether the request is still the one that goes on."""
    with db.session() as connection:
        return bool(
            connection.execute(
                """update repeat set created_at = now()
                   where tenant_id = %(tenant)s and key = %(key)s and token = %(token)s and subject is null""",
                {"tenant": tenant_id, "key": key, "token": token},
            ).rowcount
        )


def settle(connection: Connection, *, tenant_id: int, key: bytes, token: int, subject: str, body: bytes | None = None) -> None:
    """Say what the request has made, in the transaction that makes it; RejectedError where another one goes on in its place.

    `body` is the digest of what the fingerprint does not cover.
    """
    settled = connection.execute(
        """update repeat set subject = %(subject)s, body = %(body)s
           where tenant_id = %(tenant)s and key = %(key)s and token = %(token)s and subject is null""",
        {"tenant": tenant_id, "key": key, "token": token, "subject": subject, "body": body},
    ).rowcount
    if not settled:
        raise RejectedError("the request was silent for so long that the same one, sent again, has taken its place.")


def forget(db: Database, *, tenant_id: int, key: bytes, token: int, unmade: str | None = None) -> None:
    """The request made nothing, or `unmade`, which is no more: it may come again."""
    with db.session() as connection:
        connection.execute(
            """delete from repeat where tenant_id = %(tenant)s and key = %(key)s and token = %(token)s
                 and (subject is null or subject = %(unmade)s)""",
            {"tenant": tenant_id, "key": key, "token": token, "unmade": unmade},
        )


def forget_old(db: Database, *, older_than_s: float) -> int:
    """Drop what no repeat is expected of any more; returns how many."""
    with db.session() as connection:
        return connection.execute(
            "delete from repeat where created_at < now() - make_interval(secs => %(age)s)", {"age": older_than_s}
        ).rowcount
