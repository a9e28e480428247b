"""The databases that the tests of a process share: each is fresh for the next test, and an altered one is dropped."""

import pytest

from guardfleet.security.encryption import Keyring
from guardfleet.store.postgres.database import Database
from tests.services.databases import Databases, database_on
from tests.services.stored import scalar, submit

ROWS = "select (select count(*) from job) + (select count(*) from shard) + (select count(*) from shard_payload)"


def over(postgres: str, name: str) -> Database:
    return Database(database_on(postgres, name), pool_size=1)


def test_the_next_test_finds_no_row_of_the_one_before_and_the_same_ids(
    postgres: str, databases: Databases, keyring: Keyring
) -> None:
    first = databases.take()
    db = over(postgres, first)
    job = submit(db, keyring, 3)
    db.close()
    databases.give_back(first)
    assert databases.take() == first
    db = over(postgres, first)
    assert scalar(db, ROWS) == 0
    assert scalar(db, "select count(*) from alembic_version") == 1
    assert submit(db, keyring, 3).id == job.id
    db.close()
    databases.give_back(first)


@pytest.mark.parametrize(
    "change", ["alter table job add column other int", "alter table job rename to other", "drop view verdicts"]
)
def test_a_database_that_was_rebuilt_is_given_to_nobody(postgres: str, databases: Databases, change: str) -> None:
    name = databases.take()
    db = over(postgres, name)
    with db.begin() as connection:
        connection.execute(change)
    db.close()
    databases.give_back(name)
    another = databases.take()
    assert another != name
    databases.give_back(another)
