"""Commands and the direct client: each that changes or exports something leaves its row; `guardfleet audit` shows them."""

import inspect
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from guardfleet.cli.app import app
from guardfleet.cli.commands.audit import moment_of
from guardfleet.cli.commands.scan import Scan
from guardfleet.cli.input_options import opened
from guardfleet.client.direct import DirectClient
from guardfleet.errors import RejectedError
from guardfleet.security.encryption import Keyring, new_secret_key
from guardfleet.settings import Settings, load_settings
from guardfleet.store import audit, installation, keys
from guardfleet.store.audit import Wanted
from guardfleet.store.postgres.database import Database
from producer.readers import Reading
from tests.services.commands import command, said
from tests.services.fixtures import SECRET_KEY
from tests.services.served import judge
from tests.services.stored import new_job, submit

CANARY = "c4n4ry"
# In the order in which they run: the command, and what must be recorded. JOB, KEY, IN and OUT are put in.
ACTS: dict[str, tuple[str, ...]] = {
    "db upgrade": (),
    "keys create c4n4ry --scope batches:read": ("key.create",),
    "keys rotate KEY": ("key.rotate", "key.create"),
    "keys revoke KEY": ("key.revoke",),
    'submit IN --name c4n4ry --metadata {"a":"c4n4ry"}': ("job.create",),
    "pause JOB": ("job.pause",),
    "resume JOB": ("job.resume",),
    "prioritise JOB 7": ("job.prioritise",),
    "results JOB -o OUT": ("job.export",),
    "results JOB -o OUT --refused": ("job.export",),
    "report JOB --with-text -o OUT": ("job.export",),
    "cancel JOB": ("job.cancel",),
    "scan IN -o OUT": ("job.export",),  # of a job that is there already; it submits as `submit` does
    "policy add POLICY": ("policy.create",),
    "policy activate mine": ("policy.activate",),
    "redecide --since 1d": ("policy.redecide",),
    "policy deactivate mine@1": ("policy.deactivate",),
    "prompt-policy add rules LABELS": ("prompt_policy.create",),  # any text is one
    "lists import mine TERMS": ("list.create",),
    "lists activate mine": ("list.activate",),
    "lists export mine": ("list.export",),
    "lists deactivate mine": ("list.deactivate",),
    "sample SCANNED --n 1 --texts -o OUT": ("sample.create", "sample.export"),
    "labels import LABELS --source golden --author c4n4ry --job SCANNED": ("label.import",),
    "labels export -o OUT": ("label.export",),
    "hold add JOB --reason case-17": ("hold.create",),
    "hold add --subject c4n4ry=c4n4ry --reason case-17": ("hold.create",),
    "hold extend HOLD": (),
    "hold release HOLD": ("hold.release",),
    "hold release FIRST_HOLD": ("hold.release",),
    "erase --id c4n4ry --subject c4n4ry=c4n4ry --yes": ("erasure.begin", "erasure.finish"),
    "erase --job JOB --yes": ("erasure.begin", "job.erase", "erasure.finish"),
    "erase --rewrite": ("erasure.rewrite", "erasure.rewrite"),  # of both
    "models deploy demo --canary 5%": ("deployment.create",),
    "models promote": ("deployment.promote",),
    "models stop": ("deployment.stop",),
    "models shadow demo --revision c4n4ry": ("deployment.create",),
    "models stop guard": ("deployment.stop",),
    "models deploy demo --golden IN_LABELLED": ("deployment.create",),
    "models rollback": ("deployment.roll_back",),
    "keys rotate-secret": ("secret_key.rotate", "secret_key.retire"),
}  # fmt: skip
READING = {
    "status", "jobs", "watch", "doctor", "version", "evaluate", "audit", "db current", "keys list", "keys secret",
    "bench engine", "bench pipeline", "plan", "labels list", "reviews",
    "erasures", "hold list",
    "policy check", "policy schema", "policy preset", "policy test", "policy list", "policy show",
    "prompt-policy list", "prompt-policy show",
    "models list", "models show", "lists check", "lists list", "lists diff", "lists match", "lists hits", "lists prune",
}  # fmt: skip
ELSEWHERE = {"retry"}  # needs a job with failed texts: tests/store/test_retry.py
PROCESSES = {"up", "worker", "dispatcher", "api"}  # whose acts are those of tests/store/test_audit.py and tests/http/test_audit.py
METHODS = {
    "submit": "job.create", "submit_rows": "job.create", "results": "job.export", "refused": "job.export", "cancel": "job.cancel",
    "pause": "job.pause", "resume": "job.resume", "label": "label.import", "sample": "sample.create", "reviews": None,
    "retry": None,  # see ELSEWHERE
    "status": None, "jobs": None, "connect": None, "close": None,
    "moderate": None,  # it keeps nothing, like the routes that do the same
    "detect": None,  # so does this
}  # fmt: skip


