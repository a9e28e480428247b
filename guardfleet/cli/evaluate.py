"""`guardfleet evaluate`: how good a model's verdicts are on labelled rows, and how far another precision agrees with it."""

import json
import time
from typing import Any

from rich.table import Table

from guardfleet.cli import DONE, FAILED_ROWS, show
from guardfleet.cli.reading import opened
from guardfleet.errors import LineError, RejectedError
from guardfleet.rows import row_of
from guardfleet.sealing import PayloadRow
from guardfleet.settings import Settings
from guardfleet.verdict import Judgement, Severity
from producer.readers import Reading
from worker.engine.batching import BatchingEngine
from worker.engine.make import make_backend
from worker.evaluation import agreement, confusion
from worker.judging import EMPTY, judgement_of
from worker.main import spec_of
from worker.prompt import is_blank

REQUEST_TEXTS = 1024


def evaluate(
    settings: Settings, sources: list[str], reading: Reading, *, limit: int | None, against: str | None, as_json: bool
) -> int:
    """Judge every row that has a label, without services, and report; 1 when some of them got no verdict."""
    rows, labels = _labelled(sources, reading, settings, limit)
    started = time.perf_counter()
    judged, model = _judge(settings, rows)
    seconds = time.perf_counter() - started
    severities = [judgement.severity for judgement in judged]
    failed = severities.count(Severity.ERROR)
    out: dict[str, Any] = {"file": " ".join(sources), "model": model, "texts": len(rows), "unsafe": sum(labels), "failed": failed}
    table = Table(title=f"{model} on {len(rows)} labelled texts, {sum(labels)} of them unsafe", title_justify="left")
    for column in ("controversial is", "precision", "recall", "F1", "false positive rate"):
        table.add_column(column, justify="left" if column.endswith("is") else "right")
    for name, strict in (("unsafe (strict)", True), ("safe (loose)", False)):
        found = confusion(labels, severities, strict=strict)
        figures = [found.precision, found.recall, found.f1, found.false_positive_rate]
        table.add_row(name, *(f"{figure:.3f}" for figure in figures))
        keys = ("precision", "recall", "f1", "false_positive_rate")
        out["strict" if strict else "loose"] = {key: round(figure, 4) for key, figure in zip(keys, figures, strict=True)}
    show.console.print(table)
    show.console.print(f"{failed} without a verdict, left out above; {seconds:.1f} s with loading the model")
    if against:
        other, _ = _judge(_in_precision(settings, against), rows)
        same = agreement([j.severity for j in judged], [j.severity for j in other])
        whole = agreement(*([(j.severity, j.categories, j.refusal) for j in run] for run in (judged, other)))
        out["against"] = {"precision": against, "severity_agreement": round(same, 5), "verdict_agreement": round(whole, 5)}
        show.console.print(f"{against} says the same severity of {same:.2%} of the texts, the same verdict of {whole:.2%}")
    if as_json:
        print(json.dumps(out))
    return FAILED_ROWS if failed else DONE


def _in_precision(settings: Settings, precision: str) -> Settings:
    """The same model as `float32`, `bfloat16`, `float16`, `int8` or `fp8`. Raises RejectedError."""
    for key, values in (("dtype", ("float32", "bfloat16", "float16")), ("quantize", ("int8", "fp8"))):
        if precision in values:
            return settings.model_copy(update={key: precision})
    raise RejectedError(f"--against {precision!r}: float32, bfloat16, float16, int8 and fp8 can be compared.")


def _judge(settings: Settings, rows: list[PayloadRow]) -> tuple[list[Judgement], str]:
    backend = make_backend(spec_of(settings))
    engine = BatchingEngine(backend)
    engine.start()
    try:
        parts = [rows[at : at + REQUEST_TEXTS] for at in range(0, len(rows), REQUEST_TEXTS)]
        futures = [engine.submit([row.content for row in part]) for part in parts]
        answers = [answer for future in futures for answer in future.result().answers]
    finally:
        engine.stop()
    judged = [EMPTY if is_blank(row.content) else judgement_of(answer) for row, answer in zip(rows, answers, strict=True)]
    return judged, f"{backend.model.name}@{backend.model.revision[:12]}"


def _labelled(sources: list[str], reading: Reading, settings: Settings, limit: int | None) -> tuple[list[PayloadRow], list[bool]]:
    """Rows that say whether they are unsafe: `label` as `safe`, `unsafe` or a boolean, or `labels.unsafe`."""
    rows: list[PayloadRow] = []
    labels: list[bool] = []
    inputs = opened(sources, reading, max_text_bytes=settings.max_text_bytes, allow_empty=False)
    for place, line, value in inputs.values():
        try:
            if isinstance(value, LineError):
                raise value
            label = _label(value)
            if label is None:
                continue
            row = row_of(line, _without_last_turn(value), max_text_bytes=settings.max_text_bytes)
        except LineError as error:
            raise RejectedError(f"{place}: {error}") from error
        rows.append(row)
        labels.append(label)
        if limit is not None and len(rows) >= limit:
            break
    if not rows:
        raise RejectedError(f"{inputs.name} has no row with a label: give each a `label` of safe or unsafe.")
    return rows, labels


def _without_last_turn(value: Any) -> Any:
    """Evaluation sets often carry the last turn as text beside the conversation."""
    if "messages" not in value:
        return value
    return {name: inner for name, inner in value.items() if name != "text"}


def _label(value: Any) -> bool | None:
    if not isinstance(value, dict):
        return None
    value = {**(value.get("metadata") or {}), **value}
    labels = value.get("labels")
    label = value["label"] if "label" in value else labels.get("unsafe") if isinstance(labels, dict) else None
    if isinstance(label, str) and label.lower() in ("safe", "unsafe"):
        return label.lower() == "unsafe"
    return label if isinstance(label, bool) else None
