"""The schema on real PostgreSQL: created by migrations, described by the models, shipped in the wheel."""

import datetime as dt
import os
import pathlib
import subprocess
import sys
import threading
import urllib.parse
from contextlib import closing
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from guardfleet.errors import ConfigurationError
from guardfleet.security.encryption import Keyring
from guardfleet.store import migrate
from guardfleet.store.postgres.database import Database
from guardfleet.store.schema.jobs import Base
from tests.services.fixtures import SECRET_KEY
from tests.services.patience import patience
from tests.services.stored import scalar, submit


def test_migrations_make_what_the_models_say(empty_database_url: str) -> None:
    db = Database(empty_database_url)
    assert migrate.current(db) is None
    with pytest.raises(ConfigurationError, match="guardfleet db upgrade"):
        migrate.require_head(db)
    assert migrate.upgrade(db) == migrate.head() == migrate.current(db)
    db.close()
    engine = create_engine(empty_database_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_a_migration_takes_the_time_it_needs_and_waits_for_no_lock_for_long(db: Database) -> None:
    with migrate.connect_for_migrations(db) as connection:
        limits = [connection.execute(f"show {name}").fetchone() for name in ("statement_timeout", "lock_timeout")]
        assert limits == [("0",), ("15s",)]
        assert connection.answer_s is None
        assert connection.execute("select 1").fetchone() == (1,)


def described(url: str) -> dict[str, Any]:
    """Tables, columns, constraints and indexes as the catalogue has them; partitions and alembic's own table left out."""
    with psycopg.connect(url) as connection:
        ours = "c.relnamespace = 'public'::regnamespace and c.relname <> 'alembic_version' and not c.relispartition"
        queries = {
            "tables": f"""select relname, relkind, reloptions, pg_get_partkeydef(oid) from pg_class c
                          where relkind in ('r','p') and {ours}""",
            "columns": f"""select c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
                           pg_get_expr(d.adbin, d.adrelid) from pg_attribute a join pg_class c on c.oid = a.attrelid
                           left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
                           where a.attnum > 0 and c.relkind in ('r','p') and {ours}""",
            "constraints": f"""select c.relname, conname, pg_get_constraintdef(k.oid) from pg_constraint k join pg_class c
                               on c.oid = k.conrelid where {ours}""",
            "indexes": f"select pg_get_indexdef(i.indexrelid) from pg_index i join pg_class c on c.oid = i.indrelid where {ours}",
        }
        return {name: sorted(map(str, connection.execute(sql).fetchall())) for name, sql in queries.items()}  # type: ignore[call-overload]


def test_a_database_made_from_the_models_is_the_migrated_one_to_the_last_index(database_url: str, empty_database_url: str) -> None:
    engine = create_engine(empty_database_url)
    Base.metadata.create_all(engine)
    engine.dispose()
    from_models, migrated = described(empty_database_url), described(database_url)
    for part, rows in migrated.items():
        assert from_models[part] == rows, part


def test_racing_migrations_take_turns(empty_database_url: str) -> None:
    done: list[str] = []

    def run() -> None:
        db = Database(empty_database_url, pool_size=2)
        done.append(migrate.upgrade(db))
        db.close()

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(patience(60))
    assert done == [migrate.head()] * 3


CHILD = """
import pathlib, time, guardfleet
from guardfleet.process.supervisor import Child
child = Child("api", ["api"], {"GUARDFLEET_API__PORT": "0"}, pathlib.Path("child.log"))
child.start()
while not (child.is_ready or child.gave_up):
    time.sleep(0.05)
child.stop()
print(child.is_ready, child.gave_up, pathlib.Path(guardfleet.__file__).parent)
"""


def test_the_wheel_works_without_the_checkout(tmp_path: pathlib.Path, empty_database_url: str) -> None:
    import zipfile

    root = pathlib.Path(__file__).parents[2]
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=root, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    assert {path.name for path in site.iterdir()} - {"guardfleet-0.1.0.dist-info"} == {"guardfleet", "worker", "producer", "api"}
    assert all((site / package / "py.typed").is_file() for package in ("guardfleet", "worker", "producer", "api"))
    environment = os.environ | {
        "PYTHONPATH": str(site),
        "GUARDFLEET_DATABASE_URL": empty_database_url,
        "GUARDFLEET_SECRET_KEY": SECRET_KEY,
    }

    def run(*args: str, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *args]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=timeout, check=False)

    upgraded = run("-m", "guardfleet", "db", "upgrade")
    assert upgraded.stdout.strip() == migrate.head(), upgraded.stderr
    assert (site / "guardfleet" / "_ai_text_demo_model" / "model.safetensors").is_file()
    loaded = run("-c", "from worker.engine.model.loading import load; print(load('demo').network.name_or_path)")
    assert loaded.stdout.strip() == str(site / "guardfleet" / "_demo_model"), loaded.stderr
    for name in ("api", "producer", "worker"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('of the application')\n")
    version = run("-P", "-m", "guardfleet", "--version")
    assert version.stdout == "guardfleet 0.1.0\n", version.stderr
    started = run("-P", "-c", CHILD, timeout=patience(90))
    assert started.stdout.splitlines()[-1].split() == ["True", "None", str(site / "guardfleet")], started.stderr


def test_partitions_of_a_day_are_made_once_by_whoever_comes_first(db: Database, keyring: Keyring) -> None:
    threads = [threading.Thread(target=submit, args=(db, keyring, 2)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(patience(30))
    today = dt.datetime.now(dt.UTC).date()
    assert scalar(db, f"select count(*) from verdict_{today:%Y%m%d}") == 0
    assert scalar(db, "select count(*) from job where state = 1") == 5


def test_a_process_that_starts_waits_for_its_database_and_says_at_once_what_it_lacks(
    postgres: str, database_url: str, empty_database_url: str
) -> None:
    name, waits = urllib.parse.urlsplit(database_url).path[1:], []
    with psycopg.connect(postgres, autocommit=True) as admin:
        admin.execute(f"alter database {name} rename to {name}_away")

        def back(seconds: float) -> None:
            waits.append(seconds)
            admin.execute(f"alter database {name}_away rename to {name}")

        with closing(Database(database_url)) as db:
            migrate.wait_for_head(db, pause=back)
    assert len(waits) == 1
    with closing(Database(empty_database_url)) as db, pytest.raises(ConfigurationError, match="guardfleet db upgrade"):
        migrate.wait_for_head(db)
