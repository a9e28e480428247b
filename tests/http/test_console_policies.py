"""Policies in the console, without a script: who may do what, what others wrote, and that nobody's version is lost."""

import re
from collections.abc import Iterator

import httpx2
import pytest

from api.console.pages.policies import passes
from guardfleet.domain import ids
from guardfleet.domain.versions import NotNewestError
from guardfleet.jobs import redecide as use_case
from guardfleet.policy import presets
from guardfleet.policy.reading import read
from guardfleet.security.encryption import Keyring
from guardfleet.store import audit
from guardfleet.store.keys import DEFAULT_TENANT
from guardfleet.store.policy import policies, prompt_policies
from guardfleet.store.postgres.database import Database
from tests.services.fixtures import with_broker
from tests.services.judged import SAFE, UNSAFE, UNSURE
from tests.services.stored import scalar
from tests.services.visiting import hidden, key_of, send, visitor
from tests.store.test_policies import finished

pytestmark = [with_broker("redis")]

STRICT, LOOSE = presets.text("strict"), presets.text("loose")
EVIL = "<script>alert(1)</script>\u202e"
HOSTILE = f"""\
name: evil
description: "{EVIL.replace(chr(0x202E), chr(92) + "u202e")}"
default: block
rules:
  - id: one
    when: {{severity: unsafe, metadata: {{"<img src=x onerror=alert(1)>": ["</textarea><script>alert(2)"]}}, lists: missing}}
    action: review
  - id: two
    when: {{detectors: {{nobody: {{label: ["<b>bold</b>"]}}}}}}
    action: block
"""


@pytest.fixture
def operator(url: str, db: Database, keyring: Keyring) -> Iterator[httpx2.Client]:
    with visitor(url, key_of(db, keyring, "operator")) as found:
        yield found


def stored(db: Database, text: str, tenant_id: int = DEFAULT_TENANT) -> str:
    return policies.add(db, tenant_id, read(text))[0].label


def test_a_policy_is_written_mended_stored_applied_and_gone_back_from(operator: httpx2.Client, db: Database) -> None:
    assert "No policy is stored" in operator.get("/console/policies").text
    begun = operator.get("/console/policies/new?preset=strict").text
    assert "name: strict" in begun
    wrong = send(operator, "/policies/save", document=STRICT.replace("severity: unsafe", "severty: unsafe"), base="")
    assert wrong.status_code == 422
    assert "Line 7" in wrong.text
    assert "this is not known here" in wrong.text
    assert "severty: unsafe" in wrong.text
    checked = send(operator, "/policies/check", document="rules: [", base="")
    assert "no YAML and no JSON" in checked.text
    assert scalar(db, "select count(*) from policy") == 0
    done = send(operator, "/policies/save", document=STRICT.replace("\n", "\r\n"), base="")
    assert done.headers["location"] == "/console/policies/strict@1?done=stored"
    page = operator.get("/console/policies/strict@1?done=stored").text
    assert "Stored as a new version." in page
    assert "the verdict is unsafe" in page
    assert "the probability of not_safe is at least 0.3" in page
    again = operator.get("/console/policies/new?from=strict@1").text
    assert hidden(again, "base") == "strict@1"
    milder = STRICT.replace("action: block", "action: review")
    assert send(operator, "/policies/save", document=milder, base="strict@1").headers["location"].endswith("strict@2?done=stored")
    assert send(operator, "/policies/save", document=milder, base="strict@2").headers["location"].endswith("?done=unchanged")
    send(operator, "/policies/strict@2/activate")
    assert policies.applied_labels(db, DEFAULT_TENANT) == {"active": "strict@2", "shadow": None}
    assert "in place of strict@2?" in operator.get("/console/policies/strict@1").text
    send(operator, "/policies/strict@1/activate")
    assert policies.applied_labels(db, DEFAULT_TENANT)["active"] == "strict@1"
    assert "active" in operator.get("/console/policies").text
    assert send(operator, "/policies/strict@2/deactivate").status_code == 409
    send(operator, "/policies/strict@1/deactivate")
    assert policies.applied_labels(db, DEFAULT_TENANT)["active"] is None
    noted = sorted(one.action for one in audit.events(db, audit.Wanted()) if one.action.startswith("policy."))
    done = ["activate", "activate", "create", "create", "deactivate"]
    assert noted == [f"policy.{one}" for one in done]


