"""Where a model's files are, and what distinguishes revisions: a hash of all their bytes, computed once per state of a file.

A file's state is its device, inode, size and times of change. Its ctime cannot be set by hand, so no change keeps them all. But
clocks tick, and a file that was changed just now may change again within the same tick: such a file is hashed each time. Without
torch, because the command line uses it too.
"""

import difflib
import hashlib
import json
import os
import pathlib
import re
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

from guardfleet.domain.verdict import GUARD
from guardfleet.errors import ConfigurationError

DEMO = "demo"
AI_TEXT = "ai-text"  # the detector that has a demo model too
PACKAGE = pathlib.Path(__file__).parents[3]
DEMO_FOLDERS = {  # by detector: in a checkout, and as installed
    GUARD: (PACKAGE / "models" / "demo", PACKAGE / "guardfleet" / "_demo_model"),
    AI_TEXT: (PACKAGE / "models" / "ai-text-demo", PACKAGE / "guardfleet" / "_ai_text_demo_model"),
}
DEMO_NAMES = {GUARD: "guardfleet-demo", AI_TEXT: "guardfleet-ai-text-demo"}
ADAPTER = "adapter_config.json"
STABLE_S = 10.0  # since a file's last change, before its digest is remembered; network file systems may tick in seconds
READERS = 4  # files hashed at once: a disk reads faster than a core hashes
REMEMBERED = "model-digests.json"
HUB_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)?")  # any other name can only be a folder
PROSE = (".md",)  # not read by anything that judges


class _State(NamedTuple):
    """The state of a file."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


_SEEN: dict[_State, str] = {}  # in this process


def folder_of(name: str, detector: str = GUARD) -> pathlib.Path | None:
    """Return the folder that a model's name means; None for a hub name. Raises ConfigurationError if it is neither.

    `detector`: whose demo model is meant by `demo`.
    """
    if name == DEMO:
        if detector not in DEMO_FOLDERS:
            raise ConfigurationError(f"the detector {detector!r} has no demo model: set GUARDFLEET_ENGINE__MODEL to yours.")
        folder = next((folder for folder in DEMO_FOLDERS[detector] if (folder / "config.json").is_file()), None)
        if folder is None:
            raise ConfigurationError("the demo model is missing from this installation; reinstall guardfleet.")
        return folder
    folder = pathlib.Path(name).expanduser()
    if folder.is_dir():
        if (folder / ADAPTER).exists():
            raise ConfigurationError(
                f"model folder {name!r} holds an adapter ({ADAPTER}): merge it into the weights, or move it away."
            )
        if not (folder / "config.json").is_file():
            raise ConfigurationError(f"model folder {name!r} has no config.json: give the folder that from_pretrained accepts.")
        return folder
    if folder.exists():
        raise ConfigurationError(f"model {name!r} is a file: give its folder.")
    near = _nearest(folder)
    if near or not HUB_NAME.fullmatch(name):
        raise ConfigurationError(f"model folder {name!r} does not exist" + (f"; {near} does." if near else ": check the spelling."))
    return None


def _nearest(folder: pathlib.Path) -> pathlib.Path | None:
    """Return a model folder beside it with a similar name, which was probably meant."""
    with suppress(OSError):
        beside = {path.name: path for path in folder.parent.iterdir() if (path / "config.json").is_file()}
        return next((beside[name] for name in difflib.get_close_matches(folder.name, beside, 1)), None)
    return None


def name_of(model: str, detector: str = GUARD) -> str:
    """Return the name of a model in verdicts and jobs: a folder's own name, or the hub name."""
    folder = folder_of(model, detector)
    return DEMO_NAMES[detector] if model == DEMO else folder.name if folder else model


def digest_of(folder: pathlib.Path, memory: pathlib.Path | None = None) -> str:
    """Return SHA-256 over the name and content of each file in a model's folder.

    `memory`: a folder that remembers digests beyond this process, if it is writable; it need not exist. Raises ConfigurationError
    for a file that cannot be read, or changes meanwhile.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and _counts(path.relative_to(folder)))
    known = {**_read(memory), **_SEEN}
    with ThreadPoolExecutor(READERS) as pool:
        found = list(pool.map(lambda path: _digest(path, known), files))
    _remember(memory, dict(found))
    digest = hashlib.sha256()
    for path, (_, content) in zip(files, found, strict=True):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{content}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _counts(path: pathlib.PurePath) -> bool:
    return path.suffix not in PROSE and not any(part.startswith(".") for part in path.parts)


def _digest(path: pathlib.Path, known: Mapping[_State, str]) -> tuple[_State, str]:
    try:
        before = _state(path)
        if before in known:
            return before, known[before]
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        after = _state(path)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from error
    if after != before:
        raise ConfigurationError(f"{path} changed while it was read: start again when it is complete.")
    return before, content


def _state(path: pathlib.Path) -> _State:
    stat = path.stat()
    return _State(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def _remember(memory: pathlib.Path | None, found: Mapping[_State, str]) -> None:
    latest_ns = time.time_ns() - int(STABLE_S * 1e9)
    stable = {state: digest for state, digest in found.items() if max(state.mtime_ns, state.ctime_ns) < latest_ns}
    _SEEN.update(stable)
    kept = _read(memory)
    if memory is None or stable.items() <= kept.items():
        return
    lines = [[*state, digest] for state, digest in {**kept, **stable}.items()]
    draft = memory / f"{REMEMBERED}.{os.getpid()}"
    with suppress(OSError):  # then they are computed again at the next start
        memory.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(lines))
        draft.replace(memory / REMEMBERED)


def _read(memory: pathlib.Path | None) -> dict[_State, str]:
    """Return what was remembered; nothing if the file is missing or damaged."""
    if memory is None:
        return {}
    try:
        lines = json.loads((memory / REMEMBERED).read_text())
        return {_State(*(int(part) for part in parts)): str(digest) for *parts, digest in lines}
    except (OSError, ValueError, TypeError):
        return {}
