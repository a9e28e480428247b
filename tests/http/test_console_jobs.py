"""Jobs in the console: the list, a job's page, what may be done to one, and a file that becomes one."""

import json
import re
from collections.abc import Iterator

import httpx2
import pytest

from guardfleet.domain import ids
from guardfleet.domain.detection import failed
from guardfleet.domain.scopes import ROLES
from guardfleet.domain.states import JobState
from guardfleet.domain.verdict import failure
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings
from guardfleet.store import keys, models
from guardfleet.store.jobs import views
from guardfleet.store.jobs.views import JobView
from guardfleet.store.postgres.database import Database
from tests.services.detected import BROKEN, ENDS, FINDER, finished
from tests.services.fixtures import with_broker
from tests.services.fleet import until
from tests.services.served import judge, judging, served
from tests.services.stored import scalar, submit
from tests.services.visiting import csrf_in, key_of, speak_chinese, visitor

pytestmark = [with_broker("redis")]
HOSTILE = '<img src=x onerror="alert(1)">\u202egnp'
TAKEN = "Taken here are JSON Lines, JSON, CSV, TSV, and a text on each line."
SPREAD = "Choose the column that has the text."


@pytest.fixture
def person(url: str, db: Database, keyring: Keyring) -> Iterator[httpx2.Client]:
    """An operator."""
    with visitor(url, key_of(db, keyring, "operator", name="operator")) as somebody:
        yield somebody


def job_of(db: Database, location: str) -> JobView:
    return views.get(db, ids.JOB.parse(re.search(r"job_[0-9a-f]+", location).group()))


def uploaded(person: httpx2.Client, name: str, content: bytes) -> httpx2.Response:
    """Upload a file as a form without a script does; the answer's page."""
    csrf = csrf_in(person.get("/console/jobs/new").text)
    sent = person.post("/console/jobs/new/upload", data={"csrf": csrf}, files={"file": (name, content)})
    assert sent.status_code == 303, sent.text
    page = person.get(sent.headers["location"])
    assert page.status_code == 200, page.text
    return page


def sends(person: httpx2.Client, page: httpx2.Response, **fields: object) -> httpx2.Response:
    """Send the form of a preview."""
    action = re.search(r'action="(/console/jobs/new/file-[0-9a-f]+)"', page.text).group(1)
    return person.post(action, data={"csrf": csrf_in(page.text), "name": "mine", **fields})


def test_the_list_says_what_to_do_first_and_later_what_each_job_does(person: httpx2.Client, db: Database, keyring: Keyring) -> None:
    assert "There is no job yet." in person.get("/console/jobs").text
    job = submit(db, keyring, 3)
    page = person.get("/console/jobs").text
    assert job.label in page
    assert "data-live" in page
    assert "no dispatcher is running" in page
    part = person.get("/console/jobs", headers={"hx-request": "true"}).text
    assert part.startswith("<div data-live")
    assert "<html" not in part
    assert job.label not in person.get("/console/jobs?state=completed").text
    assert "No job is like this." in person.get("/console/jobs?name=zzz").text
    assert person.get("/console/jobs?state=nothing").status_code == 400


def test_pages_of_the_list_follow_each_other_and_keep_the_filter(person: httpx2.Client, db: Database, keyring: Keyring) -> None:
    labels = [submit(db, keyring, 1).label for _ in range(23)]
    first = person.get("/console/jobs?state=running").text
    following = re.search(r'rel="next" href="([^"]+)"', first).group(1).replace("&amp;", "&")
    assert "state=running" in following
    second = person.get(following).text
    shown = [re.findall(r'id="(job_[0-9a-f]+)"', page) for page in (first, second)]
    assert shown[0] + shown[1] == labels[::-1]


