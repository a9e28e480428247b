"""The packed engine gives the answer of transformers' own greedy generate, whatever shares the batch and whatever was drafted."""

import itertools
import json
import os
import pathlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.openai.categories import COVERED, not_safe, result, scores
from guardfleet.domain.verdict import CATEGORY_CHOICES, CATEGORY_NAMES, Judgement, Severity
from guardfleet.verdicts.encoding import as_stored
from tests.services.packed import BUDGET, batched, draft_always, drive, elsewhere, generate
from tests.services.patience import patience
from tests.services.stored import MODEL
from worker.engine.answer import LABELS
from worker.engine.decoding.model_runner import PackedBackend
from worker.engine.decoding.padded import GenerateBackend
from worker.engine.decoding.partial_answers import Continuation
from worker.engine.engine import BatchingEngine
from worker.engine.forward.attention import VarlenAttention
from worker.engine.forward.cpu_attention import HeadwiseAttention, RowwiseAttention
from worker.engine.forward.tree import Tree
from worker.engine.interfaces import Answer, Prepared, Unjudgeable
from worker.engine.model.loading import LoadedModel, load
from worker.engine.prompting.prompt import Content, messages_of
from worker.moderation.interpretation import judgement_of

THINNED = 1 if os.environ.get("ALL_ROWS") else 4
CORPUS_ROWS = 2000 // THINNED
WRONG = ["", "Safety: Unsafe\nCategories: Violent", "Safety: Safe\nCategories: Jailbreak", "no such answer"]


@pytest.fixture
def packed() -> PackedBackend:
    """A fresh one: what it learned from other tests' answers must not matter, and does not."""
    return elsewhere(lambda: PackedBackend(load("demo"), budget_tokens=BUDGET))


