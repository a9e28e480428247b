"""Labels and samples on real PostgreSQL: kept per tenant, stored once, drawn as told, and deleted with their jobs."""

import uuid
from collections import Counter
from typing import Any

import pytest

from guardfleet.domain import ids
from guardfleet.domain.targets import Targets
from guardfleet.domain.verdict import Judgement
from guardfleet.errors import NotFoundError, RejectedError
from guardfleet.jobs import erase, labelling, review, sampling
from guardfleet.jobs.asked import Asked as WhatToErase
from guardfleet.jobs.labelling import Asked, Defaults, Refused, Taken
from guardfleet.jobs.redecide import redecide
from guardfleet.security.encryption import Keyring
from guardfleet.store import audit, keys, verdicts
from guardfleet.store.audit import Wanted
from guardfleet.store.jobs import control, retention, views
from guardfleet.store.jobs.views import JobView
from guardfleet.store.labels import labels, samples
from guardfleet.store.policy import policies
from guardfleet.store.policy.decisions import Scope
from guardfleet.store.postgres.database import Database
from tests.services.judged import SAFE, UNSAFE, UNSURE, failed
from tests.services.moderating import moderator
from tests.services.stored import LONG_AGO, finished_on, scalar, submit
from tests.store.test_erasure import BY_ID, brought
from tests.store.test_policies import STRICT, TENANT, activated, finished
from worker.moderation.tasks import Moderator

__all__ = ["moderator"]
FOUR = (SAFE, UNSAFE, UNSURE, failed("unparsed"))
REVIEWER = Defaults(source="reviewer", author="ann")
SHADOW = "name: other\nshadow: true\ndefault: allow\nerrors: review\nrules: [{id: all, when: {severity: unsafe}, action: flag}]\n"


def judged(n: int) -> list[Judgement]:
    return [FOUR[i % 4] for i in range(n)]


def given(db: Database, job: JobView, *rows: dict[str, Any], tenant_id: int = TENANT, of: Defaults = REVIEWER) -> Taken:
    """What became of these labels of the job."""
    return labelling.store(db, tenant_id, [labelling.read({"job": job.label, **row}, of) for row in rows])


def drawn(db: Database, job: JobView, n: int, *by: str, key: str | None = None, seed: int = 7) -> samples.Sample:
    return sampling.draw(db, job, sampling.plan_of(n, by, slice_key=key, seed=seed), slice_key=key)


def texts_of(db: Database, sample: samples.Sample) -> list[samples.Drawn]:
    return [one for page in samples.pages(db, sample, size=7) for one in page]


def codes(taken: Taken) -> list[str]:
    return [one.code for one in taken.refused.values()]


def test_a_label_is_stored_once_and_a_change_of_mind_beside_it(db: Database, keyring: Keyring) -> None:
    job = finished(db, keyring, judged(12))
    first = given(db, job, {"seq": 1, "label": "unsafe", "categories": ["Violent"]}, {"row_id": "id2", "label": "Safe"})
    assert first == Taken(2, 0, {})
    again = given(db, job, {"seq": "1", "label": "unsafe", "categories": "Violent; None"}, {"seq": 2, "label": "safe"})
    assert again == Taken(0, 2, {})
    assert given(db, job, {"seq": 1, "label": "controversial"}, {"seq": 1, "label": "unsafe"}).new == 2
    there = [one.as_dict() for one in labels.page(db, TENANT, job_id=job.id, limit=9)]
    assert [(one["seq"], one["label"], one["categories"]) for one in there] == [
        (1, "unsafe", ["Violent"]), (2, "safe", []), (1, "controversial", []), (1, "unsafe", []),
    ]  # fmt: skip
    assert {(one["source"], one["author"], one["sample_id"], one["inclusion_probability"]) for one in there} == {
        ("reviewer", "ann", None, None)
    }
    assert [tuple(one) for one in labels.summary(db, TENANT)] == [(2, 0, 1, 1, 0), (2, 1, 1, 1, 0), (2, 2, 2, 1, 0)]
    imports = [event.detail for event in audit.events(db, Wanted(actions=["label.import"]))]
    assert imports == [{"job": job.label, "labels": 2}] * 2  # nothing new was nothing done
    (rest,) = [labels.page(db, TENANT, after=int(there[1]["id"].removeprefix("label_")), limit=9)]
    assert [one.severity for one in rest] == [1, 2]


