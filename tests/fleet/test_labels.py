"""The commands of labels: draw, label, import, measure; by whoever's tenant it is."""

import csv
import json
import pathlib
from typing import Any, NamedTuple

import pytest

from guardfleet.jobs import labelling
from guardfleet.jobs.labelling import Defaults
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings, load_settings
from guardfleet.store import audit, installation, keys
from guardfleet.store.audit import Wanted
from guardfleet.store.jobs import retention
from guardfleet.store.jobs.views import JobView
from guardfleet.store.labels import labels
from guardfleet.store.postgres.database import Database
from tests.services.commands import said
from tests.services.fixtures import SECRET_KEY
from tests.services.judged import SAFE, UNSAFE, UNSURE, failed
from tests.services.served import judge
from tests.services.stored import submit
from tests.store.test_labels import given, judged
from tests.store.test_policies import STRICT, activated, finished

LOOSE = "name: loose\ndefault: allow\nrules: [{id: unsafe, when: {severity: unsafe}, action: block}]\n"


@pytest.fixture
def of_database(database_url: str, db: Database, keyring: Keyring, tmp_path: pathlib.Path) -> Settings:
    installation.require_key(db, keyring)
    return load_settings(database_url=database_url, secret_key=SECRET_KEY, data_dir=tmp_path)


def run(settings: Settings, *args: str, status: int = 0) -> Any:
    done = said(settings, *args)
    assert done.returncode == status, (args, done.stderr)
    return done


def written(settings: Settings, out: pathlib.Path, *args: str) -> list[Any]:
    """The rows that a command writes as JSONL."""
    run(settings, *args, "-o", str(out))
    return [json.loads(line) for line in out.read_text().splitlines()]


def labelled(row: dict[str, str]) -> dict[str, str]:
    """What a reviewer says: the model is right, except that every tenth safe text is unsafe."""
    place = int(row["seq"])
    verdict = "safe" if row["verdict"] == "error" else row["verdict"]
    return row | {"label": "unsafe" if place % 40 == 0 else verdict.capitalize()}


class Reviewed(NamedTuple):
    """A job with a sample that somebody has labelled, but for ten rows."""

    job: JobView
    rows: list[dict[str, str]]
    importing: tuple[str, ...]


@pytest.fixture
def reviewed(of_database: Settings, db: Database, keyring: Keyring, tmp_path: pathlib.Path) -> Reviewed:
    activated(db, STRICT)
    job, out, back = finished(db, keyring, judged(400)), tmp_path / "sample.csv", tmp_path / "labelled.csv"
    drawn = run(
        of_database, "sample", job.label, "--n", "200", "--by", "random,uncertain", "--slice", "lang", "--seed", "7", "-o", str(out)
    )
    assert "of 400 texts by random, uncertain, slice, seed 7" in drawn.stderr
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert 100 < len(rows) <= 200
    assert {"text", "messages"}.isdisjoint(rows[0])
    assert [row["label"] for row in rows] == [""] * len(rows)
    assert {row["stratum"] for row in rows} == {"", "de", "en"}
    assert run(of_database, "evaluate", "--job", job.label).stdout == ""  # nothing is known, and nothing is 0
    nothing = json.loads(run(of_database, "evaluate", "--job", job.label, "--json").stdout)
    assert nothing["strict"] == dict.fromkeys(("precision", "recall", "f1", "false_positive_rate"))
    assert nothing["labels"] == {"texts": 0, "by_design": 0}
    with back.open("w") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows([labelled(row) for row in rows[:-10]] + rows[-10:])
    importing = ("labels", "import", str(back), "--source", "reviewer", "--author", "ann")
    n = len(rows) - 10
    assert run(of_database, *importing).stdout == (
        f"{n + 10} lines: {n} labels stored, 0 were there already, 10 without a label, 0 refused\n"
    )
    assert run(of_database, *importing).stdout == (
        f"{n + 10} lines: 0 labels stored, {n} were there already, 10 without a label, 0 refused\n"
    )
    return Reviewed(job, rows[:-10], importing)


