"""The pass over policies: equal to transformers' own forward, whatever shares a batch; what is outside a grammar is an error."""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guardfleet.domain.verdict import Model
from guardfleet.errors import ConfigurationError, RejectedError
from tests.services.families import backend_of, random_of
from worker.engine.decoding import policy_runner
from worker.engine.decoding.decision import DecisionTokens, decided
from worker.engine.decoding.decision_pass import PolicyRow
from worker.engine.decoding.logits import Reads, encoder_of
from worker.engine.decoding.policy_prefixes import Held, PolicyPrefixes, Use
from worker.engine.decoding.policy_runner import PolicyBackend
from worker.engine.decoding.reasons import Reasons
from worker.engine.engine import BatchingEngine
from worker.engine.families.family import Grammar
from worker.engine.forward.geometry import Prefix
from worker.engine.interfaces import Answer, Pieces, Prepared, SelfTestError, Unjudgeable
from worker.engine.prompting.prompt import Content, Turns, messages_of
from worker.engine.prompting.prompt_policy import PromptPolicy
from worker.engine.prompting.under_policy import UnderPolicy
from worker.engine.prompting.windows import Policy
from worker.engine.verification import policy_check

NAMES = ("dynaguard", "xguard")
POLICIES = [
    PromptPolicy.of(text) for text in ("1. No text about ships.", "- a: Ships\n" * 20, "2. Nobody may write about poems." * 3)
]
TEXTS: list[Content] = [
    "a",
    "Where is the ship? " * 9,
    "one\ntwo",
    [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}],
]
GRAMMAR = Grammar(("PASS", "FAIL"), ("PASS", "FAIL"), "PASS", "\n</answer>\n<explanation>\n", "</explanation>")


def drive(backend: PolicyBackend, rows: list[Prepared], size: int = 64) -> list[Answer]:
    todo, out = list(enumerate(rows)), {}
    while todo:
        batch, todo = todo[:size], todo[size:]
        for (i, _), done in zip(batch, backend.run([row for _, row in batch]), strict=True):
            if isinstance(done, Answer):
                out[i] = done
            else:
                todo.append((i, done))
    return [out[i] for i in range(len(rows))]


def prepared(backend: PolicyBackend, contents: list[Content], policy: PromptPolicy | None = None) -> list[Prepared]:
    rows = backend.prepare(contents, None, policy)
    return [row for row in rows if not isinstance(row, Pieces | Unjudgeable)]


def right(loaded: Any, policy: PromptPolicy | None, content: Content, tokens: list[int], allowed: tuple[bool, ...]) -> list[float]:
    """The softmax over what transformers says behind the whole prompt."""
    turns: Turns = messages_of(content)
    (encoded,) = UnderPolicy(loaded.prompter, policy.text if policy else None).encode([turns])
    with torch.inference_mode():
        logits = loaded.network(torch.tensor([encoded.ids])).logits[0, -1, tokens].double()
    found: list[float] = torch.where(torch.tensor(allowed), logits, float("-inf")).softmax(-1).tolist()
    return found


@pytest.fixture(scope="module")
def expected(real_tokenizer: Any) -> dict[str, list[list[float]]]:
    """Of each family: for each policy and text, the probabilities by transformers."""
    out = {}
    for name in NAMES:
        loaded = random_of(real_tokenizer, name)
        grammar = loaded.family.grammar
        assert grammar is not None
        tokens = DecisionTokens(grammar, encoder_of(loaded.tokenizer), loaded.device).tokens
        out[name] = [right(loaded, p, c, tokens, grammar.allowed(p.text)) for p in POLICIES for c in TEXTS]
    return out


