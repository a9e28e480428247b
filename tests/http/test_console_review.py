"""Reviewing in the console, without scripts: who sees which queue and text, what a form may do, and that texts stay text."""

import html
import re
from typing import Any

import httpx2
import pytest

from guardfleet.domain.reviews import QueueOptions
from guardfleet.jobs import reviewing
from guardfleet.jobs.intake import Intake
from guardfleet.rows.payload import PayloadRow
from guardfleet.security.encryption import Keyring
from guardfleet.settings import load_settings
from guardfleet.store import audit, keys, models
from guardfleet.store.audit import Wanted
from guardfleet.store.jobs import retention
from guardfleet.store.jobs.views import JobView
from guardfleet.store.labels import labels
from guardfleet.store.labels.queues import Queue
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import completion
from guardfleet.store.shards.completion import Row
from tests.services.fixtures import with_broker
from tests.services.judged import LISTED, UNSAFE
from tests.services.stored import MODEL, new_job, scalar, submit, took
from tests.services.visiting import csrf_in, key_of, speak_chinese, visitor
from tests.services.visiting import send as post
from tests.store.test_policies import TENANT, activated, finished
from tests.store.test_reviewing import REVIEW

pytestmark = [with_broker("redis")]
HOSTILE = "<script>alert(1)</script>\u202egnp.exe\"'--{{7*7}}"


def job_of(db: Database, keyring: Keyring, contents: list[Any], *, hit: bool = False) -> JobView:
    """A job whose texts the policy in force sends to review; with `hit`, a list has found something in each."""
    activated(db, REVIEW)
    with Intake(db, keyring, load_settings(), new_job()) as taking:
        taking.add_all((i + 1, PayloadRow(f"id{i}", content)) for i, content in enumerate(contents))
        job = taking.seal()
    rows = [Row(f"id{i}", LISTED.judgement() if hit else UNSAFE) for i in range(len(contents))]
    assert completion.finish(db, took(db, job, 0), rows, model_id=models.register(db, MODEL)) is not None
    return job


def queue_of(db: Database, **options: Any) -> Queue:
    return reviewing.create(db, TENANT, QueueOptions(**{"name": "night", "second_share": 0.0, **options}), job=None, sample=None)


def forms(page: str) -> dict[str, dict[str, str]]:
    """The hidden fields of each form of a page, by its address."""
    found = re.findall(r'<form method="post" action="([^"]+)".*?</form>', page, re.DOTALL)
    bodies = re.findall(r'<form method="post" action="[^"]+".*?</form>', page, re.DOTALL)
    field = re.compile(r'type="hidden" name="(\w+)" value="([^"]*)"')
    return {path: dict(field.findall(body)) for path, body in zip(found, bodies, strict=True)}


def follow(person: httpx2.Client, answer: httpx2.Response) -> str:
    assert answer.status_code == 303, answer.text
    return person.get(answer.headers["location"]).text


def ticked(page: str) -> list[str]:
    """Who reviews, by the boxes of a queue's form."""
    return re.findall(r'name="reviewer" value="([^"]*)" checked', page)


def fields_in_doubt(page: str) -> dict[str, str]:
    """What is said at each field that is marked as wrong: the text of the element that its description names last."""
    marked = re.findall(r'<(?:input|textarea|fieldset) id="(\w+)"[^>]*aria-describedby="([^"]+)" aria-invalid="true"', page)
    said = {name: re.search(rf'id="{described.split()[-1]}">(.*?)</p>', page).group(1) for name, described in marked}
    assert page.count('aria-invalid="true"') == len(said)
    return {name: html.unescape(sentence) for name, sentence in said.items()}


def begin(person: httpx2.Client, queue: Queue) -> str:
    csrf = csrf_in(person.get("/console/review").text)
    return follow(person, person.post(f"/console/review/{queue.label}/next", data={"csrf": csrf}))


def send(person: httpx2.Client, page: str, path: str, **fields: Any) -> str:
    return follow(person, person.post(path, data={**forms(page)[path], **fields}))


