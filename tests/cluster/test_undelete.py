"""Undelete on real clusters: content, journal, handle and seal come back; librbd protects what is kept; expiry."""

import hashlib
import os
from typing import Any

import pytest
import rbd

from cluster.support import (
    MIB,
    Vdisk,
    another,
    has_task_queue,
    image_names,
    image_spec,
    journal,
    omap,
    opened,
    read_image,
    set_omap,
    snapshots,
    trash,
    write_image,
)
from cluster.test_removal import assert_nothing_left, make, snap
from harness.cluster import Cluster
from harness.wait import wait_for


@pytest.fixture
def vdisk(cluster: Cluster) -> Vdisk:
    """vdisk's commands as client.admin."""
    return Vdisk(cluster)


def filled(cluster: Cluster, vdisk: Vdisk, spec: str, name: str = "pvc") -> tuple[dict[str, Any], str]:
    """Make a volume with random content; returns it and the checksum."""
    volume = make(vdisk, spec, name, size=str(8 * MIB))
    for offset in (0, 3 * MIB, 7 * MIB):
        write_image(cluster, spec, volume["image"], os.urandom(64 << 10), offset)
    return volume, checksum(cluster, spec, volume["image"])


def checksum(cluster: Cluster, spec: str, image: str) -> str:
    """Return the checksum of an image's content."""
    return hashlib.sha256(read_image(cluster, spec, image, 8 * MIB)).hexdigest()


def test_a_volume_comes_back_whole(cluster: Cluster, vdisk: Vdisk, pool_spec: str) -> None:
    volume, content = filled(cluster, vdisk, pool_spec)
    with opened(cluster, pool_spec) as ioctx:
        set_omap(ioctx, f"csi.volume.{volume['uuid']}", {"csi.volume.owner": b"tenant"})
    before = journal(cluster, pool_spec)
    plan = vdisk("volume rm", volume=volume["handle"], keep_for="7d", dry_run=True)
    assert [step["step"] for step in plan["steps"]] == [
        "put-record",
        "trash-image",
        "remove-entry",
        "release-name",
        "answer",
    ]
    answer = vdisk("volume rm", volume=volume["handle"], keep_for="7d")
    assert answer["removed"] == volume["handle"]
    assert vdisk.refused("volume info", volume=volume["handle"]).code == "not_found"
    assert not any(journal(cluster, pool_spec).values())
    assert trash(cluster, pool_spec) == {volume["image_id"]: volume["image"]}
    (row,) = vdisk("trash ls", pool_spec=pool_spec, limit=5)
    assert vdisk("trash ls", pool_spec=pool_spec, marker=row["id"]) == []
    assert (row["id"], row["name"], row["handle"]) == (volume["image_id"], "pvc", volume["handle"])
    # librbd itself lets nobody remove it, and nobody asked rbd_support to.
    with opened(cluster, pool_spec) as ioctx, pytest.raises(rbd.PermissionError):
        rbd.RBD().trash_remove(ioctx, volume["image_id"])
    back = vdisk("trash restore", id=volume["handle"])
    assert {**back, "source": None} == {**volume, "source": None}
    assert journal(cluster, pool_spec) == before
    assert checksum(cluster, pool_spec, volume["image"]) == content
    assert vdisk("trash restore", id=volume["handle"]) == back
    assert vdisk("trash ls", pool_spec=pool_spec) == []
    vdisk("volume rm", volume=volume["handle"])
    vdisk.drained(pool_spec)
    assert_nothing_left(cluster, pool_spec)


def test_a_snapshot_comes_back_with_its_seal_and_can_be_restored(
    cluster: Cluster, vdisk: Vdisk, pool_spec: str
) -> None:
    volume, content = filled(cluster, vdisk, pool_spec)
    shot = snap(vdisk, volume)
    write_image(cluster, pool_spec, volume["image"], b"later")
    removed = vdisk("snap rm", snapshot=shot["handle"], keep_for="1h")
    assert vdisk("snap ls", pool_spec=pool_spec) == []
    back = vdisk("trash restore", id=removed["operation"])
    assert back == {name: shot[name] for name in back}
    assert snapshots(cluster, pool_spec, shot["image"]) == [shot["image"]]
    restored = vdisk("volume restore", snapshot=shot["handle"], name="restored")
    assert checksum(cluster, pool_spec, restored["image"]) == content


def test_another_name_and_what_is_in_the_way(cluster: Cluster, vdisk: Vdisk, pool: str) -> None:
    volume, content = filled(cluster, vdisk, pool)
    vdisk("volume rm", volume=volume["handle"], keep_for="7d")
    other = make(vdisk, pool)
    refusal = vdisk.refused("trash restore", id=volume["handle"])
    assert refusal.code == "already_exists"
    assert refusal.details == {"uuid": other["uuid"]}
    back = vdisk("trash restore", id=f"{pool}/{volume['image_id']}", new_name="old")
    assert (back["name"], back["handle"]) == ("old", volume["handle"])
    assert checksum(cluster, pool, back["image"]) == content
    with opened(cluster, pool) as ioctx:
        assert omap(ioctx, f"csi.volume.{volume['uuid']}")["csi.volname"] == b"old"
        rbd.RBD().create(ioctx, "plain", MIB)
        with rbd.Image(ioctx, "plain", read_only=True) as image:
            image_id = image.id()
        rbd.RBD().trash_move(ioctx, "plain", 0)
    assert vdisk("trash restore", id=f"{pool}/{image_id}")["restored"] == "plain"
    assert "plain" in image_names(cluster, pool)
    for args, code in (
        ({"id": "nonsense"}, "invalid_argument"),
        ({"id": f"{pool}/10bad"}, "not_found"),
        ({"id": another(volume["handle"])}, "not_found"),
    ):
        assert vdisk.refused("trash restore", **args).code == code
    assert vdisk.refused("volume rm", volume=other["handle"], keep_for="soon").code == "invalid_argument"


