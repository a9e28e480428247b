"""An API host whose clock is a day off: days, expiry and quotas are those of the servers' clocks."""

import pathlib
import re
import time
import uuid

import pytest
from starlette.testclient import TestClient

from api.server import create_app
from guardfleet.security.encryption import Keyring
from guardfleet.settings import load_settings
from guardfleet.store import keys, partitions
from guardfleet.store.postgres.database import Database
from tests.services.fixtures import SECRET_KEY
from tests.services.served import judging
from tests.services.stored import scalar

DAY_S = 86_400.0
SHIFTS = [-26 * 3600.0, 26 * 3600.0]
JSONL = {"content-type": "application/jsonl"}
TODAY = "(now() at time zone 'utc')::date"
ASKS_ITS_OWN_CLOCK = re.compile(r"datetime\.now\(|date\.today\(|utcnow\(|(?<!mono)time\.time\(\)")


@pytest.mark.parametrize("shift_s", SHIFTS)
def test_days_and_expiry_are_the_databases(
    shift_s: float, db: Database, database_url: str, keyring: Keyring, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + shift_s)
    key = keys.create(db, keyring, name="k", expires_s=DAY_S / 2)
    settings = load_settings(database_url=database_url, secret_key=SECRET_KEY, data_dir=tmp_path)
    headers = {"authorization": f"Bearer {key}"}
    with TestClient(create_app(settings), headers=headers) as client, judging(db, keyring):
        assert client.post("/v1/moderate", json={"text": "x"}).status_code == 200
        assert client.post("/v1/batches", content=b'{"text": "x"}', headers=JSONL).status_code == 200
        limits = {"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
        assert client.post("/v1/files", data=limits, files={"file": ("a", b'{"text": "x"}')}).status_code == 200
    assert scalar(db, f"select count(*) from job where day = {TODAY}") == 2
    today = scalar(db, f"select {TODAY}")
    assert {day for _, day in partitions.existing(db)} == {today}
    assert scalar(db, "select count(*) from file where abs(extract(epoch from expires_at - now()) - 3600) < 600") == 1


@pytest.mark.parametrize("shift_s", SHIFTS)
def test_a_quota_that_hosts_share_is_by_the_clock_of_the_server_they_share(
    shift_s: float, db: Database, database_url: str, redis_broker: str, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = keys.create(db, keyring, name="k")
    settings = load_settings(
        database_url=database_url,
        secret_key=SECRET_KEY,
        quota="5/day",
        rate_limit_url=redis_broker,
        namespace=f"gftest_{uuid.uuid4().hex[:10]}",
    )
    real, answers = time.time, []
    for offset in (0.0, shift_s, 0.0):
        monkeypatch.setattr(time, "time", lambda offset=offset: real() + offset)
        with TestClient(create_app(settings), headers={"authorization": f"Bearer {key}"}) as client:
            answers.append(client.post("/v1/batches", content=b'{"text": "x"}\n' * 2, headers=JSONL).status_code)
    assert answers == [200, 200, 429]


def test_nothing_that_is_stored_or_served_asks_the_hosts_clock_for_a_day() -> None:
    root = pathlib.Path(__file__).parents[2]
    found = [
        f"{path.relative_to(root)}: {line.strip()}"
        for folder in ("api", "guardfleet/store")
        for path in sorted((root / folder).rglob("*.py"))
        for line in path.read_text().splitlines()
        if ASKS_ITS_OWN_CLOCK.search(line)
    ]
    assert found == ["api/http/rate_limit.py: reset_s = max(0, round(stats.reset_time - time.time()))"]