def test_a_jobs_page_counts_its_verdicts_and_shows_hostile_names_as_text(
    person: httpx2.Client, db: Database, keyring: Keyring
) -> None:
    job = submit(db, keyring, 4)
    with db.begin() as connection:
        connection.execute("update job set name = %(name)s where id = %(id)s", {"name": HOSTILE, "id": job.id})
    with judging(db, keyring):
        until(lambda: views.get(db, job.public_id).state.is_final, what="the job")
    with db.begin() as connection:
        connection.execute("update verdict set metadata = %(m)s", {"m": json.dumps({"lang": "en", "source": HOSTILE, "k": "v"})})
    page = person.get(f"/console/jobs/{job.label}").text
    assert "<img" not in page
    assert "⟨U+202E⟩" in page
    assert "Counted over all 4 texts that are done." in page
    assert "data-live" not in page
    assert "unrated" not in page
    with db.begin() as connection:
        connection.execute("update verdict set severity = -1 where seq = 0")
    page = person.get(f"/console/jobs/{job.label}").text
    assert re.search(r'<th scope="col" class="n">unrated</th>', page)
    renewed = person.get(f"/console/jobs/{job.label}?counted=1", headers={"hx-request": "true"}).text
    assert re.findall(r'<div id="(seen-[a-z]+)" hx-swap-oob="true">', renewed) == [
        "seen-probabilities",
        "seen-crossed",
        "seen-slices",
    ]
    assert set(re.findall(r'id="(seen-[a-z]+)"', renewed)) <= set(re.findall(r'id="(seen-[a-z]+)"', page))
    mark = re.search(r'<option value="([0-9a-f]{12})">k</option>', page).group(1)
    by_key = person.get(f"/console/jobs/{job.label}?key={mark}").text
    assert "By k" in by_key
    assert f"/console/verdicts?job={job.label}" in page
    for lacking in ("/console/jobs/job_" + "0" * 32, "/console/jobs/none"):
        assert person.get(lacking).status_code == 404


def test_errors_of_detectors_are_shown_by_code_and_judged_again_by_it(
    person: httpx2.Client, db: Database, keyring: Keyring
) -> None:
    models.register(db, FINDER)
    job = finished(db, keyring, [*ENDS, BROKEN, failed("too_long", "by far")])
    at = f"/console/jobs/{job.label}"
    page = person.get(at).text
    errors = page.partition('id="errors"')[2].partition("</table>")[0]
    found = re.findall(
        r'name="error" value="(\w+)">.*?<small>of the detector finder</small></th><td class="n">(\d+)<', errors, re.DOTALL
    )
    assert found == [("engine_failed", "2"), ("too_long", "1")]
    assert "there are more" not in page
    made = person.post(f"{at}/retry", data={"csrf": csrf_in(page), "error": "engine_failed"})
    assert job_of(db, made.headers["location"]).total == 2


def test_a_job_is_paused_resumed_prioritised_and_cancelled(person: httpx2.Client, db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring, 3)
    at = f"/console/jobs/{job.label}"
    csrf = csrf_in(person.get(at).text)
    assert person.post(f"{at}/pause", data={}).status_code == 403
    person.post(f"{at}/pause", data={"csrf": csrf})
    paused = person.get(at).text
    assert re.search(r"Paused since <time [^>]+>[^<]+</time>\. No further text", paused)
    assert "until somebody resumes it" in paused
    assert "guardfleet resume" not in paused + person.get("/console/jobs").text
    assert "Texts/s" not in paused
    person.post(f"{at}/resume", data={"csrf": csrf})
    for step, fields, done in (
        ("pause", {}, "job_paused"),
        ("resume", {}, "job_resumed"),
        ("priority", {"priority": "7"}, "job_prioritised"),
        ("cancel", {}, "job_cancelled"),
    ):
        answer = person.post(f"{at}/{step}", data={"csrf": csrf, **fields})
        assert answer.headers["location"] == f"{at}?done={done}", answer.text
    after = views.get(db, job.public_id)
    assert (after.state, after.priority) == (JobState.CANCELLED, 7)
    assert person.post(f"{at}/pause", data={"csrf": csrf}).status_code == 409
    assert person.post(f"{at}/priority", data={"csrf": csrf, "priority": "1000"}).status_code == 400
    whose = f"subject = '{job.label}' and actor_kind = 'key' and action <> 'job.create'"
    acts = scalar(db, f"select array_agg(action order by id) from audit_event where {whose}")
    assert acts == ["job.pause", "job.resume", "job.pause", "job.resume", "job.prioritise", "job.cancel"]


