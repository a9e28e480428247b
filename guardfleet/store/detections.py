"""Detections: written with the verdicts of their shard, reused for equal texts, read beside verdicts."""

import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from typing import Any

from psycopg.types.json import Jsonb
from uuid_utils import UUID

from guardfleet.domain.detection import Detection, Outcome, keys_of
from guardfleet.domain.plan import NONE_ESCALATED, Escalation
from guardfleet.domain.verdict import GUARD, Model, ServedBy
from guardfleet.errors import RejectedError
from guardfleet.policy.facts import Seen
from guardfleet.store import models, reuse
from guardfleet.store.postgres.database import Connection, Database
from guardfleet.store.shards.leases import Claim
from guardfleet.store.words import REUSABLE_DETECTION
from guardfleet.verdicts.detections import Codes, decode, encode, shown
from guardfleet.verdicts.filters import Labelled

COLUMNS = {
    "job_id": "int8", "seq": "int4", "place": "int2", "day": "date", "model_id": "int2", "digest": "uuid",
} | dict(
    zip(Codes._fields, ("int2", "int2", "float4[]", "int2", "int4", "int4", "text", "text", "jsonb", "text"), strict=True)
)  # fmt: skip
COUNTED = ("place", "model_id", "n", "unlabelled", "too_short", "error", "labelled", "escalated", "sampled", "agreed")
# Of job `j`: how many texts ended how with each detector, as {detector: {label: n}}.
BY_DETECTOR = """(case when j.detectors is not null then (
    select coalesce(jsonb_object_agg(j.detectors[t.place + 1], t.ends), '{}') from (
      select x.place, jsonb_object_agg(x.name, x.n) as ends from (
        select y.place, y.name, sum(y.n) as n from (
          select d.place, e.name, e.n from detected d join model m on m.id = d.model_id
          cross join lateral (values ('unlabelled', d.unlabelled), ('too_short', d.too_short), ('error', d.error)) e (name, n)
          where d.job_id = j.id
          union all
          select d.place, m.labels[c.i], c.n from detected d join model m on m.id = d.model_id
          cross join lateral unnest(d.labelled) with ordinality c (n, i) where d.job_id = j.id) y
        group by 1, 2) x
      where x.n > 0 group by 1) t) end)"""
# Of job `j`: how many texts each detector passed on to its second one, as {detector: {escalated: n, sampled: n, agreed: n}}.
ESCALATED = """(case when j.detector_cascades is not null then (
    select coalesce(jsonb_object_agg(j.detectors[t.place + 1], t.counts), '{}') from (
      select d.place,
             jsonb_build_object('escalated', sum(d.escalated), 'sampled', sum(d.sampled), 'agreed', sum(d.agreed)) as counts
      from detected d where d.job_id = j.id group by 1) t) end)"""
KNOWN = f"""select distinct on (digest) digest, {reuse.IS_OWN}, {", ".join(Codes._fields)}
           from detection where {REUSABLE_DETECTION} and {reuse.WHERE} {reuse.ORDER}"""
GONE = Seen(Outcome.ERROR.label, None)


@dataclass(frozen=True, slots=True)
class Detected:
    """What one detector said of a shard's texts, in order; `place`: of the detector in the job's plan.

    `others`: by the text's place, the id and the model of the second detector that decided in place of `model`; its labels are
    the same, in any order. `escalation`: the counts of that cascade.
    """

    place: int
    model_id: int
    model: Model
    detections: Sequence[Detection]
    others: Mapping[int, tuple[int, Model]] = field(default_factory=dict)
    escalation: Escalation = NONE_ESCALATED

    def by(self, place: int) -> tuple[int, Model]:
        """Return the id and the model that decided of the text at this place of the shard."""
        return self.others.get(place, (self.model_id, self.model))

    @property
    def model_ids(self) -> set[int]:
        """The models that decided of some text."""
        return {self.model_id, *(model_id for model_id, _ in self.others.values())}

    def counts(self, codes: Sequence[Codes]) -> tuple[Any, ...]:
        """Return the values of COUNTED for what is stored of them: each text is in exactly one of the counts."""
        ends = Counter((said.outcome, self._label(place, said)) for place, said in enumerate(codes))
        labelled = [ends[Outcome.LABELLED, label] for label in self.model.labels]
        others = [ends[outcome, None] for outcome in (Outcome.UNLABELLED, Outcome.TOO_SHORT, Outcome.ERROR)]
        return self.place, self.model_id, len(codes), *others, labelled, *astuple(self.escalation)

    def _label(self, place: int, codes: Codes) -> str | None:
        return None if codes.label is None else self.by(place)[1].labels[codes.label]


