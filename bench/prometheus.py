"""A real Prometheus beside what is measured: it scrapes the endpoint, and has to see what ``vdisk status`` shows."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.cluster import Cluster
from harness.genesis import free_ports
from harness.wait import wait_for

PROGRAM = "/usr/bin/prometheus"
#: Between two scrapes, and what one may take at most; usual is 15 s or more.
INTERVAL = "1s"

#: Figures of ``vdisk status`` whose metric is called otherwise than ``vdisk_`` and their own name.
_NAMES = {
    "queued": "vdisk_operations_queued",
    "running": "vdisk_operations_running",
    "waiting": "vdisk_operations_waiting",
    "stuck": "vdisk_operations_stuck",
    "resumed": "vdisk_operations_resumed_total",
    "reconnected": "vdisk_reconnects_total",
    "snapshots_max": "vdisk_image_snapshots_max",
    "reaper.backlog": "vdisk_reclaim_backlog_images",
    "reaper.waiting": "vdisk_reclaim_waiting_images",
    "reaper.backlog_bytes": "vdisk_reclaim_backlog_bytes",
    "reaper.threads_busy": "vdisk_reclaim_threads_busy",
    "reaper.given_to_rbd_support": "vdisk_rbd_support_tasks",
    "reaper.removed": "vdisk_reclaimed_images_total",
}
#: What is no figure, or one that Prometheus computes itself.
_NO_METRIC = {"version", "group_snapshots", "reaper.removed_per_second"}


def figures(status: Mapping[str, Any], above: str = "") -> dict[str, float]:
    """Return the figures of ``vdisk status`` by the names of their metrics."""
    found: dict[str, float] = {}
    for key, value in status.items():
        if isinstance(value, Mapping):
            found |= figures(value, f"{above}{key}.")
        elif f"{above}{key}" not in _NO_METRIC:
            found[_NAMES.get(f"{above}{key}", f"vdisk_{key}")] = float(value)
    return found


class Prometheus:
    """A Prometheus at ``url`` that scrapes one endpoint as the job ``vdisk``."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, query: str) -> list[dict[str, Any]]:
        """Return the result of a query: a list of ``metric`` and ``value``."""
        answer: dict[str, Any] = json.loads(fetch(f"{self.url}/api/v1/query?query={urllib.parse.quote(query)}"))
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def number(self, query: str) -> float:
        """Return the one number that a query results in."""
        [only] = self.ask(query)
        return float(only["value"][1])

    def latest(self) -> dict[str, float]:
        """Return the latest value of every metric that was scraped, by its name with its own labels."""
        found = {}
        for item in self.ask('{job="vdisk"}'):
            own = {key: value for key, value in item["metric"].items() if key not in ("__name__", "job", "instance")}
            labels = "{" + ",".join(f'{key}="{value}"' for key, value in sorted(own.items())) + "}" if own else ""
            found[item["metric"]["__name__"] + labels] = float(item["value"][1])
        return found

    def agrees(self, status: Callable[[], Mapping[str, Any]], timeout: float = 20) -> int:
        """Wait until the latest values are those of ``vdisk status``; returns how many were compared."""

        def same() -> int:
            shown, scraped = figures(status()), self.latest()
            differ = {name: (value, scraped.get(name)) for name, value in shown.items() if scraped.get(name) != value}
            assert not differ, f"vdisk status and Prometheus differ: {differ}"
            return len(shown)

        return int(wait_for(same, timeout, "Prometheus sees what vdisk status shows", interval=0.1))


def fetch(url: str) -> str:
    """Return what is at a URL."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        return str(answer.read().decode())


@contextlib.contextmanager
def endpoint(cluster: Cluster) -> Iterator[str]:
    """Switch the endpoint of a cluster on, yield its URL, and switch it off."""
    (port,) = free_ports(1)
    cluster.ceph("config", "set", "mgr", "mgr/vdisk/metrics_port", str(port))
    try:
        url = f"http://127.0.0.1:{port}/metrics"
        wait_for(lambda: fetch(url), 20, "the endpoint answers", ignore=(OSError,))
        yield url
    finally:
        cluster.ceph("config", "set", "mgr", "mgr/vdisk/metrics_port", "0")


@contextlib.contextmanager
def scraping(url: str) -> Iterator[Prometheus]:
    """Run a Prometheus on 127.0.0.1 that scrapes an endpoint, with nothing kept afterwards."""
    if not Path(PROGRAM).exists():
        raise SystemExit(
            f"{PROGRAM} is missing: it is in Debian's package prometheus, which tools/bootstrap.sh installs"
        )
    (port,) = free_ports(1)
    job = {"job_name": "vdisk", "static_configs": [{"targets": [urllib.parse.urlsplit(url).netloc]}]}
    config = {"global": {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL}, "scrape_configs": [job]}
    work = Path(tempfile.mkdtemp(prefix="vdisk-prometheus-"))
    (work / "prometheus.yml").write_text(json.dumps(config))
    argv = [PROGRAM, f"--config.file={work}/prometheus.yml", f"--storage.tsdb.path={work}/data"]
    with (work / "log").open("wb") as log:
        server = subprocess.Popen([*argv, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
        try:
            made = Prometheus(f"http://127.0.0.1:{port}")
            wait_for(lambda: fetch(f"{made.url}/-/ready"), 30, "Prometheus is ready", ignore=(OSError,))
            yield made
        finally:
            server.terminate()
            server.wait(20)
            shutil.rmtree(work)
