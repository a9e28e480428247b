"""Which libraries are installed, and whether guardfleet works with them: its own metadata says so, in one place."""

import re
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement

from guardfleet.cli.doctor.findings import Caution, Check, Pitfall, TroubleError

OURS = "guardfleet"
SHOWN = ("torch", "transformers", "celery", "kombu", "psycopg")  # whose versions matter most


def checks() -> Iterator[Check]:
    """Yield the check of versions."""
    yield Check("versions", _versions, "reinstall guardfleet with its extras: pip install 'guardfleet[all]'.", Pitfall.VERSIONS)


def _versions() -> str | Caution:
    try:
        needed = _requirements()
    except metadata.PackageNotFoundError:
        return Caution("guardfleet was not installed by pip, so that nothing says which versions it needs", "pip install it.")
    wrong = [(requirement, found) for requirement in needed if not _fits(requirement, found := _installed(requirement.name))]
    if wrong:
        said = ", ".join(f"{one.name} {found or 'is missing'} (needed: {one.specifier})" for one, found in wrong)
        raise TroubleError(f"{said}.", "pip install " + " ".join(f"'{one.name}{one.specifier}'" for one, _ in wrong))
    shown = [f"{name} {version}" for name in SHOWN if (version := _installed(name))]
    return ", ".join([*shown, f"and {len(needed) - len(shown)} others fit"])


def _requirements() -> list[Requirement]:
    """Return what the base installation needs, and what each extra needs of libraries that are installed."""
    extras = metadata.metadata(OURS).get_all("Provides-Extra") or []
    of_name: dict[str, Requirement] = {}
    for requirement in map(Requirement, metadata.requires(OURS) or []):
        is_base = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        is_extra = requirement.marker is not None and any(requirement.marker.evaluate({"extra": extra}) for extra in extras)
        if is_base or (is_extra and _installed(requirement.name)):
            of_name.setdefault(re.sub(r"[-_.]+", "-", requirement.name).lower(), requirement)
    return list(of_name.values())


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _fits(requirement: Requirement, found: str | None) -> bool:
    return found is not None and requirement.specifier.contains(found, prereleases=True)
