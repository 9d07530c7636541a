"""Metrics: the endpoint on every release, and a real Prometheus that scrapes it under load."""

import json
import re
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.support import MIB, Vdisk, image_spec
from harness.cluster import Cluster
from harness.genesis import free_ports
from harness.wait import wait_for

PROMETHEUS = "/usr/bin/prometheus"


@pytest.fixture
def vdisk(cluster: Cluster) -> Vdisk:
    """vdisk's commands as client.admin."""
    return Vdisk(cluster)


def get(url: str) -> str:
    """Return what is at a URL."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def refused(url: str) -> bool:
    """Tell whether nobody listens at a URL."""
    try:
        get(url)
    except urllib.error.URLError as error:
        return isinstance(error.reason, ConnectionRefusedError)
    return False


def values(text: str) -> dict[str, float]:
    """Return (name with labels) → value."""
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


def flat(status: dict[str, Any]) -> dict[str, float]:
    """Return what ``vdisk status`` shows, by the names of its metrics."""
    names = {"given_to_rbd_support": "vdisk_rbd_support_tasks", "removed": "vdisk_reclaimed_images_total"}
    names |= {"backlog": "vdisk_reclaim_backlog_images", "waiting": "vdisk_reclaim_waiting_images"}
    found = {f"vdisk_operations_{state}": float(status[state]) for state in ("queued", "running", "waiting", "stuck")}
    for key in ("workers_busy", "background_queued", "recovering", "findings", "images", "image_bytes"):
        found[f"vdisk_{key}"] = float(status[key])
    for key in ("backlog", "waiting", "backlog_bytes", "given_to_rbd_support", "removed"):
        found[names.get(key, f"vdisk_reclaim_{key}")] = float(status["reaper"][key])
    return found


@pytest.fixture
def endpoint(cluster: Cluster) -> Iterator[str]:
    """The URL of the endpoint, which is switched on without a restart, and off again."""
    (port,) = free_ports(1)
    cluster.ceph("config", "set", "mgr", "mgr/vdisk/metrics_port", str(port))
    url = f"http://127.0.0.1:{port}/metrics"
    wait_for(lambda: get(url), 20, "the endpoint answers", ignore=(OSError,))
    yield url
    cluster.ceph("config", "set", "mgr", "mgr/vdisk/metrics_port", "0")
    wait_for(lambda: "vdisk" not in cluster.mon("mgr services"), 20, "the mgr forgets the endpoint")
    wait_for(lambda: refused(url), 20, "nobody listens any more")


def test_the_endpoint_is_a_service_of_the_active_mgr(cluster: Cluster, vdisk: Vdisk, endpoint: str) -> None:
    wait_for(lambda: cluster.mon("mgr services").get("vdisk") == endpoint, 20, "the mgr knows of it")
    text = get(endpoint)
    assert "vdisk_operations_total" in text
    served = {line for line in text.splitlines() if line.startswith("# TYPE")}
    assert served == {line for line in vdisk("metrics").splitlines() if line.startswith("# TYPE")}
    assert "# TYPE vdisk_step_seconds histogram" in cluster.ceph("vdisk", "metrics").out.splitlines()
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(endpoint.replace("metrics", ""))
    before = cluster.active_mgr()
    assert cluster.fail_mgr() != before
    cluster.wait_module()
    wait_for(lambda: get(endpoint), 30, "the next mgr serves it", ignore=(OSError,))


@pytest.fixture
def prometheus(endpoint: str, tmp_path: Path) -> Iterator[str]:
    """The URL of a Prometheus that scrapes the endpoint ten times a second."""
    (port,) = free_ports(1)
    target = urllib.parse.urlsplit(endpoint).netloc
    job = {"job_name": "vdisk", "static_configs": [{"targets": [target]}]}
    config = {"global": {"scrape_interval": "100ms", "scrape_timeout": "100ms"}, "scrape_configs": [job]}
    (tmp_path / "prometheus.yml").write_text(json.dumps(config))
    argv = [PROMETHEUS, f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data"]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen([*argv, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}"
            wait_for(lambda: get(f"{url}/-/ready"), 30, "Prometheus is ready", ignore=(OSError,))
            yield url
        finally:
            server.terminate()
            server.wait(20)


def asked(prometheus: str) -> dict[str, float]:
    """Return the latest value of every metric without labels of its own that Prometheus has scraped."""
    query = urllib.parse.quote('{job="vdisk"}')
    answer = json.loads(get(f"{prometheus}/api/v1/query?query={query}"))
    found = {}
    for item in answer["data"]["result"]:
        own = {key: value for key, value in item["metric"].items() if key not in ("__name__", "job", "instance")}
        labels = "{" + ",".join(f'{key}="{value}"' for key, value in sorted(own.items())) + "}" if own else ""
        found[item["metric"]["__name__"] + labels] = float(item["value"][1])
    return found


def test_prometheus_sees_under_load_what_status_shows(
    cluster: Cluster, vdisk: Vdisk, pool: str, prometheus: str, endpoint: str
) -> None:
    count = 'vdisk_operations_total{kind="volume create",result="done"}'
    before = values(get(endpoint)).get(count, 0.0)
    slowest = 0.0
    made = []
    for number in range(40):
        made.append(vdisk("volume create", pool_spec=pool, name=f"pvc-{number}", size=4 * MIB, wait=0))
        started = time.monotonic()
        get(endpoint)
        slowest = max(slowest, time.monotonic() - started)
    vdisk.drained(pool)
    assert slowest < 1.0, "a scrape does not wait for the cluster"
    vdisk("snap create", image_spec=image_spec(made[0]), snap_name="shot")
    for volume in made[:5]:
        vdisk("volume rm", volume=volume["handle"])
    # What hangs on the snapshot stays in the backlog: figures at rest that are not nothing.
    wait_for(lambda: vdisk("status")["reaper"]["backlog"] == 1, 30, "all but one are reclaimed")
    vdisk("check", pool_spec=pool, wait=30)
    status = flat(vdisk("status"))
    assert status["vdisk_reclaim_backlog_bytes"] == 4 * MIB
    assert status["vdisk_images"] >= 36

    def agrees() -> bool:
        scraped = asked(prometheus)
        assert {name: scraped.get(name) for name in status} == status
        assert scraped[count.replace(", ", ",")] == before + 40
        return True

    wait_for(agrees, 20, "Prometheus sees the same")
    now = values(get(endpoint))
    assert now[count] == before + 40
    steps = [name for name in now if re.match(r'vdisk_step_seconds_count\{kind="snap create"', name)]
    assert len(steps) > 4
    assert now["vdisk_image_depth_count"] == now["vdisk_images"]
    assert now['vdisk_image_depth_bucket{le="+Inf"}'] - now['vdisk_image_depth_bucket{le="0"}'] >= 1
    assert now["vdisk_image_snapshots_max"] >= 1
    vdisk("snap rm", snapshot=f"{pool}/shot")
    vdisk.drained(pool)
