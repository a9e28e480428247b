"""`guardfleet lists`: import, compare, apply and prune the lists that are looked for before the model is asked."""

import json
import pathlib
import re
import sys
from collections.abc import Iterable, Sequence

from guardfleet.cli import DONE, documents, terminal
from guardfleet.cli.output import printable
from guardfleet.cli.tenants import tenant_of
from guardfleet.domain.moments import moment_of
from guardfleet.errors import RejectedError
from guardfleet.lists import reading
from guardfleet.lists.document import Entry
from guardfleet.lists.matching import Matcher
from guardfleet.policy.document import WORD
from guardfleet.settings import Settings
from guardfleet.store import audit
from guardfleet.store.policy import lists
from guardfleet.store.policy.lists import Version
from guardfleet.store.postgres.database import Database

MOST_SHOWN = 50


def check(file: str, form: str | None) -> int:
    """Print what the list has, in a line. Raises RejectedError with everything that is wrong."""
    print(_counted(load(file, form)))
    return DONE


def import_(settings: Settings, name: str, file: str, form: str | None, *, tenant: str) -> int:
    """Store the list as the next version of its name, and print that."""
    if not re.fullmatch(WORD, name):
        raise RejectedError(f"{name!r} names no list: use letters, digits, _ . : and -, 64 at most.", param="list")
    entries = load(file, form)
    with tenant_of(settings, tenant) as (db, tenant_id, _):
        made, is_new = lists.add(db, tenant_id, name, entries)
    print(made.label)
    stored = "stored; `guardfleet lists activate` applies it" if is_new else "it equals the newest version: nothing was stored"
    terminal.say(f"{_counted(entries)}: {stored}")
    return DONE


def listing(settings: Settings, *, tenant: str, as_json: bool) -> int:
    """Print all versions, newest first, and which are looked for."""
    with tenant_of(settings, tenant) as (db, tenant_id, _):
        found = lists.every(db, tenant_id)
    for one in found:
        if as_json:
            print(json.dumps({
                "list": one.label, "entries": one.n, "active": one.is_active, "created_at": f"{one.created_at:%FT%TZ}"
            }))  # fmt: skip
        else:
            print(f"{one.created_at:%Y-%m-%d %H:%M:%S}  {one.label}  {one.n:,} entries{'  active' if one.is_active else ''}")
    if not found and not as_json:
        terminal.say("no list is stored")
    return DONE


def export(settings: Settings, label: str, out: str, form: str | None, *, tenant: str) -> int:
    """Write the entries of a version."""
    with tenant_of(settings, tenant) as (db, tenant_id, _):
        version, form = lists.get(db, tenant_id, label), _written(form, out)
        audit.note(db, tenant_id, "list.export", version.label, entries=version.n)
        _write(reading.write(lists.entries(db, version), form), out)
    if out != "-":
        terminal.say(f"{version.n:,} entries of {version.label} in {out}")
    return DONE


def diff(settings: Settings, old: str, new: str, *, tenant: str, as_json: bool) -> int:
    """Print what became of the entries of a version."""
    with tenant_of(settings, tenant) as (db, tenant_id, _):
        versions = [lists.get(db, tenant_id, label) for label in (old, new)]
        found = reading.difference(*(lists.entries(db, version) for version in versions))
    if as_json:
        print(json.dumps({
            "old": versions[0].label, "new": versions[1].label,
            "added": [_plain(entry) for entry in found.added], "removed": [_plain(entry) for entry in found.removed],
            "changed": [{"old": _plain(before), "new": _plain(after)} for before, after in found.changed],
        }))  # fmt: skip
        return DONE
    for mark, entries in (("+", found.added), ("-", found.removed), ("~", [after for _, after in found.changed])):
        _show([f"{mark} {_words(entry)}" for entry in entries])
    terminal.say(f"{versions[0].label} to {versions[1].label}: {len(found.added):,} added, {len(found.removed):,} removed, "
                 f"{len(found.changed):,} changed")  # fmt: skip
    return DONE


def match(file: str, form: str | None, *, as_json: bool) -> int:
    """Print where the entries of a file are in the lines of standard input."""
    if file == "-":
        raise RejectedError("the list has to be a file: standard input has the lines.", param="list")
    matcher = Matcher([(pathlib.PurePath(file).stem, load(file, form))])
    lines = sys.stdin.buffer.read().decode("utf-8", "surrogateescape").splitlines()
    for number, (line, hits) in enumerate(zip(lines, matcher.find(lines), strict=True), 1):
        for hit in hits.all if hits is not None else ():
            if as_json:
                print(json.dumps({"line": number, **hit.plain()}))
            else:
                span = printable(line[hit.start : hit.end], line_breaks=False)
                print(f"line {number}, characters {hit.start} to {hit.end}: {span}  ({_words(hit.entry)})")
    return DONE


