"""Statements use words: none gives a state, a lane or a severity by its number; and they use one dialect."""

import ast
import pathlib
import re
from collections.abc import Iterator

import pytest

from guardfleet.store import words

ROOT = pathlib.Path(__file__).parents[2]
# Alembic brings SQLAlchemy with it; the tables that migrations are compared with are its models.
SPEAK_SQLALCHEMY = ("migrations", "guardfleet/store/schema", "guardfleet/store/migrate.py", "tests/store/test_migrations.py")
RUN = ("execute", "executemany", "scalar", "scalars")  # what runs a statement
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


def imported(module: ast.Module) -> set[str]:
    """Names of the packages that it imports, wherever."""
    nodes = list(ast.walk(module))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return {name.split(".")[0] for name in names | {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}}


def raw_numbers(source: str) -> list[str]:
    return [found[0] for text in strings(ast.parse(source)) for found in RAW.finditer(text)]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_statement_says_a_state_by_its_number(path: pathlib.Path) -> None:
    assert raw_numbers(path.read_text()) == []


def test_psycopg_is_the_one_dialect() -> None:
    rooms = ("guardfleet", "worker", "producer", "api", "tests", "benchmarks", "docs", "examples", "migrations")
    modules = [path for room in rooms for path in (ROOT / room).rglob("*.py")]
    found = [str(path.relative_to(ROOT)) for path in modules if "sqlalchemy" in imported(ast.parse(path.read_text(), path))]
    assert [name for name in found if not name.startswith(SPEAK_SQLALCHEMY)] == []
    assert len(found) > len(SPEAK_SQLALCHEMY)  # the look finds what there is


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


def test_statements_are_run_in_the_store_alone() -> None:
    """But for the benchmarks, which make databases of their own and measure them."""
    places = {
        path.relative_to(ROOT).parent.as_posix()
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in RUN
    }
    inside = {place for place in places if place.startswith("guardfleet/store")}
    assert len(inside) > 4  # the look finds what there is
    assert places - inside == {"guardfleet/cli/bench"}