def test_a_version_that_somebody_stored_meanwhile_is_shown_and_not_buried(operator: httpx2.Client, db: Database) -> None:
    stored(db, STRICT)
    stored(db, STRICT.replace("at_least: 0.3", "at_least: 0.4"))
    mine = STRICT.replace("at_least: 0.3", "at_least: 0.5")
    late = send(operator, "/policies/save", document=mine, base="strict@1")
    assert late.status_code == 409
    assert "strict@2 was stored meanwhile" in late.text
    assert 'class="removed"' in late.text
    assert "{at_least: 0.4}" in late.text
    assert hidden(late.text, "base") == "strict@2"
    assert scalar(db, "select count(*) from policy") == 2
    assert send(operator, "/policies/save", document=mine, base="strict@2").headers["location"].endswith("strict@3?done=stored")
    unseen = send(operator, "/policies/save", document=STRICT, base="")
    assert unseen.status_code == 409, "a preset's name may be taken"
    with pytest.raises(NotNewestError):
        policies.add(db, DEFAULT_TENANT, read(LOOSE), on_top_of=1)


def test_two_versions_are_compared_line_by_line(operator: httpx2.Client, db: Database) -> None:
    stored(db, STRICT)
    stored(db, STRICT.replace("at_least: 0.3", "at_least: 0.4"))
    page = operator.get("/console/policies/diff?old=strict@1&new=strict@2").text
    assert (page.count('class="added"'), page.count('class="removed"')) == (1, 1)
    assert "They say the same" in operator.get("/console/policies/diff?old=strict@1&new=strict@1").text
    assert operator.get("/console/policies/diff?old=strict@1&new=none@1").status_code == 404
    assert operator.get("/console/policies/diff?old=strict@1").status_code == 404
    for path in ("diff?old=%00&new=strict@1", "?after=%00"):
        assert operator.get(f"/console/policies/{path}".replace("/?", "?")).status_code == 400, path


