"""Lists: their versions, which of them a tenant applies, each ready to be looked for, and how often their entries were hit.

A version is never changed, so evidence that names one can be explained, and going back is activating an old version. A shard is
matched with the versions that were active when it was claimed.
"""

import datetime as dt
import hashlib
import threading
import zlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import orjson
from psycopg.rows import class_row
from pydantic import ValidationError

from guardfleet.domain import versions
from guardfleet.errors import NotFoundError, RejectedError, RetryableError
from guardfleet.lists.document import Entry
from guardfleet.lists.matching import Matcher
from guardfleet.store import audit
from guardfleet.store.policy.names import require_newest
from guardfleet.store.postgres.database import Connection, Database

KNOWN = 8  # sets of lists that a process keeps ready: 100,000 terms are about 100 MB
MOST_ACTIVE = 50  # of a tenant
SELECT = "select id, tenant_id, name, version, n, is_active, created_at from term_list"
COLUMNS = ("job_id", "first_seq", "list", "texts")
ACTIVE = "array(select l.id from term_list l where l.tenant_id = j.tenant_id and l.is_active order by l.id)"  # of job `j`


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a list. `label` is how it is named everywhere: name@version."""

    id: int
    tenant_id: int
    name: str
    version: int
    n: int
    is_active: bool
    created_at: dt.datetime

    @property
    def label(self) -> str:
        """Its name and version."""
        return versions.label_of(self.name, self.version)


@dataclass(frozen=True, slots=True)
class Use:
    """How often an entry was found in the verdicts that are kept: in how many texts, and in a job of which day the last time."""

    texts: int
    last_day: dt.date


def add(
    db: Database,
    tenant_id: int,
    name: str,
    entries: Sequence[Entry],
    *,
    also: Callable[[Connection, str], None] | None = None,
    on_top_of: int | None = None,
) -> tuple[Version, bool]:
    """Store the entries as the next version of the list; return whether it is new: one equal to the newest is that one.

    `also` runs in the same transaction, with its name and version. `on_top_of`: raises NotNewestError if this version is not the
    newest (0: if there is one).
    """
    written = b"\n".join(orjson.dumps(entry.model_dump(exclude_defaults=True)) for entry in entries)
    digest = hashlib.sha256(written).digest()
    with db.begin() as connection:
        # Versions take turns; the weaker lock leaves jobs of the tenant alone.
        connection.execute("select from tenant where id = %(tenant)s for no key update", {"tenant": tenant_id})
        require_newest(connection, "term_list", tenant_id, name, on_top_of)
        newest: Any = connection.execute(
            """select id, version, digest from term_list where tenant_id = %(tenant)s and name = %(name)s
               order by version desc limit 1""",
            {"tenant": tenant_id, "name": name},
        ).fetchone()
        if newest is not None and bytes(newest.digest) == digest:
            if also is not None:
                also(connection, versions.label_of(name, newest.version))
            return _one(connection, "id = %(id)s", {"id": newest.id}), False
        made: int = connection.scalar(
            """insert into term_list (tenant_id, name, version, entries, n, digest)
               values (%(tenant)s, %(name)s, %(version)s, %(entries)s, %(n)s, %(digest)s) returning id""",
            {
                "tenant": tenant_id, "name": name, "version": newest.version + 1 if newest else 1,
                "entries": zlib.compress(written), "n": len(entries), "digest": digest,
            },
        )  # fmt: skip
        version = _one(connection, "id = %(id)s", {"id": made})
        audit.record(connection, tenant_id, "list.create", version.label, entries=len(entries))
        if also is not None:
            also(connection, version.label)
    return version, True


def get(db: Database, tenant_id: int, label: str) -> Version:
    """Return a list by `name@version`; by a name alone its active version, else its newest. Raises NotFoundError."""
    name, version = versions.parse(label, "list")
    with db.session() as connection:
        return _one(
            connection,
            """tenant_id = %(tenant)s and name = %(name)s and (%(version)s::int is null or version = %(version)s::int)
               order by is_active desc, version desc limit 1""",
            {"tenant": tenant_id, "name": name, "version": version},
            missing=f"there is no list {label}.",
        )


def every(db: Database, tenant_id: int) -> list[Version]:
    """Return all versions of all lists of the tenant, newest first."""
    with db.session() as connection:
        cursor = connection.cursor(row_factory=class_row(Version))
        return cursor.execute(f"{SELECT} where tenant_id = %(tenant)s order by id desc", {"tenant": tenant_id}).fetchall()


def unknown(db: Database, tenant_id: int, names: Sequence[str]) -> list[str]:
    """Return those of the names that no list of the tenant has."""
    if not names:
        return []
    with db.session() as connection:
        known = connection.scalars(
            "select distinct name from term_list where tenant_id = %(tenant)s and name = any(%(names)s)",
            {"tenant": tenant_id, "names": list(names)},
        )
        return sorted(set(names) - set(known))


def active_among(db: Database, tenant_id: int, names: Sequence[str]) -> list[str]:
    """Return those of the names of which the tenant has an active version."""
    with db.session() as connection:
        return connection.scalars(
            "select name from term_list where tenant_id = %(tenant)s and is_active and name = any(%(names)s)",
            {"tenant": tenant_id, "names": list(names)},
        )


def page(db: Database, tenant_id: int, *, after: str | None, limit: int) -> list[Version]:
    """Return up to `limit` versions, newest first, older than the named one. Raises NotFoundError for that."""
    start = None if after is None else get(db, tenant_id, after).id
    with db.session() as connection:
        return (
            connection.cursor(row_factory=class_row(Version))
            .execute(
                f"""{SELECT} where tenant_id = %(tenant)s and (%(start)s::int8 is null or id < %(start)s::int8)
                order by id desc limit %(limit)s""",
                {"tenant": tenant_id, "start": start, "limit": limit},
            )
            .fetchall()
        )


def entries(db: Database, version: Version) -> list[Entry]:
    """Return its entries, as they were checked when it was added."""
    with db.session() as connection:
        return _entries(connection.scalar("select entries from term_list where id = %(id)s", {"id": version.id}))


def kinds(db: Database, version: Version) -> list[tuple[str, str, int]]:
    """Count its entries by kind and by what they decide (empty: nothing), without reading what they look for."""
    with db.session() as connection:
        stored = zlib.decompress(connection.scalar("select entries from term_list where id = %(id)s", {"id": version.id}))
    told = (orjson.loads(line) for line in stored.split(b"\n") if line)
    counts = Counter((entry.get("kind", "term"), entry.get("decide") or "") for entry in told)
    return [(kind, decide, n) for (kind, decide), n in sorted(counts.items())]


def activate(db: Database, version: Version) -> str | None:
    """Look for this version in shards that are claimed from now on; return the name of the one that it replaces."""
    values = {"id": version.id, "tenant": version.tenant_id, "name": version.name}
    with db.begin() as connection:
        connection.execute("select from tenant where id = %(tenant)s for no key update", values)
        before: int | None = connection.scalar(
            """update term_list set is_active = false where tenant_id = %(tenant)s and name = %(name)s and is_active
               returning version""",
            values,
        )
        others: int = connection.scalar("select count(*) from term_list where tenant_id = %(tenant)s and is_active", values)
        if others >= MOST_ACTIVE:
            raise RejectedError(f"{MOST_ACTIVE} lists are active, which is the most.", param="list")
        connection.execute("update term_list set is_active = true where id = %(id)s", values)
        replaced = None if before is None else versions.label_of(version.name, before)
        audit.record(connection, version.tenant_id, "list.activate", version.label, before=replaced)
    return replaced


def deactivate(db: Database, version: Version) -> bool:
    """Look for it no longer; return False if it was not active."""
    with db.begin() as connection:
        gone = connection.execute(
            "update term_list set is_active = false where id = %(id)s and is_active", {"id": version.id}
        ).rowcount
        if gone:
            audit.record(connection, version.tenant_id, "list.deactivate", version.label)
    return bool(gone)


_ready: WeakKeyDictionary[Database, OrderedDict[tuple[int, ...], Matcher]] = WeakKeyDictionary()
_lock = threading.Lock()
_making = threading.Lock()


def matcher(db: Database, ids: Sequence[int]) -> Matcher:
    """Return these versions ready to be looked for, made once in a process. Raises RetryableError if this release cannot.

    Then the shard waits for a worker that can: a list that is not understood is never left out.
    """
    key = tuple(ids)
    if (known := _known(db, key)) is not None:  # nobody who has theirs waits for somebody else's
        return known
    with _making:  # one thread makes a set; others want the same
        if (known := _known(db, key)) is not None:
            return known
        made = _made(db, key)
        with _lock:
            ready = _ready.setdefault(db, OrderedDict())
            ready[key] = made
            while len(ready) > KNOWN:
                ready.popitem(last=False)
    return made


def _known(db: Database, key: tuple[int, ...]) -> Matcher | None:
    with _lock:
        ready = _ready.setdefault(db, OrderedDict())
        if key in ready:
            ready.move_to_end(key)
        return ready.get(key)


def _made(db: Database, key: tuple[int, ...]) -> Matcher:
    with db.session() as connection:
        found = connection.execute(
            "select name || '@' || version as label, entries from term_list where id = any(%(ids)s) order by id", {"ids": list(key)}
        ).fetchall()
    try:
        return Matcher([(row.label, _entries(row.entries)) for row in found])
    except (ValidationError, ValueError) as error:
        labels = ", ".join(row.label for row in found)
        raise RetryableError(f"this release does not understand the lists {labels} ({type(error).__name__})") from None


def hits_of(evidence: Iterable[Mapping[str, Any] | None]) -> dict[str, dict[str, int]]:
    """Return in how many texts each entry was found, by the list's name and the entry's, from their verdicts' evidence."""
    counts: dict[str, Counter[str]] = {}
    for one in evidence:
        if one is not None and "lists" in one:
            told = [(hit["list"], hit["entry"]) for hit in one["lists"]] + list(map(tuple, one.get("more_entries", ())))
            for name, entry in {(versions.name_of(label), entry) for label, entry in told}:
                counts.setdefault(name, Counter())[entry] += 1
    return {name: dict(found) for name, found in counts.items()}


def uses(db: Database, tenant_id: int, name: str, since: dt.date | None = None) -> dict[str, Use]:
    """Return how often each entry of a list was found, across its versions, in jobs that are kept (`since`: and not older)."""
    with db.session() as connection:
        found = connection.execute(
            """select e.key, sum(e.value::int8)::int8 as texts, max(j.day) as last_day
               from job j join list_hit h on h.job_id = j.id cross join lateral jsonb_each_text(h.texts) e
               where j.tenant_id = %(tenant)s and h.list = %(name)s and (%(since)s::date is null or j.day >= %(since)s::date)
               group by e.key""",
            {"tenant": tenant_id, "name": name, "since": since},
        ).fetchall()
    return {row.key: Use(row.texts, row.last_day) for row in found}


def _entries(stored: bytes) -> list[Entry]:
    lines = zlib.decompress(stored).split(b"\n")
    return [Entry.model_validate(orjson.loads(line)) for line in lines if line]


def _one(connection: Connection, where: str, values: dict[str, Any], *, missing: str = "there is no such list.") -> Version:
    found = connection.cursor(row_factory=class_row(Version)).execute(f"{SELECT} where {where}", values).fetchone()
    if found is None:
        raise NotFoundError(missing)
    return found