Detections = Sequence[tuple[Detected, list[Codes]]]  # of a shard, as they are stored


def encoded(detected: Iterable[Detected]) -> Detections:
    """Return each detector's detections as they are stored."""
    return [(one, [encode(said, one.by(place)[1]) for place, said in enumerate(one.detections)]) for one in detected]


def rows(held: Claim, codes: Detections, digests: Sequence[bytes | None]) -> Iterable[tuple[Any, ...]]:
    """Yield the values of COLUMNS for each text and detector of a shard."""
    for one, said in codes:
        for place, (digest, found) in enumerate(zip(digests, said, strict=True)):
            known = None if digest is None or held.keeps_nothing else UUID(bytes=digest)
            stored = found._asdict() | {"evidence": None if found.evidence is None else Jsonb(found.evidence)}
            yield held.job_id, held.first_seq + place, one.place, held.day, one.by(place)[0], known, *stored.values()


def count(connection: Connection, held: Claim, codes: Detections) -> None:
    """Write how many texts of a shard ended how with each detector."""
    for one, said in codes:
        counted = dict(zip(COUNTED, one.counts(said), strict=True))
        connection.execute(
            f"""insert into detected (job_id, first_seq, {", ".join(COUNTED)})
                values (%(job)s, %(first)s, {", ".join(f"%({name})s" for name in COUNTED)})""",
            {"job": held.job_id, "first": held.first_seq, **counted},
        )


def seen(codes: Detections, held: Claim) -> list[dict[str, Seen]]:
    """Return what rules read of a shard's detections, text by text."""
    out: list[dict[str, Seen]] = [{} for _ in range(held.n)]
    keys = keys_of(held.plan.detectors)
    for one, said in codes:
        for place, (row, found) in enumerate(zip(out, said, strict=True)):
            row.update(dict.fromkeys(keys[one.place], seen_of(found, one.by(place)[1])))
    return out


def seen_of(codes: Codes, model: Model) -> Seen:
    """Return what rules read of one detection."""
    found = decode(codes, model)
    scores = None if found.scores is None else dict(zip(model.labels, found.scores, strict=True))
    return Seen(found.word, scores)


def seen_in(db: Database, connection: Connection, among: Sequence[Any]) -> dict[tuple[int, int], list[dict[str, Seen]]]:
    """Return what rules read of the detections of these finished shards, by job and first place.

    A detection that the job asked for and that is gone is an error: what is not known makes no action milder.
    """
    found = connection.execute(
        f"""select s.job_id, s.first_seq, d.seq, d.place, d.model_id, {", ".join(f"d.{name}" for name in Codes._fields)}
            from unnest(%(jobs)s::int8[], %(days)s::date[], %(firsts)s::int4[], %(ns)s::int4[]) s (job_id, day, first_seq, n)
            join detection d on d.job_id = s.job_id and d.day = s.day and d.seq >= s.first_seq and d.seq < s.first_seq + s.n""",
        {
            "jobs": [one.job_id for one in among], "days": [one.day for one in among],
            "firsts": [one.first_seq for one in among], "ns": [one.n for one in among],
        },
    ).fetchall()  # fmt: skip
    by_id = models.known(db, connection, {row.model_id for row in found})
    asked = connection.execute(
        "select id, detectors from job where id = any(%(jobs)s::int8[]) and detectors is not null",
        {"jobs": [one.job_id for one in among]},
    )
    keys = {row.id: keys_of(row.detectors) for row in asked}
    gone = {job: {key: GONE for of_one in found_by for key in of_one if key != GUARD} for job, found_by in keys.items()}
    out = {(one.job_id, one.first_seq): [dict(gone.get(one.job_id, {})) for _ in range(one.n)] for one in among}
    for job_id, first_seq, seq, place, model_id, *codes in found:
        said = seen_of(Codes._make(codes), by_id[model_id])
        out[job_id, first_seq][seq - first_seq] |= dict.fromkeys(keys[job_id][place], said)
    return out


