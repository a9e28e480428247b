"""A text is cut into what is hit and what is not; documents are compared around their changes."""

from api.console.lines import compared
from api.console.pages.lists.trying import pieces_of
from guardfleet.lists.document import Entry
from guardfleet.lists.matching import Hit


def test_overlapping_hits_are_cut_where_they_begin_and_end() -> None:
    entry = Entry(value="x")
    hits = [Hit("l@1", entry, 1, 4), Hit("l@1", entry, 2, 6), Hit("l@1", entry, 6, 7)]
    assert [tuple(piece) for piece in pieces_of("abcdefgh", hits)] == [
        ("a", 0), ("b", 1), ("cd", 2), ("ef", 1), ("g", 1), ("h", 0),
    ]  # fmt: skip
    assert [tuple(piece) for piece in pieces_of("abc", [])] == [("abc", 0)]
    assert list(pieces_of("", [])) == []


def test_a_comparison_shows_changes_with_a_few_lines_around_them() -> None:
    old = "\n".join(f"line {i}" for i in range(1, 31))
    lines = compared(old, old.replace("line 20", "new 20").replace("line 30", "line 30\nline 31"))
    assert [one.sign for one in lines] == ["…", *"   -+   ", "…", *"   +"]
    assert (lines[4], lines[5]) == (("-", 20, None, "line 20"), ("+", None, 20, "new 20"))
    assert compared(old, old) == []
    assert [one.sign for one in compared("a\nb", "a\nc")] == [" ", "-", "+"]
