"""`guardfleet evaluate`: how good a model's verdicts are on labelled rows, and how far another precision agrees with them."""

import csv
import io
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from rich.console import Console
from rich.table import Table

from guardfleet.cli import DONE, FAILED_ROWS, terminal
from guardfleet.cli.evaluation import FIGURES, Confusion, agreement, by_category, confusion
from guardfleet.cli.input_options import opened
from guardfleet.cli.labelled_rows import UNKNOWN, UNLABELLED, LeftOut, labelled
from guardfleet.domain.verdict import Judgement, Severity
from guardfleet.errors import RejectedError
from guardfleet.rows.payload import PayloadRow
from guardfleet.settings import Settings
from guardfleet.verdicts import export, targets
from producer.readers import Reading
from producer.sources import expanded
from worker.engine.engine import BatchingEngine
from worker.engine.factory import make_backend, require_device
from worker.engine.interfaces import Answer, Backend
from worker.engine.prompting.prompt import is_blank
from worker.moderation.interpretation import EMPTY, judgement_of
from worker.process.main import spec_of

REQUEST_TEXTS = 1024
READINGS = (("strict", True), ("loose", False))
MEANS = {"strict": "unsafe (strict)", "loose": "safe (loose)"}
KNOWN = "safe, unsafe, true and false"
COLUMNS = ("reading", "category", *(field.name for field in fields(Confusion)), *FIGURES)


@dataclass(frozen=True)
class Report:
    """The model's answers for the labelled texts, and the figures made of them."""

    model: str
    labels: list[bool]
    judged: list[Judgement]
    readings: dict[str, Confusion]  # by how they count `controversial`: strict and loose
    categories: dict[str, dict[str, Confusion]]

    @classmethod
    def of(cls, model: str, labels: list[bool], judged: list[Judgement]) -> "Report":
        """Compute the figures."""
        severities = [judgement.severity for judgement in judged]
        readings = {name: confusion(labels, severities, strict=strict) for name, strict in READINGS}
        categories = {name: by_category(labels, judged, strict=strict) for name, strict in READINGS}
        return cls(model, labels, judged, readings, categories)

    @property
    def failed(self) -> int:
        """How many texts got no verdict."""
        return sum(judgement.severity is Severity.ERROR for judgement in self.judged)


def evaluate(
    settings: Settings,
    sources: list[str],
    reading: Reading,
    *,
    limit: int | None,
    against: str | None,
    as_json: bool,
    csv_path: str | None = None,
) -> int:
    """Judge every labelled row, without services, and report; return 1 if one got no verdict, or has an unknown label."""
    if csv_path is not None:
        export.ready(csv_path, "csv")
        targets.require_apart([csv_path], expanded(sources)[0])
    other_settings = _in_precision(settings, against) if against else None
    if other_settings:
        require_device(spec_of(other_settings))
    rows, labels, left_out = labelled_texts(sources, reading, settings, limit)
    started = time.perf_counter()
    judged, model = judged_texts(settings, rows)
    report = Report.of(model, labels, judged)
    to = terminal.notes if as_json else terminal.answers
    _show(report, time.perf_counter() - started, to)
    out = {"file": " ".join(sources), **_as_dict(report), **left_out.counts}
    if other_settings:
        out["against"] = _compared(judged, judged_texts(other_settings, rows)[0], str(against), to)
    if csv_path is not None:
        _write(report, csv_path)
    if as_json:
        print(json.dumps(out))
    return FAILED_ROWS if report.failed or left_out.counts[UNKNOWN] else DONE


def _show(report: Report, seconds: float, to: Console) -> None:
    title = f"{report.model} on {len(report.labels)} labelled texts, {sum(report.labels)} of them unsafe"
    table = Table(title=title, title_justify="left")
    for column in ("controversial is", "precision", "recall", "F1", "false positive rate"):
        table.add_column(column, justify="left" if column.endswith("is") else "right")
    for name, found in report.readings.items():
        table.add_row(MEANS[name], *(_said(figure) for figure in _figures(found).values()))
    terminal.say(table, to=to)
    if any(report.categories.values()):
        terminal.say(_by_category(report), to=to)
    terminal.say(f"{report.failed} without a verdict, left out above; {seconds:.1f} s including loading the model", to=to)


def _by_category(report: Report) -> Table:
    """Build the table of texts flagged under each category, and the share that is unsafe, for both readings."""
    table = Table(title="Flagged texts by category, and the share that is labelled unsafe", title_justify="left")
    table.add_column("category")
    for name in report.categories:
        table.add_column(name, justify="right")
        table.add_column("precision", justify="right")
    for category in report.categories["strict"]:  # it flags whatever loose does
        row = [report.categories[name].get(category, Confusion()) for name in report.categories]
        cells = [(f"{found.true_positive + found.false_positive:,}", _said(found.precision)) for found in row]
        table.add_row(category, *(cell for pair in cells for cell in pair))
    return table


