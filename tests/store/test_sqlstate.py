"""PostgreSQL's errors, by SQLSTATE: retried or not, the same on every path, and never with the values that were sent."""

import traceback
from collections.abc import Callable

import pytest

from guardfleet.errors import AwayError, GuardfleetError, StatementError
from guardfleet.store.postgres.database import Connection, Database, copy_rows
from guardfleet.store.postgres.sqlstate import MEANINGS
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


def by_execute(connection: Connection, statement: str) -> None:
    connection.execute(statement)


def by_scalar(connection: Connection, statement: str) -> None:
    connection.scalar(statement, {})


def by_copy(connection: Connection, statement: str) -> None:
    """A COPY whose row a trigger refuses."""
    body = statement.removeprefix("do $$ begin ").removesuffix(" end $$")
    connection.execute("create temporary table refused (a text)")
    connection.execute(f"create function pg_temp.refuse() returns trigger language plpgsql as $f$ begin {body} return new; end $f$")
    connection.execute("create trigger t before insert on refused execute function pg_temp.refuse()")
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


@pytest.mark.parametrize("path", [by_execute, by_scalar, by_copy])
def test_a_state_means_the_same_on_every_path(db: Database, path: Callable[[Connection, str], None]) -> None:
    for sqlstate in (*WAITED, *REFUSED):
        error = refused(db, path, raising(sqlstate))
        assert type(error) is (AwayError if sqlstate in WAITED else StatementError), sqlstate
        assert isinstance(error, AwayError) or error.sqlstate == sqlstate  # type: ignore[attr-defined]
        assert CANARY not in "".join(traceback.format_exception(error))
        with db.begin() as connection:  # the pool gives out what works
            assert connection.scalar("select 1") == 1


def test_every_meaning_is_tried() -> None:
    tried = {*WAITED, *REFUSED}
    assert all(any(code.startswith(known) for code in tried) for known in MEANINGS)


@pytest.mark.parametrize("transaction", [True, False])
def test_a_read_only_server_is_waited_for_and_its_connections_are_left(db: Database, transaction: bool) -> None:
    with db.begin() as connection:
        before = connection.scalar("select pg_backend_pid()")
        name = connection.scalar("select current_database()")
    with db.session() as connection:
        connection.execute(f'alter database "{name}" set default_transaction_read_only = on')
    db.close()
    for path in (by_execute, by_scalar):
        error = refused(db, path, "delete from outbox returning id", transaction=transaction)
        assert isinstance(error, AwayError)
        assert "read-only" in str(error)
    assert "read-only" in str(db.wrong())
    with db.session() as connection:  # a connection that was made meanwhile
        connection.execute("set default_transaction_read_only = off")
        connection.execute(f'alter database "{name}" reset default_transaction_read_only')
    refused(db, by_scalar, raising("25006"))
    assert db.wrong() is None
    with db.begin() as connection:
        assert connection.scalar("select pg_backend_pid()") != before


def test_what_the_driver_refuses_itself_is_no_outage(db: Database) -> None:
    with pytest.raises(StatementError) as caught, db.begin() as connection:
        connection.execute("select %(a)s::text", {"a": f"{CANARY}\0"})
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("path", [by_execute, by_scalar])
def test_a_server_that_falls_silent_is_away(
    database_url: str, path: Callable[[Connection, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with in_front_of(database_url) as (proxy, through):
        db = Database(through)
        db.ping()
        monkeypatch.setattr(Connection, "answer_s", 0.3)
        proxy.freeze()
        with pytest.raises(AwayError, match="cannot be reached"), db.begin() as connection:
            path(connection, "select 1")
        proxy.cut()
        monkeypatch.undo()
        db.ping()
        db.close()
