"""Reject a pooler that loses prepared statements: the driver prepares the statements that it sends often."""

import uuid
from collections.abc import Sequence

import psycopg
from psycopg.pq.abc import PGresult

from guardfleet.errors import ConfigurationError
from guardfleet.store.postgres.database import Connection, Database

ROUNDS = 4  # one round may pass by chance: a busy pooler may hand out the right server
LOST = ("26000", "42P05")  # the statement does not exist; its name is taken


def require_prepared(db: Database) -> None:
    """Raise ConfigurationError unless a statement that was prepared in one transaction exists in the next.

    Two connections prepare one statement each, under the same name. A pooler that does not track statements gives both the server
    that was released last: there the name is taken, missing, or stands for the other connection's statement.
    """
    with db.session() as one, db.session() as other:
        if not _keep_apart([one, other]):
            raise ConfigurationError(
                "the pooler before PostgreSQL loses prepared statements: use PgBouncer 1.22 or newer with max_prepared_statements "
                "above 0, or connect to PostgreSQL directly (docs/scaling.md)."
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
    """Return the result, or None if the statement was lost. Raises any other error."""
    if not result.error_message:
        return result
    error = psycopg.errors.error_from_result(result, encoding=connection.info.encoding)
    if error.sqlstate in LOST:
        return None
    raise error
