"""Two people review one queue at once through the console's pages; one is killed with a text in hand, and a third takes over."""

import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import krippendorff
import numpy as np

from guardfleet.domain.reviews import Kind, QueueOptions
from guardfleet.domain.scopes import ROLES
from guardfleet.domain.verdict import Severity
from guardfleet.jobs import reviewing
from guardfleet.jobs.intake import Intake
from guardfleet.policy.reading import read
from guardfleet.rows.payload import PayloadRow
from guardfleet.sampling.reliability import alpha
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings
from guardfleet.store import keys, models
from guardfleet.store.jobs import views
from guardfleet.store.labels import labels, progress
from guardfleet.store.labels.queues import Queue
from guardfleet.store.policy import policies
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import completion, leases
from guardfleet.store.shards.completion import Row
from tests.services.fleet import Process, until
from tests.services.judged import UNSAFE
from tests.services.stored import MODEL, new_job

TENANT = 1
EVERYTHING = "name: look\ndefault: review\n"
LEASE_S = 5


@dataclass(frozen=True)
class Seen:
    """What the rows say afterwards."""

    texts: int
    seconds: int
    twice: int  # answers of one kind to one text besides the first, or two answers of one person
    lost: int  # texts without an answer, or answers that were confirmed and are not stored
    orphans: int  # labels without an answer, or answers without a label
    held_by_the_killed: int
    by_person: dict[str, int]
    alpha: dict[str, float | None]
    alpha_by_krippendorff: dict[str, float]
    took_s: float


class Reviewer:
    """A process of `tests.services.reviewer`, whose lines go to a file."""

    def __init__(self, url: str, queue: Queue, key: str, log: pathlib.Path) -> None:
        self.log = log
        command = [sys.executable, "-m", "tests.services.reviewer", url, queue.label, log.stem]
        with log.open("wb") as out:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT, text=True)
        assert self.process.stdin is not None
        self.process.stdin.write(key + "\n")
        self.process.stdin.close()

    def lines(self, word: str) -> list[list[str]]:
        """What it wrote so far that begins with this word."""
        return [line.split() for line in self.log.read_text().splitlines() if line.startswith(word + " ")]

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def check(self) -> None:
        """Fail if it ended by itself."""
        assert self.process.poll() is None, self.log.read_text()[-2000:]


def brought(db: Database, keyring: Keyring, settings: Settings, n: int) -> int:
    """Return a job of n texts, judged, all of which the policy sends to review."""
    version, _ = policies.add(db, TENANT, read(EVERYTHING))
    policies.activate(db, version)
    with Intake(db, keyring, settings, new_job()) as taking:
        taking.add_all((i + 1, PayloadRow(f"id{i}", f"text {i}")) for i in range(n))
        job = taking.seal()
    model_id = models.register(db, MODEL)
    while views.get(db, job.public_id).done < n:
        for no in range(n):
            held = leases.claim(db, job.id, no, worker="w", lease_s=60)
            if held is None:
                break
            rows = [Row(f"id{held.first_seq + i}", UNSAFE) for i in range(held.n)]
            assert completion.finish(db, held, rows, model_id=model_id) is not None
    return job.id


@contextmanager
def ended(reviewers: Sequence[Reviewer]) -> Iterator[None]:
    """Kill all of them at the end."""
    try:
        yield
    finally:
        for one in reviewers:
            one.kill()


def experiment(settings: Settings, folder: pathlib.Path, *, texts: int) -> Seen:
    """Run it on a migrated database; `settings.api.port` is the API's."""
    db, keyring = Database(settings.required("database_url")), Keyring.of(settings)
    job_id = brought(db, keyring, settings, texts)
    options = QueueOptions("night", second_share=0.1, break_after=0, lease_s=LEASE_S)
    queue = reviewing.create(db, TENANT, options, job=None, sample=None)
    url, api = f"http://127.0.0.1:{settings.api.port}", Process(settings, "api", log=folder / "api.log")
    people: list[Reviewer] = []

    def join(name: str) -> Reviewer:
        key = keys.create(db, keyring, name=name, scopes=ROLES["reviewer"])
        people.append(Reviewer(url, queue, key, folder / f"{name}.log"))
        return people[-1]

    try:
        until(lambda: _listens(settings.api.port), what="the API")
        began = time.monotonic()
        with ended(people):
            first = join("ann")
            join("bob")
            until(lambda: _share(db, queue, people) >= texts // 3, what="a third of the answers")
            first.kill()
            held = _held_by(db, first)
            people.remove(first)
            join("eve")
            until(lambda: _is_over(db, queue, texts, people), what="an answer to every text")
        return _seen(db, job_id, queue, texts, [first, *people], held, time.monotonic() - began)
    finally:
        api.stop()
        db.close()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _share(db: Database, queue: Queue, people: Sequence[Reviewer]) -> int:
    for one in people:
        one.check()
    return progress.progress(db, queue).decided


def _is_over(db: Database, queue: Queue, texts: int, people: Sequence[Reviewer]) -> bool:
    return _share(db, queue, people) == texts and progress.progress(db, queue).seconds == 0


def _held_by(db: Database, killed: Reviewer) -> int:
    said = [int(task) for _, task, _ in killed.lines("said")]
    with db.session() as connection:
        n: int = connection.scalar(
            """select count(*) from review_task where decided_at is null
                 and claimed_by in (select claimed_by from review_task
                                    where id = any(%(said)s::int8[]) and decided_at is not null)""",
            {"said": said},
        )
    return n


def _seen(db: Database, job_id: int, queue: Queue, n: int, people: Sequence[Reviewer], held: int, took_s: float) -> Seen:
    with db.session() as connection:
        rows: list[Any] = connection.execute(
            "select id, seq, kind, claimed_by, severity from review_task where job_id = %(job)s and decided_at is not null",
            {"job": job_id},
        ).fetchall()
    answers = {str(row.id): Severity(row.severity).label for row in rows}
    promised = [(task, label) for one in people for _, task, label in one.lines("said")]
    stored = [(one.seq, one.author) for one in labels.page(db, TENANT, job_id=job_id, limit=10 * n)]
    of_kind, of_person = Counter((row.seq, row.kind) for row in rows), Counter((row.seq, row.claimed_by) for row in rows)
    firsts = {row.seq for row in rows if row.kind == Kind.FIRST}
    pairs = [(one.first, one.second) for one in progress.pairs(db, queue) for _ in range(one.texts)]
    table, levels = np.array(pairs).T, ("nominal", "ordinal")
    ours = {level: alpha(pairs, n_values=3, level=level) for level in levels}  # type: ignore[arg-type]
    theirs = {one: krippendorff.alpha(reliability_data=table, level_of_measurement=one, value_domain=[0, 1, 2]) for one in levels}
    return Seen(
        texts=len(firsts),
        seconds=sum(row.kind == Kind.SECOND for row in rows),
        twice=sum(count - 1 for counts in (of_kind, of_person) for count in counts.values()),
        lost=len(set(range(n)) - firsts) + sum(answers.get(task) != label for task, label in promised),
        orphans=len(set(stored) ^ set(of_person)) + len(stored) - len(set(stored)),
        held_by_the_killed=held,
        by_person=dict(Counter(row.claimed_by for row in rows)),
        alpha={level: None if found is None else round(found.value, 9) for level, found in ours.items()},
        alpha_by_krippendorff={level: round(float(found), 9) for level, found in theirs.items()},
        took_s=round(took_s, 1),
    )
