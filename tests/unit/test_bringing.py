"""What a model must be like to be taken: labels as those of the one that is served, and golden texts judged rightly."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from guardfleet.errors import ConfigurationError
from tests.services.scoring import ScoringBackend
from worker.engine.engine import BatchingEngine
from worker.process import golden
from worker.process.bringing import Served, require_like


@contextmanager
def started(labels: tuple[str, ...] = ("generated", "human"), neutral: str | None = "human") -> Iterator[BatchingEngine]:
    engine = BatchingEngine(ScoringBackend(labels, neutral))
    engine.start()
    try:
        yield engine
    finally:
        engine.stop()


def is_taken(labels: tuple[str, ...], neutral: str | None, served: Served) -> None:
    require_like(BatchingEngine(ScoringBackend(labels, neutral)), served, is_beside=True)


def test_labels_may_be_in_another_order_but_not_others_and_the_neutral_one_is_the_same() -> None:
    served = Served.of(BatchingEngine(ScoringBackend(("generated", "human"), "human")))
    is_taken(("human", "generated"), "human", served)
    with pytest.raises(ConfigurationError, match="with other labels"):
        is_taken(("human", "machine"), "human", served)
    for neutral in ("generated", None):
        with pytest.raises(ConfigurationError, match=f"its neutral label is {neutral or 'none'}, where that .* is human"):
            is_taken(("generated", "human"), neutral, served)


def n_right(engine: BatchingEngine, *rows: list[Any]) -> int:
    return golden.right(engine, rows, window_rule="max")


def test_a_detector_is_right_if_it_gives_the_label_and_wrong_if_it_says_nothing() -> None:
    generated, human = {"generated": True, "human": False}, {"generated": False, "human": True}
    with started() as engine:
        assert n_right(engine, ["[[0.9]]", generated], ["[[0.1]]", human]) == 2
        assert n_right(engine, ["[[0.9]]", human], ["[[0.1]]", generated]) == 0
        assert n_right(engine, ["[[0.1]] [[0.9]]", generated], ["[[0.1]] [[0.2]]", human]) == 2  # windows, by the rule
        assert n_right(engine, *([text, {"generated": False}] for text in ("[[short]]", "[[fail]]", "", "  "))) == 0
        assert n_right(engine, ["[[0.9]]", {"machine": False}]) == 0  # no label of its own
        assert n_right(engine, *[["[[0.9]]", generated]] * 300, ["[[0.9]]", human]) == 300


def test_labels_that_are_found_apart_are_right_if_all_of_them_are() -> None:
    with started(("art", "sport", "war"), None) as engine:  # [[0]] gives the others 0.5 each
        assert n_right(engine, ["[[0.9]]", {"art": True, "sport": False, "war": False}]) == 1
        assert n_right(engine, ["[[0]]", {"art": False, "sport": True, "war": True}]) == 1
        assert n_right(engine, ["[[0]]", {"art": False, "sport": True, "war": False}]) == 0
        assert n_right(engine, ["[[0.4]]", {"art": False, "sport": False, "war": False}]) == 1  # nothing was found
        assert n_right(engine, ["[[0]]", {"sport": True}]) == 1  # true and false speak of one label
