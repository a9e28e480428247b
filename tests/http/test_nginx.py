"""The nginx that is shipped for the front, as Debian has it, before two API processes: streams, sizes, rate, and what it logs."""

import json
import pathlib
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx2
import pytest

from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings, load_settings
from guardfleet.store import keys
from guardfleet.store.postgres.database import Database
from tests.services.fixtures import SECRET_KEY
from tests.services.fleet import until
from tests.services.nginx import SHIPPED, Nginx, nginx
from tests.services.patience import patience
from tests.services.served import judge, served

MIB = 1 << 20
JSONL = {"content-type": "application/jsonl"}
ROWS = b"".join(json.dumps({"id": str(i), "text": "x"}).encode() + b"\n" for i in range(8))


@pytest.fixture
def api_settings(database_url: str, tmp_path: pathlib.Path) -> Settings:
    return load_settings(database_url=database_url, secret_key=SECRET_KEY, data_dir=tmp_path / "data", shard_texts=4)


@pytest.fixture
def replicas(api_settings: Settings) -> Iterator[list[ExitStack]]:
    """Two API processes, each of which a test may end."""
    stacks = [ExitStack(), ExitStack()]
    yield stacks
    for stack in stacks:
        stack.close()


@pytest.fixture
def front(api_settings: Settings, replicas: list[ExitStack], tmp_path: pathlib.Path) -> Iterator[Nginx]:
    folder = tmp_path / "nginx"
    folder.mkdir()
    with nginx(folder, *[stack.enter_context(served(api_settings)) for stack in replicas]) as made:
        yield made


@pytest.fixture
def client(front: Nginx, db: Database, keyring: Keyring) -> Iterator[httpx2.Client]:
    headers = {"authorization": f"Bearer {keys.create(db, keyring, name='k')}"}
    with httpx2.Client(base_url=front.url, headers=headers, timeout=patience(60)) as made:
        yield made


def test_streams_and_long_polls_bring_news_while_they_are_open(client: httpx2.Client, db: Database) -> None:
    batch = client.post("/v1/batches", content=ROWS, headers=JSONL).json()["id"]
    polled: list[Any] = []
    url = f"/v1/batches/{batch}/results"
    poll = threading.Thread(target=lambda: polled.append(client.get(url, headers={"Prefer": "wait=50"}).json()), daemon=True)
    with client.stream("GET", f"/v1/batches/{batch}/events") as stream:
        lines = stream.iter_lines()
        assert next(lines) == "retry: 2000"  # it came before there was any other
        poll.start()
        judge(db, batch, 0)
        assert next(line for line in lines if '"completed":4' in line)
        judge(db, batch, 1)
        assert "event: batch.ended" in lines
    poll.join(patience(60))
    assert len(polled[0]["data"]) in (4, 8)


def test_two_processes_share_the_requests_and_the_death_of_one_costs_none(
    client: httpx2.Client, front: Nginx, replicas: list[ExitStack]
) -> None:
    assert [client.get("/v1/batches").status_code for _ in range(8)] == [200] * 8
    until(lambda: len(front.lines()) >= 8, what="the access log")
    assert len({line["upstream"] for line in front.lines()}) == 2
    replicas[0].close()
    assert [client.get("/v1/batches").status_code for _ in range(8)] == [200] * 8
    replicas[1].close()
    away = client.get("/v1/batches")
    assert (away.status_code, away.json()["error"]["code"], away.headers["retry-after"]) == (503, "unavailable", "5")


def test_bodies_have_room_for_the_largest_file_and_the_apis_own_limit_answers_first(
    client: httpx2.Client, front: Nginx, tmp_path: pathlib.Path
) -> None:
    large = b'{"id": "a", "text": "' + b"x" * (21 * MIB) + b'"}\n'
    told = client.post("/v1/files", data={"purpose": "batch"}, files={"file": ("in.jsonl", large)})
    assert (told.status_code, told.json()["bytes"]) == (200, len(large))
    own = client.post("/v1/moderations", content=b" " * (17 * MIB), headers={"content-type": "application/json"})
    assert (own.status_code, own.json()["error"]["code"]) == (413, "too_large")
    assert str(16 * MIB) in own.json()["detail"]
    proxys = client.post("/v1/moderations", content=b" " * (21 * MIB), headers={"content-type": "application/json"})
    assert (proxys.status_code, proxys.json()["error"]["code"]) == (413, "too_large")
    keyless = httpx2.post(f"{front.url}/v1/batches", content=ROWS, headers=JSONL)
    assert (keyless.status_code, keyless.json()["error"]["type"]) == (401, "authentication_error")
    assert not [path for name in ("client", "proxy") for path in (tmp_path / "nginx" / name).glob("**/*") if path.is_file()]


def test_a_flood_from_one_address_is_429_and_no_key_is_in_a_log(client: httpx2.Client, front: Nginx) -> None:
    key = client.headers["authorization"].removeprefix("Bearer ")
    statuses: list[int] = []
    refused: list[tuple[str, str]] = []

    def flood() -> None:
        with httpx2.Client(base_url=front.url, timeout=patience(60)) as one:
            while 429 not in statuses and len(statuses) < 5_000:
                told = one.get("/nothing", params={"key": key})
                statuses.append(told.status_code)
                if told.status_code == 429:
                    refused.append((told.json()["error"]["code"], told.headers["retry-after"]))

    floods = [threading.Thread(target=flood, daemon=True) for _ in range(3)]
    for each in floods:
        each.start()
    for each in floods:
        each.join(patience(60))
    assert set(statuses) == {404, 429}
    assert set(refused) == {("rate_limit_exceeded", "1")}
    assert client.get("/livez").status_code == 200  # a balancer's look is not limited
    until(lambda: len(front.lines()) >= len(statuses), what="the access log")
    assert key not in front.log


def test_the_limits_fit_the_apis_own() -> None:
    text = (SHIPPED / "guardfleet.conf").read_text()
    settings = Settings()
    form = 2 * MIB  # what a multipart form has beside its file
    assert "client_max_body_size 520m;" in text
    assert max(settings.api.files_max_bytes, settings.api.max_body_bytes) + form < 520 * MIB
    assert "client_max_body_size 20m;" in text
    assert settings.tuning.api_max_json_bytes + form < 20 * MIB
    assert "client_body_timeout 75s;" in text
    assert settings.tuning.api_pause_s < 75
    assert "keepalive_timeout 5s;" in (SHIPPED / "upstream.conf").read_text()
    assert settings.tuning.api_head_s > 5
