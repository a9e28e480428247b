"""The command line: composes the parts, and turns every outcome into a sentence and an exit status."""

import sys

DONE, FAILED_ROWS, UNUSABLE, INTERRUPTED = 0, 1, 2, 3


def main() -> None:
    """Run the command; 0 done, 1 finished with failed rows, 2 usage or configuration, 3 interrupted (run it again to go on)."""
    from guardfleet.cli.app import app
    from guardfleet.errors import GuardfleetError

    try:
        status = app(standalone_mode=False)
    except GuardfleetError as error:
        print(f"guardfleet: {error}", file=sys.stderr)
        sys.exit(UNUSABLE)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("guardfleet", "worker", "producer", "api"):
            raise
        print(f"guardfleet: this command needs {error.name}: pip install 'guardfleet[all]', or the extra for it.", file=sys.stderr)
        sys.exit(UNUSABLE)
    except Exception as error:
        shown = getattr(error, "format_message", None)  # click's own usage errors
        if shown is None:
            raise
        print(f"guardfleet: {shown()} (guardfleet --help)", file=sys.stderr)
        sys.exit(UNUSABLE)
    sys.exit(status if isinstance(status, int) else DONE)
