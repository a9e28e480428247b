"""Whether the packed pass over policies agrees with transformers' own forward, checked at load: nothing else can judge by them."""

from typing import NamedTuple

import torch

from guardfleet.errors import ConfigurationError
from worker.engine.decoding.decision_pass import DecisionPass, PolicyRow
from worker.engine.decoding.policy_runner import PolicyBackend
from worker.engine.interfaces import SelfTestError
from worker.engine.model.loading import LoadedModel
from worker.engine.prompting.prompt import Content, messages_of
from worker.engine.prompting.prompt_policy import PromptPolicy
from worker.engine.prompting.under_policy import UnderPolicy
from worker.engine.verification.attention_probe import misses
from worker.engine.verification.reference import FEW, PATIENCE_FLOP, SENTENCES, in_fp32, shortened
from worker.engine.verification.self_test import spread

TEXTS: tuple[Content, ...] = (
    *SENTENCES[:3],
    " ".join(SENTENCES),
    [*({"role": "user", "content": text} for text in SENTENCES[3:4])],
)
RULES = ("1. No text about ships.", "1. No text about knives.\n2. Nobody may write about the sea or about poems.")


class Asked(NamedTuple):
    """A prompt, and what transformers says after it: (1, vocabulary), in the model's precision and in fp32."""

    policy: PromptPolicy | None
    content: Content
    near: torch.Tensor
    exact: torch.Tensor


class Every(NamedTuple):
    """All of them together: (prompts, vocabulary). One prompt's logits can be near fp32's by chance, all of them cannot."""

    near: torch.Tensor
    exact: torch.Tensor


class PolicyReference(NamedTuple):
    """`depth`: the logits are of a network of this many layers; None: all."""

    asked: list[Asked]
    depth: int | None

    def spread(self) -> float:
        """Return how far logits may be off, by what all prompts say of the precision."""
        every = Every(torch.cat([asked.near for asked in self.asked]), torch.cat([asked.exact for asked in self.asked]))
        return spread(every.exact, every)[1]


def ask_transformers(loaded: LoadedModel) -> PolicyReference:
    """Ask transformers before the network is taken apart; for a large one on a CPU, only its first layers."""
    policies: list[PromptPolicy | None] = [PromptPolicy.of(rules) for rules in RULES] if loaded.family.takes_policy else []
    if loaded.family.is_complete:
        policies.append(None)
    prompts = [
        (policy, content, UnderPolicy(loaded.prompter, policy.text if policy else None).encode([messages_of(content)])[0].ids)
        for policy in policies
        for content in TEXTS
    ]
    weights = sum(weight.numel() for weight in loaded.network.model.layers.parameters())
    cost = 4 * weights * sum(len(ids) for _, _, ids in prompts)
    depth = FEW if cost > PATIENCE_FLOP.get(loaded.device.type, float("inf")) else None
    return PolicyReference([_asked(loaded, policy, content, ids, depth) for policy, content, ids in prompts], depth)


def _asked(loaded: LoadedModel, policy: PromptPolicy | None, content: Content, ids: tuple[int, ...], depth: int | None) -> Asked:
    near = exact = _last_logits(loaded, ids, depth)
    if loaded.network.dtype is not torch.float32 or loaded.is_quantized:
        with in_fp32(loaded.network):
            exact = _last_logits(loaded, ids, depth)
    if not (near.isfinite().all() and exact.isfinite().all()):
        raise ConfigurationError("the model's numbers are not finite: its weights or its config.json are damaged.")
    return Asked(policy, content, near, exact)


@torch.inference_mode()
def _last_logits(loaded: LoadedModel, ids: tuple[int, ...], depth: int | None) -> torch.Tensor:
    with shortened(loaded.network, depth):
        hidden = loaded.network.model(input_ids=torch.tensor([ids], device=loaded.device), use_cache=False).last_hidden_state
    logits: torch.Tensor = loaded.network.lm_head(hidden[0, -1:])
    return logits.float()


@torch.inference_mode()
def hold(backend: PolicyBackend, reference: PolicyReference) -> None:
    """Compare, rows of all policies in one batch. Raises SelfTestError with what differs."""
    missed = misses(backend.causal, backend.workspace())
    if missed:
        raise SelfTestError(f"the packed pass's attention {missed}")
    prepared = [backend.prepare([asked.content], None, asked.policy)[0] for asked in reference.asked]
    rows = [row for row in prepared if isinstance(row, PolicyRow)]
    if len(rows) < len(prepared):
        raise SelfTestError("a short text under a short policy does not fit into one prompt")
    laid = DecisionPass(rows, [backend.prefix_of(row) for row in rows])
    geometry = laid.geometry
    attention = backend.causal(backend.workspace(), geometry)
    hidden = backend.passes.hidden(laid.ids, geometry.positions(), geometry.reads(), attention, reference.depth)
    logits = backend.network.logits(hidden).float()
    least = reference.spread()
    for at, i in enumerate(laid.order):
        off, own = spread(logits[at : at + 1], reference.asked[i])
        allowed = max(own, least)
        if not off <= allowed:
            raise SelfTestError(f"the packed pass is off by {off:.3g} from the model's own; this precision allows {allowed:.3g}")