@pytest.fixture
def obliging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the likeliest allowed label the likeliest token, as it is after training: random weights say none of the words."""

    def obliged(reads: Reads, at: int, allowed: Sequence[bool], tokens: DecisionTokens, **how: Any) -> Any:
        logits = np.where(allowed, reads.beyond(np.array([at]))[0], -np.inf)
        reads.tokens[at] = tokens.tokens[int(logits.argmax())]
        return decided(reads, at, allowed, tokens, **how)

    monkeypatch.setattr(policy_runner, "decided", obliged)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("as_on_cuda", [False, True])
@pytest.mark.usefixtures("obliging")
def test_rows_of_several_policies_in_one_batch_get_what_transformers_says(
    name: str, as_on_cuda: bool, real_tokenizer: Any, expected: dict[str, list[list[float]]]
) -> None:
    backend = backend_of(random_of(real_tokenizer, name), as_on_cuda=as_on_cuda)
    rows = [row for policy in POLICIES for row in prepared(backend, TEXTS, policy)]
    mixed = [*range(0, len(rows), 2), *range(1, len(rows), 2)]
    answers = dict(zip(mixed, drive(backend, [rows[i] for i in mixed], 7), strict=True))
    for i, scores in enumerate(expected[name]):
        answer = answers[i]
        assert answer.scores == pytest.approx(scores, abs=1e-4)
        assert sum(answer.scores) == pytest.approx(1)
    assert all(isinstance(row, PolicyRow) and row.is_behind and len(row.ids) < row.n_prompt for row in rows)


def test_random_weights_say_nothing_of_the_grammar_and_that_is_an_error(real_tokenizer: Any) -> None:
    backend = backend_of(random_of(real_tokenizer, "dynaguard"))
    answers = drive(backend, prepared(backend, TEXTS, POLICIES[0]))
    assert {answer.failure and answer.failure.code for answer in answers} == {"unparsed"}
    assert {answer.scores for answer in answers} == {None}


LOGIT = st.floats(-50, 50, width=32) | st.sampled_from([float("nan"), float("inf"), float("-inf")])


@settings(max_examples=300, deadline=None)
@given(st.lists(LOGIT, min_size=6, max_size=6), st.lists(st.booleans(), min_size=2, max_size=2))
def test_whatever_the_logits_only_an_allowed_word_gives_a_label(logits: list[float], allowed: list[bool]) -> None:
    words = {"PASS": [1], "FAIL": [4]}
    tokens = DecisionTokens(GRAMMAR, lambda text: [words[text[:4]][0], *([9] * (len(text) > 4))], torch.device("cpu"))
    reads = Reads(tokens)
    reads.add(torch.tensor([logits]))
    reads.wait()
    answer, column = decided(reads, 0, allowed, tokens, close=0.0, said=str)
    values = np.array(logits, np.float32)
    best = int(values.argmax()) if np.isfinite(values).all() else None
    may = {token for token, is_allowed in zip((1, 4), allowed, strict=True) if is_allowed}
    if best in may and (values == values[best]).sum() == 1:
        assert column == (1, 4).index(best)
        assert answer.scores is not None
        assert answer.scores.index(max(answer.scores)) == column
    elif best is not None and best not in may and (values == values[best]).sum() == 1:
        assert (answer.scores, column, answer.failure and answer.failure.code) == (None, None, "unparsed")
    elif answer.failure is None:  # a tie, which includes an allowed word
        assert column is not None
        assert allowed[column]
    assert (answer.scores is None) is (answer.failure is not None)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=12))
def test_a_string_outside_the_grammar_is_no_label(real: Any, said: str) -> None:
    tokens = DecisionTokens(GRAMMAR, encoder_of(real), torch.device("cpu"))
    ids = encoder_of(real)(said)
    found = tokens.column(ids[0]) if ids else None
    assert found is None or said.startswith(GRAMMAR.words[found])


@pytest.fixture(scope="module")
def real(real_tokenizer: Any) -> Any:
    return real_tokenizer


def test_words_that_begin_with_the_same_token_cannot_be_told_apart(real_tokenizer: Any) -> None:
    grammar = Grammar(("A", "B"), ("PASS", "PASS it"), "A", "\n", "")
    with pytest.raises(ConfigurationError, match="same token"):
        DecisionTokens(grammar, encoder_of(real_tokenizer), torch.device("cpu"))


@pytest.fixture(scope="module")
def backend(real_tokenizer: Any) -> PolicyBackend:
    return backend_of(random_of(real_tokenizer, "xguard"), policy=Policy(tokens=600, overlap=32))


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        (" \n", "blank"),
        (" ship" * 2000, "2000 tokens, at most 300 tokens are allowed"),
        ("x" * 300_000, "300000 characters, at most 300 tokens"),
        ("- z: Zebras", "defines the labels z: new ones are a, b, c, d, e, f, g, h"),
    ],
)
def test_a_policy_that_the_model_cannot_take_is_refused_in_one_sentence(backend: PolicyBackend, policy: str, why: str) -> None:
    with pytest.raises(RejectedError, match=why):
        backend.prepare(["a"], None, PromptPolicy.of(policy))


def test_a_model_with_no_policy_of_its_own_wants_one(real_tokenizer: Any) -> None:
    backend = backend_of(random_of(real_tokenizer, "dynaguard"))
    with pytest.raises(RejectedError, match="has none of its own"):
        backend.prepare(["a"])


def test_a_long_text_is_judged_in_windows_each_under_the_whole_policy(backend: PolicyBackend) -> None:
    policy = PromptPolicy.of("- a: Ships\n  - Any ship.")
    (pieces,) = backend.prepare(["Where is the ship? " * 400], None, policy)
    assert isinstance(pieces, Pieces)
    assert len(pieces.spans) > 2
    assert {type(answer) for answer in drive(backend, pieces.rows)} == {Answer}
    held = backend.policies.used(policy).held
    assert all(isinstance(row, PolicyRow) and row.is_behind and row.n_prompt <= 600 for row in pieces.rows)
    assert held.prefix is not None


def test_a_text_below_the_minimum_is_too_short_and_costs_no_pass(real_tokenizer: Any) -> None:
    backend = backend_of(random_of(real_tokenizer, "xguard"), min_tokens=5)
    short, long = drive(backend, prepared(backend, ["two words", "more than a few words are here"]))
    assert (short.is_too_short, short.scores, short.failure) == (True, None, None)
    assert not long.is_too_short


def test_the_self_test_holds_and_finds_a_wrong_prefix(real_tokenizer: Any) -> None:
    for name in NAMES:
        loaded = random_of(real_tokenizer, name)
        asked = policy_check.ask_transformers(loaded)
        backend = backend_of(loaded)
        policy_check.hold(backend, asked)
        held = backend.policies.used(asked.asked[0].policy).held
        assert held.prefix is not None
        held.prefix = Prefix(held.prefix.ids, held.prefix.kv.flip(1))  # keys as values
        with pytest.raises(SelfTestError, match="off by"):
            policy_check.hold(backend, asked)


def held_of(n_bytes: int) -> Held:
    return Held(None, (), (), 0, n_bytes)  # type: ignore[arg-type]


def test_the_policy_that_was_not_asked_for_longest_is_dropped_by_count_and_by_bytes() -> None:
    made: list[str] = []

    def make(policy: PromptPolicy | None) -> Held:
        assert policy is not None
        made.append(policy.text)
        return held_of(10 * len(policy.text))

    a, b, c, long = (PromptPolicy.of(text) for text in ("a", "b", "c", "l" * 9))
    by_count = PolicyPrefixes(make, most=2)
    for policy in (a, b, a, c):
        by_count.used(policy)
    assert [policy in by_count for policy in (a, b, c)] == [True, False, True]
    by_bytes = PolicyPrefixes(make, most=9, most_bytes=100)
    for policy in (a, b, long):
        by_bytes.used(policy)
    assert [policy in by_bytes for policy in (a, b, long)] == [False, True, True]
    assert by_bytes.n_bytes == 100


def test_a_policy_that_a_row_needs_is_never_dropped_and_is_once_the_row_is_gone() -> None:
    prefixes = PolicyPrefixes(lambda _: held_of(1), most=1)
    policies = [PromptPolicy.of(str(i)) for i in range(4)]
    uses: list[Use] = [prefixes.used(policy) for policy in policies[:3]]
    assert len(prefixes) == 3
    del uses[:2]
    uses.append(prefixes.used(policies[3]))
    assert [policy in prefixes for policy in policies] == [False, False, True, True]
    del uses[0]
    prefixes.used(policies[3])
    assert [policy in prefixes for policy in policies] == [False, False, False, True]


def test_threads_that_ask_for_a_new_policy_at_once_share_what_is_made() -> None:
    gate = threading.Barrier(4)

    def make(_: PromptPolicy | None) -> Held:
        gate.wait(10)
        return held_of(1)

    prefixes, found = PolicyPrefixes(make), []
    threads = [threading.Thread(target=lambda: found.append(prefixes.used(POLICIES[0]).held)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len({id(held) for held in found}) == len(prefixes) == 1


def test_a_row_keeps_its_prefix_though_its_policy_was_dropped_meanwhile(real_tokenizer: Any) -> None:
    backend = backend_of(random_of(real_tokenizer, "xguard"), most_policies=1)
    rows = [prepared(backend, ["a"], policy)[0] for policy in POLICIES[:2]]
    first = drive(backend, rows)
    assert len(backend.policies) == 2
    rows.clear()
    again = drive(backend, prepared(backend, ["a"], POLICIES[0])) + drive(backend, prepared(backend, ["a"], POLICIES[1]))
    assert [answer.raw for answer in first] == [answer.raw for answer in again]
    assert len(backend.policies) == 1


@pytest.mark.usefixtures("obliging")
def test_a_reason_is_written_greedily_behind_the_decision_and_only_where_a_label_is_not_neutral(real_tokenizer: Any) -> None:
    loaded = random_of(real_tokenizer, "dynaguard")
    (encoded,) = UnderPolicy(loaded.prompter, POLICIES[0].text).encode([messages_of("a")])
    tokenizer, asked = loaded.tokenizer, {}
    for word in GRAMMAR.words:
        ids = [*encoded.ids, *encoder_of(tokenizer)(word + GRAMMAR.opens)]
        with torch.inference_mode():
            out = loaded.network.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False, pad_token_id=0)
        asked[word] = tokenizer.decode(out[0, len(ids) :]).strip()
    backend = backend_of(loaded, reasons=True, reason_tokens=12)
    (said,) = drive(backend, prepared(backend, ["a"], POLICIES[0]))
    for neutral in (0, 1):
        backend._neutral = neutral
        (answer,) = drive(backend, prepared(backend, ["a"], POLICIES[0]))
        assert answer.scores == said.scores
        if answer.raw == GRAMMAR.words[neutral]:
            assert answer.reason is None
        else:
            assert answer.reason == asked[answer.raw] + "\u2026"
            assert answer.output_tokens == 13


def test_a_reason_ends_where_it_is_closed_or_where_the_model_ends_it(real_tokenizer: Any) -> None:
    reasons = Reasons(real_tokenizer, frozenset({real_tokenizer.eos_token_id}), "</explanation>", 50)
    encode = encoder_of(real_tokenizer)
    closed, ended = tuple(encode("It is.\n</explanation>")), (*encode("It is."), real_tokenizer.eos_token_id)
    assert reasons.is_complete(closed)
    assert reasons.is_complete(ended)
    assert not reasons.is_complete(encode("It is."))
    assert reasons.is_complete(encode("It <|im_start|>"))  # a control token is no word


def test_requests_under_different_policies_share_the_engine(real_tokenizer: Any) -> None:
    engine = BatchingEngine(backend_of(random_of(real_tokenizer, "xguard")))
    futures = [engine.submit(TEXTS[:2], policy=policy) for policy in (*POLICIES, None)]
    engine.start()
    answers = [answer for future in futures for answer in future.result(60).answers]
    engine.stop()
    assert len(answers) == 8
    assert {answer.failure and answer.failure.code for answer in answers} == {"unparsed"}


def test_a_model_without_a_place_for_a_policy_refuses_one() -> None:
    from worker.engine.interfaces import require_none

    with pytest.raises(RejectedError, match="takes no policy"):
        require_none(POLICIES[0], Model("m", "1", "none"))
