"""Small first passes that are recorded and replayed give what the ordinary pass gives; what is recorded depends on no batch."""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.services.packed import draft_always, drive, elsewhere
from tests.services.recorded import Recorder, again, use_kernel
from worker.engine.decoding.cuda_graphs import SIZES, is_launch_bound, record
from worker.engine.decoding.first_pass import FirstPass
from worker.engine.decoding.fixed_pass import FixedPass, Size
from worker.engine.decoding.model_runner import PackedBackend
from worker.engine.decoding.partial_answers import Continuation, PromptRow
from worker.engine.forward.attention import VarlenAttention
from worker.engine.forward.geometry import Rows
from worker.engine.forward.tree import Tree
from worker.engine.interfaces import Answer
from worker.engine.model.loading import load
from worker.engine.model.memory import PUBLISHED
from worker.engine.prompting.prompt import Content

TEXTS: list[Content] = [f"How do {n} people {verb}? " * (1 + n * n % 17) for n in range(8) for verb in ("meet", "die", "vote")]
CHATS: list[Content] = [
    [{"role": "user", "content": f"Tell me {what}"}, {"role": "assistant", "content": said}]
    for what in ("how to make a bomb", "a story", "who you are " * 20)
    for said in ("No.", "Sure, take some and mix it. " * 5, "I am a model.")
]
DRAFTS = ["", "Safety: Safe\nCategories: None", "Safety: Unsafe\nCategories: Violent", "no such answer"]


def made(**options: Any) -> PackedBackend:
    backend = elsewhere(lambda: PackedBackend(load("demo"), budget_tokens=8192, streams=1, as_on_cuda=True, **options))
    for mode in backend.modes:
        mode.learns = False
    return backend


@pytest.fixture(scope="module")
def ordinary() -> PackedBackend:
    return made()


@pytest.fixture(scope="module")
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(scope="module")
def recorded(recorder: Recorder) -> Iterator[PackedBackend]:
    with pytest.MonkeyPatch.context() as patch:
        use_kernel(patch)
        yield made(capture=recorder)


@pytest.fixture(scope="module")
def answers(ordinary: PackedBackend) -> list[Answer]:
    return drive(ordinary, ordinary.prepare(TEXTS + CHATS), (1,))


def hold(found: Sequence[Answer], right: Sequence[Answer]) -> None:
    for one, other in zip(found, right, strict=True):
        assert (one.raw, one.input_tokens, one.output_tokens) == (other.raw, other.input_tokens, other.output_tokens)
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
        assert one.categories == pytest.approx(other.categories, abs=1e-5)


some_rows = st.lists(st.sampled_from(range(len(TEXTS + CHATS))), min_size=1, max_size=12)


@given(chosen=some_rows, sizes=st.lists(st.integers(1, 9), min_size=1, max_size=3), draft=st.sampled_from(DRAFTS))
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_replayed_passes_answer_as_ordinary_ones(
    recorded: PackedBackend, answers: list[Answer], chosen: list[int], sizes: list[int], draft: str
) -> None:
    """Rows whose draft fails go on with the keys and values that the replay left."""
    draft_always(recorded, Tree.chain(recorded.encode(draft)))
    hold(drive(recorded, recorded.prepare([(TEXTS + CHATS)[i] for i in chosen]), sizes), [answers[i] for i in chosen])


def test_most_small_passes_of_one_mode_are_replayed(recorded: PackedBackend, recorder: Recorder) -> None:
    draft_always(recorded, Tree.chain(recorded.encode(DRAFTS[1])))
    before = recorder.replays
    drive(recorded, recorded.prepare(TEXTS), (1,))
    drive(recorded, recorded.prepare(CHATS), (3,))
    assert recorder.replays - before == len(TEXTS) + len(CHATS) / 3


