"""Each command's modules can be imported first: the tests' fork server has imported all, and would hide a circle users meet."""

import pathlib
import subprocess
import sys

import pytest

import guardfleet.cli.commands

MODULES = sorted(path.stem for path in pathlib.Path(guardfleet.cli.commands.__path__[0]).glob("[a-z]*.py"))
PROCESSES = ("worker.process.main", "api.server", "guardfleet.client", "guardfleet.cli.app")


@pytest.mark.parametrize("module", [*(f"guardfleet.cli.commands.{name}" for name in MODULES), *PROCESSES])
def test_a_module_can_be_the_first_that_is_imported(module: str) -> None:
    done = subprocess.run([sys.executable, "-P", "-c", f"import {module}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
