"""Contents as rows of token ids for a classifier: one row, or overlapping windows of a text that is longer than the model takes.

A text cannot use the tokenizer's special tokens: they are unknown to the clone that reads texts, and renamed in its vocabulary to
names that hold a character which no text keeps. What the tokenizer puts around a text is learned from the tokenizer itself.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from guardfleet.errors import ConfigurationError
from worker.engine.interfaces import Pieces, Prepared, Unjudgeable
from worker.engine.prompting.prompt import Content, FastTokenizer, InvalidConversationError, messages_of, readable
from worker.engine.prompting.windows import Coverage, Policy, Span, covered, gaps, starts_of

NONCHARACTER, REPLACEMENT = "\uffff", "\ufffd"  # the first is in no vocabulary, and is taken out of texts
OVERLAP_SHARE = 8  # adjacent windows share at most this fraction of a window: more would cost more than it finds
TOKENISING = "2"  # how texts become rows: raised with each change, so that detections cached under another way are not reused
MOST_UNKNOWN = 0.5  # share of a row above which the model has not read the text
NOTED = 0.1  # from which share on detections say so
PROBES = ("hi", " Two words.", "a\nb\tc", "e\u0301a, \u6f22\u5b57 1234", "\U0001f642 ok!!", "x" * 40)


@dataclass(frozen=True, slots=True)
class TextRow:
    """A window of a text as the model takes it, special tokens included; without ids if the text is too short to judge."""

    ids: tuple[int, ...]

    @property
    def n_tokens(self) -> int:
        """Length in tokens; 1 of a text that is too short, so that it counts as something."""
        return len(self.ids) or 1


class Frame(NamedTuple):
    """The ids that a tokenizer puts before and behind a text."""

    before: tuple[int, ...]
    behind: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """`size`: tokens of one window, special ones excluded; `min_tokens`: of a text that is not too short."""

    size: int
    overlap: int
    min_tokens: int
    policy: Policy

    @classmethod
    def of(cls, positions: int, frame: Frame, policy: Policy, min_tokens: int) -> "Limits":
        """Return the limits of a model that takes `positions` tokens. Raises ValueError if that leaves no room for a text."""
        size = min(positions, policy.tokens) - len(frame.before) - len(frame.behind)
        overlap = max(1, min(policy.overlap, size // OVERLAP_SHARE))
        if size <= overlap:
            raise ValueError(f"it takes {positions} tokens, which leaves no room for a text")
        return cls(size, overlap, min_tokens, policy)


class TextReader:
    """Tokenises for one model; safe to call from many threads."""

    def __init__(self, plain: FastTokenizer, frame: Frame, limits: Limits, unknown: int | None = None) -> None:
        self._plain, self.frame, self.limits, self._unknown = plain, frame, limits, unknown

    def __call__(self, contents: Sequence[Content], coverage: Coverage | None = None) -> list[Prepared | Pieces | Unjudgeable]:
        """Return each content's row or windows, in order, all tokenised in one call. Of a conversation, its last turn is judged."""
        coverage = coverage or self.limits.policy.coverage
        out: list[Prepared | Pieces | Unjudgeable | None] = [None] * len(contents)
        texts: dict[int, str] = {}
        for at, content in enumerate(contents):
            try:
                texts[at] = messages_of(content)[-1][1]
            except InvalidConversationError as error:
                out[at] = Unjudgeable("invalid_conversation", str(error))
        encoded = self._plain.encode_batch([shown(text) for text in texts.values()], add_special_tokens=False)
        for (at, text), encoding in zip(texts.items(), encoded, strict=True):
            out[at] = self._rows(text, encoding, coverage)
        return [row for row in out if row is not None]

    def _rows(self, text: str, encoding: Any, coverage: Coverage) -> Prepared | Pieces | Unjudgeable:
        ids = encoding.ids
        if not ids or not text.strip() or len(ids) < self.limits.min_tokens:
            return TextRow(())
        if len(ids) <= self.limits.size:
            share = self._unknown_of(ids, encoding.offsets)
            notes = noted(share)
            if share > MOST_UNKNOWN:
                return unreadable(share)
            return Pieces([self._row(ids)], [], notes) if notes else self._row(ids)
        return self._windows(ids, encoding.offsets, len(text), coverage)

    def _windows(self, ids: Sequence[int], offsets: Sequence[Span], n_chars: int, coverage: Coverage) -> Pieces | Unjudgeable:
        size, most = self.limits.size, self.limits.policy.most
        starts = starts_of(len(ids), size=size, overlap=self.limits.overlap)
        spans = [(offsets[at][0], offsets[at + size - 1][1]) for at in starts]
        spans[0], spans[-1] = (0, spans[0][1]), (spans[-1][0], n_chars)
        windows = covered(list(zip(starts, spans, strict=True)), coverage)
        if len(windows) > most:
            return Unjudgeable("too_long", f"it needs {len(windows)} windows, at most {most} are judged")
        kept = [span for _, span in windows]
        left_out = gaps(kept, n_chars)
        share = max(self._unknown_of(ids[at : at + size], offsets[at : at + size]) for at, _ in windows)
        if share > MOST_UNKNOWN:
            return unreadable(share)
        rows: list[Prepared] = [self._row(ids[at : at + size]) for at, _ in windows]
        return Pieces(rows, kept, ({"left_out": left_out} if left_out else {}) | noted(share))

    def _unknown_of(self, ids: Sequence[int], offsets: Sequence[Span]) -> float:
        """Return the share of unknown tokens in a row, or of their characters in its own if that is larger: one may hide many."""
        n = 0 if self._unknown is None else ids.count(self._unknown)
        if not n:
            return 0.0
        lengths = [end - start for start, end in offsets]
        hidden = sum(length for number, length in zip(ids, lengths, strict=True) if number == self._unknown)
        return max(n / len(ids), hidden / max(1, sum(lengths)))

    def _row(self, ids: Sequence[int]) -> TextRow:
        return TextRow((*self.frame.before, *ids, *self.frame.behind))


