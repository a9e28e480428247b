"""What an SQLSTATE means for the caller: the one table.

A driver's message and details can hold the values that were sent ("Failing row contains ..."). The message is passed on only for
errors about the server, never for errors about a statement.
"""

from dataclasses import dataclass
from typing import Any

import psycopg

from guardfleet.errors import AwayError, GuardfleetError, StatementError

DATABASE = "database"


@dataclass(frozen=True, slots=True)
class Meaning:
    """What one SQLSTATE means. `waits`: the statement is sound and succeeds once the server's state has changed."""

    says: str
    waits: bool = True
    leaves: bool = False  # the connection cannot be used any more: the next one may lead to another server


# By code, otherwise by class (its first two characters). A code that is in neither is a defect.
MEANINGS = {
    "0A000": Meaning("a cached plan is older than the schema, which a migration has changed", leaves=True),
    "08": Meaning("the connection broke", leaves=True),
    "22": Meaning("a value does not fit its column", waits=False),
    "23": Meaning("a row violates a constraint of its table", waits=False),
    "25006": Meaning("PostgreSQL is read-only: a full disk, a standby, or a failover under way", leaves=True),
    "25P03": Meaning("a transaction was idle for too long", leaves=True),
    "25P04": Meaning("a transaction took too long", leaves=True),
    "26000": Meaning("a pooler has lost a prepared statement: docs/scaling.md says which poolers can be used", leaves=True),
    "28": Meaning("PostgreSQL refused this user", leaves=True),
    "3D000": Meaning("the database does not exist", leaves=True),
    "40": Meaning("the transaction conflicted with another"),
    "42": Meaning("a statement does not fit the schema", waits=False),
    "42703": Meaning("the database lacks a column of this release: run `guardfleet db upgrade`", waits=False),
    "42P01": Meaning("the database lacks a table of this release: run `guardfleet db upgrade`", waits=False),
    "42P05": Meaning("a pooler mixes up prepared statements: docs/scaling.md says which poolers can be used", leaves=True),
    "53": Meaning("PostgreSQL has run out of disk, memory or connections"),
    "55P03": Meaning("a lock was not free in time"),
    "57": Meaning("PostgreSQL is shutting down, starting, or was told to end the session", leaves=True),
    "57014": Meaning("a statement took too long, or was cancelled"),
    "58": Meaning("PostgreSQL cannot read or write its disk"),
}
UNREACHABLE = Meaning("PostgreSQL cannot be reached or refuses the connection", leaves=True)  # the driver gives no code then
DEFECT = Meaning("PostgreSQL refused a statement", waits=False)


def meaning_of(error: psycopg.Error) -> Meaning:
    """Return what the error means, from its SQLSTATE or, without one, from the driver's class."""
    code = error.sqlstate
    if code is not None:
        return MEANINGS.get(code) or MEANINGS.get(code[:2], DEFECT)
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return UNREACHABLE
    return DEFECT


def translated(error: psycopg.Error) -> GuardfleetError:
    """Return the error as guardfleet's own: AwayError if waiting helps, otherwise StatementError."""
    meaning = meaning_of(error)
    if meaning.waits:
        return AwayError(DATABASE, f"{meaning.says}: {first_line(error)}")
    return StatementError(f"{meaning.says} ({', '.join(_named(error))}).", sqlstate=error.sqlstate)


def first_line(error: BaseException) -> str:
    """Return the first line of the message: the lines after it can hold values."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _named(error: psycopg.Error) -> list[str]:
    """Return what may be told about a statement's error: names of the schema, no values."""
    diag: Any = error.diag
    names = [diag.table_name, diag.column_name, diag.constraint_name]
    return [f"SQLSTATE {error.sqlstate}" if error.sqlstate else type(error).__name__, *(name for name in names if name)]
