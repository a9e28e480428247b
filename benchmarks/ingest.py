r"""Measure what submitting texts costs: the same rows as JSONL and as CSV, by this code and in turn by another checkout's.

    python benchmarks/ingest.py --postgres postgresql://postgres@127.0.0.1:5432/postgres \
        --broker amqp://guest:guest@127.0.0.1:5672// --texts 1000000 --turns 3 --beside ../before/.venv/bin/python

Each run is one `guardfleet submit` into a database of its own, with nothing else running. Prints one JSON: for each code and format
the texts per second of every turn (from the job's creation to its last row), their median, and the peak resident memory in MiB.
"""

import argparse
import csv
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack

import psycopg

from guardfleet.cli.bench.scratch import scratch_database
from guardfleet.cli.bench.site import write_texts
from guardfleet.security.encryption import new_secret_key

FORMATS = ("jsonl", "csv")
PACE = "select total, extract(epoch from sealed_at - created_at)::float from job"


def main() -> int:
    """Print the rates; return 1 if a run lost a text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--postgres", required=True)
    parser.add_argument("--broker", required=True)
    parser.add_argument("--texts", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--beside", help="Python of another checkout's virtual environment")
    given = parser.parse_args()
    codes = {"this": sys.executable} | ({"beside": given.beside} if given.beside else {})
    found: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        sources = {name: pathlib.Path(folder) / f"texts.{name}" for name in given.formats.split(",")}
        write(sources, given.texts)
        for turn in range(given.turns):
            for name, source in sources.items():
                for code, python in list(codes.items())[:: 1 if turn % 2 else -1]:
                    rate, mib, taken = submit(python, source, given.postgres, given.broker)
                    if taken != given.texts:
                        print(f"{code} took {taken:,} of {given.texts:,} texts of {source.name}", file=sys.stderr)
                        return 1
                    found.setdefault(f"{code} {name}", []).append((rate, mib))
                    print(f"turn {turn + 1}: {code} {name}: {rate:,.0f} texts/s, {mib:.0f} MiB", file=sys.stderr)
    rates = {name: [round(rate) for rate, _ in runs] for name, runs in found.items()}
    medians = {name: statistics.median(each) for name, each in rates.items()}
    print(
        json.dumps(
            {
                "texts": given.texts,
                "texts_per_s": rates,
                "median": medians,
                "peak_mib": {n: max(m for _, m in r) for n, r in found.items()},
            }
        )
    )
    return 0


def write(sources: dict[str, pathlib.Path], n: int) -> None:
    """Write the same rows in each format."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        lines = pathlib.Path(folder) / "texts.jsonl"
        write_texts(lines, n)
        if "csv" in sources:
            out = csv.writer(stack.enter_context(sources["csv"].open("w", newline="", encoding="utf-8")))
            out.writerow(("id", "text"))
            for line in stack.enter_context(lines.open(encoding="utf-8")):
                row = json.loads(line)
                out.writerow((row["id"], row["text"]))
        if "jsonl" in sources:
            lines.rename(sources["jsonl"])


def submit(python: str, source: pathlib.Path, postgres: str, broker: str) -> tuple[float, float, int]:
    """Submit the file with this Python's guardfleet; return texts per second, peak memory in MiB, and texts accepted."""
    with scratch_database(postgres) as (name, url):
        settings = {
            "DATABASE_URL": url,
            "BROKER_URL": broker,
            "SECRET_KEY": new_secret_key(),
            "NAMESPACE": name,
            "LOG_LEVEL": "error",
        }
        environment = os.environ | {f"GUARDFLEET_{key}": value for key, value in settings.items()}
        guardfleet = [python, "-P", "-m", "guardfleet"]
        subprocess.run([*guardfleet, "db", "upgrade"], env=environment, check=True, stdout=subprocess.DEVNULL)
        running = subprocess.Popen(
            [*guardfleet, "submit", str(source)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(running.pid, 0)
        running.returncode = os.waitstatus_to_exitcode(status)
        if running.returncode:
            raise SystemExit(f"the submit ended with status {running.returncode}")
        with psycopg.connect(url) as connection:
            [(total, seconds)] = connection.execute(PACE).fetchall()
        return total / seconds, usage.ru_maxrss / 1024, total


if __name__ == "__main__":
    sys.exit(main())
