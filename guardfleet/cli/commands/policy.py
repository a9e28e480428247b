"""`guardfleet policy` and `guardfleet redecide`: check, store and apply policies, and see beforehand what they would change."""

import json
import time
from collections.abc import Mapping
from functools import partial

from guardfleet.cli import DONE, documents, progress, terminal
from guardfleet.cli.commands import consequences
from guardfleet.cli.tenants import job_of, tenant_of
from guardfleet.domain.moments import moment_of
from guardfleet.errors import RejectedError
from guardfleet.jobs import redecide as use_case
from guardfleet.jobs.simulation import NOTHING, Simulation, report, simulate, word
from guardfleet.policy import presets
from guardfleet.policy.document import Action, Policy
from guardfleet.policy.reading import read
from guardfleet.settings import Settings
from guardfleet.store import models
from guardfleet.store.policy import decisions, lists, policies
from guardfleet.store.policy.decisions import Scope
from guardfleet.store.postgres.database import Database


def check(file: str) -> int:
    """Print what the policy would do, in a line. Raises PolicyError with everything that is wrong."""
    policy = load(file)
    what = "shadow policy" if policy.shadow else "policy"
    print(f"{what} {policy.name}: {len(policy.rules)} rules, default {policy.default}, errors {policy.errors}")
    _say_what_is_asked(policy)
    return DONE


def schema() -> int:
    """Print the JSON schema of a policy."""
    print(json.dumps(Policy.model_json_schema(), indent=2))
    return DONE


def preset(name: str) -> int:
    """Print one of guardfleet's own policies, to begin with."""
    print(presets.text(name), end="")
    return DONE


def add(settings: Settings, file: str, *, tenant: str) -> int:
    """Store the policy as the next version of its name, and print that."""
    policy = load(file)
    with tenant_of(settings, tenant) as (db, tenant_id, _):
        made, is_new = policies.add(db, tenant_id, policy)
        _say_unknown(db, tenant_id, policy)
    print(made.label)
    terminal.say(
        "stored; `guardfleet policy activate` applies it" if is_new else "it equals the newest version: nothing was stored"
    )
    return DONE


def listing(settings: Settings, *, tenant: str, as_json: bool) -> int:
    """Print all versions, newest first, and which are applied."""
    with tenant_of(settings, tenant) as (db, tenant_id, _):
        found = policies.every(db, tenant_id)
    for one in found:
        if as_json:
            about = {
                "policy": one.label,
                "active": bool(one.is_active),
                "shadow": one.shadow,
                "created_at": f"{one.created_at:%FT%TZ}",
            }
            print(json.dumps(about | {"document": one.document}))
        else:
            marks = " ".join(mark for mark, is_so in (("active", one.is_active), ("shadow", one.shadow)) if is_so)
            print(f"{one.created_at:%Y-%m-%d %H:%M:%S}  {one.label}  {one.n_rules} rules  {marks}".rstrip())
    if not found and not as_json:
        terminal.say("no policy is stored")
    return DONE


def show(settings: Settings, label: str, *, tenant: str) -> int:
    """Print the document of a version as JSON, which is YAML too."""
    with tenant_of(settings, tenant) as (db, tenant_id, _):
        print(json.dumps(policies.get(db, tenant_id, label).document, indent=2))
    return DONE


def activate(settings: Settings, label: str, *, tenant: str) -> int:
    """Apply a version from now on."""
    with tenant_of(settings, tenant) as (db, tenant_id, _):
        version = policies.get(db, tenant_id, label)
        use_case.ready(version)
        before = policies.activate(db, version)
        _say_unknown(db, tenant_id, version.policy)
    print(version.label)
    if before is not None and before != version.label:
        terminal.say(f"in place of {before}")
    beside = (
        "its decisions are recorded, and told to nobody" if version.shadow else "shards that finish from now on are decided by it"
    )
    terminal.say(f"active: {beside}; `guardfleet redecide` applies it to what is stored")
    return DONE


def deactivate(settings: Settings, label: str, *, tenant: str) -> int:
    """Apply it no longer; what it decided stays."""
    with tenant_of(settings, tenant) as (db, tenant_id, _):
        version = policies.get(db, tenant_id, label)
        if not policies.deactivate(db, version):
            raise RejectedError(f"policy {version.label} is not active.")
    print(version.label)
    return DONE