def test_each_label_that_is_not_taken_says_why(db: Database, keyring: Keyring) -> None:
    job, other = finished(db, keyring, judged(8)), finished(db, keyring, judged(8))
    sample = drawn(db, other, 8)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"seq": 1}, "unlabelled"),
        ({"seq": 1, "label": " "}, "unlabelled"),
        ({"seq": 1, "label": "error"}, "unknown_label"),
        ({"seq": 1, "label": 2}, "unknown_label"),
        ({"seq": 1, "label": "safe", "source": "guess"}, "unknown_source"),
        ({"seq": 1, "label": "safe", "author": "a\0b"}, "invalid_author"),
        ({"seq": 1, "label": "safe", "author": "x" * 101}, "invalid_author"),
        ({"seq": 1, "label": "unsafe", "categories": ["Bad"]}, "unknown_category"),
        ({"seq": 1, "label": "unsafe", "categories": [["PII"]]}, "unknown_category"),
        ({"seq": 1, "label": "safe", "categories": "PII"}, "safe_with_categories"),
        ({"label": "safe"}, "no_text"),
        ({"seq": -1, "label": "safe"}, "invalid_seq"),
        ({"seq": True, "label": "safe"}, "invalid_seq"),
        ({"seq": 2**31, "label": "safe"}, "invalid_seq"),
        ({"seq": 8, "label": "safe"}, "no_such_text"),
        ({"row_id": "id8", "label": "safe"}, "no_such_text"),
        ({"row_id": "\ud800", "label": "safe"}, "no_such_text"),
        ({"seq": 1, "row_id": "id2", "label": "safe"}, "another_text"),
        ({"seq": 1, "label": "safe", "job": "batch_1"}, "not_found"),
        ({"seq": 1, "label": "safe", "job": ids.JOB.of(uuid.uuid4())}, "not_found"),
        ({"seq": 1, "label": "safe", "sample_id": ids.SAMPLE.of(uuid.uuid4())}, "not_found"),
        ({"seq": 1, "label": "safe", "sample_id": sample.label}, "not_in_sample"),
    ]
    found = given(db, job, *(row for row, _ in wrong), {"seq": 0, "label": "safe"})
    assert list(zip(found.refused, codes(found), strict=True)) == list(enumerate(code for _, code in wrong))
    assert (found.new, scalar(db, "select count(*) from label")) == (1, 1)
    assert "id8" not in str(found.refused)
    assert isinstance(labelling.read({"seq": 1, "label": "safe", "job": job.label}, Defaults()), Refused)
    assert isinstance(labelling.read({"seq": 1, "label": "safe"}, Defaults(job.label, "golden", "b")), Asked)


def test_a_label_knows_the_sample_that_asked_for_it(db: Database, keyring: Keyring) -> None:
    job = finished(db, keyring, judged(40))
    first, second = drawn(db, job, 10, "random"), drawn(db, job, 40, "random")
    probability = {one.seq: one.probability for one in texts_of(db, first)}
    assert set(probability.values()) == {0.25}
    seq, outside = next(iter(probability)), next(seq for seq in range(40) if seq not in probability)
    given(db, job, {"seq": seq, "label": "safe", "sample_id": first.label}, {"seq": outside, "label": "safe"})
    given(db, job, {"seq": seq, "label": "unsafe", "source": "appeal"})
    found = {(one.seq, one.source): (one.sample_id, one.probability) for one in labels.page(db, TENANT, limit=9)}
    assert found == {(seq, 2): (first.label, 0.25), (outside, 2): (second.label, 1.0), (seq, 4): (None, None)}
    asked = {(one.seq, one.sample_id): [label.source.label for label in one.labels] for one in labels.asked_for(db, job.id)}
    assert asked == {(seq, first.id): ["reviewer", "appeal"], (outside, second.id): ["reviewer"]}
    given(db, job, {"seq": seq, "label": "safe"})  # for the newest sample that has it: another label, though it says the same
    assert {one.sample_id for one in labels.asked_for(db, job.id)} == {first.id, second.id}


