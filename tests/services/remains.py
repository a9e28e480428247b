"""Everything that a database holds, opened: each column of each table as text, and the contents of each encrypted value.

The tables come from the catalogue, so a new one is read too; a column of bytes that nothing here opens is read as it is.
"""

import pathlib
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from guardfleet.security.encryption import ROWS, Keyring, _associated_data, _decrypt
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import handoff

TABLES = """select c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
            where c.relkind in ('r', 'p', 'm') and nspname !~ '^pg_' and nspname <> 'information_schema' order by 1"""
SEALED = {"shard_payload": ROWS, "first_opinion": handoff.KIND}


def remains(db: Database, keyring: Keyring) -> Iterator[tuple[str, str]]:
    """Yield the table of each value, and the value."""
    with db.session() as connection:
        for table in connection.scalars(TABLES):
            yield from ((table, row) for row in connection.scalars(f"select t::text from {table} t"))
        yield from (("pg_statistic", row) for row in connection.scalars("select t::text from pg_statistic t"))
        for table, kind in SEALED.items():
            rows = connection.execute(
                f"select t.job_id, t.shard_no, t.blob, j.data_key from {table} t join job j on j.id = t.job_id"
            )
            yield from ((table, opened(keyring, row, kind)) for row in rows if row.data_key is not None)
        for table, column in (("endpoint", "secret"), ("legal_hold", "target")):
            secrets = connection.scalars(f"select {column} from {table} where {column} is not null")
            yield from ((table, keyring.decrypt_secret(bytes(secret))) for secret in secrets)


def opened(keyring: Keyring, row: Any, kind: str) -> str:
    """The plain text of a blob, as it was before it was compressed."""
    plain = _decrypt(keyring._data_key(row.data_key), row.blob, _associated_data(row.job_id, row.shard_no, kind))
    return zlib.decompress(plain).decode("utf-8", "surrogatepass")


def where(db: Database, keyring: Keyring, words: Sequence[str]) -> dict[str, set[str]]:
    """The tables that have each of these words, somewhere."""
    found: dict[str, set[str]] = {word: set() for word in words}
    for table, value in remains(db, keyring):
        for word in words:
            if word in value:
                found[word].add(table)
    return found


def in_files(folder: pathlib.Path, words: Sequence[bytes]) -> dict[bytes, list[str]]:
    """The files below the folder that have each of these words in their bytes."""
    found: dict[bytes, list[str]] = {word: [] for word in words}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            for word in words:
                if word in content:
                    found[word].append(str(path.relative_to(folder)))
    return found
