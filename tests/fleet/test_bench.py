"""`guardfleet bench engine` runs, and its last line is the JSON it promises."""

import json
import pathlib
import subprocess
import sys

import psycopg
import pytest

from guardfleet.cli import UNUSABLE
from tests.services.commands import said as command_here
from tests.services.patience import patience
from worker.engine.bench.roofline import flops
from worker.engine.model.shape import Shape

SCRATCH = "select datname from pg_database where datname like 'gfbench_%'"


def test_the_benchmark_prints_one_json_in_its_last_line(shared: pathlib.Path) -> None:
    command = [sys.executable, "-m", "guardfleet", "bench", "engine", "--texts", str(shared / "data" / "corpus.jsonl")]
    options = ["--rows", "40", "--turns", "1", "--ceiling-seconds", "0.1", "--slow-path", "0.5", "--soak-rows", "80", "--json"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=patience(300), check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert "of the ceiling" in done.stdout
    assert found["padding"] == 0
    fast, slow = found["runs"]
    assert (fast["one_pass_share"], fast["failures"]) == (1, 0)
    assert 0 < slow["one_pass_share"] < 1
    assert found["ceiling"]["engine_gflop_s"] > 0
    assert len(found["soak"]["rss_mib"]) == 10


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--shape", "tiny", "--tokenizer", "./nowhere"], "model folder './nowhere' does not exist"),
        (["--shape", "tiny", "--tokenizer", "broken"], "model 'broken' cannot be loaded: "),
        (["--host-only", "--tokenizer", "./nowhere"], "model folder './nowhere' does not exist"),
        (["--model", "./nowhere"], "model folder './nowhere' does not exist"),
        (["--texts", "nowhere.jsonl"], "--texts nowhere.jsonl cannot be read: No such file or directory"),
        (["--texts", "nowhere.json"], "--texts nowhere.json cannot be read: No such file or directory"),
        (["--texts", "broken"], "--texts broken cannot be read: Is a directory"),
        (["--texts", "odd.jsonl"], "--texts odd.jsonl holds no texts: give JSONL of rows with a text, or a JSON list of strings"),
        (["--texts", "odd.json"], "--texts odd.json holds no texts"),
        (["--texts", "empty.jsonl"], "--texts empty.jsonl holds no texts"),
        (["--texts", "cut.jsonl"], "--texts cut.jsonl is not JSON"),
    ],
)
def test_what_the_engine_s_benchmark_cannot_read_is_said_in_one_sentence(
    options: list[str], said: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{}")
    for name, content in {"odd.jsonl": '[1]\n"x"\n', "odd.json": '{"a": 1}', "empty.jsonl": "", "cut.jsonl": '{"text": '}.items():
        (tmp_path / name).write_text(content)
    done = command_here(tmp_path, "bench", "engine", "--rows", "4", *options)
    assert done.returncode == UNUSABLE
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"guardfleet: {said}")


def test_the_model_shapes_cost_what_their_reference_says() -> None:
    """GFLOP of one text of 256 tokens behind a cached prefix of 201, with a suffix of 96 and a draft of 7: the published table."""
    for shape, gflop in ((Shape(28, 16, 8, 128, 1024, 3072, 151_936), 350.1), (Shape(36, 32, 8, 128, 2560, 9728, 151_936), 2696)):
        whole = flops(shape, 201, 256 + 96 + 7, 8)
        assert whole == pytest.approx(gflop * 1e9, rel=0.05)  # the last layer's savings are ours
        assert whole < gflop * 1e9


def test_the_pipeline_benchmark_puts_a_job_through_and_leaves_nothing_behind(postgres: str, redis_broker: str) -> None:
    servers = ["--postgres", postgres, "--broker", redis_broker]
    options = ["--texts", "2x1500", "--shard-texts", "100", "--duplicates", "0.5", "--beside-engine", "--json"]
    command = [sys.executable, "-m", "guardfleet", "bench", "pipeline", *servers, *options]
    with psycopg.connect(postgres) as admin:
        before = set(admin.execute(SCRATCH).fetchall())  # a benchmark that somebody killed has left its own
    done = subprocess.run(command, capture_output=True, text=True, timeout=patience(300), check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    (run,) = found["runs"]
    assert (run["completed"], run["lost"]) == (True, 0)
    assert 1400 < run["model_runs"] <= 1600
    assert set(run["peak_mib"]) == {"submit", "worker0", "api", "dispatcher"}
    assert run["poll_ms"]["status"]["n"] > 0
    assert run["texts_per_s"] > 0
    assert run["engine_alone_texts_per_s"] > 0
    assert run["yardstick"].keys() == {"copy_per_s", "json_per_s", "texts_of_copy", "ingest_of_json"}
    assert all(run["yardstick"][share] > 0 for share in ("texts_of_copy", "ingest_of_json"))
    with psycopg.connect(postgres) as admin:
        assert set(admin.execute(SCRATCH).fetchall()) <= before
