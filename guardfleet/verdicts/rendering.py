"""Render a stored verdict: a JSON object for HTTP and JSONL, flat fields for CSV, Parquet and Python.

Millions are read, so the part that equal verdicts share is rendered once and cached: 1 us instead of 20 per verdict.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from guardfleet.domain.decision import Decision
from guardfleet.domain.verdict import CATEGORY_CHOICES, Judgement, Model, category_names
from guardfleet.verdicts.encoding import StoredVerdict, decode
from guardfleet.verdicts.rationale import rationale

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
    "action",
    "decision",
    "detections",
)
KNOWN_VERDICTS = 65_536  # about 40 MiB of rendered text at most
KNOWN_DECISIONS = 4096
SHOWN_DIGITS = 3  # of a probability


def json_object(
    row: StoredVerdict, model: Model, decision: Decision | None = None, detections: Mapping[str, Any] | None = None
) -> bytes:
    """Return the verdict as a JSON object in UTF-8, on one line.

    With `action` and `decision` if a policy decided, and `detections` if detectors were asked.
    """
    said = _said(row.codes, model) if row.evidence is None else _said_json(row.judgement, model, row.evidence)
    metadata = b"" if row.metadata is None else b',"metadata":' + row.metadata.encode()
    return b'{"id":%b,%b,"tokens":{"input":%d,"output":%d},"done_at":%b%b%b%b}' % (
        orjson.dumps(row.id),
        said,
        row.input_tokens,
        row.output_tokens,
        orjson.dumps(row.done_at),
        metadata,
        b"" if decision is None else _decided(decision),
        b"" if detections is None else b',"detections":%b' % orjson.dumps(detections),
    )


def decision_object(decision: Decision) -> dict[str, Any]:
    """Return a decision as faces tell it."""
    return {
        "action": decision.action,
        "policy": decision.policy,
        "rule": decision.rule,
        "reason": decision.reason,
        "labels": list(decision.labels),
    }


@functools.lru_cache(KNOWN_DECISIONS)
def _decided(decision: Decision) -> bytes:
    return b',"action":%b,"decision":%b' % (orjson.dumps(decision.action), decision_json(decision))


@functools.lru_cache(KNOWN_DECISIONS)
def decision_json(decision: Decision) -> bytes:
    """Return the same as JSON."""
    return orjson.dumps(decision_object(decision))


def fields(
    row: StoredVerdict, model: Model, decision: Decision | None = None, detections: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the verdict by `FIELDS`, as the view `verdicts` has it."""
    said = row.judgement
    p_safe, p_controversial, p_unsafe = _shown(said.probabilities) or (None, None, None)
    return {
        "seq": row.seq,
        "id": row.id,
        "severity": said.severity.label,
        "categories": category_names(said.categories),
        "refusal": said.refusal,
        "p_safe": p_safe,
        "p_controversial": p_controversial,
        "p_unsafe": p_unsafe,
        "rationale": rationale(said, row.evidence, model),
        "served_by": said.served_by.label,
        "raw": said.raw,
        "error": said.error,
        "error_detail": said.error_detail,
        "model": model.name,
        "revision": model.revision,
        "policy": model.policy,
        "is_demo": model.is_demo,
        "input_tokens": row.input_tokens,
        "output_tokens": row.output_tokens,
        "done_at": row.done_at,
        "metadata": None if row.metadata is None else orjson.loads(row.metadata),
        "category_probabilities": _named(said.category_odds),
        "evidence": row.evidence,
        "action": decision and decision.action,
        "decision": decision and decision_object(decision),
        "detections": detections,
    }


@functools.lru_cache(KNOWN_VERDICTS)
def _said(codes: tuple[Any, ...], model: Model) -> bytes:
    return _said_json(decode(codes), model, None)


def _said_json(said: Judgement, model: Model, evidence: Mapping[str, Any] | None) -> bytes:
    return orjson.dumps(said_object(said, model, evidence))[1:-1]


def said_object(said: Judgement, model: Model, evidence: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the members of a verdict's object that do not depend on the row."""
    shown = _shown(said.probabilities)
    return {
        "severity": said.severity.label,
        "categories": category_names(said.categories),
        "refusal": said.refusal,
        "probabilities": None if shown is None else dict(zip(("safe", "controversial", "unsafe"), shown, strict=True)),
        "category_probabilities": _named(said.category_odds),
        "rationale": rationale(said, evidence, model),
        "evidence": evidence,
        "served_by": said.served_by.label,
        "model": model.name,
        "revision": model.revision,
        "policy": model.policy,
        "is_demo": model.is_demo,
        "error": None if said.error is None else {"code": said.error, "detail": said.error_detail},
        "raw": said.raw,
    }


def _shown(probabilities: tuple[float, float, float] | None) -> tuple[float, float, float] | None:
    if probabilities is None:
        return None
    safe, controversial, unsafe = probabilities
    return round(safe, SHOWN_DIGITS), round(controversial, SHOWN_DIGITS), round(unsafe, SHOWN_DIGITS)


def _named(probabilities: Sequence[float | None] | None) -> dict[str, float] | None:
    """Map category to probability; values that round to zero and unknown ones are left out."""
    if probabilities is None:
        return None
    return {name: round(p, SHOWN_DIGITS) for name, p in zip(CATEGORY_CHOICES, probabilities, strict=True) if p}
