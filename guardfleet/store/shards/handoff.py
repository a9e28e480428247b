"""What was said of a shard's texts so far, encrypted while the shard waits for who judges next: raw answers may quote texts.

A shard goes from the guard to the plan's second model, if there are doubts, and then from detector to detector, each followed by
its second one if there are doubts. Each adds what it says; the last one finishes the shard with all of it, in one commit.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from guardfleet.domain.detection import Detection, failed
from guardfleet.domain.plan import NONE_ESCALATED, Escalation
from guardfleet.domain.verdict import ERASED, Judgement, failure
from guardfleet.errors import NotFoundError
from guardfleet.rows.payload import PayloadRow
from guardfleet.security.encryption import Keyring
from guardfleet.store import models
from guardfleet.store.detections import Detected
from guardfleet.store.postgres.database import Connection, Database
from guardfleet.store.shards import leases
from guardfleet.store.shards.leases import HAND_BACK, Claim, key_of
from guardfleet.verdicts import detections
from guardfleet.verdicts.encoding import of_plain, to_plain

KIND = "first-opinion"
FORM = 2  # of the blob of a shard that goes to detectors; a list, as it was before, otherwise
CASCADED = 3  # the same where a second detector has its part in it: earlier versions, which would leave that out, refuse it


@dataclass(frozen=True, slots=True)
class Said:
    """What one detector said of each text of a shard, in order."""

    place: int  # of the detector in the plan
    model_id: int
    detections: list[Detection]
    is_settled: bool = True  # False: the second detector has to look at some of them
    others: dict[int, int] = field(default_factory=dict)  # by row, the model that decided in place of `model_id`
    escalation: Escalation = NONE_ESCALATED

    def part(self, start: int, end: int) -> "Said":
        """Return that of the rows from `start` up to `end`; the counts of the cascade stay with the first."""
        return replace(
            self,
            detections=self.detections[start:end],
            others={i - start: model for i, model in self.others.items() if start <= i < end},
            escalation=self.escalation if start == 0 else NONE_ESCALATED,
        )


@dataclass(frozen=True, slots=True)
class Provisional:
    """A provisional judgement for each row of a shard, in order, and the model that gave them; empty if the guard is not asked.

    `is_settled`: the guard's part is over, with `models` for the rows whose verdict is another model's than `model_id`, and
    with the counts of the cascade. `said`: what detectors said since.
    """

    model_id: int | None
    judgements: list[Judgement]
    is_settled: bool = False
    models: dict[int, int] = field(default_factory=dict)
    escalation: Escalation = NONE_ESCALATED
    said: list[Said] = field(default_factory=list)

    def part(self, start: int, end: int) -> "Provisional":
        """Return that of the rows from `start` up to `end`; the counts of the cascade stay with the first."""
        return replace(
            self,
            judgements=self.judgements[start:end],
            models={i - start: model for i, model in self.models.items() if start <= i < end},
            escalation=self.escalation if start == 0 else NONE_ESCALATED,
            said=[one.part(start, end) for one in self.said],
        )

    def without(self, erased: Sequence[int]) -> "Provisional":
        """Return it with nothing said of these rows."""
        gone = set(erased)
        return replace(
            self,
            judgements=[failure(ERASED) if i in gone else one for i, one in enumerate(self.judgements)],
            said=[
                replace(one, detections=[failed(ERASED) if i in gone else said for i, said in enumerate(one.detections)])
                for one in self.said
            ],
        )


def pass_on(
    db: Database, keyring: Keyring, held: Claim, provisional: Provisional, *, to: str | None = None, device_s: float = 0.0
) -> bool:
    """Pass a shard on with its provisional verdicts, in one commit; False if the claim was lost.

    `to`: the route of who judges next, by default the plan's second model. `device_s`: the texts' share of this model's device.
    """
    route = held.plan.second_model if to is None else to
    if held.data_key is None or route is None:
        raise NotFoundError("cannot pass the shard on: its job has no second model, or its texts were purged.")
    change = "claims = 0, failures = 0, published_at = null, next_attempt_at = null, model = %(route)s"
    with db.begin() as connection:
        if not connection.execute(HAND_BACK.format(change=change), key_of(held) | {"route": route}).rowcount:
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
    blob = keyring.seal(held.data_key, as_plain(provisional), kind=KIND, job_id=held.job_id, shard_no=shard_no)
    connection.execute(
        """insert into first_opinion (job_id, shard_no, model_id, blob) values (%(job)s, %(no)s, %(model)s, %(blob)s)
           on conflict (job_id, shard_no) do update set blob = excluded.blob, model_id = excluded.model_id""",
        {"job": held.job_id, "no": shard_no, "model": provisional.model_id, "blob": blob},
    )


def load(db: Database, keyring: Keyring, held: Claim) -> tuple[list[PayloadRow], Provisional | None]:
    """Return the shard's texts and, if there are any, their provisional verdicts. Raises as `leases.load` does."""
    texts = leases.load(db, keyring, held)
    if (held.plan.second_model is None and not held.plan.others) or held.data_key is None:
        return texts, None
    with db.begin() as connection:
        row = connection.execute(
            "select model_id, blob from first_opinion where job_id = %(job)s and shard_no = %(no)s",
            {"job": held.job_id, "no": held.shard_no},
        ).fetchone()
    if row is None:
        return texts, None
    plain = keyring.open(held.data_key, row.blob, kind=KIND, job_id=held.job_id, shard_no=held.shard_no)
    return texts, of_blob(plain, row.model_id)