def _figures(found: Confusion) -> dict[str, float | None]:
    return {name: getattr(found, name) for name in FIGURES}


def _said(figure: float | None) -> str:
    return "undefined" if figure is None else f"{figure:.3f}"


def _rounded(figure: float | None, digits: int = 4) -> float | None:
    return None if figure is None else round(figure, digits)


def _as_dict(report: Report) -> dict[str, Any]:
    counts = {"texts": len(report.labels), "unsafe": sum(report.labels), "failed": report.failed}
    readings = {name: {key: _rounded(figure) for key, figure in _figures(found).items()} for name, found in report.readings.items()}
    return {"model": report.model, **counts, **readings, "categories": {name: _counted(report, name) for name in report.categories}}


def _counted(report: Report, reading: str) -> dict[str, dict[str, int]]:
    found = report.categories[reading]
    return {name: {"unsafe": one.true_positive, "safe": one.false_positive} for name, one in found.items()}


def _write(report: Report, path: str) -> None:
    """Write a line for each reading and for each category in it; a cell is empty if its figure is undefined or unknown."""
    with targets.whole(path) as raw:
        file = io.TextIOWrapper(raw, encoding="utf-8", newline="", write_through=True)
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for name, found in report.readings.items():
            writer.writerow({"reading": name, "category": "all", **asdict(found), **_figures(found)})
            for category, one in report.categories[name].items():
                known = {"true_positive": one.true_positive, "false_positive": one.false_positive, "precision": one.precision}
                writer.writerow({"reading": name, "category": category, **known})
        file.detach()  # whoever opened it closes it


def _compared(judged: list[Judgement], others: list[Judgement], precision: str, to: Console) -> dict[str, Any]:
    same = agreement([j.severity for j in judged], [j.severity for j in others])
    whole = agreement(*([(j.severity, j.categories, j.refusal) for j in run] for run in (judged, others)))
    terminal.say(
        f"{precision} gives the same severity for {_percent(same)} of the texts, and the same verdict for {_percent(whole)}",
        to=to,
    )
    return {"precision": precision, "severity_agreement": _rounded(same, 5), "verdict_agreement": _rounded(whole, 5)}


def _percent(share: float | None) -> str:
    return "undefined" if share is None else f"{share:.2%}"


def _in_precision(settings: Settings, precision: str) -> Settings:
    """Return settings for the same model in `float32`, `bfloat16`, `float16`, `int8` or `fp8`. Raises RejectedError."""
    for key, values in (("dtype", ("float32", "bfloat16", "float16")), ("quantize", ("int8", "fp8"))):
        if precision in values:
            return settings.but(**{key: precision})
    raise RejectedError(f"--against {precision!r} is unknown; use float32, bfloat16, float16, int8 or fp8.")


def judged_texts(settings: Settings, rows: list[PayloadRow]) -> tuple[list[Judgement], str]:
    """Return the model's judgement of each row, without services, and the model as verdicts name it."""
    backend = make_backend(spec_of(settings))
    judged = [
        EMPTY if is_blank(row.content) else judgement_of(answer) for row, answer in zip(rows, answered(backend, rows), strict=True)
    ]
    return judged, backend.model.label


def answered(backend: Backend, rows: list[PayloadRow]) -> list[Answer]:
    """Return the model's answer for each row, without services."""
    engine = BatchingEngine(backend)
    engine.start()
    try:
        parts = [rows[at : at + REQUEST_TEXTS] for at in range(0, len(rows), REQUEST_TEXTS)]
        futures = [engine.submit([row.content for row in part]) for part in parts]
        return [answer for future in futures for answer in future.result().answers]
    finally:
        engine.stop()


def labelled_texts(
    sources: list[str], reading: Reading, settings: Settings, limit: int | None
) -> tuple[list[PayloadRow], list[bool], LeftOut]:
    """Return the rows that are labelled unsafe or not: `label` as `safe`, `unsafe` or a boolean, or `labels.unsafe`."""
    left_out = LeftOut(KNOWN)
    inputs = opened(sources, reading, max_text_bytes=settings.intake.max_text_bytes, allow_empty=False)
    read = list(labelled(inputs, settings, limit, label_of, left_out))
    left_out.say()
    if not read:
        raise RejectedError(f"{inputs.name} has no row with a label: give each a `label` of safe or unsafe.")
    return [row for row, _, _ in read], [label for _, label, _ in read], left_out


def label_of(value: Mapping[str, Any]) -> bool | str:
    """Return whether a row is labelled unsafe, by `label` or `labels.unsafe`; or UNLABELLED or UNKNOWN."""
    labels = value.get("labels")
    label = value["label"] if "label" in value else labels.get("unsafe") if isinstance(labels, dict) else None
    if isinstance(label, str) and label.lower() in ("safe", "unsafe"):
        return label.lower() == "unsafe"
    return label if isinstance(label, bool) else UNLABELLED if label is None else UNKNOWN
