"""The unit for hosts: systemd reads it without complaint, and what it names exists."""

import pathlib
import re
import shutil
import subprocess

import pytest

from guardfleet.settings.settings import is_known
from tests.conftest import missing

UNIT = pathlib.Path(__file__).parents[2] / "deploy" / "systemd" / "guardfleet@.service"
PAGE = pathlib.Path(__file__).parents[2] / "docs" / "deploying.md"


@pytest.fixture
def unit(tmp_path: pathlib.Path) -> pathlib.Path:
    """The unit with a program that there is; its instance is `worker`."""
    text = UNIT.read_text().replace("/opt/guardfleet/bin/guardfleet", "/bin/true")
    (tmp_path / UNIT.name).write_text(text)
    return tmp_path / "guardfleet@worker.service"


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    binary = shutil.which("systemd-analyze")
    if binary is None:
        missing("systemd-analyze is not installed")
    return subprocess.run([str(binary), *arguments], capture_output=True, text=True, check=False)


def test_systemd_reads_the_unit_without_complaint(unit: pathlib.Path) -> None:
    verified = analyze("verify", str(unit))
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")


def test_it_is_confined_as_far_as_a_gpu_allows(unit: pathlib.Path) -> None:
    judged = analyze("security", "--offline=true", "--threshold=40", str(unit))  # tenths: 0 is the best, 100 the worst
    assert judged.returncode == 0, judged.stdout[-300:]


def test_its_variables_are_settings_and_its_grace_is_a_workers() -> None:
    text = UNIT.read_text()
    given = set(re.findall(r"\b(GUARDFLEET_\w+)=", text)) | set(re.findall(r"^(GUARDFLEET_\w+)=", PAGE.read_text(), re.MULTILINE))
    assert given
    assert [name for name in given if not is_known(name)] == []
    assert "TimeoutStopSec=120\n" in text
    assert "KillMode=mixed\n" in text
    assert "RestartPreventExitStatus=2\n" in text
    assert "User=guardfleet\n" in text
