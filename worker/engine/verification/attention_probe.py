"""Check that attention sees the right keys and no others, with numbers that make each key distinguishable.

In a network's logits, one key of a thousand is lost in the rounding of 16 bits. Here queries are large, so that each looks at few
keys: if one of these is missing, or there is one too many, the mixture is entirely different.
"""

from typing import NamedTuple

import numpy as np
import torch

from worker.engine.forward.attention import VarlenAttention, Workspace
from worker.engine.forward.cpu_attention import HeadwiseAttention, RowwiseAttention
from worker.engine.forward.geometry import Prefix, Rows
from worker.engine.forward.tree import Tree
from worker.engine.forward.tree_attention import TreeAttention
from worker.engine.forward.varlen import attend
from worker.engine.model.shape import Shape

PREFIX = 201
LENGTHS, TAILS, ASIDES, SKIPS = (1, 2, 40, 300, 3000, 130), (1, 1, 8, 13, 8, 3), (0, 1, 4, 4, 4, 0), (0, 0, 5, 9, 5, 0)
LAST_WITHOUT_PREFIX = 2  # rows
CONTEXTS = (1, 120, 3000, 60)
TREES = (Tree(), Tree.chain([1, 2, 3]), Tree((1, 2, 3, 4), (-1, 0, 0, 1, 2)), Tree((1, 2), (-1, 0, 0)))
SHARP = 4.0  # the queries' size
SAMPLED = 8  # queries per row that are checked, besides its first and as many of its last
STEPS = 8  # of the format that a mixture may be off, relative to its weighted values; parts are rounded before they are merged
LEAST = 2.0**-12  # the same if the format is finer than the scores


Causal = type[VarlenAttention | HeadwiseAttention | RowwiseAttention]


class _Query(NamedTuple):
    """A query's index, and the indices of the keys it should see."""

    at: int
    keys: list[int]


def misses(causal: Causal, like: Workspace) -> str | None:
    """Return what is wrong with the attention of first or further passes; None: nothing. `like`: a workspace to imitate."""
    shape = like.shape._replace(layers=1)
    dice = torch.Generator(device=like.device).manual_seed(1)
    for name, wrong in (("of prompts", _prompts(causal, like, shape, dice)), ("of trees", _trees(like, shape, dice))):
        if wrong:
            return f"{name} {wrong}"
    return None


def _prompts(causal: Causal, like: Workspace, shape: Shape, dice: torch.Generator) -> str | None:
    prefixes = [_prefix(PREFIX, like, shape, dice)] * (len(LENGTHS) - LAST_WITHOUT_PREFIX)
    prefixes += [_prefix(0, like, shape, dice)] * LAST_WITHOUT_PREFIX
    n = sum(LENGTHS)
    q, k, v = _normal((n, shape.heads), like, dice) * SHARP, *(_normal((n, shape.kv_heads), like, dice) for _ in range(2))
    attention = causal(Workspace(shape, like.device, like.dtype), Rows(LENGTHS, TAILS, prefixes, ASIDES, SKIPS))
    attention.store(0, 0, k, v)
    attention.ask(0, q)
    of_all = attention.mix(0, reads_only=False).view(-1, shape.heads, shape.head_dim)[:n].clone()
    read = [token for tokens in _read() for token in tokens]
    attention.ask(0, q[read])
    of_read = attention.mix(0, reads_only=True).view(-1, shape.heads, shape.head_dim)[: len(read)]
    keys, values = (torch.cat([part, own]) for part, own in zip(prefixes[0].kv[0].transpose(1, 2), (k, v), strict=True))
    sampled = [query for queries in _seen() for query in queries]
    wrong = _off(q, keys, values, of_all, sampled)
    if wrong is None:
        indices = {token: index for index, token in enumerate(read)}
        again = [_Query(indices[query.at], query.keys) for query in sampled if query.at in indices]
        wrong = _off(q[read], keys, values, of_read, again)
    return wrong


