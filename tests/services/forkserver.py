"""A process that has imported guardfleet and forks one that runs a command for each request: it starts in milliseconds.

A new interpreter spends 1 to 3 seconds of CPU on imports, and the tests start some hundreds of processes. Invariant: nothing here
starts a thread, opens a connection or makes a random number before a fork, so that the children share nothing but code.
"""

import gc
import importlib
import json
import os
import pathlib
import pkgutil
import signal
import socket
import sys
from typing import Any

PACKAGES = ("guardfleet", "worker", "producer", "api")
APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT
LEFT_OUT = ("worker.engine", "guardfleet.embedded")  # torch, and servers in wheels: processes that need them import them


def serve(requests: socket.socket) -> list[str] | None:
    """Answer requests until the tests have ended, then return None. In a child, return the arguments of its command."""
    ended: dict[int, int] = {}
    with requests.makefile("rw", encoding="utf-8") as lines:
        for line in lines:
            request = json.loads(line)
            if "args" in request:
                answer = os.fork()
                if not answer:
                    requests.detach()  # the file closes it
                    return become(**request)
            else:
                answer = status_of(request["pid"], ended)
            lines.write(f"{json.dumps(answer)}\n")
            lines.flush()
    return None


def status_of(pid: int, ended: dict[int, int]) -> int | None:
    """Return the exit status as subprocess gives it, minus the signal's number where one ended it, and None while it runs."""
    if pid not in ended:
        found, status = os.waitpid(pid, os.WNOHANG)
        if not found:
            return None
        ended[pid] = os.waitstatus_to_exitcode(status)
    return ended[pid]


def become(*, args: list[str], environment: dict[str, str], folder: str, out: str, err: str) -> list[str]:
    """Make this process what a shell would have started: a session, an environment and standard streams of its own."""
    os.setsid()
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, path, flags in ((0, os.devnull, os.O_RDONLY), (1, out, APPEND), (2, err, APPEND)):
        os.dup2(os.open(path, flags, 0o644), descriptor)
    os.closerange(3, 256)
    return args


def import_everything() -> None:
    """Import what a process of guardfleet may import, and keep the garbage collector from touching it in the children."""
    for package in map(importlib.import_module, PACKAGES):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.startswith(LEFT_OUT) and not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    gc.collect()
    gc.freeze()


def main(descriptor: str) -> None:
    """Serve on an inherited socket; a child leaves `serve` and ends as `python -m guardfleet` would."""
    import_everything()
    threads = list(pathlib.Path("/proc/self/task").iterdir())
    assert len(threads) == 1, "a module starts a thread when it is imported: a fork would lose it"
    args: Any = serve(socket.socket(fileno=int(descriptor)))
    if args is not None:
        from guardfleet.cli import main as run

        sys.argv = ["guardfleet", *args]
        run()


if __name__ == "__main__":
    main(sys.argv[1])
