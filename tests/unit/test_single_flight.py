"""Equal texts in work at the same time: one task judges, the others wait for it, and none waits in vain."""

import threading
from concurrent.futures import ThreadPoolExecutor

from guardfleet.domain.verdict import Judgement
from tests.services.judged import SAFE
from tests.services.patience import patience
from worker.moderation.single_flight import SingleFlight


def test_a_text_belongs_to_the_first_who_takes_it_until_its_scope_ends() -> None:
    flight = SingleFlight()
    with flight.scope(1) as first:
        assert first.take(["a", "b"]) == {}
        with flight.scope(2) as second:
            assert second.take(["b", "c"]) == {"b": first}
            first.settle({"a": SAFE, "b": SAFE})
            assert second.take(["b"])["b"].judgement("b") is SAFE
    with flight.scope(3) as third:
        assert third.take(["a", "b", "c"]) == {}


def test_who_waits_for_a_task_that_fails_is_told_nothing() -> None:
    flight = SingleFlight()
    waiting = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        with flight.scope(1) as first:
            first.take(["a"])

            def wait() -> Judgement | None:
                with flight.scope(2) as second:
                    owner = second.take(["a"])["a"]
                    waiting.set()
                    return owner.judgement("a")

            answer = pool.submit(wait)
            assert waiting.wait(patience(10))
        assert answer.result(patience(10)) is None


def test_two_that_wait_for_each_other_both_go_on() -> None:
    flight = SingleFlight()
    both = threading.Barrier(2, timeout=patience(10))

    def work(mine: str, other: str) -> Judgement | None:
        with flight.scope(1) as scope:
            scope.take([mine])
            both.wait()
            owner = scope.take([other])[other]
            scope.settle({mine: SAFE})
            found = owner.judgement(other)
            both.wait()
            return found

    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(work, "a", "b"), pool.submit(work, "b", "a")]
        assert [answer.result(patience(20)) for answer in answers] == [SAFE, SAFE]
