"""`guardfleet evaluate` on real labelled rows: its figures match the verdicts, and errors are counted apart."""

import csv
import json
import pathlib
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.google import maps
from guardfleet.cli.evaluation import FIGURES, Confusion, agreement, confusion
from guardfleet.domain.verdict import Severity
from guardfleet.errors import ConfigurationError
from tests.services.commands import command, said

VERDICT = st.sampled_from([Severity.SAFE, Severity.CONTROVERSIAL, Severity.UNSAFE, Severity.ERROR])


def evaluate(*args: str, **settings: str) -> subprocess.CompletedProcess[str]:
    run = said if settings.get("engine") == "instant" else command
    return run(pathlib.Path("unused"), "evaluate", *args, **settings)


def test_a_labelled_file_gets_strict_and_loose_figures(tmp_path: pathlib.Path) -> None:
    texts = {"a [[unsafe]]": "unsafe", "b": "safe", "c [[controversial]]": "unsafe", "d [[unsafe]]": "safe", "": "safe"}
    rows = [{"text": text, "label": label} for text, label in texts.items()]
    rows += [{"text": "e [[babble]]", "labels": {"unsafe": True}}, {"text": "nobody labelled this"}]
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = tmp_path / "figures.csv"
    done = evaluate(str(source), "--json", "--csv", str(table), engine="instant")
    assert done.returncode == 1, done.stderr  # one row has no verdict
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["texts"], found["unsafe"], found["failed"]) == (6, 3, 1)
    assert found["strict"] == {"precision": 0.6667, "recall": 1.0, "f1": 0.8, "false_positive_rate": 0.3333}
    assert found["loose"] == {"precision": 0.5, "recall": 0.5, "f1": 0.5, "false_positive_rate": 0.3333}
    assert "1 without a verdict, left out above" in done.stderr
    assert found["categories"]["loose"] == {"Violent": {"unsafe": 1, "safe": 1}}
    assert sum(one["unsafe"] for one in found["categories"]["strict"].values()) == 2
    lines = list(csv.DictReader(table.read_text().splitlines()))
    whole = next(line for line in lines if (line["reading"], line["category"]) == ("loose", "all"))
    assert [whole[name] for name in ("true_positive", "false_positive", "true_negative", "false_negative")] == ["1", "1", "2", "1"]
    one = next(line for line in lines if (line["reading"], line["category"]) == ("loose", "Violent"))
    assert (one["true_positive"], one["false_positive"], one["precision"], one["recall"]) == ("1", "1", "0.5", "")


def test_a_figure_without_a_divisor_is_undefined_and_not_zero(tmp_path: pathlib.Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text('{"text": "b", "label": "safe"}\n')
    done = evaluate(str(source), "--json", "--csv", str(tmp_path / "out.csv"), engine="instant")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["strict"] == {"precision": None, "recall": None, "f1": None, "false_positive_rate": 0.0}
    assert done.stderr.count("undefined") == 6
    assert "by category" not in done.stderr
    (strict, loose) = csv.DictReader((tmp_path / "out.csv").read_text().splitlines())
    assert [strict[name] for name in FIGURES] == [loose[name] for name in FIGURES] == ["", "", "", "0.0"]


def test_scores_of_perspective_become_a_map_that_the_api_can_read(tmp_path: pathlib.Path) -> None:
    texts = [f"{i} {mark}" for i in range(10) for mark in ("a kind day", "[[controversial]]", "[[unsafe]]")]
    theirs = {"[[unsafe]]": 0.8, "[[controversial]]": 0.5}
    rows: list[dict[str, object]] = [{"text": text, "TOXICITY": theirs.get(text.split()[1], 0.1)} for text in texts]
    rows += [{"text": "c [[babble]]", "attributeScores": {"TOXICITY": {"summaryScore": {"value": 0.5}}}}]
    rows += [{"text": "nobody scored this"}, {"text": "x", "TOXICITY": 7}, {"text": "y", "THREAT": 0.5}]
    source, map_file = tmp_path / "history.jsonl", tmp_path / "map.json"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = ("--map-perspective", "--threshold", "0.8", "--json", "-o", str(map_file))
    done = evaluate(str(source), *asked, engine="instant")
    assert done.returncode == 1, done.stderr  # one row has no verdict, and one an impossible score
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["texts"], found["failed"], found["unlabelled"], found["label_unknown"]) == (32, 1, 1, 1)
    assert found["attributes"] == {
        "TOXICITY": {
            "texts": 30,
            "thresholds": [{"threshold": 0.8, "before": 0.333333, "after": 0.333333, "same": 1, "error": 0, "difference": 0}],
        }
    }  # of THREAT there is one score: too few
    loaded = maps.load(str(map_file))
    assert (loaded.model, loaded.of.keys()) == (found["model"], {"TOXICITY"})
    assert [y for _, y in loaded.of["TOXICITY"].knots] == [0.1, 0.5, 0.8]
    turned, unknown = b'{"model": "m", "maps": {"TOXICITY": [[1, 0], [0, 1]]}}', b'{"model": "m", "maps": {"NONE": [[0, 0]]}}'
    for wrong in (b"{", b"[]", turned, unknown):
        map_file.write_bytes(wrong)
        with pytest.raises(ConfigurationError, match="perspective_map"):
            maps.load(str(map_file))


