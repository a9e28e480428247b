"""`guardfleet doctor`: check everything that would stop this machine."""

import importlib.util
import sys
from collections.abc import Iterator, Sequence

from guardfleet.cli.doctor import api, machine, model, report, versions
from guardfleet.cli.doctor.environment import Environment
from guardfleet.cli.doctor.examination import WITHIN_S, Chain, Examination
from guardfleet.cli.doctor.findings import Check, Finding, Pitfall
from guardfleet.errors import ConfigurationError
from guardfleet.process import packages
from guardfleet.settings import Settings


def doctor(*, texts: Sequence[str], as_json: bool, within_s: float) -> int:
    """Examine this machine with the settings of its environment, as far as they can be used."""
    environment = Environment()
    first = Check("settings", environment.check, "docs/settings.md has all settings, with their bounds.")
    return examine(environment.settings, first, texts=texts, as_json=as_json, within_s=within_s)


def examine(settings: Settings, *first: Check, texts: Sequence[str] = (), as_json: bool = False, within_s: float = WITHIN_S) -> int:
    """Print what each check says; return 2 if any failed."""
    secrets = report.secrets_of(settings)
    own = Check("packages", _own, "remove the other folder from PYTHONPATH, or start from another folder.", Pitfall.VERSIONS)
    chains: list[Chain] = [*([check] for check in first), [own], *_chains(settings, texts, within_s)]
    examination = Examination(chains)
    found: list[Finding] = []
    for finding in examination.findings(within_s=within_s):
        found.append(report.without(secrets, finding))
        if not as_json:
            report.show(found[-1])
    if as_json:
        print(report.as_json(found))
    sys.stdout.flush()
    status = report.status_of(found)
    if not examination.is_over:
        examination.leave_with(status)
    return status


def _own() -> str:
    packages.require_own()
    return "Python finds guardfleet's own `worker`, `producer` and `api`"


def _is_own() -> bool:
    try:
        packages.require_own()
    except ConfigurationError:
        return False
    return True


def _chains(settings: Settings, texts: Sequence[str], within_s: float) -> Iterator[Chain]:
    yield from ([check] for check in (*versions.checks(), *machine.checks(settings), *api.checks(settings)))
    if not settings.is_embedded:
        from guardfleet.cli.doctor import database

        yield from database.checks(settings)
    if settings.broker_url:
        yield _broker(settings)
    if settings.tuning.engine == "model" and _is_own():
        yield from model.checks(settings, texts=texts, within_s=within_s)


def _broker(settings: Settings) -> Chain:
    if importlib.util.find_spec("celery") is None:
        return [Check("broker", _no_celery, "pip install 'guardfleet[worker]', or the extra of the process.", Pitfall.VERSIONS)]
    from guardfleet.cli.doctor import broker

    return list(broker.checks(settings))


def _no_celery() -> str:
    raise ConfigurationError("Celery is not installed.")
