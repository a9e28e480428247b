"""The tables of detections: what detectors other than the guard say of texts."""

import datetime as dt
import uuid
from typing import Any

from sqlalchemy import REAL, BigInteger, Index, SmallInteger, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from guardfleet.store.schema.base import NOW, ZERO, Base
from guardfleet.store.words import REUSABLE_DETECTION


class DetectionRow(Base):
    """One row per text and detector, written by finish() with the text's verdict, and changed by erasures alone."""

    __tablename__ = "detection"
    job_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    place: Mapped[int] = mapped_column(SmallInteger, primary_key=True)  # of the detector in `job.detectors`, from 0
    day: Mapped[dt.date] = mapped_column(primary_key=True)
    model_id: Mapped[int] = mapped_column(SmallInteger)  # which has the detector's name and its labels
    outcome: Mapped[int] = mapped_column(SmallInteger)  # this and the columns below: in the codes of verdicts.detections
    label: Mapped[int | None] = mapped_column(SmallInteger)
    scores: Mapped[list[float] | None] = mapped_column(ARRAY(REAL))
    served_by: Mapped[int] = mapped_column(SmallInteger)
    input_tokens: Mapped[int]
    output_tokens: Mapped[int]
    done_at: Mapped[dt.datetime] = mapped_column(server_default=NOW)
    digest: Mapped[uuid.UUID | None]  # as in `verdict`
    error: Mapped[str | None]
    error_detail: Mapped[str | None]
    evidence: Mapped[dict[str, Any] | None]
    reason: Mapped[str | None]  # the model's own words
    __table_args__ = (
        Index("detection_digest", "digest", postgresql_where=text(REUSABLE_DETECTION)),
        {"postgresql_partition_by": "RANGE (day)"},
    )


class Detected(Base):
    """How many texts of a shard ended how with one detector, written in finish()'s commit and never changed."""

    __tablename__ = "detected"
    job_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    first_seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    place: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    model_id: Mapped[int] = mapped_column(SmallInteger)
    n: Mapped[int]
    unlabelled: Mapped[int]
    too_short: Mapped[int]
    error: Mapped[int]
    labelled: Mapped[list[int]] = mapped_column(ARRAY(BigInteger))  # by the place of the label among the model's
    escalated: Mapped[int] = mapped_column(server_default=ZERO)  # texts that the detector was unsure of: its second one decided
    sampled: Mapped[int] = mapped_column(server_default=ZERO)  # other texts that the second one judged too
    agreed: Mapped[int] = mapped_column(server_default=ZERO)  # of these, with the same label
