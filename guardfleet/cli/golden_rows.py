"""Labelled rows that a model must judge rightly before it takes work: read here, stored with its deployment, judged by workers."""

from typing import Any

from guardfleet.cli.commands.evaluate import labelled_texts
from guardfleet.cli.detector_labels import LabelReader
from guardfleet.cli.input_options import opened
from guardfleet.cli.labelled_rows import UNKNOWN, LeftOut, labelled
from guardfleet.domain.verdict import GUARD
from guardfleet.errors import RejectedError
from guardfleet.settings import Settings
from guardfleet.store import models
from guardfleet.store.postgres.database import Database
from producer.readers import Reading


def golden_rows(
    settings: Settings, db: Database, detector: str, path: str, reading: Reading, *, label_field: str | None, positive: str | None
) -> list[Any]:
    """Return the file's labelled rows as JSON, as `deployments.Asked` has them. Raises RejectedError.

    Labels of a detector are those of the model that it served last. NotFoundError if it has served none.
    """
    if detector == GUARD:
        rows, unsafe, _ = labelled_texts([path], reading, settings, None)
        return [[row.content, is_unsafe] for row, is_unsafe in zip(rows, unsafe, strict=True)]
    labels = LabelReader(models.newest_of(db, detector), label_field or "label", positive)
    left_out = LeftOut(labels.known)
    inputs = opened([path], reading, max_text_bytes=settings.intake.max_text_bytes, allow_empty=False)
    read = list(labelled(inputs, settings, None, labels, left_out))
    left_out.say()
    if left_out.counts[UNKNOWN]:  # of a model with other labels perhaps, which must not pass by what is left
        raise RejectedError(f"{inputs.name} has labels that {detector} does not have: it has {labels.known}.")
    if not read:
        raise RejectedError(f"{inputs.name} has no row with a label: name it with --label-field.")
    return [[row.content, {name: name in truth for name in labels.judged}] for row, truth, _ in read]
