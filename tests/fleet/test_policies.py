"""`guardfleet policy` and `guardfleet redecide` as typed, from a preset to going back."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from guardfleet.cli import DONE, UNUSABLE
from guardfleet.domain.verdict import Model
from guardfleet.policy import presets
from guardfleet.policy.reading import read
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings, load_settings
from guardfleet.store import models
from guardfleet.store.policy import policies
from guardfleet.store.postgres.database import Database
from tests.services.commands import environment, said
from tests.services.fixtures import SECRET_KEY
from tests.services.judged import SAFE, UNSAFE, UNSURE
from tests.services.patience import patience
from tests.store.test_policies import finished

BAD = """name: mine
default: allow
rules:
  - id: a
    when: {category: Violnt}
    action: block
"""


@pytest.fixture
def of_database(database_url: str, tmp_path: pathlib.Path) -> Settings:
    return load_settings(
        database_url=database_url, broker_url="redis://127.0.0.1:1/0", secret_key=SECRET_KEY, data_dir=tmp_path, engine="instant"
    )


def len_of_lines(path: pathlib.Path) -> int:
    return len(path.read_text().splitlines())


def len_of_table(path: pathlib.Path) -> int:
    return int(pq.read_table(path).num_rows)


def test_from_a_preset_to_going_back(of_database: Settings, db: Database, keyring: Keyring, tmp_path: pathlib.Path) -> None:
    def run(*words: str) -> str:
        done = said(of_database, *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    job = finished(db, keyring, [SAFE, UNSAFE, UNSURE] * 10)
    (strict := tmp_path / "strict.yaml").write_text(run("policy", "preset", "strict"))
    assert run("policy", "check", str(strict)) == "policy strict: 3 rules, default allow, errors review\n"
    before = json.loads(run("policy", "test", str(strict), "--job", job.label, "--json"))
    assert (before["texts"], before["changed"]) == (30, 30)
    assert before["matrix"]["none"] == before["actions"] == {"allow": 10, "flag": 0, "review": 10, "block": 10}
    assert before["rules"] == {"unsafe": 10, "controversial": 10, "(default)": 10}
    table = run("policy", "test", str(strict), "--since", "1d", "--reviews-per-hour", "5")
    assert "changed: 30 of 30 texts (100.00%)" in table
    assert "review: 10 texts, 2.0 hours at 5 an hour" in table
    assert run("policy", "add", str(strict)) == "strict@1\n"
    assert run("policy", "activate", "strict") == "strict@1\n"
    assert run("redecide", "--job", job.label).startswith("30 texts decided by strict@1")
    strict.write_text(strict.read_text().replace("action: block", "action: flag"))
    run("policy", "add", str(strict))
    run("policy", "activate", "strict@2")
    again = json.loads(run("redecide", "--since", "1d", "--json"))
    assert {**again, "seconds": 0} == {
        "policy": "strict@2", "active": True, "texts": 30, "shards_without_verdicts": 0, "seconds": 0
    }  # fmt: skip
    assert list(json.loads(run("status", job.label, "--json"))["actions"].items()) == [
        ("allow", 10), ("flag", 10), ("review", 10), ("block", 0)
    ]  # fmt: skip
    run("results", job.label, "-o", str(out := tmp_path / "out.jsonl"))
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["decision"]["action"] for row in rows] == ["allow", "flag", "review"] * 10
    for name, read_rows in (("a.jsonl", len_of_lines), ("a.csv", len_of_lines), ("a.parquet", len_of_table)):
        run("results", job.label, "--action", "flag", "--action", "review", "-o", str(some := tmp_path / name))
        assert read_rows(some) == 20 + (name == "a.csv")
    run("results", job.label, "--action", "block", "--with-retries", "-o", str(none := tmp_path / "none.jsonl"))
    assert none.read_text() == ""
    run("policy", "activate", "strict@1")
    run("results", job.label, "-o", str(out := tmp_path / "out.csv"))
    flat = out.read_text().splitlines()
    assert flat[0].endswith(",action,decision,detections")
    assert '""policy"":""strict@1""' in flat[2]
    assert [line.split()[2] for line in run("policy", "list").splitlines()] == ["strict@2", "strict@1"]
    assert [json.loads(line)["active"] for line in run("policy", "list", "--json").splitlines()] == [False, True]
    assert json.loads(run("policy", "show", "strict@2"))["rules"][0]["action"] == "flag"
    assert json.loads(run("policy", "schema"))["properties"].keys() >= {"name", "default", "errors", "rules"}
    assert run("policy", "deactivate", "strict@1") == "strict@1\n"


def test_what_cannot_be_used_is_said_with_its_line_and_status_2(of_database: Settings, tmp_path: pathlib.Path) -> None:
    (bad := tmp_path / "bad.yaml").write_text(BAD)
    cases = {
        ("policy", "check", str(bad)): f"{bad}: line 5: rules[0].when.category[0]: 'Violnt': input should be 'Violent'",
        ("policy", "add", str(bad)): f"{bad}: line 5: ",
        ("policy", "check", str(tmp_path)): "cannot be read: Is a directory",
        ("policy", "preset", "odd"): "there is no preset 'odd'; use one of strict, loose",
        ("policy", "activate", "mine"): "there is no policy mine",
        ("policy", "activate", "mine@x"): "names no policy",
        ("policy", "list", "--tenant", "nobody"): "there is no tenant 'nobody'",
        ("results", "job_" + "0" * 32, "--action", "odd"): "action must be one of: allow, flag, review, block",
        ("redecide", "--since", "1d"): "no policy is active",
        ("redecide", "mine", "--since", "1d"): "there is no policy mine",
    }
    for words, sentence in cases.items():
        done = said(of_database, *words)
        assert (done.returncode, sentence in done.stderr) == (UNUSABLE, True), (words, done.stderr)
    (good := tmp_path / "good.yaml").write_text("name: mine\ndefault: flag\n")
    for words in (("policy", "test", str(good)), ("policy", "test", str(good), "--since", "1d", "--job", "job_" + "0" * 32)):
        assert "give --job JOB, or --since TIME" in said(of_database, *words).stderr
    said(of_database, "policy", "add", str(good))
    assert "is not active" in said(of_database, "policy", "deactivate", "mine").stderr
    assert "it equals the newest version" in said(of_database, "policy", "add", str(good)).stderr


def test_a_policy_that_reads_a_detector_says_whose_texts_it_decides_of(
    of_database: Settings, db: Database, tmp_path: pathlib.Path
) -> None:
    models.register(db, Model("f", "1", "p", detector="finder", labels=("clear", "found"), neutral="clear"))
    rules = "".join(
        f"  - {{id: {name}, when: {{detectors: {{{name}: {{label: found}}}}}}, action: block}}\n" for name in ("finder", "other")
    )
    (mine := tmp_path / "mine.yaml").write_text(f"name: mine\ndefault: allow\nrules:\n{rules}")
    for words in (("check", str(mine)), ("add", str(mine)), ("activate", "mine@1"), ("test", str(mine), "--since", "1d")):
        done = said(of_database, "policy", *words)
        assert done.returncode == DONE, done.stderr
        assert "rules that read finder, other hold for no text whose job does not ask for it" in done.stderr, words
        assert ("no worker has served a detector other yet" in done.stderr) is (words[0] != "check")
        assert "served a detector finder" not in done.stderr


def test_a_re_decision_shows_its_progress_on_a_terminal(of_database: Settings, db: Database, keyring: Keyring) -> None:
    finished(db, keyring, [SAFE, UNSAFE, UNSURE] * 10, shard_texts=5)
    version, _ = policies.add(db, 1, read(presets.text("strict")))
    policies.activate(db, version)
    ours, its = os.openpty()
    asked = [sys.executable, "-P", "-m", "guardfleet", "redecide", "--since", "1d", "--json"]
    seen = environment(of_database, {}) | {"TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen(asked, env=os.environ | seen, stdout=subprocess.PIPE, stderr=its, text=True)
    os.close(its)
    shown = b""
    with contextlib.suppress(OSError):  # the end of a terminal
        while some := os.read(ours, 4096):
            shown += some
    os.close(ours)
    told, _ = process.communicate(timeout=patience(60))
    assert process.returncode == DONE, shown
    assert json.loads(told)["texts"] == 30
    assert b"deciding by strict@1" in shown
    assert b"30/30" in shown