def test_failed_texts_are_judged_again_once_and_verdicts_are_downloaded_with_a_trace(
    person: httpx2.Client, db: Database, keyring: Keyring
) -> None:
    job = submit(db, keyring, 3)
    with judging(db, keyring, judgement=failure("unreadable", "of no form")):
        until(lambda: views.get(db, job.public_id).state.is_final, what="the job")
    at = f"/console/jobs/{job.label}"
    page = person.get(at).text
    code = re.search(r'name="error" value="([^"]+)"', page).group(1)
    made = person.post(f"{at}/retry", data={"csrf": csrf_in(page), "error": code})
    again = job_of(db, made.headers["location"])
    assert (again.total, again.retry_of) == (3, job.public_id)
    csrf = csrf_in(page)
    got = person.post(f"{at}/download", data={"csrf": csrf, "format": "csv"})
    assert got.headers["content-type"].startswith("text/csv")
    assert len(got.text.splitlines()) == 4
    assert scalar(db, f"select count(*) from audit_event where action = 'job.export' and subject = '{job.label}'") == 1
    assert person.post(f"{at}/download", data={"csrf": csrf, "format": "exe"}).status_code == 400
    united = person.post(f"{at}/download", data={"csrf": csrf, "with_retries": "1"})
    assert united.headers["content-disposition"] == f'attachment; filename="{job.label}.jsonl"'


def test_a_link_of_another_site_exports_nothing(person: httpx2.Client, db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring, 1)
    judge(db, job.label)
    at = f"/console/jobs/{job.label}"
    for site in ("cross-site", "same-site", "none", "same-origin"):
        headers = {"sec-fetch-site": site}
        assert person.get(f"{at}/download?format=csv", headers=headers).status_code == 405
        assert "text 0" not in person.get(f"{at}/report?texts=1", headers=headers).text
    csrf = csrf_in(person.get(at).text)
    for path in ("download", "report"):
        assert person.post(f"{at}/{path}", data={}).status_code == 403
        for site in ("cross-site", "same-site"):
            assert person.post(f"{at}/{path}", data={"csrf": csrf}, headers={"sec-fetch-site": site}).status_code == 403
    assert scalar(db, "select count(*) from audit_event where action = 'job.export'") == 0


def test_a_role_does_what_it_may(url: str, db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring, 1)
    for role, statuses in {"viewer": (200, 403, 403, 200), "reviewer": (403, 403, 403, 403)}.items():
        with visitor(url, key_of(db, keyring, role)) as somebody:
            csrf = csrf_in(somebody.get("/console/preferences").text)
            at = f"/console/jobs/{job.label}"
            found = (
                somebody.get(at).status_code,
                somebody.post(f"{at}/cancel", data={"csrf": csrf}).status_code,
                somebody.get("/console/jobs/new").status_code,
                somebody.post(f"{at}/download", data={"csrf": csrf}).status_code,
            )
            assert found == statuses, role
            if role == "viewer":
                page = somebody.get(at).text
                assert "/cancel" not in page
                assert "/console/jobs/new" not in somebody.get("/console/jobs").text


def test_another_tenants_job_and_file_do_not_exist(url: str, person: httpx2.Client, db: Database, keyring: Keyring) -> None:
    job, page = submit(db, keyring, 1), uploaded(person, "a.jsonl", b'{"text": "a"}')
    file = re.search(r"file-[0-9a-f]+", page.text).group()
    other = keys.create(db, keyring, tenant="other", name="operator", scopes=ROLES["operator"])
    with visitor(url, other) as stranger:
        csrf = csrf_in(stranger.get("/console/preferences").text)
        at = f"/console/jobs/{job.label}"
        for path in (at, f"{at}/refused", f"{at}/report", f"/console/jobs/new/{file}"):
            assert stranger.get(path).status_code == 404, path
        of_job = (f"{at}/{what}" for what in ("cancel", "pause", "retry", "download", "report"))
        for path in (*of_job, f"/console/jobs/new/{file}", f"/console/jobs/new/{file}/look"):
            assert stranger.post(path, data={"csrf": csrf}).status_code == 404, path
        assert job.label not in stranger.get("/console/jobs").text


