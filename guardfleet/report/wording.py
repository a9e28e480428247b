"""Pages in the reader's language: templates are written in English, and a catalogue has the same sentences in another."""

import json
from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources

LANGUAGES = ("en", "zh")
Translate = Callable[..., str]


def saying(known: Mapping[str, str]) -> Translate:
    """Return a function that says a sentence as the catalogue does, its `{names}` filled in; in English where it has none."""

    def say(sentence: str, **values: object) -> str:
        said = known.get(sentence, sentence)
        return said.format(**values) if values else said

    return say


def translator(language: str) -> Translate:
    """Return what says the report's sentences in this language."""
    return saying(_catalogue(language))


@cache
def _catalogue(language: str) -> Mapping[str, str]:
    if language == LANGUAGES[0]:
        return {}
    found: dict[str, str] = json.loads((resources.files("guardfleet.report") / f"{language}.json").read_text("utf-8"))
    return found
