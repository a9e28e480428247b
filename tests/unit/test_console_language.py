"""Each sentence of the console is there in each language, with the same names to fill in."""

import json
import pathlib
import re
import string

import pytest

from api.console.language import LANGUAGES, preferred, translator
from api.console.navigation import AREAS

CONSOLE = pathlib.Path(__file__).parents[2] / "api" / "console"
SENTENCE = re.compile(r"""(?<![\w.])(?:_|say|ask\.say)\(\s*("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')""")


def sentences() -> set[str]:
    """The literals that templates and pages say."""
    files = [*CONSOLE.rglob("*.html"), *CONSOLE.rglob("*.py")]
    return {json.loads(f'"{found[1:-1]}"') for file in files for found in SENTENCE.findall(file.read_text())} | {
        area.name for area in AREAS
    }


@pytest.mark.parametrize("language", sorted(set(LANGUAGES) - {"en"}))
def test_every_sentence_is_translated(language: str) -> None:
    say = translator(language)
    untranslated = sorted(one for one in sentences() if say(one) == one)
    assert not untranslated, untranslated


@pytest.mark.parametrize("language", sorted(set(LANGUAGES) - {"en"}))
def test_a_translation_fills_in_the_same_names(language: str) -> None:
    fields = string.Formatter()
    for file in (CONSOLE / "translations" / language).glob("*.json"):
        for english, said in json.loads(file.read_text()).items():
            named = [{name for _, name, _, _ in fields.parse(one) if name} for one in (english, said)]
            assert named[0] == named[1], english


def test_the_browsers_first_language_that_there_is_is_taken() -> None:
    assert preferred("fr-CH, zh-TW;q=0.8, en;q=0.7") == "zh"
    assert preferred("") == "en"
