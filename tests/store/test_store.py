"""The store on real PostgreSQL: jobs, pages in commit order, the cache, keys, deliveries."""

import json
import random
from dataclasses import replace

import pytest
from psycopg.rows import dict_row

from guardfleet.domain import ids
from guardfleet.domain.states import JobState
from guardfleet.domain.verdict import Category, Judgement, Model, ServedBy, failure
from guardfleet.errors import NotFoundError
from guardfleet.security.encryption import Keyring
from guardfleet.store import keys, models, verdicts
from guardfleet.store.events import deliveries
from guardfleet.store.jobs import retention, views
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import completion
from guardfleet.store.shards.completion import Row
from guardfleet.verdicts.page import Cursor
from guardfleet.verdicts.rendering import FIELDS
from tests.services.judged import SAFE, answered, any_judgement, failed
from tests.services.stored import MODEL, finish, new_job, scalar, submit, took
from worker.engine.interfaces import Answer
from worker.moderation.interpretation import EMPTY, judgement_of

AS_THEY_ARE = {
    "id", "severity", "categories", "refusal", "category_probabilities", "rationale", "evidence", "served_by", "model", "revision",
    "policy", "is_demo", "raw", "metadata",
}  # fmt: skip


def test_a_job_names_every_model_that_judged_it(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring, 12, shard_texts=4)
    other = models.register(db, Model("other", "fedcba9876543210", "p"))
    assert (views.get(db, job.public_id).model, views.get(db, job.public_id).models) == (None, [])
    finish(db, took(db, job, 0))
    assert views.get(db, job.public_id).models == ["m@0123456789ab"]
    held = took(db, job, 1)
    rows = [Row(f"id{i}", SAFE) for i in range(4)]
    completion.finish(db, held, rows, model_id=other)
    held = took(db, job, 2)
    nobody = models.register(db, Model("nobody", "0", "none"))
    completion.finish(db, held, [Row(f"id{i}", failure("abandoned", "x"), model_id=nobody) for i in range(4)], model_id=None)
    found = views.get(db, job.public_id)
    assert sorted(found.models) == ["m@0123456789ab", "other@fedcba987654"]
    assert found.model == "other@fedcba987654"
    assert scalar(db, "select count(distinct model_id) from verdict") == 3


def test_a_job_of_a_worker_of_before_names_its_last_model(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring, 4, shard_texts=4)
    finish(db, took(db, job, 0))
    with db.begin() as connection:
        connection.execute("update job set models = '{}'")  # what code without the column leaves
    assert views.get(db, job.public_id).models == ["m@0123456789ab"]


def test_a_reader_of_partial_results_misses_and_repeats_nothing(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring, 40, shard_texts=4)
    seen: list[int] = []
    cursor = Cursor()
    for no in (7, 2, 9, 0, 1, 3, 8, 4, 6, 5):  # shards finish in any order
        finish(db, took(db, job, no))
        page = verdicts.page(db, views.get(db, job.public_id), cursor, limit=3)
        cursor = page.reached
        seen += [row.seq for row in page.rows]
    while (page := verdicts.page(db, views.get(db, job.public_id), cursor, limit=3)).rows:
        cursor = page.reached
        seen += [row.seq for row in page.rows]
    assert sorted(seen) == list(range(40))
    assert len(seen) == 40


IN_WINDOWS = Answer(
    "",
    windows=(
        (0, 9, Answer("Safety: Safe\nCategories: None")),
        (5, 20, Answer("Safety: Unsafe\nCategories: PII")),
    ),
    notes={"left_out": [[20, 30]]},
)
IN_ONE_WINDOW = Answer(
    "", windows=((0, 9, Answer("Safety: Safe\nCategories: None")),), notes={"turns_left_out": 4, "context_cut": 7}
)


