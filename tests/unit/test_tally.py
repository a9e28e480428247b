"""What a finished shard adds to the metrics, against a count text by text."""

import random
from collections import Counter

import pytest

from guardfleet.domain.verdict import Severity, category_names
from guardfleet.rows.payload import PayloadRow
from guardfleet.telemetry import metrics
from guardfleet.verdicts.encoding import decode, encode
from tests.services.judged import any_judgement
from worker.moderation.tally import Tally, method_of

ANSWERED = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]


def counted() -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for metric in (
            metrics.REQUESTS,
            metrics.SAVED,
            metrics.ERRORS,
            metrics.RISK_TYPES,
            metrics.CATEGORIES,
            metrics.REQUEST_SECONDS,
        )
        for family in metric.collect()
        for sample in family.samples
        if sample.name.endswith(("_total", "_count", "_distribution"))
    }


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0], ids=["prompts", "both", "responses"])
def test_each_text_is_counted_once_under_what_was_stored(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(7)
    texts = [PayloadRow(f"id{i}", ANSWERED if rng.random() < share else rng.choice(["x", ANSWERED[:1]])) for i in range(400)]
    written = [encode(any_judgement(rng)) for _ in texts]
    before = counted()
    ratio: list[tuple[int, int]] = []
    monkeypatch.setattr(metrics.SAFE_RATIO, "add", lambda *counts: ratio.append(counts))
    Tally().add(texts, written, seconds=0.2, escalated=0)
    rated = [codes.severity for codes in written if codes.severity != Severity.UNRATED]
    assert ratio == [(rated.count(Severity.SAFE), len(rated))]
    found = {name: n - before.get(name, 0.0) for name, n in counted().items() if n != before.get(name, 0.0)}
    expected = Counter[tuple[str, ...]]()
    for text, codes in zip(texts, written, strict=True):
        said, method = decode(codes), method_of(text)
        expected["qwen_guard_request_total", method, Severity(codes.severity).label] += 1
        expected["qwen_guard_request_duration_seconds_count", method] += 1
        if said.served_by.label not in ("model", "nobody"):
            expected["guardfleet_texts_saved_total", said.served_by.label] += 1
        if codes.error is not None:
            expected["guardfleet_text_errors_total", codes.error] += 1
        for name in category_names(said.categories):
            expected["qwen_guard_risk_type_distribution", name] += 1
            expected["guardfleet_texts_by_category_total", name] += 1
    assert found == dict(expected)