@pytest.fixture
def of_database(database_url: str, tmp_path: pathlib.Path) -> Settings:
    return load_settings(
        database_url=database_url, broker_url="redis://127.0.0.1:1/0", secret_key=SECRET_KEY, data_dir=tmp_path, engine="instant"
    )


def commands(group: Any, path: str = "") -> Iterator[str]:
    for name, one in group.commands.items():
        below = getattr(one, "commands", None)
        yield from commands(one, f"{name} ") if below else [f"{path}{name}"]


def test_each_command_is_known_to_record_or_to_change_nothing() -> None:
    known = set(commands(typer.main.get_command(app)))
    acting = {name for name in known for act in ACTS if act.split()[: len(name.split())] == name.split()}
    assert acting | READING | PROCESSES | ELSEWHERE == known
    assert not acting & (READING | PROCESSES)


def test_each_command_leaves_its_rows_under_user_and_host(
    of_database: Settings, db: Database, keyring: Keyring, tmp_path: pathlib.Path
) -> None:
    installation.require_key(db, keyring)
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(json.dumps({"id": CANARY, "text": CANARY, "metadata": {CANARY: CANARY}}) + "\n")
    scanned = scanned_before(of_database, db, keyring, str(source), str(out))
    (policy := tmp_path / "mine.yaml").write_text(f"name: mine\ndescription: {CANARY}\ndefault: flag\n")
    (terms := tmp_path / "terms.txt").write_text(f"{CANARY}\n")
    (labels := tmp_path / "labels.jsonl").write_text(json.dumps({"seq": 0, "label": "unsafe"}))
    (golden := tmp_path / "golden.jsonl").write_text(json.dumps({"text": CANARY, "label": "unsafe"}))
    files = {"IN_LABELLED": golden, "IN": source, "OUT": out, "POLICY": policy, "TERMS": terms, "LABELS": labels}
    names, settings = {"SCANNED": scanned} | {name: str(path) for name, path in files.items()}, of_database
    for act, actions in ACTS.items():
        if act.startswith("results"):
            judge(db, scanned)
        if act == "keys rotate-secret":
            settings = settings.but(previous_secret_key=settings.secret_key, secret_key=type(settings.secret_key)(new_secret_key()))
        before = len(trail(db))
        run = command if act.startswith("submit") else said  # which leaves its connections to the end of its process
        done = run(settings, *(names.get(word, word) for word in act.split()))
        assert done.returncode == 0, (act, done.stderr)
        new = trail(db)[before:]
        assert tuple(event.action for event in new) == actions, act
        assert {(event.actor_kind, "@" in event.actor, event.request_id) for event in new} <= {("command", True, None)}
        names |= {"JOB": done.stdout.strip()} if act.startswith("submit") else {}
        names |= {"FIRST_HOLD": names.get("HOLD", ""), "HOLD": done.stdout.strip()} if act.startswith("hold add") else {}
        names |= {"KEY": keys.every(db)[0].label} if act.startswith("keys create") else {}
        assert not [word for word in (CANARY, *done.stdout.split()) if word.startswith((CANARY, "gf_")) and word in str(new)], act


