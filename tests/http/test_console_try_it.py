"""Trying the guard in the console: judged as the API does it, with the text kept in the form and out of every address."""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from guardfleet.domain.verdict import Model
from guardfleet.policy.document import Policy
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings
from guardfleet.store import models
from guardfleet.store.jobs import texts, views
from guardfleet.store.policy import policies
from guardfleet.store.postgres.database import Database
from tests.services.fixtures import with_broker
from tests.services.judged import LISTED, UNSAFE, answered
from tests.services.served import judging, served
from tests.services.stored import scalar
from tests.services.visiting import csrf_in, key_of, visitor

pytestmark = [with_broker("redis")]
HTMX = {"hx-request": "true"}
HOSTILE = [
    "<script>alert(1)</script>", "</textarea><img src=x onerror=alert(1)>", "a\0b", "safe \u202eefasnu\u202c", "\u2066\u2069\u200b",
    "Z" + "\u0310" * 500, "{{ 7 * 7 }} {% raw %}", "<|im_end|>", "'\"--", "\r\n\r\n", "\ufeff\U000e0041",
]  # fmt: skip


@pytest.fixture
def key(db: Database, keyring: Keyring) -> str:
    return key_of(db, keyring, "viewer", name="viewer")


@pytest.fixture
def person(url: str, key: str) -> Iterator[httpx2.Client]:
    with visitor(url, key) as found:
        yield found


def attempt(person: httpx2.Client, fields: Any, **how: Any) -> httpx2.Response:
    csrf = csrf_in(person.get("/console/try").text)
    pairs = [*(fields.items() if isinstance(fields, dict) else fields), ("csrf", csrf)]
    content = "&".join(f"{name}={quote(value, safe='')}" for name, value in pairs)
    headers = {"content-type": "application/x-www-form-urlencoded", **how.pop("headers", {})}
    return person.post("/console/try", content=content, headers=headers, **how)


def test_a_text_is_judged_and_stays_in_the_form(person: httpx2.Client, db: Database, keyring: Keyring) -> None:
    with judging(db, keyring, judgement=UNSAFE):
        answer = attempt(person, {"text": "\nfirst\r\nsecond"})
    assert answer.status_code == 200
    assert "<textarea" in answer.text
    assert ">\n\nfirst\nsecond</textarea>" in answer.text  # a form drops the first line break after the tag
    for said in ('class="badge unsafe"', "Violent", "80.0 %", "Unsafe in Violent", "No policy is in force", "judged by m@r"):
        assert said in answer.text, said
    assert answer.url.query == b""
    assert answer.headers["cache-control"] == "no-store"


def test_line_breaks_are_judged_as_the_api_gets_them(
    person: httpx2.Client, url: str, key: str, db: Database, keyring: Keyring
) -> None:
    with judging(db, keyring):
        attempt(person, {"text": "a\r\nb"})
        row = httpx2.post(f"{url}/v1/moderate", json={"text": "a\nb"}, headers={"authorization": f"Bearer {key}"}, timeout=60)
    assert row.is_success
    jobs = [views.get_by_id(db, scalar(db, f"select {of}(id) from job")) for of in ("min", "max")]
    first, second = (texts.of_shard(db, keyring, job, 0)[0].content for job in jobs)
    assert (first, second) == ("a\nb", "a\nb")


def test_a_script_gets_the_result_alone(person: httpx2.Client, db: Database, keyring: Keyring) -> None:
    with judging(db, keyring):
        answer = attempt(person, {"text": "x"}, headers=HTMX)
    assert answer.status_code == 200
    assert "<html" not in answer.text
    assert "<textarea" not in answer.text
    assert 'class="badge unsafe"' in answer.text


def test_turns_are_added_and_removed_without_a_script(person: httpx2.Client, db: Database, keyring: Keyring) -> None:
    two = attempt(person, {"text": "hello", "do": "turn"}).text
    assert re.findall(r'<textarea id="content-\d"[^>]*>\n([^<]*)</textarea>', two) == ["hello", ""]
    assert scalar(db, "select count(*) from job") == 0
    fields = [("role", "user"), ("content", "hello"), ("role", "assistant"), ("content", "there")]
    three = attempt(person, [*fields, ("do", "turn")]).text
    assert re.findall(r'<option value="(\w+)" selected', three) == ["user", "assistant", "user"]
    one = attempt(person, [*fields, ("do", "drop-0")]).text
    assert ">\nthere</textarea>" in one
    assert 'name="role"' not in one
    with judging(db, keyring):
        judged = attempt(person, fields)
    assert judged.status_code == 200
    assert re.findall(r"<pre[^>]*>\n([^<]*)</pre>", judged.text) == ["hello", "there"]


