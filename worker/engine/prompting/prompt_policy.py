"""The policy that a caller gives with its texts, for models that take one in the prompt."""

import hashlib
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class PromptPolicy:
    """A policy's text, and SHA-256 of it, by which its prefix is found. Raises ValueError if one is not the other's.

    A digest that is only claimed could judge one tenant's texts by another's policy.
    """

    text: str
    digest: str

    def __post_init__(self) -> None:
        if self.digest != _digest(self.text):
            raise ValueError("the digest is not of this policy's text")

    @classmethod
    def of(cls, text: str) -> Self:
        """Build from a text."""
        return cls(text, _digest(text))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
