"""An application has its own `worker`, `api` or `producer` package: guardfleet imports its own, or reports the one it found."""

import os
import pathlib
import subprocess
import sys

import pytest

from guardfleet.errors import ConfigurationError
from guardfleet.process.packages import NAMES, place_of, require_own
from guardfleet.process.supervisor import Child
from guardfleet.settings import load_settings
from tests.fleet.test_commands import data_dir
from tests.services.fixtures import SECRET_KEY
from tests.services.fleet import fleet, until
from tests.services.patience import patience

__all__ = ["data_dir"]
MARK = "THE APPLICATION'S OWN MODULE WAS IMPORTED"
ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def application(tmp_path: pathlib.Path) -> pathlib.Path:
    """A project folder with all three names: a module, a package, a folder without __init__."""
    folder = tmp_path / "application"
    for name in ("api", "producer"):
        (folder / name).mkdir(parents=True)
    (folder / "worker.py").write_text(f"print({MARK!r})\n")
    (folder / "api" / "__init__.py").write_text(f"print({MARK!r})\n")
    (folder / "in.jsonl").write_text('{"id": 1, "text": "x"}\n{"id": 2, "text": "[[unsafe]]"}\n')
    return folder


def run(
    application: pathlib.Path, data: pathlib.Path, *args: str, flags: tuple[str, ...] = ("-P",), **environ: str
) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "GUARDFLEET_DATA_DIR": str(data),
        "GUARDFLEET_TUNING": '{"engine": "instant"}',
        "GUARDFLEET_ALLOW_TUNING": "1",
        **environ,
    }
    command = [sys.executable, *flags, "-m", "guardfleet", *args]
    return subprocess.run(
        command, cwd=application, env=environment, capture_output=True, text=True, timeout=patience(120), check=False
    )


def test_a_scan_in_an_application_s_folder_starts_our_own_processes(application: pathlib.Path, data_dir: pathlib.Path) -> None:
    done = run(application, data_dir, "scan", "in.jsonl", "-o", "out.csv")
    assert done.returncode == 0, done.stderr
    assert MARK not in done.stdout + done.stderr
    assert len((application / "out.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    "args", [("scan", "in.jsonl"), ("up",), ("worker",), ("worker", "--webhooks"), ("dispatcher",), ("api",), ("doctor",)]
)
@pytest.mark.parametrize("way", ["PYTHONPATH", "working directory"])
def test_a_foreign_package_that_is_found_first_is_named_with_both_paths(
    application: pathlib.Path, data_dir: pathlib.Path, way: str, args: tuple[str, ...]
) -> None:
    by_path = way == "PYTHONPATH"
    environ = {"PYTHONPATH": str(application)} if by_path else {}
    done = run(application, data_dir, *args, flags=("-P",) if by_path else (), **environ)
    assert done.returncode == 2, done.stderr
    said = (done.stdout if args == ("doctor",) else done.stderr).replace("\n", " ")
    assert str(application / "worker.py") in said
    assert str(ROOT / "worker") in said
    assert MARK not in done.stdout + done.stderr
    assert "Traceback" not in said


def test_a_child_that_finds_a_foreign_package_is_given_up_with_its_sentence(
    application: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    child = Child("worker", ["worker"], {"PYTHONPATH": str(application)}, tmp_path / "child.log")
    child.start()
    try:
        sentence = until(lambda: child.gave_up, what="giving up")
    finally:
        child.stop()
    assert str(application / "worker.py") in sentence
    assert (tmp_path / "child.log").read_text().count("application/worker.py") == 1, "it was started again"


def test_a_child_that_cannot_import_is_given_up_with_its_sentence(tmp_path: pathlib.Path) -> None:
    (tmp_path / "celery.py").write_text("raise ImportError('libgone.so.1: cannot open shared object file')\n")
    settings = {"GUARDFLEET_DATABASE_URL": "postgresql://u@127.0.0.1:1/x", "GUARDFLEET_SECRET_KEY": "x" * 44}
    for name, path in (("worker", str(tmp_path)), ("dispatcher", str(tmp_path))):
        child = Child(name, [name], {"PYTHONPATH": path, **settings}, tmp_path / f"{name}.log")
        child.start()
        try:
            assert "libgone.so.1" in until(lambda c=child: c.gave_up, what="giving up")
        finally:
            child.stop()


def test_a_child_that_finds_no_guardfleet_is_given_up_too(tmp_path: pathlib.Path) -> None:
    (tmp_path / "guardfleet").mkdir()
    (tmp_path / "guardfleet" / "__init__.py").touch()
    child = Child("worker", ["worker"], {"PYTHONPATH": str(tmp_path)}, tmp_path / "child.log")
    child.start()
    try:
        assert "No module named guardfleet" in until(lambda: child.gave_up, what="giving up")
    finally:
        child.stop()


def test_the_stack_ends_with_the_sentence_of_a_child_that_was_given_up(tmp_path: pathlib.Path, data_dir: pathlib.Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"id": 1, "text": "x"}\n')
    # What only the children see: a module of Celery that cannot be imported.
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nif sys.argv == ['-m', 'worker'] or 'worker' in sys.orig_argv:\n    sys.modules['celery'] = None\n"
    )
    done = run(tmp_path, data_dir, "scan", str(source), PYTHONPATH=str(tmp_path))
    assert done.returncode == 2, done.stderr
    assert "celery" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_look_itself(application: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_own()
    assert [place_of(name) for name in NAMES] == [ROOT / name for name in NAMES]
    assert place_of("nobody_has_this") is None
    for name in NAMES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(application))
    with pytest.raises(ConfigurationError, match="would import"):
        require_own()


def test_processes_of_a_fleet_start_in_an_application_s_folder(application: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(application)
    settings = load_settings(data_dir=application)
    with fleet(settings, application, ("worker",)) as (worker,):
        assert worker.wait() == 2
        assert "GUARDFLEET_DATABASE_URL is not set" in worker.log.read_text()


EMBEDS = f"""
import sys
sys.path.insert(0, "")
import api, worker  # the application's own
from guardfleet import AsyncClient, AsyncDirectClient, Client, DirectClient, JobOptions, Severity, SubmitOptions, Verdict
assert sorted(name for name in sys.modules if name.split(".")[0] in {NAMES!r}) == ["api", "worker"]
from guardfleet.settings import load_settings
with DirectClient.connect(load_settings()) as client:
    job = client.submit(["one", "two"], JobOptions(name="embedded"))
    print(client.status(job.id).total, [each.status for each in client.jobs()], client.cancel(job.id).status)
assert sorted(name for name in sys.modules if name.split(".")[0] in {NAMES!r}) == ["api", "worker"]
"""


def test_an_application_with_packages_of_those_names_embeds_the_client(
    application: pathlib.Path, database_url: str, tmp_path: pathlib.Path
) -> None:
    settings = load_settings(database_url=database_url, secret_key=SECRET_KEY, data_dir=tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", EMBEDS],
        cwd=application,
        env=os.environ | settings.as_environment(),
        capture_output=True,
        text=True,
        timeout=patience(60),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(MARK) == 2  # its own were imported, by itself
    assert done.stdout.splitlines()[-1] == "2 ['in_progress'] cancelled"
