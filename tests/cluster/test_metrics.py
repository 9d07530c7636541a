"""Metrics: the endpoint on every release, and a real Prometheus that scrapes it under load."""

import re
import urllib.error
from collections.abc import Iterator

import pytest

from bench import prometheus
from cluster.support import MIB, Vdisk, image_spec
from cluster.test_failover import data_address
from harness.cluster import Cluster
from harness.wait import wait_for


@pytest.fixture
def vdisk(cluster: Cluster) -> Vdisk:
    """vdisk's commands as client.admin."""
    return Vdisk(cluster)


def refused(url: str) -> bool:
    """Tell whether nobody listens at a URL."""
    try:
        prometheus.fetch(url)
    except urllib.error.URLError as error:
        return isinstance(error.reason, ConnectionRefusedError)
    return False


def values(text: str) -> dict[str, float]:
    """Return (name with labels) → value."""
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


@pytest.fixture
def endpoint(cluster: Cluster) -> Iterator[str]:
    """The URL of the endpoint, which is switched on without a restart, and off again."""
    with prometheus.endpoint(cluster) as url:
        yield url
    wait_for(lambda: "vdisk" not in cluster.mon("mgr services"), 20, "the mgr forgets the endpoint")
    wait_for(lambda: refused(url), 20, "nobody listens any more")


def test_the_endpoint_is_a_service_of_the_active_mgr(cluster: Cluster, vdisk: Vdisk, endpoint: str) -> None:
    wait_for(lambda: cluster.mon("mgr services").get("vdisk") == endpoint, 20, "the mgr knows of it")
    text = prometheus.fetch(endpoint)
    assert "vdisk_operations_total" in text
    served = {line for line in text.splitlines() if line.startswith("# TYPE")}
    assert served == {line for line in vdisk("metrics").splitlines() if line.startswith("# TYPE")}
    assert "# TYPE vdisk_step_seconds histogram" in cluster.ceph("vdisk", "metrics").out.splitlines()
    with pytest.raises(urllib.error.HTTPError, match="404"):
        prometheus.fetch(endpoint.replace("metrics", ""))
    before = cluster.active_mgr()
    assert cluster.fail_mgr() != before
    cluster.wait_module()
    wait_for(lambda: prometheus.fetch(endpoint), 30, "the next mgr serves it", ignore=(OSError,))


def test_a_scrape_does_not_wait_for_the_cluster(cluster: Cluster, endpoint: str) -> None:
    cluster.osds["0"].pause()
    try:
        assert "vdisk_operations_total" in prometheus.fetch(endpoint)
    finally:
        cluster.osds["0"].resume()


def test_what_was_resumed_and_blocklistings_are_counted(
    cluster: Cluster, vdisk: Vdisk, pool: str, endpoint: str
) -> None:
    def figure(name: str) -> float:
        return values(prometheus.fetch(endpoint))[name]

    volume = vdisk("volume create", pool_spec=pool, name="waits", size=4 * MIB)
    vdisk("snap create", image_spec=image_spec(volume), snap_name="holds")
    vdisk("volume rm", volume=volume["handle"])
    cluster.fail_mgr()
    cluster.wait_module()
    wait_for(lambda: figure("vdisk_operations_resumed_total") >= 1, 30, "the removal is counted as resumed")
    before = figure("vdisk_reconnects_total")
    address = wait_for(lambda: data_address(cluster), 10, "the address of vdisk's client")
    ret, _, status = cluster.mon_command({"prefix": "osd blocklist", "blocklistop": "add", "addr": address})
    assert ret == 0, status
    vdisk.until("volume create", pool_spec=pool, name="after", size=4 * MIB)
    wait_for(lambda: figure("vdisk_reconnects_total") == before + 1, 20, "the blocklisting is counted")
    assert vdisk("status")["reconnected"] == before + 1
    vdisk.until("snap rm", snapshot=f"{pool}/holds")
    vdisk.drained(pool)


@pytest.fixture
def observer(endpoint: str) -> Iterator[prometheus.Prometheus]:
    """A Prometheus that scrapes the endpoint each second."""
    with prometheus.scraping(endpoint) as made:
        yield made


def test_prometheus_sees_under_load_what_status_shows(
    vdisk: Vdisk, pool: str, endpoint: str, observer: prometheus.Prometheus
) -> None:
    count = 'vdisk_operations_total{kind="volume create",result="done"}'
    before = values(prometheus.fetch(endpoint)).get(count, 0.0)
    made = []
    for number in range(40):
        made.append(vdisk("volume create", pool_spec=pool, name=f"pvc-{number}", size=4 * MIB, wait=0))
        prometheus.fetch(endpoint)
    vdisk.drained(pool)
    vdisk("snap create", image_spec=image_spec(made[0]), snap_name="shot")
    for volume in made[:5]:
        vdisk("volume rm", volume=volume["handle"])
    # What hangs on the snapshot stays in the backlog: figures at rest that are not nothing.
    wait_for(lambda: vdisk("status")["reaper"]["backlog"] == 1, 30, "all but one are reclaimed")
    vdisk("check", pool_spec=pool, wait=30)
    status = prometheus.figures(vdisk("status"))
    assert status["vdisk_reclaim_backlog_bytes"] == 4 * MIB
    assert status["vdisk_images"] >= 36
    assert observer.agrees(lambda: vdisk("status")) == len(status) > 20
    wait_for(lambda: observer.latest()[count.replace(", ", ",")] == before + 40, 20, "the counters are scraped")
    now = values(prometheus.fetch(endpoint))
    assert now[count] == before + 40
    steps = [name for name in now if re.match(r'vdisk_step_seconds_count\{kind="snap create"', name)]
    assert len(steps) > 4
    assert now["vdisk_image_depth_count"] == now["vdisk_images"]
    assert now['vdisk_image_depth_bucket{le="+Inf"}'] - now['vdisk_image_depth_bucket{le="0"}'] >= 1
    assert now["vdisk_image_snapshots_max"] >= 1
    vdisk("snap rm", snapshot=f"{pool}/shot")
    vdisk.drained(pool)
