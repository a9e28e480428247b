"""Maps of the guard's scores to Perspective's, as `guardfleet evaluate --map-perspective -o FILE` writes them."""

import json
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from api.google.attributes import ATTRIBUTES
from guardfleet.domain.score_map import ScoreMap
from guardfleet.errors import ConfigurationError

MOST_BYTES = 4 << 20


@dataclass(frozen=True)
class Maps:
    """Maps by attribute, and the model whose scores they are of, as verdicts name it; none, where none was fitted."""

    model: str = ""
    of: Mapping[str, ScoreMap] = field(default_factory=dict)


def load(path: str | None) -> Maps:
    """Read the file. Raises ConfigurationError with what is wrong with it."""
    if path is None:
        return Maps()
    try:
        with pathlib.Path(path).open("rb") as file:
            stored = json.loads(file.read(MOST_BYTES))
        maps = {name: ScoreMap(tuple((float(x), float(y)) for x, y in knots)) for name, knots in stored["maps"].items()}
        model = str(stored["model"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigurationError(
            f"perspective_map {path!r} cannot be read ({error}): write it with `guardfleet evaluate --map-perspective -o FILE`."
        ) from error
    if unknown := sorted(maps.keys() - ATTRIBUTES.keys()):
        raise ConfigurationError(f"perspective_map {path!r} has a map for {unknown[0]!r}, which the guard has no score for.")
    return Maps(model, maps)
