"""Policies for prompts: versions of texts that a detector is told to judge by, and which of them a job means.

A version is never changed and never deleted, so what was judged by it can be explained. Texts are stored plain, as policies and
lists are: they are a tenant's rules, not what was judged.
"""

import datetime as dt
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from psycopg.rows import class_row

from guardfleet.domain import versions
from guardfleet.domain.detection import DETECTOR_NAME, detector_of, policy_of
from guardfleet.errors import NotFoundError, RejectedError
from guardfleet.store import audit
from guardfleet.store.policy.names import require_newest
from guardfleet.store.postgres.database import Connection, Database

MOST_CHARS = 65_536  # of a text; the model's window allows less (docs/custom-policies.md)
MOST_NAMED = 20  # in an error that says which there are
KNOWN = 256  # texts that a process keeps
SELECT = "select p.id, p.name, p.version, p.text, p.created_at from prompt_policy p"


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a policy for prompts. `label` is how it is named everywhere: name@version."""

    id: int
    name: str
    version: int
    text: str
    created_at: dt.datetime

    @property
    def label(self) -> str:
        """Its name and version."""
        return versions.label_of(self.name, self.version)


def check(name: str, text: str) -> None:
    """Raise RejectedError for a name or a text that no version may have."""
    if not DETECTOR_NAME.fullmatch(name):
        raise RejectedError(f"{name[:60]!r} is no policy's name: 1 to 40 lower-case letters, digits, - and _.", param="name")
    if not text.strip():
        raise RejectedError("the policy is blank: say what it forbids.", param="text")
    if len(text) > MOST_CHARS:
        raise RejectedError(
            f"the policy has {len(text):,} characters, at most {MOST_CHARS:,} are allowed: shorten it.", param="text"
        )
    if "\0" in text or (not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text)):
        raise RejectedError("the policy must not contain a NUL or a lone surrogate: remove it.", param="text")


def add(
    db: Database,
    tenant_id: int,
    name: str,
    text: str,
    *,
    also: Callable[[Connection, str], None] | None = None,
    on_top_of: int | None = None,
) -> tuple[Version, bool]:
    """Store the text as the next version of its name, and return whether it is new: one equal to the newest is that one.

    `also` runs in the same transaction, with its name and version. Raises RejectedError; `on_top_of`: NotNewestError if this
    version is not the newest (0: if there is one).
    """
    check(name, text)
    values: dict[str, Any] = {"tenant": tenant_id, "name": name, "text": text, "digest": hashlib.sha256(text.encode()).digest()}
    with db.begin() as connection:
        connection.execute("select from tenant where id = %(tenant)s for no key update", values)  # versions of a tenant take turns
        require_newest(connection, "prompt_policy", tenant_id, name, on_top_of)
        newest = _newest(connection, values)
        is_new = newest is None or newest.text != text
        if is_new:
            values["version"] = newest.version + 1 if newest else 1
            connection.execute(
                """insert into prompt_policy (tenant_id, name, version, text, digest)
                   values (%(tenant)s, %(name)s, %(version)s, %(text)s, %(digest)s)""",
                values,
            )
            newest = _newest(connection, values)
        made = _required(newest, name)
        if is_new:
            audit.record(connection, tenant_id, "prompt_policy.create", made.label, characters=len(text))
        if also is not None:
            also(connection, made.label)
    return made, is_new


def get(db: Database, tenant_id: int, label: str) -> Version:
    """Return a version by `name@version`, or the newest of a name. Raises NotFoundError, for another tenant's too."""
    name, version = versions.parse(label, "policy")
    with db.session() as connection:
        return _required(_newest(connection, {"tenant": tenant_id, "name": name, "version": version}), label)


def page(db: Database, tenant_id: int, *, after: str | None = None, limit: int) -> list[Version]:
    """Return up to `limit` versions, newest first, older than the named one. Raises NotFoundError for that."""
    start = None if after is None else get(db, tenant_id, after).id
    with db.session() as connection:
        return (
            connection.cursor(row_factory=class_row(Version))
            .execute(
                f"""{SELECT} where p.tenant_id = %(tenant)s and (%(start)s::int8 is null or p.id < %(start)s::int8)
                    order by p.id desc limit %(limit)s""",
                {"tenant": tenant_id, "start": start, "limit": limit},
            )
            .fetchall()
        )


def pinned(db: Database, tenant_id: int, entries: Sequence[str]) -> list[str]:
    """Return a job's detectors with the version of each policy: the newest where none is named.

    Raises NotFoundError for a policy that is not stored, RejectedError if two entries come to the same.
    """
    out = []
    for entry in entries:
        label = policy_of(entry)
        out.append(entry if label is None else f"{detector_of(entry)}/{_existing(db, tenant_id, label).label}")
    if len(set(out)) < len(out):
        twice = next(entry for entry in out if out.count(entry) > 1)
        raise RejectedError(f"{twice} is named twice, once without its version: name it once.", param="detectors")
    return out


_texts: WeakKeyDictionary[Database, OrderedDict[tuple[int, str], str]] = WeakKeyDictionary()
_lock = threading.Lock()


def text_of(db: Database, tenant_id: int, label: str) -> str:
    """Return the text of a version (name@version); a process asks once. Raises NotFoundError."""
    with _lock:
        known = _texts.setdefault(db, OrderedDict())
        if (tenant_id, label) in known:
            known.move_to_end((tenant_id, label))
            return known[tenant_id, label]
    found = get(db, tenant_id, label).text
    with _lock:
        known[tenant_id, label] = found
        while len(known) > KNOWN:
            known.popitem(last=False)
    return found


def _existing(db: Database, tenant_id: int, label: str) -> Version:
    try:
        return get(db, tenant_id, label)
    except NotFoundError:
        there = [version.label for version in page(db, tenant_id, limit=MOST_NAMED + 1)]
        names = ", ".join(there[:MOST_NAMED]) + (" and more" if len(there) > MOST_NAMED else "")
        raise NotFoundError(
            f"there is no prompt policy {label!r}: add it with `guardfleet prompt-policy add`. There are: {names or 'none'}."
        ) from None


def _newest(connection: Connection, values: dict[str, Any]) -> Version | None:
    """Return the version that is asked for, or the newest of the name."""
    return (
        connection.cursor(row_factory=class_row(Version))
        .execute(
            f"""{SELECT} where p.tenant_id = %(tenant)s and p.name = %(name)s
                and (%(version)s::int is null or p.version = %(version)s::int) order by p.version desc limit 1""",
            {"version": None} | values,
        )
        .fetchone()
    )


def _required(found: Version | None, label: str) -> Version:
    if found is None:
        raise NotFoundError(f"there is no prompt policy {label}.")
    return found
