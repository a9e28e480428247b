"""Judges a shard's texts: what a list decides, what is known and what is in work needs no model; the rest goes to the engine."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar, cast

from guardfleet.domain.detection import RULES, Detection
from guardfleet.domain.lanes import Lane
from guardfleet.domain.verdict import GUARD, Judgement, Model, ServedBy, Severity
from guardfleet.errors import RejectedError
from guardfleet.lists.matching import Hits
from guardfleet.rows.payload import PayloadRow
from guardfleet.settings.groups import CacheSettings
from guardfleet.store import detections as stored
from guardfleet.store import models, verdicts
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards.leases import Claim
from guardfleet.telemetry import metrics, tracing
from guardfleet.verdicts import detections
from worker.engine.interfaces import Answer, Engine
from worker.engine.prompting.prompt_policy import PromptPolicy
from worker.engine.prompting.windows import Coverage
from worker.moderation import detecting, lookup
from worker.moderation.interpretation import Triage, judgement_of, reused, settle, sorted_out, triage
from worker.moderation.single_flight import Key, Scope
from worker.moderation.throughput import Throughput

J = TypeVar("J")


@dataclass(frozen=True)
class Kind(Generic[J]):
    """What differs between judges of severities and judges of labels: how answers are read, stored ones found, one reused.

    `model_id`: of the model under the `policy` that it is to judge by. `refused`: what is said of a text if it cannot.
    """

    of: Callable[[Answer], J]
    known: Callable[[Claim, Sequence[bytes]], Mapping[bytes, J]]
    reused: Callable[[J, ServedBy], J]
    model_id: int
    policy: PromptPolicy | None = None
    refused: Callable[[str], J] | None = None


@dataclass(frozen=True)
class Judge:
    """Judges with one model. Called from all task threads of the process.

    `window_rule`: how a detector's windows of a long text become one detection.
    """

    db: Database
    engine: Engine
    cache: CacheSettings
    model_id: int
    throughput: Throughput = field(default_factory=Throughput)
    window_rule: str = RULES[0]

    @property
    def model(self) -> Model:
        """Its model."""
        return self.engine.model

    @property
    def detector(self) -> str:
        """What its model judges as."""
        return self.model.detector

    def judge(self, held: Claim, rows: Sequence[PayloadRow], digests: Sequence[bytes], scope: Scope) -> list[Judgement]:
        """Return a judgement for each row, in order. The scope must stay open until they are committed."""
        found = lookup.hits(self.db, held, rows)
        plan = triage(rows, digests, self._listed(held, found, digests))
        kind = Kind(judgement_of, self._known, reused, self.model_id)
        return lookup.noted(settle(plan, self._judged(held, rows, digests, plan, scope, kind), len(rows), reused), found)

    def model_id_under(self, policy: PromptPolicy | None) -> int:
        """Return the id of the model that judges by this policy: another policy is another model to all that is stored."""
        return self.model_id if policy is None else models.register(self.db, detecting.under(self.model, policy))

    def detect(
        self,
        held: Claim,
        rows: Sequence[PayloadRow],
        digests: Sequence[bytes],
        scope: Scope,
        policy: PromptPolicy | None = None,
    ) -> list[Detection]:
        """Return a detection for each row, in order: as `judge`, by a model that is not the guard. Lists decide none."""
        plan = sorted_out(rows, digests, gone=detecting.GONE, empty=detecting.EMPTY, listed={})
        model_id, found = self.model_id_under(policy), self._reading.detection_of
        kind = Kind(found, partial(self._found, model_id), detections.reused, model_id, policy, detecting.refused)
        return settle(plan, self._judged(held, rows, digests, plan, scope, kind), len(rows), detections.reused)

    def read(self, answer: Answer) -> Judgement | Detection:
        """Return what an answer of its model means."""
        return judgement_of(answer) if self.detector == GUARD else self._reading.detection_of(answer)

    @property
    def _reading(self) -> detecting.Reading:
        return detecting.Reading(self.model, self.window_rule)

    def _judged(
        self, held: Claim, rows: Sequence[PayloadRow], digests: Sequence[bytes], plan: Triage[J], scope: Scope, kind: Kind[J]
    ) -> dict[int, J]:
        """Return what is said of each row that the plan asks about: known before, in work elsewhere, or by the model now."""
        keys = {i: _key(held, digests[i], kind.model_id) for i in plan.ask}
        theirs = scope.take(keys.values())
        known = kind.known(held, [digests[i] for i in plan.ask])
        judged = {i: known[digests[i]] for i in plan.ask if digests[i] in known}
        judged |= self._ask(held, rows, [i for i in plan.ask if i not in judged and keys[i] not in theirs], scope, kind)
        scope.settle({keys[i]: said for i, said in judged.items()})
        for i in plan.ask:
            if i not in judged and (shared := _shared(theirs[keys[i]], keys[i], held.job_id, kind.reused)):
                judged[i] = shared
        judged |= self._ask(held, rows, [i for i in plan.ask if i not in judged], scope, kind)
        self.throughput.finished(rows)
        return judged

    def _listed(self, held: Claim, found: Sequence[Hits | None], digests: Sequence[bytes]) -> Mapping[int, Judgement]:
        """Return what lists decide; where a list says `safe` and a model has said otherwise, the model's word stands."""
        decided = {i: hits.judgement() for i, hits in enumerate(found) if hits is not None and hits.severity is not None}
        allowed = [i for i, judgement in decided.items() if judgement.severity is Severity.SAFE]
        known = self._known(held, [digests[i] for i in allowed])
        worse = {i: one for i in allowed if (one := known.get(digests[i])) and one.severity is not Severity.SAFE}
        return decided | worse

    def _known(self, held: Claim, digests: Sequence[bytes]) -> Mapping[bytes, Judgement]:
        return verdicts.known(self.db, digests, held, model_id=self.model_id, max_age_hours=self._max_age_hours(held))

    def _found(self, model_id: int, held: Claim, digests: Sequence[bytes]) -> Mapping[bytes, Detection]:
        return stored.known(self.db, digests, held, model_id=model_id, model=self.model, max_age_hours=self._max_age_hours(held))

    def _max_age_hours(self, held: Claim) -> float:
        return self.cache.hours if held.reuse else 0.0

    def _ask(self, held: Claim, rows: Sequence[PayloadRow], asked: Sequence[int], scope: Scope, kind: Kind[J]) -> dict[int, J]:
        if not asked:
            return {}
        # No timeout here: the engine settles every request, or the watchdog ends the process.
        contents = [rows[i].content for i in asked]
        about = {"gen_ai.operation.name": "chat", "gen_ai.request.model": self.model.name, "guardfleet.texts": len(asked)}
        with tracing.span(f"chat {self.model.name}", about):
            try:
                asking = self.engine.submit(
                    contents, urgent=held.lane is Lane.INTERACTIVE, coverage=coverage_of(held), policy=kind.policy
                )
            except RejectedError as error:
                if kind.refused is None:
                    raise
                return dict.fromkeys(asked, kind.refused(str(error)))
            judged = asking.result()
        spent = judged.timings
        for stage, seconds in (("tokenising", spent.tokenise_s), ("waiting", spent.wait_s), ("device", spent.device_s)):
            metrics.STAGES.labels(stage).inc(seconds)
        metrics.WINDOWS.inc(sum(len(answer.windows) for answer in judged.answers))
        scope.device_s += spent.share_s
        return {i: kind.of(answer) for i, answer in zip(asked, judged.answers, strict=True)}


def _key(held: Claim, digest: bytes, model_id: int) -> Key:
    """Return what two texts must share to be judged once: the model and its policy too, since a process may have several."""
    return digest, model_id, held.plan.long_texts, None if held.reuse else held.job_id


def coverage_of(held: Claim) -> Coverage | None:
    """Return how much of long texts the job wants judged; None: the worker's setting applies."""
    return cast("Coverage | None", held.plan.long_texts)


def _shared(owner: Scope, key: Key, job_id: int, reused: Callable[[J, ServedBy], J]) -> J | None:
    """Return what another task's scope says of the same text; None if that task got nothing."""
    said = owner.judgement(key)
    return said and reused(said, ServedBy.DUPLICATE if owner.job_id == job_id else ServedBy.CACHE)
