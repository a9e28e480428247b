"""The console's pages of verdicts: filters, one verdict, its text, words in texts; who may see them, and what they never do."""

import re
from collections.abc import Iterator
from urllib.parse import unquote, urlencode

import httpx2
import pytest

from guardfleet.domain.scopes import ROLES
from guardfleet.jobs.intake import Intake
from guardfleet.rows.payload import PayloadRow
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings
from guardfleet.store import audit, keys, models
from guardfleet.store.jobs import retention
from guardfleet.store.jobs.views import JobView
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import completion
from guardfleet.store.shards.completion import Row
from tests.services.detected import BOTH, ENDS, finished
from tests.services.fixtures import with_broker
from tests.services.judged import SAFE, UNSAFE, UNSURE, failed
from tests.services.stored import MODEL, finish, new_job, submit, took
from tests.services.visiting import csrf_in, key_of, visitor
from tests.store.test_browsing import STRICT, applied

pytestmark = [with_broker("redis")]

HOSTILE = "<script>alert(1)</script>\u202e\u0007{{ 7*7 }}'\"><img src=x onerror=alert(2)>"


@pytest.fixture
def person(url: str, db: Database, keyring: Keyring) -> Iterator[httpx2.Client]:
    """A viewer of the tenant `default`."""
    with visitor(url, key_of(db, keyring, "viewer", name="viewer")) as found:
        yield found


