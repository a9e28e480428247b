"""Equal texts are judged once: within a job always, within a tenant unless the job declines, across tenants if a setting allows."""

import pathlib
from collections import Counter

import pytest

from guardfleet.client.direct import DirectClient
from guardfleet.domain.options import JobOptions
from guardfleet.errors import RejectedError
from guardfleet.settings import Settings
from guardfleet.store import keys, verdicts
from guardfleet.store.jobs.views import JobView
from tests.services.fixtures import with_broker
from tests.services.fleet import fleet
from tests.services.outcome import assert_exactly_once, finished


def served(producer: DirectClient, job: JobView) -> Counter[str]:
    return Counter(row["served_by"] for row in verdicts.export(producer.db, job))


@with_broker("redis")
def test_a_text_repeated_all_over_a_job_is_judged_once(settings: Settings, tmp_path: pathlib.Path) -> None:
    slow = settings.but(instant_ms_per_batch=20.0, cache_hours=0.0)
    producer = DirectClient.connect(slow.but(shard_texts=50))
    texts = [f"text {i * 7919 % 300}" for i in range(3000)]
    with fleet(slow, tmp_path, ("dispatcher",), ("worker",)):
        job = finished(producer, producer.submit(texts).job)
        again = finished(producer, producer.submit(texts).job)  # without a cache, another job is judged anew
    for one in (job, again):
        assert_exactly_once(producer, one)
        assert served(producer, one) == {"model": 300, "duplicate": 2700}
    producer.db.close()


@with_broker("redis")
def test_verdicts_of_other_jobs_serve_unless_the_job_asks_not_to(settings: Settings, tmp_path: pathlib.Path) -> None:
    producer = DirectClient.connect(settings.but(shard_texts=50))
    texts = [f"text {i}" for i in range(100)]
    with fleet(settings, tmp_path, ("dispatcher",), ("worker",)):
        first = finished(producer, producer.submit(texts).job)
        cached = finished(producer, producer.submit(texts).job)
        anew = finished(producer, producer.submit(texts, JobOptions(use_cache=False)).job)
    assert [served(producer, job) for job in (first, cached, anew)] == [{"model": 100}, {"cache": 100}, {"model": 100}]
    producer.db.close()


@with_broker("redis")
def test_tenants_share_verdicts_only_where_a_setting_says_so(settings: Settings, tmp_path: pathlib.Path) -> None:
    one = DirectClient.connect(settings)
    keys.create(one.db, one.keyring, name="k", tenant="other")
    two = DirectClient(one.db, one.keyring, settings, tenant_id=2)
    for shared in (False, True):
        values = settings.but(cache_across_tenants=shared)
        texts = [f"{shared} {i}" for i in range(30)]
        (folder := tmp_path / str(shared)).mkdir()
        with fleet(values, folder, ("dispatcher",), ("worker",)):
            finished(one, one.submit(texts).job)
            theirs = two.submit(texts).job
            until_done(two, theirs)
        assert served(two, theirs) == {"cache" if shared else "model": 30}
    one.db.close()


def until_done(producer: DirectClient, job: JobView) -> None:
    from tests.services.fleet import until

    until(lambda: producer.status(job.label).is_final, what="the end of the job")


@with_broker("redis")
def test_what_was_left_out_of_a_row_is_told_of_that_row_alone(settings: Settings, tmp_path: pathlib.Path) -> None:
    producer = DirectClient.connect(settings)
    noted = {"text": "the same", "metadata": {"score": float("nan"), "lang": "en"}}
    with fleet(settings, tmp_path, ("dispatcher",), ("worker",)):
        jobs = [finished(producer, producer.submit(rows).job) for rows in ([noted, "the same"], ["the same", noted])]
        strict = finished(producer, producer.submit(["the same"], JobOptions(all_or_nothing=True)).job)
    rows = [list(verdicts.export(producer.db, job)) for job in (*jobs, strict)]
    note = {"notes": ["metadata: a number in the member 'score' is none that JSON has: it is null"]}
    assert [[row["evidence"] for row in found] for found in rows] == [[note, None], [None, note], [None]]
    assert [[row["served_by"] for row in found] for found in rows] == [["model", "duplicate"], ["cache", "duplicate"], ["cache"]]
    assert rows[0][0]["metadata"] == {"lang": "en", "score": None}
    assert rows[0][1]["rationale"].startswith(rows[0][0]["rationale"].removesuffix("."))
    with pytest.raises(RejectedError, match="line 1: metadata: a number in the member 'score'"):
        producer.submit([noted], JobOptions(all_or_nothing=True))
    producer.db.close()