def test_all_sizes_of_a_mode_record_the_same_kernels(recorder: Recorder, recorded: PackedBackend) -> None:
    """They are as many as there are sizes and modes: none was recorded for what came later."""
    assert len(recorder.tapes) == len(SIZES) * len(recorded.modes)
    assert len({tuple(str(func) for func, *_ in tape.steps) for tape in recorder.tapes}) == 1


@pytest.fixture(scope="module")
def fixed(ordinary: PackedBackend) -> Callable[[Size, int], tuple[FixedPass, Any]]:
    """One for each size and mode, filled again and again."""
    found: dict[tuple[Size, int], tuple[FixedPass, Any]] = {}

    def of(size: Size, mode: int) -> tuple[FixedPass, Any]:
        if (size, mode) not in found:
            workspace = ordinary.workspace()
            prefix = ordinary.modes[mode].prefix
            found[size, mode] = FixedPass(ordinary.network, ordinary._label_tokens, workspace, size, prefix), workspace
        return found[size, mode]

    return of


@given(data=st.data(), mode=st.integers(0, 1), size=st.sampled_from(SIZES), draft=st.sampled_from(DRAFTS))
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_logits_keys_and_values_are_those_of_the_ordinary_pass(
    ordinary: PackedBackend,
    fixed: Callable[[Size, int], tuple[FixedPass, Any]],
    data: st.DataObject,
    mode: int,
    size: Size,
    draft: str,
) -> None:
    draft_always(ordinary, Tree.chain(ordinary.encode(draft)))
    first = FirstPass(data.draw(rows_within(ordinary, size, mode)))
    rows = first.geometry
    workspace = ordinary.workspace()
    with torch.inference_mode():
        hidden = ordinary.hidden(first.ids, rows.positions(), rows.reads(), VarlenAttention(workspace, rows))
        right = ordinary.network.logits(hidden)
        padded, own = fixed(size, mode)
        padded.fill(first)
        found = padded.logits()
    assert len(found) == size.reads
    assert found.isfinite().all()
    torch.testing.assert_close(found[: rows.n_reads], right, atol=1e-5, rtol=0)
    of_rows = [kept.kv[:, :, :, : rows.tokens] for kept in (own, workspace)]
    torch.testing.assert_close(*of_rows, atol=1e-5, rtol=0)