def scanned_before(settings: Settings, db: Database, keyring: Keyring, source: str, out: str) -> str:
    """The job of an earlier scan of the file, judged."""
    scan = Scan(settings, [source], out, Reading())
    scan._inputs = opened([source], scan.reading, max_text_bytes=1000, allow_empty=False)
    job = submit(db, keyring, 1, new=new_job(fingerprint=scan._fingerprint()))
    judge(db, job.label)
    return job.label


def trail(db: Database) -> list[audit.Event]:
    return list(audit.events(db, Wanted()))


def test_each_method_of_the_direct_client_leaves_its_row(of_database: Settings, db: Database) -> None:
    assert {name for name, _ in inspect.getmembers(DirectClient, callable) if not name.startswith("_")} == set(METHODS)
    with DirectClient.connect(of_database) as client:
        first, second = client.submit(["a"]).id, client.submit(["b"]).id
        client.pause(first)
        client.resume(first)
        client.cancel(first)
        judge(db, second)
        assert len(list(client.results(second))) == 1
        list(client.refused(second))
        client.status(first)
        client.jobs()
        assert client.label([{"batch_id": second, "seq": 0, "label": "safe", "author": CANARY}]).new == 1
        assert [text["seq"] for text in client.sample(second, n=1).texts] == [0]
        assert client.reviews() == []
    of_jobs = [event for event in trail(db) if event.action.startswith(("job.", "label.", "sample."))]
    assert [event.action for event in of_jobs] == [METHODS[name] for name in (
        "submit", "submit", "pause", "resume", "cancel", "results", "refused", "label", "sample",
    )]  # fmt: skip
    assert {event.actor_kind for event in of_jobs} == {"program"}


def test_the_trail_is_printed_oldest_first_by_line_or_as_json(
    of_database: Settings, db: Database, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "PAGE", 2)
    job, other = submit(db, keyring, 1), submit(db, keyring, 1)
    keys.create(db, keyring, name="x", tenant="acme", scopes=["audit:read"])
    shown = said(of_database, "audit", "--job", job.label)
    assert shown.returncode == 0, shown.stderr
    when, tenant, who, action, subject, facts = shown.stdout.strip().split("  ")
    assert (tenant, action, subject) == ("default", "job.create", job.label)
    assert (len(when), who.startswith("command "), facts) == (19, True, "lane=bulk priority=0 has_callback=false")
    rows = [json.loads(line) for line in said(of_database, "audit", "--json").stdout.splitlines()]
    assert len(rows) == len(trail(db))
    assert [row["at"] for row in rows] == sorted(row["at"] for row in rows)
    (made,) = [row for row in rows if row["tenant"] == "acme"]
    assert (made["action"], made["detail"]) == ("key.create", {"scopes": ["audit:read"]})
    asked = said(of_database, "audit", "--json", "--action", "job.create", "--since", "1h", "--actor", "command").stdout
    assert {json.loads(line)["subject"]["id"] for line in asked.splitlines()} == {job.label, other.label}
    assert said(of_database, "audit", "--tenant", "acme", "--json").stdout.count("\n") == 1
    nothing = said(of_database, "audit", "--until", "2020-01-31")
    assert (nothing.returncode, nothing.stdout, "nothing was recorded" in nothing.stderr) == (0, "", True)
    for args, sentence in (
        (("--action", "job.dance"), "job.dance is unknown"),
        (("--since", "soon"), "give 90m, 24h, 7d"),
        (("--tenant", "acne"), "there is no tenant 'acne'"),
    ):
        refused = said(of_database, "audit", *args)
        assert (refused.returncode, sentence in refused.stderr) == (2, True), args


@pytest.mark.parametrize("wrong", ["", "7", "d", "-7d", "7w", "2026-13-01", "yesterday"])
def test_a_time_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(RejectedError, match="--since"):
        moment_of(wrong, "--since")
    assert moment_of("2026-01-31T08:00:00+02:00", "--since") == moment_of("2026-01-31T06:00:00", "--since")
