"""A decision: what a policy says to do with a text, as every face tells it."""

from dataclasses import dataclass
from typing import Literal, get_args

ActionName = Literal["allow", "flag", "review", "block"]
ACTIONS: tuple[ActionName, ...] = get_args(ActionName)  # mild to grave


@dataclass(frozen=True, slots=True)
class Decision:
    """The action, the policy as name@version, and the rule that fired with its reason and labels; no rule: the policy's default."""

    action: str
    policy: str
    rule: str | None = None
    reason: str | None = None
    labels: tuple[str, ...] = ()
