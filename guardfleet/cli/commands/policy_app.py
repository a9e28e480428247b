"""`guardfleet policy` and `guardfleet redecide`: their commands and options."""

from typing import Annotated

import typer

from guardfleet.settings import load_settings

policy_app = typer.Typer(no_args_is_help=True, help="What to do with verdicts: check, test and apply policies.")

File = Annotated[str, typer.Argument(metavar="FILE", help="The policy in YAML or JSON; - for stdin.")]
Label = Annotated[str, typer.Argument(metavar="NAME[@VERSION]", help="A stored policy; without a version its newest.")]
Tenant = Annotated[str, typer.Option("--tenant", help="Whose policy.")]
Job = Annotated[str | None, typer.Option("--job", metavar="JOB", help="The texts of this job.")]
Since = Annotated[str | None, typer.Option("--since", help="The texts of all jobs from then on: 12h, 30d ago, or a date.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@policy_app.command("check")
def check(file: File) -> int:
    """Check a policy; say what is wrong with it, line by line."""
    from guardfleet.cli.commands import policy

    return policy.check(file)


@policy_app.command("schema")
def schema() -> int:
    """Print the JSON schema of policies, for editors."""
    from guardfleet.cli.commands import policy

    return policy.schema()


@policy_app.command("preset")
def preset(name: Annotated[str, typer.Argument(help="strict or loose.")]) -> int:
    """Print a policy to begin with."""
    from guardfleet.cli.commands import policy

    return policy.preset(name)


@policy_app.command("test")
def try_out(
    file: File,
    job: Job = None,
    since: Since = None,
    tenant: Tenant = "default",
    per_hour: Annotated[
        float, typer.Option("--reviews-per-hour", min=0.1, help="Texts that a reviewer decides in an hour.")
    ] = 120.0,
    as_json: Json = False,
) -> int:
    """Say what a policy would change of stored verdicts, without a model; nothing is written."""
    from guardfleet.cli.commands import policy

    return policy.try_out(load_settings(), file, job=job, since=since, tenant=tenant, per_hour=per_hour, as_json=as_json)


@policy_app.command("add")
def add(file: File, tenant: Tenant = "default") -> int:
    """Store a policy as the next version of its name, and print that."""
    from guardfleet.cli.commands import policy

    return policy.add(load_settings(), file, tenant=tenant)


@policy_app.command("list")
def listing(tenant: Tenant = "default", as_json: Json = False) -> int:
    """List all stored versions, newest first."""
    from guardfleet.cli.commands import policy

    return policy.listing(load_settings(), tenant=tenant, as_json=as_json)


@policy_app.command("show")
def show(label: Label, tenant: Tenant = "default") -> int:
    """Print a stored policy."""
    from guardfleet.cli.commands import policy

    return policy.show(load_settings(), label, tenant=tenant)


@policy_app.command("activate")
def activate(label: Label, tenant: Tenant = "default") -> int:
    """Apply a version from now on; going back is activating the old one."""
    from guardfleet.cli.commands import policy

    return policy.activate(load_settings(), label, tenant=tenant)


@policy_app.command("deactivate")
def deactivate(label: Label, tenant: Tenant = "default") -> int:
    """Apply a policy no longer; what it decided stays."""
    from guardfleet.cli.commands import policy

    return policy.deactivate(load_settings(), label, tenant=tenant)


def redecide(
    label: Annotated[str | None, typer.Argument(metavar="[NAME[@VERSION]]", help="Default: the active policy.")] = None,
    job: Job = None,
    since: Since = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> int:
    """Apply a policy to stored verdicts, without a model; interrupt and repeat it as you like."""
    from guardfleet.cli.commands import policy

    return policy.redecide(load_settings(), label, job=job, since=since, tenant=tenant, as_json=as_json)
