"""Draw the boards' panels from what Prometheus answered to their queries. No Grafana runs here: these are not its pictures.

`python -m benchmarks.scrape --keep FOLDER`, then `python docs/panels.py FOLDER` writes docs/boards/*.svg. Stats show the last value
that is not 0, since the run is over at the end.
"""

import json
import math
import pathlib
import sys
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import yaml

HERE = pathlib.Path(__file__).parent
COLUMN, ROW, PAD = 42, 24, 8  # pixels of one of Grafana's 24 columns, of one of its rows, and inside a panel
INKS = ("#3465a4", "#c4572b", "#4e8c2f", "#8a5ea8", "#b8860b", "#2a8f8f", "#a33b5e", "#666666")
LEGENDS = 4
Series = list[tuple[float, float]]


def drawn(name: str, answers: Mapping[str, Any]) -> str:
    """Return a board as SVG."""
    board = json.loads((HERE.parent / "deploy" / "grafana" / f"{name}.json").read_text())
    height = ROW * max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"])
    style = "text{font:11px sans-serif;fill:#333}.t{font-weight:bold}.n{font-size:22px}.s{fill:#888}"
    body = "".join(_panel(panel, answers) for panel in board["panels"])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {24 * COLUMN} {height}"><style>{style}</style>'
        f'<rect width="100%" height="100%" fill="#fff"/>{body}</svg>\n'
    )


def _panel(panel: Mapping[str, Any], answers: Mapping[str, Any]) -> str:
    at, unit = panel["gridPos"], panel["fieldConfig"]["defaults"]["unit"]
    width, height = at["w"] * COLUMN - PAD, at["h"] * ROW - PAD
    shown = [
        (_legend(target["legendFormat"], one["metric"]), _finite(one["values"]))
        for target in panel["targets"]
        for one in answers.get(target["expr"], ())
    ]
    inside = _stat(shown, unit) if panel["type"] == "stat" else _lines(shown, width, height, unit)
    return (
        f'<g transform="translate({at["x"] * COLUMN + PAD / 2},{at["y"] * ROW + PAD / 2})">'
        f'<rect width="{width}" height="{height}" fill="none" stroke="#ccc"/>'
        f'<text class="t" x="{PAD}" y="16">{escape(panel["title"])}</text>{inside}</g>'
    )


def _stat(shown: Sequence[tuple[str, Series]], unit: str) -> str:
    values = [value for _, series in shown for _, value in series]
    last = next((value for value in reversed(values) if value), values[-1] if values else None)
    return f'<text class="n" x="{PAD}" y="56">{"no value" if last is None else _said(last, unit)}</text>'


def _lines(shown: Sequence[tuple[str, Series]], width: int, height: int, unit: str) -> str:
    points = [point for _, series in shown for point in series]
    if not points:
        return f'<text class="s" x="{PAD}" y="40">no series in this run</text>'
    begins, ends = min(at for at, _ in points), max(at for at, _ in points)
    most = max(value for _, value in points) or 1.0
    left, top, right, bottom = 56, 30, width - PAD, height - 16 - 14 * min(len(shown), LEGENDS)
    out = [
        f'<text class="s" x="{PAD}" y="{top + 8}">{_said(most, unit)}</text><text class="s" x="{PAD}" y="{bottom}">0</text>',
        f'<path d="M{left} {top}V{bottom}H{right}" fill="none" stroke="#ccc"/>',
    ]
    for number, (legend, series) in enumerate(shown):
        ink = INKS[number % len(INKS)]
        wide, high = (right - left) / ((ends - begins) or 1), (bottom - top) / most
        places = " ".join(f"{left + (at - begins) * wide:.0f},{bottom - max(0.0, value) * high:.1f}" for at, value in series)
        out.append(f'<polyline points="{places}" fill="none" stroke="{ink}" stroke-width="1.5"/>')
        if number < LEGENDS:
            rest = f" and {len(shown) - LEGENDS} more" if number == LEGENDS - 1 and len(shown) > LEGENDS else ""
            said = (legend + rest)[: (right - left) // 6]
            out.append(f'<text x="{left}" y="{bottom + 16 + 14 * number}" style="fill:{ink}">{escape(said)}</text>')
    return "".join(out)


def _legend(pattern: str, labels: Mapping[str, str]) -> str:
    for label, value in labels.items():
        pattern = pattern.replace(f"{{{{{label}}}}}", value)
    return "" if pattern == "__auto" else pattern


def _finite(values: Sequence[tuple[float, str]]) -> Series:
    return [(at, float(value)) for at, value in values if math.isfinite(float(value))]


def _said(value: float, unit: str) -> str:
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    if unit == "currencyUSD":
        return f"$ {value:,.2f}"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {letter}{'B' if unit == 'bytes' else ''}"
    return f"{value:.3g}{' s' if unit == 's' else ''}"


if __name__ == "__main__":
    said = json.loads(pathlib.Path(sys.argv[1], "answers.json").read_text())
    (HERE / "boards").mkdir(exist_ok=True)
    for each in yaml.safe_load((HERE.parent / "deploy" / "grafana" / "boards.yml").read_text()):
        (HERE / "boards" / f"{each}.svg").write_text(drawn(each, said))