def test_a_simulation_adds_its_passes_up_and_is_what_one_pass_finds(
    operator: httpx2.Client, db: Database, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [finished(db, keyring, [UNSAFE, SAFE, UNSURE] * 10, shard_texts=3) for _ in range(2)]
    whole = send(operator, "/policies/simulate", document=STRICT, days="7", per_hour="10").text
    assert "Go on" not in whole
    one = send(operator, "/policies/simulate", document=STRICT, batch=jobs[0].label, days="7").text
    assert figures(one)[0] == "30"
    monkeypatch.setattr(use_case, "SHARDS_AT_ONCE", 2)
    monkeypatch.setattr(passes, "PASS_S", 0)
    page, n = send(operator, "/policies/simulate", document=STRICT, days="7", per_hour="10").text, 1
    while "so_far" in page:
        page, n = send(operator, "/policies/simulate", document=STRICT, so_far=hidden(page, "so_far")).text, n + 1
    assert n == 10
    assert figures(page) == figures(whole)
    assert figures(whole)[:2] == ["60", "60 <small>100.0 %</small>"]
    assert "2.0 h" in whole, "20 texts to review, 10 an hour"
    assert "Simulate against history" in send(operator, "/policies/simulate", document=STRICT).text


def figures(page: str) -> list[str]:
    return re.findall(r"<dd>(.*?)</dd>", page) + re.findall(r'<td class="n[^"]*">([^<]*)</td>', page)


def test_what_a_pass_carries_is_of_its_document_and_its_tenant(
    operator: httpx2.Client, url: str, db: Database, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished(db, keyring, [UNSAFE] * 9, shard_texts=3)
    monkeypatch.setattr(use_case, "SHARDS_AT_ONCE", 1)
    monkeypatch.setattr(passes, "PASS_S", 0)
    so_far = hidden(send(operator, "/policies/simulate", document=STRICT, days="7").text, "so_far")
    assert send(operator, "/policies/simulate", document=LOOSE, so_far=so_far).status_code == 400
    assert send(operator, "/policies/simulate", document=STRICT, so_far=so_far + "x").status_code == 400
    with visitor(url, key_of(db, keyring, "operator", tenant="acme")) as other:
        assert send(other, "/policies/simulate", document=STRICT, so_far=so_far).status_code == 400


def test_stored_verdicts_are_decided_in_passes(
    operator: httpx2.Client, db: Database, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = finished(db, keyring, [UNSAFE, SAFE] * 6, shard_texts=3)
    stored(db, STRICT)
    monkeypatch.setattr(use_case, "SHARDS_AT_ONCE", 1)
    monkeypatch.setattr(passes, "PASS_S", 0)
    page, n = send(operator, "/policies/strict@1/redecide", batch=job.label, days="7").text, 1
    assert "It is not active" in page
    while "so_far" in page:
        page, n = send(operator, "/policies/strict@1/redecide", so_far=hidden(page, "so_far")).text, n + 1
    assert n > 2
    assert "12 texts were decided by strict@1." in page
    assert scalar(db, "select count(*) from decision") == 4


def test_what_others_wrote_is_text(operator: httpx2.Client, db: Database) -> None:
    stored(db, STRICT.replace("name: strict", "name: evil"))
    label = stored(db, HOSTILE)
    for page in (
        operator.get(f"/console/policies/{label}").text,
        operator.get(f"/console/policies/new?from={label}").text,
        operator.get(f"/console/policies/diff?old=evil@1&new={label}").text,
        send(operator, "/policies/simulate", document=HOSTILE).text,
        send(operator, "/policies/check", document="<script>alert(3)</script>: 1\ndefault: <img src=x>", base="<b>").text,
    ):
        assert "<script>alert" not in page
        assert "<img src=x" not in page
        assert "<b>" not in page
        assert "&lt;" in page
    shown = operator.get(f"/console/policies/{label}").text
    assert "\u202e" not in shown
    assert "No such list is stored: missing" in shown
    assert "No worker has ever served this detector: nobody" in shown


def test_a_viewer_reads_and_a_reviewer_does_not(url: str, db: Database, keyring: Keyring) -> None:
    stored(db, STRICT)
    with visitor(url, key_of(db, keyring, "viewer")) as viewer:
        page = viewer.get("/console/policies/strict@1").text
        assert "/activate" not in page
        assert "/redecide" not in page
        for path in ("save", "strict@1/activate", "strict@1/deactivate", "strict@1/redecide", "prompts/save"):
            assert send(viewer, f"/policies/{path}", document=LOOSE, days="1").status_code == 403, path
        assert viewer.get("/console/policies/strict@1/redecide").status_code == 403
        assert "No mistakes" in send(viewer, "/policies/check", document=LOOSE).text
    with visitor(url, key_of(db, keyring, "reviewer")) as reviewer:
        assert reviewer.get("/console/policies/strict@1").status_code == 403
    assert scalar(db, "select count(*) from policy") == 1


def test_another_tenants_policies_do_not_exist(url: str, db: Database, keyring: Keyring) -> None:
    stored(db, STRICT)
    job = finished(db, keyring, [UNSAFE] * 3)
    prompt_policies.add(db, DEFAULT_TENANT, "mine", "no refunds")
    with visitor(url, key_of(db, keyring, "operator", tenant="acme")) as other:
        for path in ("strict@1", "diff?old=strict@1&new=strict@1", "simulate?version=strict@1", "strict@1/redecide",
                     "new?from=strict@1", "prompts/mine@1", "prompts/new?from=mine@1"):  # fmt: skip
            assert other.get(f"/console/policies/{path}").status_code == 404, path
        for path in ("strict@1/activate", "strict@1/deactivate", "strict@1/redecide"):
            assert send(other, f"/policies/{path}", days="1").status_code == 404, path
        assert send(other, "/policies/simulate", document=STRICT, batch=ids.JOB.of(job.public_id)).status_code == 404
        assert "There are no stored verdicts there" in send(other, "/policies/simulate", document=STRICT, days="7").text
        assert "No policy is stored" in other.get("/console/policies").text


def test_a_policy_for_prompts_has_versions(operator: httpx2.Client, db: Database) -> None:
    assert "No policy for prompts is stored" in operator.get("/console/policies/prompts").text
    blank = send(operator, "/policies/prompts/save", name="Bad Name", text="x", base="")
    assert blank.status_code == 422
    assert "is no policy&#39;s name" in blank.text
    assert send(operator, "/policies/prompts/save", name="refunds", text=f"one\ntwo {EVIL}", base="").status_code == 303
    again = operator.get("/console/policies/prompts/new?from=refunds@1").text
    assert "<script>alert" not in again
    assert (
        send(operator, "/policies/prompts/save", name="refunds", text="one\nthree", base=hidden(again, "base")).status_code == 303
    )
    late = send(operator, "/policies/prompts/save", name="refunds", text="one\nfour", base="refunds@1")
    assert (late.status_code, "refunds@2 was stored meanwhile" in late.text) == (409, True)
    page = operator.get("/console/policies/prompts/diff?old=refunds@1&new=refunds@2").text
    assert (page.count('class="added"'), page.count('class="removed"')) == (1, 1)
    assert "refunds@2" in operator.get("/console/policies/prompts").text
    assert "refunds@1" in operator.get("/console/policies/prompts/refunds@2").text