def test_figures_and_shares_by_action_are_estimated_from_the_labels_of_a_sample(
    of_database: Settings, reviewed: Reviewed, tmp_path: pathlib.Path
) -> None:
    job, rows, n = reviewed.job, reviewed.rows, len(reviewed.rows)
    found = json.loads(run(of_database, "evaluate", "--job", job.label, "--json").stdout)
    assert found["labels"] == {"texts": n, "by_design": n}
    recall, precision = found["loose"]["recall"], found["loose"]["precision"]
    assert recall["low"] < 100 / 110 < recall["high"]  # of 110 unsafe texts, 10 were called safe
    assert precision["low"] < 0.5 < precision["high"]  # errors count as wrong
    assert found["errors"] == {"texts": 100, "labelled": sum(row["verdict"] == "error" for row in rows)}
    assert found["slices"].keys() == {"lang=de", "lang=en", "lang=(none)"}
    assert sum(one["labels"] for one in found["slices"].values()) == n
    german = found["slices"]["lang=de"]["loose"]  # odd texts: unsafe ones, and errors
    assert (german["recall"]["value"], german["false_positive_rate"]["value"]) == (1, 1)
    shown = run(of_database, "evaluate", "--job", job.label).stdout
    assert "estimates for all 400 texts, with 95 % intervals" in shown
    (policy := tmp_path / "loose.yaml").write_text(LOOSE)
    tested = json.loads(run(of_database, "policy", "test", str(policy), "--job", job.label, "--json").stdout)["labelled"]
    assert tested["labels"] == n
    unsafe, benign = tested["unsafe"], tested["benign"]
    assert unsafe["new"]["block"]["low"] < 100 / 110 < unsafe["new"]["block"]["high"]
    assert unsafe["new"]["allow"]["low"] < 10 / 110 < unsafe["new"]["allow"]["high"]
    assert benign["old"]["review"]["value"] > 0.3  # the errors
    assert benign["old"]["none"]["value"] == 0
    assert "texts that are" in run(of_database, "policy", "test", str(policy), "--job", job.label).stdout


def test_labels_are_counted_and_what_is_exported_can_be_imported(
    of_database: Settings, db: Database, reviewed: Reviewed, tmp_path: pathlib.Path
) -> None:
    job, rows, importing, n, back = reviewed.job, reviewed.rows, reviewed.importing, len(reviewed.rows), tmp_path / "labelled.csv"
    counts = [json.loads(line) for line in run(of_database, "labels", "list", "--json", "--job", job.label).stdout.splitlines()]
    assert {one["source"] for one in counts} == {"reviewer"}
    assert sum(one["labels"] for one in counts) == sum(one["by_design"] for one in counts) == n
    assert "reviewer" in run(of_database, "labels", "list").stdout
    exported = written(of_database, tmp_path / "labels.jsonl", "labels", "export", "--job", job.label)
    assert {one["seq"] for one in exported} == {int(row["seq"]) for row in rows}
    run(of_database, "labels", "export", "-o", str(back))
    assert run(of_database, *importing).stdout.startswith(f"{n} lines: 0 labels stored, {n} were there already")
    assert [event.action for event in audit.events(db, Wanted()) if event.action.startswith(("label.", "sample."))] == [
        "sample.create", "label.import", "label.export", "label.export",
    ]  # fmt: skip


def test_each_line_of_an_import_is_taken_or_refused_with_its_number(
    of_database: Settings, db: Database, keyring: Keyring, tmp_path: pathlib.Path
) -> None:
    job, file = finished(db, keyring, judged(8)), tmp_path / "labels.jsonl"
    lines = [
        {"seq": 1, "label": "safe"},
        {"seq": 99, "label": "safe"},
        {"id": "id2", "label": "unsafe", "author": "bob"},
        {"seq": 3},
    ]
    file.write_text("\n".join([*map(json.dumps, lines), "nonsense", '"x"', json.dumps({"seq": 4, "label": "c4n4ry"})]) + "\n")
    asked = ("labels", "import", str(file), "--source", "golden", "--author", "ann", "--job", job.label)
    done = run(of_database, *asked, status=1)
    assert "7 lines: 2 labels stored, 0 were there already, 1 without a label, 4 refused" in done.stdout
    for line in ("line 2: the batch has no verdict", "line 5: ", "line 6: ", "line 7: label is none of safe"):
        assert line in done.stderr
    assert "c4n4ry" not in done.stderr + done.stdout
    *refused, counts = (json.loads(line) for line in run(of_database, *asked, "--json", status=1).stdout.splitlines())
    assert [one["line"] for one in refused] == [2, 5, 6, 7]
    assert counts == {"lines": 7, "new": 0, "known": 2, "unlabelled": 1, "refused": 4}
    assert "unknown; use one of" in run(of_database, *asked[:4], "me", *asked[5:], status=2).stderr
    assert "there is no job" in run(of_database, *asked[:-1], "job_" + "0" * 32, status=2).stderr


