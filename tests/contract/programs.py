"""Programs that others wrote: installed beside this project's own environment, and run."""

import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence

from tests.conftest import missing
from tests.services.patience import patience

MOST_S = patience(300)
NODE = str(shutil.which("node"))


def install(folder: pathlib.Path, *what: str, with_dependencies: bool = False) -> pathlib.Path:
    """Install packages of Python into a folder; return it."""
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-compile", "--disable-pip-version-check", "--target", str(folder)]
    setup([*pip, *([] if with_dependencies else ["--no-deps"]), *what], folder.parent, what=what[-1])
    return folder


def setup(command: Sequence[str], folder: pathlib.Path, *, what: str) -> None:
    """Run a command that installs something; what cannot be had is missing here, and a failure in CI."""
    ran = _run(command, folder, {})
    if ran.returncode:
        missing(f"cannot install {what}: {ran.stderr.strip().splitlines()[-1:]}")


def printed(command: Sequence[str], folder: pathlib.Path, told: Mapping[str, str] | None = None) -> str:
    """Run a command, told these variables of the environment; return what it prints. It must succeed."""
    ran = _run(command, folder, told or {})
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def _run(command: Sequence[str], folder: pathlib.Path, told: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **told}, capture_output=True, text=True, timeout=MOST_S, check=False
    )
