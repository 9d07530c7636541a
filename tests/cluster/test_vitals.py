"""Health checks and progress events on real clusters: raised, muted, cleared by themselves, and never left behind."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import rados
import rbd

from cluster.support import Vdisk, has_task_queue, image_spec, opened, set_omap, trash
from cluster.test_guards import bounds
from cluster.test_removal import make
from harness.cluster import Cluster
from harness.wait import wait_for

RECLAIMING = "Reclaiming deleted images"


@pytest.fixture
def vdisk(cluster: Cluster) -> Vdisk:
    """vdisk's commands as client.admin."""
    return Vdisk(cluster)


@pytest.fixture
def watchful(cluster: Cluster) -> Iterator[None]:
    """Have the module look closely each second."""
    cluster.ceph("config", "set", "mgr", "mgr/vdisk/housekeeping_interval", "1")
    yield
    for option, value in (("housekeeping_interval", 60), ("reaper_rate", 0), ("reaper_window", 1)):
        cluster.ceph("config", "set", "mgr", f"mgr/vdisk/{option}", str(value))


def health(cluster: Cluster) -> dict[str, Any]:
    """Return the health checks of vdisk by code."""
    found = json.loads(cluster.ceph("health", "detail", "--format", "json").out)["checks"]
    return {code: check for code, check in found.items() if code.startswith("VDISK_")}


