"""Removing texts of one shard: their verdicts' personal columns, their contents, and every row about them, in one transaction.

Invariant: once this has committed, no verdict, blob or provisional verdict of the erased texts exists, and none is written later.
Whoever writes one does so under the shard's row lock and the token of its claim. If finish() or pass_on() comes first, its rows are
seen here; if the erasure comes first, the token has moved, so the worker that read the text is fenced and the shard is judged again
without it. A claim that waited for the erasure reads the blob after it (`shard.erased` in `leases.CLAIM`). The text's row in the
blob stays, empty, and becomes an error `erased`: so every text still ends in exactly one count.

Lock order: shard, then job, then receipt; of an ended job, which only purge() still locks, the job first, as purge() does.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb

from guardfleet.domain import ids
from guardfleet.domain.detection import Outcome
from guardfleet.domain.verdict import ERASED
from guardfleet.rows import payload
from guardfleet.rows.payload import PayloadRow
from guardfleet.security.encryption import Keyring
from guardfleet.store.erasure import receipts
from guardfleet.store.erasure.search import SearchedJob
from guardfleet.store.postgres.database import Connection, Database
from guardfleet.store.shards import handoff
from guardfleet.store.shards.leases import FREED
from guardfleet.store.words import INGESTING_JOB, LEASED_SHARD

# Tables with rows about a text by (job_id, seq), which go with it. A test finds any that is missing here.
# Tasks first: whoever decides one holds its row until its label is committed, and then both are seen here.
OF_TEXT = ("review_task", "label", "sample_text")
EVIDENCE = {"notes": [payload.ERASED]}
WITHOUT_PERSON = f"""update verdict set id = null, metadata = null, digest = null, raw = null, error_detail = null,
                            error = case when error is null then null else '{ERASED}' end, evidence = %(evidence)s
                     where job_id = %(job)s and day = %(day)s and seq = any(%(seqs)s::int4[])
                       and evidence is distinct from %(evidence)s returning seq"""
WITHOUT_WORDS = f"""update detection set digest = null, error_detail = null, evidence = null, reason = null,
                           error = case when outcome = {Outcome.ERROR} then '{ERASED}' end
                    where job_id = %(job)s and day = %(day)s and seq = any(%(seqs)s::int4[])"""
FENCE = f"""update shard s set token = s.token + 1, claims = greatest(s.claims - 1, 0), lease_until = null, published_at = null,
                   state = {FREED}
            from job j where s.job_id = %(job)s and s.shard_no = %(no)s and {LEASED_SHARD:s} and j.id = s.job_id"""


@dataclass(slots=True)
class _Gone:
    """What one transaction removed."""

    texts: set[int]
    verdicts: int = 0
    blobs: int = 0
    provisional: int = 0


def erase(db: Database, keyring: Keyring, receipt_id: int, job: SearchedJob, seqs: Sequence[int]) -> int:
    """Erase these texts of a job, a transaction for each of their shards; return how many. Idempotent."""
    left, n = set(seqs), 0
    while left:
        for shard_no, mine in list(_by_shard(db, job, sorted(left))):
            done, erased = _erase(db, keyring, receipt_id, job, shard_no, mine)
            left -= done  # what a bisection took away meanwhile is looked for again
            n += erased
    return n


def _by_shard(db: Database, job: SearchedJob, seqs: Sequence[int]) -> Iterator[tuple[int | None, list[int]]]:
    """Yield the shards of these texts; None for texts whose shard was purged."""
    with db.session() as connection:
        rows = connection.execute(
            """select x.seq, (select s.shard_no from shard s where s.job_id = %(job)s and s.first_seq <= x.seq
                                and s.first_seq + s.n > x.seq limit 1) as shard_no
               from unnest(%(seqs)s::int4[]) x (seq) order by 1""",
            {"job": job.id, "seqs": seqs},
        ).fetchall()
    grouped: dict[int | None, list[int]] = {}
    for row in rows:
        grouped.setdefault(row.shard_no, []).append(row.seq)
    yield from grouped.items()


def _erase(
    db: Database, keyring: Keyring, receipt_id: int, job: SearchedJob, shard_no: int | None, seqs: list[int]
) -> tuple[set[int], int]:
    """Erase the texts that the shard has; return these, and how many were not erased before."""
    with db.begin() as connection:
        if job.has_ended:
            connection.execute("select from job where id = %(job)s for no key update", {"job": job.id})
        shard = None if shard_no is None else _locked(connection, job, shard_no)
        mine = seqs if shard is None else [seq for seq in seqs if shard.first_seq <= seq < shard.first_seq + shard.n]
        values = {"job": job.id, "day": job.day, "seqs": mine, "evidence": Jsonb(EVIDENCE)}
        changed = connection.scalars(WITHOUT_PERSON, values)
        connection.execute(WITHOUT_WORDS, values)
        gone = _Gone(set(changed), len(changed))
        if shard is not None:
            _from_blob(connection, keyring, job, shard, mine, gone)
        beside = sum(connection.execute(f"delete from {table} where job_id = %(job)s and seq = any(%(seqs)s)", values).rowcount
                     for table in OF_TEXT)  # fmt: skip
        requests = around(connection, job, len(gone.texts))
        receipts.add(
            connection, receipt_id, texts=len(gone.texts), verdicts=gone.verdicts, blobs=gone.blobs, provisional=gone.provisional,
            beside=beside, requests=requests,
        )  # fmt: skip
        if gone.texts:
            receipts.note(connection, receipt_id, day=job.day, input_file=job.input_file_id)
    return set(mine), len(gone.texts)


def _locked(connection: Connection, job: SearchedJob, shard_no: int) -> Any:
    return connection.execute(
        f"""select shard_no, first_seq, n, {LEASED_SHARD} as is_leased from shard
            where job_id = %(job)s and shard_no = %(no)s for update""",
        {"job": job.id, "no": shard_no},
    ).fetchone()


def _from_blob(connection: Connection, keyring: Keyring, job: SearchedJob, shard: Any, seqs: list[int], gone: _Gone) -> None:
    """Write the shard's texts and provisional verdicts again without these; a worker that has read them is fenced."""
    values = {"job": job.id, "no": shard.shard_no, "day": job.day}
    kept: Any = connection.execute(  # a statement of its own: that which waited for the lock may have read an older blob
        """select p.blob, j.data_key, o.blob as provisional from shard_payload p join job j on j.id = p.job_id
           left join first_opinion o on o.job_id = p.job_id and o.shard_no = p.shard_no
           where p.job_id = %(job)s and p.shard_no = %(no)s and p.day = %(day)s and j.data_key is not null""",
        values,
    ).fetchone()
    if kept is None:
        return
    at, bound = [seq - shard.first_seq for seq in seqs], {"job_id": job.id, "shard_no": shard.shard_no}
    texts = keyring.decrypt_rows(kept.data_key, kept.blob, **bound)
    fresh = [i for i in at if not texts[i].is_erased]
    if not fresh:
        return
    rows: list[PayloadRow] = [payload.erased() if i in set(fresh) else row for i, row in enumerate(texts)]
    sealed = keyring.encrypt_rows(kept.data_key, rows, **bound)
    connection.execute(
        "update shard_payload set blob = %(blob)s where job_id = %(job)s and shard_no = %(no)s and day = %(day)s",
        values | {"blob": sealed},
    )
    connection.execute(
        "update shard set erased = erased + %(n)s where job_id = %(job)s and shard_no = %(no)s", values | {"n": len(fresh)}
    )
    connection.execute(FENCE, values)
    gone.texts |= {shard.first_seq + i for i in fresh}
    gone.blobs += 1
    if kept.provisional is not None:
        opened = handoff.of_blob(keyring.open(kept.data_key, kept.provisional, kind=handoff.KIND, **bound), None)
        provisional = handoff.as_plain(opened.without(fresh))
        connection.execute(
            "update first_opinion set blob = %(blob)s where job_id = %(job)s and shard_no = %(no)s",
            values | {"blob": keyring.seal(kept.data_key, provisional, kind=handoff.KIND, **bound)},
        )
        gone.provisional += len(fresh)


