"""What a test needs, as its markers: read off its fixtures, parameters and folder, so that no file has to say it by hand.

`pytest -m "not rabbitmq"` leaves out whatever talks to a RabbitMQ, the machine's or one of the test's own.
"""

import gc
import importlib.util
import pathlib
from collections import Counter
from collections.abc import Generator
from typing import Any

import pytest

from tests.conftest import IN_CI, missing

OF_FIXTURE = {
    "shared": "shared",
    "postgres": "postgres",
    "rabbitmq": "rabbitmq",
    "own_rabbitmq": "rabbitmq",
    "redis_broker": "redis",
    "own_redis": "redis",
    "demo": "torch",
    "real_tokenizer": "torch",
    "babbling": "torch",
    "data_dir": "torch",  # commands over the embedded servers judge with the demo model
}
OF_FOLDER = {"engine": ("torch",), "gpu": ("torch",), "browser": ("slow", "torch"), "fleet": ("slow",), "faults": ("slow",)}
BROWSER = "tests/browser/"
ROOMS = (
    "browser",
    "faults",
    "fleet",
    "engine",
    "contract",
    "store",
    "http",
    "gpu",
    "property",
    "unit",
)  # in the order of their longest file
SERVERS = {"rabbitmq", "redis"}  # markers by parameter value
PACKAGES = {"torch": ("torch", "transformers")}

gc.disable()  # until all is imported: nothing of that is garbage, and looking through it takes seconds


def needs(item: pytest.Item) -> set[str]:
    """The markers of one test."""
    found = {mark for fixture, mark in OF_FIXTURE.items() if fixture in getattr(item, "fixturenames", ())}
    found |= {mark for folder in item.path.parts for mark in OF_FOLDER.get(folder, ())}
    values = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return found | {value for value in values if isinstance(value, str) and value in SERVERS}


def lacking(mark: str) -> list[str]:
    """The packages of a marker that are not installed."""
    return [name for name in PACKAGES.get(mark, ()) if importlib.util.find_spec(name) is None]


def pytest_ignore_collect(collection_path: pathlib.Path) -> bool | None:
    """Leave out a folder whose files import packages that are not installed here; CI must have them."""
    return True if collection_path.name == "engine" and lacking("torch") and not IN_CI else None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Have the garbage collector look at what tests make, and at no module or test."""
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests, and put folders with the slowest files first: then parallel processes end at the same time."""
    for item in items:
        for mark in sorted(needs(item)):
            item.add_marker(mark)
    items.sort(key=lambda item: ROOMS.index(item.path.parent.name) if item.path.parent.name in ROOMS else 0)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give a file to one process, as `loadfile` does; the browser's files to the same one: they share a browser and a fleet."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return BROWSER if nodeid.startswith(BROWSER) else super()._split_scope(nodeid)

    return ByFile(config, log)


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in PACKAGES:
        if item.get_closest_marker(mark) and (packages := lacking(mark)):
            missing(f"{', '.join(packages)} not installed")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Report what was not run, one line per reason."""
    skipped = (report.longrepr[2].splitlines()[0] for report in terminalreporter.stats.get("skipped", []))
    lines = [f"{n} skipped: {reason.removeprefix('Skipped: ')}" for reason, n in Counter(skipped).most_common()]
    if lacking("torch") and not IN_CI:
        lines.append(f"tests/engine left out: {', '.join(lacking('torch'))} not installed")
    if lines:
        terminalreporter.section("not run here")
    for line in lines:
        terminalreporter.write_line(line)
