"""Thresholds and the AUROC are what their definitions say, counted out text by text, with ties and with texts without a score."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardfleet.cli.detector_report import policy_line
from guardfleet.domain.verdict import unrated
from guardfleet.policy.evaluation import Decider
from guardfleet.policy.facts import CodeFacts, Seen
from guardfleet.policy.reading import read
from guardfleet.sampling.estimates import share_of
from guardfleet.sampling.thresholds import DIGITS, FEWEST, auroc, cut_at, needed, reaching, threshold_at, written
from guardfleet.verdicts.encoding import encode

NONE = float("nan")
SCORE = st.one_of(
    st.integers(0, 1000).map(lambda n: n / 1000), st.floats(0, 1), st.sampled_from([0.0, 0.5, 0.9996, 0.9999996, 1.0, NONE])
)
SCORES = st.lists(SCORE, max_size=40)
RATE = st.sampled_from([0.001, 0.01, 0.05, 0.1, 0.25, 0.29, 0.5, 0.9])


def column(scores: list[float]) -> np.ndarray:
    return np.array(scores, np.float64)


def shown(score: float) -> float:
    return round(score, DIGITS)


def flagged(negatives: list[float], threshold: float) -> int:
    return sum(shown(score) >= threshold for score in negatives if not math.isnan(score))


def least_threshold(negatives: list[float], rate: float) -> float | None:
    """Try 0, and each number that is just above a score, from below."""
    scored = [shown(score) for score in negatives if not math.isnan(score)]
    tried = sorted({round(score + 10**-DIGITS, DIGITS) for score in scored})
    kept = (one for one in tried if one <= 1 and flagged(negatives, one) <= rate * len(scored) + 1e-9)
    return next(kept, None)


def n_digits(threshold: float) -> int:
    return len(written(threshold).partition(".")[2])


@given(SCORES, RATE)
def test_a_threshold_flags_what_the_least_does_that_keeps_to_the_rate_in_fewer_digits(negatives: list[float], rate: float) -> None:
    threshold, least = threshold_at(column(negatives), rate), least_threshold(negatives, rate)
    assert (threshold is None) == (least is None)
    if threshold is None or least is None:
        return
    assert least <= threshold <= 1
    assert flagged(negatives, threshold) == flagged(negatives, least)
    for digits in range(FEWEST, n_digits(threshold)):
        shorter = math.ceil(round(least * 10**digits, DIGITS)) / 10**digits
        assert flagged(negatives, shorter) < flagged(negatives, least) or shorter - least > (1 - least) / 2


@given(SCORES, RATE)
def test_a_threshold_is_written_as_what_it_is(negatives: list[float], rate: float) -> None:
    threshold = threshold_at(column(negatives), rate)
    assert threshold is None or float(written(threshold)) == threshold
    assert threshold is None or re.fullmatch(r"[01](\.[0-9]{1,6})?", written(threshold))


LABELS = st.sampled_from(["generated", "human", "no", "null", 'C\u00f4t\u00e9 "x": {', "policy:a", "7"])
NAMES = st.sampled_from(["ai-text", "no", "null", "y", "on"])


@given(SCORES, RATE, LABELS, NAMES)
def test_the_line_for_a_policy_flags_exactly_the_texts_that_were_share_of(
    scores: list[float], rate: float, label: str, detector: str
) -> None:
    cut = cut_at(threshold_at(column(scores), rate), rate, column(scores), column(scores))
    if cut.threshold is None:
        return
    policy = read(f"name: x\ndefault: allow\nrules:\n  - id: r\n    action: flag\n    {policy_line(detector, label, cut)}\n")
    scored = [score for score in scores if not math.isnan(score)]
    seen = [{detector: Seen("some", {label: score, "other": 1 - score})} for score in scored]
    seen += [{detector: Seen("too_short", None)} for score in scores if math.isnan(score)]
    facts = CodeFacts([encode(unrated())] * len(seen), [0] * len(seen), detections=seen)
    flags = int(np.count_nonzero(Decider(policy).outcomes(facts) == 0))
    assert flags == reaching(column(scores), cut.threshold)
    assert cut.false_positive_rate is not None
    assert flags == round(cut.false_positive_rate.value * cut.negatives)
    assert flags <= rate * len(scored) + 1e-9


@given(SCORES, SCORES)
def test_auroc_is_the_share_of_pairs_in_order(positives: list[float], negatives: list[float]) -> None:
    def wins(high: float, low: float) -> float:
        if math.isnan(high) or math.isnan(low):
            return 0.0  # wrong, whichever has no score
        return 0.5 if high == low else float(high > low)

    found = auroc(column(positives), column(negatives))
    pairs = [wins(high, low) for high in positives for low in negatives]
    assert (found is None) == (not pairs)
    assert found is None or found == pytest.approx(sum(pairs) / len(pairs))


@given(SCORES, SCORES, RATE)
def test_what_a_cut_says_can_be_share_of(positives: list[float], negatives: list[float], rate: float) -> None:
    threshold = threshold_at(column(negatives), rate)
    cut = cut_at(threshold, rate, column(positives), column(negatives))
    scored = [score for score in negatives if not math.isnan(score)]
    assert (cut.negatives, cut.positives) == (len(scored), len(positives))
    if threshold is None:
        assert cut.false_positive_rate is cut.true_positive_rate is None
        return
    assert cut.false_positive_rate is not None
    assert cut.false_positive_rate.value == pytest.approx(sum(shown(score) >= threshold for score in scored) / len(scored))
    assert cut.false_positive_rate.value <= rate + 1e-9
    found = sum(shown(score) >= threshold for score in positives if not math.isnan(score))
    assert cut.true_positive_rate is None or cut.true_positive_rate.value == pytest.approx(found / len(positives))
    for one in (cut.false_positive_rate, cut.true_positive_rate):
        assert one is None or 0 <= one.low <= one.value <= one.high <= 1


def test_equal_scores_are_flagged_all_or_none() -> None:
    assert threshold_at(column([0.4] * 100), 0.05) == 0.401
    assert threshold_at(column([0.4] * 4 + [0.2] * 96), 0.05) == 0.201
    assert threshold_at(column([0.4] * 6 + [0.2] * 94), 0.05) == 0.401
    assert auroc(column([0.4] * 9), column([0.4] * 7)) == 0.5


def test_no_number_keeps_to_a_rate_where_too_many_have_the_highest_score() -> None:
    assert threshold_at(column([1.0] * 6 + [0.2] * 94), 0.05) is None
    assert threshold_at(column([0.9999996] * 6 + [0.2] * 94), 0.05) is None  # as a policy compares it, this is 1
    assert threshold_at(column([0.9996] * 6 + [0.2] * 94), 0.05) == 0.9997
    assert threshold_at(column([1.0] * 5 + [0.2] * 95), 0.05) == 0.201


def test_texts_without_a_score_are_no_reason_for_a_higher_threshold_and_none_for_a_lower() -> None:
    scores = [n / 1000 for n in range(100)]
    assert threshold_at(column([*scores, NONE, NONE]), 0.05) == threshold_at(column(scores), 0.05) == 0.095
    assert threshold_at(column([NONE]), 0.05) is threshold_at(column([]), 0.05) is None


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 5.0, NONE])
def test_a_rate_is_between_0_and_1(rate: float) -> None:
    with pytest.raises(ValueError, match="not between 0 and 1"):
        threshold_at(column([0.5]), rate)


def test_three_times_the_inverse_of_a_rate_are_needed_to_speak_of_it() -> None:
    assert [needed(rate) for rate in (0.01, 0.05, 0.1, 0.3, 0.001, 0.07)] == [300, 60, 30, 10, 3000, 43]
    for n, is_telling in ((299, False), (300, True)):
        assert cut_at(0.5, 0.01, column([]), column([0.1] * n)).is_telling is is_telling
        none_found = share_of(0, n)
        assert none_found is not None
        assert none_found.high < 0.013  # and so Wilson's interval, which is a little wider


def test_a_known_interval() -> None:
    found = share_of(10, 100)
    assert found is not None
    assert (round(found.low, 4), round(found.high, 4)) == (0.0552, 0.1744)  # Wilson 1927; R: prop.test(10, 100, correct=FALSE)
    assert share_of(0, 0) is None


def test_a_threshold_is_compared_with_what_is_shown() -> None:
    assert reaching(column([0.9869996, 0.9869994, NONE]), 0.987) == 1


@pytest.mark.parametrize(
    ("score", "above", "threshold"),
    [
        (0.8164, 0.9, "0.817"),  # three digits are enough
        (0.8164, 0.8168, "0.8165"),  # 0.817 would miss the text that may be flagged
        (0.99961, 0.99987, "0.9997"),
        (0.999998, 0.999999, "0.999999"),
        (0.0, 0.000001, "0.000001"),
    ],
)
def test_a_threshold_has_as_many_digits_as_it_takes(score: float, above: float, threshold: str) -> None:
    found = threshold_at(column([above] + [score] * 19), 0.05)
    assert found is not None
    assert written(found) == threshold
