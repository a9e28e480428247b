"""Random verdicts through PostgreSQL, by COPY and by one statement, and out by every face: all agree with the interpretation.

Covers the pure faces (`tests/services/faces.py`) and those that need PostgreSQL: the view, exports, filters, counters.
"""

import json
import random
import time
import types
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from api.openai.batch import batch_object
from api.openai.result_files import Output
from guardfleet.cli.evaluation import confusion
from guardfleet.domain.verdict import NO_VERDICT, Category, Judgement, ServedBy, Severity, category_names
from guardfleet.security.encryption import Keyring
from guardfleet.store import models, verdicts
from guardfleet.store.events import deliveries
from guardfleet.store.jobs import figures, views
from guardfleet.store.jobs.views import JobView
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import completion
from guardfleet.store.shards.completion import Row
from guardfleet.verdicts.encoding import as_stored, of_plain, to_plain
from guardfleet.verdicts.filters import Filter
from guardfleet.verdicts.page import Cursor, Page
from tests.services.faces import ABSENT, PURE, SEVERITIES, Said, _completions, _jsonl, _moderations, agrees, truth
from tests.services.judged import UNSAFE, any_judgement
from tests.services.stored import MODEL, new_job, submit, took
from worker.webhooks.delivery import Deliverer

N = 250
CALLBACK = new_job(name="x", callback_url="http://127.0.0.1/", callback_secret="whsec_" + "a" * 32)


@dataclass
class Finished:
    """A job whose shards were finished with these judgements, in order."""

    db: Database
    keyring: Keyring
    job: JobView
    judged: list[Judgement]
    digests: list[bytes]

    @property
    def meant(self) -> list[Said]:
        return [Said(judgement.severity, category_names(judgement.categories), judgement.refusal) for judgement in self.judged]


Face = Callable[[Finished], list[Said]]


def _view(done: Finished) -> list[Said]:
    with done.db.begin() as connection:
        rows = connection.execute(
            f"select severity, categories, refusal from verdicts where job = '{done.job.label}' order by seq"
        ).fetchall()
    return [Said(SEVERITIES[severity], categories, refusal) for severity, categories, refusal in rows]


def _export(done: Finished) -> list[Said]:
    rows = verdicts.export(done.db, done.job)
    return [Said(SEVERITIES[row["severity"]], row["categories"], row["refusal"]) for row in rows]


def _filtered(done: Finished) -> list[Said]:
    """Each severity's own pages, put together."""
    found: dict[int, Said] = {}
    for severity in Severity:
        cursor, more = Cursor(), True
        while more:
            page = verdicts.page(done.db, done.job, cursor, limit=97, wanted=Filter([severity]))
            cursor, more = page.reached, page.has_more
            said = {row.seq: truth(row) for row in page.rows}
            assert {each.severity for each in said.values()} <= {severity}
            assert not said.keys() & found.keys()
            found |= said
    return [found[seq] for seq in sorted(found)]


def _result_files(done: Finished) -> list[Said]:
    """Each text in one of the two files, for both endpoints."""
    context: Any = types.SimpleNamespace(db=done.db, keyring=done.keyring)
    out: list[list[Said]] = []
    for endpoint in ("/v1/chat/completions", "/v1/moderations"):
        job = replace(done.job, endpoint=endpoint)
        read = [
            [json.loads(line) for line in b"".join(Output(context.db, context.keyring, job, is_errors).read()).splitlines()]
            for is_errors in (False, True)
        ]
        lines = [[line["custom_id"] for line in file] for file in read]
        unrated = {line["custom_id"] for line in read[1] if line["error"]["code"] == "unrated"}
        assert sorted(lines[0] + lines[1]) == sorted(f"id{seq}" for seq in range(len(done.judged)))
        failed = set(lines[1])
        ends = dict.fromkeys(failed, Severity.ERROR) | dict.fromkeys(unrated, Severity.UNRATED)
        out.append([Said(ends.get(f"id{i}", ABSENT), ABSENT, ABSENT) for i in range(len(done.judged))])
    assert out[0] == out[1]
    errors = {f"id{seq}" for seq, judgement in enumerate(done.judged) if judgement.severity in NO_VERDICT}
    assert failed == errors
    return out[0]


