"""Whether a pooler stands before PostgreSQL that loses prepared statements, as the driver makes of what it sends often."""

import uuid
from collections.abc import Sequence

import psycopg
from psycopg.pq.abc import PGresult

from guardfleet.errors import ConfigurationError
from guardfleet.store.postgres.database import Connection, Database

ROUNDS = 4  # a busy pooler may hand out the right server once by chance
LOST = ("26000", "42P05")  # the statement is not there; another of its name is


def require_prepared(db: Database) -> None:
    """Raise ConfigurationError unless a statement that was prepared in one transaction is there in the next.

    Two connections prepare one statement each, of the same name. A pooler that does not know of them gives both the server that
    was let go last: there the name is taken, or missing, or the other's.
    """
    with db.session() as one, db.session() as other:
        if not _keep_apart([one, other]):
            raise ConfigurationError(
                "the pooler before PostgreSQL loses prepared statements: have PgBouncer 1.22 or newer with max_prepared_statements "
                "above 0, or go past it (docs/scaling.md)."
            )


def _keep_apart(connections: Sequence[Connection]) -> bool:
    name = f"guardfleet_{uuid.uuid4().hex}".encode()
    for number, connection in enumerate(connections):
        if _result(connection, connection.pgconn.prepare(name, b"select %d" % number)) is None:
            return False
    for _ in range(ROUNDS):
        for number, connection in enumerate(connections):
            found = _result(connection, connection.pgconn.exec_prepared(name, None))
            if found is None or found.get_value(0, 0) != b"%d" % number:
                return False
    return True


def _result(connection: Connection, result: PGresult) -> PGresult | None:
    """None where the statement was lost; any other error is raised."""
    if not result.error_message:
        return result
    error = psycopg.errors.error_from_result(result, encoding=connection.info.encoding)
    if error.sqlstate in LOST:
        return None
    raise error
