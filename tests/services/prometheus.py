"""A Prometheus and an Alertmanager of the test's own, from Debian's packages, with the files that are shipped."""

import json
import pathlib
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import yaml

from tests.conftest import missing
from tests.services.fleet import until
from tests.services.servers import free_port

NOTHING: Mapping[str, str] = MappingProxyType({})
SHIPPED = pathlib.Path(__file__).parents[2] / "deploy" / "prometheus"


def tool(name: str) -> str:
    """The path of a program of Debian's packages `prometheus` and `prometheus-alertmanager`."""
    found = shutil.which(name)
    if found is None:
        missing(f"no {name} on the PATH: apt-get install prometheus prometheus-alertmanager")
    return str(found)


class _Server:
    """A server of the test's own on a free port."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def _start(self, *args: str) -> None:
        with (self.folder / f"{type(self).__name__}.log").open("ab") as out:
            self._process = subprocess.Popen(args, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        until(self._is_ready, what=f"the readiness of {args[0]}")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def get(self, path: str, **asked: str) -> Any:
        """The JSON that it answers."""
        with urllib.request.urlopen(f"{self.url}{path}?{urllib.parse.urlencode(asked)}", timeout=30) as answer:
            return json.loads(answer.read())

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / f"{type(self).__name__}.log").read_text()[-2000:]
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5):
                return True
        except OSError:
            return False


class OwnPrometheus(_Server):
    """A Prometheus with the shipped rules."""

    def start(
        self,
        targets: Iterable[str],
        *,
        every: str,
        alertmanager: str | None = None,
        is_patient: bool = True,
        changed: Mapping[str, str] = NOTHING,
    ) -> None:
        """Scrape these addresses, and evaluate the rules, so often. `is_patient`: alerts wait as long as they are shipped to.

        `changed`: other texts for parts of the shipped rules, such as a window that a run cannot wait for.
        """
        rules = (SHIPPED / "rules.yml").read_text()
        for shipped, instead in changed.items():
            assert shipped in rules
            rules = rules.replace(shipped, instead)
        if not is_patient:
            rules = re.sub(r"^ +for: .+\n", "", rules, flags=re.MULTILINE)
        (self.folder / "rules.yml").write_text(rules)
        config: dict[str, Any] = {
            "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
            "rule_files": ["rules.yml"],
            "scrape_configs": [{"job_name": "guardfleet", "static_configs": [{"targets": list(targets)}]}],
        }
        if alertmanager:
            config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]}
        (self.folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self._start(
            tool("prometheus"),
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=tsdb",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--storage.tsdb.min-block-duration=2h",
            "--log.level=warn",
        )

    def ask(self, expr: str) -> list[dict[str, Any]]:
        """The result of an instant query; raises HTTPError if Prometheus does not take it."""
        data = self.get("/api/v1/query", query=expr)["data"]
        return [{"value": data["result"]}] if data["resultType"] == "scalar" else data["result"]

    def value(self, expr: str) -> float | None:
        """The value of a query with one result, None without one."""
        found = self.ask(expr)
        assert len(found) < 2, found
        return float(found[0]["value"][1]) if found else None

    def answering(self) -> set[str]:
        """The addresses whose last scrape succeeded."""
        targets: Sequence[Mapping[str, Any]] = self.get("/api/v1/targets")["data"]["activeTargets"]
        return {target["labels"]["instance"] for target in targets if target["health"] == "up"}

    def firing(self) -> set[str]:
        """The names of the alerts that fire."""
        return {found["metric"]["alertname"] for found in self.ask('ALERTS{alertstate="firing"}')}


class OwnAlertmanager(_Server):
    """An Alertmanager with the shipped configuration, its receiver replaced by one of the test's."""

    def start(self, webhook_url: str) -> None:
        config = yaml.safe_load((SHIPPED / "alertmanager.yml").read_text())
        for receiver in config["receivers"]:
            receiver["webhook_configs"] = [{"url": webhook_url, "send_resolved": True}]
            receiver.pop("email_configs", None)
        config["route"]["group_wait"] = "100ms"  # as shipped it waits for more of the same
        (self.folder / "alertmanager.yml").write_text(yaml.safe_dump(config))
        self._start(
            tool("prometheus-alertmanager"),
            "--config.file=alertmanager.yml",
            "--storage.path=alerts",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--cluster.listen-address=",
            "--log.level=warn",
        )