def _counters(done: Finished) -> list[Said]:
    counts = Counter(judgement.severity.label for judgement in done.judged)
    job = views.get(done.db, done.job.public_id)
    n, errors = len(done.judged), counts["error"] + counts["unrated"]
    assert job.severities == {one.label: counts[one.label] for one in Severity if one is not Severity.UNRATED or counts[one.label]}
    assert batch_object(job)["severities"] == job.severities
    assert job.request_counts == {"total": n, "completed": n - errors, "failed": errors}
    assert job.saved == sum(j.served_by not in (ServedBy.MODEL, ServedBy.NOBODY) for j in done.judged)
    return []


def _webhook(done: Finished) -> list[Said]:
    deliveries.relay(done.db, deliveries.events(done.db))
    none: Any = None  # it composes, and sends nothing
    sender = Deliverer(done.db, done.keyring, none, none, none, now=time.time, random=random.random, pause=time.sleep)
    (delivery,) = deliveries.due(done.db, limit=9, again_after_s=60, at_once=4, failing=8)
    held = deliveries.claim(done.db, delivery, lease_s=60)
    assert held is not None
    data = json.loads(sender._compose(held))["data"]
    assert data["severities"] == views.get(done.db, done.job.public_id).severities
    assert data["request_counts"]["failed"] == data["severities"]["error"] + data["severities"].get("unrated", 0)
    return []


def _summary(done: Finished) -> list[Said]:
    counts = Counter((judgement.severity, judgement.categories) for judgement in done.judged)
    assert figures.summary(done.db, done.job) == counts
    return []


def _cache(done: Finished) -> list[Said]:
    """What the cache gives for the texts that a model judged; it knows no errors."""
    held = took(done.db, submit(done.db, done.keyring, 1), 0)
    model_id = models.register(done.db, MODEL)
    known = verdicts.known(done.db, done.digests, held, model_id=model_id, max_age_hours=1)
    for digest, judgement, meant in zip(done.digests, done.judged, done.meant, strict=True):
        whole = not (judgement.evidence or {}).get("left_out")
        judged = judgement.severity is not Severity.ERROR and judgement.served_by is ServedBy.MODEL and whole
        assert (digest in known) == judged
        if judged:
            found = known[digest]
            assert Said(found.severity, category_names(found.categories), found.refusal) == meant
    return []


def _first_opinion(done: Finished) -> list[Said]:
    back = [of_plain(json.loads(json.dumps(to_plain(judgement)))) for judgement in done.judged]
    assert [judgement.probabilities for judgement in back] == [judgement.probabilities for judgement in done.judged]
    return [Said(judgement.severity, category_names(judgement.categories), judgement.refusal) for judgement in back]


def _evaluation(done: Finished) -> list[Said]:
    severities = [as_stored(judgement).severity for judgement in done.judged]
    found = confusion([True] * len(severities), severities, strict=True)
    assert found.false_negative == sum(judgement.severity is Severity.SAFE for judgement in done.judged)
    return [Said(severity, ABSENT, ABSENT) for severity in severities]


STORED: dict[str, Face] = {
    "view": _view,
    "export": _export,
    "filtered pages": _filtered,
    "result files": _result_files,
    "counters": _counters,
    "webhook": _webhook,
    "summary": _summary,
    "cache": _cache,
    "first opinion": _first_opinion,
    "evaluation": _evaluation,
}


