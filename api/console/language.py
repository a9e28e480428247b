"""The console's languages. Templates are written in English; a file for each area has the same sentences in Chinese."""

import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources
from string import Formatter

from guardfleet.report.wording import Translate, saying

LANGUAGES = {"en": "English", "zh": "中文"}
DEFAULT = "en"
MADE = "made.json"  # sentences of other packages, which come with their values filled in
LONGEST = 1000  # characters of such a sentence
DEEPEST = 3  # sentences within sentences


def translator(language: str) -> Translate:
    """Return what says the console's sentences in this language."""
    return saying(_catalogue(language))


def preferred(accept_language: str) -> str:
    """Return the first language of an Accept-Language header that there is."""
    for part in accept_language.split(","):
        tag = part.partition(";")[0].strip().lower().partition("-")[0]
        if tag in LANGUAGES:
            return tag
    return DEFAULT


@cache
def _catalogue(language: str) -> Mapping[str, str]:
    if language == DEFAULT or language not in LANGUAGES:
        return {}
    folder = resources.files("api.console") / "translations" / language
    return {en: said for file in sorted(folder.iterdir(), key=str) for en, said in json.loads(file.read_text("utf-8")).items()}


@cache
def teller(language: str) -> Callable[[str], str]:
    """Return what says a sentence that another package made, values and all, in this language: it is found by its shape."""
    known = made(language)
    longest_first = sorted(known, key=lambda english: len(re.sub(r"\{\w+\}", "", english)), reverse=True)
    shapes = [(_shape(english), known[english]) for english in longest_first if "{" in english]

    def tell(sentence: str, within: int = DEEPEST) -> str:
        if sentence in known and "{" not in sentence:
            return known[sentence]
        if len(sentence) <= LONGEST and within:
            for shape, said in shapes:
                if found := shape.fullmatch(sentence):
                    return said.format(**{name: tell(value, within - 1) for name, value in found.groupdict().items()})
        return sentence

    return tell


def _shape(english: str) -> re.Pattern[str]:
    parts = (re.escape(text) + (f"(?P<{name}>.+?)" if name else "") for text, name, _, _ in Formatter().parse(english))
    return re.compile("".join(parts), re.DOTALL)


@cache
def made(language: str) -> Mapping[str, str]:
    """Return the catalogue of such sentences: their shapes in English, and in this language."""
    if language == DEFAULT or language not in LANGUAGES:
        return {}
    file = resources.files("api.console") / "translations" / language / MADE
    found: dict[str, str] = json.loads(file.read_text("utf-8"))
    return found
