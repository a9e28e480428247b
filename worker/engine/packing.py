"""Which rows share a forward pass: a function of lengths and nothing else."""

from collections.abc import Sequence

SHARE_TOKENS = 512  # worth a batch of its own on an idle stream


def pack(lengths: Sequence[int], *, budget_tokens: int, max_rows: int, padded: bool, streams: int = 1) -> list[list[int]]:
    """Group row indices into batches of at most `budget_tokens` and `max_rows` rows.

    A batch costs the sum of its lengths or, if it is `padded`, its rows times the longest.

    Sorted by length, so that rows of a batch are about equal and padding is small; longest first, so that a batch that does not
    fit in memory shows itself early. A row over the budget travels alone. Every index is in exactly one batch. Where batches run
    on several `streams`, too little for a full one on each is shared out.
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
    """Two parts of about equal tokens, for a batch that was too large; both non-empty when it has two rows or more."""
    total, taken, cut = sum(lengths[i] for i in batch), 0, 0
    for cut, i in enumerate(batch[:-1], 1):  # noqa: B007 - the place where the loop stops is the answer
        taken += lengths[i]
        if 2 * taken >= total:
            break
    return list(batch[:cut]), list(batch[cut:])
