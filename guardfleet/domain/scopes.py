"""What a caller may do: the scopes of keys and sessions, and the roles that people have, as scopes."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from guardfleet.errors import RejectedError

ALL = "all"
AUDIT = "audit:read"
ERASE, HOLD = "erasures:write", "holds:write"
MANAGE_KEYS = "keys:write"
REVIEW = "reviews:write"
# Scopes that `all` does not include: who works with texts need not see who else does, destroy them for good, forbid it, or let
# others in.
APART = (AUDIT, ERASE, HOLD, MANAGE_KEYS)
SCOPES = (
    ALL, "batches:read", "batches:write", "files:read", "files:write", "moderate", "policies:read", "policies:write",
    REVIEW, "webhooks:read", "webhooks:write", *APART,
)  # fmt: skip
# What people do, as scopes. A reviewer sees the texts that wait for a person, one at a time, and exports nothing.
ROLES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "viewer": ("batches:read", "files:read", "moderate", "policies:read", "webhooks:read"),
        "reviewer": (REVIEW,),
        "operator": ("batches:write", "files:write", "moderate", "policies:write", REVIEW, "webhooks:write"),
        "admin": (ALL, AUDIT, MANAGE_KEYS),
    }
)


def scopes_of(role: str, scopes: Sequence[str]) -> tuple[str, ...]:
    """Return the scopes of a role, or these. Raises RejectedError for both, for neither, and for an unknown role."""
    if bool(role) == bool(scopes):
        raise RejectedError("choose a role, or scopes: one of the two.", param="role")
    if role and role not in ROLES:
        raise RejectedError(f"role must be one of {', '.join(ROLES)}; got {role!r}.", param="role")
    return ROLES[role] if role else tuple(scopes)
