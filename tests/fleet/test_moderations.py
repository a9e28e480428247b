"""Texts judged while the caller waits, through real brokers and workers: in OpenAI's terms, Perspective's, and the guard's own."""

import asyncio
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx2
import openai
import pytest

from api.openai.categories import CATEGORIES, COVERED
from guardfleet.broker.celery_app import Publisher
from guardfleet.client.direct import DirectClient
from guardfleet.domain.ids import DEFAULT_TENANT
from guardfleet.domain.states import JobState
from guardfleet.domain.verdict import CATEGORY_NAMES
from guardfleet.lists.reading import read as read_list
from guardfleet.policy import presets
from guardfleet.policy.reading import read
from guardfleet.security.encryption import Keyring
from guardfleet.store import keys
from guardfleet.store.jobs import retention
from guardfleet.store.policy import lists, policies
from guardfleet.store.postgres.database import Database
from tests.services.fixtures import fleet_settings
from tests.services.fleet import fleet, until
from tests.services.patience import patience
from tests.services.proxy import in_front_of
from tests.services.served import served
from tests.services.stored import scalar
from worker.engine.testing.marked import NAME, REVISION

WORKER, DISPATCHER = ("worker",), ("dispatcher",)


@pytest.fixture
def at(database_url: str, rabbitmq: str, db: Database, keyring: Keyring, tmp_path: pathlib.Path) -> Iterator[tuple[str, str]]:
    """URL and key of an API with one worker, and nobody else to ring."""
    settings = fleet_settings(database_url, rabbitmq, tmp_path)
    with fleet(settings, tmp_path, WORKER), served(settings) as url:
        yield url, keys.create(db, keyring, name="k")


def test_the_sdk_reads_moderations_strictly(at: tuple[str, str], db: Database) -> None:
    url, key = at
    with openai.OpenAI(api_key=key, base_url=f"{url}/v1", max_retries=0, _strict_response_validation=True) as client:
        one = client.moderations.create(input="b [[unsafe]]", model="omni-moderation-latest")
        assert (one.id[:5], one.model, len(one.results)) == ("modr-", "instant", 1)
        (result,) = one.results
        assert (result.flagged, result.categories.violence, result.categories.sexual_minors) == (True, True, False)
        assert result.category_applied_input_types.sexual_minors == []
        assert result.model_extra is not None
        assert result.model_extra["guardfleet"]["severity"] == "unsafe"
        many = client.moderations.create(input=["a", "b [[unsafe]]", "", "d [[controversial]]"])
        assert [each.flagged for each in many.results] == [False, True, False, False]
        strict = client.moderations.create(input=["d [[controversial]]"], extra_body={"flag_from": "controversial"})
        assert [each.flagged for each in strict.results] == [True]
        parts = client.moderations.create(input=[{"type": "text", "text": "a"}, {"type": "text", "text": "[[unsafe]]"}])
        assert [each.flagged for each in parts.results] == [True]
        assert [model.id for model in client.models.list()] == ["instant"]
        for wrong in ([], [{"type": "image_url", "image_url": {"url": "x"}}], 5, ["x"] * 257):
            with pytest.raises(openai.UnprocessableEntityError):
                client.moderations.create(input=wrong)  # type: ignore[arg-type]
        with pytest.raises(openai.NotFoundError, match="no worker has served"):
            client.moderations.create(input="x", model="other")
        assert client.batches.list().data == []  # no batch of anybody
    assert scalar(db, "select count(*) from outbox") == 0
    assert retention.purge(db, retention.purgeable(db, older_than_hours=24, limit=100)) == scalar(db, "select count(*) from job")


