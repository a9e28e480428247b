"""A policy as its pages have it: read and checked, written again, and what it asks for that nobody has."""

from dataclasses import dataclass, field
from typing import Any

from api.body.policy_document import policy_of
from api.console.asking import Ask
from guardfleet.policy import writing
from guardfleet.policy.document import Policy
from guardfleet.policy.reading import PolicyError
from guardfleet.store import models
from guardfleet.store.policy import lists, policies
from guardfleet.store.policy.policies import Version

MOST_SHOWN = 100  # problems of a page
MOST_LINE = 160  # characters of a line that is quoted


@dataclass(frozen=True)
class Problem:
    """What is wrong with a document: in which line (0: in none), what stands there, where that is, and the cause."""

    line: int
    text: str
    where: str
    cause: str


@dataclass(frozen=True)
class Checked:
    """A document that was read: the policy, or what is wrong with it; and names that nobody has, which is no mistake yet."""

    policy: Policy | None
    problems: list[Problem] = field(default_factory=list)
    n_problems: int = 0
    unknown_lists: list[str] = field(default_factory=list)
    unknown_detectors: list[str] = field(default_factory=list)


async def checked(ask: Ask, text: str) -> Checked:
    """Read a document, as every face does."""
    try:
        policy = await policy_of(ask.context, text)
    except PolicyError as error:
        lines = text.split("\n")
        problems = [
            Problem(one.line, lines[one.line - 1][:MOST_LINE] if 0 < one.line <= len(lines) else "", one.where, one.cause)
            for one in error.problems[:MOST_SHOWN]
        ]
        return Checked(None, problems, len(error.problems))
    return Checked(policy, **await unknown(ask, policy))


async def unknown(ask: Ask, policy: Policy) -> dict[str, Any]:
    """Return the lists that a policy asks for and nobody has stored, and the detectors that no worker has ever served."""
    return {
        "unknown_lists": await ask.of(lists.unknown, ask.db, ask.caller.tenant_id, policy.lists),
        "unknown_detectors": await ask.of(models.unknown_detectors, ask.db, policy.detectors),
    }


async def version_of(ask: Ask, label: str | None = None) -> Version:
    """Return the version that the path, or a label, names. Raises NotFoundError, for another tenant's too."""
    named = label or f"{ask.path['name']}@{ask.path['version']}"
    return await ask.of(policies.get, ask.db, ask.caller.tenant_id, named)


def understood(version: Version) -> Policy | None:
    """Return the policy of a version; None if only a newer release knows what it says."""
    try:
        return version.policy
    except ValueError:
        return None


def written(version: Version) -> str:
    """Return a version's document as it can be read again."""
    policy = understood(version)
    return writing.of_value(version.document) if policy is None else writing.write(policy)