def test_a_reviewer_decides_skips_and_takes_back_by_plain_forms(url: str, db: Database, keyring: Keyring) -> None:
    job = job_of(db, keyring, ["one", "two", "three"])
    queue, key = queue_of(db), key_of(db, keyring, "reviewer")
    base = f"/console/review/{queue.label}"
    with visitor(url, key) as person:
        page = begin(person, queue)
        assert ">one</pre>" in page
        page = send(person, page, f"{base}/decide", label="unsafe", category=["Violent", "PII"])
        assert ">two</pre>" in page
        page = send(person, page, f"{base}/undo")
        assert "Taken back" in page
        assert ">one</pre>" in page
        assert labels.page(db, TENANT, limit=9) == []
        page = send(person, page, f"{base}/decide", label="safe")
        page = send(person, page, f"{base}/skip")
        assert "Skipped" in page
        assert ">three</pre>" in page
        assert "Choose what" in send(person, page, f"{base}/decide")
        wrong = person.post(f"{base}/decide", data={**forms(page)[f"{base}/decide"], "label": "safe", "category": "PII"})
        assert (wrong.status_code, "no categories" in wrong.text) == (400, True)
        page = send(person, page, f"{base}/decide", label="controversial")
        assert "You hold no text" in page
    who = keys.authenticate(db, keyring, key).label
    assert [(one.seq, one.author, one.severity) for one in labels.page(db, TENANT, job_id=job.id, limit=9)] == [
        (0, who, 0),
        (2, who, 1),
    ]
    events = [(event.actor, event.action) for event in audit.events(db, Wanted(actions=["label.import", "label.retract"]))]
    assert sorted(events) == [(who, "label.import")] * 3 + [(who, "label.retract")]


def test_a_form_that_is_sent_twice_counts_once(url: str, db: Database, keyring: Keyring) -> None:
    job_of(db, keyring, ["one", "two"])
    queue = queue_of(db)
    with visitor(url, key_of(db, keyring, "reviewer")) as person:
        page = begin(person, queue)
        for label in ("unsafe", "safe"):
            assert ">two</pre>" in send(person, page, f"/console/review/{queue.label}/decide", label=label)
    assert [one.severity for one in labels.page(db, TENANT, limit=9)] == [2]


def test_a_reviewer_has_the_review_pages_alone(url: str, db: Database, keyring: Keyring) -> None:
    job = job_of(db, keyring, ["one"])
    queue = queue_of(db)
    with visitor(url, key_of(db, keyring, "reviewer")) as person:
        for path in ("jobs", "verdicts", "review/new", f"review/{queue.label}/change", f"review/{queue.label}/results",
                     f"review/{queue.label}/cases/1"):  # fmt: skip
            assert person.get(f"/console/{path}").status_code == 403, path
        csrf = csrf_in(person.get("/console/review").text)
        for path in ("review/new", f"review/{queue.label}/change", f"review/{queue.label}/cases/1"):
            assert person.post(f"/console/{path}", data={"csrf": csrf, "name": "x"}).status_code == 403, path
        batch = job.label.replace("job_", "batch_")
        for path in (f"/v1/batches/{batch}/results", f"/v1/batches/{batch}/download", "/v1/labels"):
            assert person.get(path).status_code in (401, 403), path
    with visitor(url, key_of(db, keyring, "viewer")) as person:
        assert person.get("/console/review").status_code == 403


def test_a_queue_does_not_exist_for_others(url: str, db: Database, keyring: Keyring) -> None:
    job_of(db, keyring, ["one"])
    queue = queue_of(db, reviewers=("somebody",))
    with visitor(url, key_of(db, keyring, "operator")) as operator, visitor(url, key_of(db, keyring, "reviewer")) as reviewer:
        assert "night" not in reviewer.get("/console/review").text
        assert reviewer.get(f"/console/review/{queue.label}").status_code == 404
        csrf = csrf_in(reviewer.get("/console/review").text)
        for act in ("next", "decide", "skip", "undo", "rest"):
            data = {"csrf": csrf, "task": "1", "token": "1", "label": "safe"}
            assert reviewer.post(f"/console/review/{queue.label}/{act}", data=data).status_code == 404
        assert "night" in operator.get("/console/review").text
        assert operator.get(f"/console/review/{queue.label}").status_code == 404
        assert operator.get(f"/console/review/{queue.label}/results").status_code == 200
    with visitor(url, key_of(db, keyring, "operator", tenant="other")) as foreign:
        assert "night" not in foreign.get("/console/review").text
        csrf = csrf_in(foreign.get("/console/review").text)
        for path in ("", "/results", "/change", "/cases/1"):
            assert foreign.get(f"/console/review/{queue.label}{path}").status_code == 404
        for path in ("/next", "/decide", "/change", "/cases/1"):
            data = {"csrf": csrf, "task": "1", "token": "1", "label": "safe", "name": "x"}
            assert foreign.post(f"/console/review/{queue.label}{path}", data=data).status_code == 404
    with visitor(url, key_of(db, keyring, "reviewer")) as person:
        assert person.get("/console/review/queue_1").status_code == 404
        assert person.get("/console/review/nonsense").status_code == 404