@pytest.mark.parametrize(
    ("name", "content", "fields", "texts", "refused"),
    [
        ("a.jsonl", b'{"text": "one", "id": "a"}\n{"txt": 1}\n{"text": "two"}\n', {}, 2, [2]),
        ("a.csv", b'id,comment,lang\n1,"one\nline",en\n2,two,de\n3,broken\n', {"text": "comment", "id": "id"}, 2, [5]),
        ("a.txt", b"one\n\ntwo\n\xff\n", {}, 2, [4]),
        ("a.tsv", "text\tid\n\u4f60\u597d\tx\n".encode("gbk"), {"encoding": "gbk"}, 1, []),
    ],
)
def test_a_file_is_looked_at_and_then_submitted_as_it_was_shown(
    person: httpx2.Client, db: Database, name: str, content: bytes, fields: dict[str, str], texts: int, refused: list[int]
) -> None:
    page = uploaded(person, name, content)
    if "text" in fields:
        assert SPREAD in page.text
        page = sends(person, page, **fields)
        assert page.status_code == 303
    else:
        page = sends(person, page, **fields)
    assert page.status_code == 303, page.text
    job = job_of(db, page.headers["location"])
    until(lambda: views.get(db, job.public_id).sealed_at, what="the intake")
    job = views.get(db, job.public_id)
    assert (job.total, job.name) == (texts, "mine")
    lines = scalar(db, f"select array_agg(line order by line) from rejection where job_id = {job.id}")
    assert (lines or []) == refused
    if refused:
        assert f"line {refused[0]}" in person.get(f"/console/jobs/{job.label}").text


def test_a_preview_shows_rows_as_text_and_cuts_long_ones(person: httpx2.Client) -> None:
    rows = [{"text": HOSTILE}, {"text": "x" * 1_000_000}, {"messages": [{"role": "user", "content": "hello"}]}, {"text": 1}]
    page = uploaded(person, "n\x00ame<i>.jsonl", "\n".join(map(json.dumps, rows)).encode())
    assert "<img" not in page.text
    assert "<i>" not in page.text
    assert "999,800 characters more" in page.text
    assert "the last of 1 messages" in page.text
    assert "4 rows are in the file; 1 of them are refused." in page.text
    assert len(page.text) < 30_000


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl.gz", b"\x1f\x8b", ["compressed with gzip", TAKEN, "guardfleet submit a.jsonl.gz"]),
        (
            "two names.csv.zst",
            b"\x28\xb5\x2f\xfd",
            ["compressed with zstd", TAKEN, "guardfleet submit &#39;two names.csv.zst&#39;"],
        ),
        ("-a.parquet", b"PAR1", ["is Parquet", TAKEN, "guardfleet submit ./-a.parquet"]),
        ("a.feather", b"ARROW1\0\0", ["is Arrow", TAKEN, "guardfleet submit a.feather"]),
        ("a.arrows", b"\xff\xff\xff\xff", ["is Arrow", TAKEN, "guardfleet submit a.arrows"]),
        ("a.xlsx", b"PK\x03\x04", ["Excel workbook", TAKEN]),
        ("a.jsonl.xz", b"\xfd7zXZ\0", ["compressed with xz", TAKEN]),
        ("empty.jsonl", b"", ["the file is empty"]),
    ],
)
def test_a_file_that_is_not_read_here_is_refused_with_what_to_do(
    person: httpx2.Client, name: str, content: bytes, said: list[str]
) -> None:
    csrf = csrf_in(person.get("/console/jobs/new").text)
    sent = content and content + b"\0" * 100
    answer = person.post("/console/jobs/new/upload", data={"csrf": csrf}, files={"file": (name, sent)})
    assert answer.status_code == 400
    for each in said:
        assert each in answer.text


