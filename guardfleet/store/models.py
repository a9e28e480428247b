"""Models that workers have served, by the name that verdicts and jobs use."""

from collections.abc import Sequence

from guardfleet.domain.detection import detector_of, policy_of
from guardfleet.domain.verdict import GUARD, Model
from guardfleet.errors import NotFoundError, RejectedError
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
            f"""select {detections.MODEL} from model m where m.detector = %(detector)s and m.name <> 'nobody'
                order by m.id desc limit 1""",
            {"detector": detector},
        ).fetchone()
    return detections.model_of(row)


def require_detectors(db: Database, asked: Sequence[str]) -> None:
    """Raise NotFoundError for a detector that no worker has ever served, RejectedError for one that does not judge as asked.

    Its newest model says whether it takes a policy; what another would say is found out when it judges.
    """
    others = [entry for entry in asked if entry != GUARD]
    if not others:
        return
    with db.session() as connection:
        found = connection.execute(
            f"""select distinct on (detector) detector, prompt_policy from model
                where name <> 'nobody' and detector <> '{GUARD}' order by detector, id desc"""
        ).fetchall()
    known: dict[str, str | None] = {row.detector: row.prompt_policy for row in found}
    for entry in others:
        name = detector_of(entry)
        if name in known:
            _require_fit(entry, known[name])
        else:
            names = ", ".join(known) or "none"
            raise NotFoundError(
                f"no worker has served a detector {name!r} yet: start one with GUARDFLEET_ENGINE__DETECTOR={name}. "
                f"Detectors served so far: {names}."
            )


def _require_fit(entry: str, takes: str | None) -> None:
    """Raise RejectedError if the detector takes no policy and is given one, or needs one and is given none."""
    name = detector_of(entry)
    if policy_of(entry) is not None and takes == "none":
        raise RejectedError(f"detector {name!r} takes no policy: name it without one, or choose one that does.", param="detectors")
    if policy_of(entry) is None and takes == "required":
        raise RejectedError(f"detector {name!r} judges by a policy: name one, as {name}/NAME.", param="detectors")
