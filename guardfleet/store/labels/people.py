"""Who reviews: a tenant's keys and people who may, and whether somebody who is named would ever be given a text."""

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from guardfleet.domain import ids
from guardfleet.domain.scopes import ALL, REVIEW
from guardfleet.errors import NotFoundError
from guardfleet.store.postgres.database import Database
from guardfleet.store.words import public_id

MOST_PEOPLE = 1000
MAY = "scopes && %(scopes)s::text[]"
Standing = Literal["may", "lacks", "revoked", "expired", "unknown", "away"]
NEVER: Collection[Standing] = ("lacks", "revoked", "expired", "unknown")  # `away`: who signs in by name, and has no session now


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who reviews, or is named as if; `name` None: it is not known."""

    who: str
    name: str | None
    standing: Standing

    @property
    def never(self) -> bool:
        """Whether no text is ever given to them, as things are."""
        return self.standing in NEVER


def may_review(db: Database, tenant_id: int) -> dict[str, Person]:
    """Return those who may review, by id: keys in use, and people who are signed in by name."""
    with db.session() as connection:
        rows = connection.execute(
            f"""select {public_id(ids.KEY)} as who, name from api_key
                where tenant_id = %(tenant)s and revoked_at is null and (expires_at is null or expires_at > now()) and {MAY}
                union select who, name from console_session
                where tenant_id = %(tenant)s and key_id is null and expires_at > now() and {MAY}
                order by name, who limit {MOST_PEOPLE}""",
            {"tenant": tenant_id, "scopes": [ALL, REVIEW]},
        )
        return {row.who: Person(row.who, row.name, "may") for row in rows}


def named(db: Database, tenant_id: int, whos: Collection[str]) -> dict[str, Person]:
    """Return what is known of each of these, by id, in their order. Nobody's id is unprintable."""
    asked = [who for who in whos if who.isprintable()]
    with db.session() as connection:
        rows = connection.execute(
            f"""select {public_id(ids.KEY)} as who, name,
                       case when revoked_at is not null then 'revoked' when expires_at <= now() then 'expired'
                            when {MAY} then 'may' else 'lacks' end as standing
                from api_key where tenant_id = %(tenant)s and public_id = any(%(keys)s)
                union all
                select who, max(name), case when bool_or({MAY}) then 'may' else 'lacks' end from console_session
                where tenant_id = %(tenant)s and who = any(%(whos)s) and key_id is null and expires_at > now() group by who""",
            {"tenant": tenant_id, "whos": asked, "keys": list(_keys(asked)), "scopes": [ALL, REVIEW]},
        )
        found = {row.who: Person(row.who, row.name, row.standing) for row in rows}
    return {who: found.get(who) or Person(who, None, "unknown" if is_key(who) else "away") for who in whos}


def is_key(who: str) -> bool:
    """Return whether an id is that of a key."""
    return who.startswith(ids.KEY.prefix)


def _keys(whos: Collection[str]) -> list[object]:
    found: list[object] = []
    for who in whos:
        with suppress(NotFoundError):
            found += [ids.KEY.parse(who)] if is_key(who) else []
    return found