def noted(share: float) -> dict[str, Any]:
    """Return the note on a text of which this share is unknown."""
    return {"unknown_tokens": round(share, 2)} if share > NOTED else {}


def unreadable(share: float) -> Unjudgeable:
    """Return the error of a text that the model could not read: whatever it would say, it would say of something else."""
    return Unjudgeable("unreadable_text", f"{share:.0%} of a window is unknown to the model, at most {MOST_UNKNOWN:.0%} may be")


def shown(text: str) -> str:
    """Return the text as the tokenizer reads it; it has the same length in characters."""
    return readable(text).replace(NONCHARACTER, REPLACEMENT)


def reader_of(name: str, tokenizer: Any, limits_of: Any) -> TextReader:
    """Return a reader on clones of the tokenizer's core; `limits_of` makes the limits from the frame.

    Raises ConfigurationError if a text could use a special token all the same, or would be read differently without them.
    """
    from tokenizers import Tokenizer  # noqa: PLC0415 - comes with transformers; not needed to read this module

    core = getattr(tokenizer, "backend_tokenizer", None)
    if core is None:
        raise ConfigurationError(f"model {name!r} has no tokenizer.json: save its tokenizer as the fast kind there.")
    special = special_of(tokenizer)
    whole, plain = Tokenizer.from_str(core.to_str()), Tokenizer.from_str(json.dumps(_without(json.loads(core.to_str()), special)))
    for clone in (whole, plain):
        clone.no_padding()
        clone.no_truncation()
    frame = _frame(name, whole, plain)
    unknown = _unknown_id(json.loads(core.to_str())["model"], core)
    _require_spelled_out(name, plain, special)
    try:
        return TextReader(plain, frame, limits_of(frame), unknown)
    except ValueError as error:
        raise ConfigurationError(f"model {name!r} cannot judge texts: {error}.") from None


def special_of(tokenizer: Any) -> dict[str, int]:
    """Return the special tokens of a tokenizer, with their ids."""
    named = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
    return named | {str(token): number for number, token in tokenizer.added_tokens_decoder.items() if token.special}


def _unknown_id(model: dict[str, Any], core: Any) -> int | None:
    """Return the token of what a model of a tokenizer.json does not know; None if it has none, as those of bytes."""
    number: int | None = model.get("unk_id")
    if number is None and model.get("unk_token") is not None:
        number = core.token_to_id(model["unk_token"])
    return number


def _without(core: dict[str, Any], special: dict[str, int]) -> dict[str, Any]:
    """Return a tokenizer.json whose special tokens no text can spell; its ids stay."""
    model = dict(core["model"])
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, dict):
        model["vocab"] = {_hidden(token, special): number for token, number in vocabulary.items()}
    elif vocabulary:
        model["vocab"] = [[_hidden(token, special), score] for token, score in vocabulary]
    if model.get("unk_token"):
        model["unk_token"] = _hidden(model["unk_token"], special)
    added = [token for token in core["added_tokens"] if token["content"] not in special]
    return core | {"model": model, "added_tokens": added}


def _hidden(token: str, special: dict[str, int]) -> str:
    return NONCHARACTER + token if token in special else token


def _frame(name: str, whole: Any, plain: Any) -> Frame:
    """Return what the tokenizer puts around texts, after checking that it is the same around each, and that texts are the same."""
    frames = set()
    for probe in PROBES:
        inner = plain.encode(probe, add_special_tokens=False).ids
        outer = whole.encode(probe, add_special_tokens=True).ids
        at = next((i for i in range(len(outer) - len(inner) + 1) if outer[i : i + len(inner)] == inner), None)
        if at is None or not inner:
            raise ConfigurationError(f"model {name!r}: its tokenizer reads plain texts differently without its special tokens.")
        frames.add(Frame(tuple(outer[:at]), tuple(outer[at + len(inner) :])))
    if len(frames) != 1:
        raise ConfigurationError(f"model {name!r}: its tokenizer puts different special tokens around different texts.")
    return frames.pop()


def _require_spelled_out(name: str, plain: Any, special: dict[str, int]) -> None:
    unknown = plain.encode(NONCHARACTER + "\ue000", add_special_tokens=False).ids  # what it says of what it does not know
    refused = set(special.values()) - set(unknown)
    for token in special:
        for text in (token, f" {token} ", f"a{token}b", f"a {token} b", token * 2):
            if not refused.isdisjoint(plain.encode(shown(text), add_special_tokens=False).ids):
                raise ConfigurationError(f"model {name!r}: its tokenizer cannot spell out {token}, so a text could end the input.")
