"""What contract tests share: other people's clients, installed."""

import pathlib
import shutil
import subprocess
import sys

import pytest

from tests.conftest import missing
from tests.services.patience import patience

HERE = pathlib.Path(__file__).parent / "node"
MOST_S = patience(300)


@pytest.fixture(scope="session")
def node_folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with the clients of Node in it, installed from the lock."""
    npm = shutil.which("npm")
    if npm is None:
        missing("no npm")
    folder = tmp_path_factory.mktemp("node") / "contract"
    shutil.copytree(HERE, folder, ignore=shutil.ignore_patterns("node_modules"))
    command = [str(npm), "ci", "--ignore-scripts"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=MOST_S, check=False)
    if done.returncode:
        missing(f"npm cannot install the clients: {done.stderr.strip().splitlines()[-1:]}")
    return folder


def install(folder: pathlib.Path, *what: str, with_dependencies: bool = False) -> pathlib.Path:
    """Install packages into a folder, beside this project's own environment; return it."""
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-compile", "--disable-pip-version-check", "--target", str(folder)]
    alone = [] if with_dependencies else ["--no-deps"]
    done = subprocess.run([*command, *alone, *what], capture_output=True, text=True, timeout=MOST_S, check=False)
    if done.returncode:
        missing(f"pip cannot install {what[-1]}: {done.stderr.strip().splitlines()[-1:]}")
    return folder
