"""Statements speak in words: none says a state, a lane or a severity by its number."""

import ast
import pathlib
import re
from collections.abc import Iterator

import pytest

from guardfleet.store import words

ROOT = pathlib.Path(__file__).parents[2]
MODULES = [path for part in ("guardfleet", "worker", "producer", "api") for path in sorted((ROOT / part).rglob("*.py"))]
RAW = re.compile(
    r"\b(state|lane|status|severity|served_by|ends_as)\b\s*(=|<>|<=?|>=?|in|not in|between|not between|when)\s*\(?\s*\d",
    re.IGNORECASE,
)


def strings(module: ast.Module) -> Iterator[str]:
    """Each string and f-string, `{}` for what is put into it; docstrings left out."""
    told = {id(node.value) for node in ast.walk(module) if isinstance(node, ast.Expr)}
    for node in ast.walk(module):
        if isinstance(node, ast.JoinedStr):
            told |= {id(part) for part in node.values}
            yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            yield node.value


def raw_numbers(source: str) -> list[str]:
    return [found[0] for text in strings(ast.parse(source)) for found in RAW.finditer(text)]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_statement_says_a_state_by_its_number(path: pathlib.Path) -> None:
    assert raw_numbers(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "sql = 'select from job where state = 1'",
        "sql = f'''update {table} set state\n = 2'''",
        "sql = 'j.state in (0, 1)'",
        "sql = 'severity < 3'",
        "sql = 'case state when 6 then 1 end'",
    ],
)
def test_numbers_would_be_found(source: str) -> None:
    assert raw_numbers(source)


def test_a_word_is_a_condition_of_a_table_or_of_an_alias() -> None:
    assert f"{words.OPEN_JOB}" == "state in (0, 1)"
    assert f"{words.LEASED_SHARD:s}" == "s.state = 1"
