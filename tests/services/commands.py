"""The command line: in a process, as a user starts it, or within this process, which is faster, if only its output matters."""

import contextlib
import io
import logging
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from unittest import mock

import pytest
import structlog

from guardfleet import cli
from guardfleet.settings import Settings, variable_of
from guardfleet.settings.names import ALLOW_TUNING
from tests.services.forked import ForkedProcess
from tests.services.patience import patience


def command(of: pathlib.Path | Settings, *args: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """One command as a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        out, err = pathlib.Path(name, "out"), pathlib.Path(name, "err")
        process = ForkedProcess(args, os.environ | environment(of, settings), out, err)
        try:
            status = process.wait(patience(300))
        finally:
            process.kill()
        return subprocess.CompletedProcess(args, status, out.read_text(), err.read_text())


def said(of: pathlib.Path | Settings, *args: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """The same command within this process, for commands that end before they start anything."""
    out, err = io.StringIO(), io.StringIO()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    root, logs = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    try:
        with (
            pytest.raises(SystemExit) as ended,
            mock.patch.dict(os.environ, environment(of, settings)),
            mock.patch.object(sys, "argv", ["guardfleet", *args]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            cli.main()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.configure(**logs)
        structlog.contextvars.clear_contextvars()
    assert isinstance(ended.value.code, int)
    return subprocess.CompletedProcess(args, ended.value.code, out.getvalue(), err.getvalue())


def environment(of: pathlib.Path | Settings, changed: Mapping[str, str]) -> dict[str, str]:
    """The settings of a fleet, or those of a data folder alone, as a command finds them in its environment."""
    plain = of.as_environment() if isinstance(of, Settings) else {"GUARDFLEET_DATA_DIR": str(of)}
    changes = {variable_of(key): value for key, value in changed.items()}
    return plain | changes | ({ALLOW_TUNING: "1"} if any(key.startswith("GUARDFLEET_TUNING") for key in changes) else {})