def as_plain(provisional: Provisional) -> Any:
    """Return it as JSON; without a detector in the form that earlier versions read too."""
    judged = [to_plain(judgement) for judgement in provisional.judgements]
    if not provisional.is_settled:
        return judged
    counts = provisional.escalation
    return {
        "form": FORM if all(one == _plain(one) for one in provisional.said) else CASCADED,
        "judged": judged,
        "models": list(provisional.models.items()),
        "escalation": [counts.escalated, counts.sampled, counts.agreed],
        "said": [
            [one.place, one.model_id, [detections.to_plain(said) for said in one.detections], *_of_cascade(one)]
            for one in provisional.said
        ],
    }


def _plain(one: Said) -> Said:
    """Return it as a detector without a second one has said it."""
    return Said(one.place, one.model_id, one.detections)


def _of_cascade(one: Said) -> list[Any]:
    """Return what a cascade adds to it as JSON; nothing without one."""
    if one == _plain(one):
        return []
    counts = one.escalation
    return [one.is_settled, list(one.others.items()), [counts.escalated, counts.sampled, counts.agreed]]


def _said_of(plain: Any) -> Said:
    place, model_id, said, *of_cascade = plain
    one = Said(place, model_id, [detections.of_plain(values) for values in said])
    if not of_cascade:
        return one
    is_settled, others, counts = of_cascade
    return replace(one, is_settled=is_settled, others=dict(others), escalation=Escalation(*counts))


def of_blob(plain: Any, model_id: int | None) -> Provisional:
    """Return the provisional verdicts from `as_plain`'s JSON."""
    if isinstance(plain, list):
        return Provisional(model_id, [of_plain(values) for values in plain])
    if plain.get("form") not in (FORM, CASCADED):
        raise NotFoundError("the shard's provisional verdicts are those of a newer version.")
    return Provisional(
        model_id,
        [of_plain(values) for values in plain["judged"]],
        is_settled=True,
        models=dict(plain["models"]),
        escalation=Escalation(*plain["escalation"]),
        said=[_said_of(one) for one in plain["said"]],
    )


def detected_of(db: Database, provisional: Provisional) -> list[Detected]:
    """Return what each detector said, with the models that decided."""
    known = models.by_id(db, [model for one in provisional.said for model in (one.model_id, *one.others.values())])
    return [
        Detected(
            one.place,
            one.model_id,
            known[one.model_id],
            one.detections,
            {i: (model_id, known[model_id]) for i, model_id in one.others.items()},
            one.escalation,
        )
        for one in provisional.said
    ]
