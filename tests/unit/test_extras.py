"""Each process starts with the libraries of its own extra and no others."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
HEAVY = (
    "torch",
    "transformers",
    "celery",
    "kombu",
    "fastapi",
    "uvicorn",
    "httpx2",
    "httpcore2",
    "pyarrow",
    "redis",
    "sqlalchemy",
    "alembic",
)
HUB = ("httpx2", "httpcore2", "typer")  # what transformers itself brings along
DATA = (
    "psycopg",
    "pydantic",
    "pydantic_settings",
    "structlog",
    "prometheus_client",
    "cryptography",
    "typer",
)


def imports(modules: str, *without: str) -> subprocess.CompletedProcess[str]:
    """Import the modules in a process in which the others cannot be."""
    code = f"import sys; sys.modules.update(dict.fromkeys({without!r})); import {modules}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("modules", "needs"),
    [
        ("guardfleet.client.direct, guardfleet.cli.app", ()),
        ("guardfleet.cli.commands.scan, guardfleet.cli.commands.jobs, guardfleet.cli.commands.up", ()),
        ("api.server", ("fastapi", "uvicorn", "celery", "kombu", "redis")),
        ("worker.dispatch.dispatcher, worker.process.celery_consumer", ("celery", "kombu", "redis")),
        ("worker.webhooks.delivery", ("celery", "kombu", "redis", "httpcore2")),
        ("worker.moderation.tasks, worker.engine.testing.marked", ("celery", "kombu", "redis")),
    ],
)
def test_a_process_imports_nothing_of_another_extra(modules: str, needs: tuple[str, ...]) -> None:
    done = imports(modules, *(name for name in HEAVY if name not in needs))
    assert done.returncode == 0, done.stderr[-600:]


def test_the_engine_runs_on_torch_and_transformers_alone() -> None:
    rest = [name for name in (*HEAVY, *DATA) if name not in ("torch", "transformers", *HUB)]
    done = imports(
        "worker.engine.decoding.padded, worker.engine.model.loading, worker.engine.engine, worker.engine.factory, "
        "worker.engine.answer",
        *rest,
    )
    assert done.returncode == 0, done.stderr[-600:]


def test_the_tests_of_a_gpu_run_beside_torch_transformers_and_pytest_alone() -> None:
    done = beside_torch_alone("import pytest; sys.exit(pytest.main(['tests/gpu', '-p', 'no:cacheprovider']))")
    assert done.returncode == 0, done.stdout[-600:] + done.stderr[-600:]
    assert "without tests.services.fixtures: alembic, cryptography, kombu" in done.stdout
    assert int(re.search(r"(\d+) (?:passed|skipped)", done.stdout)[1]) > 100


def test_the_benchmark_of_a_gpu_starts_beside_them_alone() -> None:
    done = beside_torch_alone("sys.argv[1:] = ['--help']; import runpy; runpy.run_path('benchmarks/gpu.py', run_name='__main__')")
    assert done.returncode == 0, done.stderr[-600:]
    assert "--shapes" in done.stdout


def beside_torch_alone(code: str) -> subprocess.CompletedProcess[str]:
    """Run this in the checkout, without what a GPU machine need not have."""
    rest = [name for name in (*HEAVY, *DATA, "hypothesis", "orjson") if name not in ("torch", "transformers", *HUB)]
    without = f"import sys; sys.modules.update(dict.fromkeys({rest!r})); "
    environ = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-c", without + code]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environ)


def test_a_missing_extra_is_one_sentence() -> None:
    code = (
        "import sys; sys.modules['celery'] = None; sys.argv = ['guardfleet', 'dispatcher']; from guardfleet.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "this command needs celery" in done.stderr
    assert "Traceback" not in done.stderr
