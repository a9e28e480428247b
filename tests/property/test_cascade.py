"""Which rows a second model judges: every unsure one, a steady share of the others, the same ones in every process."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from guardfleet.domain.cascade import compare, doubts_of, is_sure
from guardfleet.domain.plan import Escalation, Plan
from guardfleet.domain.verdict import Judgement, ServedBy
from guardfleet.store.shards.handoff import Provisional
from tests.services.judged import answered, any_judgement

judgements = st.randoms(use_true_random=False).map(any_judgement)
plans = st.builds(Plan, st.none(), st.just("large"), st.floats(0.01, 1), st.floats(0, 1))


def digests(n: int) -> list[bytes]:
    return [hashlib.sha256(str(i).encode()).digest()[:16] for i in range(n)]


@given(plans, st.lists(judgements, max_size=40))
def test_every_row_is_sure_or_asked_and_the_sample_is_of_the_sure(plan: Plan, first: list[Judgement]) -> None:
    doubts = doubts_of(plan, first, digests(len(first)))
    assert set(doubts.unsure) == {i for i, judgement in enumerate(first) if not is_sure(judgement, plan.sure)}
    assert not set(doubts.unsure) & set(doubts.sampled)
    assert doubts.asked == sorted(set(doubts.asked))
    assert doubts == doubts_of(plan, first, digests(len(first)))
    assert all(first[i].served_by is not ServedBy.RULE_EMPTY for i in doubts.asked)
    assert doubts_of(Plan(), first, digests(len(first))).asked == []


@given(plans, st.lists(judgements, max_size=20), st.data())
def test_agreement_counts_equal_severities_of_the_sample(plan: Plan, first: list[Judgement], data: st.DataObject) -> None:
    doubts = doubts_of(plan, first, digests(len(first)))
    second = {i: data.draw(judgements) for i in doubts.asked}
    found = compare(doubts, first, second)
    assert (found.escalated, found.sampled) == (len(doubts.unsure), len(doubts.sampled))
    assert 0 <= found.agreed <= found.sampled
    assert compare(doubts, first, dict(enumerate(first))) == Escalation(found.escalated, found.sampled, found.sampled)


def test_the_sample_is_the_share_asked_for() -> None:
    sure = [answered("Safety: Safe\nCategories: None", (0.99, 0.005, 0.005))] * 20_000
    n = len(doubts_of(Plan(None, "large", 0.9, 0.05), sure, digests(len(sure))).sampled)
    assert 850 < n < 1150  # 1,000 expected, standard deviation 31


@given(st.lists(judgements, max_size=10))
def test_an_opinion_survives_its_sealing(said: list[Judgement]) -> None:
    import json

    from guardfleet.verdicts.encoding import of_plain, to_plain

    back = [of_plain(values) for values in json.loads(json.dumps([to_plain(judgement) for judgement in said]))]
    assert Provisional(1, back) == Provisional(1, said)
