"""How a classifier reads texts: special tokens spelled out, windows, the last turn, texts that are too short."""

import pytest
import transformers

from guardfleet.domain.detection import Outcome
from guardfleet.errors import ConfigurationError
from tests.services.classifiers import KINDS, judged, opened, tokenizer_of
from worker.engine.encoders.tokens import Frame, Limits, TextReader, TextRow, reader_of, special_of
from worker.engine.interfaces import Pieces, Unjudgeable
from worker.engine.prompting.windows import Policy
from worker.engine.verification.reference import SENTENCES
from worker.moderation.detecting import Reading


def row_of(reader: TextReader, text: str) -> TextRow:
    """The only row of a text, whatever is noted on it."""
    (found,) = reader([text])
    row = found.rows[0] if isinstance(found, Pieces) else found
    assert isinstance(row, TextRow)
    return row


@pytest.mark.parametrize("kind", sorted(set(KINDS.values())))
def test_no_text_can_use_a_special_token(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    reader = reader_of("x", tokenizer, lambda frame: Limits.of(512, frame, Policy(), 0))
    special = special_of(tokenizer)
    assert reader.frame == Frame((tokenizer.cls_token_id,), (tokenizer.sep_token_id,))
    inside = set(special.values()) - {tokenizer.unk_token_id}
    for token in (*special, "[SEP]", "</s>", "<s>", "[MASK]", "\uffff</s>", "\uffff[SEP]"):
        row = row_of(reader, f"Hello {token}{token} there")
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


@pytest.mark.parametrize("kind", ["wordpiece", "unigram"])
def test_what_a_model_does_not_know_is_said_and_a_text_of_it_alone_is_not_judged(kind: str) -> None:
    reader = reader_of("x", tokenizer_of(kind), lambda frame: Limits.of(60, frame, Policy(overlap=6), 0))
    known, hidden = SENTENCES[0], "\ud55c" * 9  # a script that its few sentences lack
    assert isinstance(reader([known])[0], TextRow)
    (noted,) = reader([f"{known} {hidden}"])
    assert isinstance(noted, Pieces)
    assert (len(noted.rows), noted.spans) == (1, [])
    assert noted.notes == {"unknown_tokens": pytest.approx(len(hidden) / len(known + hidden), abs=0.05)}
    (refused,) = reader([f"{hidden * 9} ok {hidden * 9}"])
    assert isinstance(refused, Unjudgeable)
    assert refused.code == "unreadable_text"
    assert hidden not in refused.detail
    (window,) = reader([f"{' '.join([known] * 20)} {f'{hidden} ' * 60} {' '.join([known] * 20)}"])
    assert isinstance(window, Unjudgeable), "a window of it hides in a long text"
    (noted,) = reader([" ".join([known, hidden] * 20)])
    assert isinstance(noted, Pieces)
    assert noted.notes["unknown_tokens"] > 0.1


def test_a_word_that_is_too_long_for_the_tokenizer_hides_nothing() -> None:
    reader = reader_of("x", tokenizer_of("wordpiece"), lambda frame: Limits.of(512, frame, Policy(), 0))
    (found,) = reader([f"{SENTENCES[0]} {'sorry' * 40}"])
    assert found == Unjudgeable("unreadable_text", "88% of a window is unknown to the model, at most 50% may be")
    assert isinstance(reader([f"{SENTENCES[0]} {'sorry' * 10}"])[0], TextRow)


def test_a_share_that_is_unknown_is_evidence_and_too_much_is_an_error(bert: str) -> None:
    backend = opened(model=bert)
    said = Reading(backend.model, "max")
    texts = [SENTENCES[0], f"{SENTENCES[0]} \ud55c\ud55c\ud55c\ud55c", "\ud55c\uae00"]
    plain, noted, lost = [said.detection_of(answer) for answer in judged(backend, texts)]
    assert (plain.outcome, plain.evidence) == (Outcome.LABELLED, None)
    assert noted.outcome is Outcome.LABELLED
    assert noted.evidence == {"unknown_tokens": 0.13}
    assert (lost.outcome, lost.error, lost.label, lost.scores) == (Outcome.ERROR, "unreadable_text", None, None)
