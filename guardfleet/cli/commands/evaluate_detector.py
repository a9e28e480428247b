"""`guardfleet evaluate --detector`: how good a detector is on labelled texts, and where to cut its score for a policy."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from guardfleet.cli import DONE, FAILED_ROWS, terminal
from guardfleet.cli.commands.evaluate import answered
from guardfleet.cli.detector_evaluation import Labelled, band_of, chosen, figures_of
from guardfleet.cli.detector_labels import Asked, LabelReader, member_of
from guardfleet.cli.detector_report import as_dict, show
from guardfleet.cli.input_options import opened
from guardfleet.cli.labelled_rows import UNKNOWN, LeftOut, labelled
from guardfleet.domain.detection import DETECTOR_NAME, Outcome
from guardfleet.domain.verdict import GUARD
from guardfleet.errors import RejectedError
from guardfleet.rows.payload import PayloadRow
from guardfleet.settings import Settings
from producer.readers import Reading
from worker.engine.factory import make_backend
from worker.engine.interfaces import Backend
from worker.engine.prompting.prompt import is_blank
from worker.engine.spec import Spec
from worker.moderation import detecting
from worker.process.main import spec_of

PER = 1_000_000  # texts, for which false flags are told


def evaluate(
    settings: Settings,
    sources: list[str],
    reading: Reading,
    detector: str,
    asked: Asked | None,
    *,
    limit: int | None,
    as_json: bool,
    make: Callable[[Spec], Backend] = make_backend,
) -> int:
    """Judge every labelled row, without services, and report; return 1 if one failed, or has an unknown label."""
    asked = asked or Asked()
    settings = _judging_as(detector, settings)
    inputs = opened(sources, reading, max_text_bytes=settings.intake.max_text_bytes, allow_empty=False)
    started = time.perf_counter()
    backend = make(spec_of(settings))
    labels = LabelReader(backend.model, asked.label_field, asked.positive)
    positive = labels.needed_positive("a threshold is for one label") if asked.rates else labels.positive
    left_out = LeftOut(labels.known)
    label_of_row = (lambda row: labels.nothing) if asked.negatives else labels
    read = list(labelled(inputs, settings, limit, label_of_row, left_out))
    left_out.say()
    if not read:
        raise RejectedError(f"{inputs.name} has no row with a label: name it with --label-field, or say --negatives.")
    rows = [row for row, _, _ in read]
    judge = detecting.Reading(backend.model, settings.engine.window_rule)  # as a worker reads answers
    found = [
        detecting.EMPTY if is_blank(row.content) else judge.detection_of(answer)
        for row, answer in zip(rows, answered(backend, rows), strict=True)
    ]
    texts = Labelled(backend.model, [label for _, label, _ in read], found, _slices(rows, [row for _, _, row in read], asked.by))
    cuts = [chosen(texts, positive, rate) for rate in asked.rates] if positive else []
    figures = {} if asked.negatives else {label: figures_of(texts, label) for label in labels.judged}
    show(texts, figures, cuts, positive, time.perf_counter() - started, to=terminal.notes if as_json else terminal.answers)
    if as_json:
        counts = {"file": " ".join(sources), **as_dict(texts, figures, cuts, positive), **left_out.counts}
        print(json.dumps(counts))
    return FAILED_ROWS if texts.count(Outcome.ERROR) or left_out.counts[UNKNOWN] else DONE


def _judging_as(detector: str, settings: Settings) -> Settings:
    """Return settings for an engine of this detector. Raises RejectedError for a name that none can have, and for the guard's."""
    if not DETECTOR_NAME.fullmatch(detector):
        raise RejectedError(f"--detector {detector!r} is no detector's name: it begins with a letter and has a-z, 0-9, _ and -.")
    if detector == GUARD:
        raise RejectedError("--detector guard: leave it out, the guard is evaluated without it.")
    return settings.model_copy(update={"engine": settings.engine.judging_as(detector)})


def _slices(rows: Sequence[PayloadRow], given: Sequence[Mapping[str, Any]], by: Sequence[str]) -> dict[str, list[str | None]]:
    """Return the kinds of slices, each with a value for each row: language, length in characters, and those that were asked for."""
    slices = {"language": [_word(member_of(row, "lang") or member_of(row, "language")) for row in given]}
    slices["length"] = [band_of(_length(row)) for row in rows]
    return slices | {name: [_word(member_of(row, name)) for row in given] for name in by}


def _word(value: Any) -> str | None:
    return str(value) if isinstance(value, str | int | bool) else None


def _length(row: PayloadRow) -> int:
    return len(row.content) if isinstance(row.content, str) else len(row.content[-1]["content"])
