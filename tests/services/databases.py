"""One database for the tests of a process, as if it were fresh for each.

Creating a database costs half a second of writing and dropping one a whole checkpoint: a suite that did both for each test spent
more time on them than on the tests. So after a test its rows and partitions are deleted and sequences are reset; if the database
then differs from the template, because the test changed the schema, it is dropped, and the next test gets a clone.
"""

import urllib.parse
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psycopg

TABLES = """select format('%I.%I', nspname, relname) from pg_class c join pg_namespace n on n.oid = relnamespace
             where relkind = 'r' and nspname !~ '^pg_' and nspname <> 'information_schema' order by 1"""
SEQUENCES = "select format('%I.%I', schemaname, sequencename), start_value, last_value from pg_sequences order by 1"
OTHERS = """select count(pg_terminate_backend(pid, 10000)) from pg_stat_activity
             where datname = current_database() and pid <> pg_backend_pid()"""
# Triggers and foreign keys are off (`session_replication_role`), so that protected rows can be deleted too.
EMPTY = """do $$ declare name text; holds bool; begin
  foreach name in array array{names} loop
    execute 'select exists (select from ' || name || ')' into holds;
    continue when not holds;
    execute case when pg_relation_size(name::regclass) > {big_bytes} then 'truncate ' else 'delete from ' end || name;
  end loop; end $$"""
REFILL = "insert into {name} overriding system value select * from json_populate_recordset(null::{name}, %s::json)"
BIG_BYTES = 1_000_000  # above this, truncating a table is faster than deleting its rows
# All of a schema that can be altered, as one digest: it shows what a test left behind.
SHAPE = """
with own as (select oid, nspname from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema')
select md5(string_agg(line, chr(10) order by line)) from (
  select concat_ws(' ', nspname, relname, relkind, relowner, relacl, reloptions, relrowsecurity, pg_get_expr(relpartbound, c.oid))
    from pg_class c join own on own.oid = relnamespace
  union all select concat_ws(' ', relname, attname, attnum, format_type(atttypid, atttypmod), attnotnull, attisdropped, attacl,
                             pg_get_expr(adbin, adrelid))
    from pg_attribute join pg_class c on c.oid = attrelid join own on own.oid = relnamespace
    left join pg_attrdef on adrelid = attrelid and adnum = attnum where attnum > 0
  union all select concat_ws(' ', conrelid::regclass, conname, convalidated, pg_get_constraintdef(c.oid))
    from pg_constraint c join own on own.oid = connamespace
  union all select concat_ws(' ', tgenabled, pg_get_triggerdef(t.oid))
    from pg_trigger t join pg_class c on c.oid = tgrelid join own on own.oid = relnamespace where not tgisinternal
  union all select concat_ws(' ', indisvalid, pg_get_indexdef(indexrelid))
    from pg_index join pg_class c on c.oid = indexrelid join own on own.oid = relnamespace
  union all select concat_ws(' ', ev_enabled, pg_get_ruledef(r.oid))
    from pg_rewrite r join pg_class c on c.oid = ev_class join own on own.oid = relnamespace
  union all select concat_ws(' ', proname, proowner, proacl, prosrc) from pg_proc join own on own.oid = pronamespace
  union all select concat_ws(' ', nspname, nspacl) from own join pg_namespace using (oid, nspname)
  union all select concat_ws(' ', setrole, setconfig) from pg_db_role_setting
    where setdatabase = (select oid from pg_database where datname = current_database())
  union all select concat_ws(' ', datallowconn, datconnlimit, datacl) from pg_database where datname = current_database()
) shape (line)"""


def unique() -> str:
    """A unique name that shows that the tests own it."""
    return f"gftest_{uuid.uuid4().hex[:10]}"


class Databases:
    """The databases of one test process."""

    def __init__(self, admin_url: str, template: str) -> None:
        self._admin_url, self._template = admin_url, template
        self._dropper, self._dropped = (
            ThreadPoolExecutor(1),
            list[Future[None]](),
        )  # only the last test waits for a checkpoint
        self._idle = [self._make()]
        with self._connect(self._idle[0]) as connection:
            self._shape = connection.execute(SHAPE).fetchone()
            self._tables = {name for (name,) in connection.execute(TABLES)}
            self._sequences = connection.execute(SEQUENCES).fetchall()
            self._rows = {name: rows for name in self._tables if (rows := _rows(connection, name))}

    def take(self) -> str:
        """The name of a database that equals the template."""
        return self._idle.pop() if self._idle else self._make()

    def give_back(self, name: str) -> None:
        """Clean the database and disconnect everyone, or drop it if it differs from the template."""
        try:
            with self._connect(name) as connection:
                connection.execute(OTHERS)
                self._wash(connection)
                is_as_before = connection.execute(SHAPE).fetchone() == self._shape
        except psycopg.Error:
            is_as_before = False
        if is_as_before:
            self._idle.append(name)
        else:
            self._dropped.append(self._dropper.submit(self._drop, name))

    def close(self) -> None:
        """Drop all databases. Raises what dropping one has raised."""
        while self._idle:
            self._drop(self._idle.pop())
        for done in self._dropped:
            done.result()
        self._dropper.shutdown()

    def _wash(self, connection: psycopg.Connection[Any]) -> None:
        """Delete what the test created."""
        found = {name for (name,) in connection.execute(TABLES)}
        of_test, known = sorted(found - self._tables), sorted(found & self._tables)
        with connection.transaction():
            if of_test:
                connection.execute(f"drop table {', '.join(of_test)} cascade")
            connection.execute("set local session_replication_role = replica")
            connection.execute(EMPTY.format(names=known, big_bytes=BIG_BYTES))
            for name, rows in self._rows.items():
                connection.execute(REFILL.format(name=name), (rows,))
            for name, start, last in self._sequences:
                connection.execute(f"select setval('{name}', {last or start}, {last is not None})")

    def _connect(self, name: str) -> psycopg.Connection[Any]:
        return psycopg.connect(database_on(self._admin_url, name), autocommit=True)

    def _make(self) -> str:
        name = unique()
        with psycopg.connect(self._admin_url, autocommit=True) as admin:
            admin.execute(f"create database {name} template {self._template}")
            admin.execute(f"alter database {name} set synchronous_commit = off")  # no test that uses it stops this server
        return name

    def _drop(self, name: str) -> None:
        with psycopg.connect(self._admin_url, autocommit=True) as admin:
            admin.execute(f"drop database if exists {name} with (force)")


def database_on(server_url: str, name: str) -> str:
    """The URL of another database of the server, however that is reached."""
    return urllib.parse.urlsplit(server_url)._replace(path=f"/{name}").geturl()


def _rows(connection: psycopg.Connection[Any], table: str) -> str | None:
    found = connection.execute(f"select json_agg(t)::text from {table} t").fetchone()
    return found[0] if found else None
