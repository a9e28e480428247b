"""What contract tests share: other people's clients, installed."""

import pathlib
import shutil

import pytest

from tests.conftest import missing
from tests.contract.programs import setup

HERE = pathlib.Path(__file__).parent / "node"


@pytest.fixture(scope="session")
def node_folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with the clients of Node in it, installed from the lock."""
    npm = shutil.which("npm")
    if npm is None:
        missing("no npm")
    folder = tmp_path_factory.mktemp("node") / "contract"
    shutil.copytree(HERE, folder, ignore=shutil.ignore_patterns("node_modules"))
    setup([str(npm), "ci", "--ignore-scripts"], folder, what="the clients of Node")
    return folder
