"""The unmodified openai SDK of Node, which sends fields in its user's order: a file before its purpose."""

import json
import pathlib
import time

import httpx2

from guardfleet.security.encryption import Keyring
from guardfleet.security.signing import new_secret, sign
from guardfleet.settings import load_settings
from guardfleet.store import keys
from guardfleet.store.postgres.database import Database
from tests.contract.programs import NODE, printed
from tests.services.fixtures import SECRET_KEY
from tests.services.served import judging, served


def test_the_node_sdk_is_understood_in_its_own_order(
    node_folder: pathlib.Path, database_url: str, db: Database, keyring: Keyring, tmp_path: pathlib.Path
) -> None:
    rows = [
        {"custom_id": f"r{i}", "method": "POST", "url": "/v1/moderations", "body": {"model": "m", "input": f"text {i}"}}
        for i in range(3)
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    secret, body = new_secret(), json.dumps({"id": "evt_1", "object": "event", "type": "batch.completed", "data": {"id": "b"}})
    signed = sign([secret], event_id="evt_1", timestamp_s=int(time.time()), body=body.encode())
    settings = load_settings(database_url=database_url, secret_key=SECRET_KEY, data_dir=tmp_path, moderation_timeout_s=60)
    with served(settings) as url, judging(db, keyring):
        told = {
            "OPENAI_API_KEY": keys.create(db, keyring, name="node"), "OPENAI_BASE_URL": f"{url}/v1",
            "FILE": str(tmp_path / "in.jsonl"), "BODY": body, "HEADERS": json.dumps(signed), "SECRET": secret,
        }  # fmt: skip
        found = json.loads(printed([NODE, "flow.mjs"], node_folder, told))
    assert (found["kept_s"], found["short_s"], found["refused"]) == (2_592_000, 3600, [400, "invalid_purpose"])
    assert found["batch"] == ["completed", {"total": 3, "completed": 3, "failed": 0}]
    assert (found["flagged"], found["moderations"], found["models"]) == ([True] * 3, [True] * 2, ["m"])
    assert found["image"][0] == 422
    assert "no image" in found["image"][1]
    assert (found["event"], found["forged"]) == ("batch.completed", "refused")


def test_an_event_source_stops_when_the_batch_has_ended(
    node_folder: pathlib.Path, database_url: str, db: Database, keyring: Keyring, tmp_path: pathlib.Path
) -> None:
    key = keys.create(db, keyring, name="node")
    settings = load_settings(database_url=database_url, secret_key=SECRET_KEY, data_dir=tmp_path)
    with served(settings) as url, judging(db, keyring):
        headers = {"authorization": f"Bearer {key}", "content-type": "application/jsonl"}
        batch = httpx2.post(f"{url}/v1/batches", content=b'{"text": "one"}\n', headers=headers).json()["id"]
        found = json.loads(printed([NODE, "events.mjs"], node_folder, {"BASE": url, "KEY": key, "BATCH": batch}))
    assert (found["kinds"][-1], found["states"][-1], found["kinds"].count("batch.ended")) == ("batch.ended", "completed", 1)
    assert (found["connections"], found["code"]) == (2, 204)  # the second is told that there is nothing more