def test_the_guards_own_terms_and_perspectives(at: tuple[str, str]) -> None:
    url, key = at
    with httpx2.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=patience(60)) as client:
        own = client.post("/v1/moderate", json={"messages": [{"role": "user", "content": "x [[unsafe]]"}]}).json()
        assert (own["verdict"]["severity"], own["verdict"]["categories"]) == ("unsafe", ["Violent"])
        assert "rationale" in own["verdict"]
        parts = [{"type": "text", "text": "x"}, {"type": "text", "text": "[[unsafe]]"}]
        for turn in ({"content": parts}, {"content": "", "content_blocks": parts}, {"content": None, "refusal": "[[unsafe]]"}):
            own = client.post("/v1/moderate", json={"messages": [{"role": "user", **turn}]}).json()
            assert own["verdict"]["severity"] == "unsafe"
        for wrong in ({}, {"text": "a", "messages": []}, {"text": 5}, {"text": "a", "more": 1}):
            assert client.post("/v1/moderate", json=wrong).status_code in (400, 422)
    with httpx2.Client(base_url=url, timeout=patience(60)) as client:
        asked = {
            "comment": {"text": "x [[unsafe]]"},
            "requestedAttributes": {"THREAT": {}, "INSULT": {}, "TOXICITY": {"scoreThreshold": 0.5}},
        }
        answer = client.post("/v1alpha1/comments:analyze", params={"key": key}, json=asked | {"clientToken": "t"}).json()
        assert answer["clientToken"] == "t"
        scores = answer["attributeScores"]
        assert scores["THREAT"]["summaryScore"]["value"] == scores["TOXICITY"]["summaryScore"]["value"] > 0.9
        assert scores["THREAT"]["spanScores"][0]["end"] == len("x [[unsafe]]")
        some = {"requestedAttributes": {"PROFANITY": {}, "THREAT": {}, "a\nb \u00e9": None}}
        answer = client.post("/v1alpha1/comments:analyze", params={"key": key}, json=asked | some)
        assert answer.json()["attributeScores"].keys() == {"THREAT"}
        assert answer.json()["unsupportedAttributes"] == ["PROFANITY", "a\nb \u00e9"]
        assert answer.headers["guardfleet-unsupported-attributes"] == "PROFANITY"
        for query, attributes in (({"strict": "true"}, some), ({}, {"requestedAttributes": {"PROFANITY": {}}})):
            refused = client.post("/v1alpha1/comments:analyze", params={"key": key, **query}, json=asked | attributes)
            error = refused.json()["error"]
            assert (refused.status_code, error["code"], error["status"]) == (400, 400, "INVALID_ARGUMENT")
            assert (about := error["details"][0])["reason"] == "ATTRIBUTE_NOT_SUPPORTED"
            assert about["metadata"] == {"param": "requestedAttributes.PROFANITY"}
        babble = client.post("/v1alpha1/comments:analyze", params={"key": key}, json=asked | {"comment": {"text": "[[babble]]"}})
        assert babble.status_code == 422
        assert "retry-after" not in babble.headers
        for query, status, reason in (({"key": "gf_wrong"}, 400, "API_KEY_INVALID"), ({}, 403, "CREDENTIALS_MISSING")):
            refused = client.post("/v1alpha1/comments:analyze", params=query, json=asked)
            error = refused.json()["error"]
            assert (refused.status_code, error["code"], error["details"][0]["reason"]) == (status, status, reason)


def test_scores_go_through_the_map_that_the_api_is_given(
    database_url: str, rabbitmq: str, db: Database, keyring: Keyring, tmp_path: pathlib.Path
) -> None:
    settings, file = fleet_settings(database_url, rabbitmq, tmp_path), tmp_path / "map.json"
    key = keys.create(db, keyring, name="k")
    asked = {"comment": {"text": "x [[unsafe]]"}, "requestedAttributes": {"TOXICITY": {"scoreThreshold": 0.1}, "THREAT": {}}}
    with fleet(settings, tmp_path, WORKER):
        for model, said in ((f"{NAME}@{REVISION[:12]}", "applied"), ("other@1", "fitted for another model")):
            file.write_text(json.dumps({"model": model, "maps": {"TOXICITY": [[0, 0], [1, 0.25]]}}))
            with served(settings.but(api={"perspective_map": str(file)})) as url:
                answer = httpx2.post(f"{url}/v1alpha1/comments:analyze", params={"key": key}, json=asked, timeout=patience(60))
            scores = {name: each["summaryScore"]["value"] for name, each in answer.json()["attributeScores"].items()}
            assert scores["TOXICITY"] == pytest.approx(scores["THREAT"] / 4)
            assert answer.headers["guardfleet-score-map"] == said