@pytest.mark.parametrize(
    ("by", "key"), [(["random"], None), (["uncertain"], None), (["slice"], "lang"), (["random", "uncertain"], "lang")]
)
def test_a_sample_is_stored_as_it_is_drawn_and_again_for_the_same_seed(db: Database, keyring: Keyring, by: Any, key: Any) -> None:
    job = finished(db, keyring, judged(90))
    one, again, other = (drawn(db, job, 24, *by, key=key, seed=seed) for seed in (7, 7, 8))
    texts = texts_of(db, one)
    assert texts == texts_of(db, again)
    assert texts != texts_of(db, other)
    assert [text.ord for text in texts] == list(range(one.n))
    assert len({text.seq for text in texts}) == one.n <= 24
    assert all(0 < text.probability <= 1 for text in texts)
    assert one.as_dict() | {"created_at": 0} == {
        "id": one.label, "object": "sample", "batch_id": job.label.replace("job_", "batch_"), "n": 24,
        "by": [*by, "slice"] if key and "slice" not in by else by, "slice": key, "population": 90, "texts": one.n, "seed": 7,
        "created_at": 0,
    }  # fmt: skip
    if key:
        language = {i: None if i % 3 == 0 else "de" if i % 2 else "en" for i in range(90)}
        assert [text.stratum for text in texts] == [language[text.seq] for text in texts]
        assert {text.stratum for text in texts} == {None, "de", "en"}
    rows = list(sampling.rows(db, one, job, texts))
    assert [row["seq"] for row in rows] == [text.seq for text in texts]
    assert [row["verdict"]["severity"] for row in rows] == [
        ("safe", "unsafe", "controversial", "error")[text.seq % 4] for text in texts
    ]
    assert [row["row_id"] for row in rows] == [f"id{text.seq}" for text in texts]
    (event, *_) = audit.events(db, Wanted(actions=["sample.create"]))
    assert (event.subject, event.detail) == (one.label, {"job": job.label, "texts": one.n, "by": one.design["by"]})


def test_doubtful_texts_are_drawn_more_often_and_errors_as_often_as_the_mean(db: Database, keyring: Keyring) -> None:
    job = finished(db, keyring, judged(80))
    counts: Counter[int] = Counter()
    for seed in range(60):
        counts.update(text.seq % 4 for text in texts_of(db, drawn(db, job, 20, "uncertain", seed=seed)))
    said = {text.seq % 4: text.probability for text in texts_of(db, drawn(db, job, 80, "uncertain"))}
    assert set(said.values()) == {1.0}  # all of it
    safe, unsafe, unsure, error = (counts[kind] for kind in range(4))
    assert safe < unsafe < unsure  # 0.9 to 0.08, 0.8 to 0.2, 0.5 to 0.3
    assert abs(error - 300) < 60


def test_texts_of_which_policies_disagree_are_drawn_more_often(db: Database, keyring: Keyring) -> None:
    activated(db, STRICT)
    activated(db, SHADOW)
    job = finished(db, keyring, [UNSAFE if i % 10 == 0 else SAFE for i in range(90)])
    found = Counter(text.stratum for text in texts_of(db, drawn(db, job, 18, "disagreement")))
    assert found == {"agrees": 9, "policies_differ": 9}
    alone = finished(db, keyring, judged(8), tenant_id=other_tenant(db, keyring))
    with pytest.raises(RejectedError, match="no shadow policy has decided"):
        drawn(db, alone, 4, "disagreement")