def activate(settings: Settings, label: str, *, tenant: str) -> int:
    """Look for a version from now on."""
    with tenant_of(settings, tenant) as (db, tenant_id, _):
        version = _of_version(db, tenant_id, label)
        before = lists.activate(db, version)
    print(version.label)
    if before is not None and before != version.label:
        terminal.say(f"in place of {before}")
    terminal.say("active: it is looked for in shards that are claimed from now on")
    return DONE


def deactivate(settings: Settings, label: str, *, tenant: str) -> int:
    """Look for it no longer; the verdicts that it gave stay."""
    with tenant_of(settings, tenant) as (db, tenant_id, _):
        version = lists.get(db, tenant_id, label)
        if not lists.deactivate(db, version):
            raise RejectedError(f"list {version.label} is not active.", param="list")
    print(version.label)
    return DONE


def hits(settings: Settings, label: str, since: str | None, *, tenant: str, as_json: bool) -> int:
    """Print in how many texts each entry was found."""
    with tenant_of(settings, tenant) as (db, tenant_id, _):
        version = lists.get(db, tenant_id, label)
        uses = _uses(db, version, since)
        entries = lists.entries(db, version)
    found = sorted((entry for entry in entries if entry.name in uses), key=lambda entry: -uses[entry.name].texts)
    for entry in found:
        use = uses[entry.name]
        if as_json:
            print(json.dumps({**_plain(entry), "texts": use.texts, "last_day": f"{use.last_day}"}))
        else:
            print(f"{use.texts:>12,}  last {use.last_day}  {_words(entry)}")
    if not as_json:
        terminal.say(f"{len(found):,} of {len(entries):,} entries of {version.label} were found")
    return DONE


def prune(settings: Settings, label: str, since: str | None, out: str | None, *, tenant: str, as_json: bool) -> int:
    """Print the entries that were found in no text, and write the list without them if asked to."""
    with tenant_of(settings, tenant) as (db, tenant_id, _):
        version = lists.get(db, tenant_id, label)
        uses = _uses(db, version, since)
        entries = lists.entries(db, version)
    unused = [entry for entry in entries if entry.name not in uses]
    if as_json:
        for entry in unused:
            print(json.dumps(_plain(entry)))
    else:
        _show([_words(entry) for entry in unused])
        terminal.say(f"{len(unused):,} of {len(entries):,} entries of {version.label} were found in no text that is kept")
    if out is not None:
        _write(reading.write([entry for entry in entries if entry.name in uses], _written(None, out)), out)
        terminal.say(f"{len(entries) - len(unused):,} entries in {out}: `guardfleet lists import {version.name} {out}` stores them")
    return DONE


def load(file: str, form: str | None) -> list[Entry]:
    """Return the entries in the file (`-`: standard input). Raises RejectedError, with the file's name before each line."""
    known = _form(form, file)
    return documents.read(file, lambda text: reading.read(text, known))


def _form(given: str | None, file: str) -> str:
    form = given or reading.format_of(file)
    if form not in reading.FORMATS:
        raise RejectedError(f"{form!r} is no format: use {', '.join(reading.FORMATS)}.", param="format")
    return form


def _written(given: str | None, out: str) -> str:
    return "csv" if given is None and out == "-" else _form(given, out)


def _of_version(db: Database, tenant_id: int, label: str) -> Version:
    """Return the version; by a name alone its newest, since the active one is active already."""
    if "@" in label:
        return lists.get(db, tenant_id, label)
    newest = next((one for one in lists.every(db, tenant_id) if one.name == label), None)
    return newest if newest is not None else lists.get(db, tenant_id, label)


def _uses(db: Database, version: Version, since: str | None) -> dict[str, lists.Use]:
    day = None if since is None else moment_of(since, "--since").date()
    return lists.uses(db, version.tenant_id, version.name, day)


def _counted(entries: Sequence[Entry]) -> str:
    counts = {kind: sum(entry.kind == kind for entry in entries) for kind in ("term", "pattern", "text", "digest")}
    deciding = sum(entry.decide is not None for entry in entries)
    kinds = ", ".join(f"{n:,} {kind}{'s' if n != 1 else ''}" for kind, n in counts.items() if n)
    return f"{kinds}; {deciding:,} decide, {len(entries) - deciding:,} mark"


def _words(entry: Entry) -> str:
    decides = f" -> {entry.decide}" if entry.decide else ""
    return f"{entry.kind} {printable(entry.value, line_breaks=False)}{decides} [{entry.name}]"


def _plain(entry: Entry) -> dict[str, object]:
    return {**entry.model_dump(exclude_defaults=True), "kind": entry.kind, "entry": entry.name}


def _show(lines: Sequence[str]) -> None:
    for line in lines[:MOST_SHOWN]:
        print(line)
    if len(lines) > MOST_SHOWN:
        print(f"and {len(lines) - MOST_SHOWN:,} more; --json prints them all")


def _write(lines: Iterable[str], out: str) -> None:
    if out == "-":
        sys.stdout.writelines(lines)
        return
    with pathlib.Path(out).open("w", encoding="utf-8", newline="") as file:
        file.writelines(lines)