def until_below(cluster: Cluster, vdisk: Vdisk, spec: str, part: float) -> list[str]:
    """Return what a purge would remove until less than a part of the pool is used."""
    return [row["name"] for row in vdisk("trash purge", pool_spec=spec, threshold=part, dry_run=True)["purged"]]


def test_purge_before_the_time_and_expiry_by_itself(cluster: Cluster, vdisk: Vdisk, pool_spec: str) -> None:
    cluster.ceph("config", "set", "mgr", "mgr/vdisk/housekeeping_interval", "1")
    first, _ = filled(cluster, vdisk, pool_spec, "first")
    second, _ = filled(cluster, vdisk, pool_spec, "second")
    shot = snap(vdisk, second)
    vdisk("volume rm", volume=first["handle"], keep_for="7d")
    vdisk("snap rm", snapshot=shot["handle"], keep_for="7d")
    planned = vdisk("trash purge", pool_spec=pool_spec, older_than="0", dry_run=True)
    assert [row["name"] for row in planned["purged"]] == ["first", "shot"]
    assert [step["step"] for step in planned["steps"]].count("erase-record") == 2
    assert until_below(cluster, vdisk, pool_spec, 1.0) == []
    # What two volumes have written, as the mgr's statistics show it some seconds later: less one object of the oldest.
    pool = pool_spec.partition("/")[0]

    def usage() -> float:
        found = next(each for each in cluster.ceph_json("df")["pools"] if each["name"] == pool)["stats"]
        stored, free = found["stored"], found["max_avail"]
        return (stored - MIB) / (stored + free) if stored > 10 * MIB else 0.0

    def first_only() -> bool:
        bound = usage()
        return bound > 0 and until_below(cluster, vdisk, pool_spec, bound) == ["first"]

    wait_for(first_only, 40, "the oldest would go to be below what is used now")
    assert until_below(cluster, vdisk, pool_spec, 0.0) == ["first", "shot"]
    assert vdisk("trash purge", pool_spec=pool_spec)["purged"] == []
    assert [row["name"] for row in vdisk("trash purge", pool_spec=pool_spec, keep_last=1)["purged"]] == ["first"]
    assert [row["name"] for row in vdisk("trash purge", pool_spec=pool_spec, older_than="0")["purged"]] == ["shot"]
    vdisk.drained(pool_spec)
    assert trash(cluster, pool_spec) == {}
    third, _ = filled(cluster, vdisk, pool_spec, "third")
    vdisk("volume rm", volume=second["handle"])
    vdisk("volume rm", volume=third["handle"], keep_for="4s")
    wait_for(lambda: trash(cluster, pool_spec) == {}, 40, "what has expired is gone", interval=0.2)
    vdisk.drained(pool_spec)
    assert_nothing_left(cluster, pool_spec)
    with opened(cluster, pool_spec) as ioctx:
        assert omap(ioctx, "vdisk.trash") == {}
    cluster.ceph("config", "set", "mgr", "mgr/vdisk/housekeeping_interval", "60")
    assert has_task_queue(cluster) or cluster.release.name == "reef"


def test_kept_volumes_survive_a_failover(cluster: Cluster, vdisk: Vdisk, pool: str) -> None:
    volume, content = filled(cluster, vdisk, pool)
    clone = vdisk("volume clone", volume=volume["handle"], name="clone")
    vdisk("volume rm", volume=volume["handle"], keep_for="7d")
    cluster.fail_mgr()
    cluster.wait_module()
    back = vdisk.until("trash restore", id=volume["handle"])
    assert checksum(cluster, pool, back["image"]) == content
    assert [p["image"] for p in vdisk("volume info", volume=clone["handle"])["parents"]] == [volume["image"]]
    assert image_spec(back) == image_spec(volume)


def test_the_option_keeps_where_no_argument_says(cluster: Cluster, vdisk: Vdisk, pool: str) -> None:
    kept, gone = make(vdisk, pool, "kept"), make(vdisk, pool, "gone")
    cluster.ceph("config", "set", "mgr", "mgr/vdisk/trash_keep_for", "7d")
    try:

        def keeps() -> bool:
            plan = vdisk("volume rm", volume=kept["handle"], dry_run=True)
            return bool(plan["steps"][0]["step"] == "put-record")

        wait_for(keeps, 20, "the option's effect")
        vdisk("volume rm", volume=kept["handle"])
        vdisk("volume rm", volume=gone["handle"], keep_for="0")
    finally:
        cluster.ceph("config", "set", "mgr", "mgr/vdisk/trash_keep_for", "")
    vdisk.drained(pool)
    (row,) = vdisk("trash ls", pool_spec=pool)
    assert (row["handle"], row["kind"], row["name"]) == (kept["handle"], "volume", "kept")
    assert vdisk("trash restore", id=kept["handle"])["handle"] == kept["handle"]
