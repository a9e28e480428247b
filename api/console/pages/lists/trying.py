"""Try a list on a pasted text: where its entries are. Neither the text nor what was found is kept."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from starlette.responses import Response

from api.console.asking import Ask
from api.console.pages.lists.documents import version_of
from api.console.routing import action
from api.http.problems import ProblemError
from api.http.threads import beside
from guardfleet.lists.matching import Hit, Matcher
from guardfleet.store.policy import lists
from guardfleet.store.policy.lists import Version
from guardfleet.store.postgres.database import Database

MOST_CHARACTERS = 100_000
MOST_TOLD = 200  # hits in the table


class Piece(NamedTuple):
    """A piece of a text, and how many hits it is part of."""

    text: str
    n: int


async def match(ask: Ask) -> Response:
    """Show where the entries of a version are in a text."""
    version = await version_of(ask)
    text = ask.form.get("text", "").replace("\r\n", "\n")
    if len(text) > MOST_CHARACTERS:
        raise ProblemError(413, "too_large", f"try at most {MOST_CHARACTERS:,} characters: `guardfleet lists match` takes more.")
    with ask.context.passes.taken(ask.caller.key_id):
        hits = await beside(ask.context.body_threads, _found, ask.db, version, text)
    template = "lists/matches.html" if ask.is_fragment else "lists/tried.html"
    pieces = list(pieces_of(text, hits))
    return ask.render(template, version=version, text=text, hits=hits[:MOST_TOLD], n_hits=len(hits), pieces=pieces)


def _found(db: Database, version: Version, text: str) -> Sequence[Hit]:
    """Match without keeping the list ready: it would push those out that are applied."""
    [found] = Matcher([(version.label, lists.entries(db, version))]).find([text])
    return () if found is None else found.all


def pieces_of(text: str, hits: Sequence[Hit]) -> Iterator[Piece]:
    """Cut a text where hits begin and end."""
    changes: dict[int, int] = {}
    for hit in hits:
        changes[hit.start] = changes.get(hit.start, 0) + 1
        changes[hit.end] = changes.get(hit.end, 0) - 1
    at = n = 0
    for place in sorted({*changes, len(text)}):
        if place > at:
            yield Piece(text[at:place], n)
        at, n = place, n + changes.get(place, 0)


routes = [action("/lists/{name}@{version}/try", match, scope="policies:read")]
