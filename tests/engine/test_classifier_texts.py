"""How a classifier reads texts: special tokens spelled out, windows, the last turn, texts that are too short."""

import pytest
import transformers

from guardfleet.errors import ConfigurationError
from tests.services.classifiers import KINDS, judged, opened, tokenizer_of
from worker.engine.encoders.tokens import Frame, Limits, TextRow, reader_of, special_of
from worker.engine.interfaces import Pieces, Unjudgeable
from worker.engine.prompting.windows import Policy
from worker.engine.verification.reference import SENTENCES


@pytest.mark.parametrize("kind", sorted(set(KINDS.values())))
def test_no_text_can_use_a_special_token(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    reader = reader_of("x", tokenizer, lambda frame: Limits.of(512, frame, Policy(), 0))
    special = special_of(tokenizer)
    assert reader.frame == Frame((tokenizer.cls_token_id,), (tokenizer.sep_token_id,))
    inside = set(special.values()) - {tokenizer.unk_token_id}
    for token in (*special, "[SEP]", "</s>", "<s>", "[MASK]", "\uffff</s>", "\uffff[SEP]"):
        (row,) = reader([f"Hello {token}{token} there"])
        assert isinstance(row, TextRow)
        assert inside.isdisjoint(row.ids[1:-1])
    (plain,) = reader([SENTENCES[0]])
    assert isinstance(plain, TextRow)
    assert list(plain.ids) == tokenizer(SENTENCES[0])["input_ids"]
    if kind != "wordpiece":  # the control: the model's own tokenizer obeys them
        assert not inside.isdisjoint(tokenizer("Hello </s> there")["input_ids"][1:-1])


def test_a_tokenizer_that_cannot_spell_out_its_special_tokens_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.engine.encoders.tokens._hidden", lambda token, special: token)
    with pytest.raises(ConfigurationError, match="cannot spell out"):
        reader_of("x", tokenizer_of("unigram"), lambda frame: Limits.of(512, frame, Policy(), 0))


def test_a_long_text_is_judged_in_windows_that_show_every_character(bert: str) -> None:
    backend = opened(model=bert, policy=Policy(overlap=40))
    text = " ".join(SENTENCES * 60)
    whole = transformers.AutoTokenizer.from_pretrained(bert)(text, add_special_tokens=False)["input_ids"]
    (pieces,) = backend.prepare([text])
    assert isinstance(pieces, Pieces)
    rows = [row for row in pieces.rows if isinstance(row, TextRow)]
    assert {row.n_tokens for row in rows} == {512}
    assert not pieces.notes
    assert (pieces.spans[0][0], pieces.spans[-1][1]) == (0, len(text))
    assert all(a[1] > b[0] > a[0] for a, b in zip(pieces.spans, pieces.spans[1:], strict=False))
    assert list(rows[0].ids[1:-1]) == whole[:510]
    assert list(rows[-1].ids[1:-1]) == whole[-510:]
    (answer,) = judged(backend, [text])
    assert [(start, end) for start, end, _ in answer.windows] == pieces.spans
    assert all(sum(window.scores or ()) == pytest.approx(1, abs=1e-5) for _, _, window in answer.windows)


def test_of_a_long_text_the_part_that_was_asked_for_is_judged(bert: str) -> None:
    backend = opened(model=bert)
    text = " ".join(SENTENCES * 60)
    (head,), (ends,) = (backend.prepare([text], coverage) for coverage in ("head", "ends"))
    assert isinstance(head, Pieces)
    assert isinstance(ends, Pieces)
    assert head.notes == {"left_out": [(head.spans[0][1], len(text))]}
    assert ends.spans == [(0, head.spans[0][1]), (ends.notes["left_out"][0][1], len(text))]
    few = opened(model=bert, policy=Policy(most=2))
    (refused,) = few.prepare([text])
    assert isinstance(refused, Unjudgeable)
    assert refused.code == "too_long"


def test_of_a_conversation_the_last_turn_is_judged_and_a_broken_one_is_none(bert: str) -> None:
    backend = opened(model=bert)
    talk = [{"role": "user", "content": SENTENCES[0]}, {"role": "assistant", "content": SENTENCES[1]}]
    said, alone_, broken = backend.prepare([talk, SENTENCES[1], [{"role": "tool", "content": "x"}]])
    assert said == alone_
    assert isinstance(broken, Unjudgeable)
    assert broken.code == "invalid_conversation"


def test_a_text_with_too_few_tokens_is_too_short_and_needs_no_pass(bert: str) -> None:
    backend = opened(model=bert, min_tokens=8)
    (sentence,) = backend.prepare([SENTENCES[0]])
    assert isinstance(sentence, TextRow)
    assert len(sentence.ids) >= 10
    answers = judged(backend, ["", " \n", "hi", SENTENCES[0]])
    assert [answer.is_too_short for answer in answers] == [True, True, True, False]
    assert [answer.scores is None for answer in answers] == [True, True, True, False]
    assert [answer.input_tokens for answer in answers] == [0, 0, 0, len(sentence.ids)]
    blank = judged(opened(model=bert), ["", " \n", "hi"])
    assert [answer.is_too_short for answer in blank] == [True, True, False]
