"""`guardfleet labels`, `guardfleet sample` and `guardfleet reviews`: their commands and options."""

from typing import Annotated

import typer

from guardfleet.domain.designs import DESIGNS, MOST_SEED
from guardfleet.domain.labels import Source
from guardfleet.settings import load_settings

labels_app = typer.Typer(no_args_is_help=True, help="What people say of texts: labels, to measure verdicts by.")

SOURCES = ", ".join(source.label for source in Source)
Tenant = Annotated[str, typer.Option("--tenant", help="Whose texts.")]
Job = Annotated[str | None, typer.Option("--job", metavar="JOB", help="Only texts of this job.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Out = Annotated[str, typer.Option("-o", "--out", help="File to write, .csv or .jsonl; - for standard output, as JSONL.")]
SpreadsheetSafe = Annotated[
    bool, typer.Option("--spreadsheet-safe", help="In CSV, put an apostrophe before what a spreadsheet would run.")
]


@labels_app.command("import")
def import_(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Rows with label and job, seq or id: CSV, JSONL, Parquet; - for stdin.")
    ],
    source: Annotated[str, typer.Option("--source", help=f"Whose word it is: {SOURCES}.")],
    author: Annotated[str, typer.Option("--author", help="Who labelled, of rows that do not say it themselves.")],
    job: Annotated[
        str | None, typer.Option("--job", metavar="JOB", help="The job, of rows that do not name it themselves.")
    ] = None,
    tenant: Tenant = "default",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON object for each refused line, and one with the counts.")
    ] = False,
) -> int:
    """Store labels. Each line is taken or refused; a file can be imported again. Exit status 1 if a line is refused."""
    from guardfleet.cli.commands import labels

    return labels.take_in(load_settings(), file, source=source, author=author, job=job, tenant=tenant, as_json=as_json)


@labels_app.command("export")
def export(out: Out = "-", job: Job = None, tenant: Tenant = "default", spreadsheet_safe: SpreadsheetSafe = False) -> int:
    """Write all labels, in the order in which they were stored."""
    from guardfleet.cli.commands import labels

    return labels.write(load_settings(), out, job=job, tenant=tenant, spreadsheet_safe=spreadsheet_safe)


@labels_app.command("list")
def listing(job: Job = None, tenant: Tenant = "default", as_json: Json = False) -> int:
    """Count labels by source and severity."""
    from guardfleet.cli.commands import labels

    return labels.summary(load_settings(), job=job, tenant=tenant, as_json=as_json)


def sample(
    job: Annotated[str, typer.Argument(metavar="JOB", help="Id of the ended job, job_...")],
    n: Annotated[int, typer.Option("--n", min=1, help="How many texts to draw, all designs together.")] = 500,
    by: Annotated[str, typer.Option("--by", help=f"Designs, with commas: {', '.join(DESIGNS)}.")] = "random",
    slice_key: Annotated[
        str | None, typer.Option("--slice", metavar="KEY", help="Also by this key of the metadata: as many texts of each value.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, max=MOST_SEED, help="Draw the same texts again.")] = None,
    out: Out = "-",
    texts: Annotated[bool, typer.Option("--texts", help="Write the texts too, as long as they are not deleted.")] = False,
    tenant: Tenant = "default",
    spreadsheet_safe: SpreadsheetSafe = False,
) -> int:
    """Draw texts to be labelled, with known probabilities, and write them with an empty column for the label."""
    from guardfleet.cli.commands import sample as command

    return command.draw(
        load_settings(), job, n=n, by=by, slice_key=slice_key, seed=seed, out=out, with_texts=texts, tenant=tenant,
        spreadsheet_safe=spreadsheet_safe,
    )  # fmt: skip


def reviews(
    job: Job = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="Most texts in one page.")] = 50,
    after: Annotated[str | None, typer.Option("--after", metavar="TEXT", help="Show the page after this text.")] = None,
    tenant: Tenant = "default",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
) -> int:
    """List texts that the policy wants a person to look at, oldest first, until they are labelled."""
    from guardfleet.cli.commands import reviews as command

    return command.listing(load_settings(), job=job, limit=limit, after=after, tenant=tenant, as_json=as_json)
