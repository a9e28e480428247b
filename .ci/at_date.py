#!/usr/bin/env python3
"""Run tests as if it were another date and hour: `.venv/bin/python .ci/at_date.py "2028-02-29 23:59:30" tests/store -q`.

Takes a C compiler. The hour is UTC; TZ is left as it is, so that another zone can be tried with it. PostgreSQL writes dates of its
own, so one is started that lives at the same time; brokers keep no dates.

A library of a few lines moves the wall clock alone. libfaketime was tried: its absolute sleeps fail (EINVAL in time.sleep), and it
tells a signal handler that interrupts a wait the true time, so that PostgreSQL took the alarm of a lock_timeout for one too early.
"""

import datetime as dt
import importlib
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
OFFSET = "AT_DATE_OFFSET_S"
CLOCK = f"""
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static time_t offset(void) {{
    const char *seconds = getenv("{OFFSET}");
    return seconds ? atol(seconds) : 0;
}}

int clock_gettime(clockid_t clock, struct timespec *now) {{
    int failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += offset();
    return failed;
}}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {{
    struct timespec found;
    clock_gettime(CLOCK_REALTIME, &found);
    *now = (struct timeval){{found.tv_sec, found.tv_nsec / 1000}};
    return 0;
}}

time_t time(time_t *now) {{
    struct timespec found;
    clock_gettime(CLOCK_REALTIME, &found);
    if (now) *now = found.tv_sec;
    return found.tv_sec;
}}
"""


def main(when: str, arguments: list[str]) -> int:
    """Compile the clock and run this file again under it; return pytest's status."""
    asked = dt.datetime.fromisoformat(when)
    there = asked if asked.tzinfo else asked.replace(tzinfo=dt.UTC)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        folder.chmod(0o755)  # the server's user has to pass
        library = folder / "clock.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", str(library), "-x", "c", "-"], input=CLOCK.encode(), check=True)
        offset = int((there - dt.datetime.now(dt.UTC)).total_seconds())
        environment = os.environ | {"LD_PRELOAD": str(library), OFFSET: str(offset)}
        return subprocess.run([sys.executable, __file__, str(folder), *arguments], env=environment, check=False).returncode


def run_there(folder: pathlib.Path, arguments: list[str]) -> int:
    """Start a PostgreSQL in `folder` and run pytest beside it, both at that time."""
    sys.path.insert(0, str(ROOT))
    servers: Any = importlib.import_module("tests.services.servers")
    proxies: Any = importlib.import_module("tests.services.proxy")
    print(f"it is {dt.datetime.now().astimezone():%Y-%m-%d %H:%M:%S %Z}", flush=True)  # noqa: T201
    server = servers.OwnPostgres(folder)
    server.start()
    proxy = proxies.Proxy(server.socket)  # tests put proxies of their own before a host and a port
    try:
        tests = [sys.executable, "-m", "pytest", *arguments]
        url = f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres"
        return subprocess.run(tests, env=os.environ | {"TEST_POSTGRES_URL": url}, cwd=ROOT, check=False).returncode
    finally:
        proxy.stop()
        server.stop()


if __name__ == "__main__":
    if len(sys.argv) == 1:
        sys.exit(__doc__)
    sys.exit(run_there(pathlib.Path(sys.argv[1]), sys.argv[2:]) if OFFSET in os.environ else main(sys.argv[1], sys.argv[2:]))