def _read() -> list[list[int]]:
    """Return the tokens of each row that are read."""
    out, start = [], 0
    for length, tail, aside in zip(LENGTHS, TAILS, ASIDES, strict=True):
        middle = start + length - aside
        out.append([*range(middle - tail, middle), *([start + length - 1] if aside else [])])
        start += length
    return out


def _seen() -> list[list[_Query]]:
    """Return some tokens of each row, with the keys they should see; the prefix's come first."""
    dice, out, start = np.random.default_rng(1), [], 0
    for i, (length, aside, skip) in enumerate(zip(LENGTHS, ASIDES, SKIPS, strict=True)):
        prefix = list(range(PREFIX)) if i < len(LENGTHS) - LAST_WITHOUT_PREFIX else []
        middle, own = length - aside, PREFIX + start
        some = {0, middle - 1, length - 1, *range(max(0, length - SAMPLED), length), *dice.integers(0, length, SAMPLED).tolist()}
        queries = []
        for at in sorted(some):
            before = range(at + 1) if at < middle else [*range(middle - skip), *range(middle, at + 1)]
            queries.append(_Query(start + at, [*prefix, *(own + key for key in before)]))
        out.append(queries)
        start += length
    return out


def _trees(like: Workspace, shape: Shape, dice: torch.Generator) -> str | None:
    prefixes = [_prefix(PREFIX, like, shape, dice)] * (len(TREES) - 1) + [_prefix(0, like, shape, dice)]
    contexts = [_normal((1, 2, shape.kv_heads, n), like, dice) for n in CONTEXTS]
    n = sum(len(tree.parents) for tree in TREES)
    q, k, v = _normal((n, shape.heads), like, dice) * SHARP, *(_normal((n, shape.kv_heads), like, dice) for _ in range(2))
    attention = TreeAttention(Workspace(shape, like.device, like.dtype), prefixes, contexts, TREES)
    attention.store(0, 0, k, v)
    attention.ask(0, q)
    found = attention.mix(0, reads_only=False).view(-1, shape.heads, shape.head_dim)
    parts = [prefixes[0].kv[0], *(context[0] for context in contexts)]
    keys, values = (torch.cat([*(part[of].transpose(0, 1) for part in parts), own]) for of, own in ((0, k), (1, v)))
    sampled, context, node = [], PREFIX, PREFIX + sum(CONTEXTS)
    for i, tree in enumerate(TREES):
        known = [*(range(PREFIX) if prefixes[i].n else ()), *range(context, context + CONTEXTS[i])]
        for at in range(len(tree.parents)):
            line, up = [], at
            while up >= 0:
                line.append(node + up)
                up = tree.parents[up]
            sampled.append(_Query(node + at - PREFIX - sum(CONTEXTS), [*known, *line]))
        context += CONTEXTS[i]
        node += len(tree.parents)
    return _off(q, keys, values, found, sampled)


def _off(q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, found: torch.Tensor, sampled: list[_Query]) -> str | None:
    """Return where a mixture is off by more than rounding explains, or None."""
    allowed = STEPS * torch.finfo(q.dtype).eps + LEAST
    for at, seen in sampled:
        k, v = keys[seen].float(), values[seen].float()
        wide = q[at : at + 1].float()
        right, weight = attend(wide, k, v, None)[0], attend(wide, k, v.abs(), None)[0]
        if not ((found[at : at + 1].float() - right).abs() <= allowed * weight).all():
            return f"does not see the {len(seen)} keys that token {at} should"
    return None


def _normal(sizes: tuple[int, ...], like: Workspace, dice: torch.Generator) -> torch.Tensor:
    """Return normally distributed numbers, (*sizes, head_dim)."""
    made = torch.randn(*sizes, like.shape.head_dim, generator=dice, device=like.device)
    return made.to(like.dtype)


def _prefix(n: int, like: Workspace, shape: Shape, dice: torch.Generator) -> Prefix:
    return Prefix(tuple(range(n)), _normal((1, 2, shape.kv_heads, n), like, dice))