def test_what_is_refused_and_why_a_job_stands_still_is_said_in_chinese(
    person: httpx2.Client, db: Database, keyring: Keyring
) -> None:
    speak_chinese(person)
    page = uploaded(person, "some.jsonl", b'{"text": "fine"}\n{"text": 1}\n{"id": "a"\n').text
    assert "这里是一个数字" in page
    assert "此处应有" in page
    packed = person.post(
        "/console/jobs/new/upload",
        data={"csrf": csrf_in(person.get("/console/jobs/new").text)},
        files={"file": ("a.gz", b"\x1f\x8b")},
    )
    assert (packed.status_code, "a.gz 以 gzip 压缩。" in packed.text) == (400, True), packed.text
    job = submit(db, keyring, 3)
    for path in ("jobs", f"jobs/{job.label}"):
        assert "没有调度器在运行" in person.get(f"/console/{path}").text


def test_an_upload_is_taken_from_the_sessions_own_form_alone(person: httpx2.Client, db: Database) -> None:
    for sent in ({"data": {"csrf": "0" * 64}}, {"data": {}}, {"headers": {"origin": "https://evil.test"}}):
        assert person.post("/console/jobs/new/upload", files={"file": ("a", b"text")}, **sent).status_code == 403
    assert scalar(db, "select count(*) from file where state = 1") == 0


def test_a_file_larger_than_allowed_is_refused(settings: Settings, db: Database, keyring: Keyring) -> None:
    with (
        served(settings.but(files_max_bytes=1000)) as url,
        visitor(url, key_of(db, keyring, "operator", name="o")) as person,
    ):
        csrf = csrf_in(person.get("/console/jobs/new").text)
        answer = person.post("/console/jobs/new/upload", data={"csrf": csrf}, files={"file": ("a.jsonl", b"x" * 2000)})
        assert answer.status_code == 413


def test_wrong_options_and_a_file_without_usable_rows_make_no_job(person: httpx2.Client, db: Database) -> None:
    page = uploaded(person, "a.jsonl", b'{"text": "one"}\n')
    for wrong in ({"priority": "x"}, {"priority": "500"}, {"completion_window": "soon"}, {"model": "none"}, {"name": "a\0b"}):
        answer = sends(person, page, **wrong)
        assert answer.status_code == 400, wrong
        assert 'role="alert" id="wrong"' in answer.text
        marked = re.findall(r'name="(\w+)"[^>]* aria-invalid="true" aria-describedby="wrong"', answer.text)
        assert marked == list(wrong), answer.text
    for wrong in ({"format": "exe"}, {"encoding": "rot13"}):
        assert sends(person, page, **wrong).status_code == 400
    unusable = uploaded(person, "b.jsonl", b'{"txt": 1}\n')
    assert sends(person, unusable).status_code == 400
    assert scalar(db, "select count(*) from job") == 0


def test_a_job_for_no_detector_is_refused_and_the_form_kept(person: httpx2.Client, db: Database) -> None:
    models.register(db, FINDER)
    page = uploaded(person, "a.jsonl", b'{"text": "one"}\n')
    assert re.findall(r'name="detectors" value="(\w+)"( checked)?', page.text) == [("guard", " checked"), ("finder", "")]
    answer = sends(person, page, detectors="", priority="7")
    assert answer.status_code == 400
    assert "Tick at least one detector" in answer.text
    assert 'name="priority" min="-100" max="100" value="7"' in answer.text
    assert re.findall(r'name="detectors" value="(\w+)"( checked)?', answer.text) == [("guard", ""), ("finder", "")]
    assert scalar(db, "select count(*) from job") == 0
    made = sends(person, page, detectors=["", "finder"])
    assert job_of(db, made.headers["location"]).detectors == ["finder"]