def finished(db: Database, keyring: Keyring, judged: list[Judgement], shard_texts: int) -> Finished:
    """All of them stored, as a worker does it."""
    job = submit(db, keyring, len(judged), shard_texts=shard_texts, new=CALLBACK)
    digests = [keyring.digest(1, f"text {seq}") for seq in range(len(judged))]
    rows = [Row(f"id{seq}", judgement, digests[seq]) for seq, judgement in enumerate(judged)]
    for no in range(-(-len(judged) // shard_texts)):
        held = took(db, job, no)
        mine = rows[held.first_seq : held.first_seq + held.n]
        assert completion.finish(db, held, mine, model_id=models.register(db, MODEL))
    return Finished(db, keyring, views.get(db, job.public_id), judged, digests)


@pytest.mark.parametrize("shard_texts", [500, completion.FEW], ids=["by COPY", "in one statement"])
def test_all_faces_say_what_was_stored(db: Database, keyring: Keyring, shard_texts: int) -> None:
    rng = random.Random(shard_texts)
    done = finished(db, keyring, [any_judgement(rng) for _ in range(N)], shard_texts)
    pages = list(verdicts.in_order(db, done.job))
    page = Page([row for each in pages for row in each.rows], pages[0].models, Cursor())
    shown = {name: face(done.job, page) for name, face in PURE.items()} | {name: face(done) for name, face in STORED.items()}
    differences = [
        (name, seq) for name, said in shown.items() for seq, each in enumerate(said) if not agrees(each, done.meant[seq])
    ]
    assert all(len(said) in (0, N) for said in shown.values())
    print(f"{N:,} judgements through PostgreSQL and {len(shown)} faces: {len(differences)} differences")  # noqa: T201
    assert differences == []


BROKEN = (
    "severity = 7", "severity = -1", "categories = 512", "categories = -1", "served_by = 9", "probabilities = '\\xff'",
    "probabilities = ''", "category_odds = '\\xffff'", "severity = 3", "error = 'unparsed'", "severity = 0", "served_by = 4",
    "served_by = 3",
)  # fmt: skip


def test_a_row_that_nobody_understands_is_an_error_everywhere_and_costs_no_other(db: Database, keyring: Keyring) -> None:
    n = len(BROKEN) + 1
    done = finished(db, keyring, [UNSAFE] * n, completion.FEW)
    with db.begin() as connection:
        for seq, change in enumerate(BROKEN):
            connection.execute(f"update verdict set {change} where seq = {seq}")
    done = replace(done, judged=[replace(UNSAFE, severity=Severity.ERROR, categories=Category.NONE)] * len(BROKEN) + [UNSAFE])
    assert _view(done) == _export(done) == done.meant
    with db.begin() as connection:
        details = connection.execute(
            "select error, error_detail, rationale, served_by, p_safe from verdicts order by seq"
        ).fetchall()
    ours = [
        (row["error"], row["error_detail"], row["rationale"], row["served_by"], row["p_safe"])
        for row in verdicts.export(db, done.job)
    ]
    assert [tuple(row) for row in details] == ours
    assert [error for error, *_ in ours] == ["unreadable"] * len(BROKEN) + [None]
    page = verdicts.page(db, done.job, Cursor(), limit=100)
    assert _jsonl(done.job, page) == _completions(done.job, page) == _moderations(done.job, page) == done.meant
    context: Any = types.SimpleNamespace(db=db, keyring=keyring)
    lines = [
        json.loads(line)
        for is_errors in (False, True)
        for line in b"".join(
            Output(context.db, context.keyring, replace(done.job, endpoint="/v1/chat/completions"), is_errors).read()
        ).splitlines()
    ]
    assert sorted(line["custom_id"] for line in lines) == sorted(f"id{seq}" for seq in range(n))
    assert [line["custom_id"] for line in lines if line["error"] is None] == [f"id{n - 1}"]
    counts = figures.summary(db, done.job)
    assert sum(count for (severity, _), count in counts.items() if severity is Severity.SAFE) == 0
    found = verdicts.known(
        db, done.digests, took(db, submit(db, keyring, 1), 0), model_id=models.register(db, MODEL), max_age_hours=1
    )
    assert found.keys() <= {done.digests[-1]}


def test_every_column_of_the_view_says_what_it_is(db: Database) -> None:
    with db.begin() as connection:
        silent = connection.execute(
            """select attname from pg_attribute
               where attrelid = 'verdicts'::regclass and attnum > 0 and col_description(attrelid, attnum) is null"""
        ).fetchall()
    assert silent == []