def progress(cluster: Cluster) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return vdisk's progress events: those under way, and those that are over."""
    ret, out, status = cluster.mgr_command({"prefix": "progress json"}, timeout=20)
    assert ret == 0, status
    found = json.loads(out)

    def own(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [event for event in events if isinstance(event["refs"], dict) and event["refs"].get("origin") == "vdisk"]

    return own(found["events"]), own(found["completed"])


def shown(cluster: Cluster) -> dict[str, Any] | None:
    """Return the event of what is being reclaimed."""
    return next((event for event in progress(cluster)[0] if event["message"] == RECLAIMING), None)


def test_reclaiming_is_shown_and_ends_also_after_a_failover(
    cluster: Cluster, vdisk: Vdisk, pool: str, watchful: None
) -> None:
    # So slowly that there is a backlog still, however long it takes to ask for all of it.
    for option, value in (("reaper_rate", 0.01), ("reaper_window", 0)):
        cluster.ceph("config", "set", "mgr", f"mgr/vdisk/{option}", str(value))
    for number in range(36):
        make(vdisk, pool, f"v{number}")
    for number in range(36):
        vdisk("volume rm", volume=f"{pool}/v{number}")
    first = wait_for(lambda: shown(cluster), 20, "the backlog is shown", interval=0.2)
    assert 0 <= first["progress"] < 1
    cluster.ceph("config", "set", "mgr", "mgr/vdisk/reaper_rate", "1")
    cluster.fail_mgr()
    cluster.wait_module()
    second = wait_for(lambda: shown(cluster), 30, "the next mgr shows it", interval=0.2)
    assert second["id"] != first["id"]
    assert (
        "vdisk" in json.dumps(json.loads(cluster.ceph("status", "--format", "json").out)["progress_events"]) or second
    )
    cluster.ceph("config", "set", "mgr", "mgr/vdisk/reaper_rate", "0")
    vdisk.drained(pool)
    wait_for(lambda: not progress(cluster)[0], 20, "no event is left", interval=0.2)
    over = [event for event in progress(cluster)[1] if event["message"] == RECLAIMING]
    assert over
    assert not any(event.get("failed") for event in over)


def test_a_stuck_operation_is_a_warning_until_it_is_mended(
    cluster: Cluster, vdisk: Vdisk, pool: str, watchful: None
) -> None:
    cluster.ceph("config", "set", "mgr", "mgr/vdisk/reaper_window", "0")
    volume = make(vdisk, pool)
    clone = vdisk("volume clone", volume=volume["handle"], name="clone")
    removal = vdisk("volume rm", volume=volume["handle"])["operation"]
    wait_for(lambda: vdisk("op info", id=removal)["step"] == "await-children", 20, "it waits for its clone")
    with opened(cluster, pool) as ioctx, rbd.Image(ioctx, image_id=volume["image_id"]) as image:
        image.create_snap("by-hand")
    vdisk("volume rm", volume=clone["handle"])
    check = wait_for(lambda: health(cluster).get("VDISK_OPERATIONS_STUCK"), 30, "the warning", interval=0.2)
    assert check["severity"] == "HEALTH_WARN"
    (line,) = [detail["message"] for detail in check["detail"]]
    assert removal in line
    assert f"ceph vdisk op retry {removal}" in line
    cluster.ceph("health", "mute", "VDISK_OPERATIONS_STUCK", "1h")
    assert health(cluster)["VDISK_OPERATIONS_STUCK"]["muted"]
    with opened(cluster, pool) as ioctx, rbd.Image(ioctx, image_id=volume["image_id"]) as image:
        image.remove_snap("by-hand")
    vdisk("op retry", id=removal)
    wait_for(lambda: "VDISK_OPERATIONS_STUCK" not in health(cluster), 30, "it is cleared", interval=0.2)
    cluster.ceph("health", "unmute", "VDISK_OPERATIONS_STUCK")


def test_an_image_near_its_bound_is_a_warning_until_it_is_not(
    cluster: Cluster, vdisk: Vdisk, pool: str, watchful: None
) -> None:
    volume = make(vdisk, pool)
    names = [f"by-hand-{number}" for number in range(4)]
    with opened(cluster, pool) as ioctx, rbd.Image(ioctx, volume["image"]) as image:
        for name in names:
            image.create_snap(name)
    with bounds(cluster, snapshots_soft=2, snapshots_hard=6):
        vdisk("snap create", image_spec=image_spec(volume), snap_name="shot")
        check = wait_for(lambda: health(cluster).get("VDISK_SNAPSHOT_COUNT"), 20, "the warning", interval=0.2)
        assert f"{image_spec(volume)} has" in check["detail"][0]["message"]
        with opened(cluster, pool) as ioctx, rbd.Image(ioctx, volume["image"]) as image:
            for name in names:
                image.remove_snap(name)
        wait_for(lambda: "VDISK_SNAPSHOT_COUNT" not in health(cluster), 20, "it is cleared", interval=0.2)


def test_a_task_queue_that_does_not_answer_is_a_warning_and_holds_up_no_removal(
    cluster: Cluster, vdisk: Vdisk, pool: str, watchful: None
) -> None:
    if not has_task_queue(cluster):
        pytest.skip("no task queue is used on this release")
    # A record that rbd_support can't read ends its setup: it answers "not ready" until the mgr's next start.
    record = "00000000000000FF"
    with opened(cluster, pool) as ioctx:
        set_omap(ioctx, "rbd_task", {record: b"[]"})
    try:
        cluster.fail_mgr()
        cluster.wait_module()

        def warned() -> dict[str, Any] | None:
            check: dict[str, Any] = health(cluster)["VDISK_TASK_QUEUE"]
            return check if "rbd_support module is not ready" in check["detail"][0]["message"] else None

        check = wait_for(warned, 30, "the warning", interval=0.2)
        assert check["severity"] == "HEALTH_WARN"
        cluster.ceph("health", "mute", "VDISK_TASK_QUEUE", "1h")
        assert health(cluster)["VDISK_TASK_QUEUE"]["muted"]
        vdisk("volume rm", volume=make(vdisk, pool)["handle"])
        wait_for(lambda: not trash(cluster, pool), 20, "vdisk removes the image itself")
        assert health(cluster)["VDISK_TASK_QUEUE"]
    finally:
        with opened(cluster, pool) as ioctx, rados.WriteOpCtx() as op:
            ioctx.remove_omap_keys(op, (record,))
            ioctx.operate_write_op(op, "rbd_task")
        cluster.fail_mgr()
        cluster.wait_module()
    wait_for(lambda: "VDISK_TASK_QUEUE" not in health(cluster), 40, "it is cleared", interval=0.2)
    cluster.ceph("health", "unmute", "VDISK_TASK_QUEUE")
    vdisk("volume rm", volume=make(vdisk, pool, "again")["handle"])
    vdisk.drained(pool)