@pytest.mark.parametrize(
    ("judgement", "words"),
    [
        (SAFE, "Safe, no category; probability safe 0.902, controversial 0.078, unsafe 0.020; judged by m@0123456789ab."),
        (
            replace(answered("Safety: Controversial\nCategories: PII, Unethical Acts\nRefusal: Yes"), served_by=ServedBy.CACHE),
            "Controversial in PII, Unethical Acts; the response is a refusal; judged by m@0123456789ab earlier (cached).",
        ),
        (
            replace(answered("Safety: Unsafe\nCategories: Suicide & Self-Harm\nRefusal: No"), served_by=ServedBy.DUPLICATE),
            "Unsafe in Suicide & Self-Harm; the response is no refusal; judged by m@0123456789ab on the same text in this job.",
        ),
        (EMPTY, "Safe: the text is empty, so there was nothing to judge."),
        (answered("hm"), "No verdict: the model's answer is not in its own grammar."),
        (failed("too_long", "9 tokens"), "No verdict: the text is longer than may be judged (9 tokens)."),
        (failed("engine_failed", "it raises ValueError"), "No verdict: the engine failed on this text (it raises ValueError)."),
        (failure("abandoned"), "No verdict: its shard failed too often."),
        (
            judgement_of(IN_WINDOWS),
            "Unsafe in PII; decided by characters 5 to 20, one of 2 windows; left out on request: characters 20 to 30; judged by m@0123456789ab.",  # noqa: E501
        ),
        (
            judgement_of(IN_ONE_WINDOW),
            "Safe, no category; decided by characters 0 to 9; left out as too long: the oldest 4 turns; left out as too long: the first 7 characters of the turn before; judged by m@0123456789ab.",  # noqa: E501
        ),
        (
            judgement_of(Answer("Safety: Safe\nCategories: None", notes={"role_labels": 2})),
            "Safe, no category; role labels within the text: 2; judged by m@0123456789ab.",
        ),
        (
            judgement_of(replace(IN_ONE_WINDOW, notes={"role_labels": 1, "role_labels_neutralised": True})),
            "Safe, no category; decided by characters 0 to 9; role labels within the text: 1, neutralised; judged by m@0123456789ab.",  # noqa: E501
        ),
        (
            failed("invalid_conversation", "no user turn"),
            "No verdict: the messages cannot be judged as a conversation (no user turn).",
        ),
    ],
)
def test_every_kind_of_verdict_has_its_words(db: Database, keyring: Keyring, judgement: Judgement, words: str) -> None:
    job = submit(db, keyring, 1)
    finish(db, took(db, job, 0), judgement)
    (row,) = verdicts.export(db, job)
    assert row["rationale"] == words
    assert row["severity"] == judgement.severity.label
    assert row["served_by"] == judgement.served_by.label