def test_a_table_that_cannot_be_written_is_refused_before_anything_is_read(tmp_path: pathlib.Path) -> None:
    done = evaluate(str(tmp_path / "nowhere.jsonl"), "--csv", str(tmp_path / "no" / "out.csv"), engine="instant")
    assert done.returncode == 2
    assert "out.csv cannot be written" in done.stderr


def test_a_precision_that_the_device_has_no_units_for_is_refused_before_anything_is_read(tmp_path: pathlib.Path) -> None:
    done = evaluate(str(tmp_path / "nowhere.jsonl"), "--against", "fp8", device="cpu")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("quantize fp8: cpu has no fp8 matrix units: use int8, which runs everywhere.")
    assert "nowhere.jsonl" in evaluate(str(tmp_path / "nowhere.jsonl"), "--against", "int8", device="cpu").stderr


def test_real_rows_and_another_precision(shared: pathlib.Path) -> None:
    done = evaluate(str(shared / "data" / "xstest_prompts.jsonl"), "--limit", "30", "--against", "bfloat16", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["texts"] == 30
    assert found["against"]["severity_agreement"] > 0.9
    assert found["model"].startswith("guardfleet-demo@")


def test_rows_that_are_in_no_figure_are_counted_and_named(tmp_path: pathlib.Path) -> None:
    labels = ["SAFE", "SAFE ", 1, "benign", None, True]
    rows = [{"text": "x", "label": label} for label in labels] + [{"text": "x"}] * 7 + [{"text": "x", "metadata": [1]}]
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = evaluate(str(source), "--json", engine="instant")
    assert done.returncode == 1, done.stderr
    assert "3 rows left out, with a label other than safe, unsafe, true and false: line 2, 3, 4\n" in done.stderr
    assert "9 rows left out, with no label: line 5, 7, 8, 9, 10 and 4 more\n" in done.stderr
    assert "benign" not in done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert (found["texts"], found["unlabelled"], found["label_unknown"]) == (2, 9, 3)


@pytest.mark.parametrize(("content", "said"), [('{"text": "x"}\n', "no row with a label"), ("{oops\n", "line 1: ")])
def test_an_unusable_file_is_one_sentence(tmp_path: pathlib.Path, content: str, said: str) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text(content)
    done = evaluate(str(source), engine="instant")
    assert done.returncode == 2
    assert said in done.stderr
    assert evaluate(str(tmp_path / "nowhere.jsonl"), engine="instant").returncode == 2


@given(st.lists(st.tuples(st.booleans(), VERDICT), max_size=80))
def test_strict_never_finds_less_than_loose(rows: list[tuple[bool, Severity]]) -> None:
    labels, severities = [label for label, _ in rows], [severity for _, severity in rows]
    strict, loose = (confusion(labels, severities, strict=strict) for strict in (True, False))
    assert (strict.recall is None, strict.false_positive_rate is None) == (loose.recall is None, loose.false_positive_rate is None)
    assert (strict.recall or 0) >= (loose.recall or 0)
    assert (strict.false_positive_rate or 0) >= (loose.false_positive_rate or 0)
    for found in (strict, loose):
        counted = found.true_positive + found.false_positive + found.true_negative + found.false_negative
        assert counted == len(rows) - severities.count(Severity.ERROR)
        assert found.f1 is None or 0 <= found.f1 <= 1
        if found.precision and found.recall:
            assert found.f1 == pytest.approx(2 * found.precision * found.recall / (found.precision + found.recall))


def test_figures_of_nothing_are_undefined() -> None:
    assert [getattr(Confusion(), name) for name in FIGURES] == [None] * 4
    assert agreement([], []) is None
