"""The docs say what the code does: generated pages are fresh, links lead somewhere, commands exist."""

import ast
import importlib.util
import json
import pathlib
import re
import subprocess
import sys
from types import ModuleType

import pytest

ROOT = pathlib.Path(__file__).parents[2]
CODE = ("guardfleet", "worker", "producer", "api")
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "models").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_generated_page_is_fresh() -> None:
    for name, page in generator().PAGES.items():
        assert (ROOT / "docs" / name).read_text() == page(), f"docs/{name}: run `make docs`"


def test_what_the_api_says_of_itself_needs_no_server() -> None:
    assert "/v1/batches" in json.loads(generator().openapi())["paths"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: pathlib.Path) -> None:
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), target


def test_every_path_that_a_page_names_exists() -> None:
    folders = "guardfleet|worker|producer|api|migrations|tests|docs|benchmarks|examples|deploy"
    pages = [page for page in PAGES if page.name != "CHANGELOG.md"]  # which tells of what was
    named = {path for page in pages for path in re.findall(rf"(?<![\w/.-])((?:{folders})/[\w./-]*\w)", page.read_text())}
    assert len(named) > 50
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_every_room_is_in_the_architecture() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    there = {path.parent.relative_to(ROOT).as_posix() for name in CODE for path in (ROOT / name).rglob("__init__.py")} - set(CODE)
    assert [room for room in sorted(there) if f"`{room}`" not in page] == []


def test_every_command_in_the_readme_exists() -> None:
    text = (ROOT / "README.md").read_text()
    commands = {match.split()[0] for match in re.findall(r"^(?:\$ )?guardfleet ([a-z].*)$", text, re.MULTILINE)}
    assert commands
    shown = subprocess.run([sys.executable, "-m", "guardfleet", "--help"], capture_output=True, text=True, check=True).stdout
    assert all(re.search(rf"\b{command}\b", shown) for command in commands)
    targets = set(re.findall(r"^(?:\$ )?make ([a-z]+)", text, re.MULTILINE))
    assert targets <= set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_every_test_that_a_page_names_exists() -> None:
    named = {name for page in PAGES for name in re.findall(r"`(test_\w+)`", page.read_text())}
    assert named
    there = set(re.findall(r"^def (test_\w+)", "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py")), re.MULTILINE))
    assert named <= there


def test_every_word_of_the_glossary_is_used_in_the_code() -> None:
    words = re.findall(r"^\| \*\*(\w+)\*\*", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE)
    assert len(words) >= 10
    assert unused(words) == []
    assert unused(["shard", "doorbel", "oorbell", "elif"]) == ["doorbel", "oorbell", "elif"]  # whole words, of names alone


def unused(words: list[str]) -> list[str]:
    """The words that no name in the source has: neither prose nor a keyword of Python is a use."""
    paths = [path for part in ("guardfleet", "worker", "producer", "api") for path in (ROOT / part).rglob("*.py")]
    nodes = [node for path in paths for node in ast.walk(ast.parse(path.read_text()))]
    names = {getattr(node, field, None) for node in nodes for field in ("id", "attr", "arg", "name", "module")}
    used = {part.lower() for name in names if isinstance(name, str) for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}
    return [word for word in words if not used & {word.lower(), f"{word.lower()}s", f"{word.lower()}es"}]