def try_out(
    settings: Settings, file: str, *, job: str | None, since: str | None, tenant: str, per_hour: float, as_json: bool
) -> int:
    """Print what the policy would change of what is stored; nothing is written."""
    policy = load(file)
    with tenant_of(settings, tenant) as (db, tenant_id, _):
        _say_unknown(db, tenant_id, policy)
        scope, began = _scope(db, tenant_id, job, since), time.monotonic()
        found = simulate(db, policy, scope)
        told = report(db, policy, found, per_hour=per_hour, seconds=time.monotonic() - began)
    if as_json:
        print(json.dumps(told))
        return DONE
    _show(found, told["rules"])
    consequences.show(found.labelled)
    reviewed = found.actions()["review"]
    terminal.say(f"review: {reviewed:,} texts, {reviewed / per_hour:,.1f} hours at {per_hour:g} an hour", to=terminal.answers)
    for one in told["examples"]:
        terminal.say(f"  {one['job']} text {one['seq']}: {one['old']} -> {one['new']}", to=terminal.answers)
    terminal.say(f"{found.texts:,} stored verdicts in {told['seconds']:.1f} s; nothing was written")
    return DONE


def redecide(settings: Settings, label: str | None, *, job: str | None, since: str | None, tenant: str, as_json: bool) -> int:
    """Apply a policy to what is stored; texts that it has decided of are left as they are."""
    with tenant_of(settings, tenant) as (db, tenant_id, _):
        version, scope = use_case.label_of(db, tenant_id, label), _scope(db, tenant_id, job, since)
        began = time.monotonic()
        with progress.counted(f"deciding by {version.label}", decisions.n_texts(db, scope, without=version.id)) as count:
            found = use_case.redecide(db, version, scope, told=count)
    seconds = time.monotonic() - began
    if not version.is_active and not version.shadow:
        terminal.say(f"{version.label} is not active: what it decided is told once it is activated")
    if as_json:
        told = {"policy": version.label, "active": bool(version.is_active), "texts": found.texts}
        print(json.dumps(told | {"shards_without_verdicts": found.left, "seconds": round(seconds, 3)}))
        return DONE
    print(f"{found.texts:,} texts decided by {version.label} in {seconds:.1f} s")
    if found.left:
        terminal.say(f"of {found.left:,} shards the verdicts are gone")
    return DONE


def _say_what_is_asked(policy: Policy) -> None:
    if policy.detectors:
        names = ", ".join(policy.detectors)
        terminal.say(f"rules that read {names} hold for no text whose job does not ask for it, such as those of /v1/moderations")


def _say_unknown(db: Database, tenant_id: int, policy: Policy) -> None:
    _say_what_is_asked(policy)
    for name in models.unknown_detectors(db, policy.detectors):
        terminal.warn(f"no worker has served a detector {name} yet: what is conditioned on it holds for no text")
    for name in lists.unknown(db, tenant_id, policy.lists):
        terminal.warn(f"there is no list {name} yet: what is conditioned on it holds for no text")


def load(file: str) -> Policy:
    """Return the policy in the file (`-`: standard input). Raises RejectedError, with the file's name before each line."""
    return documents.read(file, read)


def _scope(db: Database, tenant_id: int, job: str | None, since: str | None) -> Scope:
    if (job is None) == (since is None):
        raise RejectedError("give --job JOB, or --since TIME (30d, 2026-01-31), one of them.")
    if job is not None:
        return Scope(tenant_id, job_of(db, tenant_id, job).id)
    return Scope(tenant_id, since=moment_of(str(since), "--since"))


def _show(found: Simulation, rules: Mapping[str, int]) -> None:
    say = partial(terminal.say, to=terminal.answers)
    say(f"{'old / new':>12}" + "".join(f"{action.label:>14}" for action in Action))
    for old in (*range(NOTHING), NOTHING):
        say(f"{word(old):>12}" + "".join(f"{n:>14,}" for n in found.matrix[old].tolist()))
    share = found.changed / found.texts if found.texts else 0.0
    say(f"changed: {found.changed:,} of {found.texts:,} texts ({share:.2%})")
    for title, counts in (("language", found.by_language), ("source", found.by_source), ("category", found.by_category)):
        for name, (texts, changed) in sorted(counts.items(), key=lambda item: -item[1][0])[:20]:
            say(f"  {title} {name}: {changed:,} of {texts:,} changed ({changed / max(1, texts):.2%})")
    for name, n in rules.items():
        say(f"  rule {name}: {n:,}")
