"""Models by a name of the hub: asked for once, briefly, before anything is loaded. Without torch: the command line asks too."""

import threading
from concurrent.futures import Future

from huggingface_hub import constants, errors, get_hf_file_metadata, hf_hub_url, is_offline_mode, try_to_load_from_cache

from guardfleet.errors import ConfigurationError

ANSWER_S = 4.0  # of each step of a request
PATIENCE_S = 8.0  # of all of it: looking a name up knows no timeout
CONFIG = "config.json"


def is_only_cached(name: str, revision: str | None = None) -> bool:
    """Whether the model is to come from the hub's cache, as the hub cannot be asked. Raises ConfigurationError if it is nowhere."""
    wrong = "HF_HUB_OFFLINE is set" if is_offline_mode() else _asked(name, revision)
    if wrong is None:
        return False
    if isinstance(try_to_load_from_cache(name, CONFIG, revision=revision), str):
        return True
    raise ConfigurationError(
        f"there is no folder {name!r}, no copy of such a model in the hub's cache, and {wrong}: give the model's folder, set "
        f"HF_ENDPOINT to a mirror that can be reached, or run `hf download {name}` where there is network."
    )


def _asked(name: str, revision: str | None) -> str | None:
    """Why the hub cannot be asked; None where it has the model. Raises ConfigurationError where it says that it has none."""
    answered: Future[None] = Future()
    url = hf_hub_url(name, CONFIG, revision=revision)

    def ask() -> None:
        try:
            get_hf_file_metadata(url, timeout=ANSWER_S)
        except Exception as error:  # noqa: BLE001 - handed on
            answered.set_exception(error)
        else:
            answered.set_result(None)

    threading.Thread(target=ask, name="ask-hub", daemon=True).start()
    try:
        answered.result(PATIENCE_S)
    except errors.RevisionNotFoundError:
        raise ConfigurationError(
            f"model {name!r} has no revision {revision!r} on the hub: set GUARDFLEET_MODEL_REVISION to one that it has."
        ) from None
    except errors.GatedRepoError:
        raise ConfigurationError(f"the hub shows model {name!r} to some accounts only: set HF_TOKEN to a token of one.") from None
    except errors.RepositoryNotFoundError:
        raise ConfigurationError(
            f"there is no folder {name!r}, and no such model on the hub: look at the spelling; a private one needs HF_TOKEN."
        ) from None
    except errors.EntryNotFoundError:
        raise ConfigurationError(f"{name!r} on the hub has no {CONFIG}: it is no model that could be loaded.") from None
    except Exception as error:  # noqa: BLE001 - whatever else it is, the cache may have the model
        return f"the hub at {constants.ENDPOINT} does not answer ({type(error).__name__})"
    return None
