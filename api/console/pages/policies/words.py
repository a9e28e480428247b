"""The rules of a policy in plain words, in the reader's language."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from guardfleet.policy.document import Bounds, Detected, Tokens, When
from guardfleet.report.wording import Translate

MOST_SHOWN = 20  # values of one condition


def conditions(say: Translate, when: When) -> list[str]:
    """Return what has to hold, all of it; empty: it always holds, except for errors."""
    return [*_of_verdict(say, when), *_of_text(say, when), *_of_detectors(say, when)]


def _of_verdict(say: Translate, when: When) -> Iterator[str]:
    if when.severity:
        yield say("the verdict is {these}", these=_any(say, map(say, when.severity)))
    if when.category:
        yield say("the model named {these}", these=_any(say, when.category))
    for name, bounds in when.probability.items():
        yield say("the probability of {what} is {bounds}", what=name, bounds=_bounds(say, bounds))
    if when.refusal is not None:
        yield say("the response is a refusal") if when.refusal else say("the response is no refusal")
    if when.served_by:
        yield say("the verdict was given by {these}", these=_any(say, when.served_by))


def _of_text(say: Translate, when: When) -> Iterator[str]:
    if when.tokens is not None:
        yield _tokens(say, when.tokens)
    if when.language:
        yield say("its metadata say that the language is {these}", these=_any(say, when.language))
    for name, values in when.metadata.items():
        these = _any(say, (json.dumps(value, ensure_ascii=False) for value in values))
        yield say("its metadata say that {what} is {these}", what=name, these=these)
    if when.lists:
        yield say("an entry of the list {these} is in it", these=_any(say, when.lists))


def _of_detectors(say: Translate, when: When) -> Iterator[str]:
    for name, wanted in when.detectors.items():
        yield from _detected(say, name, wanted)


def _detected(say: Translate, name: str, wanted: Detected) -> Iterator[str]:
    if wanted.label:
        yield say("the detector {what} says {these}", what=name, these=_any(say, wanted.label))
    for label, bounds in wanted.scores.items():
        told = _bounds(say, bounds)
        yield say("the detector {what} gives {label} a score of {bounds}", what=name, label=label, bounds=told)


def _bounds(say: Translate, bounds: Bounds) -> str:
    if bounds.below is None:
        return say("at least {least}", least=f"{bounds.at_least:g}")
    if not bounds.at_least:
        return say("below {most}", most=f"{bounds.below:g}")
    return say("at least {least} and below {most}", least=f"{bounds.at_least:g}", most=f"{bounds.below:g}")


def _tokens(say: Translate, tokens: Tokens) -> str:
    if tokens.at_most is None:
        return say("it has at least {least} tokens", least=f"{tokens.at_least:,}")
    return say("it has {least} to {most} tokens", least=f"{tokens.at_least:,}", most=f"{tokens.at_most:,}")


def _any(say: Translate, values: Iterable[Any]) -> str:
    told = [str(value) for value in values]
    shown, left = told[:MOST_SHOWN], len(told) - MOST_SHOWN
    if left > 0:
        shown.append(say("one of {n} more", n=left))
    return say(" or ").join(shown)
