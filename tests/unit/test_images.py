"""No Docker engine runs here: the Dockerfiles are read by hadolint, and held to what the repository has."""

import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

from tests.conftest import missing

ROOT = pathlib.Path(__file__).parents[2]
FILES = sorted((ROOT / "deploy").glob("*.Dockerfile"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
each = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def stages(file: pathlib.Path) -> dict[str, str]:
    """The stages of a Dockerfile, by name; the last is the image."""
    parts = re.split(r"^FROM ", file.read_text(), flags=re.MULTILINE)[1:]
    named = [(re.match(r"\S+ AS (\S+)", part), part) for part in parts]
    return {match[1] if match else "image": part for match, part in named}


def requirements(*extras: str) -> list[str]:
    command = [sys.executable, str(ROOT / "deploy" / "requirements.py"), ",".join(extras)]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.splitlines()


def test_hadolint_finds_nothing() -> None:
    binary = pathlib.Path(sys.executable).parent / "hadolint"
    if not binary.exists():
        missing("hadolint is not installed")
    found = subprocess.run([str(binary), "--no-color", *map(str, FILES)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout
    assert len(FILES) == 2


@each
def test_bases_are_exact_versions_and_all_the_same(file: pathlib.Path) -> None:
    bases = {name for name in re.findall(r"^FROM (\S+)", file.read_text(), re.MULTILINE) if ":" in name}
    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+", bases.pop())


@each
def test_dependencies_are_pinned_and_cached_apart_from_the_source(file: pathlib.Path) -> None:
    found = stages(file)
    dependencies = "".join(part for name, part in found.items() if name not in ("wheel", "image"))
    copied = {name for line in re.findall(r"^COPY (.+) \./$", dependencies, re.MULTILINE) for name in line.split()}
    assert copied == {"pyproject.toml", "constraints.txt", "deploy/requirements.py"}
    assert "pip install -r requirements.txt" in dependencies
    for name, part in found.items():
        if "pip install" in part or "pip wheel" in part:
            inherited = name in ("image", "dependencies") or name.startswith("torch-")
            assert "PIP_CONSTRAINT=/src/constraints.txt" in part or inherited, f"{name} installs without pins"
    assert "--no-index --no-deps /dist/*.whl" in found["image"]
    assert "--no-deps" in found["wheel"]


@each
def test_the_wheel_is_built_of_all_that_it_packs_and_nothing_else_is_sent(file: pathlib.Path) -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {*wheel["packages"], *wheel["force-include"], "pyproject.toml", "constraints.txt", "README.md", "LICENSE"}
    copied = {name for line in re.findall(r"^COPY (.+) \S+$", stages(file)["wheel"], re.MULTILINE) for name in line.split()}
    assert copied == needed
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert sent == needed | {"deploy/requirements.py"}
    assert all((ROOT / name).exists() for name in sent)


@each
def test_the_image_runs_as_a_number_that_is_not_root(file: pathlib.Path) -> None:
    image = stages(file)["image"]
    assert re.findall(r"^USER (.+)$", image, re.MULTILINE) == ["10001"]
    assert "useradd --system --uid 10001" in image


def test_what_is_installed_first_is_what_the_extras_require() -> None:
    service = re.findall(r"^ARG EXTRAS=(\S+)$", (ROOT / "deploy" / "service.Dockerfile").read_text(), re.MULTILINE)[0].split(",")
    extras = PROJECT["optional-dependencies"]
    for names in (service, ["worker"]):
        expected = [*PROJECT["dependencies"], *(line for name in names for line in extras[name])]
        assert requirements(*names) == list(dict.fromkeys(expected))
    assert not any(line.startswith("torch") for line in requirements(*service))
    s3 = requirements(*service, "s3")
    assert set(extras["api"]) < set(s3)
    assert not any(line.startswith("guardfleet") for line in s3)


def test_torch_for_cpus_and_for_gpus_are_stages_apart() -> None:
    found = stages(ROOT / "deploy" / "worker.Dockerfile")
    assert {"torch-cuda", "torch-cpu"} < set(found)
    assert found["dependencies"].startswith("torch-${TORCH} AS dependencies")
    assert "TORCH_INDEX" in found["torch-cpu"]
    assert "TORCH_INDEX" not in found["torch-cuda"]
