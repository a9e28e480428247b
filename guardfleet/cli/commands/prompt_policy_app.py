"""`guardfleet prompt-policy`: its commands and options."""

from typing import Annotated

import typer

from guardfleet.settings import load_settings

prompt_policy_app = typer.Typer(no_args_is_help=True, help="What detectors that take a policy in the prompt judge by.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The policy: lower-case letters, digits, - and _.")]
File = Annotated[str, typer.Argument(metavar="FILE", help="The policy's text; - for stdin.")]
Label = Annotated[str, typer.Argument(metavar="NAME[@VERSION]", help="A stored policy; without a version its newest.")]
Tenant = Annotated[str, typer.Option("--tenant", help="Whose policy.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]


@prompt_policy_app.command("add")
def add(name: Name, file: File, tenant: Tenant = "default") -> int:
    """Store a text as the next version of a policy, and print that."""
    from guardfleet.cli.commands import prompt_policy

    return prompt_policy.add(load_settings(), name, file, tenant=tenant)


@prompt_policy_app.command("list")
def listing(tenant: Tenant = "default", as_json: Json = False) -> int:
    """List all stored versions, newest first."""
    from guardfleet.cli.commands import prompt_policy

    return prompt_policy.listing(load_settings(), tenant=tenant, as_json=as_json)


@prompt_policy_app.command("show")
def show(label: Label, tenant: Tenant = "default") -> int:
    """Print the text of a stored policy."""
    from guardfleet.cli.commands import prompt_policy

    return prompt_policy.show(load_settings(), label, tenant=tenant)
