"""What prompts under a policy begin with: token ids, and keys and values that are computed once and kept while there is room.

Threads that tokenise ask for a policy; the engine's thread computes and is the only one to touch keys and values. A policy is never
dropped while a row of it is under way, so that no row loses what it was made for: then the limits are exceeded, and the next call
makes room. Rows hold a `Use`; a row that was dropped with its request lets go of its policy as one that was answered does.
"""

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from worker.engine.forward.geometry import Prefix
from worker.engine.prompting.prompt_policy import PromptPolicy
from worker.engine.rendering import Renderer

MOST_POLICIES, MOST_BYTES = 64, 1 << 30


class Use:
    """A row's hold on its policy."""

    __slots__ = ("__weakref__", "held")

    def __init__(self, held: "Held") -> None:
        self.held = held


@dataclass(eq=False)
class Held:
    """A policy as this model sees it. `prefix` is None until a row of it first comes to the device."""

    render: Renderer
    ids: tuple[int, ...]
    allowed: tuple[bool, ...]
    n_frame: int  # tokens of a prompt around its text
    n_bytes: int
    prefix: Prefix | None = None
    uses: "weakref.WeakSet[Use]" = field(default_factory=weakref.WeakSet)

    def used(self) -> Use:
        """Return a hold on it for the rows of one call."""
        use = Use(self)
        self.uses.add(use)
        return use


class PolicyPrefixes:
    """The latest policies by digest. `make` tokenises one, in the caller's thread, and may refuse it.

    `most` policies and `most_bytes` of keys and values are kept beside those that rows need.
    """

    def __init__(
        self, make: Callable[[PromptPolicy | None], Held], *, most: int = MOST_POLICIES, most_bytes: int = MOST_BYTES
    ) -> None:
        self._make, self._most, self._most_bytes = make, most, most_bytes
        self._held: OrderedDict[str, Held] = OrderedDict()
        self._lock = threading.Lock()

    def used(self, policy: PromptPolicy | None) -> Use:
        """Return a hold on the policy's prefix; two threads that ask for a new one at once share the first that is made."""
        key = policy.digest if policy else ""
        with self._lock:
            held = self._held.get(key)
        held = held or self._make(policy)
        with self._lock:
            held = self._held.setdefault(key, held)
            self._held.move_to_end(key)
            use = held.used()
            self._make_room()
            return use

    def __contains__(self, policy: PromptPolicy | None) -> bool:
        return (policy.digest if policy else "") in self._held

    def __len__(self) -> int:
        return len(self._held)

    @property
    def n_bytes(self) -> int:
        """The keys and values of all that are kept, computed yet or not."""
        return sum(held.n_bytes for held in self._held.values())

    def _make_room(self) -> None:
        """Drop the policies that were not asked for longest and that no row needs."""
        for key, held in list(self._held.items()):
            if len(self._held) <= self._most and self.n_bytes <= self._most_bytes:
                return
            if not held.uses:
                del self._held[key]
