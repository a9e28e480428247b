"""The areas of the console, in the order of the menu, and the scope that opens each; addresses of pages."""

from typing import NamedTuple
from urllib.parse import quote

from guardfleet.domain.scopes import AUDIT, MANAGE_KEYS, REVIEW
from guardfleet.store.keys import Caller

HOME = "/console/"
MARKS = ":/%#?=@[]!$&'()*+,;"  # of an address that is whole; all else is percent-encoded


class Area(NamedTuple):
    """An area: the first part of its paths, its name in the menu, the scope without which it does not exist for somebody."""

    slug: str
    name: str
    scope: str

    @property
    def path(self) -> str:
        """The area's first page."""
        return f"{HOME}{self.slug}"


AREAS = (
    Area("try", "Try it", "moderate"),
    Area("jobs", "Jobs", "batches:read"),
    Area("verdicts", "Verdicts", "batches:read"),
    Area("review", "Review", REVIEW),
    Area("policies", "Policies", "policies:read"),
    Area("lists", "Lists", "policies:read"),
    Area("fleet", "Fleet", "batches:read"),
)
OF_FLEET = (Area("fleet/audit", "Audit trail", AUDIT), Area("fleet/keys", "Keys", MANAGE_KEYS))  # for whom there is no Fleet


def areas_of(caller: Caller) -> list[Area]:
    """Return the areas that somebody may enter."""
    found = [area for area in AREAS if caller.may(area.scope)]
    return found if AREAS[-1] in found else found + [area for area in OF_FLEET if caller.may(area.scope)]


def address(path: str) -> str:
    """Return a path as a header can hold it, whatever letters it has."""
    return quote(path, safe=MARKS)
