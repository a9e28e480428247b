"""`guardfleet audit`: the audit trail of all tenants, oldest first, printed while it is read."""

import json
from collections.abc import Sequence
from contextlib import closing

from guardfleet.cli import DONE, terminal
from guardfleet.cli.output import printable
from guardfleet.domain import ids
from guardfleet.domain.actions import ACTIONS
from guardfleet.domain.moments import moment_of
from guardfleet.embedded.stack import database_of
from guardfleet.errors import RejectedError
from guardfleet.settings import Settings
from guardfleet.store import audit, keys
from guardfleet.store.audit import Event, Wanted
from guardfleet.store.postgres.database import Database


def trail(
    settings: Settings,
    *,
    since: str,
    until: str | None,
    actor: str | None,
    actions: Sequence[str] | None,
    job: str | None,
    tenant: str | None,
    as_json: bool,
) -> int:
    """Print the rows that are asked for."""
    if unknown := sorted(set(actions or ()) - set(ACTIONS)):
        raise RejectedError(f"--action {', '.join(unknown)} is unknown; use one of {', '.join(ACTIONS)}.")
    wanted = Wanted(
        tenant=tenant,
        since=moment_of(since, "--since"),
        until=None if until is None else moment_of(until, "--until"),
        actor=actor,
        actions=actions,
        subject=None if job is None else ids.JOB.of(ids.JOB.parse(job)),
    )
    is_empty = True
    with database_of(settings) as complete, closing(Database(complete.required("database_url"), pool_size=1)) as db:
        if tenant is not None:
            keys.tenant_id(db, tenant)
        for event in audit.events(db, wanted):
            is_empty = False
            print(json.dumps({"tenant": event.tenant, **event.as_dict()}) if as_json else _line(event))
    if is_empty and not as_json:
        terminal.say("nothing was recorded")
    return DONE


def _line(event: Event) -> str:
    who = f"{event.actor_kind} {event.actor}"
    facts = " ".join(f"{name}={_fact(fact)}" for name, fact in (event.detail or {}).items())
    parts = (f"{event.at:%Y-%m-%d %H:%M:%S}", event.tenant, who, event.action, event.subject, event.request_id or "", facts)
    return printable("  ".join(part for part in parts if part), line_breaks=False)


def _fact(fact: object) -> str:
    return ",".join(map(str, fact)) if isinstance(fact, list) else json.dumps(fact).strip('"')
