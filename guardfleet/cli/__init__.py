"""The command line: composes the parts, and turns every outcome into a sentence and an exit status."""

import sys
from collections.abc import Sequence

DONE, FAILED_ROWS, UNUSABLE, INTERRUPTED, DEFECT = 0, 1, 2, 3, 4
OURS = ("guardfleet", "worker", "producer", "api")
READER_GONE = 141  # a shell's status for a command that SIGPIPE ended
CTRL_C = 130  # Typer's status for a KeyboardInterrupt
OF_A_PATH = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)


def main() -> None:
    """Run a command. Exit statuses: 0 done, 1 finished with failed rows, 2 usage or configuration, 3 interrupted (run it again).

    4 is a defect of guardfleet, shown with its traceback (Python itself would use 1, which is taken). 141: the reader of standard
    output is gone, as with `head`.
    """
    from guardfleet.cli import output
    from guardfleet.process import lifeline

    lifeline.end_with_parent()
    output.take_over()
    try:
        from guardfleet.cli.app import app

        status = app(standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except KeyboardInterrupt:
        output.finish()
        sys.exit(INTERRUPTED)
    except output.ReaderGoneError:
        output.finish()
        sys.exit(READER_GONE)
    except Exception as error:  # noqa: BLE001 - the place that decides what the user is told
        output.finish()
        sentence = _sentence(error)
        if sentence is None:
            sys.excepthook(type(error), error, error.__traceback__)
            sys.exit(DEFECT)
        if sentence:
            print(f"guardfleet: {output.printable(sentence)}", file=sys.stderr)
        sys.exit(UNUSABLE)
    if status == CTRL_C:
        sys.exit(INTERRUPTED)
    sys.exit(status if isinstance(status, int) else DONE)


def _sentence(error: Exception) -> str | None:
    """Return what went wrong, for the user; empty if everything was said already; None for an unforeseen error."""
    from guardfleet.errors import GuardfleetError

    if isinstance(error, GuardfleetError):
        return str(error)
    if isinstance(error, ImportError):
        return _of_import(error)
    if isinstance(error, OF_A_PATH) and error.filename is not None:
        return f"{error.filename}: {error.strerror}."
    usage = getattr(error, "format_message", None)  # click's own; empty for a bare group of commands, whose help was shown
    if usage is None:
        return None
    if possibilities := getattr(error, "possibilities", None):
        error.possibilities = _shown(possibilities, error)  # type: ignore[attr-defined]
    said = usage()
    return f"{said} (guardfleet --help)" if said else ""


def _shown(options: Sequence[str], error: Exception) -> list[str]:
    """Return the options without those that help does not show: old names."""
    context = getattr(error, "ctx", None)
    params = context.command.params if context else ()
    hidden = {name for param in params if getattr(param, "hidden", False) for name in param.opts}
    return [name for name in options if name not in hidden]


def _of_import(error: ImportError) -> str:
    package = (error.name or "").split(".")[0]
    if package in OURS:
        return f"this installation is incomplete ({error}): reinstall guardfleet."
    if isinstance(error, ModuleNotFoundError):
        return f"this command needs {error.name}: pip install 'guardfleet[all]', or the extra with it."
    return f"{package or 'a library'} cannot be imported ({error}): reinstall it, or guardfleet with it."
