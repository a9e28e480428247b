"""`submit`, `watch` and `jobs` with `--url`: a fleet that is reached over HTTP."""

import datetime as dt
import time
from typing import TYPE_CHECKING

from guardfleet.cli import DONE, FAILED_ROWS, INTERRUPTED, progress, terminal
from guardfleet.client.job import Job, SubmitOptions
from guardfleet.domain.options import JobOptions
from guardfleet.errors import ConfigurationError
from guardfleet.settings import Settings
from producer.sources import Inputs
from producer.submit import submit_input

if TYPE_CHECKING:
    from guardfleet.cli.commands.job_list import Line
    from guardfleet.client.http import Client

LOOK_S = 1.0
SHOWN = 5  # refused lines


def submit(settings: Settings, inputs: Inputs, options: JobOptions, how: SubmitOptions, *, wait: bool) -> int:
    """Submit a file; print the batch's id on stdout."""
    with connect(settings) as client:
        batch = submit_input(client, inputs, options, how)
        print(batch.id, flush=True)
        taken = f"{batch.total - batch.failed:,} texts accepted" + (f", {batch.failed:,} lines refused" if batch.failed else "")
        terminal.say(taken)
        for line in client.refused(batch.id, limit=SHOWN) if batch.failed else ():
            terminal.say(f"  line {line['line']}: {line['detail']} ({line['code']})")
        if batch.callback_secret and not how.callback_secret:
            terminal.say(f"the callback is signed with {batch.callback_secret}")
        for warning in batch.warnings:
            progress.look_at(warning)
        if not wait:
            return FAILED_ROWS if batch.failed else DONE
        return _follow(settings, client, batch)


def watch(settings: Settings, label: str) -> int:
    """Show a batch's progress until it has ended."""
    with connect(settings) as client:
        return _follow(settings, client, client.status(label))


def listing(settings: Settings, *, after: str | None, limit: int) -> "list[Line]":
    """Return a page of batches, newest first."""
    from guardfleet.cli.commands.job_list import Line

    with connect(settings) as client:
        found = client.jobs(after=after, limit=limit)
    return [
        Line(
            one.id,
            one.raw.get("name") or "",
            one.status,
            one.total,
            one.done + one.failed,
            one.failed,
            _moment(one.raw["created_at"]),
            one.raw.get("retry_of"),
            tuple(one.raw.get("retries", ())),
        )
        for one in found
    ]


def connect(settings: Settings) -> "Client":
    """Return a client of the fleet at `api_url`. Raises ConfigurationError without a key."""
    from guardfleet.client.http import Client

    if settings.api_url is None or settings.api_key is None:
        raise ConfigurationError("set GUARDFLEET_API_KEY to a key of that fleet: make one there with `guardfleet keys create`.")
    return Client(settings.api_url, settings.api_key.get_secret_value())


def _follow(settings: Settings, client: "Client", batch: Job) -> int:
    try:
        while not batch.is_final:
            time.sleep(LOOK_S)
            batch = client.status(batch.id)
            left = "" if batch.eta_s is None else f", about {batch.eta_s:,.0f} s left"
            terminal.say(f"{batch.done + batch.failed:,} of {batch.total:,}, {batch.texts_per_s:,.0f} texts/s{left}")
    except KeyboardInterrupt:
        again = f"guardfleet watch {batch.id} --url {settings.api_url}"
        terminal.say(f"\nThe job goes on. To watch it again: {again}")
        return INTERRUPTED
    terminal.say(f"{batch.id}: {batch.status}")
    return FAILED_ROWS if batch.failed or batch.status != "completed" else DONE


def _moment(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)
