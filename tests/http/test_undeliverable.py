"""A delivery that cannot be composed, signed or recorded stops only itself: it is deferred, and the others are sent."""

import dataclasses

import pytest

from guardfleet.security.encryption import Keyring, new_secret_key
from guardfleet.store import installation
from guardfleet.store.postgres.database import Database
from guardfleet.telemetry import metrics
from tests.services.poison import change
from tests.services.receiver import Receiver, receiver
from tests.services.stored import scalar
from tests.services.webhooks import deliver, endpoint, happened, settings
from worker.webhooks.delivery import Deliverer

__all__ = ["deliver", "receiver", "settings"]


def counted(outcome: str) -> float:
    return float(metrics.DELIVERIES.labels(outcome)._value.get())


def test_a_secret_that_does_not_open_costs_its_own_deliveries(
    db: Database, keyring: Keyring, deliver: Deliverer, receiver: Receiver
) -> None:
    installation.require_key(db, keyring)
    damaged, fine = (endpoint(db, keyring, receiver.url)[0] for _ in range(2))
    with db.begin() as connection:
        connection.execute(f"update endpoint set secret = '\\x00' where public_id = '{damaged.public_id}'")
    (poisoned,), (other,) = happened(db, damaged), happened(db, fine)
    before = counted("deferred")
    for delivery in (poisoned, other):
        deliver(delivery)
    assert scalar(db, f"select array[state, attempts] from delivery where id = {poisoned}") == [0, 1]
    assert scalar(db, f"select next_attempt_at > now() from delivery where id = {poisoned}")
    assert scalar(db, "select error from attempt where error is not null").startswith("the event could not be composed")
    assert scalar(db, f"select state from delivery where id = {other}") == 2
    assert (counted("deferred"), len(receiver.got)) == (before + 1, 1)


def test_a_process_that_lacks_the_installations_key_gives_no_delivery_up(
    db: Database, keyring: Keyring, settings: object, deliver: Deliverer, receiver: Receiver
) -> None:
    installation.require_key(db, keyring)
    (delivery,) = happened(db, endpoint(db, keyring, receiver.url)[0])
    forgotten = dataclasses.replace(deliver, keyring=Keyring(new_secret_key()))
    forgotten(delivery)
    assert scalar(db, "select count(*) from attempt") == 0
    with db.begin() as connection:
        connection.execute("update delivery set lease_until = now() - interval '1 s'")  # a while later
    deliver(delivery)
    assert scalar(db, f"select state from delivery where id = {delivery}") == 2


@pytest.mark.parametrize("when", ["update", "insert"])
def test_a_delivery_whose_rows_are_refused_is_counted_and_costs_no_other(
    db: Database, keyring: Keyring, deliver: Deliverer, receiver: Receiver, when: str
) -> None:
    made = endpoint(db, keyring, receiver.url)[0]
    poisoned, other = happened(db, made, 2)
    table, column = {"update": ("delivery", "id"), "insert": ("attempt", "delivery_id")}[when]
    change(
        db,
        f"""create function refuse() returns trigger language plpgsql as $f$ begin
                  if new.{column} = {poisoned} then raise exception using errcode = 'XX000'; end if; return new; end $f$;
                create trigger refuse before {when} on {table} for each row execute function refuse()""",
    )
    before = counted("refused")
    for delivery in (poisoned, other):
        deliver(delivery)
    assert counted("refused") > before
    assert scalar(db, f"select state from delivery where id = {other}") == 2
    assert scalar(db, f"select state from delivery where id = {poisoned}") != 2
