"""`guardfleet erase`, `guardfleet erasures` and `guardfleet hold`: their commands and options."""

from typing import Annotated

import typer

from guardfleet.settings import load_settings

hold_app = typer.Typer(no_args_is_help=True, help="Legal holds: what may not be erased, nor go because its time is over.")

Ids = Annotated[list[str] | None, typer.Option("--id", metavar="ID", help="Texts with this id of the caller's; repeatable.")]
Subjects = Annotated[
    list[str] | None,
    typer.Option("--subject", metavar="KEY=VALUE", help="Texts whose metadata have this member; repeatable."),
]
IdsFrom = Annotated[str | None, typer.Option("--ids-from", metavar="FILE", help="Ids, one a line; - for stdin.")]
SubjectsFrom = Annotated[
    str | None, typer.Option("--subjects-from", metavar="FILE", help="Subjects as KEY=VALUE, one a line; - for stdin.")
]
Tenant = Annotated[str, typer.Option("--tenant", help="Whose data.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]


def erase(
    row_id: Ids = None,
    subject: Subjects = None,
    ids_from: IdsFrom = None,
    subjects_from: SubjectsFrom = None,
    job: Annotated[
        str | None, typer.Option("--job", metavar="JOB", help="Only texts of this job; alone: the job as a whole.")
    ] = None,
    tenant: Tenant = "default",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what it would meet.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    rewrite: Annotated[
        bool,
        typer.Option(
            "--rewrite",
            help="Also rewrite the tables, each locked meanwhile, so that no page keeps old bytes. Alone: of all earlier erasures.",
        ),
    ] = False,
    as_json: Json = False,
) -> int:
    """Erase one person's texts, or a job, for good, and print the receipt; interrupt and repeat it as you like."""
    from guardfleet.cli.commands import erasing, erasing_targets

    what = erasing_targets.What(row_id or (), subject or (), ids_from, subjects_from, job)
    return erasing.erase(load_settings(), what, tenant=tenant, dry_run=dry_run, yes=yes, rewrite=rewrite, as_json=as_json)


def erasures(
    tenant: Tenant = "default",
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="Most receipts.")] = 20,
    as_json: Json = False,
) -> int:
    """List the receipts of erasures, newest first."""
    from guardfleet.cli.commands import erasing

    return erasing.listing(load_settings(), tenant=tenant, limit=limit, as_json=as_json)


@hold_app.command("add")
def hold_add(
    reason: Annotated[str, typer.Option("--reason", metavar="CODE", help="Why, as a short code, such as case-2026-17.")],
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="Id of a job, job_...")] = None,
    row_id: Ids = None,
    subject: Subjects = None,
    ids_from: IdsFrom = None,
    subjects_from: SubjectsFrom = None,
    tenant: Tenant = "default",
) -> int:
    """Hold a job, or all texts with an id or subject, and print the hold's id, one for each target."""
    from guardfleet.cli.commands import erasing, erasing_targets

    what = erasing_targets.What(row_id or (), subject or (), ids_from, subjects_from, job)
    return erasing.hold(load_settings(), what, reason=reason, tenant=tenant)


@hold_app.command("extend")
def hold_extend(
    hold: Annotated[str, typer.Argument(metavar="HOLD", help="Id of the hold, hold_...")], tenant: Tenant = "default"
) -> int:
    """Have retention also leave alone the jobs that got a text of the hold since it was made."""
    from guardfleet.cli.commands import erasing

    return erasing.extend(load_settings(), hold, tenant=tenant)


@hold_app.command("list")
def hold_list(tenant: Tenant = "default", as_json: Json = False) -> int:
    """List holds, released ones too, newest first."""
    from guardfleet.cli.commands import erasing

    return erasing.holds_of(load_settings(), tenant=tenant, as_json=as_json)


@hold_app.command("release")
def hold_release(
    hold: Annotated[str, typer.Argument(metavar="HOLD", help="Id of the hold, hold_...")], tenant: Tenant = "default"
) -> int:
    """Release a hold."""
    from guardfleet.cli.commands import erasing

    return erasing.release(load_settings(), hold, tenant=tenant)