def test_texts_that_a_second_model_was_asked_about_are_a_stratum(db: Database, keyring: Keyring) -> None:
    job = finished(db, keyring, judged(40))
    with db.begin() as connection:
        connection.execute(f"update job set second_model = 'm2', escalated = 4 where id = {job.id}")
        connection.execute(f"update verdict set model_id = model_id + 1 where job_id = {job.id} and seq % 10 = 0")
    found = Counter(text.stratum for text in texts_of(db, drawn(db, job, 6, "disagreement")))
    assert found == {"agrees": 3, "second_model_asked": 3}


def test_what_cannot_be_drawn_is_refused(db: Database, keyring: Keyring) -> None:
    job, running = finished(db, keyring, judged(8)), submit(db, keyring, 4)
    with pytest.raises(RejectedError, match="has not ended"):
        drawn(db, running, 2)
    control.cancel(db, running.id)
    for n, by, key, sentence in ((0, (), None, "between 1"), (2, ("slice",), "lang", "raise n"), (2, ("slice",), None, "key")):
        with pytest.raises(RejectedError, match=sentence):
            drawn(db, job, n, *by, key=key)
    assert scalar(db, "select count(*) from sample") == 0


def other_tenant(db: Database, keyring: Keyring) -> int:
    keys.create(db, keyring, name="x", tenant="acme")
    return keys.tenant_id(db, "acme")


def test_another_tenant_sees_and_does_none_of_it(db: Database, keyring: Keyring) -> None:
    acme = other_tenant(db, keyring)
    activated(db, STRICT)
    mine = finished(db, keyring, judged(20))
    theirs = finished(db, keyring, judged(20), tenant_id=acme)
    sample = drawn(db, mine, 20)
    given(db, mine, {"seq": 3, "label": "safe"})
    refused = given(db, mine, {"seq": 3, "label": "safe"}, {"row_id": "id3", "label": "safe"}, tenant_id=acme)
    assert (codes(refused), refused.new) == (["not_found"] * 2, 0)
    stolen = given(db, theirs, {"seq": 3, "label": "safe", "sample_id": sample.label}, tenant_id=acme)
    assert codes(stolen) == ["not_found"]
    with pytest.raises(NotFoundError):
        samples.get(db, sample.public_id, tenant_id=acme)
    assert labels.page(db, acme, limit=9) == labels.page(db, acme, job_id=mine.id, limit=9) == labels.summary(db, acme) == []
    assert (
        review.page(db, acme, job_id=None, after=None, limit=9) == review.page(db, acme, job_id=mine.id, after=None, limit=9) == []
    )
    (first, *_) = review.page(db, TENANT, job_id=None, after=None, limit=9)
    with pytest.raises(RejectedError, match="last_id"):
        review.page(db, acme, job_id=None, after=first["id"], limit=9)
    assert labels.of_digest(db, acme, [bytes(16)]) is None


def test_the_queue_has_what_is_to_review_oldest_first_until_somebody_has_looked(db: Database, keyring: Keyring) -> None:
    activated(db, STRICT)  # errors are to review, and German unsafe texts
    first, second = finished(db, keyring, judged(90), shard_texts=4), finished(db, keyring, judged(10))
    meant = [
        (job.label.replace("job_", "batch_"), seq) for job, n in ((first, 90), (second, 10)) for seq in range(n) if is_due(seq)
    ]
    assert [(one["batch_id"], one["seq"]) for one in queue(db, 1000)] == meant
    paged: list[Any] = []
    while found := review.page(db, TENANT, job_id=None, after=paged[-1]["id"] if paged else None, limit=7):
        paged += found
    assert paged == queue(db, 1000)
    assert queue(db, 1000, second) == [one for one in paged if one["batch_id"] == meant[-1][0]]
    one = paged[0]
    assert (one["row_id"], one["verdict"]["severity"], one["verdict"]["action"], one["decision"]["policy"]) == (
        "id1",
        "unsafe",
        "review",
        "strict@1",
    )
    assert (one["verdict"]["probabilities"]["unsafe"], one["done_at"][:2]) == (0.8, "20")
    given(db, first, {"seq": 1, "label": "safe", "source": "customer"}, {"seq": 1, "label": "safe", "source": "suggestscore"})
    assert queue(db, 1)[0]["seq"] == 1  # whoever is judged does not take it out
    given(db, first, {"seq": 1, "label": "safe"}, {"seq": meant[1][1], "label": "safe", "source": "appeal"})
    assert [(one["batch_id"], one["seq"]) for one in queue(db, 1000)] == meant[2:]


