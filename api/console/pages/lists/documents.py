"""A list as its pages have it: read and checked, written again, and its entries, whose reading is recorded."""

from dataclasses import dataclass, field

from api.body.list_document import MOST_BYTES, entries_of
from api.console.asking import Ask
from api.http.problems import ProblemError
from api.http.threads import beside
from guardfleet.lists.document import Entry
from guardfleet.lists.reading import FORMATS, LINE_END, ListError
from guardfleet.store import audit
from guardfleet.store.policy import lists
from guardfleet.store.policy.lists import Version

MOST_SHOWN = 100  # problems of a page
MOST_LINE = 160  # characters of a line that is quoted


@dataclass(frozen=True)
class Checked:
    """A list that was read: its entries, or what is wrong: the line (0: none), what stands there, and the cause."""

    entries: list[Entry] | None
    problems: list[tuple[int, str, str]] = field(default_factory=list)
    n_problems: int = 0


async def checked(ask: Ask, text: str, form: str) -> Checked:
    """Read a list, as every face does."""
    if form not in FORMATS:
        raise ProblemError(400, "invalid_parameter", f"the format is one of {', '.join(FORMATS)}.", param="form")
    body = text.encode("utf-8", "surrogatepass")
    if len(body) > MOST_BYTES:
        raise ProblemError(413, "too_large", f"a list sent here has at most {MOST_BYTES >> 20} MB: use `guardfleet lists import`.")
    try:
        with ask.context.passes.taken(ask.caller.key_id):
            return Checked(await entries_of(ask.context, body, form))
    except ListError as error:
        lines = LINE_END.split(text)
        problems = [
            (line, lines[line - 1][:MOST_LINE] if 0 < line <= len(lines) else "", cause)
            for line, cause in error.problems[:MOST_SHOWN]
        ]
        return Checked(None, problems, len(error.problems))


async def version_of(ask: Ask, label: str | None = None) -> Version:
    """Return the version that the path, or a label, names. Raises NotFoundError, for another tenant's too."""
    named = label or f"{ask.path['name']}@{ask.path['version']}"
    return await ask.of(lists.get, ask.db, ask.caller.tenant_id, named)


async def entries_read(ask: Ask, version: Version) -> list[Entry]:
    """Return the entries of a version, and record who has read them."""
    await ask.of(audit.note, ask.db, ask.caller.tenant_id, "list.export", version.label, entries=version.n)
    return await beside(ask.context.body_threads, lists.entries, ask.db, version)
