"""Models that workers have served, by the name that verdicts and jobs use."""

from collections.abc import Sequence

from guardfleet.domain.verdict import GUARD, Model
from guardfleet.errors import NotFoundError
from guardfleet.store import detections
from guardfleet.store.postgres.database import Database


def require_served(db: Database, *asked: str | None) -> None:
    """Raise NotFoundError for a model that no worker has ever served: no worker would take a job that names it."""
    if not any(asked):
        return
    known = served(db)
    for name in asked:
        if name is not None and name not in known:
            names = ", ".join(known) or "none"
            raise NotFoundError(f"no worker has served a model {name!r} yet: start one with it. Models served so far: {names}.")


def served(db: Database) -> list[str]:
    """Return the names of all models served so far, sorted."""
    with db.session() as connection:
        return sorted(connection.scalars(f"select distinct name from model where name <> 'nobody' and detector = '{GUARD}'"))


def newest_of(db: Database, detector: str) -> Model:
    """Return the model that a detector has served for the shortest time. Raises NotFoundError if it has served none."""
    require_detectors(db, [detector])
    with db.session() as connection:
        row = connection.execute(
            f"select {detections.MODEL} from model m where m.detector = %(detector)s order by m.id desc limit 1",
            {"detector": detector},
        ).fetchone()
    return detections.model_of(row)


def require_detectors(db: Database, asked: Sequence[str]) -> None:
    """Raise NotFoundError for a detector that no worker has ever served."""
    others = [name for name in asked if name != GUARD]
    if not others:
        return
    with db.session() as connection:
        known = sorted(connection.scalars(f"select distinct detector from model where name <> 'nobody' and detector <> '{GUARD}'"))
    for name in others:
        if name not in known:
            names = ", ".join(known) or "none"
            raise NotFoundError(
                f"no worker has served a detector {name!r} yet: start one with GUARDFLEET_ENGINE__DETECTOR={name}. "
                f"Detectors served so far: {names}."
            )
