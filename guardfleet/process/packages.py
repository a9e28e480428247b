"""`worker`, `producer` and `api` as Python would import them: ours, or an application's that is found first.

The wheel brings three packages with common names. Children start with `python -P`, so that the working directory is not searched;
this look, before any of them is imported, covers what is left: PYTHONPATH, and `python -m guardfleet` in an application's folder.
"""

import importlib.util
import pathlib

from guardfleet.errors import ConfigurationError

NAMES = ("worker", "producer", "api")
HOME = pathlib.Path(__file__).resolve().parents[2]


def require_own() -> None:
    """Raise ConfigurationError, naming both paths, unless all of them lie beside this package. Imports none."""
    for name in NAMES:
        found, ours = place_of(name), HOME / name
        if found is None:
            raise ConfigurationError(f"the package `{name}` is missing beside {HOME / 'guardfleet'}: install guardfleet again.")
        if found != ours:
            raise ConfigurationError(
                f"the package `{name}` that Python finds first is {found}, and guardfleet needs its own, {ours}: "
                "take the former's folder out of PYTHONPATH, or start from another folder."
            )


def place_of(name: str) -> pathlib.Path | None:
    """The folder or file that `import name` would take; None where there is none."""
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # somebody has put a module without a spec under this name
        return pathlib.Path("an unknown place")
    if spec is None:
        return None
    folders = list(spec.submodule_search_locations or ())
    place = folders[0] if folders else spec.origin
    return pathlib.Path(place or "an unknown place").resolve()
