"""Every face of a stored verdict, read back from its output alone.

A face takes stored rows and returns (severity, categories, refusal) for each, as an outside reader would understand its output. All
faces are compared with the interpretation over random verdicts; `tests/unit/test_faces.py` fails if the source has one more.
"""

import csv
import io
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from api.google.attributes import ATTRIBUTES, scores
from api.openai.categories import COVERED, not_safe, result_json
from api.openai.result_files import _completion_line, _moderation_line, _output_line
from guardfleet.domain.verdict import CATEGORY_NAMES, NO_VERDICT, Severity, category_names
from guardfleet.verdicts import export
from guardfleet.verdicts.encoding import StoredVerdict
from guardfleet.verdicts.page import Page
from guardfleet.verdicts.rationale import rationale
from guardfleet.verdicts.rendering import json_object
from worker.engine.answer import parse

SEVERITIES = {severity.label: severity for severity in Severity}


class Said(NamedTuple):
    """What a face says about one text; `ABSENT` for a field that it cannot show."""

    severity: Any
    categories: Any
    refusal: Any


ABSENT = "no place for it"
Face = Callable[[Any, Page], list[Said]]


def truth(row: StoredVerdict) -> Said:
    """What the row says according to the one decoder."""
    return Said(row.judgement.severity, category_names(row.judgement.categories), row.judgement.refusal)


def agrees(shown: Said, true: Said) -> bool:
    """Whether a face says the same, in the fields that it shows."""
    return all(mine is ABSENT or mine == its for mine, its in zip(shown, true, strict=True))


def _object(value: dict[str, Any]) -> Said:
    assert (value["error"] is not None) == (value["severity"] == "error")
    return Said(SEVERITIES[value["severity"]], value["categories"], value["refusal"])


def _json(_: Any, page: Page) -> list[Said]:
    return [_object(json.loads(json_object(row, page.models[row.model_id]))) for row in page.rows]


def _fields(_: Any, page: Page) -> list[Said]:
    return [Said(SEVERITIES[row["severity"]], row["categories"], row["refusal"]) for row in page.fields()]


def _rationale(_: Any, page: Page) -> list[Said]:
    found = []
    for row in page.rows:
        words = rationale(row.judgement, row.evidence, page.models[row.model_id])
        head = words.split("; ")[0].split(": ")[0]
        without = {"No verdict": Severity.ERROR, "Not rated": Severity.UNRATED}
        severity = without[head] if head in without else Severity[head.split(" ")[0].rstrip(",").upper()]
        names = [name for name in CATEGORY_NAMES.values() if name in head.partition(" in ")[2].split(", ")]
        refusal = True if "; the response is a refusal" in words else False if "; the response is no refusal" in words else None
        found.append(Said(severity, names, refusal))
    return found


def _jsonl(_: Any, page: Page) -> list[Said]:
    return [_object(json.loads(line)) for line in b"".join(export.encode([page], "jsonl")).splitlines()]


def _csv(_: Any, page: Page) -> list[Said]:
    rows = csv.DictReader(io.StringIO(b"".join(export.encode([page], "csv")).decode(), newline=""))
    refusals = {"True": True, "False": False, "": None}
    return [
        Said(SEVERITIES[row["severity"]], row["categories"].split("; ") if row["categories"] else [], refusals[row["refusal"]])
        for row in rows
    ]


def _parquet(_: Any, page: Page) -> list[Said]:
    table = pq.read_table(io.BytesIO(b"".join(export.encode([page], "parquet"))))
    return [Said(SEVERITIES[row["severity"]], row["categories"], row["refusal"]) for row in table.to_pylist()]


def _line(line: dict[str, Any]) -> dict[str, Any] | Said:
    """The body of a batch's output line, or that it says that there is no verdict."""
    assert (line["error"] is None) != (line["response"] is None)
    if line["error"] is not None:
        return Said(Severity.UNRATED if line["error"]["code"] == "unrated" else Severity.ERROR, [], None)
    return line["response"]["body"]


def _completions(job: Any, page: Page) -> list[Said]:
    found = []
    for row in page.rows:
        body = _line(json.loads(_output_line(job, row, page.models[row.model_id], _completion_line)))
        if isinstance(body, Said):
            found.append(body)
            continue
        parsed = parse(body["choices"][0]["message"]["content"])
        assert parsed is not None, "a chat completion outside the grammar"
        found.append(Said(parsed.severity, category_names(parsed.categories), parsed.refusal))
    return found


def _moderations(job: Any, page: Page) -> list[Said]:
    found = []
    for row in page.rows:
        body = _line(json.loads(_output_line(job, row, page.models[row.model_id], _moderation_line)))
        found.append(body if isinstance(body, Said) else _result(row, body["results"][0], Severity.UNSAFE))
    return found


def _online(_: Any, page: Page) -> list[Said]:
    found = []
    for flag_from in (Severity.UNSAFE, Severity.CONTROVERSIAL):
        said = [
            _result(row, json.loads(result_json(row, page.models[row.model_id], flag_from=flag_from)), flag_from)
            for row in page.rows
        ]
        assert not found or found == said
        found = said
    return found


def _result(row: StoredVerdict, result: dict[str, Any], flag_from: Severity) -> Said:
    said = _object(result["guardfleet"])
    assert result["flagged"] == (said.severity >= flag_from or said.severity is Severity.UNRATED)
    own = {name: CATEGORY_NAMES[category] for name, category in COVERED.items()}
    assert [name for name, yes in result["categories"].items() if yes] == [
        name for name in result["categories"] if result["flagged"] and own.get(name) in said.categories
    ]
    scores = result["category_scores"]
    doubt = round(not_safe(row.judgement), 3)
    assert all(0 <= score <= doubt for score in scores.values())
    assert all(scores[name] == doubt for name in own if own[name] in said.categories)
    assert (not any(result["category_applied_input_types"].values())) == (said.severity in NO_VERDICT)
    return said


def _perspective(_: Any, page: Page) -> list[Said]:
    """Perspective has only scores: P(not safe) for what the model named, and never more."""
    found = []
    for row in page.rows:
        said = row.judgement
        doubt = round(not_safe(said), 3)
        for name, categories in ATTRIBUTES.items():
            value = scores(row, name, 10)["summaryScore"]["value"]
            assert 0 <= value <= doubt
            assert name == "SEVERE_TOXICITY" or value == doubt or not said.categories & categories
        found.append(Said(said.severity if said.severity in NO_VERDICT else ABSENT, ABSENT, ABSENT))
    return found


PURE: dict[str, Face] = {
    "json object": _json,
    "fields": _fields,
    "rationale": _rationale,
    "jsonl": _jsonl,
    "csv": _csv,
    "parquet": _parquet,
    "chat completion": _completions,
    "moderation line": _moderations,
    "moderation": _online,
    "perspective": _perspective,
}
