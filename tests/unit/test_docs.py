"""The docs match the code: generated pages are fresh, links lead somewhere, commands exist."""

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
# An error's detail that SQL spells too, a parameter of the view's functions, and labels of metrics.
PUBLIC = ("category odds", "(odds bytea)", "get_byte(odds, place)", '"rung"', '"buried"')
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


def test_no_page_and_no_code_uses_a_word_that_the_glossary_rules_out() -> None:
    ruled_out = words_ruled_out()
    assert len(ruled_out) >= 20
    paths = spoken()
    assert len(paths) > 200
    found = {path.relative_to(ROOT).as_posix(): uses_of(ruled_out, voice_of(path)) for path in paths}
    assert {path: words for path, words in found.items() if words} == {}


def test_a_word_that_is_ruled_out_is_found_wherever_it_stands() -> None:
    text = "# It is Rung for.\nrung_at = 1\nthey are gone\non with --strictly, or --strict."
    assert uses_of(["rung", "gone on with", "--strict", "doorbell"], text) == ["rung", "gone on with", "--strict"]
    assert uses_of(["rung"], "rung_at, strung") == []
    assert uses_of(["odds"], f"the {PUBLIC[0]} of a row") == []


def words_ruled_out() -> list[str]:
    """The second column of the glossary's second table."""
    _, table = (ROOT / "docs" / "glossary.md").read_text().split("| word | not |")
    columns = re.findall(r"^\| .+? \| (.+) \|$", table, re.MULTILINE)
    return [word.strip("` ") for column in columns for word in column.split(",")]


def uses_of(words: list[str], text: str) -> list[str]:
    """Those of the words that the text has, in any case and over the ends of lines, but for names that are public."""
    plain = " ".join(text.split())
    for name in PUBLIC:
        plain = plain.replace(name, "")
    return [word for word in words if re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", plain, re.IGNORECASE)]


def spoken() -> list[pathlib.Path]:
    """Code and pages that are spoken in one voice: no history, and no glossary."""
    code = [path for part in (*CODE, "benchmarks", "examples", "models", "docs") for path in (ROOT / part).rglob("*.py")]
    history = ("docs/decisions/", "benchmarks/results/", "CHANGELOG.md", "docs/glossary.md")
    return [path for path in (*code, *PAGES) if not path.relative_to(ROOT).as_posix().startswith(history)]


def voice_of(path: pathlib.Path) -> str:
    """The text of a file, without the table of old names."""
    text = path.read_text()
    return re.sub(r"^\|.*$", "", text, flags=re.MULTILINE) if path.name == "upgrading.md" else text
