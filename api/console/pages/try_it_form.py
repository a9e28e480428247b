"""What somebody who tries the guard asks: a text or a conversation, by whom it is judged, and what it is compared with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from api.console.asking import Ask
from guardfleet.domain.versions import name_of
from guardfleet.store import models
from guardfleet.store.policy import policies, prompt_policies

ROLES = ("system", "user", "assistant", "tool")
MOST_CHOICES = 200
ADD, DROP = "turn", "drop-"  # values of the button that was used


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn, as it was written."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """A form as it was sent. Without turns `text` is judged; `models` and `policies` have a second one if two are compared."""

    text: str = ""
    turns: tuple[Turn, ...] = ()
    models: tuple[str, str] = ("", "")
    policies: tuple[str, str] = ("", "")
    detectors: tuple[str, ...] = ()
    do: str = ""

    @property
    def row(self) -> dict[str, Any]:
        """The row that is judged."""
        if not self.turns:
            return {"text": self.text}
        return {"messages": [{"role": turn.role, "content": turn.content} for turn in self.turns]}

    @property
    def sides(self) -> list[tuple[str, str]]:
        """The model and the policy of each side; the second has what the first has, where it does not differ."""
        (model, other), (policy, another) = self.models, self.policies
        both = [(model, policy), (other or model, another or policy)]
        return both if other or another else both[:1]

    def edited(self) -> "Wanted | None":
        """Return the form with a turn more or less, if that is what was asked; else None."""
        if self.do == ADD and not self.turns:
            return replace(self, text="", turns=(Turn("user", self.text), Turn("assistant", "")))
        if self.do == ADD:
            role = "assistant" if self.turns[-1].role == "user" else "user"
            return replace(self, turns=(*self.turns, Turn(role, "")))
        if self.do.startswith(DROP):
            left = tuple(turn for at, turn in enumerate(self.turns) if f"{DROP}{at}" != self.do)
            return replace(self, turns=left) if len(left) > 1 else replace(self, turns=(), text="".join(t.content for t in left))
        return None


def wanted_of(fields: Sequence[tuple[str, str]]) -> Wanted:
    """Read the form. Browsers send line breaks as CR LF; the digests of the API are of texts with LF."""
    given = {name: value for name, value in fields if name not in ("role", "content", "detector")}

    def every(name: str) -> list[str]:
        return [value for key, value in fields if key == name]

    turns = zip(every("role"), map(_unix, every("content")), strict=False)
    return Wanted(
        _unix(given.get("text", "")),
        tuple(Turn(role, content) for role, content in turns),
        (given.get("model", ""), given.get("other_model", "")),
        (given.get("policy", ""), given.get("other_policy", "")),
        tuple(every("detector")),
        given.get("do", ""),
    )


def _unix(text: str) -> str:
    return text.replace("\r\n", "\n")


async def choices(ask: Ask) -> Mapping[str, Sequence[str]]:
    """Return what can be chosen: models and detectors that workers have served, and versions of policies."""
    tenant = ask.caller.tenant_id
    takes = await ask.of(models.served_detectors, ask.db)
    prompts = await ask.of(prompt_policies.page, ask.db, tenant, limit=MOST_CHOICES)
    newest = list(dict.fromkeys(name_of(version.label) for version in prompts))
    versions = await ask.of(policies.page, ask.db, tenant, after=None, limit=MOST_CHOICES) if ask.may("policies:read") else []
    return {
        "models": await ask.of(models.served, ask.db),
        "policies": [version.label for version in versions],
        "detectors": [
            entry
            for name, takes_policy in takes.items()
            for entry in (
                *([name] if takes_policy != "required" else []),
                *(f"{name}/{policy}" for policy in newest if takes_policy not in ("none", None)),
            )
        ],
    }


__all__ = ["ROLES", "Turn", "Wanted", "choices", "wanted_of"]
