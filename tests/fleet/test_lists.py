"""`guardfleet lists` as typed, from a file to a text that a worker's list decides, and back."""

import json
import pathlib
import subprocess
import sys

import pytest

from guardfleet.cli import UNUSABLE
from guardfleet.client.direct import DirectClient
from guardfleet.settings import Settings, load_settings
from tests.services.commands import said
from tests.services.fixtures import SECRET_KEY, with_broker
from tests.services.fleet import fleet
from tests.services.outcome import finished
from tests.services.patience import patience

GUARDFLEET = str(pathlib.Path(sys.executable).with_name("guardfleet"))
TERMS = """value,id,decide,categories
badword,bad,unsafe,Violent
oddword,odd,,
neverword,never,,
"""


@pytest.fixture
def of_database(database_url: str, tmp_path: pathlib.Path) -> Settings:
    return load_settings(
        database_url=database_url, broker_url="redis://127.0.0.1:1/0", secret_key=SECRET_KEY, data_dir=tmp_path, engine="instant"
    )


@with_broker("redis")
def test_from_a_file_to_a_verdict_and_to_what_is_never_hit(settings: Settings, tmp_path: pathlib.Path) -> None:
    def run(*words: str) -> str:
        done = said(settings, *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    (file := tmp_path / "terms.csv").write_text(TERMS)
    assert run("lists", "check", str(file)) == "3 terms; 1 decide, 2 mark\n"
    assert run("lists", "import", "mine", str(file)) == "mine@1\n"
    assert run("lists", "activate", "mine") == "mine@1\n"
    producer = DirectClient.connect(settings)
    with fleet(settings, tmp_path, ("worker",), ("dispatcher",)):
        job = producer.submit(["a B4DWORD", "an oddword", "plain", "oddword again"]).job
        done = finished(producer, job, timeout_s=patience(60))
    assert (done.total, done.unsafe, done.safe) == (4, 1, 3)
    run("results", done.label, "-o", str(out := tmp_path / "out.jsonl"))
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["served_by"] for row in rows] == ["list", "model", "model", "model"]
    assert rows[0]["categories"] == ["Violent"]
    assert rows[0]["evidence"]["lists"] == [{"list": "mine@1", "entry": "bad", "start": 2, "end": 9, "decided": True}]
    assert [json.loads(line)["texts"] for line in run("lists", "hits", "mine", "--json").splitlines()] == [2, 1]
    assert run("lists", "hits", "mine", "--since", "1d").splitlines()[0].endswith("term oddword [odd]")
    assert run("lists", "prune", "mine", "-o", str(kept := tmp_path / "kept.csv")) == "term neverword [never]\n"
    assert [json.loads(line)["entry"] for line in run("lists", "prune", "mine", "--json").splitlines()] == ["never"]
    assert run("lists", "import", "mine", str(kept)) == "mine@2\n"
    assert run("lists", "diff", "mine@1", "mine@2") == "- term neverword [never]\n"
    told = json.loads(run("lists", "diff", "mine@2", "mine@1", "--json"))
    assert ([entry["entry"] for entry in told["added"]], told["removed"], told["changed"]) == (["never"], [], [])
    assert run("lists", "activate", "mine@2") == "mine@2\n"
    (policy := tmp_path / "p.yaml").write_text(
        "name: p\ndefault: flag\nrules: [{id: a, when: {lists: [mine, mene]}, action: block}]\n"
    )
    assert "there is no list mene yet" in said(settings, "policy", "add", str(policy)).stderr
    assert "there is no list mene yet" in said(settings, "policy", "activate", "p").stderr
    assert run("lists", "export", "mine").splitlines()[0] == "kind,value,id,anywhere,exact,decide,categories"
    run("lists", "export", "mine@1", "-o", str(again := tmp_path / "again.jsonl"))
    assert len(again.read_text().splitlines()) == 3
    assert [line.split()[2:] for line in run("lists", "list").splitlines()] == [
        ["mine@2", "2", "entries", "active"], ["mine@1", "3", "entries"],
    ]  # fmt: skip
    assert [json.loads(line)["active"] for line in run("lists", "list", "--json").splitlines()] == [True, False]
    assert run("lists", "deactivate", "mine") == "mine@2\n"
    producer.close()


def test_what_cannot_be_used_is_said_with_its_line_and_status_2(of_database: Settings, tmp_path: pathlib.Path) -> None:
    (bad := tmp_path / "bad.csv").write_text("kind,value\npattern,(?=a)b\n")
    (good := tmp_path / "good.txt").write_text("word\n")
    cases = {
        ("lists", "check", str(bad)): f"{bad}: line 2: RE2 takes no such pattern",
        ("lists", "import", "mine", str(bad)): f"{bad}: line 2: ",
        ("lists", "check", str(tmp_path)): "cannot be read: Is a directory",
        ("lists", "check", str(good), "--format", "odd"): "'odd' is no format",
        ("lists", "import", "a b", str(good)): "'a b' names no list",
        ("lists", "activate", "mine"): "there is no list mine",
        ("lists", "export", "mine@x"): "names no list",
        ("lists", "list", "--tenant", "nobody"): "there is no tenant 'nobody'",
        ("lists", "match", "-"): "the list has to be a file",
        ("lists", "export", "good", "-o", str(tmp_path / "x.txt")): "a list is written as csv or jsonl",
        ("lists", "export", "good", "--format", "txt"): "a list is written as csv or jsonl",
    }
    assert said(of_database, "lists", "import", "good", str(good)).returncode == 0
    for words, sentence in cases.items():
        done = said(of_database, *words)
        assert (done.returncode, sentence in done.stderr) == (UNUSABLE, True), (words, done.stderr)
    said(of_database, "lists", "import", "mine", str(good))
    assert "is not active" in said(of_database, "lists", "deactivate", "mine").stderr
    assert "it equals the newest version" in said(of_database, "lists", "import", "mine", str(good)).stderr
    assert "no list is stored" not in said(of_database, "lists", "list").stderr


def test_what_a_list_finds_is_shown_without_a_fleet(tmp_path: pathlib.Path) -> None:
    (file := tmp_path / "terms.csv").write_text(TERMS)
    lines = b"fine\na B4d\xe2\x80\x8bword \xff\n"
    done = subprocess.run([GUARDFLEET, "lists", "match", str(file)], input=lines, capture_output=True, check=False)
    assert done.stdout.decode() == "line 2, characters 2 to 10: B4d\\u200bword  (term badword -> unsafe [bad])\n"
