"""`guardfleet erase` and `guardfleet hold`: what they find is shown as counts only."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from guardfleet.cli import DONE, FAILED_ROWS, INTERRUPTED, terminal
from guardfleet.cli.commands.erasing_targets import What
from guardfleet.cli.tenants import tenant_of
from guardfleet.domain import ids
from guardfleet.domain.targets import MOST
from guardfleet.errors import NotFoundError, RejectedError, RetryableError
from guardfleet.jobs import erase as use_case
from guardfleet.jobs import holding
from guardfleet.jobs.asked import Asked
from guardfleet.jobs.erase import Counts
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings
from guardfleet.store.erasure import holds, receipts, rewriting
from guardfleet.store.erasure.receipts import Receipt
from guardfleet.store.postgres.database import Database

WORDS = {
    "texts": "texts", "verdicts": "of them with a verdict", "blobs": "shards written again", "provisional": "provisional verdicts",
    "refusals": "ids of refused lines", "beside": "labels and samples", "requests": "remembered requests",
    "files": "uploaded files", "jobs": "jobs as a whole", "held": "left alone under a legal hold",
    "unread": "shards that cannot be decrypted",
}  # fmt: skip


def erase(settings: Settings, what: What, *, tenant: str, dry_run: bool, yes: bool, rewrite: bool, as_json: bool) -> int:
    """Erase, and print the receipts; status 1 if something is held or unreadable, 3 if it must be run again."""
    with _store(settings, tenant) as (db, keyring, tenant_id):
        if rewrite and what.is_nothing and not dry_run:
            return _rewrite(db, tenant_id, None)
        pieces = what.pieces(tenant_id)
        if rewrite and not dry_run and (gone := _of_a_job_that_is_gone(db, keyring, pieces)):
            return _rewrite(db, tenant_id, gone)
        if dry_run or not yes:
            counts = use_case.count(db, keyring, *pieces)
            terminal.say(_foreseen(counts))
            if dry_run:
                if as_json:
                    print(json.dumps(counts.as_dict()))
                return FAILED_ROWS if counts.held or counts.unread else DONE
            _confirm()
        try:
            return _erase(db, keyring, pieces, rewrite=rewrite, as_json=as_json)
        except RetryableError as error:  # nothing is lost: whatever was in the way goes away
            terminal.say(f"{error} Run it again.")
            return INTERRUPTED


def _erase(db: Database, keyring: Keyring, pieces: Sequence[Asked], *, rewrite: bool, as_json: bool) -> int:
    made = []
    for piece in pieces:
        with terminal.busy("erasing"):
            made.append(use_case.erase(db, keyring, piece))
        _print(made[-1], as_json=as_json)
    left = [one for one in made if one.finished_at is None]
    if left:
        waiting = len({job for one in left for job in one.waiting})
        terminal.say(f"it waits for {waiting:,} jobs that are still being filled, and for files that are read: run it again")
        return INTERRUPTED
    status = DONE if all(one.is_whole for one in made) else FAILED_ROWS
    if rewrite:
        status = max(status, _rewrite(db, made[0].tenant_id, [digest for one in made for digest in one.digests]))
    return status


def _of_a_job_that_is_gone(db: Database, keyring: Keyring, pieces: Sequence[Asked]) -> list[bytes]:
    """Return the digests of an erasure whose job is gone, if its old bytes are left: all that is left to do is to rewrite them."""
    try:
        pieces[0].view(db)
    except NotFoundError:
        digests = [one for piece in pieces for one in receipts.digests_of(keyring, piece.tenant_id, piece.targets, piece.label)]
        return digests if receipts.unrewritten(db, pieces[0].tenant_id, digests) else []
    return []


def _rewrite(db: Database, tenant_id: int, digests: Sequence[bytes] | None) -> int:
    """Rewrite what erasures of these targets have left, also earlier ones; None: what all have left."""
    left = receipts.unrewritten(db, tenant_id, digests)
    try:
        with terminal.busy("rewriting") as show:
            done = rewriting.rewrite(db, tenant_id, left, lambda table: show(f"rewriting {table}, which is locked meanwhile"))
    except RetryableError as error:
        terminal.say(f"{error} Run it again.")
        return INTERRUPTED
    if done.tables or not done.denied:
        terminal.say(f"rewritten: {', '.join(done.tables) or 'nothing, since no old bytes are left'}")
    if done.denied:
        terminal.say(f"not rewritten, since the database's user may not: {', '.join(done.denied)}")
    if not done.has_checkpoint:
        terminal.say("the old files go with the next checkpoint: the database's user may not begin one (pg_checkpoint)")
    if others := receipts.unrewritten(db, tenant_id):
        terminal.say(f"old bytes of {len(others):,} other erasures are left: `guardfleet erase --rewrite` alone rewrites them")
    return DONE if done.is_whole else FAILED_ROWS


def listing(settings: Settings, *, tenant: str, limit: int, as_json: bool) -> int:
    """Print receipts, newest first."""
    with _store(settings, tenant) as (db, _, tenant_id):
        for receipt in receipts.page(db, tenant_id=tenant_id, after=None, limit=limit):
            if as_json:
                print(json.dumps(receipt.as_dict()))
            else:
                state = ("done, old bytes left" if receipt.has_old_bytes else "done") if receipt.finished_at else "unfinished"
                print(f"{receipt.created_at:%Y-%m-%d %H:%M:%S}  {receipt.label}  {state}  {_counts(receipt)}")
    return DONE


def hold(settings: Settings, what: What, *, reason: str, tenant: str) -> int:
    """Make holds and print their ids."""
    with _store(settings, tenant) as (db, keyring, tenant_id):
        pieces = what.pieces(tenant_id)
        if len(pieces) > 1:
            raise RejectedError(f"a hold is made for each id and subject, and each takes a search: at most {MOST:,} at once.")
        for made in holding.hold(db, keyring, pieces[0], reason=reason):
            print(made.label)
            terminal.say(f"retention leaves {made.jobs:,} jobs alone because of it")
    return DONE


def extend(settings: Settings, label: str, *, tenant: str) -> int:
    """Find further jobs of a hold."""
    with _store(settings, tenant) as (db, keyring, tenant_id):
        found = holding.extend(db, keyring, holds.get(db, ids.HOLD.parse(label), tenant_id=tenant_id))
    terminal.say(f"retention leaves {found.jobs:,} jobs alone because of it")
    return DONE


def holds_of(settings: Settings, *, tenant: str, as_json: bool) -> int:
    """Print all holds, newest first."""
    with _store(settings, tenant) as (db, _, tenant_id):
        after = None
        while found := holds.page(db, tenant_id=tenant_id, after=after, limit=100):
            for one in found:
                after = one.public_id
                if as_json:
                    print(json.dumps(one.as_dict()))
                    continue
                state = f"released {one.released_at:%Y-%m-%d}" if one.released_at else f"{one.jobs:,} jobs"
                print(f"{one.created_at:%Y-%m-%d %H:%M:%S}  {one.label}  {one.kind}  {one.reason}  {state}")
    return DONE


def release(settings: Settings, label: str, *, tenant: str) -> int:
    """Release a hold."""
    with _store(settings, tenant) as (db, _, tenant_id):
        found = holds.release(db, ids.HOLD.parse(label), tenant_id=tenant_id)
    terminal.say(f"{found.label} is released")
    return DONE


def _confirm() -> None:
    """Ask on the terminal. Raises RejectedError if the answer is no, or there is nobody to ask."""
    if not sys.stdin.isatty():
        raise RejectedError("erasing cannot be undone: give --yes.")
    terminal.say("this cannot be undone. Erase? [y/N]")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise RejectedError("nothing was erased.")


def _print(receipt: Receipt, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(receipt.as_dict()))
        return
    print(receipt.label)
    for name, words in WORDS.items():
        if getattr(receipt, name):
            terminal.say(f"{getattr(receipt, name):>9,} {words}")


def _foreseen(counts: Counts) -> str:
    return (
        f"{counts.texts:,} texts and {counts.refusals:,} refused lines in {counts.jobs:,} jobs, {counts.held:,} of them held; "
        f"{counts.files:,} uploaded files; {counts.unread:,} shards that cannot be decrypted"
    )


def _counts(receipt: Receipt) -> str:
    return ", ".join(f"{getattr(receipt, name):,} {words}" for name, words in WORDS.items() if getattr(receipt, name)) or "nothing"


@contextmanager
def _store(settings: Settings, tenant: str) -> Iterator[tuple[Database, Keyring, int]]:
    with tenant_of(settings, tenant) as (db, tenant_id, complete):
        yield db, Keyring.of(complete), tenant_id
