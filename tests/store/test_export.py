"""Verdicts as files: ids unchanged, with their texts, with columns for metadata; and lines that were refused."""

import csv
import json
import pathlib
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from api.server import create_app
from guardfleet.cli.commands import results as command
from guardfleet.errors import RejectedError
from guardfleet.jobs.intake import Intake
from guardfleet.rows.lines import numbered_rows
from guardfleet.security.encryption import Keyring
from guardfleet.settings import load_settings
from guardfleet.store import keys, models, verdicts
from guardfleet.store.jobs import retention, texts, views
from guardfleet.store.jobs.views import JobView
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import completion, leases
from guardfleet.verdicts import export
from guardfleet.verdicts.export import Layout
from tests.services.fixtures import SECRET_KEY
from tests.services.stored import MODEL, SAFE, new_job, scalar, took
from worker.moderation.outcome import rows_of

TURNS = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Zw\u00f6lf \ud800"}]
LINES = [
    {"id": "-5", "text": "=one, two", "metadata": {"lang": "en", "n": 1}},
    {"id": "+1", "text": "\U0001f600", "metadata": {"lang": "de", "deep": {"k": [1]}}},
    {"id": "@a", "messages": TURNS},
    {"id": "=1", "text": 'quo"te\nline', "metadata": {"tags": ["a", "b"], "ok": True}},
    {"id": "5", "text": ""},
]


