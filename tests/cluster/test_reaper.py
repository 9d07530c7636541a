"""Reclaiming: side by side, in rbd_support's window, without a false word in ``ceph progress``, through failovers."""

from typing import Any

import pytest
import rbd

from cluster.support import Vdisk, has_task_queue, image_spec, mgr_log, rbd_tasks, trash
from cluster.test_removal import assert_nothing_left, make
from harness.cluster import Cluster
from harness.wait import wait_for


@pytest.fixture
def vdisk(cluster: Cluster) -> Vdisk:
    """vdisk's commands as client.admin."""
    return Vdisk(cluster)


def snapshots_of(vdisk: Vdisk, spec: str, volumes: int, each: int) -> list[dict[str, Any]]:
    """Make volumes and sealed snapshots of them."""
    made = []
    for number in range(volumes):
        volume = make(vdisk, spec, f"pvc-{number}")
        made.append(volume)
        for shot in range(each):
            vdisk("snap create", image_spec=image_spec(volume), snap_name=f"shot-{number}-{shot}")
            made.append(vdisk.sealed(f"{spec}/shot-{number}-{shot}"))
    return made


def remove(vdisk: Vdisk, things: list[dict[str, Any]]) -> None:
    """Delete volumes and snapshots, parents first."""
    for thing in things:
        words, key = ("snap rm", "snapshot") if thing["image"].startswith("csi-snap-") else ("volume rm", "volume")
        vdisk.until(words, **{key: thing["handle"]})


def failed_events(cluster: Cluster) -> set[str]:
    """Return the ids of what ``ceph progress`` calls failed."""
    events = cluster.ceph_json("progress", "json")
    return {event["id"] for event in events["completed"] if event.get("failed")}


def option(cluster: Cluster, name: str, value: str) -> None:
    """Set one of vdisk's options; that one is removed reaches a mgr when it starts next."""
    cluster.ceph("config", "set", "mgr", f"mgr/vdisk/{name}", value)


def test_everything_is_reclaimed_once_and_nothing_is_called_failed(cluster: Cluster, vdisk: Vdisk, pool: str) -> None:
    before = failed_events(cluster)
    things = snapshots_of(vdisk, pool, volumes=3, each=4)
    remove(vdisk, things)
    figures = vdisk("status")["reaper"]
    assert set(figures) >= {"backlog", "waiting", "backlog_bytes", "threads_busy", "given_to_rbd_support", "removed"}
    vdisk.drained(pool)
    assert_nothing_left(cluster, pool)
    assert failed_events(cluster) <= before
    log = mgr_log(cluster)
    for thing in things:
        target = f"{pool}/{thing['image_id']}"
        ways = log.count(f"rbd: trash remove {target}\n"), log.count(f"rbd task add trash remove {target}: task ")
        assert sorted(ways) == [0, 1], (target, ways)
    # What was waiting in a pool that an earlier test removed is forgotten a little later.
    wait_for(lambda: vdisk("status")["reaper"]["backlog"] == 0, 40, "there is no backlog")


def test_without_threads_rbd_support_removes_everything(cluster: Cluster, vdisk: Vdisk, pool: str) -> None:
    if not has_task_queue(cluster):
        pytest.skip("rbd_support cannot run tasks on this release's mgr")
    things = snapshots_of(vdisk, pool, volumes=2, each=2)
    option(cluster, "reaper_threads", "0")
    try:
        remove(vdisk, things)
        vdisk.drained(pool)
    finally:
        option(cluster, "reaper_threads", "64")
    assert_nothing_left(cluster, pool)
    log = mgr_log(cluster)
    assert all(f"rbd task add trash remove {pool}/{thing['image_id']}: task " in log for thing in things)


def test_the_window_bounds_what_rbd_support_has_and_survives_a_failover(
    cluster: Cluster, vdisk: Vdisk, pool: str
) -> None:
    if not has_task_queue(cluster):
        pytest.skip("rbd_support cannot run tasks on this release's mgr")
    before = failed_events(cluster)
    option(cluster, "reaper_threads", "0")
    option(cluster, "reaper_window", "2")
    try:
        # Without an object map each takes rbd_support a while.
        volumes = [make(vdisk, pool, f"pvc-{n}", size="24G", image_features="layering") for n in range(5)]
        remove(vdisk, volumes)
        wait_for(lambda: len(rbd_tasks(cluster)) == 2, 20, "the window is full", interval=0.02)
        cluster.fail_mgr()
        cluster.wait_module()
        most = 0

        def empty() -> bool:
            nonlocal most
            most = max(most, len(rbd_tasks(cluster)))
            return not trash(cluster, pool)

        wait_for(empty, 60, "all is removed", interval=0.02)
        assert most <= 2
        vdisk.drained(pool)
    finally:
        option(cluster, "reaper_threads", "64")
        option(cluster, "reaper_window", "1")
    assert_nothing_left(cluster, pool)
    assert failed_events(cluster) <= before


