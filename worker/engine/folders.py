"""Where a model's files are and what tells one revision from another. Without torch: the command line asks too."""

import hashlib
import pathlib

from guardfleet.errors import ConfigurationError

DEMO = "demo"
PACKAGE = pathlib.Path(__file__).parents[2]
DEMO_FOLDERS = (PACKAGE / "models" / "demo", PACKAGE / "guardfleet" / "_demo_model")
SUFFIXES = (".json", ".safetensors", ".jinja", ".txt")
EDGE_BYTES = 1 << 20


def folder_of(name: str) -> pathlib.Path | None:
    """The folder that a model's name means; None for a hub name. Raises ConfigurationError when it cannot be one."""
    if name == DEMO:
        folder = next((folder for folder in DEMO_FOLDERS if (folder / "config.json").is_file()), None)
        if folder is None:
            raise ConfigurationError("the demo model is missing from this installation; reinstall guardfleet.")
        return folder
    folder = pathlib.Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ConfigurationError(f"model folder {name!r} has no config.json: give the folder that from_pretrained would take.")
        return folder
    if folder.is_absolute() or name.startswith("."):
        raise ConfigurationError(f"model folder {name!r} does not exist.")
    return None


def name_of(model: str) -> str:
    """What verdicts and jobs call a model: a folder's own name, a hub name as it is."""
    folder = folder_of(model)
    return "guardfleet-demo" if model == DEMO else folder.name if folder else model


def digest_of(folder: pathlib.Path) -> str:
    """SHA-256 over each file's name, size and first and last MiB: tells revisions apart without reading 16 GB at every start."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES):
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        with path.open("rb") as file:
            digest.update(file.read(EDGE_BYTES))
            file.seek(max(0, size - EDGE_BYTES))
            digest.update(file.read(EDGE_BYTES))
    return digest.hexdigest()