def around(connection: Connection, job: SearchedJob, n: int) -> int:
    """Count `n` more erased texts of the job, and forget what is derived from its whole input; return the requests forgotten.

    Both the fingerprint and a remembered request are digests without a key: of a job of one text, that text could be guessed. An
    unfinished intake needs them.
    """
    values = {"job": job.id, "n": n, "subjects": [job.label, ids.BATCH.of(job.public_id)]}
    erased = connection.scalar(
        f"""update job set erased = erased + %(n)s,
                   fingerprint = case when {INGESTING_JOB} or retry_of is not null or erased + %(n)s = 0 then fingerprint end
            where id = %(job)s returning erased""",
        values,
    )
    if not erased:
        return 0
    return connection.execute(
        """delete from repeat where subject = any(%(subjects)s::text[])
             and tenant_id = (select tenant_id from job where id = %(job)s)""",
        values,
    ).rowcount


def forget_refused(db: Database, receipt_id: int, job: SearchedJob, lines: Sequence[int]) -> None:
    """Remove the id and the detail of these refused lines, which may name what was in them; the code stays."""
    if not lines:
        return
    with db.begin() as connection:
        n = connection.execute(
            """update rejection set row_id = null, detail = %(erased)s
               where job_id = %(job)s and line = any(%(lines)s::int8[]) and row_id is not null""",
            {"job": job.id, "lines": list(lines), "erased": payload.ERASED},
        ).rowcount
        if n:
            receipts.note(connection, receipt_id, input_file=job.input_file_id)
            receipts.add(connection, receipt_id, refusals=n)
