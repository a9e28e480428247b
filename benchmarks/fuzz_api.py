"""Send malformed and random requests to the whole OpenAPI, with a real database and a worker that judges at once.

First every parameter and field with NUL, a lone surrogate, depth, 5,000 digits and the like (`tests/services/hostile.py`), of which
none may be answered 5xx; then schemathesis with all of its checks.

    python benchmarks/fuzz_api.py --postgres postgresql://postgres@127.0.0.1:5432/postgres --cases 10000

Ends with the numbers of cases and failures as one JSON; exits with 1 if there were failures.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time

import httpx2
from starlette.testclient import TestClient

from api.server import create_app
from guardfleet.cli.bench.scratch import scratch_database
from guardfleet.domain.verdict import Model
from guardfleet.security.encryption import Keyring, new_secret_key
from guardfleet.settings import Settings, load_settings
from guardfleet.store import keys, migrate, models
from guardfleet.store.jobs import control
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import completion, leases
from guardfleet.store.shards.completion import Row
from guardfleet.telemetry import logs
from tests.services import console_fuzz
from tests.services.hostile import requests_of, wrong_with
from tests.services.judged import SAFE
from tests.services.served import served

CONFIG = pathlib.Path(__file__).with_name("schemathesis.toml")
LOOK_S = 0.02
MOST_SHOWN = 50  # of the failures
PAGES = 100  # requests to each page and action of the console
EXAMPLES = 100  # of each operation and phase in one run


def main() -> int:
    """Run the fuzzer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--postgres", required=True, help="server on which a database may be created and dropped")
    parser.add_argument("--cases", type=int, default=10_000, help="minimum number of cases that schemathesis generates")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, scratch_database(asked.postgres) as (_, url):
        settings = load_settings(
            database_url=url, secret_key=new_secret_key(), data_dir=folder, log_level="error", moderation_timeout_s=20.0,
            webhook_timeout_s=0.5, api_max_body_bytes=1 << 20,
        )  # fmt: skip
        return fuzz(settings, cases=asked.cases, seed=asked.seed)


def fuzz(settings: Settings, *, cases: int, seed: int) -> int:
    """Run examples of each operation until there are enough; return 0 if all went well."""
    logs.configure(settings, process="fuzz")
    db, keyring = Database(settings.required("database_url")), Keyring(settings.required("secret_key"))
    migrate.upgrade(db)
    key = keys.create(db, keyring, name="fuzz", scopes=keys.SCOPES)
    ended = threading.Event()
    judging = threading.Thread(target=judge_all, args=(db, keyring, ended), daemon=True)
    judging.start()
    turn = generated = 0
    try:
        with served(settings) as url:
            known = one_of_everything(url, key)
            done, failed = map(sum, zip(spoilt(settings, key, known), pages(settings, key, url, known, seed), strict=True))
            while generated < cases and not failed:
                n, wrong = one_run(url, key, examples=EXAMPLES, seed=seed + turn)
                generated, failed, turn = generated + n, failed + wrong, turn + 1
                print(f"{generated:,} generated cases, {failed} failures", file=sys.stderr)
                if not n:
                    failed += 1
    finally:
        ended.set()
        judging.join(10)
        db.close()
    print(json.dumps({"cases": done + generated, "failures": failed}))
    return 1 if failed else 0


def spoilt(settings: Settings, key: str, known: dict[str, str]) -> tuple[int, int]:
    """Malform every parameter, field, body and content type in every way; return requests sent, and failures of the server."""
    app = create_app(settings.but(moderation_timeout_s=0.001))  # nobody must wait for these
    known |= {"delivery_id": "1", "model": "m"}
    with TestClient(app, raise_server_exceptions=False, headers={"authorization": f"Bearer {key}"}) as client:
        sent = list(requests_of(client.get("/openapi.json").json(), known))
        wrong = [found for request in sent if (found := wrong_with(client, request))]
    print("\n".join([*wrong[:MOST_SHOWN], f"{len(sent):,} spoilt requests, {len(wrong)} failures"]), file=sys.stderr)
    return len(sent), len(wrong)


def pages(settings: Settings, key: str, url: str, known: dict[str, str], seed: int) -> tuple[int, int]:
    """Ask every page and action of the console, signed in; return requests sent, and failures of the server."""
    app = console_fuzz.console_of(create_app(settings))
    asked = list(console_fuzz.requests_of(app, {"job": known["batch_id"], **known}, seed=seed, each=PAGES))
    with httpx2.Client(base_url=url, timeout=60) as person:
        person.post("/console/sign-in", data={"key": key})
        csrf = re.findall(r'name="csrf" value="([0-9a-f]+)"', person.get("/console/preferences").text)[0]
        wrong = [found for one in asked if (found := console_fuzz.wrong_with(person, one, csrf))]
    print("\n".join([*wrong[:MOST_SHOWN], f"{len(asked):,} requests to the console, {len(wrong)} failures"]), file=sys.stderr)
    return len(asked), len(wrong)