def test_labels_come_from_parquet_too(of_database: Settings, db: Database, keyring: Keyring, tmp_path: pathlib.Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    job, file = finished(db, keyring, judged(8)), tmp_path / "labels.parquet"
    columns = {
        "seq": [0, 1, 2],
        "label": ["safe", "unsafe", None],
        "categories": [[], ["PII", "Violent"], []],
        "author": ["a", None, "a"],
    }
    pq.write_table(pa.table(columns), file)
    asked = ("labels", "import", str(file), "--source", "golden", "--author", "ann", "--job", job.label)
    assert run(of_database, *asked).stdout.startswith("3 lines: 2 labels stored, 0 were there already, 1 without a label")
    found = [(one.seq, one.author, one.as_dict()["categories"]) for one in labels.page(db, 1, limit=9)]
    assert found == [(0, "a", []), (1, "ann", ["Violent", "PII"])]


def test_texts_are_written_where_they_are_asked_for_and_kept_and_the_trail_says_so(
    of_database: Settings, db: Database, keyring: Keyring, tmp_path: pathlib.Path
) -> None:
    job, out = finished(db, keyring, judged(40), shard_texts=7), tmp_path / "sample.jsonl"
    rows = written(of_database, out, "sample", job.label, "--n", "30", "--texts")
    assert [row["text"] for row in rows] == ["x"] * 30
    assert [event.action for event in audit.events(db, Wanted()) if event.action.startswith("sample.")] == [
        "sample.create", "sample.export",
    ]  # fmt: skip
    odd = submit(db, keyring, 3, mark='\ud800\0=1,\n"')
    judge(db, odd.label)
    meant = sorted(f'text {i}\ufffd\0=1,\n"' for i in range(3))
    assert sorted(row["text"] for row in written(of_database, out, "sample", odd.label, "--n", "3", "--texts")) == meant
    run(of_database, "sample", odd.label, "--n", "3", "--texts", "-o", str(tmp_path / "sample.csv"))
    assert "\ufffd" in (tmp_path / "sample.csv").read_text()
    retention.purge(db, [job.id])
    assert "were purged" in run(of_database, "sample", job.label, "--n", "3", "--texts", status=2).stderr
    assert len(written(of_database, out, "sample", job.label, "--n", "3")) == 3


def test_reviews_are_listed_and_the_next_page_is_named(of_database: Settings, db: Database, keyring: Keyring) -> None:
    assert "nothing waits" in run(of_database, "reviews").stderr
    activated(db, STRICT)
    job = finished(db, keyring, [failed("unparsed"), SAFE, UNSAFE, UNSURE] * 3)
    first = run(of_database, "reviews", "--job", job.label, "--limit", "2")
    assert "more: guardfleet reviews --after" in first.stderr
    after = first.stderr.split("--after ")[1].strip()
    rest = [json.loads(line) for line in run(of_database, "reviews", "--after", after, "--json").stdout.splitlines()]
    assert [one["seq"] for one in rest] == [8]
    assert given(db, job, {"seq": 8, "label": "safe"}).new == 1
    assert run(of_database, "reviews", "--after", after, "--json").stdout == ""


def test_another_tenants_commands_find_nothing(
    of_database: Settings, db: Database, keyring: Keyring, tmp_path: pathlib.Path
) -> None:
    keys.create(db, keyring, name="x", tenant="acme")
    activated(db, STRICT)
    job = finished(db, keyring, judged(8))
    labelling.store(db, 1, [labelling.read({"seq": 1, "label": "safe", "job": job.label}, Defaults(None, "golden", "a"))])
    for asked in (
        ("sample", job.label), ("evaluate", "--job", job.label), ("labels", "export", "--job", job.label),
        ("reviews", "--job", job.label),
    ):  # fmt: skip
        assert "there is no job" in run(of_database, *asked, "--tenant", "acme", status=2).stderr, asked
    assert written(of_database, tmp_path / "a.jsonl", "labels", "export", "--tenant", "acme") == []
    assert len(written(of_database, tmp_path / "a.jsonl", "labels", "export")) == 1
    for asked in (("labels", "list", "--json"), ("reviews", "--json")):
        assert run(of_database, *asked, "--tenant", "acme").stdout == ""
        assert run(of_database, *asked).stdout != ""


def test_a_file_and_a_job_are_evaluated_one_at_a_time(of_database: Settings) -> None:
    assert "one of them" in run(of_database, "evaluate", status=2).stderr
    assert "are for files" in run(of_database, "evaluate", "--job", "job_x", "--limit", "3", status=2).stderr
