"""The commands as a user types them, over the embedded stack: real PostgreSQL, real Valkey, the demo model."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator

import pytest

from guardfleet.cli.commands.scan import Scan
from guardfleet.cli.input_options import opened
from guardfleet.embedded.ownership import Owner
from guardfleet.embedded.postgres import EmbeddedPostgres
from guardfleet.embedded.valkey import EmbeddedValkey
from guardfleet.settings import load_settings
from guardfleet.store.postgres.database import Database
from producer.readers import Reading
from tests.services.commands import command, environment, said
from tests.services.fleet import until
from tests.services.patience import patience
from tests.services.servers import free_port


@pytest.fixture
def data_dir(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    for parent in (tmp_path, *tmp_path.parents):
        if parent != pathlib.Path("/") and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)  # pytest's folders are closed; the servers' user has to pass
    yield tmp_path / "data"
    assert not [line for line in processes() if str(tmp_path / "data") in line], "something was left running"


def processes() -> list[str]:
    """Command lines of everything that runs."""
    out = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            out.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return out


def test_scan_judges_a_file_and_a_second_run_has_nothing_to_do(data_dir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    source = pathlib.Path(__file__).parents[2] / "examples" / "texts.jsonl"
    out = tmp_path / "out.jsonl"
    first = command(data_dir, "scan", str(source), "-o", str(out))
    assert first.returncode == 0, first.stderr
    assert "DEMO model" in first.stderr
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["id"] for row in rows] == [json.loads(line)["id"] for line in source.read_text().splitlines()]
    assert all(row["is_demo"] and row["rationale"] for row in rows)
    assert {row["id"]: row["served_by"] for row in rows}["empty-1"] == "rule:empty"
    assert {row["id"]: row["served_by"] for row in rows}["again-1"] == "duplicate"
    assert {row["id"]: row["refusal"] for row in rows}["conversation-1"] is not None
    out.unlink()
    second = command(data_dir, "scan", str(source), "-o", str(out))
    assert second.returncode == 0
    assert "nothing to do" in second.stderr
    assert len(out.read_text().splitlines()) == len(rows)
    job = next(word.strip(":()") for word in second.stderr.split() if word.startswith(("(job_", "job_")))
    status = command(data_dir, "status", job, "--json")
    assert json.loads(status.stdout)["done"] == len(rows)
    flagged = command(data_dir, "results", job, "--format", "csv", "--min-severity", "unsafe")
    assert len(flagged.stdout.splitlines()) == 1 + sum(row["severity"] in ("unsafe", "error") for row in rows)


def test_another_model_under_the_same_name_judges_anew(tmp_path: pathlib.Path) -> None:
    model, source = tmp_path / "model", tmp_path / "in.jsonl"
    shutil.copytree(pathlib.Path(__file__).parents[2] / "models" / "demo", model)
    source.write_text('{"id": 1, "text": "x"}\n')
    scan = Scan(load_settings(model=str(model)), [str(source)], str(tmp_path / "out.jsonl"), Reading())
    scan._inputs = opened(scan.sources, scan.reading, max_text_bytes=100, allow_empty=False)
    before = scan._fingerprint()
    assert before == scan._fingerprint()
    (model / "figures.json").write_text("{}")  # stands for other weights: any file of the folder counts
    assert before != scan._fingerprint()


def test_an_interrupted_scan_resumes_where_it_was(data_dir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps({"id": i, "text": f"text {i}"}) + "\n" for i in range(400)))
    slow = {"engine": "instant", "instant_ms_per_batch": "600", "shard_texts": "10", "concurrency": "1"}
    running = subprocess.Popen(
        [sys.executable, "-m", "guardfleet", "scan", str(source), "-o", str(out)],
        env=os.environ | environment(data_dir, slow),
        stderr=subprocess.PIPE,
        text=True,
    )
    log = data_dir / "logs" / "worker.log"
    until(lambda: log.exists() and log.read_text().count("shard_finished") >= 1, what="a finished shard")
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=patience(60))
    assert running.returncode == 3, told
    assert "verdicts are kept" in told
    assert not out.exists()
    again = command(data_dir, "scan", str(source), "-o", str(out), **(slow | {"instant_ms_per_batch": "0"}))
    assert again.returncode == 0, again.stderr
    assert "Resuming job_" in again.stderr
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == [str(i) for i in range(400)]


def test_refused_lines_are_said_and_written_and_the_status_tells(data_dir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.parquet"
    source.write_text('id,text,lang\na,fine,en\na,again,en\nb,"bro\nken [[unsafe]]",de\n')
    done = command(data_dir, "scan", str(source), "-o", str(out), engine="instant")
    assert done.returncode == 1, done.stderr
    assert "line 3: this id was used before, in line 2 (duplicate_id)" in done.stderr
    assert json.loads((tmp_path / "out.parquet.rejected.jsonl").read_text())["line"] == 3
    assert "1 line was refused" in done.stderr
    import pyarrow.parquet as pq

    table = pq.read_table(out).to_pylist()
    assert [(row["id"], row["severity"], json.loads(row["metadata"])["lang"]) for row in table] == [
        ("a", "safe", "en"),
        ("b", "unsafe", "de"),
    ]
    source.write_text("id,text\na,fine\n")
    assert said(data_dir, "scan", str(source), "-o", str(out), engine="instant").returncode == 0
    assert not (tmp_path / "out.parquet.rejected.jsonl").exists()


@pytest.mark.parametrize(
    ("args", "settings", "sentence"),
    [
        (("scan", "missing.jsonl"), {}, "missing.jsonl cannot be read: No such file or directory"),
        (("scan", "notes.txt"), {}, "has no column named text. Its columns: x."),
        (("scan",), {}, "Missing argument"),
        (("scan", "in.jsonl", "--model", "/nowhere/model"), {}, "model folder '/nowhere/model' does not exist"),
        (("scan", "in.jsonl"), {"batch_tokens": "-1"}, "GUARDFLEET_ENGINE__BATCH_TOKENS"),
        (("status", "job_nonsense"), {}, "there is no database yet"),
        (("submit", "in.jsonl"), {}, "no fleet is running"),
        (("frobnicate",), {}, "No such command"),
        (("worker",), {}, "GUARDFLEET_DATABASE_URL is not set"),
    ],
)
def test_what_cannot_work_is_one_sentence_and_status_2(
    data_dir: pathlib.Path, tmp_path: pathlib.Path, args: tuple[str, ...], settings: dict[str, str], sentence: str
) -> None:
    (tmp_path / "in.jsonl").write_text('{"id": 1, "text": "x"}\n')
    (tmp_path / "notes.txt").write_text("x")
    full = [str(tmp_path / arg) if arg in ("in.jsonl", "notes.txt") else arg for arg in args]
    done = said(data_dir, *full, **settings)
    assert done.returncode == 2, done.stderr
    assert sentence in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr


def test_up_serves_api_and_command_line_until_it_is_told_to_stop(data_dir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    port = free_port()
    settings = os.environ | environment(data_dir, {"engine": "instant", "api_port": str(port)})
    with (tmp_path / "up.log").open("w") as log:
        running = subprocess.Popen([sys.executable, "-m", "guardfleet", "up"], env=settings, stderr=log)
    try:
        until(lambda: "API key:" in (tmp_path / "up.log").read_text(), what="the announcement")
        key = (tmp_path / "up.log").read_text().split("API key:")[1].split()[0]
        assert answers(f"http://127.0.0.1:{port}/readyz"), "it was not up"
        for name in ("worker", "webhooks"):
            assert "worker_ready" in (data_dir / "logs" / f"{name}.log").read_text(), f"{name} was not ready"
        source = tmp_path / "in.jsonl"
        source.write_text('{"id": 1, "text": "x"}\n{"id": 2, "text": "[[unsafe]]"}\n')
        submitted = command(data_dir, "submit", str(source), "--wait")
        assert submitted.returncode == 0, submitted.stderr
        job = submitted.stdout.strip()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/batches/{job.replace('job_', 'batch_')}/results",
            headers={"authorization": f"Bearer {key}"},
        )
        with urllib.request.urlopen(request) as answer:
            assert [row["severity"] for row in json.load(answer)["data"]] == ["safe", "unsafe"]
        for server in ("valkey", "postgres"):
            victim = server_pid(data_dir, running.pid, server)
            assert victim is not None
            os.kill(victim, signal.SIGKILL)
            if server == "valkey":
                until(lambda s=server, v=victim: server_pid(data_dir, running.pid, s) not in (None, v), what=f"a new {server}")
        worker = subprocess.run(
            ["pgrep", "-P", str(running.pid), "-f", "guardfleet worker$"], capture_output=True, text=True, check=True
        )
        os.kill(int(worker.stdout), signal.SIGKILL)
        again = command(data_dir, "submit", str(source), "--wait")  # while PostgreSQL is on its way up again
        assert again.returncode == 0, again.stderr
        assert "completed, 2 of 2" in command(data_dir, "cancel", job).stderr
        busy = command(data_dir, "up")
        assert busy.returncode == 2
        assert "another guardfleet is running" in busy.stderr
    finally:
        running.send_signal(signal.SIGTERM)
        assert running.wait() == 0


def server_pid(data_dir: pathlib.Path, parent: int, server: str) -> int | None:
    """The server's process, unless it is dead."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        if server == "postgres":
            pid = int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0])
        else:
            found = subprocess.run(["pgrep", "-P", str(parent), "valkey-server"], capture_output=True, text=True, check=False)
            pid = int(found.stdout.split()[-1])
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        return None if state == "Z" else pid
    return None


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_the_embedded_database_survives_a_crash_and_a_foreign_pid(data_dir: pathlib.Path) -> None:
    data_dir.mkdir()
    owner = Owner.here()
    server = EmbeddedPostgres(data_dir / "postgres", owner.own(data_dir / "run"), owner)
    server.start()
    db = Database(server.url, pool_size=1)
    with db.begin() as connection:
        connection.execute("create table kept (x int)")
        connection.execute("insert into kept values (7)")
    db.close()
    pid_file = data_dir / "postgres" / "postmaster.pid"
    os.kill(int(pid_file.read_text().split()[0]), signal.SIGKILL)
    until(lambda: not server.is_running(), what="the death of the postmaster")
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        lines = pid_file.read_text().splitlines()
        pid_file.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
        server.start()
        db = Database(server.url, pool_size=1)
        with db.begin() as connection:
            assert connection.scalar("select x from kept") == 7
        db.close()
    finally:
        stranger.kill()
        stranger.wait()
        data_dir.chmod(0o700)  # its user is shut out meanwhile: it is stopped all the same
        server.stop()
        data_dir.chmod(0o711)
        server.stop()


def test_the_embedded_broker_keeps_its_messages_over_a_restart(data_dir: pathlib.Path) -> None:
    import redis

    data_dir.mkdir()
    owner = Owner.here()
    for turn in range(2):
        server = EmbeddedValkey(data_dir / "valkey", owner.own(data_dir / "run"), owner)
        server.start()
        client = redis.Redis(unix_socket_path=server.url.removeprefix("redis+socket://"))
        assert client.llen("queue") == turn
        client.lpush("queue", "message")
        client.close()
        server.stop()
        server.stop()


def test_doctor_says_what_works_and_what_does_not(data_dir: pathlib.Path) -> None:
    within = ("--within", str(patience(12.0)))
    well = said(data_dir, "doctor", *within)
    assert well.returncode == 0, well.stdout
    assert "model: guardfleet-demo, 2 MB of weights, complete" in well.stdout
    ill = said(
        data_dir, "doctor", *within, model="/nowhere/model", database_url="postgresql://u@127.0.0.1:1/x", secret_key="c2hvcnQ="
    )
    assert ill.returncode == 2
    for sentence in ("'/nowhere/model' does not exist", "PostgreSQL cannot be reached", "has 5 bytes, 32 are needed"):
        assert sentence in ill.stdout.replace("\n", " ")
