"""Children that die: one that keeps dying before it was ever ready is abandoned with its last words, any other is restarted."""

import pathlib
from collections.abc import Callable, Iterator

import pytest

from guardfleet.process import supervisor
from guardfleet.process.supervisor import Child
from tests.services.fleet import until

READY = "import os; os.write(int(os.environ['READY_FD']), b'1')"
BAD = "raise RuntimeError('the weights are damaged')"
KILLED = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
Start = Callable[..., Child]


@pytest.fixture
def start(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """A child whose n-th process runs the n-th of these lines, and the last one from then on."""
    monkeypatch.setattr(supervisor, "RESTART_S", (0.0,))
    begun: list[Child] = []

    def start(*lines: str, log: str | None = "child.log", had_work: bool = False) -> Child:
        (tmp_path / "guardfleet").mkdir()
        (tmp_path / "guardfleet" / "__init__.py").touch()
        for n, line in enumerate(lines):
            (tmp_path / f"{n}.py").write_text(line)
        (tmp_path / "guardfleet" / "__main__.py").write_text(
            f"import pathlib\nhere = pathlib.Path({str(tmp_path)!r})\n"
            "with (here / 'starts').open('a') as file:\n    n = file.tell()\n    file.write('x')\n"
            f"exec((here / f'{{min(n, {len(lines) - 1})}}.py').read_text())\n"
        )
        path = tmp_path / log if log else None
        child = Child("worker", [], {"PYTHONPATH": str(tmp_path)}, path, after_death=lambda pid: had_work)
        begun.append(child)
        child.start()
        return child

    yield start
    for child in begun:
        child.stop()


def starts(tmp_path: pathlib.Path) -> int:
    return (tmp_path / "starts").stat().st_size if (tmp_path / "starts").exists() else 0


def test_one_that_dies_before_it_could_ever_work_is_given_up_with_its_last_words(start: Start, tmp_path: pathlib.Path) -> None:
    child = start(BAD)
    sentence = until(lambda: child.gave_up, what="giving up")
    assert starts(tmp_path) == supervisor.EARLY_DEATHS == 3
    assert sentence == (
        "worker ended 3 times before it was ready, the last time with status 1: RuntimeError: the weights are damaged; "
        f"the rest is in {tmp_path / 'child.log'}."
    )


@pytest.mark.parametrize("log", ["child.log", None])
def test_the_last_words_are_its_own_and_a_signal_is_called_by_its_name(
    start: Start, tmp_path: pathlib.Path, log: str | None
) -> None:
    (tmp_path / "child.log").write_text("what an earlier one said\n")
    child = start(KILLED, log=log)
    sentence = until(lambda: child.gave_up, what="giving up")
    assert "3 times before it was ready, the last time by SIGKILL (is the machine out of memory?), without a word" in sentence
    assert "earlier" not in sentence
    assert (str(tmp_path) in sentence) == (log is not None)


@pytest.mark.parametrize("lines", [(f"{READY}; {BAD}",), (BAD, BAD, f"{READY}; {BAD}", BAD)])
def test_one_that_could_work_before_is_started_again_however_often_it_dies(
    start: Start, tmp_path: pathlib.Path, lines: tuple[str, ...]
) -> None:
    child = start(*lines)
    until(lambda: starts(tmp_path) > 2 * supervisor.EARLY_DEATHS, what="more starts than it may fail")
    assert child.gave_up is None


def test_one_that_died_with_work_in_its_hands_could_work(start: Start, tmp_path: pathlib.Path) -> None:
    """Interactive texts may come before all else is ready, and one of them may be what kills it."""
    child = start(KILLED, had_work=True)
    until(lambda: starts(tmp_path) > 2 * supervisor.EARLY_DEATHS, what="more starts than it may fail")
    assert child.gave_up is None


def test_one_that_lived_for_long_is_started_again_at_once(
    start: Start, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "HEALTHY_S", -1.0)
    monkeypatch.setattr(supervisor, "RESTART_S", (0.0, 600.0))
    start(f"{READY}; {BAD}")
    until(lambda: starts(tmp_path) > 2, what="more starts")
