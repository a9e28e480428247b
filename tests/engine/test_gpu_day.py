"""`benchmarks/gpu.py --all`, with a CPU in place of the GPU: every step runs, or is reported with the reason why not."""

import argparse
import json
import pathlib
import subprocess
import sys
import time
from typing import Any

import pytest
import torch

from benchmarks import gpu_day
from benchmarks.gpu_day import Day, NotHereError, Options, Step, go_through
from tests.services.patience import patience
from worker.engine.interfaces import DeviceLostError

ROOT = pathlib.Path(__file__).parents[2]
BLOCKED = ("celery", "kombu", "psycopg", "sqlalchemy", "pydantic", "pydantic_settings", "orjson", "structlog", "redis", "typer")
BARE = f"""
import runpy, sys
sys.modules |= dict.fromkeys({BLOCKED})
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def _day() -> Day:
    return Day(Options(torch.device("cpu"), "bfloat16", "demo", None, is_tiny=True, seconds=0.1))


def _args(tmp_path: pathlib.Path, **options: Any) -> argparse.Namespace:
    return argparse.Namespace(**{"minutes": 1, "out": tmp_path / "day.json", "resume": None, "tiny": False} | options)


def _fails(day: Day) -> dict[str, Any]:
    raise RuntimeError("an illegal memory access\nwas encountered")


def _is_not_here(day: Day) -> dict[str, Any]:
    raise NotHereError("no such units")


def _goes_on(day: Day) -> dict[str, Any]:
    time.sleep(60)
    return {}


def test_all_steps_are_done_or_named(tmp_path: pathlib.Path) -> None:
    """Beside torch and transformers alone."""
    out = tmp_path / "day.json"
    options = ["--all", "--tiny", "--device", "cpu", "--minutes", "0.4", "--seconds", "0.05", "--out", str(out)]
    command = [sys.executable, "-c", BARE, str(ROOT / "benchmarks" / "gpu.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=patience(120), check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == json.loads(out.read_text())
    steps = found["steps"]
    assert {"environment", "attention", "kernels", "rates tiny", "interactive tiny", "equality", "vllm tiny"} <= steps.keys()
    assert {name for name, step in steps.items() if step["status"] == "failed"} == set()
    assert all(step["reason"] for step in steps.values() if step["status"] == "skipped")
    assert steps["attention"]["holds"] is True
    assert any(why in steps["rates tiny fp8"]["reason"] for why in ("no fp8 matrix units", "are left"))


def test_a_step_that_fails_leaves_its_reason_and_the_others_go_on(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_day, "PATIENCE", 0.0)
    monkeypatch.setattr(gpu_day, "GRACE_S", 0.5)
    takes = {"fails": _fails, "is not here": _is_not_here, "goes on": _goes_on, "is done": lambda day: {"figure": 1}}
    steps = [Step(name, take, (1, 1)) for name, take in takes.items()]
    steps.insert(3, Step("is too long", _goes_on, (600, 600)))
    found = go_through(steps, _day(), _args(tmp_path))["steps"]
    assert json.loads((tmp_path / "day.json").read_text())["steps"] == found
    assert {name: (step["status"], step.get("reason")) for name, step in found.items()} == {
        "fails": ("failed", "RuntimeError: an illegal memory access"),
        "is not here": ("skipped", "no such units"),
        "goes on": ("skipped", "TooLongError: cut off after 0 s"),
        "is too long": ("skipped", found["is too long"]["reason"]),
        "is done": ("done", None),
    }
    assert found["is too long"]["reason"].startswith("it takes about 600 s, and 5")
    assert "_fails" in "".join(found["fails"]["traceback"])


def test_what_is_done_stays_when_a_day_is_gone_on_with(tmp_path: pathlib.Path) -> None:
    taken: list[str] = []

    def step(name: str, *, fails: bool = False) -> Step:
        def take(day: Day) -> dict[str, Any]:
            taken.append(name)
            return _fails(day) if fails else {}

        return Step(name, take, (1, 1))

    go_through([step("a"), step("b", fails=True)], _day(), _args(tmp_path))
    go_through([step("a"), step("b"), step("c")], _day(), _args(tmp_path, resume="anew"))
    assert taken == ["a", "b", "b", "c"]


def test_another_process_goes_on_where_the_device_is_lost(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(device: Any, error: RuntimeError) -> None:
        raise DeviceLostError

    commands: list[list[str]] = []
    monkeypatch.setattr(gpu_day, "probe", lost)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--all", "--resume"])
    monkeypatch.setattr(subprocess, "run", lambda command, **_: commands.append(command) or subprocess.CompletedProcess(command, 3))
    with pytest.raises(SystemExit, match="3"):
        go_through([Step("fails", _fails, (1, 1)), Step("next", lambda day: {}, (1, 1))], _day(), _args(tmp_path))
    assert commands == [[sys.executable, "gpu.py", "--all", "--resume=at once"]]
    assert json.loads((tmp_path / "day.json").read_text())["steps"].keys() == {"fails"}
    steps = [Step("fails", _goes_on, (1, 1)), Step("next", lambda day: {}, (1, 1))]
    assert go_through(steps, _day(), _args(tmp_path, resume="at once"))["steps"]["next"]["status"] == "done"