def test_a_task_that_failed_is_taken_back(cluster: Cluster, vdisk: Vdisk, pool: str) -> None:
    if not has_task_queue(cluster):
        pytest.skip("rbd_support cannot run tasks on this release's mgr")
    volume, shot = snapshots_of(vdisk, pool, volumes=1, each=1)
    remove(vdisk, [volume])
    target = f"{pool}/{volume['image_id']}"
    # Somebody else's task, for an image that a clone hangs on: rbd_support would try it again for ever.
    ret, _, status = cluster.mgr_command({"prefix": "rbd task add trash remove", "image_id_spec": target})
    assert ret == 0, status
    wait_for(lambda: rbd_tasks(cluster)[0].get("retry_message"), 20, "the task fails")
    remove(vdisk, [shot])
    vdisk.drained(pool)
    assert_nothing_left(cluster, pool)
    assert "vdisk removes the image itself" in mgr_log(cluster)


def test_a_rate_that_is_lifted_lets_go_what_waits_for_it(cluster: Cluster, vdisk: Vdisk, pool: str) -> None:
    option(cluster, "reaper_window", "0")
    option(cluster, "reaper_rate", "0.001")
    try:
        volumes = [make(vdisk, pool, f"pvc-{number}") for number in range(4)]
        remove(vdisk, volumes)

        def waiting() -> bool:
            # One may still have been due, the next is so in 1000 seconds.
            steps = [op["step"] for op in vdisk.operations(pool) if op["state"] == "running"]
            return len(steps) >= 3 and set(steps) == {"queue-removal"} and len(trash(cluster, pool)) == len(steps)

        wait_for(waiting, 20, "all wait for the rate", interval=0.1)
        option(cluster, "reaper_rate", "0")
        vdisk.drained(pool)
    finally:
        # Set, not removed: that would reach the mgr at its next start only.
        option(cluster, "reaper_window", "1")
        option(cluster, "reaper_rate", "0")
    assert_nothing_left(cluster, pool)


def test_an_image_that_is_open_in_the_trash_waits_and_says_where(cluster: Cluster, vdisk: Vdisk, pool: str) -> None:
    volume = make(vdisk, pool, "pvc")
    clone = vdisk("volume clone", volume=volume["handle"], name="clone")
    option(cluster, "reaper_window", "0")
    try:
        remove(vdisk, [volume])  # it stays in the trash as long as its clone is there
        with cluster.connect().open_ioctx(pool) as ioctx, rbd.Image(ioctx, image_id=volume["image_id"]):
            remove(vdisk, [clone])

            def told() -> bool:
                [op] = [
                    op for op in vdisk.operations(pool) if op["target"] == f"{pool}/pvc" and op["kind"] == "volume rm"
                ]
                return any("is busy; open at 127.0.0.1:" in reason for reason in op["waiting_for"])

            wait_for(told, 30, "the operation says where the image is open")
        vdisk.drained(pool)
    finally:
        option(cluster, "reaper_window", "1")
    assert_nothing_left(cluster, pool)


def test_a_large_journal_is_warned_of(cluster: Cluster, vdisk: Vdisk, pool: str) -> None:
    for number in range(3):
        make(vdisk, pool, f"pvc-{number}")
    option(cluster, "large_journal_names", "3")
    try:
        cluster.fail_mgr()
        cluster.wait_module()
        found = wait_for(lambda: cluster.health()["checks"].get("VDISK_LARGE_JOURNAL"), 30, "the warning")
        assert found["severity"] == "HEALTH_WARN"
        assert any(f"csi.volumes.default in {pool} " in part["message"] for part in found["detail"])
    finally:
        option(cluster, "large_journal_names", "150000")
    cluster.fail_mgr()
    cluster.wait_module()
    wait_for(lambda: "VDISK_LARGE_JOURNAL" not in cluster.health()["checks"], 30, "the warning goes")
