"""Write Grafana's files of the four boards, beside this one, from the panels in boards.yml.

`python deploy/grafana/boards.py` writes them again; a test checks that those in git are current, and runs every query.
"""

import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

HERE = pathlib.Path(__file__).parent
COLUMNS, HEIGHT, STAT_HEIGHT = 24, 8, 4
SOURCE = {"type": "prometheus", "uid": "${source}"}
PRICE = "price_per_hour"  # of one worker's machine; a variable of the board that asks for it


def panels_of() -> dict[str, list[dict[str, Any]]]:
    """Return the panels of each board, as boards.yml has them."""
    boards: dict[str, list[dict[str, Any]]] = yaml.safe_load((HERE / "boards.yml").read_text())
    return boards


def rendered(name: str, panels: Sequence[Mapping[str, Any]]) -> str:
    """Return the file of a board."""
    is_priced = any(f"${PRICE}" in expr for panel in panels for expr in panel["queries"].values())
    board = {
        "uid": f"guardfleet-{name}",
        "title": f"guardfleet: {name}",
        "tags": ["guardfleet"],
        "schemaVersion": 39,
        "editable": True,
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-12h", "to": "now"},
        "templating": {"list": list(_variables(is_priced=is_priced))},
        "panels": list(_placed(panels)),
    }
    return json.dumps(board, indent=1) + "\n"


def _variables(*, is_priced: bool) -> Iterator[dict[str, Any]]:
    yield {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    if is_priced:
        shown = {"selected": True, "text": "2.50", "value": "2.50"}
        yield {"name": PRICE, "label": "Price of a worker, an hour", "type": "textbox", "query": "2.50", "current": shown}


def _placed(panels: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the panels from left to right; a row has one height."""
    x = y = row_height = 0
    for number, panel in enumerate(panels, 1):
        show = panel["show"]
        height = STAT_HEIGHT if show["kind"] == "stat" else HEIGHT
        if x + show["width"] > COLUMNS or height != (row_height or height):
            x, y = 0, y + row_height
        yield {
            "id": number,
            "type": show["kind"],
            "title": panel["title"],
            "description": panel["means"],
            "datasource": SOURCE,
            "gridPos": {"x": x, "y": y, "w": show["width"], "h": height},
            "fieldConfig": {"defaults": {"unit": show["unit"]}, "overrides": []},
            "targets": [
                {"refId": chr(65 + place), "datasource": SOURCE, "expr": expr, "legendFormat": legend or "__auto", "range": True}
                for place, (legend, expr) in enumerate(panel["queries"].items())
            ],
        }
        x, row_height = x + show["width"], height


if __name__ == "__main__":
    for each, shown_panels in panels_of().items():
        (HERE / f"{each}.json").write_text(rendered(each, shown_panels))