def test_a_list_of_the_tenants_own_answers_an_attribute_that_the_guard_lacks(at: tuple[str, str], db: Database) -> None:
    url, key = at
    version, _ = lists.add(db, DEFAULT_TENANT, "profanity", read_list("drat\n", "txt"))
    some = {
        "requestedAttributes": {"PROFANITY": {}, "PROFANITY_EXPERIMENTAL": {"scoreThreshold": 0.5}, "TOXICITY_EXPERIMENTAL": {}}
    }
    with httpx2.Client(base_url=f"{url}/v1alpha1", params={"key": key}, timeout=patience(60)) as client:

        def scores(text: str) -> tuple[dict[str, Any], str | None]:
            answer = client.post("/comments:analyze", json=some | {"comment": {"text": text}})
            told = answer.headers["guardfleet-answered-by"]
            return {name: said["spanScores"][0] for name, said in answer.json()["attributeScores"].items()}, told

        before, told = scores("drat [[unsafe]]")
        assert (before.keys(), told) == ({"TOXICITY_EXPERIMENTAL"}, "TOXICITY_EXPERIMENTAL=TOXICITY")
        lists.activate(db, version)
        hit, told = scores("oh drat [[unsafe]]")
        assert told == "PROFANITY=list profanity, PROFANITY_EXPERIMENTAL=list profanity, TOXICITY_EXPERIMENTAL=TOXICITY"
        assert hit["PROFANITY"] == hit["PROFANITY_EXPERIMENTAL"]
        assert hit["PROFANITY"] == {"begin": 3, "end": 7, "score": {"value": 1.0, "type": "PROBABILITY"}}
        clean, _ = scores("a kind day")
        assert clean["PROFANITY"] == {"begin": 0, "end": 10, "score": {"value": 0.0, "type": "PROBABILITY"}}
        assert clean.keys() == {"PROFANITY", "TOXICITY_EXPERIMENTAL"}  # the other is under the threshold that was asked for


def test_the_action_of_the_policy_is_told_to_who_waits_of_a_text_without_a_verdict_too(at: tuple[str, str], db: Database) -> None:
    url, key = at
    version, _ = policies.add(db, DEFAULT_TENANT, read(presets.text("strict")))
    policies.activate(db, version)
    asked = {"requestedAttributes": {"THREAT": {}}}
    with httpx2.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=patience(60)) as client:
        for text, action in (("a [[unsafe]]", "block"), ("a kind day", "allow"), ("", "allow"), ("[[babble]]", "review")):
            is_judged = text != "[[babble]]"
            own = client.post("/v1/moderate", json={"text": text})
            one = client.post("/v1/moderations", json={"input": text})
            scored = client.post("/v1alpha1/comments:analyze", json=asked | {"comment": {"text": text or " "}})
            if is_judged:
                assert own.json()["verdict"]["decision"]["action"] == action, text
                assert one.json()["results"][0]["guardfleet"]["decision"]["action"] == action, text
            else:
                assert {answer.status_code for answer in (own, one, scored)} == {422}
                assert own.headers["guardfleet-action"] == one.headers["guardfleet-action"] == action
            assert scored.headers["guardfleet-action"] == action, text
        several = client.post("/v1/moderations", json={"input": ["b [[unsafe]]", "[[babble]]"]}).json()
        assert [one["guardfleet"]["decision"]["action"] for one in several["results"]] == ["block", "review"]


def test_perspectives_do_not_store_deletes_the_text_in_the_commit_of_its_verdict(at: tuple[str, str], db: Database) -> None:
    url, key = at
    asked = {"comment": {"text": "y [[unsafe]]"}, "requestedAttributes": {"THREAT": {}}}
    with httpx2.Client(base_url=f"{url}/v1alpha1", headers={"x-goog-api-key": key}, timeout=patience(60)) as client:
        kept = client.post("/comments:analyze", json=asked)
        assert "guardfleet-ignored" not in kept.headers
        assert (kept.json()["languages"], kept.json()["detectedLanguages"]) == (["und"], ["und"])
        more = {"doNotStore": True, "sessionId": "s", "communityId": "c", "context": {"entries": []}, "languages": ["en"]}
        gone = client.post("/comments:analyze", json=asked | more)
        assert gone.headers["guardfleet-ignored"] == "sessionId, communityId, context"
        assert (gone.json()["attributeScores"], gone.json()["languages"]) == (kept.json()["attributeScores"], ["en"])
        assert client.post("/comments:analyze", json=asked | {"doNotKeep": True}).status_code == 422
    found = """select count(p.job_id) as texts, count(j.data_key) as keys, count(v.digest) as digests, count(v.job_id) as verdicts
                 from job j
                 join verdict v on v.job_id = j.id left join shard_payload p on p.job_id = j.id where j.keeps_nothing = """
    with db.begin() as connection:
        assert tuple(connection.execute(f"{found} false").fetchone()) == (1, 1, 1, 1)
        assert tuple(connection.execute(f"{found} true").fetchone()) == (0, 0, 0, 1)
    assert retention.purge(db, retention.purgeable(db, older_than_hours=24, limit=100)) == 2


