"""The values of a statement arrive unchanged, whatever the wire format."""

import pytest
from psycopg.rows import scalar_row

from guardfleet.errors import StatementError
from guardfleet.store import migrate
from guardfleet.store.postgres.database import Database

VALUES = [
    "true",
    "7::int2",
    "7::int8",
    "0.1::float8",
    "12.50::numeric",
    "extract(epoch from interval '90 s')",
    "'a'::text",
    "'a'::name",
    "'\\x00ff'::bytea",
    "'0190b6f6-9e2b-7c3a-8f0e-2a4b6c8d0e1f'::uuid",
    "'2026-11-30'::date",
    "'2026-11-30 12:00:00.123456+02'::timestamptz",
    "interval '1 day 2 s'",
    "'10.1.2.3'::inet",
    '\'{"a": [1, null, "b"], "c": 1.5}\'::jsonb',
    "array[1, null, 3]::int2[]",
    "array['a', 'b']",
    "array['\\x01'::bytea]",
    "null::text",
]


@pytest.mark.parametrize("value", VALUES)
def test_a_value_is_the_same_in_binary_as_in_text(db: Database, value: str) -> None:
    with db.session() as connection:
        ours = connection.scalar(f"select {value}")
        theirs = connection.cursor(row_factory=scalar_row).execute(f"select {value}", binary=False).fetchone()
    assert (ours, type(ours)) == (theirs, type(theirs))


def test_rows_have_the_names_of_their_columns_and_no_two_of_one(db: Database) -> None:
    with db.session() as connection:
        row = connection.execute("select 1 as one, %(two)s::int as two", {"two": 2}).fetchone()
        assert (row.one, row.two) == row == (1, 2)
    with pytest.raises(StatementError), db.session() as connection:
        connection.execute("select 1 as one, 2 as one")


def test_a_value_of_no_row_is_none(db: Database) -> None:
    with db.session() as connection:
        assert connection.scalar("select 1 where false") is None
        assert connection.scalars("select i from generate_series(1, 3) i") == [1, 2, 3]


def test_of_several_statements_in_one_string_it_has_to_be_said(db: Database) -> None:
    several = "create temporary table a (i int); create temporary table b (i int)"
    with pytest.raises(StatementError), db.begin() as connection:
        connection.execute(several)
    with db.begin() as connection:
        connection.cursor().execute(several, binary=False)


def test_a_migration_that_fails_says_so_as_any_statement(empty_database_url: str) -> None:
    db = Database(empty_database_url, pool_size=1)
    with db.begin() as connection:
        connection.execute("create table job (kept int)")
    with pytest.raises(StatementError) as caught:
        migrate.upgrade(db)
    assert caught.value.sqlstate == "42P07"
    assert migrate.current(db) is None
    db.close()


def test_no_statement_is_compiled_by_the_server_whatever_the_url_says(database_url: str) -> None:
    db = Database(f"{database_url}?options=-c%20jit%3Don")
    try:
        with db.session() as connection:
            assert connection.scalar("show jit") == "off"
    finally:
        db.close()
