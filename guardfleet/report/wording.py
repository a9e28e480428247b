"""The report's languages: the template is English, and a file has its sentences in Chinese."""

import json
from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources

LANGUAGES = ("en", "zh")


def translator(language: str) -> Callable[..., str]:
    """Return a function that says a sentence in this language, its `{names}` filled in; English where there is no translation."""
    known = _catalogue(language)

    def say(sentence: str, **values: object) -> str:
        said = known.get(sentence, sentence)
        return said.format(**values) if values else said

    return say


@cache
def _catalogue(language: str) -> Mapping[str, str]:
    if language == LANGUAGES[0]:
        return {}
    found: dict[str, str] = json.loads((resources.files("guardfleet.report") / f"{language}.json").read_text("utf-8"))
    return found
