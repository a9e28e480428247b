"""Likely answers of the model, as token ids: drafts that one forward pass verifies, instead of a pass per token.

A draft never changes an answer, only how many passes it takes. The tree starts from the grammar and learns from real answers.
"""

import heapq
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from guardfleet.domain.verdict import CATEGORY_NAMES, Category
from worker.engine.answer import LABELS, Parsed, render
from worker.engine.forward.tree import Tree

SEED_WEIGHT = 1.0  # of an unseen answer of the grammar; safe answers start higher, as most texts are safe
SAFE_WEIGHT = 100.0
FORGET_AT = 20_000.0  # observed weight at which all weights are halved, so that the tree follows a change of the texts
MAX_NODES = 4096
TREE_NODES = 16  # per row in a further pass
WORTHWHILE = 0.02  # a less likely node is not drafted: it would cost more than it saves


@dataclass(slots=True)
class _Node:
    weight: float = 0.0
    next: dict[int, "_Node"] = field(default_factory=dict)


class Drafts:
    """Answers of one mode, weighted by how often they were seen. Used by the engine thread only."""

    def __init__(self, seeds: Iterable[tuple[Sequence[int], float]]) -> None:
        self._root = _Node()
        self._nodes = 1
        self._trees: dict[tuple[int, ...], Tree] = {}  # valid until the next answer is learned
        for tokens, weight in seeds:
            self._add(tokens, weight)

    def observe(self, tokens: Sequence[int], times: int = 1) -> None:
        """Learn from a complete answer, including its end token, that was seen `times` times."""
        self._trees.clear()
        self._add(tokens, float(times))
        if self._root.weight > FORGET_AT:
            self._halve(self._root)

    def chain(self) -> Tree:
        """Return the likeliest answer without its end token, which is predicted, not fed."""
        out, node = [], self._root
        while node.next:
            token, node = max(node.next.items(), key=lambda item: (item[1].weight, -item[0]))
            out.append(token)
        return Tree.chain(out[:-1])

    def tree(self, begun: Sequence[int], most: int) -> Tree:
        """Return at most `most` likely nodes after the beginning of an answer, likeliest first; empty if none was seen.

        Rows with the same beginning share one tree.
        """
        key = (most, *begun)
        if key not in self._trees:
            self._trees[key] = self._grown(begun, most)
        return self._trees[key]

    def _grown(self, begun: Sequence[int], most: int) -> Tree:
        node = self._root
        for token in begun:
            if token not in node.next:
                return Tree()
            node = node.next[token]
        tokens: list[int] = []
        parents: list[int] = [-1]
        order = itertools.count()  # breaks ties of weights by age, because nodes cannot be compared
        open_nodes = [(-child.weight, next(order), token, 0, child) for token, child in node.next.items() if child.next]
        heapq.heapify(open_nodes)
        while open_nodes and len(tokens) < most:
            weight, _, token, parent, child = heapq.heappop(open_nodes)
            if -weight < WORTHWHILE * node.weight:
                break
            tokens.append(token)
            parents.append(parent)
            for after, grandchild in child.next.items():
                if grandchild.next:  # an end token is predicted, not fed
                    heapq.heappush(open_nodes, (-grandchild.weight, next(order), after, len(tokens), grandchild))
        return Tree(tuple(tokens), tuple(parents))

    def _add(self, tokens: Sequence[int], weight: float) -> None:
        node = self._root
        node.weight += weight
        for token in tokens:
            if token not in node.next:
                if self._nodes >= MAX_NODES:
                    return
                node.next[token] = _Node()
                self._nodes += 1
            node = node.next[token]
            node.weight += weight

    def _halve(self, node: _Node) -> None:
        node.weight /= 2
        for child in node.next.values():
            self._halve(child)


def grammar(encode: Callable[[str], Sequence[int]], end: int, *, responds: bool) -> list[tuple[list[int], float]]:
    """Return every answer with one severity and at most one category, as tokens with the end, and its initial weight."""
    out = []
    for severity in LABELS.values():
        for category in (Category.NONE, *CATEGORY_NAMES):
            if (severity == 0) != (category is Category.NONE) or (responds and category is Category.JAILBREAK):
                continue
            for refusal in (False, True) if responds else (None,):
                weight = SAFE_WEIGHT if severity == 0 and not refusal else SEED_WEIGHT
                out.append(([*encode(render(Parsed(severity, category, refusal))), end], weight))
    return out