@st.composite
def rows_within(draw: st.DrawFn, backend: PackedBackend, size: Size, mode: int) -> list[PromptRow]:
    """Rows of any tokens that a size has room for, up to the last token."""
    of = backend.modes[mode]
    n = draw(st.integers(1, min(size.rows, size.reads // (len(of.draft.parents) + bool(of.aside.tokens)))))
    room = size.tokens - n * of.n_drafted
    cuts = sorted(draw(st.lists(st.integers(1, room - 1), min_size=n - 1, max_size=n - 1, unique=True)))
    lengths = np.diff([0, *cuts, draw(st.integers(cuts[-1] + 1 if cuts else 1, room))])
    dice = np.random.default_rng(draw(st.integers(0, 2**32)))
    ids = [dice.integers(0, backend.network.shape.vocabulary, length, np.int32) for length in lengths]
    return [PromptRow(own, of, of.prefix, len(own) + of.n_drafted, len(own)) for own in ids]


def test_what_no_graph_takes_goes_the_ordinary_way(recorded: PackedBackend, recorder: Recorder, answers: list[Answer]) -> None:
    mixed: list[Any] = recorded.prepare([TEXTS[0], CHATS[0]])
    bare = PromptRow(mixed[0].ids, mixed[0].mode, recorded._nothing, mixed[0].n_tokens, mixed[0].n_prompt)
    large: list[Any] = recorded.prepare(TEXTS[:1] * 40)
    before = recorder.replays
    for batch in (mixed, [mixed[0], bare], [bare], large):
        recorded.run(batch)
    assert recorder.replays == before
    hold(drive(recorded, mixed, (2,)), [answers[0], answers[len(TEXTS)]])


def test_while_one_is_on_its_way_the_next_goes_the_ordinary_way(
    recorded: PackedBackend, recorder: Recorder, answers: list[Answer]
) -> None:
    draft_always(recorded, Tree.chain(recorded.encode(DRAFTS[3])))
    rows: list[Any] = recorded.prepare(TEXTS[:3])
    before = recorder.replays
    flying = [recorded.launch([rows[0]])]
    recorded._free.append(recorded.workspace())
    flying.append(recorded.launch([rows[1]]))
    assert recorder.replays == before + 1
    begun = [row for launched in flying for row in launched.collect()]
    assert all(isinstance(row, Continuation) for row in begun)
    recorded._free.pop()
    (third,) = recorded.launch([rows[2]]).collect()
    assert recorder.replays == before + 2
    hold(drive(recorded, [*begun, third]), answers[:3])


def test_a_replay_that_fails_is_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows what the device is still at: its buffers are never touched again."""
    backend = made(capture=again)
    draft_always(backend, Tree.chain(backend.encode(DRAFTS[1])))
    rows: list[Any] = backend.prepare(TEXTS[:1])
    monkeypatch.setattr(FixedPass, "fill", _raising(ValueError("half way")))
    with pytest.raises(ValueError, match="half way"):
        backend.run(rows)
    backend.run(rows)


def test_a_failed_collection_gives_the_graph_back(
    recorded: PackedBackend, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[Any] = recorded.prepare(TEXTS[:1])
    with monkeypatch.context() as patch:
        patch.setattr("worker.engine.decoding.model_runner.answers_as_drafted", _raising(ValueError("half way")))
        with pytest.raises(ValueError, match="half way"):
            recorded.run(rows)
    before = recorder.replays
    recorded.run(rows)
    assert recorder.replays == before + 1


def _raising(error: Exception) -> Callable[..., Any]:
    def raises(*_: Any, **__: Any) -> Any:
        raise error

    return raises


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("not permitted when capturing")])
def test_where_recording_fails_one_line_says_so_and_all_goes_the_ordinary_way(
    error: Exception, answers: list[Answer], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    backend = made(capture=_raising(error))
    (said,) = (line.getMessage() for line in caplog.records if line.getMessage().startswith("engine_no_graphs"))
    assert str(error) in said
    hold(drive(backend, backend.prepare(TEXTS[:4]), (1,)), answers[:4])


STALE: dict[str, Callable[[Any], Callable[[], torch.Tensor]]] = {
    "what is read is that of the recording": lambda run: _frozen(run().clone()),
    "not everything is computed": lambda run: lambda: torch.zeros_like(run()),
}


def _frozen(table: torch.Tensor) -> Callable[[], torch.Tensor]:
    return lambda: table


@pytest.mark.parametrize("bug", STALE)
def test_a_recording_that_disagrees_with_the_ordinary_pass_is_not_used(
    bug: str, ordinary: PackedBackend, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    found = record(ordinary.network, ordinary._label_tokens, ordinary.workspace(), ordinary.modes, STALE[bug])
    assert found is None
    assert "disagrees with the ordinary one" in caplog.text


def test_only_where_launching_takes_longer_than_computing() -> None:
    worth = {name: [size.tokens for size in SIZES if is_launch_bound(sizes.shape, size)] for name, sizes in PUBLISHED.items()}
    assert worth == {"0.6B": [128, 256, 512, 1024], "4B": [128], "8B": []}


def test_a_size_takes_what_it_has_room_for() -> None:
    size = Size(256)
    assert size.takes(Rows([200, 56], [10, 8], [], [4, 4], [1, 1]))
    assert not size.takes(Rows([200, 57], [10, 8], [], [4, 4], [1, 1]))
    assert not size.takes(Rows([100, 50, 50], [2, 2, 2], []))
    assert not size.takes(Rows([200, 50], [20, 13], []))