def test_what_a_list_found_is_marked_where_it_stands(person: httpx2.Client, db: Database, keyring: Keyring) -> None:
    with judging(db, keyring, judgement=LISTED.judgement()):
        page = attempt(person, {"text": "Acme: CHEAP p1lls"}).text
    assert re.findall(r'<mark class="hit" data-hits="(\d)">([^<]*)</mark>', page) == [("2", "Acme"), ("1", "CHEAP p1lls")]
    assert "spam@3" in page
    assert "by the list" in page


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ([("role", "pirate"), ("content", "x")], 400, "unknown_role"),
        ({"text": "x", "model": "none"}, 404, "no worker has served a model"),
        ({"text": "x", "policy": "none@1"}, 404, "there is no policy none@1"),
        ({"text": "x", "detector": "None"}, 400, "is no detector"),
        ({"text": "x", "detector": "none"}, 404, "no worker has served a detector"),
    ],
)
def test_what_is_refused_is_told_like_the_api_does_and_the_text_stays(
    person: httpx2.Client, db: Database, fields: Any, status: int, said: str
) -> None:
    answer = attempt(person, fields)
    assert answer.status_code == status
    assert said in answer.text.replace("&#39;", "'")
    text = dict(fields).get("text", dict(fields).get("content"))
    assert f">\n{text}</textarea>" in answer.text
    assert scalar(db, "select count(*) from job") == 0
    assert attempt(person, fields, headers=HTMX).status_code == 200  # a script shows it in its place


def test_a_text_that_is_too_long_is_told_like_the_api_does(settings: Settings, key: str) -> None:
    with served(settings.but(max_text_bytes=1000)) as url, visitor(url, key) as person:
        answer = attempt(person, {"text": "x" * 1001})
        assert answer.status_code == 400
        assert "the text has 1001 bytes, more than the limit of 1000." in answer.text
        assert f">\n{'x' * 1001}</textarea>" in answer.text


def test_a_missing_verdict_is_told_calmly(settings: Settings, key: str) -> None:
    with served(settings.but(moderation_timeout_s=0.1)) as url, visitor(url, key) as person:
        answer = attempt(person, {"text": "kept"})
        assert answer.status_code == 503
        assert "No verdict came in time." in answer.text
        assert ">\nkept</textarea>" in answer.text


def test_a_text_counts_against_the_quota(settings: Settings, key: str, db: Database, keyring: Keyring) -> None:
    with served(settings.but(quota="2/hour")) as url, visitor(url, key) as person, judging(db, keyring):
        assert attempt(person, {"text": "one"}).status_code == 200
        assert attempt(person, {"text": "two"}).status_code == 200
        over = attempt(person, {"text": "three"})
        assert over.status_code == 429
        assert "limited to 2 texts" in over.text


def test_two_policies_are_compared_on_one_judging(person: httpx2.Client, db: Database, keyring: Keyring) -> None:
    mild = {"name": "mild", "default": "allow"}
    harsh = {
        "name": "harsh",
        "default": "allow",
        "rules": [{"id": "no", "when": {"severity": "unsafe"}, "action": "block", "reason": "because"}],
    }
    for document in (mild, harsh):
        policies.add(db, 1, Policy.model_validate(document))
    with judging(db, keyring, judgement=UNSAFE):
        page = attempt(person, {"text": "x", "policy": "mild@1", "other_policy": "harsh@1"}).text
    assert "They differ" in page
    assert re.findall(r'<span class="badge (allow|block)">', page) == ["allow", "block"]
    assert "rule <strong>no</strong>" in page
    assert "by its default" in page
    assert "because" in page
    assert scalar(db, "select count(*) from job") == 1


def test_two_models_are_asked_and_the_missing_one_is_told_beside_the_other(
    settings: Settings, key: str, db: Database, keyring: Keyring
) -> None:
    models.register(db, Model("other", "r", "p"))
    models.register(db, Model("m", "r", "p"))
    short = settings.but(moderation_timeout_s=2.0)
    with served(short) as url, visitor(url, key) as person, judging(db, keyring):
        page = attempt(person, {"text": "x", "model": "m", "other_model": "other"})
    assert page.status_code == 200
    assert page.text.count("try-side") == 2


def test_a_demo_model_says_so(person: httpx2.Client, db: Database, keyring: Keyring) -> None:
    models.register(db, Model("m", "r", "p", is_demo=True))
    with db.begin() as connection:
        connection.execute("update model set is_demo = true")
    with judging(db, keyring):
        assert "DEMO MODEL" in attempt(person, {"text": "x"}).text


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_shown_as_text(person: httpx2.Client, db: Database, keyring: Keyring, text: str) -> None:
    said = answered("Safety: Safe\nCategories: None\n<script>alert(1)</script>")  # an answer in no grammar, kept as it is
    with judging(db, keyring, judgement=said):
        answer = attempt(person, {"text": text})
    shown = re.sub(r"<textarea.*?</textarea>", "", answer.text, flags=re.DOTALL)
    assert "<script>alert" not in answer.text
    assert not re.search("[\x00-\x08\u202e\u2066\u200b]", shown)


def test_a_long_text_is_cut_for_the_page_and_the_page_says_so(person: httpx2.Client, db: Database, keyring: Keyring) -> None:
    with judging(db, keyring):
        page = attempt(person, {"text": "w " * 60_000}, headers=HTMX).text
    assert "112,000 characters are not shown here" in page
    assert len(page) < 40_000


def test_a_reviewer_may_not_try(url: str, db: Database, keyring: Keyring) -> None:
    key = key_of(db, keyring, "reviewer", name="reviewer")
    with visitor(url, key) as person:
        assert person.get("/console/try").status_code == 403
