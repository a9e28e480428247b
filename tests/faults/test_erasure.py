"""Erasing against what PostgreSQL keeps: a copy that replays the WAL, the planner's statistics, and the bytes in the files."""

import os
import pathlib
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from urllib.parse import urlsplit

import psycopg
import pytest

from guardfleet.domain.targets import Targets
from guardfleet.embedded.ownership import Owner
from guardfleet.errors import RetryableError
from guardfleet.jobs import erase as use_case
from guardfleet.jobs.asked import Asked
from guardfleet.security.encryption import Keyring
from guardfleet.settings import load_settings
from guardfleet.store import installation, migrate
from guardfleet.store.erasure import receipts, rewriting
from guardfleet.store.jobs import views
from guardfleet.store.postgres.database import Connection, Database
from tests.services.commands import said
from tests.services.fixtures import SECRET_KEY
from tests.services.fleet import until
from tests.services.poison import change
from tests.services.remains import in_files, where
from tests.services.servers import OwnPostgres
from tests.store.test_erasure import BY_SUBJECT, MINE, SUBJECT, THEIRS, erase, judged, world

PLAIN = [word.encode() for word in MINE]


@contextmanager
def own(folder: pathlib.Path) -> Iterator[tuple[OwnPostgres, Database]]:
    """A server of the test's own, with the schema."""
    folder.mkdir()
    server = OwnPostgres(folder)
    server.start()
    with closing(Database(server.url)) as db:
        try:
            migrate.upgrade(db)
            yield server, db
        finally:
            server.stop()


@contextmanager
def elsewhere(server: OwnPostgres) -> Iterator[None]:
    """A transaction that has a snapshot, in another database of the server."""
    with psycopg.connect(server.url, autocommit=True) as admin:
        admin.execute("create database elsewhere")
    with psycopg.connect(urlsplit(server.url)._replace(path="/elsewhere").geturl()) as other:
        other.execute("set transaction isolation level repeatable read")
        other.execute("select count(*) from pg_class")
        yield


def backed_up(server: OwnPostgres, db: Database, archive: pathlib.Path, copy: pathlib.Path) -> None:
    """Begin to archive the WAL, and copy the data folder as a base backup does."""
    owner = Owner.here()
    owner.own(archive)
    for setting in ("archive_mode = on", f"archive_command = 'cp %p {archive}/%f'"):
        with psycopg.connect(server.url, autocommit=True) as admin:
            admin.execute(f"alter system set {setting}")
    server.stop()
    server.start()
    with psycopg.connect(server.url, autocommit=True) as admin:
        admin.execute("select pg_backup_start('test', true)")
        shutil.copytree(server._data, copy / "postgres", ignore=shutil.ignore_patterns("postmaster.*", "0000000*", ".s.*"))
        row = admin.execute("select labelfile from pg_backup_stop()").fetchone()
        assert row is not None
        (copy / "postgres" / "backup_label").write_text(row[0])


def replayed(server: OwnPostgres, archive: pathlib.Path, copy: pathlib.Path) -> OwnPostgres:
    """The backup, with all of the WAL until now replayed, as a server of its own."""
    with psycopg.connect(server.url, autocommit=True) as admin:
        (last,) = admin.execute("select pg_walfile_name(pg_switch_wal())").fetchone() or ("",)
        until((archive / last).exists, what="the archive")
    data, owner = copy / "postgres", Owner.here()
    (data / "recovery.signal").touch()
    with (data / "postgresql.auto.conf").open("a") as conf:
        conf.write(f"archive_mode = off\nrestore_command = 'cp {archive}/%f %p'\n")
    for path in (data, *data.rglob("*")):
        os.chown(path, owner.uid, owner.gid, follow_symlinks=False)
    data.chmod(0o700)
    again = OwnPostgres(copy)
    again.start()
    return again


def test_a_copy_that_replays_the_wal_has_nothing_of_the_person(keyring: Keyring, tmp_path: pathlib.Path) -> None:
    archive, copy = tmp_path / "archive", tmp_path / "copy"
    copy.mkdir()
    with own(tmp_path / "first") as (server, db):
        world(db, keyring)
        backed_up(server, db, archive, copy)
        judged(db, keyring)  # what came after the backup is in the WAL alone
        before = where(db, keyring, [*MINE, *THEIRS])
        assert all(before.values())
        erase(db, keyring, BY_SUBJECT)
        here = where(db, keyring, [*MINE, *THEIRS])
        again = replayed(server, archive, copy)
    try:
        with closing(Database(again.url)) as restored:
            there = where(restored, keyring, [*MINE, *THEIRS])
            assert there == here
            assert not any(there[word] for word in MINE)
            assert all(there[word] for word in THEIRS)
            (receipt,) = receipts.page(restored, tenant_id=1, after=None, limit=2)
            assert (receipt.texts, receipt.is_whole) == (14, True)
    finally:
        again.stop()
    assert any(in_files(archive, PLAIN).values())  # what docs/erasure.md says of backups and archives


