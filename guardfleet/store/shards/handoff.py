"""The first model's provisional verdicts, encrypted while the shard waits for the second: raw answers may quote texts."""

from dataclasses import dataclass

from guardfleet.domain.verdict import Judgement
from guardfleet.errors import NotFoundError
from guardfleet.rows.payload import PayloadRow
from guardfleet.security.encryption import Keyring
from guardfleet.store.postgres.database import Connection, Database
from guardfleet.store.shards import leases
from guardfleet.store.shards.leases import HAND_BACK, Claim, key_of
from guardfleet.verdicts.encoding import of_plain, to_plain

KIND = "first-opinion"


@dataclass(frozen=True, slots=True)
class Provisional:
    """A provisional judgement for each row of a shard, in order, and the model that gave them."""

    model_id: int
    judgements: list[Judgement]


def pass_on(db: Database, keyring: Keyring, held: Claim, provisional: Provisional, *, device_s: float = 0.0) -> bool:
    """Pass a shard on to the plan's second model with its provisional verdicts, in one commit; False if the claim was lost.

    `device_s`: the texts' share of the first model's device.
    """
    if held.data_key is None or held.plan.second_model is None:
        raise NotFoundError("cannot pass the shard on: its job has no second model, or its texts were purged.")
    change = "claims = 0, failures = 0, published_at = null, next_attempt_at = null, model = %(second)s"
    with db.begin() as connection:
        if not connection.execute(HAND_BACK.format(change=change), key_of(held) | {"second": held.plan.second_model}).rowcount:
            return False
        write(connection, keyring, held, provisional, shard_no=held.shard_no)
        connection.execute(
            "update job set device_s = device_s + %(device_s)s where id = %(job)s", {"job": held.job_id, "device_s": device_s}
        )
    return True


def write(connection: Connection, keyring: Keyring, held: Claim, provisional: Provisional, *, shard_no: int) -> None:
    """Store the provisional verdicts of the shard, or of a half of it that has a number of its own."""
    if held.data_key is None:
        raise NotFoundError("the job's data key was destroyed: its texts were purged.")
    plain = [to_plain(judgement) for judgement in provisional.judgements]
    blob = keyring.seal(held.data_key, plain, kind=KIND, job_id=held.job_id, shard_no=shard_no)
    connection.execute(
        """insert into first_opinion (job_id, shard_no, model_id, blob) values (%(job)s, %(no)s, %(model)s, %(blob)s)
           on conflict (job_id, shard_no) do update set blob = excluded.blob""",
        {"job": held.job_id, "no": shard_no, "model": provisional.model_id, "blob": blob},
    )


def load(db: Database, keyring: Keyring, held: Claim) -> tuple[list[PayloadRow], Provisional | None]:
    """Return the shard's texts and, if there are any, their provisional verdicts. Raises as `leases.load` does."""
    texts = leases.load(db, keyring, held)
    if held.plan.second_model is None or held.data_key is None:
        return texts, None
    with db.begin() as connection:
        row = connection.execute(
            "select model_id, blob from first_opinion where job_id = %(job)s and shard_no = %(no)s",
            {"job": held.job_id, "no": held.shard_no},
        ).fetchone()
    if row is None:
        return texts, None
    plain = keyring.open(held.data_key, row.blob, kind=KIND, job_id=held.job_id, shard_no=held.shard_no)
    return texts, Provisional(row.model_id, [of_plain(values) for values in plain])
