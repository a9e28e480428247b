"""`guardfleet worker`, `dispatcher` and `api`: one process each, as compose and Kubernetes run them."""

from typing import Annotated

import typer

from guardfleet.settings import load_settings


def worker(
    model: Annotated[
        str | None, typer.Option("--model", help="Model: demo, a folder, or Qwen/Qwen3Guard-Gen-0.6B (4B, 8B).")
    ] = None,
    detector: Annotated[
        str | None, typer.Option("--detector", help="What the model judges as: guard, or the name of a detector, as ai-text.")
    ] = None,
    named_only: Annotated[bool, typer.Option("--named-only", help="Take only jobs that name this model.")] = False,
    webhooks: Annotated[bool, typer.Option("--webhooks", help="Deliver webhooks instead of moderating; needs no torch.")] = False,
    devices: Annotated[str | None, typer.Option("--devices", help="Run one process on each device: all (GPUs), or 0,1,...")] = None,
) -> int:
    """Run one worker process (one device), or one for each of several devices."""
    from guardfleet.telemetry import logs

    settings = load_settings(model=model, detector=detector, named_only=named_only or None)
    logs.configure(settings, process="webhooks" if webhooks else "worker")
    if devices is not None:
        from guardfleet.cli.commands.devices import run

        return run(settings, devices)
    from worker.process import main

    return main.deliver(settings) if webhooks else main.moderate(settings)


def dispatcher() -> int:
    """Run one dispatcher process; further ones stand by."""
    from guardfleet.telemetry import logs

    settings = load_settings()
    logs.configure(settings, process="dispatcher")
    from worker.process import main

    return main.dispatch(settings)


def api() -> int:
    """Run the HTTP API."""
    from guardfleet.telemetry import logs

    settings = load_settings()
    logs.configure(settings, process="api")
    from api.server import serve

    return serve(settings)
