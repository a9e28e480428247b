"""A policy as one model sees it: checked, tokenised, with the renderer of its texts."""

from guardfleet.errors import RejectedError
from worker.engine.decoding.modes import PROBES, shared_beginning
from worker.engine.decoding.policy_prefixes import Held
from worker.engine.families.family import Grammar
from worker.engine.model.loading import LoadedModel
from worker.engine.prompting.prompt import InvalidConversationError, Turns, messages_of
from worker.engine.prompting.prompt_policy import PromptPolicy
from worker.engine.prompting.under_policy import UnderPolicy
from worker.engine.prompting.windows import Policy
from worker.engine.rendering import MAX_NEW_TOKENS, Renderer

MOST_CHARS = 1 << 18  # of a policy: no tokenizer is asked about more
POLICY_SHARE = 2  # at most this fraction of a window goes to the policy
PROBE = PromptPolicy.of("1. No text about ships.")
OPENING_TOKENS = 32  # of what opens a reason


class PolicyPrompts:
    """Makes what `PolicyPrefixes` holds. `probe`: a policy to try the model with; None if it has one of its own."""

    def __init__(self, loaded: LoadedModel, grammar: Grammar, policy: Policy, token_bytes: int) -> None:
        self._prompter, self._family, self._grammar = loaded.prompter, loaded.family, grammar
        self._positions, self._windows, self._token_bytes = loaded.max_positions - OPENING_TOKENS, policy, token_bytes
        self.probe = None if loaded.family.is_complete else PROBE
        self.max_policy_tokens = min(self._positions - MAX_NEW_TOKENS, policy.tokens) // POLICY_SHARE

    def made(self, policy: PromptPolicy | None) -> Held:
        """Tokenise a policy; None: the template's own. Raises RejectedError if this model cannot judge by it."""
        self._require(policy)
        text = None if policy is None else policy.text
        prompts = UnderPolicy(self._prompter, text)
        conversations = self._shown(prompts)
        encoded = [one.ids for one in prompts.encode(conversations)]
        ids = shared_beginning(encoded)
        (frame,) = prompts.encode([(("user", ""),)])
        render = Renderer(prompts, max_positions=self._positions, policy=self._windows)
        return Held(render, ids, self._grammar.allowed(text), len(frame.ids), len(ids) * self._token_bytes)

    def _require(self, policy: PromptPolicy | None) -> None:
        if policy is None:
            if not self._family.is_complete:
                raise RejectedError("this model judges by a policy and has none of its own: give one.", param="policy")
            return
        if not self._family.takes_policy:
            raise RejectedError("this model's template shows no policy: use one that takes a policy, or give none.", param="policy")
        if not policy.text.strip():
            raise RejectedError("the policy is blank: say what it forbids, or give none.", param="policy")
        others = self._grammar.undefinable(policy.text)
        if others:
            new = ", ".join(sorted(self._grammar.own))
            raise RejectedError(f"the policy defines the labels {', '.join(others)}: new ones are {new}.", param="policy")
        n = self._prompter.length(policy.text) if len(policy.text) <= MOST_CHARS else None
        if n is None or n > self.max_policy_tokens:
            size = f"{len(policy.text)} characters" if n is None else f"{n} tokens"
            most = self.max_policy_tokens
            raise RejectedError(f"the policy has {size}, at most {most} tokens are allowed: shorten it.", param="policy")

    @staticmethod
    def _shown(prompts: UnderPolicy) -> list[Turns]:
        """Return the conversations of `PROBES` that the template shows whole."""
        out = []
        for probe in (probe for several in PROBES.values() for probe in several):
            try:
                out.append(prompts.shown_whole(messages_of(probe)))
            except InvalidConversationError:
                continue
        return out
