"""Models that workers have served: by the id that verdicts have, and by the name that jobs use."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from guardfleet.domain.detection import are_alike, detector_of, policy_of
from guardfleet.domain.ids import DEFAULT_TENANT
from guardfleet.domain.plan import DetectorCascade, Plan
from guardfleet.domain.verdict import GUARD, Model
from guardfleet.errors import ConfigurationError, NotFoundError, RejectedError
from guardfleet.store import audit
from guardfleet.store.postgres.database import Connection, Database

COLUMNS = "m.id, m.name, m.revision, m.policy, m.is_demo, m.detector, m.labels, m.neutral, m.prompt_policy"


def register(db: Database, model: Model) -> int:
    """Return the id by which verdicts refer to the model, storing the model if it is new; a process asks once."""
    if model not in db.model_ids:
        db.model_ids[model] = _register(db, model)
    return db.model_ids[model]


def _register(db: Database, model: Model) -> int:
    values = {
        "name": model.name, "revision": model.revision, "policy": model.policy, "demo": model.is_demo, "detector": model.detector,
        "labels": list(model.labels), "neutral": model.neutral, "prompt_policy": model.prompt_policy,
    }  # fmt: skip
    same = "name = %(name)s and revision = %(revision)s and policy = %(policy)s and detector = %(detector)s"
    with db.begin() as connection:
        is_new = connection.execute(
            f"""insert into model (name, revision, policy, is_demo, detector, labels, neutral, prompt_policy)
               select %(name)s, %(revision)s, %(policy)s, %(demo)s, %(detector)s, %(labels)s::text[], %(neutral)s,
                      %(prompt_policy)s
               where not exists (select from model where {same}) on conflict do nothing""",
            values,
        ).rowcount
        row: Any = connection.execute(f"select id, labels, neutral, prompt_policy from model where {same}", values).fetchone()
        if tuple(row.labels) != model.labels or row.neutral != model.neutral:
            raise ConfigurationError(
                f"model {model.name!r} of the same revision and policy has served with other labels: {', '.join(row.labels)}."
            )
        found: int = row.id
        if row.prompt_policy is None and model.prompt_policy is not None:  # a version before 0027 wrote it
            connection.execute("update model set prompt_policy = %(prompt_policy)s where id = %(id)s", values | {"id": found})
        if is_new:
            audit.record(connection, DEFAULT_TENANT, "model.register", model.label, model_id=found)
        return found


def by_id(db: Database, ids: Collection[int]) -> Mapping[int, Model]:
    """Return models by id, at least these."""
    if not db.models.keys() >= set(ids):
        with db.session() as connection:
            return known(db, connection, ids)
    return db.models


def known(db: Database, connection: Connection, ids: Collection[int]) -> Mapping[int, Model]:
    """Return models by id, at least these; read again where one of them is new to this process."""
    if not db.models.keys() >= set(ids):
        found = connection.execute(f"select {COLUMNS} from model m")
        db.models.update({row.id: _model_of(row) for row in found})
    return db.models


def require_served(db: Database, model: str | None, escalate_to: str | None = None) -> None:
    """Raise NotFoundError for a model that no worker has ever served: no worker would take a job that names it."""
    asked = {param: name for param, name in (("model", model), ("escalate_to", escalate_to)) if name is not None}
    if not asked:
        return
    known = served(db)
    for param, name in asked.items():
        if name not in known:
            names = ", ".join(known) or "none"
            raise NotFoundError(
                f"no worker has served a model {name!r} yet: start one with it. Models served so far: {names}.", param=param
            )


def served(db: Database) -> list[str]:
    """Return the names of all models served so far, sorted."""
    with db.session() as connection:
        return sorted(connection.scalars(f"select distinct name from model where name <> 'nobody' and detector = '{GUARD}'"))


def newest_of(db: Database, detector: str) -> Model:
    """Return the model that a detector has served for the shortest time. Raises NotFoundError if it has served none."""
    require_detectors(db, [detector])
    return _newest(db, detector)


def _newest(db: Database, detector: str) -> Model:
    with db.session() as connection:
        row = connection.execute(
            f"""select {COLUMNS} from model m where m.detector = %(detector)s and m.name <> 'nobody'
                order by m.id desc limit 1""",
            {"detector": detector},
        ).fetchone()
    return _model_of(row)


def labels_of(db: Database, entry: str) -> list[str]:
    """Return all labels that the entry's detector has ever answered in, sorted."""
    with db.session() as connection:
        found = connection.scalars(
            "select distinct l from model m cross join unnest(m.labels) l where m.detector = %(detector)s",
            {"detector": detector_of(entry)},
        )
        return sorted(found)


