"""Which rows share a forward pass: a function of lengths and nothing else."""

from collections.abc import Sequence


def pack(lengths: Sequence[int], *, budget_tokens: int, max_rows: int) -> list[list[int]]:
    """Group row indices into batches of at most `budget_tokens` padded tokens (rows x longest) and `max_rows` rows.

    Sorted by length, so that rows of a batch are about equal and padding is small; longest first, so that a batch that does not
    fit in memory shows itself early. A row over the budget travels alone. Every index is in exactly one batch.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batches: list[list[int]] = []
    for i in order:
        last = batches[-1] if batches else None
        if last and len(last) < max_rows and lengths[last[0]] * (len(last) + 1) <= budget_tokens:
            last.append(i)
        else:
            batches.append([i])
    return batches


def halve(batch: Sequence[int], lengths: Sequence[int]) -> tuple[list[int], list[int]]:
    """Two parts of about equal tokens, for a batch that was too large; both non-empty when it has two rows or more."""
    total, taken, cut = sum(lengths[i] for i in batch), 0, 0
    for cut, i in enumerate(batch[:-1], 1):  # noqa: B007 - the place where the loop stops is the answer
        taken += lengths[i]
        if 2 * taken >= total:
            break
    return list(batch[:cut]), list(batch[cut:])
