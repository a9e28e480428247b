"""How many deliveries a receiver gets at a time and per second: by how it accepts them, and by its owner's limit."""

import itertools
import time
from dataclasses import replace

from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings
from guardfleet.store import keys
from guardfleet.store.events import deliveries, endpoints
from guardfleet.store.events.endpoints import Endpoint
from guardfleet.store.postgres.database import Database
from tests.services.receiver import Receiver, receiver
from tests.services.stored import scalar
from tests.services.webhooks import KINDS, deliver, due, endpoint, happened, settings
from worker.webhooks.delivery import Deliverer

__all__ = ["deliver", "receiver", "settings"]


def test_a_dead_receiver_takes_one_place_and_the_others_theirs(db: Database, keyring: Keyring, receiver: Receiver) -> None:
    dead, _ = endpoint(db, keyring, "http://127.0.0.1:1/")
    well, _ = endpoint(db, keyring, receiver.url)
    with db.begin() as connection:
        connection.execute(f"update endpoint set failing_since = now() where public_id = '{dead.public_id}'")
        connection.execute(f"update endpoint set answered_at = now() where public_id = '{well.public_id}'")
    of_dead, of_well = set(happened(db, dead, 500)), happened(db, well, 10)
    first = due(db)
    assert first[:4] == of_well[:4]
    assert len(first) == 5
    assert first[4] in of_dead
    deliveries.mark_published(db, first)
    assert due(db) == []  # until one of them has ended


def test_a_receiver_gets_one_at_a_time_until_it_has_taken_one(
    db: Database, keyring: Keyring, deliver: Deliverer, receiver: Receiver
) -> None:
    made, _ = endpoint(db, keyring, receiver.url)
    first, *rest = happened(db, made, 9)
    assert due(db) == [first]
    deliveries.mark_published(db, [first, *rest])  # so that its sender does not go on with the others by itself
    deliver(first)
    with db.begin() as connection:
        connection.execute("update delivery set published_at = null")
    assert due(db) == rest[:4]
    endpoints.update(db, made.public_id, tenant_id=1, changes={"name": "another name"})
    assert due(db) == rest[:4]
    endpoints.update(db, made.public_id, tenant_id=1, changes={"url": "http://127.0.0.1:1/"})
    assert due(db) == rest[:1]


def test_receivers_that_fail_share_a_few_places(db: Database, keyring: Keyring, deliver: Deliverer) -> None:
    many = [endpoint(db, keyring, "http://127.0.0.1:1/")[0] for _ in range(12)]
    with db.begin() as connection:
        connection.execute("update endpoint set failing_since = now(), answered_at = now()")
    waiting = {delivery: i for i, made in enumerate(many) for delivery in happened(db, made, 3)}
    first = due(db)
    assert len({waiting[delivery] for delivery in first}) == len(first) == 8
    deliveries.mark_published(db, first)
    assert due(db) == []
    deliver(first[0])
    (next_one,) = due(db)
    assert waiting[next_one] not in {waiting[delivery] for delivery in first[1:]}


def test_tenants_take_turns_with_receivers_that_fail(db: Database, keyring: Keyring, deliver: Deliverer) -> None:
    hanging = [endpoint(db, keyring, "http://127.0.0.1:1/")[0] for _ in range(12)]
    keys.create(db, keyring, name="k", tenant="another")
    other, _ = endpoints.create(db, keyring, tenant_id=2, name="r", url="http://127.0.0.1:1/", kinds=KINDS)
    with db.begin() as connection:
        connection.execute("update endpoint set failing_since = now(), answered_at = now()")
    for made in hanging:
        happened(db, made, 50)
    deliveries.mark_published(db, first := due(db))
    (of_other,) = happened(db, other)  # it comes last, and finds all places taken
    assert due(db) == []
    deliver(first[0])
    assert due(db) == [of_other]
    deliveries.mark_published(db, [of_other])
    tried = set()
    for _ in range(100):  # of one tenant's, each comes to its turn
        with db.begin() as connection:
            connection.execute("update delivery set published_at = null, lease_until = null where endpoint_id <= 12")
        tried |= {scalar(db, f"select endpoint_id from delivery where id = {delivery}") for delivery in due(db)}
        if len(tried) == len(hanging):
            break
    assert len(tried) == len(hanging)


def test_a_sender_goes_on_with_what_waits_for_the_same_receiver(
    db: Database, keyring: Keyring, deliver: Deliverer, receiver: Receiver
) -> None:
    made, _ = endpoint(db, keyring, receiver.url)
    other, _ = endpoint(db, keyring, "http://127.0.0.1:9/")
    happened(db, other)
    first, second, *_, last = happened(db, made, 20)
    with db.begin() as connection:  # a message for this one is on its way: another sender will take it
        connection.execute(f"update delivery set published_at = now() where id = {second}")
    receiver.answer = lambda n: (500 if n == 18 else 204, {})
    deliver(first)
    assert len(receiver.got) == 18  # and stops at a failure
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 18
    assert scalar(db, f"select count(*) from delivery where state = 2 and endpoint_id = {_id(db, made)}") == 17
    assert scalar(db, f"select attempts from delivery where id = {second}") == 0
    deliver(last)
    assert len(receiver.got) == 19


def test_a_sender_does_not_go_on_where_enough_are_out(
    db: Database, keyring: Keyring, deliver: Deliverer, receiver: Receiver, settings: Settings
) -> None:
    made, _ = endpoint(db, keyring, receiver.url)
    first, *others = happened(db, made, 10)
    for delivery in others[: settings.tuning.webhook_at_once]:
        assert deliveries.claim(db, delivery, lease_s=60)
    deliver(first)
    assert len(receiver.got) == 1


def test_a_receiver_gets_no_more_in_a_second_than_its_owner_wants(
    db: Database, keyring: Keyring, deliver: Deliverer, receiver: Receiver
) -> None:
    made, _ = endpoint(db, keyring, receiver.url)
    endpoints.update(db, made.public_id, tenant_id=1, changes={"most_per_s": 2.0})
    first, *_ = happened(db, made, 9)
    planned: list[float] = []
    replace(deliver, pause=lambda s: planned.append(time.monotonic() + s))(first)
    # Each half a second behind the last; one further off than a sender waits for is left to the dispatcher.
    assert all(later - earlier > 0.45 for earlier, later in itertools.pairwise(planned))
    assert 1 < len(receiver.got) == len(planned) < 9
    turn_at(db, "now() + interval '1 hour'")
    assert due(db) == []
    test = endpoints.send_test(db, made.public_id, tenant_id=1, kind="batch.completed")
    assert due(db) == [test]  # somebody waits for it
    deliver(test)
    turn_at(db, "now()")
    assert len(due(db)) == 2  # as many as its pace has places for, though it takes four at a time
    endpoints.update(db, made.public_id, tenant_id=1, changes={"most_per_s": None})
    assert len(due(db)) == 4


def turn_at(db: Database, moment: str) -> None:
    with db.begin() as connection:
        connection.execute(f"update endpoint set paced_until = {moment}")


def _id(db: Database, made: Endpoint) -> object:
    return scalar(db, f"select id from endpoint where public_id = '{made.public_id}'")