def test_a_text_without_a_verdict_costs_only_itself_and_is_flagged(
    database_url: str, rabbitmq: str, db: Database, keyring: Keyring, tmp_path: pathlib.Path
) -> None:
    settings, key = fleet_settings(database_url, rabbitmq, tmp_path, max_text_bytes=2_000), keys.create(db, keyring, name="k")
    with (
        fleet(settings, tmp_path, WORKER),
        served(settings) as url,
        openai.OpenAI(api_key=key, base_url=f"{url}/v1", max_retries=0, _strict_response_validation=True) as client,
    ):
        texts = ["a kind day", "[[babble]]", "b [[unsafe]]", "x" * (3 << 10), "[[babble]] again", ""]
        answer = client.moderations.create(input=texts)
        assert [each.flagged for each in answer.results] == [False, True, True, True, True, False]
        for each, said in zip(answer.results, ["safe", "error", "unsafe", "error", "error", "safe"], strict=True):
            assert each.model_extra is not None
            own = each.model_extra["guardfleet"]
            assert (own["severity"], own["error"] is not None) == (said, said == "error")
            if said == "error":
                assert not any(each.categories.model_dump().values())
                assert min(each.category_scores.model_dump(include={"violence", "hate", "sexual"}).values()) == 1.0
                assert not any(each.category_applied_input_types.model_dump().values())
        assert answer.model_extra is not None
        errors = answer.model_extra["guardfleet"]["errors"]
        assert [(e["index"], e["param"], e["final"]) for e in errors] == [(i, f"input[{i}]", True) for i in (1, 3, 4)]
        assert [e["code"] for e in errors] == ["unparsed", "too_large", "unparsed"]
        for alone, status, code in (
            ("[[babble]]", 422, "unparsed"),
            (["[[babble]]"], 422, "unparsed"),
            (texts[3], 400, "too_large"),
        ):
            with pytest.raises(openai.APIStatusError) as refused:
                client.moderations.create(input=alone)
            assert (refused.value.status_code, refused.value.code, refused.value.param) == (status, code, "input")
            assert "retry-after" not in refused.value.response.headers
        with pytest.raises(openai.BadRequestError):
            client.moderations.create(input=[texts[3], texts[3]])
    assert scalar(db, "select sum(total) from job") == 5 + 2  # what was refused is no text of any job


def test_what_is_not_judged_is_said_with_its_place(at: tuple[str, str]) -> None:
    url, key = at
    image = {"type": "image_url", "image_url": {"url": "x"}}
    with httpx2.Client(base_url=url, headers={"authorization": f"Bearer {key}"}) as client:
        for wrong, words, param in (
            ([image], "image", "input[0]"),
            ([{"type": "text", "text": "a"}, image], "image", "input[1]"),
            (["x"] * 300, "256", "input"),
            ([], "1", "input"),
        ):
            answer = client.post("/v1/moderations", json={"input": wrong})
            error = answer.json()["error"]
            assert answer.status_code in (400, 422)
            assert words in error["message"], error
            assert str(error["param"]).startswith(param), error


def test_no_words_beside_an_input_go_unseen(at: tuple[str, str]) -> None:
    url, key = at
    contents = [{"parts": [{"text": "words"}]}]
    with httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}) as client:
        for more in ({"body": "words"}, {"text": "words"}, {"request": {"contents": contents}}, {"contents": contents}):
            found = client.post("/v1/moderations", json={"input": "", **more})
            assert (found.status_code, found.json()["error"]["code"]) == (400, "unknown_member")
        assert client.post("/v1/moderations", json={"input": "", "custom_id": "a", "url": "/x", "user": "u"}).status_code == 200


def test_redis_rings_too(database_url: str, redis_broker: str, db: Database, keyring: Keyring, tmp_path: pathlib.Path) -> None:
    settings = fleet_settings(database_url, redis_broker, tmp_path)
    headers = {"authorization": f"Bearer {keys.create(db, keyring, name='k')}"}
    with fleet(settings, tmp_path, WORKER), served(settings) as url:
        answer = httpx2.post(f"{url}/v1/moderate", json={"text": "x [[unsafe]]"}, headers=headers, timeout=patience(20))
        assert answer.json()["verdict"]["severity"] == "unsafe"


