"""`submit --url`: a job of a fleet that is reached over HTTP."""

import time

from guardfleet.cli import DONE, FAILED_ROWS, INTERRUPTED, show
from guardfleet.errors import ConfigurationError
from guardfleet.settings import Settings
from producer.client import Options

LOOK_S = 1.0
SHOWN = 5  # refused lines


def submit(settings: Settings, source: str, options: Options, *, wait: bool) -> int:
    """Submit a file; print the batch's name on stdout."""
    from producer.http import HttpProducer

    if settings.api_url is None or settings.api_key is None:
        raise ConfigurationError("set GUARDFLEET_API_KEY to a key of that fleet: `guardfleet keys create` there makes one.")
    with HttpProducer(settings.api_url, settings.api_key.get_secret_value()) as producer:
        batch = producer.submit_file(source, options)
        print(batch.id, flush=True)
        taken = f"{batch.total - batch.failed:,} texts taken" + (f", {batch.failed:,} lines refused" if batch.failed else "")
        show.console.print(taken)
        for line in producer.refused(batch.id, limit=SHOWN) if batch.failed else ():
            show.console.print(f"  line {line['line']}: {line['detail']} ({line['code']})", markup=False, soft_wrap=True)
        if batch.callback_secret and not options.callback_secret:
            show.console.print(f"the callback is signed with {batch.callback_secret}")
        if not wait:
            return FAILED_ROWS if batch.failed else DONE
        try:
            while not batch.is_final:
                time.sleep(LOOK_S)
                batch = producer.status(batch.id)
                left = "" if batch.eta_s is None else f", about {batch.eta_s:,.0f} s left"
                show.console.print(f"{batch.done + batch.failed:,} of {batch.total:,}, {batch.texts_per_s:,.0f} texts/s{left}")
        except KeyboardInterrupt:
            show.console.print(f"\nThe job goes on as {batch.id}.")
            return INTERRUPTED
    show.console.print(f"{batch.id}: {batch.status}")
    return FAILED_ROWS if batch.failed or batch.status != "completed" else DONE
