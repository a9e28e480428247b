"""The whole pipeline through real processes, a real broker and PostgreSQL: every text gets exactly one verdict."""

import json
import pathlib

import pytest

from guardfleet.client.direct import DirectClient
from guardfleet.domain.options import JobOptions
from guardfleet.domain.states import JobState
from guardfleet.settings import Settings
from guardfleet.store import verdicts
from guardfleet.store.jobs import unprocessed
from producer.submit import submit_file
from tests.services.fixtures import with_broker
from tests.services.fleet import fleet
from tests.services.outcome import assert_exactly_once, finished
from tests.services.patience import patience

WORKER, DISPATCHER, WEBHOOKS = ("worker",), ("dispatcher",), ("worker", "--webhooks")


def test_every_text_gets_exactly_one_verdict_with_its_id(settings: Settings, tmp_path: pathlib.Path) -> None:
    producer = DirectClient.connect(settings.but(shard_texts=50))
    texts = [{"id": f"t{i}", "text": f"text {i}" + (" [[unsafe]]" if i % 10 == 0 else "")} for i in range(1000)]
    with fleet(settings, tmp_path, WORKER, DISPATCHER):
        job = finished(producer, producer.submit(texts).job)
    assert job.state is JobState.COMPLETED
    assert_exactly_once(producer, job)
    rows = list(verdicts.export(producer.db, job))
    assert [row["id"] for row in rows] == [text["id"] for text in texts]
    assert (job.safe, job.unsafe, job.error) == (900, 100, 0)
    assert rows[0]["categories"] == ["Violent"]
    assert rows[0]["rationale"] == (
        "Unsafe in Violent; probability safe 0.020, controversial 0.078, unsafe 0.902; judged by instant@1."
    )
    producer.db.close()


@with_broker("redis")
def test_duplicates_and_known_texts_cost_no_model_run(settings: Settings, tmp_path: pathlib.Path) -> None:
    producer = DirectClient.connect(settings)
    with fleet(settings, tmp_path, WORKER, DISPATCHER):
        first = finished(producer, producer.submit(["one", "two", "one", "  ", ""]).job)
        second = finished(producer, producer.submit(["two", "three"]).job)
    assert [row["served_by"] for row in verdicts.export(producer.db, first)] == [
        "model",
        "model",
        "duplicate",
        "rule:empty",
        "rule:empty",
    ]
    assert [row["served_by"] for row in verdicts.export(producer.db, second)] == ["cache", "model"]
    assert (first.saved, second.saved) == (3, 1)
    producer.db.close()


BAD_LINES = [
    b'{"id": "good-1", "text": "fine"}',
    b"{not json",
    b'{"id": "no-text"}',
    b'{"id": "number", "text": 7}',
    b'{"id": "good-1", "text": "the same id"}',
    b'"just a string"',
    b"[1, 2]",
    b"\xff\xfe",
    b'{"id": "nul", "text": "a\\u0000b"}',
    b'{"id": "surrogate", "text": "a\\ud800b"}',
    b'{"id": "empty", "text": ""}',
    b'{"id": "spaces", "text": " \\n\\t "}',
    b'{"id": "token", "text": "ends <|im_end|> here"}',
    b'{"id": "id\\u0000nul", "text": "x"}',
    b'{"id": true, "text": "x"}',
    b'{"id": "both", "text": "x", "messages": []}',
    b'{"id": "orphan", "messages": [{"role": "assistant", "content": "hello"}]}',
    b'{"id": "crowd", "messages": [' + b", ".join([b'{"role": "user", "content": "x"}'] * 300) + b"]}",
    b'{"custom_id": "batch-line", "method": "POST", "url": "/v1/moderations", "body": {"input": "fine"}}',
    b'{"id": "meta", "text": "x", "metadata": {"k": "a\\u0000"}}',
    b'{"id": "long", "text": "' + b"word " * 200_000 + b'"}',
    b"",
    b"[" * 100_000,
    b'{"id": "last", "text": "fine too [[unsafe]]"}',
]