@pytest.mark.parametrize("shard_texts", [600, completion.FEW], ids=["many", "few"])
def test_pages_and_exports_say_word_for_word_what_the_view_says(db: Database, keyring: Keyring, shard_texts: int) -> None:
    rng = random.Random(5)
    job = submit(db, keyring, 600, shard_texts=shard_texts)
    rows = [Row(f"id{i}", any_judgement(rng), metadata=rng.choice([None, {"a": i}])) for i in range(600)]
    for no in range(-(-600 // shard_texts)):
        held = took(db, job, no)
        mine = rows[held.first_seq : held.first_seq + held.n]
        assert completion.finish(db, held, mine, model_id=models.register(db, MODEL))
        assert not completion.finish(db, held, mine, model_id=models.register(db, MODEL))
    exported = list(verdicts.export(db, job))
    page = verdicts.page(db, job, Cursor(), limit=1000)
    assert list(page.fields()) == exported
    for plain, json_object in zip(exported, page.json_objects(), strict=True):
        assert json.loads(json_object) == {
            **{name: plain[name] for name in FIELDS if name in AS_THEY_ARE and (name != "metadata" or plain[name])},
            "probabilities": None
            if plain["p_safe"] is None
            else {name: plain[f"p_{name}"] for name in ("safe", "controversial", "unsafe")},
            "error": plain["error"] and {"code": plain["error"], "detail": plain["error_detail"]},
            "tokens": {"input": plain["input_tokens"], "output": plain["output_tokens"]},
            "done_at": plain["done_at"].isoformat(),
        }
    names = [name for name in FIELDS if name != "category_probabilities"]
    with db.begin() as connection:
        shown = connection.cursor(row_factory=dict_row)
        shown.execute(f"select {', '.join(names)} from verdicts where job_id = {job.id} order by seq")
        for ours, theirs in zip(exported, shown, strict=True):
            assert {name: ours[name] for name in names} == {
                name: float(value) if name.startswith("p_") and value is not None else value for name, value in theirs.items()
            }
    least = [row["seq"] for row in verdicts.export(db, job, min_severity=2)]
    assert least == [row["seq"] for row in exported if row["severity"] in ("unsafe", "error")]


def test_the_categories_of_the_view_are_those_of_the_code(db: Database) -> None:
    from guardfleet.domain.verdict import category_names

    for bits in (*(1 << i for i in range(9)), 0, 511):
        with db.begin() as connection:
            names = connection.scalar(f"select guardfleet_categories({bits}::smallint)")
        assert names == category_names(Category(bits))


def test_a_job_without_texts_is_complete_at_once(db: Database, keyring: Keyring) -> None:
    assert submit(db, keyring, 0).state is JobState.COMPLETED


def test_purging_destroys_texts_and_key_and_keeps_verdicts(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring, 3)
    finish(db, took(db, job, 0))
    assert retention.purge(db, retention.purgeable(db, older_than_hours=1)) == 0
    assert retention.purge(db, retention.purgeable(db, older_than_hours=-1)) == 1
    assert scalar(db, "select count(*) from shard_payload") == 0
    assert scalar(db, "select count(*) from job where data_key is null and purged_at is not null") == 1
    assert len(list(verdicts.export(db, job))) == 3


def test_the_cache_knows_a_text_only_for_its_tenant_model_and_time(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring, 1)
    mine, other = keyring.digest(1, "text 0"), keyring.digest(2, "text 0")
    model_id = models.register(db, MODEL)
    held = took(db, job, 0)
    completion.finish(db, held, [Row("id0", SAFE, mine)], model_id=model_id)
    later = took(db, submit(db, keyring, 1), 0)
    found = verdicts.known(db, [mine, other], later, model_id=model_id, max_age_hours=1)
    assert set(found) == {mine}
    assert found[mine].served_by is ServedBy.CACHE
    assert verdicts.known(db, [mine], later, model_id=model_id + 1, max_age_hours=1) == {}
    assert verdicts.known(db, [mine], later, model_id=model_id, max_age_hours=0) == {}
    with db.begin() as connection:
        connection.execute("update verdict set done_at = now() - interval '2 hours'")
    assert verdicts.known(db, [mine], later, model_id=model_id, max_age_hours=1) == {}
    (own,) = verdicts.known(db, [mine], held, model_id=model_id, max_age_hours=0).values()
    assert own.served_by is ServedBy.DUPLICATE


def test_a_foreign_tenant_sees_no_job(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring, 1)
    with pytest.raises(NotFoundError):
        views.get(db, job.public_id, tenant_id=2)
    with pytest.raises(NotFoundError):
        ids.JOB.parse("job_nonsense")


def test_keys_are_stored_as_digests_and_found_by_them(db: Database, keyring: Keyring) -> None:
    key = keys.create(db, keyring, name="k", tenant="acme")
    caller = keys.authenticate(db, keyring, key)
    assert caller is not None
    assert caller.tenant_id != 1
    assert keys.authenticate(db, keyring, key + "x") is None
    assert key.encode() not in bytes(scalar(db, "select digest from api_key"))
    with db.begin() as connection:
        connection.execute("update api_key set revoked_at = now()")
    assert keys.authenticate(db, keyring, key) is None


def test_an_event_reaches_only_endpoints_that_listen_to_it_and_to_its_job(db: Database, keyring: Keyring) -> None:
    quiet = submit(db, keyring, 0)
    loud = submit(db, keyring, 0, new=new_job(name="x", callback_url="http://127.0.0.1/", callback_secret="whsec_" + "a" * 32))
    assert deliveries.relay(db, deliveries.events(db)) == 2
    assert deliveries.relay(db, deliveries.events(db)) == 0
    assert scalar(db, "select string_agg(job_id::text, ',') from delivery") == str(loud.id)
    assert deliveries.unsent(db, quiet.id) == 0
    assert deliveries.unsent(db, loud.id) == 1


def test_a_delivery_is_held_by_one_sender_and_recorded_by_the_last(db: Database, keyring: Keyring) -> None:
    submit(db, keyring, 0, new=new_job(name="x", callback_url="http://127.0.0.1/", callback_secret="whsec_" + "a" * 32))
    deliveries.relay(db, deliveries.events(db))
    (delivery_id,) = deliveries.due(db, limit=9, again_after_s=60, at_once=4, failing=8)
    first = deliveries.claim(db, delivery_id, lease_s=-1)  # a sender that dies at once
    assert first is not None
    second = deliveries.claim(db, delivery_id, lease_s=60)
    assert second is not None
    assert deliveries.claim(db, delivery_id, lease_s=60) is None
    assert not deliveries.settle(db, first, deliveries.Outcome(200, 5), delivered=True)
    assert deliveries.defer(db, second, deliveries.Outcome(500, 5), delay_s=3600)
    assert deliveries.claim(db, delivery_id, lease_s=60) is None
    assert scalar(db, "select count(*) from attempt") == 2
    assert scalar(db, "select attempts from delivery") == 2


def test_a_broken_connection_is_a_retryable_error() -> None:
    from guardfleet.errors import RetryableError

    db = Database("postgresql://nobody:secret-word@127.0.0.1:1/x", pool_size=1)
    with pytest.raises(RetryableError) as caught:
        db.ping()
    assert "secret-word" not in str(caught.value)
    db.close()
