"""Which keys or columns of a row hold its text, its id and its metadata. One rule for all formats."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from guardfleet.rows.batch_lines import is_geminis, is_openais
from guardfleet.rows.conversations import CONVERSATIONS, OTHERS
from guardfleet.rows.json_text import JsonError, Repeated, parse

METADATA = "metadata"
PLAIN = frozenset(("text", "id", METADATA, "messages"))  # names that mean the same whatever was asked


@dataclass(frozen=True, slots=True)
class Columns:
    """Column names of an input. `kept`: columns to add to the metadata, beside the metadata column; None: every unused one.

    `is_told`: a caller named the text column, so no other column can hold a text.
    """

    text: str = "text"
    id: str = "id"
    kept: tuple[str, ...] | None = None
    is_told: bool = False

    @classmethod
    def of(cls, text: str | None, row_id: str | None, kept: str | None) -> "Columns":
        """Build from options: names, and for `kept` either `all`, `none` or names separated by commas."""
        names = {None: None, "all": None, "none": ()}.get(kept, tuple(name.strip() for name in (kept or "").split(",")))
        return cls(text or "text", row_id or "id", names, text is not None)

    @property
    def used(self) -> frozenset[str]:
        """Names that are not passed through as metadata."""
        return frozenset((self.text, self.id, METADATA, *CONVERSATIONS))

    def others(self, names: Iterable[str]) -> list[str]:
        """Return those of `names` that go into the metadata."""
        used = self.used
        return [name for name in names if name and name not in used and (self.kept is None or name in self.kept)]

    def is_title(self, name: str, value: object) -> bool:
        """Return whether a member named like a conversation, but not one, goes into the metadata of a row that has a text."""
        is_free = name in OTHERS and name not in (self.text, self.id)
        return is_free and not isinstance(value, list | tuple) and (self.kept is None or name in self.kept)

    def conversation(self, name: str, cell: str, *, has_text: bool) -> list[Any] | str:
        """Return the list that a table's cell under that name holds, or the cell if it is a title. Raises ValueError if neither."""
        found = _parsed(cell)
        if isinstance(found, list):
            return found
        if has_text and self.is_title(name, cell):
            return cell
        raise ValueError(f"{name} must be a JSON list, as text")

    def placed(self, value: Any) -> Any:
        """Return an object as `row` does, and any other value as it is."""
        if type(value) is dict and value.keys() <= PLAIN and self.text == "text" and self.id == "id":
            return value  # the case of most rows
        return self.row(value) if isinstance(value, Mapping) else value

    def is_request(self, value: Mapping[str, Any]) -> bool:
        """Return whether the value is a batch line, which has names of its own; never where a caller named the text column."""
        return not self.is_told and (is_openais(value) or is_geminis(value))

    def row(self, value: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the row under guardfleet's names, with what is passed through added to its metadata."""
        if self.is_request(value):
            return value
        alike = {name: str(name).strip().lower() for name in value}
        if not self.is_told and list(alike.values()).count("text") > 1:
            return Repeated.marking(value, ("text",))  # it is unclear which one is meant
        if self.id not in value and self.id.strip().lower() == "id":  # spelled otherwise than in the file's first rows
            row_id = next((name for name in value if alike[name] == "id"), None)
            if row_id is not None:
                return replace(self, id=row_id).row(value)
        return self._named(value)

    def _named(self, value: Mapping[str, Any]) -> Mapping[str, Any]:
        out = {} if self.is_told else dict(value)
        for name, mine in (("text", self.text), ("id", self.id)):
            if mine in value:
                out[name] = value[mine]
            elif mine != name:
                out.pop(name, None)
        if self.is_told:
            out |= {name: value[name] for name in CONVERSATIONS if name in value and name != self.text}
        if not self.is_told and out.keys().isdisjoint(("text", *CONVERSATIONS)):
            return value  # not a row: it is refused as it is
        given = value.get(METADATA)
        titles = [name for name in OTHERS if name in out and "text" in out and self.is_title(name, out[name])]
        if others := {name: value[name] for name in (*self.others(value), *titles) if value[name] is not None}:
            twice = value.names - self.used if isinstance(value, Repeated) else frozenset()
            out[METADATA] = beside(Repeated.marking(others, twice) if twice else others, object_of(given))
        elif given is not None:
            out[METADATA] = object_of(given) if isinstance(given, str) else given
        if isinstance(value, Repeated):
            ours = {self.text: "text", self.id: "id"}
            return value.marking(out, {ours.get(name, name) for name in value.names})
        return out


AS_NAMED = Columns()


def object_of(metadata: object) -> dict[str, Any]:
    """Return metadata as an object: JSON text is parsed, and what is not an object goes under the key `metadata`."""
    if isinstance(metadata, str):
        found = _parsed(metadata)
        return found if isinstance(found, dict) else {METADATA: metadata} if metadata else {}
    if metadata is None:
        return {}
    return metadata if isinstance(metadata, dict) else dict(metadata) if isinstance(metadata, Mapping) else {METADATA: metadata}


def beside(others: dict[str, Any], metadata: dict[str, Any]) -> dict[str, Any]:
    """Merge both into one object; on conflict the metadata's own member wins. Names repeated in either stay marked."""
    twice = [name for each in (others, metadata) if isinstance(each, Repeated) for name in each.names]
    return Repeated.marking(others | metadata, twice) if twice else others | metadata


def _parsed(cell: str) -> Any:
    """Return the JSON value of a cell with repeated keys marked, or None if it is not JSON."""
    try:
        return parse(cell.encode("utf-8", "surrogatepass"))
    except JsonError:
        return None
