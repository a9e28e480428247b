"""Which connections are lent again, and which are not."""

import contextlib
import threading
from typing import Any

import psycopg
import pytest

from guardfleet.errors import AwayError
from guardfleet.store.postgres import pool as pools
from guardfleet.store.postgres.database import Connection, Database

PID = "select pg_backend_pid()"


def pid(db: Database) -> int:
    with db.session() as connection:
        return connection.scalar(PID)


def lent(db: Database, n: int) -> list[int]:
    """Servers' processes behind so many connections, lent at once."""
    with contextlib.ExitStack() as held:
        return [held.enter_context(db.session()).scalar(PID) for _ in range(n)]


def test_what_a_url_asks_for_stands_behind_what_a_process_needs(database_url: str) -> None:
    more = "&" if "?" in database_url else "?"
    options = "-c%20statement_timeout%3D1%20-c%20work_mem%3D7MB"
    url = f"{database_url}{more}options={options}&application_name=mine&target_session_attrs=read-write"
    with contextlib.closing(Database(url, application="ours", pool_size=1)) as db, db.session() as connection:
        found = [connection.scalar(f"show {name}") for name in ("statement_timeout", "application_name", "timezone", "work_mem")]
    assert found == ["1min", "ours", "UTC", "7MB"]


def test_the_last_used_is_lent_first(db: Database) -> None:
    pids = lent(db, 3)
    assert pid(db) == pid(db) == pids[0]  # the first lent came back last
    assert sorted(lent(db, 3)) == sorted(pids)


def test_no_more_are_kept_than_the_pool_s_size_nor_lent_than_its_room(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "WAIT_S", 0.05)
    with contextlib.closing(Database(database_url, pool_size=1)) as db:
        pids = lent(db, 1 + pools.OVERFLOW)
        assert len(set(pids)) == 1 + pools.OVERFLOW
        assert len({*pids, *lent(db, 2)}) == len(pids) + 1  # one was kept
        with pytest.raises(AwayError, match="no connection of the pool became free within"):
            lent(db, 2 + pools.OVERFLOW)
        assert len(lent(db, 1 + pools.OVERFLOW)) == 1 + pools.OVERFLOW  # whoever was refused holds none


def test_a_waiting_caller_gets_the_connection_that_comes_back(database_url: str) -> None:
    with contextlib.closing(Database(database_url, pool_size=1)) as db, contextlib.ExitStack() as held:
        for _ in range(1 + pools.OVERFLOW):
            held.enter_context(db.session())
        found: list[int] = []
        waiting = threading.Thread(target=lambda: found.append(pid(db)))
        waiting.start()
        held.close()
        waiting.join(pools.WAIT_S)
        assert len(found) == 1


def test_after_an_error_that_leaves_older_connections_are_left_too(db: Database) -> None:
    pids = lent(db, 3)
    with pytest.raises(AwayError), db.session() as connection:
        connection.execute("do $$ begin raise exception using errcode = '25006'; end $$")
    after = lent(db, 3)
    assert not {*pids} & {*after}
    with pytest.raises(AwayError), db.begin() as connection:
        connection.execute("do $$ begin raise exception using errcode = '55P03'; end $$")
    assert {*lent(db, 3)} == {*after}  # one that leaves nothing


def test_a_late_error_of_an_old_connection_leaves_no_younger_one(db: Database) -> None:
    with contextlib.suppress(AwayError), db.session() as old:
        old.execute(PID)
        with contextlib.suppress(AwayError), db.session() as other:
            other.execute("do $$ begin raise exception using errcode = '57P01'; end $$")
        young = pid(db)
        old.execute("do $$ begin raise exception using errcode = '57P01'; end $$")
    assert pid(db) == young


def test_a_connection_that_was_closed_meanwhile_or_left_in_a_transaction_is_not_lent_again(db: Database) -> None:
    with db.session() as connection:
        gone = connection.scalar(PID)
        connection.close()
    with db.session() as connection:
        begun = connection.scalar(PID)
        connection.execute("begin")
    assert len({gone, begun, pid(db)}) == 3


def test_a_connection_that_the_server_has_ended_is_noticed(db: Database, database_url: str) -> None:
    ended = pid(db)
    with psycopg.connect(database_url, autocommit=True) as other:
        other.execute("select pg_terminate_backend(%s, 5000)", (ended,))
    assert pid(db) != ended


def test_one_that_rested_is_asked_and_an_old_one_made_anew(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pid(db)
    monkeypatch.setattr(pools, "IDLE_S", -1.0)
    assert pid(db) == first
    monkeypatch.setattr(pools, "AGE_S", 0.0)
    assert pid(db) != first


def test_a_closed_pool_closes_what_comes_back_and_can_be_used_again(db: Database) -> None:
    with db.session() as connection:
        db.close()
        db.close()
        assert connection.scalar("select 1") == 1
    assert connection.closed
    assert pid(db)
    assert db.wrong() is None


def test_one_that_was_being_made_when_the_pool_was_closed_is_not_kept(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    db = Database(database_url)
    made = Connection.connect

    def slowly(*args: Any, **kwargs: Any) -> Connection:
        connection = made(*args, **kwargs)
        db.close()  # meanwhile, by another thread
        return connection

    monkeypatch.setattr(Connection, "connect", slowly)
    with db.session() as connection:
        assert connection.scalar("select 1") == 1
    assert connection.closed


def test_a_ping_gives_up_the_connection_to_a_server_that_takes_no_writes(db: Database) -> None:
    with db.session() as connection:
        before = connection.scalar(PID)
        connection.execute("set default_transaction_read_only = on")
    assert "takes no writes" in str(db.wrong())
    assert db.wrong() is None
    assert pid(db) != before
