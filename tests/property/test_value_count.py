"""Values of a JSON body, counted in whatever chunks it arrives."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.body.value_count import MOST_VALUES, Values
from api.http.problems import ProblemError

TEXTS = st.text(st.sampled_from('a,[{"\\}] \n漢'), max_size=8)
JSON = st.recursive(
    st.none() | st.integers() | TEXTS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4)
)


def counted(value: Any) -> int:
    """Values, an empty list or object being two."""
    inner = list(value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())
    return 1 + (not inner and isinstance(value, list | dict)) + sum(map(counted, inner))


def fits(body: bytes, cuts: list[int], n_before: int) -> bool:
    values = Values()
    try:
        values.count(b"," * n_before)
        for begin, end in zip([0, *cuts], [*cuts, len(body)], strict=True):
            values.count(body[begin:end])
    except ProblemError as error:
        return error.code != "too_many_values"
    return True


@given(JSON, st.booleans(), st.data())
def test_so_many_values_are_taken_and_no_more_however_they_come(value: Any, is_ascii: bool, data: st.DataObject) -> None:
    body = json.dumps(value, ensure_ascii=is_ascii).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=6)))
    room = MOST_VALUES - counted(value)
    assert fits(body, cuts, room)
    assert not fits(body, cuts, room + 1)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_no_other_encoding_hides_values(encoding: str) -> None:
    with pytest.raises(ProblemError) as refused:
        Values().count("[1, 2]".encode(encoding))
    assert refused.value.code == "invalid_json"
