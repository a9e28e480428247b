"""A stored verdict as callers see it: a JSON object for HTTP and JSONL, flat fields for CSV, Parquet and Python.

Millions of them are read, so most of an object is made once for all verdicts that say the same: 1 us instead of 20 a verdict.
"""

import datetime as dt
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from guardfleet.rationale import PROBABILITIES, rationale
from guardfleet.verdict import CATEGORY_CHOICES, Category, Model, ServedBy, Severity, category_names

FIELDS = (
    "seq",
    "id",
    "severity",
    "categories",
    "refusal",
    "p_safe",
    "p_controversial",
    "p_unsafe",
    "rationale",
    "served_by",
    "raw",
    "error",
    "error_detail",
    "model",
    "revision",
    "policy",
    "is_demo",
    "input_tokens",
    "output_tokens",
    "done_at",
    "metadata",
    "category_probabilities",
    "evidence",
)
UNKNOWN_ODDS = 255  # of a byte; 254 is 1
KNOWN_OPINIONS = 65_536  # about 40 MiB of rendered text at most


class Opinion(NamedTuple):
    """What a stored verdict says, without whom it is about: equal for very many of them."""

    severity: int
    categories: int
    refusal: bool | None
    probabilities: bytes | None
    served_by: int
    raw: str | None
    error: str | None
    error_detail: str | None
    category_odds: bytes | None


class StoredVerdict(NamedTuple):
    """A row of the table `verdict`, in the order of `verdicts.COLUMNS`; `metadata` is JSON text."""

    ord: int
    seq: int
    id: str
    severity: int
    categories: int
    refusal: bool | None
    probabilities: bytes | None
    served_by: int
    raw: str | None
    error: str | None
    error_detail: str | None
    category_odds: bytes | None
    model_id: int
    input_tokens: int
    output_tokens: int
    done_at: dt.datetime
    metadata: str | None
    evidence: dict[str, Any] | None

    @property
    def opinion(self) -> Opinion:
        """The part that says something."""
        return Opinion._make(self[3:12])


def json_object(row: StoredVerdict, model: Model) -> bytes:
    """The verdict as a JSON object in UTF-8, on one line."""
    opinion = row[3:12]
    said = _said(opinion, model) if row.evidence is None else _opinion_json(Opinion._make(opinion), model, row.evidence)
    metadata = b"" if row.metadata is None else b',"metadata":' + row.metadata.encode()
    return b'{"id":%b,%b,"tokens":{"input":%d,"output":%d},"done_at":%b%b}' % (
        orjson.dumps(row.id),
        said,
        row.input_tokens,
        row.output_tokens,
        orjson.dumps(row.done_at),
        metadata,
    )


def fields(row: StoredVerdict, model: Model) -> dict[str, Any]:
    """The verdict in words, by `FIELDS`, as the view `verdicts` has it."""
    p_safe, p_controversial, p_unsafe = _shown(row.probabilities) or (None, None, None)
    return {
        "seq": row.seq,
        "id": row.id,
        "severity": Severity(row.severity).label,
        "categories": category_names(Category(row.categories)),
        "refusal": row.refusal,
        "p_safe": p_safe,
        "p_controversial": p_controversial,
        "p_unsafe": p_unsafe,
        "rationale": _sentence(row.opinion, model, row.evidence),
        "served_by": ServedBy(row.served_by).label,
        "raw": row.raw,
        "error": row.error,
        "error_detail": row.error_detail,
        "model": model.name,
        "revision": model.revision,
        "policy": model.policy,
        "is_demo": model.is_demo,
        "input_tokens": row.input_tokens,
        "output_tokens": row.output_tokens,
        "done_at": row.done_at,
        "metadata": None if row.metadata is None else orjson.loads(row.metadata),
        "category_probabilities": _named(row.category_odds),
        "evidence": row.evidence,
    }


@functools.lru_cache(KNOWN_OPINIONS)
def _said(opinion: tuple[Any, ...], model: Model) -> bytes:
    return _opinion_json(Opinion._make(opinion), model, None)


def _opinion_json(opinion: Opinion, model: Model, evidence: Mapping[str, Any] | None) -> bytes:
    return orjson.dumps(opinion_object(opinion, model, evidence))[1:-1]


def opinion_object(opinion: Opinion, model: Model, evidence: Mapping[str, Any] | None) -> dict[str, Any]:
    """The members of a verdict's object that do not depend on whom it is about."""
    shown = _shown(opinion.probabilities)
    return {
        "severity": Severity(opinion.severity).label,
        "categories": category_names(Category(opinion.categories)),
        "refusal": opinion.refusal,
        "probabilities": None if shown is None else dict(zip(("safe", "controversial", "unsafe"), shown, strict=True)),
        "category_probabilities": _named(opinion.category_odds),
        "rationale": _sentence(opinion, model, evidence),
        "evidence": evidence,
        "served_by": ServedBy(opinion.served_by).label,
        "model": model.name,
        "revision": model.revision,
        "policy": model.policy,
        "is_demo": model.is_demo,
        "error": None if opinion.error is None else {"code": opinion.error, "detail": opinion.error_detail},
        "raw": opinion.raw,
    }


def _sentence(opinion: Opinion, model: Model, evidence: Mapping[str, Any] | None) -> str:
    return rationale(
        opinion.severity,
        opinion.categories,
        opinion.served_by,
        opinion.refusal,
        opinion.probabilities,
        evidence,
        opinion.error,
        opinion.error_detail,
        f"{model.name}@{model.revision[:12]}",
    )


def _shown(probabilities: bytes | None) -> tuple[float, float, float] | None:
    if probabilities is None:
        return None
    safe, controversial, unsafe = (PROBABILITIES[byte] for byte in probabilities)
    return safe, controversial, unsafe


def _named(odds: bytes | None) -> dict[str, float] | None:
    """Category to probability; what rounds to nothing and what is not known is left out."""
    if odds is None:
        return None
    return {name: round(value / 254, 3) for name, value in zip(CATEGORY_CHOICES, odds, strict=True) if 0 < value < UNKNOWN_ODDS}
