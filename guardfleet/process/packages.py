"""Check that Python would import our `worker`, `producer` and `api`, and not packages of an application.

The wheel installs three packages with common names. Children start with `python -P`, so that the working directory is not
searched. This check, before any of them is imported, covers the rest: PYTHONPATH, and `python -m guardfleet` in an
application's folder.
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
            raise ConfigurationError(f"the package `{name}` is missing beside {HOME / 'guardfleet'}: reinstall guardfleet.")
        if found != ours:
            raise ConfigurationError(
                f"Python would import the package `{name}` from {found}, but guardfleet needs its own, {ours}: "
                "remove the former's folder from PYTHONPATH, or start from another folder."
            )


def place_of(name: str) -> pathlib.Path | None:
    """Return the folder or file that `import name` would use; None if there is none."""
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # there is a module without a spec under this name
        return pathlib.Path("an unknown place")
    if spec is None:
        return None
    folders = list(spec.submodule_search_locations or ())
    path = folders[0] if folders else spec.origin
    return pathlib.Path(path or "an unknown place").resolve()
