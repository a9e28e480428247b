"""A judge's turn at a shard: what it is asked about, and all that was said of the shard once it has answered."""

from dataclasses import dataclass, replace

from guardfleet.domain.cascade import Doubts, compare, compare_detections, detector_doubts_of, doubts_of
from guardfleet.domain.detection import Detection, are_alike, detector_of, failed, policy_of
from guardfleet.domain.verdict import GUARD, Model
from guardfleet.store import models
from guardfleet.store.policy import prompt_policies
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards.handoff import Provisional, Said
from worker.engine.prompting.prompt_policy import PromptPolicy
from worker.moderation.comparing import Heard
from worker.moderation.judge import Judge
from worker.moderation.outcome import Loaded
from worker.moderation.single_flight import Scope


@dataclass(frozen=True, slots=True)
class Turn:
    """The turn of `judge` at a shard. The scope must stay open until what it said is committed."""

    db: Database
    judge: Judge
    shard: Loaded
    scope: Scope

    def take(self) -> tuple[Provisional, Heard]:
        """Return all that was said of the shard so far, and what this judge said."""
        first = self.shard.first
        if self.judge.detector == GUARD:
            return self._guards() if first is None else self._second_guards(first)
        so_far = Provisional(None, [], is_settled=True) if first is None else first
        return self._detectors(so_far) if all(one.is_settled for one in so_far.said) else self._second_detectors(so_far)

    def _guards(self) -> tuple[Provisional, Heard]:
        """Return the guard's verdicts, not settled if the second model has to look at some of them."""
        held, digests = self.shard.held, self.shard.digests
        judgements = self.judge.judge(held, self.shard.texts, digests, self.scope)
        is_sure = not doubts_of(held.plan, judgements, digests).asked
        return Provisional(self.judge.model_id, judgements, is_settled=is_sure), dict(enumerate(judgements))

    def _second_guards(self, first: Provisional) -> tuple[Provisional, Heard]:
        """Judge what the first model was unsure of, and the sample; for all but the unsure texts the first verdict stands."""
        held, texts, digests = self.shard.held, self.shard.texts, self.shard.digests
        doubts = doubts_of(held.plan, first.judgements, digests)
        asked = doubts.asked
        judged = self.judge.judge(held, [texts[i] for i in asked], [digests[i] for i in asked], self.scope)
        second = dict(zip(asked, judged, strict=True))
        unsure = set(doubts.unsure)
        judgements = [second[i] if i in unsure else one for i, one in enumerate(first.judgements)]
        by_model = {i: first.model_id for i in range(len(texts)) if i not in unsure and first.model_id is not None}
        counts = compare(doubts, first.judgements, second)
        return Provisional(self.judge.model_id, judgements, is_settled=True, models=by_model, escalation=counts), second

    def _detectors(self, so_far: Provisional) -> tuple[Provisional, Heard]:
        """Add what the detector says by each policy that the job names for it, not settled if a second one has to look at it.

        Heard is what it says if it is asked without a policy alone: models are compared by nothing else.
        """
        plan = self.shard.held.plan
        entries = [(place, entry) for place, entry in plan.others if detector_of(entry) == self.judge.detector]
        everything = list(range(len(self.shard.texts)))
        said = []
        for place, entry in entries:
            model_id, found = self._said(entry, everything)
            doubts = detector_doubts_of(plan, plan.cascade_of(entry), found, self.judge.model, self.shard.digests)
            said.append(Said(place, model_id, found, is_settled=not doubts.asked))
        is_plain = len(entries) == 1 and policy_of(entries[0][1]) is None
        heard = dict(enumerate(said[0].detections)) if is_plain else {}
        return replace(so_far, said=[*so_far.said, *said]), heard

    def _second_detectors(self, so_far: Provisional) -> tuple[Provisional, Heard]:
        """Have the second detector say what the first was unsure of, and the sample: as `_second_guards`, by each policy."""
        open_ones = [one for one in so_far.said if not one.is_settled]
        by_id = models.by_id(self.db, [one.model_id for one in open_ones])
        entries = [self.shard.held.plan.detectors[one.place] for one in open_ones]
        settled = [self._settled(one, entry, by_id[one.model_id]) for one, entry in zip(open_ones, entries, strict=True)]
        by_place = {said.place: said for said, _ in settled}
        is_plain = len(entries) == 1 and policy_of(entries[0]) is None
        return replace(so_far, said=[by_place.get(one.place, one) for one in so_far.said]), settled[0][1] if is_plain else {}

    def _settled(self, first: Said, entry: str, model: Model) -> tuple[Said, dict[int, Detection]]:
        """Return what stands of an entry, and what the second detector said of the texts that it was asked about."""
        plan = self.shard.held.plan
        doubts = detector_doubts_of(plan, plan.cascade_of(entry), first.detections, model, self.shard.digests)
        model_id, judged = self._said(entry, doubts.asked)
        second = dict(zip(doubts.asked, judged, strict=True))
        counts = compare_detections(doubts, first.detections, second)
        decided = self._decided(doubts, second, model)
        found = [decided.get(i, one) for i, one in enumerate(first.detections)]
        return Said(first.place, first.model_id, found, others=dict.fromkeys(decided, model_id), escalation=counts), second

    def _decided(self, doubts: Doubts, second: dict[int, Detection], first: Model) -> dict[int, Detection]:
        """Return the second detector's word on the unsure texts; an error if its labels are not the first one's."""
        if are_alike(first, self.judge.model):
            return {i: second[i] for i in doubts.unsure}
        detail = f"{', '.join(self.judge.model.labels)} instead of {', '.join(first.labels)}"
        return dict.fromkeys(doubts.unsure, failed("other_labels", detail))

    def _said(self, entry: str, asked: list[int]) -> tuple[int, list[Detection]]:
        """Return what the judge says of these texts by the policy that the entry names, or by none, and the id of its model."""
        shard, label, own = self.shard, policy_of(entry), self.scope.beside()
        policy = None if label is None else PromptPolicy.of(prompt_policies.text_of(self.db, shard.held.tenant_id, label))
        found = self.judge.detect(shard.held, [shard.texts[i] for i in asked], [shard.digests[i] for i in asked], own, policy)
        self.scope.device_s += own.device_s
        return self.judge.model_id_under(policy), found