@pytest.fixture(scope="session")
def asked(shared: pathlib.Path) -> list[Content]:
    """500 corpus rows spread over the file, and every fourth of the completions and dialogues. ALL_ROWS=1: four times as many."""

    def rows(name: str) -> list[Any]:
        with (shared / "data" / f"{name}.jsonl").open() as file:
            return [json.loads(line) for line in file]

    corpus = rows("corpus")
    texts: list[Content] = [row["text"] for row in corpus[:: len(corpus) // 2000][:2000]]
    return (texts + [row["messages"] for name in ("xstest_completions", "dialogues") for row in rows(name)])[::THINNED]


@pytest.fixture(scope="session")
def expected(demo: LoadedModel, asked: list[Content]) -> list[str]:
    """What the reference says of each row."""
    return elsewhere(lambda: generate(demo, asked))


@pytest.fixture(scope="session")
def judged(asked: list[Content]) -> list[Answer]:
    """What the packed engine says of every row."""
    engine = BatchingEngine(elsewhere(lambda: PackedBackend(load("demo"), budget_tokens=BUDGET)))
    engine.start()
    found = engine.submit(asked).result().answers
    engine.stop()
    return found


def test_every_answer_equals_greedy_generate(judged: list[Answer], expected: list[str]) -> None:
    assert len(expected) >= 600
    assert [answer.raw for answer in judged] == expected
    assert {answer.passes for answer in judged} >= {1, 2}
    assert sum(answer.passes == 1 for answer in judged) > len(judged) * 2 / 3


@pytest.fixture(scope="session")
def sampled(demo: LoadedModel, asked: list[Content]) -> dict[int, Answer]:
    """Every third row, and what the padded reference says of it."""
    reference = GenerateBackend(demo, budget_tokens=BUDGET)
    some = range(0, len(asked), 3)
    rows = dict(zip(some, reference.prepare([asked[i] for i in some]), strict=True))
    order = sorted(some, key=lambda i: getattr(rows[i], "n_tokens", 0))
    out: dict[int, Answer] = {}
    for part in batched(order, 32):
        batch: list[Any] = [rows[i] for i in part]
        out |= zip(part, elsewhere(lambda batch=batch: reference.run(batch)), strict=True)
    return out


@pytest.fixture(scope="session")
def shared_backend() -> PackedBackend:
    """One for all examples of a property: it has learned whatever it has learned."""
    return elsewhere(lambda: PackedBackend(load("demo"), budget_tokens=BUDGET))


@given(data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_packing_changes_an_answer_or_its_probabilities(
    data: st.DataObject, shared_backend: PackedBackend, sampled: dict[int, Answer], asked: list[Content], expected: list[str]
) -> None:
    chosen = data.draw(st.lists(st.sampled_from(sorted(sampled)), min_size=1, max_size=60))
    sizes = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=4))
    found = drive(shared_backend, shared_backend.prepare([asked[i] for i in chosen]), sizes)
    for i, answer in zip(chosen, found, strict=True):
        assert answer.raw == expected[i]
        assert answer.probabilities == pytest.approx(sampled[i].probabilities, abs=1e-4)
        assert answer.categories == pytest.approx(sampled[i].categories, abs=1e-4)


def test_batches_beside_each_other_change_no_answer(asked: list[Content], expected: list[str]) -> None:
    backend = elsewhere(lambda: PackedBackend(load("demo"), budget_tokens=2048, streams=3))
    engine = BatchingEngine(backend)
    engine.start()
    beside = [range(start, len(asked), 30) for start in range(10)]  # 100 batches: a shared workspace spoils a third of them
    futures = [engine.submit([asked[i] for i in some], urgent=at % 5 == 0) for at, some in enumerate(beside)]
    for some, future in zip(beside, futures, strict=True):
        assert [answer.raw for answer in future.result(patience(300)).answers] == [expected[i] for i in some]
    engine.stop()


@pytest.mark.parametrize("draft", WRONG)
def test_a_wrong_draft_costs_passes_and_nothing_else(
    packed: PackedBackend, asked: list[Content], expected: list[str], draft: str
) -> None:
    some = range(0, len(asked), 3)
    draft_always(packed, Tree.chain(packed.encode(draft)))
    found = drive(packed, packed.prepare([asked[i] for i in some]))
    assert [answer.raw for answer in found] == [expected[i] for i in some]
    assert sum(answer.passes > 1 for answer in found) > len(found) // 2


def test_without_any_tree_it_is_greedy_decoding_token_by_token(
    packed: PackedBackend, asked: list[Content], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    draft_always(packed, Tree())
    for mode in packed.modes:
        monkeypatch.setattr(mode.drafts, "tree", lambda begun, most: Tree())
    some = range(0, len(asked), 10)
    found = drive(packed, packed.prepare([asked[i] for i in some]))
    assert [answer.raw for answer in found] == [expected[i] for i in some]
    assert {answer.passes - answer.output_tokens for answer in found} == {1}  # the end token is a pass as well


def test_every_kind_of_attention_sees_the_same(
    packed: PackedBackend, asked: list[Content], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever a machine takes. CUDA's kernel is replaced by a loop: the gather, the lengths and the tails are its own."""

    for name in ("QUERY_BLOCK", "ROW_QUERY_BLOCK"):  # small, so that rows take several
        monkeypatch.setattr(f"worker.engine.forward.cpu_attention.{name}", 64)
    found = []
    for kind in (HeadwiseAttention, RowwiseAttention):
        packed.causal = kind
        found.append(drive(packed, packed.prepare(asked[::12])))
    on_cuda = elsewhere(lambda: PackedBackend(load("demo"), budget_tokens=BUDGET, as_on_cuda=True))
    assert on_cuda.causal is VarlenAttention
    found.append(drive(on_cuda, on_cuda.prepare(asked[::12])))
    for several in zip(*found, strict=True):
        assert len({answer.raw for answer in several}) == 1
        for answer in several[1:]:
            assert answer.probabilities == pytest.approx(several[0].probabilities, abs=1e-5)
            assert answer.categories == pytest.approx(several[0].categories, abs=1e-4)


def test_odds_are_read_where_the_answer_is_decided(packed: PackedBackend, asked: list[Content]) -> None:
    for answer in drive(packed, packed.prepare(asked[::8])):
        assert answer.probabilities is not None
        assert sum(answer.probabilities) == pytest.approx(1, abs=1e-5)
        assert answer.categories is not None
        known = [(p, name) for p, name in zip(answer.categories, CATEGORY_CHOICES, strict=True) if p is not None]
        first = answer.raw.split("\n")[1].removeprefix("Categories: ").split(",")[0]
        if answer.raw.startswith("Safety: Unsafe") and first in {name for _, name in known}:
            assert max(known)[1] == first
        assert not answer.is_close or min(abs(p - 0.5) for p in answer.probabilities) < 0.1


def test_the_odds_of_categories_are_those_behind_unsafe_whatever_the_answer_and_the_draft(
    packed: PackedBackend, demo: LoadedModel, asked: list[Content], judged: list[Answer]
) -> None:
    """Held against a forward over the whole prompt with `Safety: Unsafe`, `Categories:` behind it."""
    by_label = {label: [i for i, answer in enumerate(judged) if answer.raw.startswith(f"Safety: {label}")][:4] for label in LABELS}
    some = [i for found in by_label.values() for i in found]
    assert len(some) == 12
    question = packed.encode("Safety: Unsafe\nCategories:")
    none, *tokens = (packed.encode(f"Safety: Unsafe\nCategories: {name}")[len(question)] for name in CATEGORY_CHOICES)
    known = [token for token in dict.fromkeys(tokens) if token != none]
    prompts = demo.prompter.encode([messages_of(asked[i]) for i in some])
    for draft in ("Safety: Safe\nCategories: None", *WRONG):
        draft_always(packed, Tree.chain(packed.encode(draft)))
        for encoded, answer in zip(prompts, drive(packed, packed.prepare([asked[i] for i in some]), (5,)), strict=True):
            with torch.inference_mode():
                logits = demo.network(input_ids=torch.tensor([[*encoded.ids, *question]]), logits_to_keep=1).logits[0, -1]
            chosen = dict(zip(known, logits[known].softmax(-1).tolist(), strict=True))
            right = [chosen.get(token) if tokens.count(token) == 1 else None for token in tokens]
            assert answer.categories == pytest.approx([0.0, *right], abs=1e-4)


def test_a_text_that_is_safe_with_doubt_has_a_category_for_it(judged: list[Answer]) -> None:
    """Read behind `Safe` the odds said None, and P(not safe) times them was about 0 up to the flip."""
    doubtful = 0
    for answer in judged[:CORPUS_ROWS]:
        assert answer.probabilities is not None
        assert answer.categories is not None
        none, *odds = (p for p in answer.categories if p is not None)
        assert none == 0
        assert sum(odds) == pytest.approx(1, abs=1e-4)
        not_safe = 1 - answer.probabilities[0]
        doubtful += answer.raw.startswith("Safety: Safe") and not_safe >= 0.25
        assert not_safe * max(odds) >= not_safe / len(odds) - 1e-6
    assert doubtful >= CORPUS_ROWS / 100


@pytest.fixture(scope="session")
def said(judged: list[Answer]) -> list[tuple[float, Judgement]]:
    """Of the corpus rows: P(not safe) as the model had it, and the judgement as whoever reads it later has it."""
    return [
        (1 - answer.probabilities[0], as_stored(judgement_of(answer)))
        for answer in judged[:CORPUS_ROWS]
        if answer.probabilities is not None
    ]


def test_a_row_with_more_doubt_never_has_a_lower_top_score(said: list[tuple[float, Judgement]]) -> None:
    assert len(said) == CORPUS_ROWS
    assert not [found for _, found in said if found.severity is Severity.ERROR]
    ranked = sorted(said, key=lambda item: item[0])
    tops = [max(scores(found).values()) for _, found in ranked]
    assert [(low, high) for low, high in pairwise(tops) if high < low] == []
    for (doubt, found), top in zip(ranked, tops, strict=True):
        shown = result(found, MODEL, Severity.UNSAFE, None)["category_scores"]
        assert max(shown.values()) == max(shown[name] for name in COVERED) == top == round(not_safe(found), 3)
        assert top == pytest.approx(doubt, abs=1 / 255)  # a probability is stored in a byte


def test_rows_that_are_answered_safe_can_be_ranked(said: list[tuple[float, Judgement]]) -> None:
    """By their doubt, and within each category that begins with a token of its own."""
    safe = [found for _, found in said if found.severity is Severity.SAFE]
    known = {name for name, p in zip(CATEGORY_CHOICES, safe[0].category_odds or (), strict=True) if p is not None}
    tops = {max(scores(found).values()) for found in safe}
    each = [[scores(found)[category] for found in safe] for category, name in CATEGORY_NAMES.items() if name in known]
    print(f"{len(safe):,} safe rows with {len(tops)} top scores, in {len(each)} categories")  # noqa: T201 - the figure to quote
    assert len(tops) > 50
    assert len({tuple(found) for found in each if len(set(found)) > 20}) >= 4


def test_rows_of_a_batch_that_failed_half_way_can_be_given_again(
    packed: PackedBackend, asked: list[Content], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    draft_always(packed, Tree())
    begun = [row for row in packed.run(_rows(packed, asked[:8])) if isinstance(row, Continuation)]
    assert len(begun) == 8
    calls = itertools.count()
    settled = packed._completed

    def failing(*args: Any, **kwargs: Any) -> Answer | None:
        if next(calls) == 5:
            raise ValueError("half way")
        return settled(*args, **kwargs)

    monkeypatch.setattr(packed, "_completed", failing)
    with pytest.raises(ValueError, match="half way"):
        packed.run(begun)
    assert [answer.raw for answer in drive(packed, begun)] == expected[:8]


def _rows(backend: PackedBackend, contents: Sequence[Content]) -> list[Prepared]:
    return [row for row in backend.prepare(contents) if not isinstance(row, Unjudgeable)]