def is_due(seq: int) -> bool:
    return seq % 4 == 3 or (seq % 4 == 1 and seq % 3 != 0)


def queue(db: Database, limit: int, job: JobView | None = None) -> list[Any]:
    return review.page(db, TENANT, job_id=job and job.id, after=None, limit=limit)


@pytest.mark.parametrize("is_judged", [True, False])
def test_nobody_is_asked_about_a_text_that_was_erased(
    db: Database, keyring: Keyring, moderator: Moderator, is_judged: bool
) -> None:
    activated(db, STRICT)  # errors are to review
    if is_judged:
        job = finished(db, keyring, judged(40), shard_texts=4)
        waiting = [one["row_id"] for one in queue(db, 1000)]
        erase.erase(db, keyring, WhatToErase(TENANT, Targets.of(waiting[:2])))
        left = waiting[2:]
    else:
        job, left = brought(db, keyring, shard_texts=7), []
        erase.erase(db, keyring, WhatToErase(TENANT, BY_ID))
        moderator(job.id, 0)
    job = views.get(db, job.public_id)
    assert job.erased == (2 if is_judged else 1)
    assert [one["row_id"] for one in queue(db, 1000) if one["row_id"] in left or one["row_id"] is None] == left
    sample = drawn(db, job, 40, "random")
    assert (sample.n, sample.design["population"]) == (job.done - job.erased, job.done - job.erased)
    everything = {one.seq for one in texts_of(db, sample)}
    assert len(everything) == job.done - job.erased
    of_all = given(db, job, *({"seq": seq, "label": "safe"} for seq in range(job.done)))
    assert (of_all.new, len(of_all.refused)) == (job.done - job.erased, job.erased), "no label comes back to a text that was erased"
    erase.erase(db, keyring, WhatToErase(TENANT, Targets.of(row["id"] for row in verdicts.export(db, job) if row["id"])))
    assert queue(db, 1000) == []
    with pytest.raises(RejectedError, match="were erased"):
        drawn(db, views.get(db, job.public_id), 5, "random")


def test_the_queue_follows_the_policy_in_force(db: Database, keyring: Keyring) -> None:
    strict = activated(db, STRICT)
    finished(db, keyring, judged(20))
    assert queue(db, 99)
    version = activated(db, "name: strict\ndefault: block\nerrors: block\n")
    assert queue(db, 99)  # it has decided of none of them
    redecide(db, version, Scope(TENANT))
    assert queue(db, 99) == []
    policies.activate(db, strict)
    assert [one["seq"] for one in queue(db, 99)] == list(filter(is_due, range(20)))


def test_labels_and_samples_go_with_their_jobs(db: Database, keyring: Keyring) -> None:
    job = finished_on(db, keyring, LONG_AGO)
    drawn(db, job, 4)
    given(db, job, {"seq": 1, "label": "safe"})
    retention.purge(db, [job.id])
    for table, n in (("label", 1), ("sample_text", 4), ("sample", 1)):
        assert scalar(db, f"select count(*) from {table} where job_id = {job.id}") == n
    assert retention.expire(db, "verdict", job.day)
    for table in ("label", "sample_text", "sample"):
        assert scalar(db, f"select count(*) from {table}") == 0


def test_the_newest_text_of_a_digest_is_the_tenants_own(db: Database, keyring: Keyring) -> None:
    job = finished(db, keyring, judged(3))
    with db.begin() as connection:
        connection.execute("update verdict set digest = md5(seq::text)::uuid")
    digest = scalar(db, "select md5('1')::uuid")
    assert labels.of_digest(db, TENANT, [bytes(16), digest.bytes]) == (job.id, 1)
    assert labels.of_digest(db, other_tenant(db, keyring), [digest.bytes]) is None
