"""The boards are current, have Grafana's form, and ask for series that exist. No Grafana can be run here."""

import importlib.util
import json
import pathlib
import subprocess
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.services.prometheus import tool
from tests.unit.test_rules import ROOT, rules, unknown

FOLDER = ROOT / "deploy" / "grafana"
NAMES = ("delivery", "engine", "safety", "tonight")


def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("boards", FOLDER / "boards.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_boards_in_git_are_current() -> None:
    module = maker()
    boards = module.panels_of()
    assert sorted(boards) == sorted(path.stem for path in FOLDER.glob("*.json")) == sorted(NAMES)
    for name, panels in boards.items():
        assert (FOLDER / f"{name}.json").read_text() == module.rendered(name, panels), "run `python deploy/grafana/boards.py`"


@pytest.mark.parametrize("name", NAMES)
def test_grafanas_own_types_take_a_board_and_lose_nothing_of_it(name: str) -> None:
    register_default_plugins()
    board = json.loads((FOLDER / f"{name}.json").read_text())
    assert list(lost(board, json.loads(JSONEncoder().encode(Dashboard.from_json(board))), name)) == []


def test_a_field_that_grafana_does_not_know_is_lost_and_found() -> None:
    register_default_plugins()
    board = json.loads((FOLDER / "tonight.json").read_text())
    board["panels"][0]["targets"][0]["experession"] = "up"
    assert list(lost(board, json.loads(JSONEncoder().encode(Dashboard.from_json(board))), "")) == [
        ".panels[0].targets[0].experession"
    ]


def test_panels_do_not_overlap() -> None:
    for name in NAMES:
        places = [panel["gridPos"] for panel in json.loads((FOLDER / f"{name}.json").read_text())["panels"]]
        cells = [(x, y) for at in places for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])]
        assert len(cells) == len(set(cells)), name
        assert max(x for x, _ in cells) < 24, name


def test_boards_ask_for_metrics_that_exist_in_expressions_that_prometheus_takes(tmp_path: pathlib.Path) -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    asked = [expr for panels in maker().panels_of().values() for panel in panels for expr in panel["queries"].values()]
    assert {expr: names for expr in asked if (names := unknown(expr, recorded))} == {}
    named = [{"record": f"board:{n}", "expr": expr.replace("$price_per_hour", "2.5")} for n, expr in enumerate(asked)]
    (tmp_path / "asked.yml").write_text(json.dumps({"groups": [{"name": "boards", "rules": named}]}))
    subprocess.run([tool("promtool"), "check", "rules", "asked.yml"], cwd=tmp_path, check=True, capture_output=True)


def lost(before: Any, after: Any, place: str) -> Iterator[str]:
    """The places of what is in `before` and not, or otherwise, in `after`."""
    if isinstance(before, dict):
        for key, value in before.items():
            if isinstance(after, dict) and key in after:
                yield from lost(value, after[key], f"{place}.{key}")
            else:
                yield f"{place}.{key}"
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for n, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from lost(one, other, f"{place}[{n}]")
    elif before != after:
        yield place


def test_pictures_show_every_panel() -> None:
    for name, panels in maker().panels_of().items():
        picture = (ROOT / "docs" / "boards" / f"{name}.svg").read_text()
        assert [panel["title"] for panel in panels if f">{panel['title']}</text>" not in picture] == [], (
            f"{name}: see docs/panels.py"
        )
