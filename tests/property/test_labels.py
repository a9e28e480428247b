"""Which of several labels counts."""

from hypothesis import given
from hypothesis import strategies as st

from guardfleet.domain.labels import Label, Source, counting
from guardfleet.domain.verdict import Severity

JUDGED = [Severity.SAFE, Severity.CONTROVERSIAL, Severity.UNSAFE]
SOME = st.lists(st.tuples(st.sampled_from(Source), st.sampled_from("abc"), st.sampled_from(JUDGED)), min_size=1, max_size=12)


def labels(said: list[tuple[Source, str, Severity]]) -> list[Label]:
    return [Label(i, source, author, severity) for i, (source, author, severity) in enumerate(said)]


@given(SOME, st.randoms())
def test_the_gravest_source_counts_in_whatever_order_labels_are_read(said: list[tuple[Source, str, Severity]], rng: object) -> None:
    there = labels(said)
    found = counting(there)
    assert found in there
    assert found is not None
    assert found.source is max(source for source, *_ in said)
    shuffled = there[:]
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    assert counting(shuffled) == found
    lower = [Label(100 + i, source, "z", severity) for i, (source, _, severity) in enumerate(said) if source < found.source]
    assert counting([*there, *lower]) == found  # however many and however new
    assert counting([*there, Label(999, Source.APPEAL, "z", Severity.SAFE)]) == Label(999, Source.APPEAL, "z", Severity.SAFE)


@given(SOME)
def test_what_an_author_said_before_does_not_count(said: list[tuple[Source, str, Severity]]) -> None:
    again = [Label(50 + one.id, one.source, one.author, Severity.UNSAFE) for one in labels(said)]
    found = counting([*labels(said), *again])
    assert found is not None
    assert found.severity is Severity.UNSAFE


@given(SOME)
def test_of_one_source_the_most_count_and_of_a_tie_the_graver(said: list[tuple[Source, str, Severity]]) -> None:
    reviewed = labels([(Source.REVIEWER, author, severity) for _, author, severity in said])
    newest = {one.author: one.severity for one in reviewed}
    found = counting(reviewed)
    assert found is not None
    votes = list(newest.values())
    most = max(votes.count(severity) for severity in JUDGED)
    assert found.severity is max(severity for severity in JUDGED if votes.count(severity) == most)


def test_of_appeals_the_newest_decides_whoever_decided_it() -> None:
    three = [(Source.APPEAL, "a", Severity.UNSAFE), (Source.APPEAL, "b", Severity.UNSAFE), (Source.APPEAL, "c", Severity.SAFE)]
    found = counting(labels(three))
    assert found is not None
    assert found.severity is Severity.SAFE
    assert counting([]) is None