def judged(db: Database, keyring: Keyring, lines: list[object], *, shard_texts: int = 2) -> JobView:
    """A finished job of these lines, written as a worker writes it."""
    body = "\n".join(json.dumps(line) for line in lines).encode()
    with Intake(db, keyring, load_settings(shard_texts=shard_texts), new_job(name="test")) as intake:
        intake.add_all(numbered_rows([body], max_text_bytes=1 << 20))
        job = intake.seal()
    model_id = models.register(db, MODEL)
    for no in range(-(-job.total // shard_texts)):
        held = took(db, job, no)
        rows = leases.load(db, keyring, held)
        digests = [keyring.digest(1, row.content) for row in rows]
        assert completion.finish(db, held, rows_of(rows, digests, [SAFE] * len(rows)), model_id=model_id)
    return views.get(db, job.public_id)


def test_texts_are_opened_while_the_key_is_rotated(
    db: Database, keyring: Keyring, tmp_path: pathlib.Path, database_url: str
) -> None:
    job = judged(db, keyring, list(LINES))
    settings = load_settings(database_url=database_url, secret_key="bm5u" * 10 + "bm4=", previous_secret_key=SECRET_KEY)
    out = tmp_path / "out.jsonl"
    command.results(settings, job.label, out=str(out), fmt=None, min_severity="safe", layout=Layout(with_text=True), is_flat=False)
    assert json.loads(out.read_text().splitlines()[0])["text"] == LINES[0]["text"]


@pytest.mark.parametrize("page", [1, 3, 5000])
def test_a_file_can_carry_the_texts(
    db: Database, keyring: Keyring, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(verdicts, "EXPORT_PAGE", page)  # shards and pages end in different places
    job = judged(db, keyring, list(LINES))
    for fmt in export.FORMATS:
        pages = texts.beside(db, keyring, job, verdicts.in_order(db, job))
        assert export.write(pages, str(tmp_path / f"out.{fmt}"), fmt, Layout(with_text=True)) == len(LINES)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [{key: row.get(key) for key in ("text", "messages")} for row in rows] == [
        {"text": line.get("text"), "messages": line.get("messages")} for line in LINES
    ]
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    shown = [line.get("text") for line in LINES]
    assert [row["text"] for row in table] == [text or "" for text in shown]
    assert json.loads(table[2]["messages"])[1]["content"] == "Zw\u00f6lf \ufffd"
    assert pq.read_table(tmp_path / "out.parquet").column("text").to_pylist() == shown


def test_ids_come_out_as_they_went_in_unless_a_spreadsheet_is_to_open_them(
    db: Database, keyring: Keyring, tmp_path: pathlib.Path
) -> None:
    job = judged(db, keyring, list(LINES))
    ids = [line["id"] for line in LINES]
    for layout, shown in ((export.PLAIN, ids), (Layout(is_spreadsheet_safe=True), ["'-5", "'+1", "'@a", "'=1", "5"])):
        export.write(verdicts.in_order(db, job), str(tmp_path / "out.csv"), "csv", layout)
        with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
            assert [row["id"] for row in csv.DictReader(file)] == shown


def test_metadata_can_have_columns_of_its_own(db: Database, keyring: Keyring, tmp_path: pathlib.Path) -> None:
    job = judged(db, keyring, list(LINES))
    layout = command.flattened(db, job, export.PLAIN)
    assert layout.metadata_keys == ("deep", "lang", "n", "ok", "tags")
    for fmt in ("csv", "parquet"):
        export.write(verdicts.in_order(db, job), str(tmp_path / f"out.{fmt}"), fmt, layout)
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert "metadata" not in table[0]
    assert [row["metadata.lang"] for row in table] == ["en", "de", "", "", ""]
    assert (table[0]["metadata.n"], table[1]["metadata.deep"], table[3]["metadata.tags"]) == ("1", '{"k":[1]}', "a; b")
    columns = pq.read_table(tmp_path / "out.parquet").to_pydict()
    assert columns["metadata.n"] == ["1", None, None, None, None]
    assert columns["metadata.tags"][3] == '["a","b"]'


def test_texts_that_are_purged_are_asked_for_in_vain(db: Database, keyring: Keyring, tmp_path: pathlib.Path) -> None:
    job = judged(db, keyring, list(LINES))
    with db.begin() as connection:
        connection.execute("update job set finished_at = now() - interval '2 days'")
    retention.purge(db, retention.purgeable(db, older_than_hours=24))
    with pytest.raises(RejectedError, match="were purged on"):
        texts.require_kept(views.get(db, job.public_id))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("out.xlsx", "names no known format"),
        ("gone/out.csv", "No such file"),
        ("folder", "is a folder"),
        ("file/out.csv", "Not a directory"),
    ],
)
def test_what_cannot_be_written_is_said_before_anything_is_read(tmp_path: pathlib.Path, name: str, said: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("kept")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(RejectedError, match=said):
        export.ready(str(tmp_path / name))
    source = tmp_path / "file"
    scan = subprocess.run(
        [sys.executable, "-m", "guardfleet", "scan", str(source), "-o", str(tmp_path / name)],
        env={"GUARDFLEET_DATA_DIR": str(tmp_path / "data"), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (scan.returncode, said in scan.stderr) == (2, True)
    assert sorted(tmp_path.iterdir()) == before


def test_a_target_that_is_ready_is_left_as_it_was(tmp_path: pathlib.Path) -> None:
    (tmp_path / "out.csv").write_text("kept")
    assert export.ready(str(tmp_path / "out.csv")) == "csv"
    assert export.ready(str(tmp_path / "new.PARQUET")) == "parquet"
    assert export.ready(str(tmp_path / "new"), "csv") == "csv"
    assert export.ready("-") == "jsonl"
    with pytest.raises(RejectedError, match="Parquet cannot be written to standard output"):
        export.ready("-", "parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]
    assert (tmp_path / "out.csv").read_text() == "kept"


def test_every_refused_line_can_be_listed(
    db: Database, keyring: Keyring, database_url: str, tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lines: list[object] = [{"id": f"r{i}"} if i % 2 else {"id": f"r{i}", "text": "x"} for i in range(40)]
    job = judged(db, keyring, lines)
    settings = load_settings(database_url=database_url, secret_key=SECRET_KEY, data_dir=tmp_path)
    expected = [(i + 1, "missing_text", f"r{i}") for i in range(1, 40, 2)]
    with TestClient(create_app(settings), headers={"authorization": f"Bearer {keys.create(db, keyring, name='k')}"}) as client:
        found, page = [], {"next": None, "has_more": True}
        while page["has_more"]:
            asked = {"limit": 7} | ({"after": page["next"]} if page["next"] else {})
            page = client.get(f"/v1/batches/batch_{job.public_id.hex}/rejections", params=asked).json()
            found += page["data"]
        assert client.get("/v1/batches/batch_" + "0" * 32 + "/rejections").status_code == 404
    assert [(line["line"], line["code"], line["row_id"]) for line in found] == expected
    capfd.readouterr()
    assert command.refused(settings, job.label, out="-") == 0
    assert [json.loads(line) for line in capfd.readouterr().out.splitlines()] == found
    assert command.refused(settings, job.label, out=str(tmp_path / "refused.jsonl")) == 0
    assert [json.loads(line) for line in (tmp_path / "refused.jsonl").read_text().splitlines()] == found
    assert scalar(db, "select rejected from job") == len(expected)
