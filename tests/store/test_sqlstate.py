"""What PostgreSQL refuses, by SQLSTATE: waited for or not, the same on every path, and never with the values that were sent."""

import traceback
from collections.abc import Callable

import pytest
from sqlalchemy import Connection

from guardfleet.errors import AwayError, GuardfleetError, StatementError
from guardfleet.store import database
from guardfleet.store.database import Database, copy_rows, fetch
from guardfleet.store.sqlstate import MEANINGS
from tests.services.proxy import in_front_of

CANARY = "canary-7c1d"
WAITED = [
    "0A000", "08000", "08006", "08P01", "25006", "25P03", "25P04", "26000", "28P01", "3D000", "40001", "40P01", "42P05", "53100",
    "53200", "53300", "55P03", "57014", "57P01", "57P02", "57P03", "57P05", "58030",
]  # fmt: skip
REFUSED = [
    "0A001",
    "22001",
    "22P02",
    "23502",
    "23505",
    "23514",
    "25001",
    "42601",
    "42703",
    "42P01",
    "42501",
    "54001",
    "XX000",
    "P0001",
]


def by_sqlalchemy(connection: Connection, statement: str) -> None:
    connection.exec_driver_sql(statement)


def by_driver(connection: Connection, statement: str) -> None:
    fetch(connection, statement, {}, tuple)


def by_copy(connection: Connection, statement: str) -> None:
    """A COPY whose row a trigger refuses."""
    body = statement.removeprefix("do $$ begin ").removesuffix(" end $$")
    connection.exec_driver_sql("create temporary table refused (a text)")
    connection.exec_driver_sql(
        f"create function pg_temp.refuse() returns trigger language plpgsql as $f$ begin {body} return new; end $f$"
    )
    connection.exec_driver_sql("create trigger t before insert on refused execute function pg_temp.refuse()")
    copy_rows(connection, "refused", {"a": "text"}, [(CANARY,)])


def raising(sqlstate: str) -> str:
    return (
        f"do $$ begin raise exception using errcode = '{sqlstate}', message = 'stopped',"
        f" detail = 'Failing row contains ({CANARY}).'; end $$"
    )


def refused(db: Database, path: Callable[[Connection, str], None], statement: str, *, transaction: bool = True) -> GuardfleetError:
    with pytest.raises(GuardfleetError) as caught, db.begin() if transaction else db.session() as connection:
        path(connection, statement)
    return caught.value


@pytest.mark.parametrize("path", [by_sqlalchemy, by_driver, by_copy])
def test_a_state_means_the_same_on_every_path(db: Database, path: Callable[[Connection, str], None]) -> None:
    for sqlstate in (*WAITED, *REFUSED):
        error = refused(db, path, raising(sqlstate))
        assert type(error) is (AwayError if sqlstate in WAITED else StatementError), sqlstate
        assert isinstance(error, AwayError) or error.sqlstate == sqlstate  # type: ignore[attr-defined]
        assert CANARY not in "".join(traceback.format_exception(error))
        with db.begin() as connection:  # the pool gives out what works
            assert connection.exec_driver_sql("select 1").scalar_one() == 1


def test_every_meaning_is_tried() -> None:
    tried = {*WAITED, *REFUSED}
    assert all(any(code.startswith(known) for code in tried) for known in MEANINGS)


@pytest.mark.parametrize("transaction", [True, False])
def test_a_read_only_server_is_waited_for_and_its_connections_are_left(db: Database, transaction: bool) -> None:
    with db.begin() as connection:
        before = connection.exec_driver_sql("select pg_backend_pid()").scalar_one()
        name = connection.exec_driver_sql("select current_database()").scalar_one()
    with db.session() as connection:
        connection.exec_driver_sql(f'alter database "{name}" set default_transaction_read_only = on')
    db.close()
    for path in (by_sqlalchemy, by_driver):
        error = refused(db, path, "delete from outbox returning id", transaction=transaction)
        assert isinstance(error, AwayError)
        assert "read-only" in str(error)
    assert "read-only" in str(db.wrong())
    with db.session() as connection:  # a connection that was made meanwhile
        connection.exec_driver_sql("set default_transaction_read_only = off")
        connection.exec_driver_sql(f'alter database "{name}" reset default_transaction_read_only')
    refused(db, by_driver, raising("25006"))
    assert db.wrong() is None
    with db.begin() as connection:
        assert connection.exec_driver_sql("select pg_backend_pid()").scalar_one() != before


def test_what_the_driver_refuses_itself_is_no_outage(db: Database) -> None:
    with pytest.raises(StatementError) as caught, db.begin() as connection:
        fetch(connection, "select %(a)s::text", {"a": f"{CANARY}\0"}, tuple)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("path", [by_sqlalchemy, by_driver])
def test_a_server_that_falls_silent_is_away(
    database_url: str, path: Callable[[Connection, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with in_front_of(database_url) as (proxy, through):
        db = Database(through)
        db.ping()
        monkeypatch.setattr(database, "ANSWER_S", 0.3)
        proxy.freeze()
        with pytest.raises(AwayError, match="did not answer"), db.begin() as connection:
            path(connection, "select 1")
        proxy.cut()
        monkeypatch.undo()
        db.ping()
        db.close()
