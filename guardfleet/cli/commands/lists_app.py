"""`guardfleet lists`: its commands and options."""

from typing import Annotated

import typer

from guardfleet.settings import load_settings

lists_app = typer.Typer(no_args_is_help=True, help="Terms, patterns and texts that are looked for before the model is asked.")

File = Annotated[str, typer.Argument(metavar="FILE", help=".csv, .jsonl, or a term a line; - for stdin.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The list.")]
Label = Annotated[str, typer.Argument(metavar="NAME[@VERSION]", help="A stored list; without a version the active or newest.")]
Tenant = Annotated[str, typer.Option("--tenant", help="Whose list.")]
Form = Annotated[str | None, typer.Option("--format", help="csv, jsonl or txt; by default as the file's name says.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Since = Annotated[
    str | None, typer.Option("--since", help="Hits in jobs from then on: 90d, or a date. Default: all that are kept.")
]


@lists_app.command("check")
def check(file: File, form: Form = None) -> int:
    """Check a list; say what is wrong with it, line by line."""
    from guardfleet.cli.commands import lists

    return lists.check(file, form)


@lists_app.command("import")
def import_(name: Name, file: File, form: Form = None, tenant: Tenant = "default") -> int:
    """Store a list as the next version of its name, and print that."""
    from guardfleet.cli.commands import lists

    return lists.import_(load_settings(), name, file, form, tenant=tenant)


@lists_app.command("list")
def listing(tenant: Tenant = "default", as_json: Json = False) -> int:
    """List all stored versions, newest first."""
    from guardfleet.cli.commands import lists

    return lists.listing(load_settings(), tenant=tenant, as_json=as_json)


@lists_app.command("export")
def export(
    label: Label,
    out: Annotated[str, typer.Option("-o", "--out", help=".csv or .jsonl; - for stdout.")] = "-",
    form: Form = None,
    tenant: Tenant = "default",
) -> int:
    """Write a list's entries, as `import` reads them."""
    from guardfleet.cli.commands import lists

    return lists.export(load_settings(), label, out, form, tenant=tenant)


@lists_app.command("diff")
def diff(old: Label, new: Label, tenant: Tenant = "default", as_json: Json = False) -> int:
    """Say which entries two versions do not share."""
    from guardfleet.cli.commands import lists

    return lists.diff(load_settings(), old, new, tenant=tenant, as_json=as_json)


@lists_app.command("match")
def match(file: File, form: Form = None, as_json: Json = False) -> int:
    """Look for a list's entries in the lines of standard input, and print where they are; nothing is stored."""
    from guardfleet.cli.commands import lists

    return lists.match(file, form, as_json=as_json)


@lists_app.command("activate")
def activate(label: Label, tenant: Tenant = "default") -> int:
    """Look for a version from now on; going back is activating the old one."""
    from guardfleet.cli.commands import lists

    return lists.activate(load_settings(), label, tenant=tenant)


@lists_app.command("deactivate")
def deactivate(label: Label, tenant: Tenant = "default") -> int:
    """Look for a list no longer."""
    from guardfleet.cli.commands import lists

    return lists.deactivate(load_settings(), label, tenant=tenant)


@lists_app.command("hits")
def hits(label: Label, since: Since = None, tenant: Tenant = "default", as_json: Json = False) -> int:
    """Say in how many texts each entry was found, most often first."""
    from guardfleet.cli.commands import lists

    return lists.hits(load_settings(), label, since, tenant=tenant, as_json=as_json)


@lists_app.command("prune")
def prune(
    label: Label,
    since: Since = None,
    out: Annotated[str | None, typer.Option("-o", "--out", help="Write the list without them: .csv or .jsonl.")] = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> int:
    """Show the entries that were found in no text; nothing is changed."""
    from guardfleet.cli.commands import lists

    return lists.prune(load_settings(), label, since, out, tenant=tenant, as_json=as_json)
