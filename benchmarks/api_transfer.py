"""Measure a 200 MB upload with its batch, and the output file of millions of verdicts: MB/s, and the API's memory.

    python benchmarks/api_transfer.py --postgres URL --broker URL --rows 5000000

The verdicts of the big batch are created in SQL. Prints one JSON.
"""

import argparse
import http.client
import json
import sys
import time
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg

from guardfleet.cli.bench.site import answers, environment, free_port, peak_mib, start, until
from guardfleet.security.encryption import Keyring
from guardfleet.store import keys
from guardfleet.store.postgres.database import Database

UPLOAD_BYTES = 200 << 20
LINE = json.dumps({"custom_id": "r%012d", "method": "POST", "url": "/v1/moderations", "body": {"input": "x" * 300}}) + "\n"
HEAD = (
    '--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    '--b\r\nContent-Disposition: form-data; name="file"; filename="x.jsonl"\r\n\r\n'
)
TAIL = "\r\n--b--\r\n"
LINES = UPLOAD_BYTES // len(LINE % 0)
LOOK_S = 0.2


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--postgres", required=True)
    parser.add_argument("--broker", required=True)
    parser.add_argument("--rows", type=int, default=5_000_000)
    asked = parser.parse_args()
    with environment(asked.postgres, asked.broker, engine="instant") as settings:
        db, port = Database(settings.required("database_url")), free_port()
        process = start(settings.but(api_port=port), "api", "api")
        try:
            until(lambda: answers(port), 30, "the API")
            auth = {"authorization": f"Bearer {keys.create(db, Keyring(settings.required('secret_key')), name='bench')}"}
            found = {"api_mib_at_start": peak_mib(process.pid), "upload": upload(port, auth)}
            found["api_mib_after_upload"] = peak_mib(process.pid)
            job = many_verdicts(settings.required("database_url"), asked.rows)
            found["output_file"] = download(port, auth, f"/v1/files/file-out-{job.hex}/content", asked.rows)
            found["jsonl"] = download(port, auth, f"/v1/batches/batch_{job.hex}/download", asked.rows)
            found["api_mib_after_downloads"] = peak_mib(process.pid)
        finally:
            process.stop()
            db.close()
    print(json.dumps(found))
    return 0


def upload(port: int, auth: dict[str, str]) -> dict[str, Any]:
    """Upload a file of batch lines, and create a batch of it."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    size = len(HEAD) + LINES * len(LINE % 0) + len(TAIL)
    headers = {"content-type": "multipart/form-data; boundary=b", "content-length": str(size)}
    started = time.perf_counter()
    connection.request("POST", "/v1/files", _body(), auth | headers)
    file = json.loads(connection.getresponse().read())
    seconds = time.perf_counter() - started
    asked = json.dumps({"input_file_id": file["id"], "endpoint": "/v1/moderations"})
    started = time.perf_counter()
    connection.request("POST", "/v1/batches", asked, auth | {"content-type": "application/json"})
    batch = json.loads(connection.getresponse().read())
    answered_s = time.perf_counter() - started
    while batch["status"] == "validating":
        time.sleep(LOOK_S)
        connection.request("GET", f"/v1/batches/{batch['id']}", headers=auth)
        batch = json.loads(connection.getresponse().read())
    taken_s = time.perf_counter() - started
    return {
        "mb": round(file["bytes"] / 1e6),
        "mb_per_s": round(file["bytes"] / 1e6 / seconds),
        "batch_answered_ms": round(1000 * answered_s),
        "texts": batch["request_counts"]["total"],
        "taken_in_s": round(taken_s, 1),
    }


def download(port: int, auth: dict[str, str], path: str, rows: int) -> dict[str, Any]:
    """Download everything and discard it."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    started = time.perf_counter()
    connection.request("GET", path, headers=auth)
    answer, n = connection.getresponse(), 0
    while piece := answer.read(1 << 20):
        n += len(piece)
    seconds = time.perf_counter() - started
    return {"mb": round(n / 1e6), "mb_per_s": round(n / 1e6 / seconds), "rows_per_s": round(rows / seconds)}


def many_verdicts(url: str, n: int) -> uuid.UUID:
    """Create a finished batch of `n` safe texts, on the day of the latest job."""
    public_id = uuid.uuid4()
    with psycopg.connect(url, autocommit=True) as connection:
        model = connection.execute(
            "insert into model (name, revision, policy, is_demo) values ('m', '0123456789abcdef', 'p', false) returning id"
        ).fetchone()
        job = connection.execute(
            """insert into job (public_id, tenant_id, day, state, name, total, done, safe, sealed_at, finished_at, key_id, model_id)
               select %s, 1, max(day), 2, 'big', %s, %s, %s, now(), now(), 'k', %s from job returning id, day""",
            (public_id, n, n, n, model and model[0]),
        ).fetchone()
        connection.execute(
            """insert into verdict (job_id, seq, day, severity, categories, served_by, model_id, probabilities, input_tokens,
                                    output_tokens, id, done_at, category_odds)
               select %s, i, %s, 0, 0, 0, %s, decode(lpad(to_hex(65536 * (250 - i %% 40) + i %% 7), 6, '0'), 'hex'),
                      40 + i %% 300, 8, 'row-' || i, now(), decode(lpad(to_hex(i %% 200), 20, '0'), 'hex')
               from generate_series(0, %s) i""",
            (job and job[0], job and job[1], model and model[0], n - 1),
        )
        connection.execute("analyze verdict")
    return public_id


def _body() -> Iterator[bytes]:
    yield HEAD.encode()
    for first in range(0, LINES, 500):
        yield "".join(LINE % i for i in range(first, min(LINES, first + 500))).encode()
    yield TAIL.encode()


if __name__ == "__main__":
    sys.exit(main())
