"""Judges a shard's texts: what a list decides, what is known and what is in work needs no model; the rest goes to the engine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from guardfleet.domain.lanes import Lane
from guardfleet.domain.verdict import Judgement, ServedBy, Severity
from guardfleet.lists.matching import Hits
from guardfleet.rows.payload import PayloadRow
from guardfleet.settings.groups import CacheSettings
from guardfleet.store import verdicts
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards.leases import Claim
from guardfleet.telemetry import metrics, tracing
from worker.engine.interfaces import Engine
from worker.engine.prompting.windows import Coverage
from worker.moderation import lookup
from worker.moderation.interpretation import judgement_of, settle, triage
from worker.moderation.single_flight import Key, Scope
from worker.moderation.throughput import Throughput


@dataclass(frozen=True)
class Judge:
    """Judges with one model. Called from all task threads of the process."""

    db: Database
    engine: Engine
    cache: CacheSettings
    model_id: int
    throughput: Throughput = field(default_factory=Throughput)

    def judge(self, held: Claim, rows: Sequence[PayloadRow], digests: Sequence[bytes], scope: Scope) -> list[Judgement]:
        """Return a judgement for each row, in order. The scope must stay open until they are committed."""
        found = lookup.hits(self.db, held, rows)
        plan = triage(rows, digests, self._listed(held, found, digests))
        keys = {i: self._key(held, digests[i]) for i in plan.ask}
        theirs = scope.take(keys.values())
        known = self._known(held, [digests[i] for i in plan.ask])
        judged = {i: known[digests[i]] for i in plan.ask if digests[i] in known}
        judged |= self._ask(held, rows, [i for i in plan.ask if i not in judged and keys[i] not in theirs], scope)
        scope.settle({keys[i]: judgement for i, judgement in judged.items()})
        for i in plan.ask:
            if i not in judged and (shared := _shared(theirs[keys[i]], keys[i], held.job_id)):
                judged[i] = shared
        judged |= self._ask(held, rows, [i for i in plan.ask if i not in judged], scope)
        self.throughput.finished(rows)
        return lookup.noted(settle(plan, judged, len(rows)), found)

    def _listed(self, held: Claim, found: Sequence[Hits | None], digests: Sequence[bytes]) -> Mapping[int, Judgement]:
        """Return what lists decide; where a list says `safe` and a model has said otherwise, the model's word stands."""
        decided = {i: hits.judgement() for i, hits in enumerate(found) if hits is not None and hits.severity is not None}
        allowed = [i for i, judgement in decided.items() if judgement.severity is Severity.SAFE]
        known = self._known(held, [digests[i] for i in allowed])
        worse = {i: one for i in allowed if (one := known.get(digests[i])) and one.severity is not Severity.SAFE}
        return decided | worse

    def _known(self, held: Claim, digests: Sequence[bytes]) -> Mapping[bytes, Judgement]:
        max_age_hours = self.cache.hours if held.reuse else 0.0
        return verdicts.known(self.db, digests, held, model_id=self.model_id, max_age_hours=max_age_hours)

    def _ask(self, held: Claim, rows: Sequence[PayloadRow], asked: Sequence[int], scope: Scope) -> dict[int, Judgement]:
        if not asked:
            return {}
        # No timeout here: the engine settles every request, or the watchdog ends the process.
        contents = [rows[i].content for i in asked]
        about = {"gen_ai.operation.name": "chat", "gen_ai.request.model": self.engine.model.name, "guardfleet.texts": len(asked)}
        with tracing.span(f"chat {self.engine.model.name}", about):
            judged = self.engine.submit(contents, urgent=held.lane is Lane.INTERACTIVE, coverage=coverage_of(held)).result()
        spent = judged.timings
        for stage, seconds in (("tokenising", spent.tokenise_s), ("waiting", spent.wait_s), ("device", spent.device_s)):
            metrics.STAGES.labels(stage).inc(seconds)
        metrics.WINDOWS.inc(sum(len(answer.windows) for answer in judged.answers))
        scope.device_s += spent.share_s
        return {i: judgement_of(answer) for i, answer in zip(asked, judged.answers, strict=True)}

    def _key(self, held: Claim, digest: bytes) -> Key:
        """Return what two texts must share to be judged once: the model too, since a process may have two."""
        return digest, self.model_id, held.plan.long_texts, None if held.reuse else held.job_id


def coverage_of(held: Claim) -> Coverage | None:
    """Return how much of long texts the job wants judged; None: the worker's setting applies."""
    return cast("Coverage | None", held.plan.long_texts)


def _shared(owner: Scope, key: Key, job_id: int) -> Judgement | None:
    """Return the judgement of the same text by another task; None if that task got none."""
    judgement = owner.judgement(key)
    if judgement is None or judgement.severity is Severity.ERROR:
        return judgement
    return replace(judgement, served_by=ServedBy.DUPLICATE if owner.job_id == job_id else ServedBy.CACHE)
