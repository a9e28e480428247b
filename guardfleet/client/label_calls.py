"""What clients send over HTTP about labels, samples and reviews; as `protocol`, without a network."""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import orjson

from guardfleet.client.labels import LabelReport, Sample
from guardfleet.client.protocol import PAGE, Calls, Send, Steps, json_request


def store(calls: Calls, labels: Iterable[Mapping[str, Any]]) -> Steps[LabelReport]:
    """Store labels, a thousand a request."""
    report, given = LabelReport(), iter(labels)
    while some := list(islice(given, PAGE)):
        found = yield from calls.ask(json_request("/v1/labels", orjson.dumps({"labels": some})))
        page = orjson.loads(found.content)
        report.add(page["new"], page["known"], page["refused"])
    return report


def sample(calls: Calls, batch_id: str, n: int, by: Sequence[str], slice_key: str | None, seed: int | None) -> Steps[Sample]:
    """Draw a sample, once however often the request is sent, and get all of its texts."""
    asked = {"n": n, "by": [by] if isinstance(by, str) else list(by), "slice": slice_key, "seed": seed}
    send = json_request(f"/v1/batches/{batch_id}/samples", orjson.dumps({k: v for k, v in asked.items() if v is not None}))
    made = yield from calls.ask(replace(send, headers={**(send.headers or {}), "idempotency-key": uuid.uuid4().hex}))
    about = orjson.loads(made.content)
    texts: list[dict[str, Any]] = []
    page: dict[str, Any] = {"has_more": True, "next": -1}
    while page["has_more"]:
        found = yield from calls.ask(Send("GET", f"/v1/samples/{about['id']}", {"limit": PAGE, "after": page["next"]}))
        page = orjson.loads(found.content)
        texts += page["data"]
    return Sample(about, texts)


def reviews(calls: Calls, batch_id: str | None, after: str | None, limit: int) -> Steps[list[dict[str, Any]]]:
    """Get a page of the review queue."""
    asked = {"batch_id": batch_id, "after": after, "limit": limit}
    found = yield from calls.ask(Send("GET", "/v1/reviews", {name: value for name, value in asked.items() if value is not None}))
    page: list[dict[str, Any]] = orjson.loads(found.content)["data"]
    return page
