"""Driving the packed engine by hand, and the reference that it is compared with."""

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from worker.engine.decoding.model_runner import PackedBackend
from worker.engine.forward.tree import Tree
from worker.engine.interfaces import Answer, Prepared, Unjudgeable
from worker.engine.model.loading import LoadedModel
from worker.engine.prompting.prompt import Content, messages_of

T = TypeVar("T")
BUDGET = 8192


def elsewhere(compute: Callable[[], T]) -> T:
    """Compute in a thread that ends: the OpenMP team of a live thread would halve the engine's speed (`factory.make_backend`)."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(compute).result()


def generate(loaded: LoadedModel, contents: Sequence[Content], rows: int = 32) -> list[str]:
    """The reference: the library's own loop over the whole prompts, sorted by length and padded on the left."""
    prompts = [encoded.ids for encoded in loaded.prompter.encode([messages_of(content) for content in contents])]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    out: dict[int, str] = {}
    pad = loaded.tokenizer.pad_token_id
    for some in batched(order, rows):
        longest = max(len(prompts[i]) for i in some)
        ids = torch.tensor([[pad] * (longest - len(prompts[i])) + list(prompts[i]) for i in some])
        mask = torch.tensor([[0] * (longest - len(prompts[i])) + [1] * len(prompts[i]) for i in some])
        with torch.inference_mode():
            new = loaded.network.generate(ids, attention_mask=mask, max_new_tokens=128, do_sample=False, pad_token_id=pad)
        out |= zip(some, loaded.tokenizer.batch_decode(new[:, longest:], skip_special_tokens=True), strict=True)
    return [out[i] for i in range(len(contents))]


def batched(order: list[int], n: int) -> list[tuple[int, ...]]:
    """Chunks of `n`."""
    return [tuple(order[at : at + n]) for at in range(0, len(order), n)]


def drive(backend: PackedBackend, rows: Sequence[Prepared | Unjudgeable], sizes: Sequence[int] = (64,)) -> list[Answer]:
    """Run rows in batches of the given sizes, in turn; rows that need a further pass are queued after the others."""
    todo = [(i, row) for i, row in enumerate(rows) if not isinstance(row, Unjudgeable)]
    out: dict[int, Answer] = {}
    for size in itertools.cycle(sizes):
        batch, todo = todo[:size], todo[size:]
        if not batch:
            return [out[i] for i in range(len(rows))]
        for (i, _), done in zip(batch, backend.run([row for _, row in batch]), strict=True):
            if isinstance(done, Answer):
                out[i] = done
            else:
                todo.append((i, done))
    raise AssertionError


def draft_always(backend: PackedBackend, tree: Tree) -> None:
    """Draft this answer after every prompt, whatever the answers are."""
    for mode in backend.modes:
        mode.learns, mode.draft = False, tree
