"""Words looked for in texts that are kept. These are stored encrypted: each is decrypted and read, some ten thousand a second."""

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import NamedTuple

from guardfleet.security.encryption import Keyring
from guardfleet.store.browsing import pages
from guardfleet.store.browsing.pages import Hit
from guardfleet.store.jobs import texts
from guardfleet.store.postgres.database import Database
from guardfleet.verdicts.page import Content, Cursor, Page
from guardfleet.verdicts.wanted import Place, Wanted

LOOK_S = 0.5
MOST_TEXTS = 20_000  # that one call reads
AT_ONCE = 1000  # verdicts of one page: those of about a shard, if all are looked for
AROUND = 80  # characters before and after what was found


class Excerpt(NamedTuple):
    """Where the words were found in a text, with what is around them; `is_cut` before and after."""

    before: str
    found: str
    after: str
    is_cut: tuple[bool, bool]


@dataclass(slots=True)
class Found:
    """Texts with the words: their verdicts, an excerpt of each, and how far the search came: None if to the end."""

    hits: list[Hit] = field(default_factory=list)
    excerpts: list[Excerpt] = field(default_factory=list)
    reached: Place | None = None
    read: int = 0  # texts
    looked: int = 0  # verdicts, with those of the pages before


def search(
    db: Database, keyring: Keyring, tenant_id: int, wanted: Wanted, words: str, after: Place | None = None, *, limit: int,
    look_s: float = LOOK_S, most_texts: int = MOST_TEXTS,
) -> Found:  # fmt: skip
    """Return up to `limit` texts after a place that have these words, in whichever case, among the verdicts looked for.

    It ends early once it has read for so long, or so many texts; at least one shard's. Raises as `pages.page`.
    """
    until, pattern = time.monotonic() + look_s, re.compile(re.escape(words), re.IGNORECASE)
    out = Found(reached=after, looked=after.looked if after else 0)
    while True:
        budget = replace(pages.BUDGET, look_s=min(pages.BUDGET.look_s, look_s))
        page = pages.page(db, tenant_id, replace(wanted, keeps_texts=True), out.reached, limit=AT_ONCE, budget=budget)
        for hit, content, is_shards_last in _read(db, keyring, page.hits):
            out.read += 1
            out.reached, out.looked = hit.place, hit.looked
            excerpt = _excerpt(content, pattern)
            if excerpt is not None:
                out.hits.append(hit)
                out.excerpts.append(excerpt)
            is_late = time.monotonic() > until or out.read >= most_texts
            if len(out.hits) >= limit or (is_late and is_shards_last):
                return out
        out.reached, out.looked = page.reached, page.looked
        if page.reached is None or time.monotonic() > until:
            return out


def _read(db: Database, keyring: Keyring, hits: Sequence[Hit]) -> Iterator[tuple[Hit, Content | None, bool]]:
    """Yield each verdict with its text, None where that is gone, and whether it is its shard's last: shards are decrypted whole."""
    for _, among in groupby(hits, key=lambda hit: (hit.job.id, hit.first_seq)):
        shard = list(among)
        bare = Page([hit.row for hit in shard], {}, Cursor())
        (page,) = texts.beside(db, keyring, shard[0].job, [bare])
        for hit, content in zip(shard, page.contents or (), strict=True):
            yield hit, content, hit is shard[-1]


def _excerpt(content: Content | None, pattern: re.Pattern[str]) -> Excerpt | None:
    said = [content] if isinstance(content, str) else [str(turn.get("content", "")) for turn in content or ()]
    for text in said:
        found = pattern.search(text)
        if found is not None:
            start, end = max(0, found.start() - AROUND), found.end() + AROUND
            return Excerpt(text[start : found.start()], found.group(), text[found.end() : end], (start > 0, end < len(text)))
    return None