def test_many_who_wait_at_once_are_all_answered(at: tuple[str, str]) -> None:
    url, key = at

    async def all_of_them() -> list[Any]:
        async with openai.AsyncOpenAI(api_key=key, base_url=f"{url}/v1", max_retries=0) as client:
            return await asyncio.gather(
                *(client.moderations.create(input=f"{i} [[unsafe]]" if i % 3 == 0 else f"{i}") for i in range(60))
            )

    assert [answer.results[0].flagged for answer in asyncio.run(all_of_them())] == [i % 3 == 0 for i in range(60)]


def test_a_wait_that_runs_out_leaves_nothing_behind(
    database_url: str, rabbitmq: str, db: Database, keyring: Keyring, tmp_path: pathlib.Path
) -> None:
    settings = fleet_settings(database_url, rabbitmq, tmp_path, moderation_timeout_s=0.3)
    key = keys.create(db, keyring, name="k")
    with (
        served(settings) as url,
        httpx2.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=patience(60)) as client,
    ):
        answer = client.post("/v1/moderations", json={"input": "x"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "deadline_exceeded")
    assert scalar(db, "select state from job") == JobState.CANCELLED


def test_a_lost_doorbell_is_rung_by_the_dispatcher(
    database_url: str, rabbitmq: str, db: Database, keyring: Keyring, tmp_path: pathlib.Path
) -> None:
    settings = fleet_settings(database_url, rabbitmq, tmp_path)
    key = keys.create(db, keyring, name="k")
    deaf = settings.but(broker_url=None)
    with fleet(settings, tmp_path, WORKER, DISPATCHER) as (worker, _), served(deaf) as url:
        worker.until_says("worker_ready")  # a request waits for its verdict, not for a worker's start
        answer = httpx2.post(
            f"{url}/v1/moderations", json={"input": "x"}, headers={"authorization": f"Bearer {key}"}, timeout=patience(60)
        )
        assert answer.status_code == 200


def test_a_broker_that_falls_silent_costs_one_wait_and_no_request(
    database_url: str, rabbitmq: str, db: Database, keyring: Keyring, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published: list[object] = []
    ring = Publisher.publish

    def counted(self: Publisher, task: str, queue: str, messages: Sequence[Mapping[str, Any]]) -> int:
        published.append(messages)
        return ring(self, task, queue, messages)

    monkeypatch.setattr(Publisher, "publish", counted)
    monkeypatch.setattr("guardfleet.broker.celery_app.ANSWER_S", 0.5)
    monkeypatch.setattr("api.services.interactive_moderation.AWAY_S", 60.0)
    headers = {"authorization": f"Bearer {keys.create(db, keyring, name='k')}"}
    settings = fleet_settings(database_url, rabbitmq, tmp_path)
    with (
        in_front_of(rabbitmq) as (proxy, through),
        fleet(settings, tmp_path, WORKER, DISPATCHER),
        served(fleet_settings(database_url, through, tmp_path, namespace=settings.namespace)) as url,
    ):
        for silent in (False, True, True, True):
            if silent:
                proxy.freeze()
            answer = httpx2.post(f"{url}/v1/moderations", json={"input": "x"}, headers=headers, timeout=patience(20))
            assert answer.status_code == 200
    assert len(published) == 2


def test_a_bulk_job_holds_up_nobody_who_waits(
    database_url: str, rabbitmq: str, db: Database, keyring: Keyring, tmp_path: pathlib.Path
) -> None:
    settings = fleet_settings(database_url, rabbitmq, tmp_path, instant_ms_per_batch=300.0, shard_texts=500)
    key = keys.create(db, keyring, name="k")
    producer = DirectClient.connect(settings)
    with fleet(settings, tmp_path, WORKER, DISPATCHER), served(settings) as url:
        job = producer.submit([f"text {i}" for i in range(5_000)]).job
        until(lambda: producer.status(job.label).done, what="work on the bulk job")
        answer = httpx2.post(
            f"{url}/v1/moderations", json={"input": "x"}, headers={"authorization": f"Bearer {key}"}, timeout=patience(20)
        )
        assert answer.status_code == 200
        assert not producer.status(job.label).is_final  # its own batch, behind the one on the device
        producer.cancel(job.label)
    producer.db.close()


def test_all_categories_are_there_and_none_is_made_up() -> None:
    theirs = {field.alias or name for name, field in openai.types.moderation.Categories.model_fields.items()}
    assert len(CATEGORIES) == len(set(CATEGORIES))
    assert theirs < set(CATEGORIES)
    assert set(COVERED) < set(CATEGORIES)
    assert set(COVERED.values()) == set(CATEGORY_NAMES)
