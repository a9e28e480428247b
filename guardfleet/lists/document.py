"""A list and its entries, as their owner writes them (docs/lists.md)."""

import hashlib
import re
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from guardfleet.domain.verdict import Category, Severity, categories_of
from guardfleet.lists.patterns import compiled
from guardfleet.lists.terms import require_term, words_of
from guardfleet.policy.document import WORD, CategoryName

MOST_ENTRIES = 250_000
MOST_PATTERNS = 1000
MOST_CHARACTERS = 4000  # of an entry
ID_HEX_DIGITS = 12
DIGEST = re.compile(r"[0-9a-f]{64}")
Kind = Literal["term", "pattern", "text", "digest"]
WHOLE: tuple[Kind, ...] = ("text", "digest")  # kinds that are the text, and not in it


def _in_small(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


class Entry(BaseModel):
    """What is looked for, and what a hit means.

    `term`: words, seen through disguises; `pattern`: RE2's syntax; `text`: the whole text, by its letters; `digest`: the SHA-256 of
    the whole text in UTF-8, in hex. `decide`: the text gets this severity without a model; otherwise the hit is noted, and policies
    can ask for it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind = "term"
    value: str = Field(min_length=1, max_length=MOST_CHARACTERS)
    id: str = Field("", pattern=rf"^$|{WORD}")
    anywhere: bool = False  # of a term: within words too
    exact: bool = False  # of a term: no disguises, no repeated letters
    decide: Annotated[Literal["safe", "controversial", "unsafe"], BeforeValidator(_in_small)] | None = None
    categories: tuple[CategoryName, ...] = ()  # type: ignore[valid-type]

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        if self.kind == "digest" and not DIGEST.fullmatch(self.value):
            raise ValueError("a digest is the SHA-256 of a text: 64 digits of 0-9 and a-f")
        if self.kind == "pattern":
            compiled(self.value)
        if self.kind == "term":
            require_term(self.value)
        if self.kind == "text" and not words_of(self.value):
            raise ValueError("there is no letter and no digit in it")
        if (self.anywhere or self.exact) and self.kind != "term":
            raise ValueError("only a term can be `anywhere` or `exact`")
        if self.decide == "safe" and self.kind not in WHOLE:
            raise ValueError("what a text holds makes it not safe as a whole: only a `text` or a `digest` can decide `safe`")
        if self.categories and self.decide not in ("controversial", "unsafe"):
            raise ValueError("categories need `decide` controversial or unsafe")
        return self

    @property
    def name(self) -> str:
        """Its id, or what stands for one: the same in each version of the list."""
        return self.id or hashlib.sha256(f"{self.kind}:{self.value}".encode("utf-8", "surrogatepass")).hexdigest()[:ID_HEX_DIGITS]

    @property
    def severity(self) -> Severity | None:
        """What it decides."""
        return None if self.decide is None else Severity[self.decide.upper()]

    @property
    def bits(self) -> Category:
        """Its categories as bits."""
        return categories_of(self.categories)
