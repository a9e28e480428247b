"""Samples: probabilities are what they say, estimates are unbiased, intervals hold the truth; and a planted bias is found."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardfleet.domain.designs import DESIGNS, MOST_SEED
from guardfleet.domain.verdict import Severity
from guardfleet.errors import RejectedError
from guardfleet.sampling import designs
from guardfleet.sampling.designs import Draw, Plan, draw, equal, proportional, stratified, systematic
from guardfleet.sampling.estimates import NONE, Weights, ratio, share, weights
from guardfleet.sampling.figures import figures
from guardfleet.sampling.population import LEAST_DOUBT, Population, Strata, completed

SEEDS = 3000
FAR = 5.0  # standard errors: of some hundred numbers that are looked at here, once in 10,000 runs
EACH = [("random",), ("uncertain",), ("disagreement",), ("slice",), DESIGNS]


def population(n: int = 60) -> Population:
    rng = np.random.default_rng(1)
    return Population(
        np.arange(n, dtype=np.int32),
        np.maximum(LEAST_DOUBT, rng.random(n) ** 3),
        Strata(np.where(np.arange(n) % 9, 0, 1), (None, "policies")),
        Strata(np.minimum(3, np.arange(n) // (n // 4 + 4)), ("de", "en", "fr", None)),
    )


def plan(n: int, by: Any, seed: int = 1) -> Plan:
    return Plan.of(n, by, seed, slice_key="lang" if "slice" in by else None)


def inclusion(people: Population, by: Any, n: int) -> tuple[Any, Any]:
    """How often each text was drawn, and the probability that was told of it."""
    counts, told = np.zeros(len(people)), np.full(len(people), np.nan)
    for seed in range(SEEDS):
        drawn = draw(people, plan(n, by, seed))
        counts[drawn.places] += 1
        told[drawn.places] = drawn.probability
    return counts / SEEDS, told


def deviation(frequency: Any, told: Any) -> float:
    """The largest distance between frequency and probability, in standard errors; a text never drawn has none."""
    assert not np.isnan(told).any()
    return float((np.abs(frequency - told) / np.sqrt(np.maximum(told * (1 - told), 1e-12) / SEEDS)).max())


@pytest.mark.parametrize("by", EACH, ids=",".join)
def test_each_text_is_drawn_as_often_as_its_probability_says(by: Any) -> None:
    frequency, told = inclusion(population(), by, 16)
    assert deviation(frequency, told) < FAR
    assert abs(frequency.sum() - told.sum()) < 0.1  # the size is what is expected


def biased(strata: Strata, n: int, rng: np.random.Generator) -> Draw:
    """A draw that prefers the first texts of a stratum, as sorting by a key that is not random would."""
    found = stratified(strata, n, rng)
    favoured = np.zeros(len(strata.codes), bool)
    for code in np.unique(strata.codes):
        here = np.flatnonzero(strata.codes == code)
        favoured[here[: found.taken[here].sum()]] = rng.random() < 0.2
    return Draw(found.probability, np.where(rng.random() < 0.2, favoured, found.taken))


def careless(probability: Any, rng: np.random.Generator) -> Draw:
    """One that draws in proportion and tells the probability of a simple draw."""
    found = systematic(probability, rng)
    return Draw(np.full(len(probability), probability.mean()), found.taken)


@pytest.mark.parametrize(("name", "by", "wrong"), [("stratified", ("slice",), biased), ("systematic", ("uncertain",), careless)])
def test_a_draw_that_does_not_keep_to_its_probabilities_is_found(
    monkeypatch: pytest.MonkeyPatch, name: str, by: Any, wrong: Any
) -> None:
    monkeypatch.setattr(designs, name, wrong)
    frequency, told = inclusion(population(), by, 16)
    assert deviation(frequency, np.nan_to_num(told, nan=0.2)) > FAR


def totals(by: Any, n: int) -> tuple[float, float, float, float]:
    """Of a total that goes with doubt: how far the mean of its Horvitz-Thompson and its Hajek estimates is from it, and errors."""
    people = population()
    values = people.doubt + (people.seqs % 9 == 0)
    each = []
    for seed in range(SEEDS):
        drawn = draw(people, plan(n, by, seed))
        said = values[drawn.places]
        of = weights(np.zeros(len(said), int), drawn.probability, drawn={0: len(said)}, n_texts=len(people))
        each.append(((said / drawn.probability).sum(), (said * of.each).sum()))
    ht, hajek = np.array(each).T
    return ht.mean() - values.sum(), ht.std() / math.sqrt(SEEDS), hajek.mean() - values.sum(), hajek.std() / math.sqrt(SEEDS)


@pytest.mark.parametrize("by", EACH, ids=",".join)
def test_estimates_of_a_total_are_unbiased(by: Any) -> None:
    off, error, hajek_off, hajek_error = totals(by, 24)
    assert abs(off) < FAR * error + 1e-9
    assert abs(hajek_off) < FAR * hajek_error + 0.02 * population().doubt.sum()  # a ratio: biased by the order of 1/n
    naive = np.mean([
        population().doubt[draw(population(), plan(24, by, seed)).places].mean() * 60 for seed in range(200)
    ])  # fmt: skip
    if by == ("uncertain",):  # without its weights the same sample is far off
        assert abs(naive - population().doubt.sum()) > 5


def test_a_total_from_a_biased_draw_is_biased(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(designs, "systematic", careless)
    off, error, *_ = totals(("uncertain",), 24)
    assert abs(off) > FAR * error


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(LEAST_DOUBT, 1), min_size=1, max_size=80), st.data())
def test_proportional_probabilities_are_of_the_unit_and_add_up(sizes: list[float], data: st.DataObject) -> None:
    n = data.draw(st.integers(1, len(sizes)))
    found = proportional(np.array(sizes), n)
    assert ((found > 0) & (found <= 1)).all()
    assert math.isclose(found.sum(), n, rel_tol=1e-9)
    taken = systematic(found, np.random.default_rng(n)).taken
    assert abs(taken.sum() - n) <= 1
    assert taken[found >= 1].all()


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=12).filter(any), st.data())
def test_equal_shares_add_up_and_take_no_more_than_there_is(counts: list[int], data: st.DataObject) -> None:
    there = np.array(counts)
    n = data.draw(st.integers(1, int(there.sum())))
    found = equal(there, n)
    assert found.sum() == n
    assert (found <= there).all()
    whole = found < there  # of two that have more than was taken, neither got two more than the other
    assert not whole.any() or found[whole].max() - found[whole].min() <= 1
    if n >= np.count_nonzero(there):
        assert (found[there > 0] > 0).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 90), st.integers(8, 100), st.sets(st.sampled_from(DESIGNS), min_size=1), st.integers(0, MOST_SEED))
def test_a_sample_has_probabilities_of_the_unit_each_text_once_and_is_repeatable(
    n_texts: int, n: int, by: set[str], seed: int
) -> None:
    people = population(n_texts)
    asked = plan(n, sorted(by), seed)
    try:
        drawn = draw(people, asked)
    except RejectedError as error:
        assert "strata share" in str(error)  # noqa: PT017 - either is right, and never another
        return
    assert len(set(drawn.places.tolist())) == len(drawn.places) <= min(n, n_texts * len(by))
    assert ((drawn.probability > 0) & (drawn.probability <= 1)).all()
    again = draw(people, asked)
    assert (again.places == drawn.places).all()
    assert sum(asked.shares().values()) == n


def test_a_union_is_drawn_with_the_probability_of_any() -> None:
    people = population()
    drawn = draw(people, plan(20, ("random", "uncertain")))
    alone = [1 - 10 / 60, 1 - proportional(people.doubt, 10)[drawn.places]]
    assert np.allclose(drawn.probability, 1 - alone[0] * alone[1])


def test_each_slice_is_represented_and_too_few_are_refused() -> None:
    people = population()
    drawn = draw(people, plan(8, ("slice",)))
    assert people.slices is not None
    assert set(people.slices.codes[drawn.places].tolist()) == set(people.slices.codes.tolist())
    with pytest.raises(RejectedError, match="raise n"):
        draw(people, plan(2, ("slice",)))


def test_what_is_not_known_is_drawn_as_often_as_the_mean() -> None:
    assert completed(np.array([0.2, np.nan, 0.4])).tolist() == pytest.approx([0.2, 0.3, 0.4])
    assert completed(np.array([np.nan])).tolist() == [1.0]


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [(("random", "psychic"), "psychic"), (("slice",), "metadata key"), (DESIGNS[:3], "at least 3")],
)
def test_what_cannot_be_drawn_is_refused(asked: Any, sentence: str) -> None:
    with pytest.raises(RejectedError, match=sentence):
        Plan.of(1 if "least" in sentence else 9, asked, 1, slice_key=None)
    assert Plan.of(9, ("random",), 1, slice_key="lang").by == ("random", "slice")


def world(n: int = 3000) -> tuple[Population, Any, Any]:
    """A population whose verdicts are wrong more often where they are in doubt: what they say, and what is true."""
    rng = np.random.default_rng(5)
    doubt = np.maximum(LEAST_DOUBT, rng.random(n) ** 4)
    said = rng.choice([0, 1, 2, 3], n, p=[0.8, 0.08, 0.1, 0.02])
    true = np.where(rng.random(n) < 0.4 * doubt, rng.choice([0, 1, 2], n), np.minimum(said, 2))
    odd = Strata(np.where(rng.random(n) < 0.05, 1, 0), (None, "policies"))
    return Population(np.arange(n, dtype=np.int32), doubt, odd, Strata(np.arange(n) % 3, ("a", "b", None))), said, true


@pytest.mark.parametrize("by", [("random",), ("uncertain",), ("random", "uncertain", "disagreement", "slice")], ids=",".join)
@pytest.mark.parametrize("answered", [1.0, 0.6], ids=["all labelled", "some labelled"])
def test_intervals_hold_the_truth_about_as_often_as_they_say(by: Any, answered: float) -> None:
    people, said, true = world()
    whole = Weights(np.ones(len(people)), np.zeros(len(people)))
    truth = {reading: figures(said, true, whole, reading=reading) for reading in ("strict", "loose")}
    held: dict[tuple[str, str], list[bool]] = {}
    for seed in range(300):
        drawn = draw(people, plan(400, by, seed))
        at = drawn.places[: round(answered * len(drawn.places))]  # somebody stopped early: the order is random
        of = weights(np.zeros(len(at), int), drawn.probability[: len(at)], drawn={0: len(drawn.places)}, n_texts=len(people))
        for reading, figures_of in truth.items():
            for name, estimate in figures(said[at], true[at], of, reading=reading).items():
                value = figures_of[name]
                assert value is not None
                if estimate is not None:
                    held.setdefault((reading, name), []).append(estimate.low <= value.value <= estimate.high)
    coverage = {key: np.mean(each) for key, each in held.items()}
    assert all(0.9 <= share <= 1.0 for share in coverage.values()), coverage
    assert 0.94 <= np.mean(list(coverage.values())) <= 0.995, coverage


def test_two_samples_of_a_job_estimate_what_each_does_and_no_more() -> None:
    people, _, true = world(600)
    means = []
    for seed in range(400):
        first, second = draw(people, plan(40, ("uncertain",), seed)), draw(people, plan(80, ("random",), 10_000 + seed))
        at = np.concatenate([first.places, second.places])
        of = weights(
            np.repeat([7, 9], [len(first.places), len(second.places)]),
            np.concatenate([first.probability, second.probability]),
            drawn={7: len(first.places), 9: len(second.places)},
            n_texts=600,
        )
        assert math.isclose(of.each.sum(), 600)
        means.append((of.each * (true[at] == Severity.UNSAFE)).sum())
    assert abs(np.mean(means) - (true == Severity.UNSAFE).sum()) < FAR * np.std(means) / math.sqrt(400) + 0.5


def test_what_nobody_labelled_is_none_and_not_0_and_a_census_leaves_nothing_to_chance() -> None:
    yes, no = np.array([True, True]), np.array([False, False])
    some = Weights(np.array([3.0, 5.0]), np.array([0.9, 0.9]))
    assert share(yes, no, some) is None
    assert ratio(np.zeros(0), np.zeros(0), NONE) is None
    found = share(no, yes, some)
    assert found is not None
    assert (found.value, found.low, found.high > 0.5) == (0, 0, True)
    assert share(no, np.array([True, False]), some) == (0, 0, 1)
    census = share(np.array([True, False]), yes, Weights(np.ones(2), np.zeros(2)))
    assert census == (0.5, 0.5, 0.5)


def test_a_text_without_a_verdict_is_wrong_whatever_its_label() -> None:
    of = Weights(np.ones(4), np.full(4, 0.9))
    said, true = np.array([2, 3, 0, 3]), np.array([2, 2, 0, 0])
    found = figures(said, true, of, reading="loose")
    assert {name: one and one.value for name, one in found.items()} == {
        "precision": 0.5, "recall": 0.5, "f1": 0.5, "false_positive_rate": 0.5,
    }  # fmt: skip
