"""Windows over long texts: nothing is lost, and a passage shorter than the overlap is never split."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from worker.engine.prompting.windows import covered, cut, gaps

# Tokens as byte-level tokenizers report them: a character may be several tokens, characters may lie between two tokens.
TOKENS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6)), min_size=1, max_size=400)


def offsets_of(tokens: list[tuple[int, int]]) -> tuple[list[tuple[int, int]], int]:
    offsets, at = [], 0
    for gap, length in tokens:
        at += gap
        offsets.append((at, at + max(1, length)))
        at += length
    return offsets, max(end for _, end in offsets) + tokens[0][0]


@given(TOKENS, st.integers(2, 60), st.data())
def test_every_character_lies_in_some_window(tokens: list[tuple[int, int]], size: int, data: st.DataObject) -> None:
    offsets, n_chars = offsets_of(tokens)
    overlap = data.draw(st.integers(1, size - 1))
    spans = cut(offsets, n_chars, size=size, overlap=overlap)
    assert set().union(*(range(a, b) for a, b in spans)) == set(range(n_chars))
    assert gaps(spans, n_chars) == []
    assert spans == sorted(spans)


@given(st.integers(1, 400), st.integers(2, 60), st.data())
def test_what_is_no_longer_than_the_overlap_lies_whole_in_one_window(n: int, size: int, data: st.DataObject) -> None:
    offsets = [(i, i + 1) for i in range(n)]
    overlap = data.draw(st.integers(1, size - 1))
    spans = cut(offsets, n, size=size, overlap=overlap)
    start = data.draw(st.integers(0, n - 1))
    end = min(n, start + overlap)
    assert any(a <= start and end <= b for a, b in spans)
    assert all(b - a <= size for a, b in spans)


@given(st.integers(2, 600), st.integers(2, 60), st.data())
def test_windows_are_as_few_as_can_be_and_share_about_the_same(n: int, size: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(1, size - 1))
    spans = cut([(i, i + 1) for i in range(n)], n, size=size, overlap=overlap)
    shared = [before[1] - after[0] for before, after in itertools.pairwise(spans)]
    assert all(overlap <= tokens < size for tokens in shared)
    assert len(spans) == 1 or max(shared) - min(shared) <= 1
    fewer = len(spans) - 1
    assert fewer == 0 or size + (fewer - 1) * (size - overlap) < n  # with one less, some would share too little


@given(st.integers(1, 400), st.integers(2, 60), st.sampled_from(["head", "tail", "ends"]))
def test_what_was_not_asked_for_is_named(n: int, size: int, coverage: str) -> None:
    spans = covered(cut([(i, i + 1) for i in range(n)], n, size=size, overlap=1), coverage)  # type: ignore[arg-type]
    judged = set().union(*(range(a, b) for a, b in spans))
    left_out = set().union(*(range(a, b) for a, b in gaps(spans, n)), ())
    assert judged | left_out == set(range(n))
    assert not judged & left_out
    assert (0 in judged) == (coverage != "tail" or n <= size)
