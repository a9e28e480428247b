"""Where to cut a text that is too long for one prompt: a function of its tokens' offsets only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

Coverage = Literal["windows", "head", "tail", "ends"]  # all of it, or the part that the caller wants judged
Span = tuple[int, int]  # characters, end exclusive
Window = TypeVar("Window")


@dataclass(frozen=True, slots=True)
class Policy:
    """How long texts are judged. `tokens`: of one prompt, including the policy; `overlap`: tokens that adjacent windows share."""

    tokens: int = 8192
    overlap: int = 512
    most: int = 64
    coverage: Coverage = "windows"


DEFAULT_POLICY = Policy()


def cut(offsets: Sequence[Span], n_chars: int, *, size: int, overlap: int) -> list[Span]:
    """Return windows of at most `size` tokens over a text of `n_chars` characters; adjacent ones share at least `overlap` tokens.

    `offsets` are each token's characters, in order. Every character is in some window, and anything up to `overlap` tokens is
    completely in one. There are as few windows as possible, with about equal overlaps. Raises ValueError if windows would not
    advance.
    """
    starts = starts_of(len(offsets), size=size, overlap=overlap)
    if len(starts) == 1:
        return [(0, n_chars)]
    spans = [(offsets[at][0], offsets[at + size - 1][1]) for at in starts]
    spans[0] = (0, spans[0][1])
    spans[-1] = (spans[-1][0], n_chars)
    return spans


def starts_of(n_tokens: int, *, size: int, overlap: int) -> list[int]:
    """Return the first token of each window that `cut` makes. Raises ValueError if windows would not advance."""
    if not 0 < overlap < size:
        raise ValueError(f"windows of {size} tokens cannot overlap by {overlap}")
    rest = max(0, n_tokens - size)  # tokens after the first window; also where the last begins
    more = -(-rest // (size - overlap))
    return [i * rest // more for i in range(more + 1)] if more else [0]


def covered(windows: Sequence[Window], coverage: Coverage) -> list[Window]:
    """Return the windows to judge."""
    if coverage == "head":
        return [windows[0]]
    if coverage == "tail":
        return [windows[-1]]
    if coverage == "ends":
        return [windows[0], windows[-1]] if len(windows) > 1 else list(windows)
    return list(windows)


def gaps(spans: Sequence[Span], n_chars: int) -> list[Span]:
    """Return what no window covers."""
    out: list[Span] = []
    reached = 0
    for start, end in spans:
        if start > reached:
            out.append((reached, start))
        reached = max(reached, end)
    return [*out, (reached, n_chars)] if reached < n_chars else out
