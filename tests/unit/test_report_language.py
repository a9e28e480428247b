"""Each sentence of the report is there in each language, with the same names to fill in."""

import json
import pathlib
import re
import string

from guardfleet.domain.states import JobState
from guardfleet.domain.verdict import CATEGORY_NAMES, ERROR_CODES, Severity

REPORT = pathlib.Path(__file__).parents[2] / "guardfleet" / "report"
SENTENCE = re.compile(r"""(?<!\w)_\(\s*("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')""")
KNOWN = json.loads((REPORT / "zh.json").read_text())


def test_every_sentence_is_translated() -> None:
    said = {found[1:-1] for found in SENTENCE.findall((REPORT / "templates" / "report.html").read_text())}
    assert not said - KNOWN.keys()


def test_every_word_for_a_value_is_translated() -> None:
    words = {severity.label for severity in Severity} | {state.label for state in JobState}
    assert not (words | set(CATEGORY_NAMES.values()) | set(ERROR_CODES.values())) - KNOWN.keys()


def test_a_translation_fills_in_the_same_names() -> None:
    fields = string.Formatter()
    for english, said in KNOWN.items():
        named = [{name for _, name, _, _ in fields.parse(one) if name} for one in (english, said)]
        assert named[0] == named[1], english
