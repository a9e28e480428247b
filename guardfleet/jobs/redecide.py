"""Apply a policy to verdicts that are stored already, without a model.

A shard's decisions are one row that is written once, so the work can be killed anywhere and repeated, and done by several at once.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from guardfleet.errors import RejectedError
from guardfleet.policy.evaluation import Decider
from guardfleet.store import audit, decisions, policies
from guardfleet.store.decisions import Decided, Reads, Scope
from guardfleet.store.policies import Version
from guardfleet.store.postgres.database import Database

SHARDS_AT_ONCE = 32  # read, decided and written together: a transaction of some tens of milliseconds
AT_ONCE = 2  # of these, each on a connection of its own: PostgreSQL reads while this process decides
LIST = 4096  # shards that one list has


@dataclass(frozen=True, slots=True)
class Redecided:
    """How many texts got a decision of the policy now; of `left` shards the verdicts are gone."""

    texts: int
    left: int


def redecide(db: Database, version: Version, scope: Scope) -> Redecided:
    """Decide of all texts of finished shards in the scope that the policy has not decided of. Raises RejectedError."""
    decider = ready(version)
    subject = {"job": scope.job_id} if scope.job_id is not None else {}
    audit.note(db, version.tenant_id, "policy.redecide", version.label, **subject)
    texts = 0

    def write(some: Sequence[Any]) -> tuple[int, int]:
        found = list(decisions.facts(db, some, Reads.ALL if decider.reads_metadata else Reads.NOTHING))
        rows = [Decided.by(decider, version.id, one.facts).row(one.job_id, one.first_seq) for one in found]
        with db.begin() as connection:
            return decisions.record(connection, rows), len(some) - len(found)

    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="redecide") as pool:
        while True:  # until a pass finds nothing: shards may have finished behind it that were decided by the version before
            before, left = texts, 0
            for group in groups(db, scope, without=version.id):
                for n, missing in pool.map(write, group):
                    texts, left = texts + n, left + missing
            if texts == before:
                return Redecided(texts, left)


def ready(version: Version) -> Decider:
    """Return the version ready to decide. Raises RejectedError if this release does not understand it."""
    made = version.decider()
    if made is None:
        raise RejectedError(f"policy {version.label} has a condition that this release does not know.", param="policy")
    return made


def groups(db: Database, scope: Scope, *, without: int | None = None) -> Iterator[list[Sequence[Any]]]:
    """Yield the shards of the scope in pieces for one statement each, some pieces at a time."""
    after = (0, 0)
    while True:
        found, after = decisions.shards(db, scope, without=without, after=after, limit=LIST)
        if not found:
            return
        yield [found[at : at + SHARDS_AT_ONCE] for at in range(0, len(found), SHARDS_AT_ONCE)]


def label_of(db: Database, tenant_id: int, label: str | None) -> Version:
    """Return the named policy, or the one that is applied. Raises RejectedError if none is."""
    if label is not None:
        return policies.get(db, tenant_id, label)
    active = next((one for one in policies.every(db, tenant_id) if one.is_active and not one.shadow), None)
    if active is None:
        raise RejectedError("no policy is active: name one, or activate one with `guardfleet policy activate NAME`.")
    return active