def one_run(url: str, key: str, *, examples: int, seed: int) -> tuple[int, int]:
    """Run schemathesis once over an API that has one of everything; return cases generated, and failures.

    Then follow what requests have made with other requests: with ids of their own, since given ones would take the place of these.
    """
    named = "".join(f'"path.{name}" = {toml(value)}\n' for name, value in one_of_everything(url, key).items())
    runs = [
        schemathesis(url, key, f"[parameters]\n{known}\n{CONFIG.read_text()}", phases, examples=examples, seed=seed)
        for phases, known in (("examples,coverage,fuzzing", named), ("stateful", ""))
    ]
    return sum(n for n, _ in runs), sum(wrong for _, wrong in runs)


def schemathesis(url: str, key: str, config: str, phases: str, *, examples: int, seed: int) -> tuple[int, int]:
    """Run these phases of schemathesis; return cases generated, and 1 if any failed."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(config)
        file.flush()
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", file.name, "run", f"{url}/openapi.json"),
            *("--header", f"Authorization: Bearer {key}", "--max-examples", str(examples), "--seed", str(seed), "--no-color"),
            *("--checks", "all", "--continue-on-failure", "--workers", "1", "--request-timeout", "30", "--phases", phases),
            *("--exclude-path-regex", "/events$|endpoint_id}/test$"),  # these go on until something happens
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout[-60_000:], done.stderr[-2000:], file=sys.stderr)
    cases = re.search(r"([\d,]+) generated", done.stdout)
    return int(cases[1].replace(",", "")) if cases else 0, int(done.returncode != 0)


def toml(value: str) -> str:
    """Return a path parameter in TOML; a number as one, or else it would not fit its schema."""
    return value if value.isdecimal() else f'"{value}"'


def one_of_everything(url: str, key: str) -> dict[str, str]:
    """Create one of each kind of thing; return their ids by parameter name."""
    line = b'{"custom_id": "1", "method": "POST", "url": "/v1/moderations", "body": {"input": "x"}}'
    with httpx2.Client(base_url=url, headers={"authorization": f"Bearer {key}"}) as client:
        batch = client.post("/v1/batches", content=line, headers={"content-type": "application/jsonl"}).json()["id"]
        file = client.post("/v1/files", data={"purpose": "batch"}, files={"file": ("a.jsonl", line)}).json()["id"]
        asked = {"name": "fuzz", "url": "https://example.com/hook", "event_types": ["batch.failed"]}
        endpoint = client.post("/v1/webhook_endpoints", json=asked).json()["id"]
        client.post("/v1/policies", json={"name": "fuzz", "default": "flag"})
        client.post("/v1/prompt-policies", json={"name": "fuzz", "text": "No refunds."})
        client.post("/v1/lists?name=fuzz", content=b"a term", headers={"content-type": "text/plain"})
        erasure = client.post("/v1/erasures", json={"ids": ["fuzz"]}).json()["id"]
        hold = client.post("/v1/holds", json={"ids": ["fuzz"], "reason": "fuzz"}).json()["data"][0]["id"]
    known = {"batch_id": batch, "file_id": file, "endpoint_id": endpoint, "erasure_id": erasure, "hold_id": hold}
    return known | {"name": "fuzz", "version": "1", "preset": "strict", "sample_id": "sample_" + "0" * 32}


def judge_all(db: Database, keyring: Keyring, ended: threading.Event) -> None:
    """Act as a minimal worker: whatever is ready is safe."""
    model_id = models.register(db, Model("m", "r", "p"))
    while not ended.is_set():
        with db.session() as connection:
            ready = connection.execute("select job_id, shard_no from shard where state = 0 order by lane desc").fetchall()
        for row in ready:
            held = leases.claim(db, row.job_id, row.shard_no, worker="fuzz", lease_s=60)
            if held is not None:
                texts = leases.load(db, keyring, held)
                completion.finish(db, held, [Row(text.id, SAFE, metadata=text.metadata) for text in texts], model_id=model_id)
        control.settle_cancelled(db, control.cancelling(db))
        time.sleep(LOOK_S)


if __name__ == "__main__":
    sys.exit(main())
