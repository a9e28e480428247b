"""The console's languages. Templates are written in English; a file for each area has the same sentences in Chinese."""

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources

from guardfleet.report.wording import Translate, saying

LANGUAGES = {"en": "English", "zh": "中文"}
DEFAULT = "en"


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
