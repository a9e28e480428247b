"""`guardfleet evaluate --detector`: its figures are those of the answers, and what has none is counted as wrong."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import pytest

from guardfleet.cli.commands import evaluate_detector
from guardfleet.cli.detector_labels import Asked
from guardfleet.domain.verdict import unrated
from guardfleet.errors import RejectedError
from guardfleet.policy.evaluation import Decider
from guardfleet.policy.facts import CodeFacts, Seen
from guardfleet.policy.reading import read
from guardfleet.settings import Settings
from guardfleet.settings.groups import EngineSettings
from guardfleet.verdicts.encoding import encode
from producer.readers import AS_FOUND
from tests.services.commands import said
from tests.services.scoring import ScoringBackend
from worker.engine.spec import Spec


def run(
    tmp_path: pathlib.Path, rows: Sequence[dict[str, Any]], asked: Asked | None = None, *, backend: Any = None, **options: Any
) -> tuple[int, dict[str, Any], str]:
    """The exit status, the JSON object, and what people see."""
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    seen: list[Spec] = []
    rule = options.get("engine", {}).get("window_rule", "mean")

    def make(spec: Spec) -> Any:
        seen.append(spec)
        return backend or ScoringBackend()

    capture = options.pop("capsys")
    settings = Settings(data_dir=tmp_path, engine=EngineSettings(**options.pop("engine", {})))
    status = evaluate_detector.evaluate(
        settings, [str(source)], AS_FOUND, "ai-text", asked, limit=options.pop("limit", None), as_json=True, make=make, **options
    )
    assert [spec.detector for spec in seen] == ["ai-text"]
    assert {(spec.window_rule, spec.min_tokens) for spec in seen} == {(rule, 30)}, "as a worker of the demo"
    out = capture.readouterr()
    return status, json.loads(out.out.splitlines()[-1]), out.err


def of(score: float, is_generated: bool, **more: Any) -> dict[str, Any]:
    return {"text": f"[[{score}]]", "labels": {"ai_generated": is_generated}, **more}


GENERATED = Asked("labels.ai_generated")


def test_figures_are_by_label_and_what_was_not_said_is_wrong(tmp_path: pathlib.Path, capsys: Any) -> None:
    rows = [of(0.9, True), of(0.8, True), of(0.3, True), of(0.7, False), of(0.1, False)]
    rows += [{"text": "[[short]]", "labels": {"ai_generated": truth}} for truth in (True, False)]
    rows += [{"text": "[[fail]]", "labels": {"ai_generated": False}}, {"text": "", "labels": {"ai_generated": True}}]
    status, found, err = run(tmp_path, rows, GENERATED, capsys=capsys)
    assert status == 1  # one failed
    assert (found["texts"], found["outcomes"]["too_short"], found["outcomes"]["error"]) == (9, 3, 1)
    one = found["labels"]["generated"]
    counts = [one[name] for name in ("true_positive", "false_positive", "true_negative", "false_negative")]
    assert counts == [2, 3, 1, 3]
    assert (one["precision"], one["recall"], one["false_positive_rate"]) == (0.4, 0.4, 0.75)
    assert one["auroc"] == round((2 + 2 + 1) / 20, 4)  # 0.9 and 0.8 above both scores, 0.3 above one; the rest is wrong
    assert found["labels"]["human"]["true_positive"] == 1
    assert "3 too short to say, 1 errors, counted as wrong above" in err
    assert "a demo" in err


def test_a_threshold_comes_with_intervals_slices_and_a_line_that_is_a_policy(tmp_path: pathlib.Path, capsys: Any) -> None:
    rows = [of(n / 1000, False, lang="en" if n % 2 else "de", source="forum") for n in range(400)]
    rows += [of(0.398 if n < 40 else 0.2, True, lang="en", source="press") for n in range(60)]
    asked = Asked("labels.ai_generated", rates=(0.01, 0.001), by=("source",))
    status, found, err = run(tmp_path, rows, asked, capsys=capsys)
    assert status == 0
    one, rare = found["thresholds"]
    assert (one["at_least"], one["negatives"], one["positives"], one["is_telling"]) == (0.396, 400, 60, True)
    assert one["false_positive_rate"] == {"value": 0.01, "low": 0.0039, "high": 0.0254}
    assert one["true_positive_rate"]["value"] == 0.6667
    by = {(piece["by"], piece["value"]): piece for piece in one["slices"]}
    assert set(by) == {("language", "de"), ("language", "en"), ("length", "0-199"), ("source", "forum"), ("source", "press")}
    assert by["language", "de"]["false_positive_rate"]["value"] == 0.01
    assert by["source", "forum"]["own"] == 0.396
    assert by["source", "press"]["own"] is by["source", "press"]["false_positive_rate"] is by["language", "en"]["own"] is None
    assert (rare["negatives_needed"], rare["is_telling"]) == (3000, False)
    assert "takes 3,000 to be told from a greater one" in err
    assert "of 1,000,000 texts like these that are not generated, about 10,000 would be flagged (95 %: 3,900 to 25,000)" in err
    lines = [line for line in err.splitlines() if line.startswith("for a policy")]
    assert [line.partition(": ")[2] for line in lines] == [
        "when: {detectors: {ai-text: {scores: {generated: {at_least: 0.396}}}}}  # false-positive rate 0.01"
    ]
    policy = read(f"name: x\ndefault: allow\nrules:\n  - id: r\n    action: flag\n    {lines[0].partition(': ')[2]}\n")
    seen = [{"ai-text": Seen("any", {"generated": float(row["text"].strip("[]"))})} for row in rows]
    facts = CodeFacts([encode(unrated())] * len(rows), [0] * len(rows), detections=seen)
    flagged = [
        row["labels"]["ai_generated"] for row, outcome in zip(rows, Decider(policy).outcomes(facts), strict=True) if outcome == 0
    ]
    assert (flagged.count(False), flagged.count(True)) == (4, 40)  # the rates above, of 400 and of 60


def test_human_texts_alone_give_a_threshold(tmp_path: pathlib.Path, capsys: Any) -> None:
    rows = [{"text": f"[[{n / 1000}]]"} for n in range(100)] + [{"text": "[[short]]"}] * 5
    status, found, err = run(tmp_path, rows, Asked(rates=(0.05,), negatives=True), capsys=capsys)
    assert (status, found["labels"], found["outcomes"]["too_short"]) == (0, {}, 5)
    (one,) = found["thresholds"]
    assert (one["at_least"], one["negatives"], one["positives"], one["true_positive_rate"]) == (0.095, 100, 0, None)
    assert "none of them labelled" in err
    assert "5 too short to say" in err


def test_no_threshold_where_the_score_is_the_highest_for_too_many(tmp_path: pathlib.Path, capsys: Any) -> None:
    rows = [{"text": "[[1.0]]"}] * 60 + [{"text": "[[0.1]]"}] * 40
    _, found, err = run(tmp_path, rows, Asked(rates=(0.05,), negatives=True), capsys=capsys)
    assert found["thresholds"][0]["at_least"] is found["thresholds"][0]["false_positive_rate"] is None
    assert "no threshold keeps to it" in err
    assert "for a policy" not in err


def test_labels_are_names_or_booleans_and_others_are_left_out_and_said(tmp_path: pathlib.Path, capsys: Any) -> None:
    labels = ["Generated", "human", "true", False, ["generated"], "robot", 7, None, ""]
    rows = [{"text": "[[0.9]]", "label": label} for label in labels] + [{"text": "[[0.9]]"}]
    status, found, err = run(tmp_path, rows, capsys=capsys)
    assert status == 1
    assert (found["texts"], found["unlabelled"], found["label_unknown"]) == (5, 3, 2)
    assert found["labels"]["generated"]["texts"] == 3
    assert "2 rows left out, with a label other than generated, human, true, false: line 6, 7" in err
    assert "robot" not in err


def test_labels_that_are_found_apart_are_each_on_their_own(tmp_path: pathlib.Path, capsys: Any) -> None:
    backend = ScoringBackend(("insult", "threat"), None)
    rows = [{"text": "[[0.5]]", "label": ["insult", "threat"]}, {"text": "[[0.4]]", "label": "threat"}]
    rows += [{"text": "[[0.9]]", "label": []}]
    _, found, _ = run(tmp_path, rows, backend=backend, capsys=capsys)
    assert [found["labels"]["insult"][name] for name in ("true_positive", "false_positive", "true_negative")] == [1, 1, 1]
    assert [found["labels"]["threat"][name] for name in ("true_positive", "false_positive", "true_negative")] == [2, 0, 1]
    with pytest.raises(RejectedError, match="say with --positive of which label of insult, threat"):
        run(tmp_path, rows, Asked(rates=(0.1,)), backend=backend, capsys=capsys)
    with pytest.raises(RejectedError, match="labels are true and false"):
        run(tmp_path, [{"text": "[[0.9]]", "label": True}], backend=backend, capsys=capsys)


def test_true_and_false_of_one_of_several_labels_say_nothing_of_the_others(tmp_path: pathlib.Path, capsys: Any) -> None:
    backend = ScoringBackend(("spam", "scam", "fine"), "fine")
    rows = [{"text": "[[0.9]]", "label": True}, {"text": "[[0.1]]", "label": False}]
    _, found, _ = run(tmp_path, rows, Asked(positive="SPAM"), backend=backend, capsys=capsys)
    assert list(found["labels"]) == ["spam"]
    with pytest.raises(RejectedError, match="'ham' is none of the detector's labels: spam, scam, fine"):
        run(tmp_path, rows, Asked(positive="ham"), backend=backend, capsys=capsys)


@pytest.mark.parametrize(
    ("rule", "text", "outcome", "positives"),
    [
        ("max", "[[0.1]][[0.8]]", "labelled", 1),  # the least neutral window decides
        ("mean", "[[0.1]][[0.8]]", "labelled", 0),
        ("max", "[[short]][[0.9]]", "labelled", 1),
        ("max", "[[0.1]][[short]]", "labelled", 0),
        ("max", "[[short]][[short]]", "too_short", 0),
    ],
)
def test_windows_of_a_long_text_are_one(
    tmp_path: pathlib.Path, capsys: Any, rule: str, text: str, outcome: str, positives: int
) -> None:
    rows = [{"text": text + "x" * 10, "label": "generated"}]
    _, found, _ = run(tmp_path, rows, capsys=capsys, engine={"window_rule": rule})
    assert found["outcomes"][outcome] == 1
    assert found["labels"]["generated"]["true_positive"] == positives


def test_limit_counts_labelled_rows(tmp_path: pathlib.Path, capsys: Any) -> None:
    rows = [{"text": "[[0.9]]"}, *[{"text": "[[0.9]]", "label": "human"}] * 3]
    assert run(tmp_path, rows, limit=2, capsys=capsys)[1]["texts"] == 2


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--fpr", "0.01"], "are for a detector: name it with --detector"),
        (["--detector", "guard"], "--detector guard: leave it out"),
        (["--detector", "AI text"], "is no detector's name"),
        (["--detector", "ai-text", "--fpr", "1"], "--fpr 1 is no rate between 0 and 1"),
        (["--detector", "ai-text", "--negatives"], "say with --fpr"),
        (["--detector", "ai-text", "--negatives", "--fpr", "0.1", "--label-field", "x"], "--negatives takes no labels"),
        (["--detector", "ai-text", "--against", "int8"], "--against and --csv are for the guard"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_a_sentence(tmp_path: pathlib.Path, options: list[str], sentence: str) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text('{"text": "x", "label": "human"}\n')
    done = said(tmp_path, "evaluate", str(source), *options)
    assert done.returncode == 2
    assert sentence in done.stderr


def test_the_table_of_what_a_rate_means_is_the_formula() -> None:
    page = (pathlib.Path(__file__).parents[2] / "docs" / "ai-text.md").read_text()
    table = page.partition("| generated | FPR")[2].partition("\n\n")[0].splitlines()[2:]
    assert len(table) > 5
    for line in table:
        base, false_rate, true_rate, right, wrong, share = (
            cell.strip(" %").replace(",", "") for cell in line.strip("|").split("|")
        )
        hits = 1e6 * float(true_rate) / 100 * float(base) / 100
        alarms = 1e6 * float(false_rate) / 100 * (1 - float(base) / 100)
        assert (round(hits), round(alarms), round(100 * hits / (hits + alarms))) == (int(right), int(wrong), int(share))
