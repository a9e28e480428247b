#!/usr/bin/env python3
"""Check that commit subjects have one form: `type(scope): verb ...` or `type: verb ...`, imperative, at most 72 characters.

Without arguments, checks the commits after the one that added this file; with the path of a message, that message.
"""

import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve()
MAX_CHARS = 72
TYPES = ("bench", "build", "chore", "ci", "docs", "feat", "fix", "perf", "refactor", "revert", "style", "test")
FORM = re.compile(rf"(?:{'|'.join(TYPES)})(?:\([a-z0-9][a-z0-9._/-]*\))?!?: (?P<verb>\S+)(?: .*)?")
# Endings of verbs in another form, and imperatives that end so too.
ENDINGS = ("ed", "ing", "s")
IMPERATIVE = re.compile(r"(?:em)?bed|exceed|feed|need|proceed|seed|shed|speed|bring|ping|ring|string|swing|focus|\w*ss|alias|bias")
TO_BE_FOLDED = ("fixup! ", "squash! ", "amend! ", "Merge ")


def fault(subject: str) -> str | None:
    """Return what is wrong with a subject, or None."""
    if len(subject) > MAX_CHARS:
        return f"has {len(subject)} characters: {MAX_CHARS} at most"
    match = FORM.fullmatch(subject)
    if match is None:
        return f"is not `type(scope): subject` or `type: subject`; types: {', '.join(TYPES)}"
    verb = match["verb"]
    if verb[0].isupper() and verb[1:].islower():
        return f"begins with a capital: {verb}"
    if verb.endswith(ENDINGS) and not IMPERATIVE.fullmatch(verb):
        return f"is not imperative: {verb}"
    return "ends with a full stop" if subject.endswith(".") else None


def git(*args: str) -> str:
    """Run git in the checkout that this file is in."""
    return subprocess.run(["git", "-C", str(HERE.parent), *args], capture_output=True, text=True, check=True).stdout


def commits() -> list[tuple[str, str]]:
    """Return id and subject of each commit after the one that added this file; none if git has no such history."""
    added = git("log", "--diff-filter=A", "--format=%H", "--", str(HERE)).split()
    if not added:
        return []
    lines = git("log", "--no-merges", "--ancestry-path", "--format=%h %s", f"{added[-1]}..HEAD").splitlines()
    return [(commit, subject) for commit, _, subject in (line.partition(" ") for line in lines)]


def main(message: str | None = None) -> int:
    """Print what is wrong; return 1 if anything is."""
    if message is not None:
        lines = pathlib.Path(message).read_text().splitlines()
        subject = next((line for line in lines if line.strip() and not line.startswith("#")), "")
        found = [] if subject.startswith(TO_BE_FOLDED) else [("the subject", subject)]
    else:
        found = commits()
    faults = [f"{commit} {why}\n    {subject}\n" for commit, subject in found if (why := fault(subject))]
    sys.stderr.writelines(faults)
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:2]))
