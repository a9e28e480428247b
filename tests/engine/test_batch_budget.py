"""The warm-up finds the largest batch that fits, and says when none does."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from guardfleet.errors import ConfigurationError
from worker.engine.decoding.batch_budget import warm_up
from worker.engine.interfaces import Answer, DeviceFullError, Pieces, Prepared, SelfTestError, Unjudgeable
from worker.engine.model.memory import LEAST_TOKENS
from worker.engine.prompting.prompt import Content


@dataclass
class Row:
    n_tokens: int = 100


class Small:
    """A device that holds so many tokens."""

    device, ahead = "cuda:0", 0

    def __init__(self, holds: int) -> None:
        self.holds, self.budget_tokens = holds, 65_536
        self.tried: list[int] = []
        self.answers: list[str] = []

    def prepare(
        self, contents: Sequence[Content], coverage: str | None = None, policy: object = None
    ) -> list[Prepared | Pieces | Unjudgeable]:
        return [Row() for _ in contents]

    def run(self, batch: Sequence[Prepared]) -> list[Answer]:
        self.tried.append(sum(row.n_tokens for row in batch))
        if self.tried[-1] > self.holds:
            raise DeviceFullError
        return [Answer(answer, (0.9, 0.1, 0.0)) for answer in self.answers]


def test_a_row_that_is_answered_by_its_place_in_a_batch_is_noticed() -> None:
    backend = Small(holds=10_000)
    backend.answers = ["a", "a"]
    warm_up(backend)
    backend.answers = ["a", "b"]
    with pytest.raises(SelfTestError, match="several answers"):
        warm_up(backend)


def test_the_budget_shrinks_until_the_largest_batch_fits() -> None:
    backend = Small(holds=10_000)
    warm_up(backend)
    assert 0.7 * 10_000 < backend.budget_tokens <= 10_000 + 100
    assert backend.tried == sorted(backend.tried, reverse=True)
    assert backend.tried[0] == 65_500


def test_a_device_without_room_for_any_batch_is_said_at_the_start() -> None:
    with pytest.raises(ConfigurationError, match=f"no room for a batch of {LEAST_TOKENS} tokens"):
        warm_up(Small(holds=50))
