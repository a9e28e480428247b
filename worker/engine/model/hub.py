"""Models by hub name: looked up once, briefly, before anything is loaded. Without torch, because the command line uses it too."""

import pathlib
import threading
from concurrent.futures import Future

from huggingface_hub import constants, errors, get_hf_file_metadata, hf_hub_url, is_offline_mode, try_to_load_from_cache

from guardfleet.errors import ConfigurationError
from worker.engine.model.model_files import ADAPTER

ANSWER_S = 4.0  # for each step of a request
PATIENCE_S = 8.0  # for the whole look-up: resolving a name has no timeout
CONFIG = "config.json"


def is_only_cached(name: str, revision: str | None = None) -> bool:
    """Return whether the model must come from the hub's cache, because the hub cannot be reached.

    Raises ConfigurationError if it is nowhere, or an adapter, which transformers would silently skip without peft.
    """
    wrong = "HF_HUB_OFFLINE is set" if is_offline_mode() else _asked(name, revision)
    if wrong is None:
        return False
    if not _is_cached(name, revision, CONFIG):
        raise ConfigurationError(
            f"there is no folder {name!r} and no copy of such a model in the hub's cache, and {wrong}: give the model's folder, set"
            f" HF_ENDPOINT to a reachable mirror, or run `hf download {name}` where there is network."
        )
    if _is_cached(name, revision, ADAPTER):
        raise _adapter(name)
    return True


def snapshot_of(name: str, revision: str | None = None) -> pathlib.Path:
    """Return the folder of the hub's cache with a model's files, after the first was loaded; its name is the commit."""
    found = try_to_load_from_cache(name, CONFIG, revision=revision)
    if not isinstance(found, str):
        raise ConfigurationError(f"model {name!r}: the hub's cache does not name its commit: download the model into a folder.")
    return pathlib.Path(found).parent


def _is_cached(name: str, revision: str | None, file: str) -> bool:
    return isinstance(try_to_load_from_cache(name, file, revision=revision), str)


def _adapter(name: str) -> ConfigurationError:
    return ConfigurationError(
        f"model {name!r} on the hub holds an adapter ({ADAPTER}): merge it into its base model's weights, and give that folder."
    )


def _asked(name: str, revision: str | None) -> str | None:
    """Return why the hub cannot be asked; None if it has the model. Raises ConfigurationError if it says that it has none."""
    answered: Future[tuple[bool, bool]] = Future()

    def ask() -> None:
        try:
            found = _has(name, revision, CONFIG), _has(name, revision, ADAPTER)
        except Exception as error:  # noqa: BLE001 - passed on
            answered.set_exception(error)
        else:
            answered.set_result(found)

    threading.Thread(target=ask, name="ask-hub", daemon=True).start()
    try:
        has_config, has_adapter = answered.result(PATIENCE_S)
    except errors.RevisionNotFoundError:
        raise ConfigurationError(
            f"model {name!r} has no revision {revision!r} on the hub: set GUARDFLEET_ENGINE__REVISION to an existing one."
        ) from None
    except errors.GatedRepoError:
        raise ConfigurationError(f"the hub restricts access to model {name!r}: set HF_TOKEN to a token that has access.") from None
    except errors.RepositoryNotFoundError:
        raise ConfigurationError(
            f"there is no folder {name!r}, and no such model on the hub: check the spelling; a private model needs HF_TOKEN."
        ) from None
    except Exception as error:  # noqa: BLE001 - whatever it is, the cache may have the model
        return f"the hub at {constants.ENDPOINT} does not answer ({type(error).__name__})"
    if has_adapter:
        raise _adapter(name)
    if not has_config:
        raise ConfigurationError(f"{name!r} on the hub has no {CONFIG}: it is not a model that can be loaded.")
    return None


def _has(name: str, revision: str | None, file: str) -> bool:
    try:
        get_hf_file_metadata(hf_hub_url(name, file, revision=revision), timeout=ANSWER_S)
    except errors.EntryNotFoundError:
        return False
    return True
