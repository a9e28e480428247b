"""Models by a name of the hub: asked for once, briefly, before anything is loaded. Without torch: the command line asks too."""

import pathlib
import threading
from concurrent.futures import Future

from huggingface_hub import constants, errors, get_hf_file_metadata, hf_hub_url, is_offline_mode, try_to_load_from_cache

from guardfleet.errors import ConfigurationError
from worker.engine.model.model_files import ADAPTER

ANSWER_S = 4.0  # of each step of a request
PATIENCE_S = 8.0  # of all of it: looking a name up knows no timeout
CONFIG = "config.json"


def is_only_cached(name: str, revision: str | None = None) -> bool:
    """Whether the model is to come from the hub's cache, as the hub cannot be asked.

    Raises ConfigurationError if it is nowhere, or an adapter: transformers would leave that out where peft is not installed.
    """
    wrong = "HF_HUB_OFFLINE is set" if is_offline_mode() else _asked(name, revision)
    if wrong is None:
        return False
    if not _is_cached(name, revision, CONFIG):
        raise ConfigurationError(
            f"there is no folder {name!r}, no copy of such a model in the hub's cache, and {wrong}: give the model's folder, set "
            f"HF_ENDPOINT to a mirror that can be reached, or run `hf download {name}` where there is network."
        )
    if _is_cached(name, revision, ADAPTER):
        raise _adapter(name)
    return True


def snapshot_of(name: str, revision: str | None = None) -> pathlib.Path:
    """The folder of the hub's cache with a model's files, once its first one is there; it is called as the commit is."""
    found = try_to_load_from_cache(name, CONFIG, revision=revision)
    if not isinstance(found, str):
        raise ConfigurationError(f"model {name!r}: the hub's cache does not say of which commit it is; download it into a folder.")
    return pathlib.Path(found).parent


def _is_cached(name: str, revision: str | None, file: str) -> bool:
    return isinstance(try_to_load_from_cache(name, file, revision=revision), str)


def _adapter(name: str) -> ConfigurationError:
    return ConfigurationError(
        f"model {name!r} on the hub holds an adapter ({ADAPTER}): merge it into its base model's weights, and give that folder."
    )


def _asked(name: str, revision: str | None) -> str | None:
    """Why the hub cannot be asked; None where it has the model. Raises ConfigurationError where it says that it has none."""
    answered: Future[tuple[bool, bool]] = Future()

    def ask() -> None:
        try:
            found = _has(name, revision, CONFIG), _has(name, revision, ADAPTER)
        except Exception as error:  # noqa: BLE001 - handed on
            answered.set_exception(error)
        else:
            answered.set_result(found)

    threading.Thread(target=ask, name="ask-hub", daemon=True).start()
    try:
        has_config, has_adapter = answered.result(PATIENCE_S)
    except errors.RevisionNotFoundError:
        raise ConfigurationError(
            f"model {name!r} has no revision {revision!r} on the hub: set GUARDFLEET_ENGINE__REVISION to one that it has."
        ) from None
    except errors.GatedRepoError:
        raise ConfigurationError(f"the hub shows model {name!r} to some accounts only: set HF_TOKEN to a token of one.") from None
    except errors.RepositoryNotFoundError:
        raise ConfigurationError(
            f"there is no folder {name!r}, and no such model on the hub: look at the spelling; a private one needs HF_TOKEN."
        ) from None
    except Exception as error:  # noqa: BLE001 - whatever else it is, the cache may have the model
        return f"the hub at {constants.ENDPOINT} does not answer ({type(error).__name__})"
    if has_adapter:
        raise _adapter(name)
    if not has_config:
        raise ConfigurationError(f"{name!r} on the hub has no {CONFIG}: it is no model that could be loaded.")
    return None


def _has(name: str, revision: str | None, file: str) -> bool:
    try:
        get_hf_file_metadata(hf_hub_url(name, file, revision=revision), timeout=ANSWER_S)
    except errors.EntryNotFoundError:
        return False
    return True
