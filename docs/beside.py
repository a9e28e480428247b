"""Put pages from outside `docs/` on the site, and make links lead there from any page.

Links name files as in the repository, so that they work there too. A link to a file that is in the repository but not on the site
becomes plain text; a link to a file that is in neither is left to mkdocs, which refuses it.
"""

import os
import pathlib
import posixpath
import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = pathlib.Path(__file__).parents[1]
PREFIX = "beside/"
BESIDE = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "models/demo/README.md",
    "models/policy-demo/README.md",
    "benchmarks/results/*.md",
    "examples/*.py",
)
LINK = re.compile(r"\[([^\]]+)\]\(([^)#\s:]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside `docs/`."""
    for pattern in BESIDE:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, PREFIX + name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - mkdocs names it
    """Turn links between files of the repository into links between pages of the site."""
    here = page.file.src_uri

    def turned(match: re.Match[str]) -> str:
        words, target, anchor = match[1], match[2], match[3] or ""
        path = posixpath.normpath(posixpath.join(posixpath.dirname(_in_repository(here)), target))
        there = _on_site(path)
        if files.get_file_from_path(there) is not None:
            return f"[{words}]({os.path.relpath(there, posixpath.dirname(here) or '.')}{anchor})"
        return words if (ROOT / path).exists() else match[0]

    return LINK.sub(turned, markdown)


def _in_repository(uri: str) -> str:
    return uri.removeprefix(PREFIX) if uri.startswith(PREFIX) else f"docs/{uri}"


def _on_site(path: str) -> str:
    path = f"{path}/README.md" if (ROOT / path).is_dir() else path
    return path.removeprefix("docs/") if path.startswith("docs/") else PREFIX + path