def test_a_forged_form_does_nothing(url: str, db: Database, keyring: Keyring) -> None:
    job_of(db, keyring, ["one"])
    queue = queue_of(db)
    with visitor(url, key_of(db, keyring, "operator")) as person:
        for path in (f"{queue.label}/next", f"{queue.label}/decide", f"{queue.label}/change", "new", "settings"):
            assert person.post(f"/console/review/{path}", data={"csrf": "0" * 64, "name": "x", "label": "safe"}).status_code == 403
        page = begin(person, queue)
        forged = {**forms(page)[f"/console/review/{queue.label}/decide"], "label": "safe"}
        answer = person.post(f"/console/review/{queue.label}/decide", data=forged, headers={"origin": "https://evil.test"})
        assert answer.status_code == 403
        for token in ("", "-1", "x", "9" * 30):
            assert person.post(f"/console/review/{queue.label}/decide", data={**forged, "task": token}).status_code == 404
    assert labels.page(db, TENANT, limit=9) == []


def test_a_hostile_text_is_shown_as_text_and_is_in_no_address(url: str, db: Database, keyring: Keyring) -> None:
    job_of(
        db, keyring, [HOSTILE, [{"role": "user", "content": "asks"}, {"role": "assistant", "content": HOSTILE}], "x" * 1_000_000]
    )
    queue = queue_of(db, name="<b>night</b>")
    with visitor(url, key_of(db, keyring, "reviewer")) as person:
        page = begin(person, queue)
        for _ in range(2):
            assert "<script>alert" not in page
            assert "&lt;script&gt;" in page
            assert "\u202e" not in page
            assert "⟨U+202E⟩" in page
            assert "<b>night" not in page
            answer = person.post(
                f"/console/review/{queue.label}/decide",
                data={**forms(page)[f"/console/review/{queue.label}/decide"], "label": "unsafe"},
            )
            assert answer.headers["location"] == f"/console/review/{queue.label}"
            page = follow(person, answer)
        assert len(page) < 60_000
        assert "980,000 more characters" in page
        assert person.get(f"/console/review/{queue.label}").headers["cache-control"] == "no-store"


def test_what_a_list_found_is_masked_and_everything_is_veiled_unless_somebody_prefers_otherwise(
    url: str, db: Database, keyring: Keyring
) -> None:
    job_of(db, keyring, ["Acme: CHEAP p1lls"], hit=True)
    queue = queue_of(db)
    with visitor(url, key_of(db, keyring, "reviewer")) as person:
        page = begin(person, queue)
        page = person.get(f"/console/review/{queue.label}").text
        assert 'class="calm veil mask"' in page
        assert 'class="veiled grey"' in page
        csrf = csrf_in(page)
        saved = person.post("/console/review/settings", data={"csrf": csrf, "review_mask": "on", "review_break_after": "7"})
        assert 'value="7"' in follow(person, saved)
        page = person.get(f"/console/review/{queue.label}").text
        assert 'class="calm mask"' in page
        assert 'class="veiled"' in page
        assert person.post("/console/review/settings", data={"csrf": csrf, "review_break_after": "x"}).status_code == 400


@pytest.mark.parametrize(("shows", "share", "expected"), [(False, 0.0, False), (True, 0.0, True), (True, 1.0, False)])
def test_what_the_model_said_is_hidden_from_whoever_is_measured(
    url: str, db: Database, keyring: Keyring, shows: bool, share: float, expected: bool
) -> None:
    job_of(db, keyring, ["one"])
    queue = queue_of(db, shows_verdict=shows, second_share=share)
    with visitor(url, key_of(db, keyring, "reviewer")) as person:
        page = begin(person, queue)
        assert ("80.0 %" in page) is expected
        assert ("not shown before you decide" in page) is not expected


def test_a_break_is_suggested_after_unsafe_texts_and_taken_or_not(url: str, db: Database, keyring: Keyring) -> None:
    job_of(db, keyring, [f"text {i}" for i in range(6)])
    queue = queue_of(db, break_after=2)
    with visitor(url, key_of(db, keyring, "reviewer")) as person:
        page = begin(person, queue)
        for label in ("unsafe", "safe", "unsafe"):
            page = send(person, page, f"/console/review/{queue.label}/decide", label=label)
        assert "2 unsafe texts since your last break" in page
        assert "text 3" not in page
        page = send(person, page, f"/console/review/{queue.label}/rest")
        assert "text 3" in page