def detectors(db: Database) -> list[str]:
    """Return the detectors that workers have served so far and that judge without a policy, by name."""
    return [name for name, takes in served_detectors(db).items() if takes != "required"]


def unknown_detectors(db: Database, asked: Sequence[str]) -> list[str]:
    """Return those of the detectors that no worker has ever served, sorted."""
    others = {detector_of(entry) for entry in asked} - {GUARD}
    return sorted(others - served_detectors(db).keys()) if others else []


def require_detectors(db: Database, asked: Sequence[str]) -> None:
    """Raise NotFoundError for a detector that no worker has ever served, RejectedError for one that does not judge as asked.

    Its newest model says whether it takes a policy; what another would say is found out when it judges.
    """
    others = [entry for entry in asked if entry != GUARD]
    if not others:
        return
    served_so_far = served_detectors(db)
    for entry in others:
        name = detector_of(entry)
        if name in served_so_far:
            _require_fit(entry, served_so_far[name])
        else:
            names = ", ".join(served_so_far) or "none"
            raise NotFoundError(
                f"no worker has served a detector {name!r} yet: start one with GUARDFLEET_ENGINE__DETECTOR={name}. "
                f"Detectors served so far: {names}.",
                param="detectors",
            )


def labels_of_detectors(db: Database) -> dict[str, list[str]]:
    """Return the labels that each detector but the guard has given so far, by its name."""
    with db.session() as connection:
        rows = connection.execute(
            f"""select detector, array_agg(distinct label order by label) as labels from model cross join unnest(labels) label
                where detector <> '{GUARD}' group by detector order by detector"""
        )
        return {row.detector: row.labels for row in rows}


def require_alike(db: Database, plan: Plan) -> None:
    """Raise RejectedError for a second detector whose newest model answers in other labels than the first one's."""
    for cascade in map(DetectorCascade.of, plan.detector_cascades):
        first, second = _newest(db, cascade.first), _newest(db, cascade.second)
        if not are_alike(first, second):
            raise RejectedError(
                f"{cascade.second} answers in other labels than {cascade.first}: {', '.join(second.labels)} instead of "
                f"{', '.join(first.labels)}. A second detector needs the same, and the same neutral one.",
                param="detector_cascades",
            )


def served_detectors(db: Database) -> dict[str, str | None]:
    """Return whether the newest model of each detector served so far takes a policy, a word of PROMPT_POLICY, by its name."""
    with db.session() as connection:
        found = connection.execute(
            f"""select distinct on (detector) detector, prompt_policy from model
                where name <> 'nobody' and detector <> '{GUARD}' order by detector, id desc"""
        ).fetchall()
    return {row.detector: row.prompt_policy for row in found}


def _require_fit(entry: str, takes: str | None) -> None:
    """Raise RejectedError if the detector takes no policy and is given one, or needs one and is given none."""
    name = detector_of(entry)
    if policy_of(entry) is not None and takes == "none":
        raise RejectedError(f"detector {name!r} takes no policy: name it without one, or choose one that does.", param="detectors")
    if policy_of(entry) is None and takes == "required":
        raise RejectedError(f"detector {name!r} judges by a policy: name one, as {name}/NAME.", param="detectors")


def _model_of(row: Any) -> Model:
    """Return the model of a row that has its COLUMNS."""
    return Model(row.name, row.revision, row.policy, row.is_demo, row.detector, tuple(row.labels), row.neutral, row.prompt_policy)
