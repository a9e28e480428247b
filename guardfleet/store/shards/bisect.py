"""Bisection of a shard that was tried too often: the bad text is found in log2(n) steps, and the other texts complete."""

from collections.abc import Sequence

from guardfleet.rows.payload import PayloadRow
from guardfleet.security.encryption import Keyring
from guardfleet.store.postgres.database import Connection, Database
from guardfleet.store.shards import handoff
from guardfleet.store.shards.handoff import Provisional
from guardfleet.store.shards.leases import HAND_BACK, Claim, Limits, key_of

KEEP_FIRST_HALF = (
    "n = %(n)s, claims = %(claims)s, failures = %(failures)s, give_ups = 0, published_at = null, next_attempt_at = null"
)


def bisect(
    db: Database, keyring: Keyring, held: Claim, texts: Sequence[PayloadRow], first: Provisional | None, *, limits: Limits
) -> bool:
    """Replace a held shard by two, each with one try left, in one commit. Return False if the claim was lost.

    The first half keeps the number, the second gets a negative one: an intake may be about to use the next number above. Only one
    try is left: a text that has killed five processes needs to kill only one more to be found. `texts` and `first` are the
    shard's, decrypted.
    """
    if held.data_key is None or held.n <= 1:
        raise ValueError("a shard of one text, or without its data key, cannot be bisected")
    middle = held.n // 2
    left = {"claims": min(held.claims, limits.claims) - 1, "failures": min(held.failures, limits.failures - 1)}
    with db.begin() as connection:
        if not connection.execute(HAND_BACK.format(change=KEEP_FIRST_HALF), key_of(held) | left | {"n": middle}).rowcount:
            return False
        # Lock the job, so that nobody else takes the same number.
        connection.execute("select from job where id = %(job)s for update", {"job": held.job_id})
        second_no: int = connection.scalar(
            """insert into shard (job_id, shard_no, day, lane, first_seq, n, state, claims, failures, last_error, model)
               select job_id, (select least(min(shard_no), 0) - 1 from shard where job_id = %(job)s), day, lane,
                      %(first_seq)s, %(n)s, state, claims, failures, last_error, model
               from shard where job_id = %(job)s and shard_no = %(no)s returning shard_no""",
            {"job": held.job_id, "no": held.shard_no, "first_seq": held.first_seq + middle, "n": held.n - middle},
        )
        for shard_no, part in ((held.shard_no, slice(0, middle)), (second_no, slice(middle, held.n))):
            _write(connection, keyring, held, shard_no, texts[part])
            if first is not None:
                handoff.write(connection, keyring, held, first.part(part.start, part.stop), shard_no=shard_no)
    return True


def _write(connection: Connection, keyring: Keyring, held: Claim, shard_no: int, texts: Sequence[PayloadRow]) -> None:
    assert held.data_key is not None  # noqa: S101 - bisect() has looked
    connection.execute(
        """insert into shard_payload (job_id, shard_no, day, blob) values (%(job)s, %(no)s, %(day)s, %(blob)s)
           on conflict (job_id, shard_no, day) do update set blob = excluded.blob""",
        {
            "job": held.job_id,
            "no": shard_no,
            "day": held.day,
            "blob": keyring.encrypt_rows(held.data_key, texts, job_id=held.job_id, shard_no=shard_no),
        },
    )
