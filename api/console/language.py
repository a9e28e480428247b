"""The console's languages. Templates are written in English; a file for each area has the same sentences in Chinese."""

import json
from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources

LANGUAGES = {"en": "English", "zh": "中文"}
DEFAULT = "en"
Translate = Callable[..., str]


def translator(language: str) -> Translate:
    """Return a function that says a sentence in this language, its `{names}` filled in; English where there is no translation."""
    known = _catalogue(language)

    def say(sentence: str, **values: object) -> str:
        said = known.get(sentence, sentence)
        return said.format(**values) if values else said

    return say


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
