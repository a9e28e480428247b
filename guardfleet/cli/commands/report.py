"""`guardfleet report`: a job's figures as one HTML file, for people."""

from typing import Annotated

import typer

from guardfleet.settings import load_settings

MOST_EXAMPLES = 100


def report(
    job: Annotated[str, typer.Argument(metavar="JOB", help="Id of the job, job_...")],
    out: Annotated[str, typer.Option("-o", "--out", help="File to write; - for standard output.")] = "report.html",
    with_text: Annotated[
        bool, typer.Option("--with-text", help="Show the texts of the examples, veiled, as long as they are not deleted.")
    ] = False,
    examples: Annotated[
        int, typer.Option("--examples", min=0, max=MOST_EXAMPLES, metavar="N", help="Texts of each severity but safe.")
    ] = 5,
    language: Annotated[str, typer.Option("--language", help="en or zh.")] = "en",
    tenant: Annotated[str, typer.Option("--tenant", help="Tenant that owns the job.")] = "default",
) -> int:
    """Write a report of a job as one HTML file: results by category and language, cost, examples, and what they cannot say."""
    from guardfleet.cli import DONE, terminal
    from guardfleet.cli.tenants import job_of, tenant_of
    from guardfleet.errors import RejectedError
    from guardfleet.report.contents import gather
    from guardfleet.report.rendering import render
    from guardfleet.report.wording import LANGUAGES
    from guardfleet.security.encryption import Keyring
    from guardfleet.verdicts import targets

    if language not in LANGUAGES:
        raise RejectedError(f"language {language!r} is unknown; use one of {', '.join(LANGUAGES)}.")
    targets.require_writable(out)
    settings = load_settings()
    with tenant_of(settings, tenant) as (db, tenant_id, complete):
        keyring, price = Keyring.of(complete) if with_text else None, settings.price_per_device_hour
        found = gather(db, keyring, job_of(db, tenant_id, job), price=price, examples=examples, with_text=with_text)
    with targets.whole(out) as file:
        file.write(render(found, language=language).encode())
    if out != targets.STANDARD:
        terminal.say("the report is in ", (out, "bold"))
    if found.texts_kept is False:
        terminal.say("its texts are no longer kept: the examples have none")
    return DONE
