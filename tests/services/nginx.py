"""An nginx of the test's own: the shipped configuration on a free port, before the given API processes."""

import json
import pathlib
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tests.conftest import missing
from tests.services.fleet import until
from tests.services.patience import patience
from tests.services.servers import free_port

WRITABLE = "/tmp/"  # noqa: S108 - where the shipped file lets nginx write
SHIPPED = pathlib.Path(__file__).parents[2] / "deploy" / "nginx"


class Nginx:
    """A running nginx: its URL, and what it logged."""

    def __init__(self, folder: pathlib.Path, port: int) -> None:
        self._log, self._errors, self.url = folder / "access", folder / "errors", f"http://127.0.0.1:{port}"

    @property
    def log(self) -> str:
        """Everything it said."""
        return self._log.read_text() + self._errors.read_text()

    def lines(self) -> list[dict[str, Any]]:
        """The access log."""
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    def answers(self) -> bool:
        """Whether it listens."""
        try:
            urllib.request.urlopen(f"{self.url}/livez", timeout=2).close()
        except OSError as error:
            return hasattr(error, "status")  # 503 is an answer too
        return True


def written(folder: pathlib.Path, upstreams: Sequence[str]) -> int:
    """Write the shipped files, with these servers and a free port, into the folder; return the port."""
    port = free_port()
    for name in ("nginx.conf", "guardfleet.conf", "upstream.conf"):
        text = (SHIPPED / name).read_text().replace(WRITABLE, f"{folder}/")
        text = text.replace("listen 8080;", f"listen 127.0.0.1:{port};")
        if name == "upstream.conf":  # `resolve` is younger than Debian's nginx, and there is no DNS of Docker's here
            lines = [line for line in text.splitlines() if not line.strip().startswith(("resolver ", "server "))]
            servers = [f"    server {url.removeprefix('http://')} max_fails=2 fail_timeout=5s;" for url in upstreams]
            place = next(at for at, line in enumerate(lines) if "least_conn" in line)
            text = "\n".join([*lines[: place + 1], *servers, *lines[place + 1 :]])
        (folder / name).write_text(text)
    return port


@contextmanager
def nginx(folder: pathlib.Path, *upstreams: str) -> Iterator[Nginx]:
    """Run nginx before the API processes at these URLs."""
    binary = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/bin")
    if binary is None:
        missing("no nginx is installed (Debian: nginx-light)")
    port = written(folder, upstreams)
    made = Nginx(folder, port)
    command = [str(binary), "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "/dev/stderr", "-g"]
    with (folder / "access").open("ab") as out, (folder / "errors").open("ab") as errors:
        # A master that runs as root gives its workers to another user, who cannot enter the test's folder.
        process = subprocess.Popen([*command, "daemon off; user root;"], stdout=out, stderr=errors, start_new_session=True)
    try:
        until(lambda: made.answers() or process.poll() is not None, what="nginx")
        assert process.poll() is None, made.log
        yield made
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(patience(20))