@pytest.mark.parametrize("how", ["by subject", "as a whole"])
def test_rewriting_leaves_no_byte_in_the_tables_files(keyring: Keyring, tmp_path: pathlib.Path, how: str) -> None:
    """A transaction of another database, from before the erasure, is no reason to keep a row, and is not waited for."""
    with own(tmp_path / "first") as (server, db), elsewhere(server):
        jobs = [judged(db, keyring), judged(db, keyring)]
        blobs = [
            bytes(blob)[:32] for blob in values(db, "select blob from shard_payload where shard_no in (0, 1)")
        ]  # with a text of the person
        change(db, f"insert into rejection values ({jobs[0].id}, 9, 'x', 'y', '{MINE[0]}')")
        with psycopg.connect(server.url, autocommit=True) as admin:
            for table in ("verdict", "rejection"):
                admin.execute(f"analyze {table}")
            admin.execute("checkpoint")
        assert where(db, keyring, MINE)[MINE[0]] >= {"pg_statistic", "verdict", "rejection"}
        words, base = [*PLAIN, *blobs], server._data / "base"
        assert all(in_files(base, words).values())
        if how == "by subject":
            receipt = use_case.erase(db, keyring, Asked(1, BY_SUBJECT | Targets.of([MINE[0]])))
        else:
            for job in jobs:
                receipt = use_case.erase(db, keyring, Asked(1, Targets(), job.label))
        assert receipt.is_whole
        assert not any(where(db, keyring, MINE).values())
        checkpoint(server)
        assert any(in_files(base, words).values())  # old row versions: what docs/erasure.md says of them
        with psycopg.connect(server.url) as old:
            old.execute("begin isolation level repeatable read")
            old.execute("select txid_current()")
            assert rewriting.rewrite(db, 1, [receipt]).tables  # younger than the erasure: it sees none of the old rows
        rewriting.rewrite(db, 1, receipts.unrewritten(db, 1))
        assert receipts.unrewritten(db, 1) == []
        checkpoint(server)
        assert {word: files for word, files in in_files(base, words).items() if files} == {}
        if how == "by subject":
            assert [views.get(db, job.public_id).done for job in jobs] == [7, 7]
            assert all(where(db, keyring, THEIRS).values())


def test_a_transaction_from_before_the_erasure_stops_the_rewriting(keyring: Keyring, tmp_path: pathlib.Path) -> None:
    """VACUUM would keep the old rows for it, and say nothing."""
    with own(tmp_path / "first") as (server, db):
        judged(db, keyring)
        with psycopg.connect(server.url) as old:
            old.execute("set transaction isolation level repeatable read")
            old.execute("select count(*) from verdict")
            receipt = erase(db, keyring, BY_SUBJECT)
            with pytest.raises(RetryableError, match="before the erasure"):
                rewriting.rewrite(db, 1, [receipt])
            assert receipts.unrewritten(db, 1) == [receipt]
        assert rewriting.rewrite(db, 1, [receipt]).tables
        assert receipts.unrewritten(db, 1) == []
        assert rewriting.rewrite(db, 1, [receipt]).tables  # as often as you like


@pytest.mark.parametrize("how", ["by subject", "as a whole"])
def test_a_refused_rewriting_is_done_by_the_same_command(keyring: Keyring, tmp_path: pathlib.Path, how: str) -> None:
    """The erasure has ended, and finds nothing more: what is left to rewrite is kept on its receipt."""
    with own(tmp_path / "first") as (server, db):
        installation.require_key(db, keyring)
        settings = load_settings(database_url=server.url, secret_key=SECRET_KEY, data_dir=tmp_path)
        job = judged(db, keyring)
        named = ("--subject", f"user={SUBJECT}") if how == "by subject" else ("--job", job.label)
        with psycopg.connect(server.url) as old:
            old.execute("set transaction isolation level repeatable read")
            old.execute("select count(*) from verdict")
            for _ in range(2):
                refused = said(settings, "erase", *named, "--yes", "--rewrite")
                assert (refused.returncode, "before the erasure" in refused.stderr) == (3, True), refused.stderr
                assert "rewritten:" not in refused.stderr
            assert "old bytes left" in said(settings, "erasures").stdout
        other = said(settings, "erase", "--id", "somebody", "--yes", "--rewrite")
        assert (other.returncode, "old bytes of 1 other erasures are left" in other.stderr) == (0, True)
        done = said(settings, "erase", *named, "--yes", "--rewrite")
        assert (done.returncode, "rewritten: " in done.stderr, "verdict_" in done.stderr) == (0, True, True), done.stderr
        assert "old bytes" not in said(settings, "erasures").stdout
        assert not any(in_files(server._data / "base", PLAIN).values())
        again = said(settings, "erase", "--rewrite")
        assert (again.returncode, "rewritten: nothing, since no old bytes are left" in again.stderr) == (0, True)


