"""`guardfleet prompt-policy`: store and show what detectors judge by."""

import json

from guardfleet.cli import DONE, documents, terminal
from guardfleet.cli.output import printable
from guardfleet.cli.tenants import tenant_of
from guardfleet.settings import Settings
from guardfleet.store.policy import prompt_policies
from guardfleet.store.policy.prompt_policies import Version

PAGE = 100
SHOWN_CHARS = 60


def add(settings: Settings, name: str, file: str, *, tenant: str) -> int:
    """Store the text as the next version of the policy, and print that."""
    text = documents.read(file, str)
    with tenant_of(settings, tenant) as (db, tenant_id, _):
        made, is_new = prompt_policies.add(db, tenant_id, name, text)
    print(made.label)
    terminal.say(
        f"stored; jobs judge by it with `--detector DETECTOR/{made.name}`"
        if is_new
        else "it equals the newest version: nothing was stored"
    )
    return DONE


def listing(settings: Settings, *, tenant: str, as_json: bool) -> int:
    """Print all versions, newest first."""
    n, after = 0, None
    with tenant_of(settings, tenant) as (db, tenant_id, _):
        while some := prompt_policies.page(db, tenant_id, after=after, limit=PAGE):
            for one in some:
                print(_as_json(one) if as_json else _line(one))
            n, after = n + len(some), some[-1].label
    if not n and not as_json:
        terminal.say("no prompt policy is stored")
    return DONE


def show(settings: Settings, label: str, *, tenant: str) -> int:
    """Print the text of a version as it was stored."""
    with tenant_of(settings, tenant) as (db, tenant_id, _):
        text = prompt_policies.get(db, tenant_id, label).text
    print(text, end="" if text.endswith("\n") else "\n")
    return DONE


def _line(one: Version) -> str:
    begins = printable(one.text.strip().splitlines()[0], line_breaks=False)
    shown = begins if len(begins) <= SHOWN_CHARS else f"{begins[: SHOWN_CHARS - 1]}…"
    return f"{one.created_at:%Y-%m-%d %H:%M:%S}  {one.label}  {len(one.text):,} characters  {shown}"


def _as_json(one: Version) -> str:
    return json.dumps({"policy": one.label, "created_at": f"{one.created_at:%FT%TZ}", "text": one.text})
