"""Judge one job by the guard and a detector while their workers are killed: is there one row for each text and judge, and no more?

    python -m benchmarks.detectors --postgres URL --broker URL                       20,000 texts, instant engines
    python -m benchmarks.detectors --postgres URL --broker URL --engine model --source FILE     the demo models, real texts

Every `--every-s` seconds a worker gets SIGKILL, guards and detectors in turn; its supervisor starts it again. A policy reads the
detector. Prints one JSON; the exit status is 1 if anything is lost, double, or decided otherwise than the rows say.
"""

import argparse
import json
import os
import pathlib
import signal
import sys
import time
from typing import Any

from guardfleet.cli.bench.pipeline import submit
from guardfleet.cli.bench.site import environment, start, until, write_texts
from guardfleet.policy.reading import read
from guardfleet.process.supervisor import Child
from guardfleet.settings import Settings
from guardfleet.store.jobs import views
from guardfleet.store.policy import policies
from guardfleet.store.postgres.database import Database

LIMIT_S = 900.0
POLICY = """
name: both
default: allow
errors: review
rules:
  - {{id: unsafe, when: {{severity: [unsafe, controversial]}}, action: block}}
  - {{id: found, when: {{detectors: {{{name}: {{label: {label}}}}}}}, action: flag}}
"""
# What the rows say that the policy must have said.
EXPECTED = """with v as materialized (select seq, severity, action from verdicts)
  select count(*) from v join detections d on d.seq = v.seq where v.action is distinct from case
    when v.severity = 'error' then 'review' when v.severity in ('unsafe', 'controversial') then 'block'
    when d.label = %(label)s or d.outcome = 'error' then 'flag' else 'allow' end"""


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--postgres", required=True)
    parser.add_argument("--broker", required=True)
    parser.add_argument("--engine", choices=("instant", "model"), default="instant")
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--source", help="JSON lines whose texts are judged; by default made up")
    parser.add_argument("--every-s", type=float, default=3.0)
    parser.add_argument("--kills", type=int, default=12)
    asked = parser.parse_args()
    slow = {"instant_ms_per_batch": 400.0} if asked.engine == "instant" else {}
    with environment(asked.postgres, asked.broker, engine=asked.engine, shard_texts=256, lease_s=3.0, **slow) as settings:
        found = run(asked, settings)
    print(json.dumps(found))
    return 1 if any(found[name] for name in ("lost", "double", "wrong_actions", "wrong_counts")) else 0


def run(asked: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    """Start a fleet, break it while it works, and count its rows."""
    db = Database(settings.required("database_url"))
    name, label = ("ai-text", "generated") if asked.engine == "model" else ("finder", "found")
    version, _ = policies.add(db, 1, read(POLICY.format(name=name, label=label)))
    policies.activate(db, version)
    detector = ("worker", "--detector", name)
    guards = [start(settings, f"guard{i}", "worker", says="worker_ready") for i in range(2)]
    finders = [start(settings, f"detector{i}", *detector, says="worker_ready") for i in range(2)]
    others = [start(settings, "dispatcher", "dispatcher")]
    try:
        source = settings.data_dir / "texts.jsonl"
        write_texts(source, asked.texts, source=asked.source or str(marked(settings.data_dir / "marked.jsonl")))
        job, _ = submit(settings, db, source, "--detector", f"guard,{name}")
        until(lambda: views.get(db, job.public_id).done > 0, LIMIT_S, "the first verdict")
        killed = kill(asked, db, job.public_id, [one for pair in zip(guards, finders, strict=True) for one in pair])
        until(lambda: views.get(db, job.public_id).state.is_final, LIMIT_S, "the end of the job")
        return counted(db, job.public_id, name, label) | {"texts": asked.texts, "engine": asked.engine, "killed": killed}
    finally:
        for child in (*guards, *finders, *others):
            child.stop()
        db.close()


def marked(path: pathlib.Path) -> pathlib.Path:
    """Write texts with the marks of the instant engine; return the path."""
    marks = [
        mark for every, mark in ((7, "[[found]]"), (11, "[[unsafe]]"), (13, "[[babble]]"), (1, "")) for _ in range(77 // every)
    ]
    path.write_text("".join(json.dumps({"text": f"text {i} {mark}"}) + "\n" for i, mark in enumerate(marks)))
    return path


def kill(asked: argparse.Namespace, db: Database, job: Any, children: list[Child]) -> int:
    """Kill workers in turn until the job has ended, and start them again; return how many were killed."""
    killed = 0
    while not views.get(db, job).state.is_final and killed < asked.kills:
        child = children[killed % len(children)]
        if child.pid is not None:
            os.kill(child.pid, signal.SIGKILL)
            killed += 1
        time.sleep(asked.every_s)
    return killed


def counted(db: Database, public_id: Any, name: str, label: str) -> dict[str, Any]:
    """Return what is lost, double or contradictory in the rows of the job."""
    job = views.get(db, public_id)
    with db.session() as connection:
        rows = connection.execute(
            """select (select count(*) from verdict where job_id = %(job)s) as verdicts,
                      (select count(distinct seq) from verdict where job_id = %(job)s) as texts,
                      (select count(*) from detection where job_id = %(job)s) as detections,
                      (select count(distinct seq) from detection where job_id = %(job)s) as detected""",
            {"job": job.id},
        ).fetchone()
        connection.execute("set statement_timeout = 0")
        wrong = connection.scalar(EXPECTED, {"label": label})
    ends = (job.detected or {}).get(name, {})
    return {
        "lost": 2 * job.total - rows.texts - rows.detected,
        "double": rows.verdicts - rows.texts + rows.detections - rows.detected,
        "wrong_actions": wrong,
        "wrong_counts": abs(sum(ends.values()) - job.total) + abs(sum(job.severities.values()) - job.total),
        "severities": job.severities,
        "detected": ends,
        "actions": job.actions,
    }


if __name__ == "__main__":
    sys.exit(main())