def known(
    db: Database, digests: Sequence[bytes], held: Claim, *, model_id: int, model: Model, max_age_hours: float
) -> dict[bytes, Detection]:
    """Return detections of the same whole texts by the same model and policy: as `verdicts.known` does for verdicts."""
    if not digests:
        return {}
    values = reuse.values(digests, held, model_id=model_id, max_age_hours=max_age_hours)
    with db.session() as connection:
        found = connection.execute(KNOWN, values).fetchall()
    out = {}
    for digest, is_own, *codes in found:
        said = decode(codes, model)
        if said.outcome is not Outcome.ERROR:
            key: uuid.UUID = digest
            out[key.bytes] = replace(said, served_by=ServedBy.DUPLICATE if is_own else ServedBy.CACHE)
    return out


def of_texts(connection: Connection, job_id: int, day: Any, seqs: Sequence[int]) -> list[tuple[Any, ...]]:
    """Return the text's place, the detector's key, the model's id and the codes of each detection of these texts."""
    if not seqs:
        return []
    return connection.execute(
        f"""select d.seq, j.detectors[d.place + 1], d.model_id, {", ".join(f"d.{name}" for name in Codes._fields)}
            from detection d join job j on j.id = d.job_id
            where d.job_id = %(job)s and d.day = %(day)s and d.seq = any(%(seqs)s::int4[]) order by d.seq, d.place""",
        {"job": job_id, "day": day, "seqs": list(seqs)},
    ).fetchall()


def by_text(found: Iterable[tuple[Any, ...]], by_id: Mapping[int, Model]) -> dict[int, dict[str, dict[str, Any]]]:
    """Return by a text's place what each detector said of it, as faces show it."""
    out: dict[int, dict[str, dict[str, Any]]] = {}
    for seq, key, model_id, *codes in found:
        model = by_id[model_id]
        out.setdefault(seq, {})[key] = shown(decode(codes, model), model)
    return out


def resolved(db: Database, asked: Sequence[str] | None, wanted: Labelled | None) -> Labelled | None:
    """Return the filter with the detector as results of a job that `asked` these name it; None if nothing is wanted.

    Raises RejectedError for a detector that the job did not ask, or a label that it has never had.
    """
    if wanted is None:
        return None
    entries = [entry for entry in asked or () if entry != GUARD]
    entry = next((one for one, keys in zip(entries, keys_of(entries), strict=True) if wanted.detector in keys), None)
    if entry is None:
        there = f"it asked {', '.join(entries)}" if entries else "it asked none but the guard"
        raise RejectedError(f"the job did not ask a detector {wanted.detector[:80]!r}: {there}.", param="detector")
    known = [*models.labels_of(db, entry), *(outcome.label for outcome in Outcome if outcome is not Outcome.LABELLED)]
    for label in wanted.labels:
        if label not in known:
            raise RejectedError(f"{entry} has no label {label[:80]!r}; it has: {', '.join(known)}.", param="label")
    return Labelled(entry, wanted.labels)


# Of text `verdict.seq`; where errors are wanted, codes that only decode as one are found among all of them.
IS_LABELLED = f"""(%(any_label)s or exists (
    select from detection d join model m on m.id = d.model_id
    where d.job_id = %(job)s and d.day = %(day)s and d.seq = verdict.seq and d.place = %(place)s
      and case when d.outcome = {Outcome.LABELLED} then m.labels[d.label + 1] = any(%(labels)s::text[])
               else d.outcome = any(%(outcomes)s::int2[]) end))"""


def values_of(asked: Sequence[str] | None, wanted: Labelled) -> dict[str, Any]:
    """Return the parameters of IS_LABELLED for a filter that is resolved."""
    return {
        "any_label": Outcome.ERROR.label in wanted.labels,
        "place": list(asked or ()).index(wanted.detector),
        "labels": list(wanted.labels),
        "outcomes": [int(outcome) for outcome in Outcome if outcome.label in wanted.labels],
    }
