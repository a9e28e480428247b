"""A chaos run in which a process ended that must never end has not passed."""

import json
from typing import Any

import pytest

from benchmarks import chaos


@pytest.mark.parametrize(("who", "status"), [("dispatcher1", 1), ("api", 1), ("webhooks", 1), ("worker0", 0), (None, 0)])
def test_chaos_fails_where_one_ended_by_itself_that_never_may(
    who: str | None, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def one_run(_: Any, faults: list[str]) -> dict[str, Any]:
        counts = dict.fromkeys(("submits", "jobs", "completion_events", "events_received"), 2) | dict.fromkeys(chaos.FAULTLESS, 0)
        ended = {who: ["status 2: x"]} if who and faults else {}
        return {"seconds": 1.0, "texts": 1, "wanting": [], "ended_by_itself": ended, **counts}

    monkeypatch.setattr(chaos, "one_run", one_run)
    monkeypatch.setattr("sys.argv", ["chaos.py"])
    assert chaos.main() == status
    out, err = capsys.readouterr()
    assert json.loads(out.splitlines()[-1])["whole"] is (status == 0)
    assert err == (f"{who} ended by itself, which no fault explains.\n" if status else "")