def test_a_rewriting_that_was_killed_is_done_by_the_command_alone(
    keyring: Keyring, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with own(tmp_path / "first") as (server, db):
        installation.require_key(db, keyring)
        settings = load_settings(database_url=server.url, secret_key=SECRET_KEY, data_dir=tmp_path)
        judged(db, keyring)
        vacuum = rewriting._vacuum

        def killed(connection: Connection, table: str) -> bool:
            if table.startswith("verdict"):
                raise KeyboardInterrupt
            return vacuum(connection, table)

        monkeypatch.setattr(rewriting, "_vacuum", killed)
        assert said(settings, "erase", "--subject", f"user={SUBJECT}", "--yes", "--rewrite").returncode == 3
        monkeypatch.setattr(rewriting, "_vacuum", vacuum)
        assert said(settings, "erase", "--rewrite", "--dry-run").returncode == 2  # nothing is named, and nothing is done
        done = said(settings, "erase", "--rewrite")
        assert (done.returncode, "verdict_" in done.stderr) == (0, True), done.stderr
        assert not any(in_files(server._data / "base", PLAIN).values())


def test_ids_of_refused_lines_alone_are_rewritten_too(keyring: Keyring, tmp_path: pathlib.Path) -> None:
    with own(tmp_path / "first") as (server, db):
        job = judged(db, keyring)
        change(db, f"insert into rejection values ({job.id}, 9, 'x', 'y', 'canary-of-a-line')")
        receipt = erase(db, keyring, Targets.of(["canary-of-a-line"]))
        checkpoint(server)
        assert any(in_files(server._data / "base", [b"canary-of-a-line"]).values())
        assert rewriting.rewrite(db, 1, [receipt]).tables == ["pg_statistic", "rejection"]
        assert not any(in_files(server._data / "base", [b"canary-of-a-line"]).values())


def test_a_role_that_is_no_superuser_rewrites_its_tables_and_says_what_it_may_not(keyring: Keyring, tmp_path: pathlib.Path) -> None:
    with own(tmp_path / "first") as (server, _):
        url = urlsplit(server.url)
        with psycopg.connect(server.url, autocommit=True) as admin:
            admin.execute("create role plain login password 'plain'")
            admin.execute("create database plain owner plain")
        plain = url._replace(netloc=f"plain:plain@{url.netloc.rpartition('@')[2]}", path="/plain").geturl()
        settings = load_settings(database_url=plain, secret_key=SECRET_KEY, data_dir=tmp_path)
        with closing(Database(plain)) as its:
            migrate.upgrade(its)
            installation.require_key(its, keyring)
            job = judged(its, keyring)
            with psycopg.connect(server.url, autocommit=True) as admin:
                admin.execute("alter database plain owner to current_user")  # whose owner may rewrite any of its tables
            done = said(settings, "erase", "--subject", f"user={SUBJECT}", "--yes", "--rewrite")
            assert done.returncode == 0, done.stderr
            assert "rewritten: detection_" in done.stderr
            assert ", shard_payload_" in done.stderr
            assert "not rewritten, since the database's user may not: pg_statistic" in done.stderr
            assert "may not begin one (pg_checkpoint)" in done.stderr
            assert receipts.unrewritten(its, 1) == []
            checkpoint(server)
            assert not any(in_files(server._data / "base", PLAIN).values())
            change(its, f"insert into rejection values ({job.id}, 9, 'x', 'y', 'of a line')")
            receipt = erase(its, keyring, Targets.of(["of a line"]))
            with psycopg.connect(url._replace(path="/plain").geturl(), autocommit=True) as admin:
                admin.execute("alter table rejection owner to current_user")
            part = said(settings, "erase", "--rewrite")
            assert (part.returncode, "may not: pg_statistic, rejection" in part.stderr) == (1, True), part.stderr
            assert receipts.unrewritten(its, 1) == [receipt]


def values(db: Database, sql: str) -> list[bytes]:
    with db.session() as connection:
        return connection.scalars(sql)


def checkpoint(server: OwnPostgres) -> None:
    with psycopg.connect(server.url, autocommit=True) as admin:
        admin.execute("checkpoint")
