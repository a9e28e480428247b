"""`guardfleet evaluate --map-perspective`: carry thresholds for Perspective's scores over, from texts that it has scored."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from api.google.attributes import ATTRIBUTES, value_of
from guardfleet.cli import DONE, FAILED_ROWS, terminal
from guardfleet.cli.commands.evaluate import judged_texts
from guardfleet.cli.input_options import opened
from guardfleet.cli.labelled_rows import UNKNOWN, UNLABELLED, LeftOut, labelled
from guardfleet.domain.score_map import FOLDS, Kept, ScoreMap, kept
from guardfleet.domain.verdict import Severity
from guardfleet.errors import RejectedError
from guardfleet.settings import Settings
from guardfleet.verdicts import targets
from guardfleet.verdicts.encoding import decode, encode
from producer.readers import Reading

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
KNOWN = "a number from 0 to 1 for an attribute, such as TOXICITY"
DIGITS = 6


@dataclass(frozen=True)
class Fitted:
    """An attribute's map, and what becomes of thresholds."""

    n: int
    map: ScoreMap
    kept: list[Kept]


def evaluate(
    settings: Settings,
    sources: list[str],
    reading: Reading,
    thresholds: Sequence[float],
    *,
    output: str | None,
    limit: int | None,
    as_json: bool,
) -> int:
    """Judge every row that Perspective has scored, fit a map for each attribute, and report; return 1 if a row got no verdict."""
    if output is not None:
        targets.require_apart([output], [path for path in sources if path != "-"])
    inputs, left_out = opened(sources, reading, max_text_bytes=settings.intake.max_text_bytes, allow_empty=False), LeftOut(KNOWN)
    read = list(labelled(inputs, settings, limit, scores_of, left_out))
    left_out.say()
    if not read:
        raise RejectedError(f"{inputs.name} has no row with a score: give each {KNOWN}.")
    started = time.perf_counter()
    judged, model = judged_texts(settings, [row for row, _, _ in read])
    said = [decode(encode(each)) for each in judged]  # as the API answers from what is stored
    failed = sum(each.severity is Severity.ERROR for each in said)
    found: dict[str, Fitted] = {}
    for name in ATTRIBUTES:
        pairs = [
            (value_of(each, name), dict(scores)[name])
            for each, (_, scores, _) in zip(said, read, strict=True)
            if each.severity is not Severity.ERROR and name in dict(scores)
        ]
        if len(pairs) >= FOLDS:
            ours, theirs = zip(*pairs, strict=True)
            rows = [kept(ours, theirs, threshold) for threshold in thresholds or THRESHOLDS]
            found[name] = Fitted(len(pairs), ScoreMap.fit(ours, theirs), rows)
    if not found:
        raise RejectedError(f"no attribute has {FOLDS} texts with a score and a verdict: {', '.join(ATTRIBUTES)} can be mapped.")
    _show(found, model, failed, time.perf_counter() - started, as_json=as_json)
    if output is not None:
        _write(output, model, found)
        terminal.say(f"Written to {output}. The API answers with it: GUARDFLEET_API__PERSPECTIVE_MAP={output}")
    if as_json:
        shown = {name: {"texts": one.n, "thresholds": [_rounded(each) for each in one.kept]} for name, one in found.items()}
        print(json.dumps({"model": model, "texts": len(read), "failed": failed, **left_out.counts, "attributes": shown}))
    return FAILED_ROWS if failed or left_out.counts[UNKNOWN] else DONE


def scores_of(value: Mapping[str, Any]) -> frozenset[tuple[str, float]] | str:
    """Return a row's scores by attribute: members called like attributes, or Perspective's whole answer as `attributeScores`."""
    answer = value.get("attributeScores")
    found: dict[str, float] = {}
    for name in ATTRIBUTES:
        given = value.get(name, value.get(name.lower()))
        if given is None and isinstance(answer, dict):
            given = _summary(answer.get(name))
        if given in (None, ""):
            continue
        try:
            score = float(given)
        except (TypeError, ValueError):
            return UNKNOWN
        if not 0 <= score <= 1 or isinstance(given, bool):
            return UNKNOWN
        found[name] = score
    return frozenset(found.items()) or UNLABELLED


def _summary(scores: Any) -> Any:
    summary = scores.get("summaryScore") if isinstance(scores, dict) else None
    return summary.get("value") if isinstance(summary, dict) else None


def _show(found: Mapping[str, Fitted], model: str, failed: int, seconds: float, *, as_json: bool) -> None:
    to = terminal.notes if as_json else terminal.answers
    table = Table(title=f"Thresholds for Perspective's scores, with {model}", title_justify="left")
    for column in ("attribute", "texts", "threshold", "flagged before", "flagged after", "change", "same decision"):
        table.add_column(column, justify="left" if column == "attribute" else "right")
    for name, one in found.items():
        for each in one.kept:
            table.add_row(
                name, f"{one.n:,}", f"{each.threshold:g}", f"{each.before:.1%}", f"{each.after:.1%}",
                f"{100 * each.difference:+.1f} ± {100 * each.error:.1f} points", f"{each.same:.1%}",
            )  # fmt: skip
    terminal.say(table, to=to)
    terminal.say(
        f"'after' is of texts that the map had not seen ({FOLDS} folds); ± is the 95 % interval of the change. "
        f"{failed} without a verdict, left out; {seconds:.1f} s including loading the model",
        to=to,
    )


def _rounded(each: Kept) -> dict[str, float]:
    return {name: round(value, DIGITS) for name, value in (asdict(each) | {"difference": each.difference}).items()}


def _write(path: str, model: str, found: Mapping[str, Fitted]) -> None:
    maps = {name: [[round(x, DIGITS), round(y, DIGITS)] for x, y in one.map.knots] for name, one in found.items()}
    with targets.whole(path) as file:
        file.write(json.dumps({"model": model, "maps": maps}).encode() + b"\n")
