"""Each command's modules can be imported first: the tests' fork server has imported all, and would hide a circle users meet."""

import json
import pathlib
import subprocess
import sys

import pytest

import guardfleet.cli.commands

MODULES = sorted(path.stem for path in pathlib.Path(guardfleet.cli.commands.__path__[0]).glob("[a-z]*.py"))
PROCESSES = ("worker.process.main", "api.server", "guardfleet.client", "guardfleet.cli.app")
FIRST = [*(f"guardfleet.cli.commands.{name}" for name in MODULES), *PROCESSES]
# The libraries are imported once, and each module by a fork of that process which has imported nothing of ours.
IMPORTER = """
import importlib, json, os, sys, traceback, uvicorn
import alembic, celery, fastapi, httpx2, kombu, psycopg, prometheus_client, pyarrow, pydantic_settings, rich, structlog, typer
assert not {name.partition(".")[0] for name in sys.modules} & {"guardfleet", "worker", "api", "producer"}
found = {}
for name in sys.argv[1:]:
    reading, writing = os.pipe()
    if os.fork() == 0:
        try:
            importlib.import_module(name)
        except BaseException:
            os.write(writing, traceback.format_exc()[-4000:].encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as said:
        found[name] = said.read()
    os.wait()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def errors() -> dict[str, str]:
    """What importing each module first raised, or an empty text."""
    done = subprocess.run([sys.executable, "-P", "-c", IMPORTER, *FIRST], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("module", FIRST)
def test_a_module_can_be_the_first_that_is_imported(module: str, errors: dict[str, str]) -> None:
    assert errors[module] == ""


def test_what_openmp_reads_when_torch_is_loaded_is_set_before() -> None:
    code = "import sys; import worker.engine; import os; print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["10000", "False"]
