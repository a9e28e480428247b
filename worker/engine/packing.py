"""Which rows share a forward pass: a function of their lengths only."""

from collections.abc import Sequence

SHARE_TOKENS = 512  # worth a batch of its own on an idle stream


def pack(lengths: Sequence[int], *, budget_tokens: int, max_rows: int, padded: bool, streams: int = 1) -> list[list[int]]:
    """Group row indices into batches of at most `budget_tokens` and `max_rows` rows.

    A batch costs the sum of its lengths or, if it is `padded`, its rows times the longest.

    Rows are sorted by length, so that padding is small; longest first, so that a batch that does not fit in memory shows early. A
    row over the budget gets a batch of its own. Every index is in exactly one batch. With several `streams`, work that does not
    fill a batch on each is shared between them.
    """
    if streams > 1:
        budget_tokens = min(budget_tokens, max(SHARE_TOKENS, -(-sum(lengths) // streams)))
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batches: list[list[int]] = []
    cost = 0
    for i in order:
        more = lengths[batches[-1][0]] if padded and batches else lengths[i]
        if batches and len(batches[-1]) < max_rows and cost + more <= budget_tokens:
            batches[-1].append(i)
            cost += more
        else:
            batches.append([i])
            cost = lengths[i]
    return batches


def halve(batch: Sequence[int], lengths: Sequence[int]) -> tuple[list[int], list[int]]:
    """Split a batch that was too large into two parts of about equal tokens; both non-empty if it has two rows or more."""
    total, taken, cut = sum(lengths[i] for i in batch), 0, 0
    for cut, i in enumerate(batch[:-1], 1):  # noqa: B007 - the index where the loop stops is the result
        taken += lengths[i]
        if 2 * taken >= total:
            break
    return list(batch[:cut]), list(batch[cut:])
