"""Who leads, and that leading ends with the campaign: a lock that stayed in the pool would keep every standby from work."""

import contextlib

import pytest

from guardfleet.errors import AwayError
from guardfleet.store.postgres import leader as leadership
from guardfleet.store.postgres.database import Database
from guardfleet.store.postgres.leader import campaign, is_led
from tests.services.fleet import until


def test_one_leads_and_a_standby_takes_over_when_its_campaign_ends_in_an_error(db: Database, database_url: str) -> None:
    with contextlib.closing(Database(database_url, pool_size=1)) as other, campaign(other) as standby:
        with contextlib.suppress(AwayError), campaign(db) as leader:
            assert leader.try_lead()
            assert leader.try_lead()
            assert not standby.try_lead()
            assert is_led(other)
            raise AwayError("the broker", "cut")
        assert standby.try_lead()
        with campaign(db) as late:
            assert not late.try_lead()
    assert not is_led(db)


def test_who_campaigns_again_does_not_lose_to_itself_while_others_use_the_pool(db: Database) -> None:
    for _ in range(3):
        with campaign(db) as leader:
            assert leader.try_lead()
        held = contextlib.ExitStack()
        with held:
            for _ in range(3):  # whichever connection was idle is with somebody else now
                held.enter_context(db.session())
            with campaign(db) as leader:
                assert leader.try_lead()


def test_a_leader_that_is_frozen_loses_the_lock_and_learns_of_it(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leadership, "SILENT_S", 1)
    with contextlib.suppress(AwayError), campaign(db) as frozen:
        assert frozen.try_lead()
        until(lambda: not is_led(db), what="the end of its session")
        with campaign(db) as standby:
            assert standby.try_lead()
            with pytest.raises(AwayError, match="told to end the session"):
                frozen.try_lead()