def judged(db: Database, keyring: Keyring, n: int = 10) -> JobView:
    """A job of shards of four texts: safe, unsafe, controversial, failed, and so on."""
    job = submit(db, keyring, n, shard_texts=4)
    for no in range(-(-n // 4)):
        finish(db, took(db, job, no), [SAFE, UNSAFE, UNSURE, failed("too_long")][no % 4])
    return job


def rows_of(page: str) -> list[str]:
    """The paths of a page's verdicts."""
    return re.findall(r'data-row href="/console/verdicts/([^"]+)"', page)


def next_of(page: str) -> str | None:
    """Where a page leads on."""
    found = re.search(r'rel="next"[^>]* href="([^"]+)"', page)
    return found and found.group(1).replace("&amp;", "&")


def test_filters_find_pages_go_on_and_a_page_of_one_verdict_has_all_of_it(
    person: httpx2.Client, db: Database, keyring: Keyring
) -> None:
    applied(db, STRICT)
    job = judged(db, keyring, 130)
    found, path = [], "/console/verdicts"
    while path:
        page = person.get(path).text
        found += rows_of(page)
        path = next_of(page)
    assert found == [f"{job.label}/{seq}" for seq in range(130)]
    assert "That is all." in page
    asked = {
        "severity": "unsafe", "category": "Violent", "action": "block", "of": "unsafe", "least": "0.7", "most": "0.9",
        "job": job.label, "since": "2020-01-01T00:00", "until": "2099-01-01T00:00", "row": "id20",
    }  # fmt: skip
    page = person.get("/console/verdicts?" + urlencode(asked)).text
    assert rows_of(page) == [f"{job.label}/20"]
    assert "Looked at 130 of 130 verdicts." in page
    assert rows_of(person.get("/console/verdicts?error=too_long&severity=error").text)[0] == f"{job.label}/12"
    nothing = person.get("/console/verdicts?action=flag").text
    assert "No verdict is as you ask" in nothing
    one = person.get(f"/console/verdicts/{job.label}/20").text
    for part in ("Unsafe in Violent", "m@0123456789ab", "strict@1", "in force", "Nobody has labelled this text.", "80.0 %"):
        assert part in one
    assert "text 20" not in one


def test_htmx_gets_the_found_verdicts_alone(person: httpx2.Client, db: Database, keyring: Keyring) -> None:
    judged(db, keyring)
    part = person.get("/console/verdicts?severity=unsafe", headers={"hx-request": "true"}).text
    assert len(rows_of(part)) == 4
    assert "<html" not in part
    wrong = person.get("/console/verdicts?severity=grave", headers={"hx-request": "true"})
    assert (wrong.status_code, wrong.headers["hx-retarget"]) == (400, "#notice")


def test_detectors_are_a_filter_where_there_are_any(person: httpx2.Client, db: Database, keyring: Keyring) -> None:
    assert "f-finding" not in person.get("/console/verdicts").text
    job = finished(db, keyring, ENDS, **BOTH)
    page = person.get("/console/verdicts?finding=finder:found").text
    assert rows_of(page) == [f"{job.label}/0"]
    assert re.search(r'value="finder:found" selected', page)
    assert len(rows_of(person.get("/console/verdicts?finding=finder").text)) == 4
    assert rows_of(person.get("/console/verdicts?finding=finder:too_short").text) == [f"{job.label}/2"]
    assert "75.0 %" in person.get(f"/console/verdicts/{job.label}/0").text


def test_a_text_is_shown_on_request_and_that_is_recorded(person: httpx2.Client, db: Database, keyring: Keyring) -> None:
    job = judged(db, keyring)
    path = f"/console/verdicts/{job.label}/5"
    csrf = csrf_in(person.get(path).text)
    assert person.post(f"{path}/text", data={}).status_code == 403
    shown = person.post(f"{path}/text", data={"csrf": csrf})
    assert (shown.status_code, shown.headers["cache-control"]) == (200, "no-store")
    assert '<pre class="text" dir="auto" tabindex="0">text 5</pre>' in shown.text
    part = person.post(f"{path}/text", headers={"x-csrf-token": csrf, "hx-request": "true"}).text
    assert "text 5" in part
    assert "<html" not in part
    (last, _) = audit.page(db, audit.Wanted(actions=["job.read"]), after=None, limit=9, newest_first=True)
    assert (last.subject, last.detail) == (job.label, {"by": "place", "seq": 5, "texts": 1})
    assert person.get(f"{path}/text").status_code == 405


def test_words_are_searched_by_a_form_and_who_was_shown_texts_is_recorded(
    person: httpx2.Client, db: Database, keyring: Keyring, capfd: pytest.CaptureFixture[str]
) -> None:
    job, other = judged(db, keyring, 60), judged(db, keyring, 9)
    csrf = csrf_in(person.get("/console/verdicts").text)
    page = person.post("/console/verdicts/search", data={"csrf": csrf, "words": "TEXT 5", "job": job.label})
    assert rows_of(page.text) == [f"{job.label}/{seq}" for seq in (5, *range(50, 60))]
    assert "<mark>text 5</mark>" in page.text
    assert [event.detail for event in _read(db)] == [{"by": "search", "texts": 11}]
    page = person.post("/console/verdicts/search", data={"csrf": csrf, "words": "text"})
    assert [path.split("/")[0] for path in rows_of(page.text)] == [other.label] * 9 + [job.label] * 41
    after = re.search(r'name="after" value="([^"]+)"', page.text).group(1)
    page = person.post("/console/verdicts/search", data={"csrf": csrf, "words": "text", "after": after})
    assert len(rows_of(page.text)) == 19
    before = len(_read(db))
    page = person.post("/console/verdicts/search", data={"csrf": csrf, "words": "rosebud", "severity": "unsafe"})
    assert "No text that is still kept has these words." in page.text
    assert len(_read(db)) == before, "nobody was shown anything"
    assert person.post("/console/verdicts/search", data={"csrf": csrf, "words": " "}).status_code == 400
    assert person.post("/console/verdicts/search", data={"csrf": csrf, "words": "x" * 201}).status_code == 400
    assert person.get("/console/verdicts/search?words=rosebud").status_code == 405
    said = "".join(capfd.readouterr())
    assert "rosebud" not in said.replace("search?words=rosebud", "")


def _read(db: Database) -> list[audit.Event]:
    return audit.page(db, audit.Wanted(actions=["job.read"]), after=None, limit=99, newest_first=True)


def test_texts_that_are_gone_are_told_to_be(person: httpx2.Client, db: Database, keyring: Keyring) -> None:
    purged, erased, kept_nowhere = judged(db, keyring), judged(db, keyring), submit(db, keyring, 2)
    with db.begin() as connection:
        connection.execute(f"update job set keeps_nothing = true where id = {kept_nowhere.id}")
    finish(db, took(db, kept_nowhere, 0))
    retention.purge(db, [purged.id])
    with db.begin() as connection:
        connection.execute(
            f"""update verdict set id = null, evidence = '{{"notes": ["erased on request"]}}'
                where job_id = {erased.id} and seq = 1"""
        )
    csrf = csrf_in(person.get("/console/verdicts").text)
    for job, seq, words in (
        (purged, 1, "no longer kept"), (erased, 1, "erased on request, or could not be read"), (kept_nowhere, 0, "keeps no texts"),
    ):  # fmt: skip
        page = person.get(f"/console/verdicts/{job.label}/{seq}").text
        assert words in page
        assert "Show text" not in page
    for job in (purged, kept_nowhere):
        gone = person.post(f"/console/verdicts/{job.label}/1/text", data={"csrf": csrf})
        assert (gone.status_code, "not kept any more" in gone.text) == (404, True)
    assert _read(db) == []


def test_foreign_and_unknown_verdicts_are_not_there(person: httpx2.Client, url: str, db: Database, keyring: Keyring) -> None:
    job = judged(db, keyring)
    key = keys.create(db, keyring, tenant="elsewhere", name="k", scopes=ROLES["admin"])
    with visitor(url, key) as stranger:
        assert rows_of(stranger.get("/console/verdicts").text) == []
        csrf = csrf_in(stranger.get("/console/verdicts").text)
        assert stranger.get(f"/console/verdicts/{job.label}/1").status_code == 404
        assert stranger.get(f"/console/verdicts?job={job.label}").status_code == 404
        assert stranger.post(f"/console/verdicts/{job.label}/1/text", data={"csrf": csrf}).status_code == 404
        assert rows_of(stranger.post("/console/verdicts/search", data={"csrf": csrf, "words": "text"}).text) == []
        assert stranger.post("/console/verdicts/search", data={"csrf": csrf, "words": "t", "job": job.label}).status_code == 404
        mine = next_of(person.get("/console/verdicts").text) or ""
        assert mine == "" or stranger.get(mine).status_code == 400
    for path in (
        f"{job.label}/10",
        f"{job.label}/x",
        f"{job.label}/99999999999",
        f"{job.label}/-1",
        "job_1/1",
        "no/1",
        f"{job.label}/٣",
    ):
        assert person.get(f"/console/verdicts/{path}").status_code == 404, path
    for query in ("after=x", "after=é", "severity=1", "least=9", "since=x", "finding=:x", "row=%00", "job=x"):
        assert person.get(f"/console/verdicts?{query}").status_code in (400, 404), query


def test_a_cursor_is_of_one_tenant(url: str, person: httpx2.Client, db: Database, keyring: Keyring) -> None:
    judged(db, keyring, 60)
    more = next_of(person.get("/console/verdicts").text)
    assert more is not None
    with visitor(url, keys.create(db, keyring, tenant="elsewhere", name="k", scopes=ROLES["admin"])) as stranger:
        assert stranger.get(more).status_code == 400
    assert person.get(more[:-2] + "xx").status_code == 400


def test_a_reviewer_sees_none_of_it(url: str, db: Database, keyring: Keyring) -> None:
    job = judged(db, keyring)
    with visitor(url, key_of(db, keyring, "reviewer", name="r")) as reviewer:
        csrf = csrf_in(reviewer.get("/console/preferences").text)
        for path in ("verdicts", f"verdicts/{job.label}/1"):
            assert reviewer.get(f"/console/{path}").status_code == 403
        for path in (f"verdicts/{job.label}/1/text", "verdicts/search"):
            assert reviewer.post(f"/console/{path}", data={"csrf": csrf, "words": "text"}).status_code == 403


def test_whatever_somebody_wrote_is_shown_as_text(
    settings: Settings, person: httpx2.Client, db: Database, keyring: Keyring
) -> None:
    rows = [PayloadRow(HOSTILE, HOSTILE * 5000, {HOSTILE: [HOSTILE]}), PayloadRow("c", [{"role": "user", "content": HOSTILE}])]
    with Intake(db, keyring, settings, new_job(name=HOSTILE)) as intake:
        intake.add_all(enumerate(rows, 1))
        job = intake.seal()
    held = took(db, job, 0)
    said = [Row(row.id, failed("engine_failed", HOSTILE), None, row.metadata) for row in rows]
    completion.finish(db, held, said, model_id=models.register(db, MODEL))
    csrf = csrf_in(person.get("/console/verdicts").text)
    answers = [
        person.get("/console/verdicts"),
        person.get("/console/verdicts?" + urlencode({"row": HOSTILE, "job": job.label})),
        person.get(f"/console/verdicts/{job.label}/0"),
        person.post(f"/console/verdicts/{job.label}/0/text", data={"csrf": csrf}),
        person.post(f"/console/verdicts/{job.label}/1/text", data={"csrf": csrf}),
        person.post("/console/verdicts/search", data={"csrf": csrf, "words": "<script>alert(1)</script>"}),
    ]
    for answer in answers:
        assert answer.status_code == 200
        assert len(answer.content) < 400_000
        for raw in ("<script>alert", "<img src=x", "\u202e", "\u0007"):
            assert raw not in re.sub(r'value="[^"]*"', "", answer.text), "fields alone have what was typed, exactly"
    assert "⟨U+202E⟩" in answers[2].text
    assert "Cut: the first 20,000" in answers[3].text
    assert rows_of(answers[1].text) == [f"{job.label}/0"]
    assert len(rows_of(answers[5].text)) == 2


def test_no_address_that_a_page_leads_to_has_words_of_a_text(person: httpx2.Client, db: Database, keyring: Keyring) -> None:
    judged(db, keyring, 60)
    csrf = csrf_in(person.get("/console/verdicts").text)
    page = person.post("/console/verdicts/search", data={"csrf": csrf, "words": "text 1", "severity": "unsafe"}).text
    assert all("text 1" not in unquote(address) for address in re.findall(r'(?:href|action|hx-get|hx-post)="([^"]*)"', page))
    assert 'value="text 1"' in page, "it goes on by a form"