def test_a_deleted_text_is_told_and_can_be_skipped(url: str, db: Database, keyring: Keyring) -> None:
    job = job_of(db, keyring, ["one"])
    queue = queue_of(db)
    with visitor(url, key_of(db, keyring, "reviewer")) as person:
        begin(person, queue)
        retention.purge(db, [job.id])
        page = person.get(f"/console/review/{queue.label}").text
        assert "The text was deleted" in page
        assert "You hold no text" in send(person, page, f"/console/review/{queue.label}/skip")


def test_an_operator_makes_a_queue_sees_how_far_it_is_and_resolves_a_case(url: str, db: Database, keyring: Keyring) -> None:
    job = job_of(db, keyring, ["one", "two", "three"])
    with (
        visitor(url, key_of(db, keyring, "operator", name="lead")) as lead,
        visitor(url, key_of(db, keyring, "reviewer", name="Ann")) as ann,
        visitor(url, key_of(db, keyring, "reviewer", name="Bob")) as bob,
    ):
        form = {"csrf": csrf_in(lead.get("/console/review/new").text), "name": "night", "job": job.label, "second": "100"}
        assert lead.post("/console/review/new", data={**form, "second": "101"}).status_code == 422
        assert lead.post("/console/review/new", data={**form, "job": "job_" + "0" * 32}).status_code == 422
        made = lead.post("/console/review/new", data=form)
        assert "The queue is made." in follow(lead, made)
        assert lead.post("/console/review/new", data=form).status_code == 422
        base = made.headers["location"].partition("/results")[0]
        queue = reviewing.queue_for(db, TENANT, _uuid(base), who="x")
        for person, said in ((ann, ("safe", "unsafe", "safe")), (bob, ("safe", "safe", "safe"))):
            page = begin(person, queue)
            for label in said:
                page = send(person, page, f"{base}/decide", label=label)
            assert "You hold no text" in page
        page = lead.get(f"{base}/results").text
        assert "Ann" in page
        assert re.search(r"alpha, ordinal</dt><dd>0\.000 <small>", page)
        case = re.search(rf"{base}/cases/\d+", page).group()
        assert ">two</pre>" in lead.get(case).text
        page = lead.get(case).text
        said = dict(re.findall(r'<td>(\w+) <small class="mono">(key_\w+)</small></td>', page))
        assert [keys.names(db, TENANT, [said[name]])[said[name]] for name in ("Ann", "Bob")] == ["Ann", "Bob"]
        assert "Choose what" in send(lead, page, case)
        assert "Resolved: this decision counts" in send(lead, page, case, label="unsafe")
        assert "already" in send(lead, page, case, label="safe")
        assert [one.source for one in labels.page(db, TENANT, limit=9)][-1] == 4
        changed = lead.post(f"{base}/change", data={**form, "name": "day", "reviewer": "p:1", "reviewers": "p:1\n p:2 "})
        assert "The queue is changed." in follow(lead, changed)
        assert "closed" in lead.get(f"{base}/results").text
        assert ticked(lead.get(f"{base}/change").text) == ["p:1", "p:2"]
        assert ann.get(base).status_code == 404
    actions = [event.action for event in audit.events(db, Wanted()) if event.action.startswith("review_queue")]
    assert actions == ["review_queue.create", "review_queue.update"]


def _uuid(path: str) -> Any:
    from guardfleet.domain import ids

    return ids.QUEUE.parse(path.rsplit("/", 1)[1])


