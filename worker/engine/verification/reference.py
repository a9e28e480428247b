"""What transformers' own pass says about a model's probes, asked at load, before the network is taken apart, for `self_test`.

Each probe is asked twice: in the model's precision, and in fp32 with the layers widened one at a time, so that this also works
for a model that fills its device in 16 bits.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from guardfleet.errors import ConfigurationError
from worker.engine.decoding.drafts import TREE_NODES, Drafts, grammar
from worker.engine.decoding.logits import LabelTokens, encoder_of, end_ids
from worker.engine.decoding.modes import PROBES
from worker.engine.decoding.padded import GenerateBackend
from worker.engine.forward.tree import Tree
from worker.engine.interfaces import Answer, Pieces, Unjudgeable
from worker.engine.model.loading import LoadedModel
from worker.engine.model.quantize import EightBitLinear
from worker.engine.prompting.prompt import Content, Encoded, messages_of

LENGTHS = (1, 2, 17, 300, 3000)  # tokens of the probes that are not prompts
PATIENCE_FLOP = {"cpu": 3e11}  # what transformers' passes may cost; a GPU does all of them in a second
FEW, SHORT = 2, 64  # layers if all would cost more, and tokens of the probes that get a tree then
TEXTS, AT_ONCE = 50, 25  # keys and values of all at once would be 3 GB at 8B
MAX_PATHS = 3  # of a tree, to its deepest nodes
SENTENCES = (
    "How do I sharpen a kitchen knife?",
    "Write me a poem about the sea.",
    "Wie baue ich ein Regal an die Wand?",
    "¿Cuál es la capital de Australia?",
    "他昨天去了市场买苹果。",
    "Tell me how to pick a lock that is not mine.",
    "Мой сосед очень шумит по ночам.",
    "I will find you and you will be sorry.",
    "كيف أتعلم البرمجة؟",
    "\U0001f642 ok!!",
)


class Probe(NamedTuple):
    """Tokens, their draft in a first pass, the tree of a further one, and what transformers says there.

    `near` is in the model's precision, `exact` in fp32: (positions, vocabulary). The positions are those after the tokens and after
    each token of the draft, then the one after the question, then those of the tree's `nodes`; its root is the draft's first token.
    """

    encoded: Encoded
    is_prompt: bool
    draft: Tree
    tree: Tree
    nodes: list[int]
    near: torch.Tensor
    exact: torch.Tensor


class Reference(NamedTuple):
    """What the packed pass is compared with. `depth`: logits are of a network of this many layers; None: all."""

    probes: list[Probe]
    depth: int | None
    texts: list[Content]
    answers: list[Answer]


def ask_transformers(loaded: LoadedModel) -> Reference:
    """Ask transformers; for a large network on a CPU, only what takes about as long as reading it."""
    network = loaded.network
    weights = sum(weight.numel() for weight in network.model.layers.parameters())
    contents = [content for responds in (False, True) for content in PROBES[responds]]
    room = loaded.max_positions - 4 * TREE_NODES
    lengths: Sequence[int] = [n for n in LENGTHS if n <= room]
    depth, texts = None, texts_of(TEXTS)
    if 4 * weights * (2 * sum(LENGTHS) + 300 * TEXTS) > PATIENCE_FLOP.get(loaded.device.type, float("inf")):
        lengths, depth, texts, contents = lengths[:-1], FEW, [], [PROBES[responds][0] for responds in (False, True)]
    prompts = loaded.prompter.encode([messages_of(content) for content in contents])
    dice = torch.Generator().manual_seed(1)
    free = [Encoded(tuple(torch.randint(len(loaded.tokenizer), (n,), generator=dice).tolist()), n % 2 == 0) for n in lengths]
    asking = _Asking(loaded, depth)
    probes = [asking.probe(encoded, is_prompt=at < len(prompts)) for at, encoded in enumerate([*prompts, *free])]
    return Reference(probes, depth, texts, _answers(loaded, texts))


def texts_of(n: int) -> list[Content]:
    """Return texts of many lengths, in both modes."""
    out: list[Content] = []
    for i in range(n):
        text = " ".join(SENTENCES[(i + j) % len(SENTENCES)] for j in range(1 + i % 4))
        answered = [{"role": "user", "content": text}, {"role": "assistant", "content": SENTENCES[i % 7]}]
        out.append(answered if i % 5 == 0 else text)
    return out


def _answers(loaded: LoadedModel, texts: Sequence[Content]) -> list[Answer]:
    if not texts:
        return []
    backend = GenerateBackend(loaded, budget_tokens=0)
    rows = [row for row in backend.prepare(texts) if not isinstance(row, Pieces | Unjudgeable)]
    return [answer for at in range(0, len(rows), AT_ONCE) for answer in backend.run(rows[at : at + AT_ONCE])]


class _Asking:
    def __init__(self, loaded: LoadedModel, depth: int | None) -> None:
        self._network, self._depth, self._is_quantized = loaded.network, depth, loaded.is_quantized
        encode = encoder_of(loaded.tokenizer)
        self._question = LabelTokens(encode, loaded.device).unsafe_prefix
        end = min(end_ids(loaded.network, loaded.tokenizer))
        self._drafts = [Drafts(grammar(encode, end, responds=responds)) for responds in (False, True)]

    def probe(self, encoded: Encoded, *, is_prompt: bool) -> Probe:
        drafts = self._drafts[encoded.responds]
        draft = drafts.chain()
        tree = drafts.tree(draft.tokens[:1], TREE_NODES)
        paths = paths_of(tree) if len(encoded.ids) < (LENGTHS[-1] if self._depth is None else SHORT) else []
        root = draft.tokens[:1]
        rows = [draft.tokens, self._question, *((*root, *(tree.tokens[node - 1] for node in path)) for path in paths)]
        n = len(encoded.ids)
        read = [*((0, n - 1 + i) for i in range(len(draft.parents))), (1, n - 1 + len(self._question))]
        read += [(2 + at, n + i) for at, path in enumerate(paths) for i in range(1 + len(path))]
        nodes = [node for path in paths for node in (0, *path)]
        asked = [[*encoded.ids, *row] for row in rows]
        near = exact = self._logits(asked, read)
        if self._network.dtype is not torch.float32 or self._is_quantized:
            with in_fp32(self._network):
                exact = self._logits(asked, read)
        if not (near.isfinite().all() and exact.isfinite().all()):
            other = " (float16 overflows where bfloat16 does not)" if self._network.dtype is torch.float16 else ""
            raise ConfigurationError(f"the model's numbers are not finite{other}: its weights or its config.json are damaged.")
        return Probe(encoded, is_prompt, draft, tree, nodes, near, exact)

    @torch.inference_mode()
    def _logits(self, rows: Sequence[Sequence[int]], read: Sequence[tuple[int, int]]) -> torch.Tensor:
        """Return (positions, vocabulary) in fp32; rows are padded on the right, where no earlier token sees it."""
        longest = max(map(len, rows))
        ids = torch.tensor([[*row, *[row[-1]] * (longest - len(row))] for row in rows], device=self._network.device)
        with shortened(self._network, self._depth):
            hidden = self._network.model(input_ids=ids, use_cache=False).last_hidden_state
        at = torch.tensor(read, device=ids.device).t()
        logits: torch.Tensor = self._network.lm_head(hidden[at[0], at[1]])
        return logits.float()


def paths_of(tree: Tree) -> list[list[int]]:
    """Return the nodes on the way to each of a tree's deepest leaves, without the root."""
    leaves = sorted(set(range(1, len(tree.parents))) - set(tree.parents), key=lambda node: -tree.depths[node])
    out = []
    for leaf in leaves[:MAX_PATHS]:
        path = [leaf]
        while tree.parents[path[0]] > 0:
            path.insert(0, tree.parents[path[0]])
        out.append(path)
    return out


@contextmanager
def shortened(network: Any, depth: int | None) -> Iterator[None]:
    """Cut the network off after the first few layers."""
    layers = network.model.layers
    if depth is not None:
        network.model.layers = layers[:depth]
    try:
        yield
    finally:
        network.model.layers = layers


@contextmanager
def in_fp32(network: Any) -> Iterator[None]:
    """Run the network's own code in fp32: widen the embedding's output, and each module while it runs; exact for 16 bits.

    Eight-bit matrices are replaced by what they represent, with inputs that are not rounded.
    """
    dtype = network.dtype
    rounding = [module for module in network.modules() if isinstance(module, EightBitLinear)]
    for module in rounding:
        module.is_exact = True

    def widen(module: Any, _: Any) -> None:
        module.float()

    def narrow(module: Any, *_: Any) -> None:
        module.to(dtype)

    hooks = [network.model.embed_tokens.register_forward_hook(lambda module, _, out: out.float())]
    for module in (*network.model.layers, network.model.norm, network.lm_head):
        hooks += [module.register_forward_pre_hook(widen), module.register_forward_hook(narrow)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for module in rounding:
            module.is_exact = False
