"""Apply a policy to verdicts that are stored already, without a model.

A shard's decisions are one row that is written once, so the work can be killed anywhere and repeated, and done by several at once.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from guardfleet.errors import RejectedError
from guardfleet.policy.evaluation import Decider
from guardfleet.store import audit
from guardfleet.store.policy import decisions, policies
from guardfleet.store.policy.decisions import Decided, Reads, Scope
from guardfleet.store.policy.policies import Version
from guardfleet.store.postgres.database import Database

SHARDS_AT_ONCE = 32  # read, decided and written together: a transaction of some tens of milliseconds
AT_ONCE = 2  # of these, each on a connection of its own: PostgreSQL reads while this process decides
LIST = 4096  # shards that one list has


@dataclass(frozen=True, slots=True)
class Redecided:
    """How many texts got a decision of the policy now; of `left` shards the verdicts are gone.

    Not `complete`: its time was over before it had looked at all; the same call goes on.
    """

    texts: int
    left: int
    complete: bool = True


def redecide(
    db: Database, version: Version, scope: Scope, *, within_s: float = math.inf, told: Callable[[int], None] | None = None
) -> Redecided:
    """Decide of all texts of finished shards in the scope that the policy has not decided of. Raises RejectedError.

    After `within_s` it ends with what is begun. `told` is called with the number of texts each time that some are decided.
    """
    decider, over, is_begun = ready(version), time.monotonic() + within_s, False
    subject = {"job": scope.job_id} if scope.job_id is not None else {}
    audit.note(db, version.tenant_id, "policy.redecide", version.label, **subject)
    texts, is_over = 0, False

    def written(some: Sequence[Any]) -> tuple[int, int] | None:
        nonlocal is_begun
        if is_begun and time.monotonic() >= over:  # the first is done in any case: repeated calls get on
            return None
        is_begun = True
        return _decide(db, version, decider, some)

    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="redecide") as pool:
        while True:  # until a pass finds nothing: shards may have finished behind it that were decided by the version before
            before, left = texts, 0
            for group in groups(db, scope, without=version.id):
                for piece in pool.map(written, group):
                    is_over = is_over or piece is None
                    n, missing = piece or (0, 0)
                    texts, left = texts + n, left + missing
                    if told is not None:
                        told(n)
                if is_over:
                    return Redecided(texts, left, complete=False)
            if texts == before:
                return Redecided(texts, left)


def _decide(db: Database, version: Version, decider: Decider, some: Sequence[Any]) -> tuple[int, int]:
    """Decide of these shards; return of how many texts that were new, and of how many shards the verdicts are gone."""
    reads = Reads.ALL if decider.reads_metadata else Reads.NOTHING
    found = list(decisions.facts(db, some, reads, with_lists=decider.reads_lists, with_detections=decider.reads_detections))
    rows = [Decided.by(decider, version.id, one.facts).row(one.job_id, one.first_seq) for one in found]
    with db.begin() as connection:
        return decisions.record(connection, rows), len(some) - len(found)


def ready(version: Version) -> Decider:
    """Return the version ready to decide. Raises RejectedError if this release does not understand it."""
    made = version.decider()
    if made is None:
        raise RejectedError(f"policy {version.label} has a condition that this release does not know.", param="policy")
    return made


def groups(
    db: Database, scope: Scope, *, without: int | None = None, after: tuple[int, int] = (0, 0)
) -> Iterator[list[Sequence[Any]]]:
    """Yield the shards of the scope after a place in pieces for one statement each, some pieces at a time."""
    while True:
        found, after = decisions.shards(db, scope, without=without, after=after, limit=LIST)
        if not found:
            return
        yield [found[at : at + SHARDS_AT_ONCE] for at in range(0, len(found), SHARDS_AT_ONCE)]


def label_of(db: Database, tenant_id: int, label: str | None) -> Version:
    """Return the named policy, or the one that is applied. Raises RejectedError if none is."""
    if label is not None:
        return policies.get(db, tenant_id, label)
    active = policies.active(db, tenant_id)
    if active is None:
        raise RejectedError("no policy is active: name one, or activate one with `guardfleet policy activate NAME`.")
    return active