def test_a_wrong_form_of_a_queue_is_shown_again_with_each_refusal_at_its_field(url: str, db: Database, keyring: Keyring) -> None:
    key_of(db, keyring, "reviewer", tenant="other")
    elsewhere = submit(db, keyring, 1, new=new_job(tenant_id=keys.tenant_id(db, "other"))).label
    none, typed = "sample_" + "0" * 32, {"name": "night shift", "second": "37", "break_after": "9"}
    with visitor(url, key_of(db, keyring, "operator")) as lead:
        for wrong, said in (
            ({"job": "job_" + "0" * 32}, {"job": "there is no job"}),
            ({"job": elsewhere}, {"job": "there is no job"}),
            ({"sample": none}, {"sample": "there is no such sample."}),
            ({"job": "job_" + "0" * 32, "sample": none}, {"sample": "a queue has the texts of a job or of a sample"}),
            ({"lease_s": "1"}, {"lease_s": "a text can go to another person after"}),
            (
                {"name": " ", "golden": "x", "lease_s": "90000"},
                {"name": "the name must have", "golden": "a share", "lease_s": "a text"},
            ),
            ({"second": "101", "break_after": "-1"}, {"second": "a share", "break_after": "a break can be suggested"}),
            ({"reviewers": "x" * 201}, {"reviewers": "a queue has at most"}),
            ({"reviewers": "a\0b"}, {"reviewers": "a queue has at most"}),
        ):
            answer = post(lead, "/review/new", **{**typed, **wrong})
            assert answer.status_code == 422, answer.text
            found = fields_in_doubt(answer.text)
            assert found.keys() == said.keys(), wrong
            assert all(found[name].startswith(begins) for name, begins in said.items()), found
            page = html.unescape(answer.text)
            assert all(
                f'value="{value}"' in page for name, value in {**typed, **wrong}.items() if name != "reviewers" and value.strip()
            ), page
            assert all(f'href="#{name}"' in page for name in said)
        assert scalar(db, "select count(*) from review_queue") == 0
        made = post(lead, "/review/new", **typed)
        queue = made.headers["location"].split("/results")[0].removeprefix("/console")
        assert fields_in_doubt(post(lead, "/review/new", **typed).text).keys() == {"name"}
        speak_chinese(lead)
        answer = post(lead, f"{queue}/change", name="", second="x", break_after="x", lease_s="x", reviewers="x" * 201)
        assert not [one for one in fields_in_doubt(answer.text).values() if re.search(r"[a-z]{3}", one)], answer.text


def test_reviewers_are_picked_by_name_and_who_never_gets_a_text_is_told(url: str, db: Database, keyring: Keyring) -> None:
    ann, gone = (keys.authenticate(db, keyring, key_of(db, keyring, "reviewer", name=name)) for name in ("Ann", "Max"))
    vic = keys.authenticate(db, keyring, key_of(db, keyring, "viewer", name="Vic"))
    foreign = keys.authenticate(db, keyring, key_of(db, keyring, "reviewer", name="Eve", tenant="other"))
    with visitor(url, key_of(db, keyring, "operator", name="lead")) as lead:
        page = lead.get("/console/review/new").text
        assert re.search(rf'name="reviewer" value="{ann.label}">\s*Ann', page)
        assert ticked(page) == []
        assert not {"Vic", "Eve"} & set(re.findall(r"\w+", page))
        for wrong in (vic, foreign):
            answer = post(lead, "/review/new", name="night", reviewer=ann.label, reviewers=wrong.label)
            assert fields_in_doubt(answer.text) == {"reviewers": f"{wrong.label}: no key of yours that may review."}
            assert ticked(answer.text) == [ann.label, wrong.label]
        many = [ann.label, gone.label]
        made = lead.post(
            "/console/review/new", data={"csrf": csrf_in(page), "name": "night", "reviewer": many, "reviewers": "oidc|somebody"}
        )
        queue = made.headers["location"].split("/results")[0].removeprefix("/console")
        assert "never get" not in lead.get("/console/review").text
        keys.revoke(db, gone.label)
        assert re.search(r"Max[^\n]*revoked: never gets a text", lead.get(f"/console{queue}/change").text)
        page = lead.get(f"/console{queue}/change").text
        assert set(ticked(page)) == {*many, "oidc|somebody"}
        assert re.search(r"oidc\|somebody[^\n]*not signed in now", page)
        assert "1 of them never gets a text" in lead.get("/console/review").text
        assert re.search(r"Max[^\n]*revoked: never gets a text", lead.get(f"/console{queue}/results").text)
        data = {"csrf": csrf_in(page), "name": "night", "reviewer": many}  # who was named already does not bar other changes
        assert lead.post(f"/console{queue}/change", data=data).status_code == 303
        assert fields_in_doubt(lead.post(f"/console{queue}/change", data={**data, "reviewer": [*many, vic.label]}).text)


def test_the_pages_speak_chinese(url: str, db: Database, keyring: Keyring) -> None:
    finished(db, keyring, [UNSAFE])
    queue = queue_of(db)
    with visitor(url, key_of(db, keyring, "operator")) as person:
        speak_chinese(person)
        assert "您的队列" in person.get("/console/review").text
        assert "一致性" in person.get(f"/console/review/{queue.label}/results").text
