"""Each process starts with the libraries of its own extra and no others."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "celery", "kombu", "fastapi", "uvicorn", "httpx2", "httpcore2", "pyarrow", "redis")
HUB = ("httpx2", "httpcore2", "typer")  # what transformers itself brings along
DATA = (
    "sqlalchemy",
    "psycopg",
    "alembic",
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
        ("producer.client, guardfleet.cli.app, guardfleet.cli.scan, guardfleet.cli.jobs, guardfleet.cli.up", ()),
        ("api.server", ("fastapi", "uvicorn", "celery", "kombu", "redis")),
        ("worker.dispatcher, worker.consumer", ("celery", "kombu", "redis")),
        ("worker.webhooks", ("celery", "kombu", "redis", "httpcore2")),
        ("worker.tasks, worker.engine.instant", ("celery", "kombu", "redis")),
    ],
)
def test_a_process_imports_nothing_of_another_extra(modules: str, needs: tuple[str, ...]) -> None:
    done = imports(modules, *(name for name in HEAVY if name not in needs))
    assert done.returncode == 0, done.stderr[-600:]


def test_the_engine_runs_on_torch_and_transformers_alone() -> None:
    rest = [name for name in (*HEAVY, *DATA) if name not in ("torch", "transformers", *HUB)]
    done = imports(
        "worker.engine.generate, worker.engine.loading, worker.engine.batching, worker.engine.make, worker.answer", *rest
    )
    assert done.returncode == 0, done.stderr[-600:]


def test_a_missing_extra_is_one_sentence() -> None:
    code = (
        "import sys; sys.modules['celery'] = None; sys.argv = ['guardfleet', 'dispatcher']; from guardfleet.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "this command needs celery" in done.stderr
    assert "Traceback" not in done.stderr
