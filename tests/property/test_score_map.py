"""Maps of scores keep flag rates: of texts they were fitted on, of others within a point, and they never reverse an order."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardfleet.domain.score_map import ScoreMap, kept

SCORES = st.floats(0, 1, allow_nan=False)
PAIRS = st.lists(st.tuples(SCORES, SCORES), min_size=1, max_size=60)


@given(PAIRS, SCORES, SCORES)
def test_a_map_never_reverses_an_order(pairs: list[tuple[float, float]], one: float, other: float) -> None:
    mapped = ScoreMap.fit(*zip(*pairs, strict=True))
    low, high = sorted((one, other))
    assert 0 <= mapped(low) <= mapped(high) <= 1


@given(st.lists(SCORES, min_size=1, max_size=60, unique=True), st.data())
def test_a_flag_rate_is_kept_exactly_where_no_scores_are_equal(scores: list[float], data: st.DataObject) -> None:
    others = data.draw(st.lists(SCORES, min_size=len(scores), max_size=len(scores)))
    mapped = ScoreMap.fit(scores, others)
    for threshold in (*others, 0.5):
        assert sum(mapped(score) >= threshold for score in scores) == sum(other >= threshold for other in others)


@given(st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.9]), min_size=1, max_size=60), st.data())
def test_equal_scores_cost_at_most_half_of_their_share(scores: list[float], data: st.DataObject) -> None:
    others = data.draw(st.lists(SCORES, min_size=len(scores), max_size=len(scores)))
    mapped = ScoreMap.fit(scores, others)
    most = max(scores.count(score) for score in scores)
    for threshold in (*others, 0.5):
        off = sum(mapped(score) >= threshold for score in scores) - sum(other >= threshold for other in others)
        assert abs(off) <= (most + 1) // 2


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9])
def test_the_flag_rate_of_2000_invented_scores_is_kept_within_a_point_on_unseen_texts(threshold: float) -> None:
    some = random.Random(7)
    scores = [round(some.betavariate(0.3, 1.2), 3) for _ in range(2000)]
    others = [min(1.0, max(0.0, 0.05 + 0.9 * score**0.6 + some.gauss(0, 0.05))) for score in scores]
    found = kept(scores, others, threshold)
    assert found.before > 0.01  # else nothing is at stake
    assert abs(found.difference) < 0.01
    assert found.same > 0.95
    assert 0 < found.error < 0.01


@pytest.mark.parametrize("knots", [(), ((0.5, 0.2), (0.4, 0.3)), ((0.1, 0.5), (0.2, 0.4)), ((0.1, 1.5),), ((float("nan"), 0.1),)])
def test_what_is_no_map_is_refused(knots: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(ValueError, match="score map"):
        ScoreMap(knots)