@with_broker("rabbitmq")
def test_each_kind_of_bad_line_gets_what_the_design_says(settings: Settings, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_bytes(b"\n".join(BAD_LINES))
    producer = DirectClient.connect(settings)
    with fleet(settings, tmp_path, WORKER, DISPATCHER):
        submission = submit_file(producer, str(file))
        job = finished(producer, submission.job)
    refused = {row["line"]: row["code"] for row in unprocessed.refused(producer.db, job)}
    assert refused == {
        2: "invalid_json",
        3: "missing_text",
        4: "wrong_type",
        5: "duplicate_id",
        7: "wrong_type",
        8: "invalid_encoding",
        14: "invalid_id",
        15: "invalid_id",
        16: "missing_text",
        23: "invalid_json",
    }
    rows = {row["id"]: row for row in verdicts.export(producer.db, job)}
    assert {name: (row["severity"], row["served_by"]) for name, row in rows.items()} == {
        "good-1": ("safe", "model"),
        "line:6": ("safe", "model"),
        "nul": ("safe", "model"),
        "surrogate": ("safe", "model"),
        "empty": ("safe", "rule:empty"),
        "spaces": ("safe", "rule:empty"),
        "token": ("safe", "model"),
        "orphan": ("safe", "model"),
        "crowd": ("error", "nobody"),
        "meta": ("safe", "model"),
        "batch-line": ("safe", "duplicate"),
        "long": ("safe", "model"),
        "last": ("unsafe", "model"),
    }
    windows = rows["long"]["evidence"]["windows"]
    assert (windows[0][0], windows[-1][1]) == (0, 1_000_000)
    assert f"one of {len(windows)} windows" in rows["long"]["rationale"]
    assert rows["crowd"]["error"] == "invalid_conversation"
    assert rows["meta"]["metadata"] is None
    assert rows["meta"]["evidence"] == {"notes": ["metadata: the member 'k' holds a NUL byte or a lone surrogate: it is left out"]}
    assert rows["empty"]["rationale"] == "Safe: the text is empty, so there was nothing to judge."
    assert_exactly_once(producer, job)
    producer.db.close()


@with_broker("redis")
def test_a_row_that_the_engine_cannot_take_is_isolated(settings: Settings, tmp_path: pathlib.Path) -> None:
    producer = DirectClient.connect(settings)
    texts = [f"text {i}" for i in range(40)] + ["[[raise]] a", "[[alone-oom]] b", "[[oom]] c", "[[babble]] d"]
    with fleet(settings, tmp_path, WORKER, DISPATCHER):
        job = finished(producer, producer.submit(texts).job)
    rows = list(verdicts.export(producer.db, job))
    assert [row["error"] for row in rows[40:]] == ["engine_failed", "engine_failed", None, "unparsed"]
    assert (job.safe, job.error) == (41, 3)
    assert rows[43]["raw"] == "I would rather talk about the weather."
    assert_exactly_once(producer, job)
    producer.db.close()


@with_broker("redis")
def test_strict_takes_nothing_of_a_job_with_a_bad_line(settings: Settings, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_bytes(b"\n".join(BAD_LINES))
    producer = DirectClient.connect(settings)
    with pytest.raises(Exception, match="line 2"):
        submit_file(producer, str(file), JobOptions(all_or_nothing=True))
    with producer.db.begin() as connection:
        assert connection.execute("select state, reason from job").fetchone() == (
            5,
            "line 2: Expecting property name enclosed in double quotes at column 2 (invalid_json)",
        )
        assert connection.scalar("select count(*) from shard") == 0
    producer.db.close()


def test_no_text_reaches_a_log_or_the_broker(settings: Settings, tmp_path: pathlib.Path) -> None:
    canary = "canary-2f7c91"
    producer = DirectClient.connect(settings.but(shard_texts=3))
    texts = [f"{canary} {mark}" for mark in ("", "[[unsafe]]", "[[raise]]", "[[babble]]", "[[alone-oom]]")]
    debug = settings.but(log_level="debug")
    with fleet(debug, tmp_path, WORKER, DISPATCHER) as processes:
        finished(producer, producer.submit([{"id": f"{i}", "text": t} for i, t in enumerate(texts)]).job)
        logs = [process.log for process in processes]
    for log in logs:
        assert canary not in log.read_text()
        assert "shard_finished" in log.read_text() or "shards_published" in log.read_text()
    with producer.db.begin() as connection:
        blobs = connection.scalars("select blob from shard_payload")
    assert blobs
    assert not any(canary.encode() in bytes(blob) for blob in blobs)
    producer.db.close()


@with_broker("redis")
def test_verdict_rows_are_json_lines(settings: Settings, tmp_path: pathlib.Path) -> None:
    from guardfleet.verdicts import export

    producer = DirectClient.connect(settings)
    with fleet(settings, tmp_path, WORKER, DISPATCHER):
        job = finished(
            producer,
            producer.submit([{"id": "=cmd()", "text": "x", "metadata": {"a": [1]}}, {"id": "2", "text": "[[unsafe]]"}]).job,
        )
    for fmt in export.FORMATS:
        assert export.write(verdicts.in_order(producer.db, job), str(tmp_path / f"out.{fmt}"), fmt) == 2
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(row["id"], row["severity"], row["is_demo"]) for row in rows] == [("=cmd()", "safe", True), ("2", "unsafe", True)]
    assert rows[0]["metadata"] == {"a": [1]}
    assert ",=cmd()," in f",{(tmp_path / 'out.csv').read_text().splitlines()[1]}"  # as it came; test_export has the safe way
    import pyarrow.parquet as pq

    assert pq.read_table(tmp_path / "out.parquet").column("severity").to_pylist() == ["safe", "unsafe"]
    producer.db.close()


def test_the_broker_says_how_many_doorbells_it_has(settings: Settings) -> None:
    from guardfleet.broker.celery_app import MODERATE, Publisher, make_app

    publisher = Publisher(make_app(settings, "test"), settings)
    lane = publisher.queues.lanes[0]
    try:
        assert publisher.depth(lane) == 0
        assert publisher.publish(MODERATE, lane, [{"job": 1, "shard": i} for i in range(3)]) == 3
        assert publisher.depth(lane) == 3
    finally:
        publisher.close()


def test_without_a_fault_no_doorbell_is_called_lost(settings: Settings, tmp_path: pathlib.Path) -> None:
    patient = settings.but(instant_ms_per_batch=patience(200.0), republish_s=patience(1.0))  # the last waits for 6 of these
    producer = DirectClient.connect(patient.but(shard_texts=10))
    with fleet(patient, tmp_path, ("dispatcher",), ("worker",)) as (dispatcher, _):
        finished(producer, producer.submit([f"text {i}" for i in range(400)]).job)
        assert not dispatcher.says("messages_lost")
    producer.db.close()
