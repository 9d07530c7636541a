"""Adopting and releasing on real clusters, and volumes as ceph-csi writes them: every command works with them."""

import hashlib
import os
import uuid
from typing import Any

import pytest
import rbd

from cluster.support import (
    MIB,
    Vdisk,
    image_names,
    journal,
    omap,
    opened,
    pool_id,
    read_image,
    set_omap,
    snapshots,
    write_image,
)
from cluster.test_removal import assert_nothing_left
from harness.cluster import Cluster


@pytest.fixture
def vdisk(cluster: Cluster) -> Vdisk:
    """vdisk's commands as client.admin."""
    return Vdisk(cluster)


def plain(cluster: Cluster, spec: str, name: str = "golden") -> str:
    """Make an image with content that vdisk knows nothing of; returns its checksum."""
    with opened(cluster, spec) as ioctx:
        rbd.RBD().create(ioctx, name, 8 * MIB, features=rbd.RBD_FEATURE_LAYERING, old_format=False)
    write_image(cluster, spec, name, os.urandom(1 << 16), 3 * MIB)
    return checksum(cluster, spec, name)


def checksum(cluster: Cluster, spec: str, image: str) -> str:
    """Return the checksum of an image's content."""
    return hashlib.sha256(read_image(cluster, spec, image, 8 * MIB)).hexdigest()


def use_with_every_command(cluster: Cluster, vdisk: Vdisk, spec: str, volume: dict[str, Any], content: str) -> None:
    """Snapshot, restore, clone, grow, remove and undelete a volume, and look at its content on the way."""
    image = volume["image"]
    shot = vdisk("snap create", image_spec=f"{spec}/{image}", snap_name="shot")
    restored = vdisk("volume restore", snapshot=shot["handle"], name="restored")
    cloned = vdisk("volume clone", volume=volume["handle"], name="cloned")
    for made in (restored, cloned):
        assert checksum(cluster, spec, made["image"]) == content
        vdisk("volume rm", volume=made["handle"])
    vdisk.sealed(shot["handle"])
    vdisk("snap rm", snapshot=shot["handle"])
    vdisk("volume rm", volume=volume["handle"], keep_for="7d")
    assert image not in image_names(cluster, spec)
    back = vdisk("trash restore", id=volume["handle"])
    assert (back["image"], back["handle"]) == (image, volume["handle"])
    assert checksum(cluster, spec, image) == content
    assert vdisk("volume resize", volume=volume["handle"], size="16M")["size"] == 16 * MIB


def test_an_image_is_adopted_used_and_released(cluster: Cluster, vdisk: Vdisk, pool_spec: str) -> None:
    content = plain(cluster, pool_spec)
    volume = vdisk("adopt", image_spec=f"{pool_spec}/golden", name="base")
    assert (volume["image"], volume["name"], volume["state"]) == ("golden", "base", "ready")
    entry = journal(cluster, pool_spec)[f"csi.volume.{volume['uuid']}"]
    assert entry == {
        "csi.imagename": b"golden",
        "csi.volname": b"base",
        "csi.imageid": volume["image_id"].encode(),
    }
    assert vdisk("adopt", image_spec=f"{pool_spec}/golden", name="base") == volume
    assert vdisk("volume info", volume=f"{pool_spec}/golden")["handle"] == volume["handle"]
    refusal = vdisk.refused("adopt", image_spec=f"{pool_spec}/golden", name="other")
    assert refusal.code == "already_exists"
    use_with_every_command(cluster, vdisk, pool_spec, volume, content)
    assert vdisk.until("check", pool_spec=pool_spec, wait=30)["findings"] == []
    assert vdisk("release", volume=volume["handle"])["released"] == volume["handle"]
    assert not any(journal(cluster, pool_spec).values())
    assert image_names(cluster, pool_spec) == ["golden"]
    assert vdisk.refused("release", volume=volume["handle"]).code == "not_found"
    again = vdisk("adopt", image_spec=f"{pool_spec}/golden", name="again")
    vdisk("volume rm", volume=again["handle"])
    vdisk.drained(pool_spec)
    assert_nothing_left(cluster, pool_spec)
    with opened(cluster, pool_spec) as ioctx:
        assert omap(ioctx, "vdisk.images") == {}


def test_a_snapshot_of_an_image_is_adopted(cluster: Cluster, vdisk: Vdisk, pool_spec: str) -> None:
    content = plain(cluster, pool_spec)
    with opened(cluster, pool_spec) as ioctx, rbd.Image(ioctx, "golden") as image:
        image.create_snap("v1")
    write_image(cluster, pool_spec, "golden", b"later")
    made = vdisk("adopt", image_spec=f"{pool_spec}/golden@v1", name="base")
    sealed = vdisk.sealed(made["handle"])
    assert sealed["source"]["image"] == "golden"
    assert snapshots(cluster, pool_spec, "golden") == ["v1"]
    restored = vdisk("volume restore", snapshot=made["handle"], name="restored")
    assert checksum(cluster, pool_spec, restored["image"]) == content
    assert vdisk("adopt", image_spec=f"{pool_spec}/golden@v1", name="base")["handle"] == made["handle"]
    assert vdisk.refused("adopt", image_spec=f"{pool_spec}/golden@none", name="x").code == "not_found"


def test_volumes_that_ceph_csi_made_work_as_they_are(cluster: Cluster, vdisk: Vdisk, pool_spec: str) -> None:
    """The journal as ceph-csi writes it: further keys, handles of the other family, a clone through a temp image."""
    ident, snap_id, clone_id = (str(uuid.uuid4()) for _ in range(3))
    image, shot, clone = f"csi-vol-{ident}", f"csi-snap-{snap_id}", f"csi-vol-{clone_id}"
    content = plain(cluster, pool_spec, image)

    def copy(above: str, cut: str, below: str) -> None:
        with rbd.Image(ioctx, above) as handle:
            handle.create_snap(cut)
            flags = ("--rbd-default-clone-format", "2", "--image-feature", "layering,deep-flatten")
            cluster.rbd("clone", *flags, f"{pool_spec}/{above}@{cut}", f"{pool_spec}/{below}")
            handle.remove_snap(cut)

    with opened(cluster, pool_spec) as ioctx:

        def image_id(name: str) -> str:
            with rbd.Image(ioctx, name, read_only=True) as handle:
                return str(handle.id())

        copy(image, shot, shot)
        with rbd.Image(ioctx, shot) as handle:
            handle.create_snap(shot)
        copy(image, f"{clone}-temp", f"{clone}-temp")
        copy(f"{clone}-temp", clone, clone)
        for kind, name, uid, values in (
            ("volume", "pvc-1", ident, {"csi.imagename": image, "csi.volname": "pvc-1"}),
            ("volume", "pvc-2", clone_id, {"csi.imagename": clone, "csi.volname": "pvc-2"}),
            ("snap", "snapshot-1", snap_id, {"csi.imagename": shot, "csi.snapname": "snapshot-1", "csi.source": image}),
        ):
            set_omap(ioctx, f"csi.{kind}s.default", {f"csi.{kind}.{name}": uid.encode()})
            more = {
                "csi.imageid": image_id(values["csi.imagename"]),
                "csi.volume.owner": "team-a",
                "csi.journalpool": "x",
            }
            set_omap(ioctx, f"csi.{kind}.{uid}", {key: value.encode() for key, value in {**values, **more}.items()})
    fsid = cluster.connect().get_fsid()

    def handle_of(uid: str) -> str:
        return f"0001-0024-{fsid}-{pool_id(cluster, pool_spec):016x}-{uid}"

    assert vdisk.until("check", pool_spec=pool_spec, wait=30)["findings"] == []
    info = vdisk("volume info", volume=handle_of(clone_id))
    assert info["depth"] == 2
    restored = vdisk("volume restore", snapshot=handle_of(snap_id), name="from-csi")
    assert checksum(cluster, pool_spec, restored["image"]) == content
    vdisk("volume rm", volume=restored["handle"])
    volume = vdisk("volume info", volume=handle_of(ident))
    use_with_every_command(cluster, vdisk, pool_spec, volume, content)
    with opened(cluster, pool_spec) as ioctx:
        assert omap(ioctx, f"csi.volume.{ident}")["csi.volume.owner"] == b"team-a"
    # Kept together with the temporary clone that it hangs on, and back again.
    vdisk("volume rm", volume=handle_of(clone_id), keep_for="7d")
    vdisk("trash restore", id=handle_of(clone_id))
    assert checksum(cluster, pool_spec, clone) == content
    for uid in (clone_id, ident):
        vdisk("volume rm", volume=handle_of(uid))
    vdisk("snap rm", snapshot=handle_of(snap_id))
    vdisk.drained(pool_spec)
    assert_nothing_left(cluster, pool_spec)


def test_a_volume_is_flattened(cluster: Cluster, vdisk: Vdisk, pool_spec: str) -> None:
    plain(cluster, pool_spec)
    volume = vdisk("adopt", image_spec=f"{pool_spec}/golden", name="base")
    clone = vdisk("volume clone", volume=volume["handle"], name="clone")
    write_image(cluster, pool_spec, clone["image"], b"its own")
    content = checksum(cluster, pool_spec, clone["image"])
    plan = vdisk("volume flatten", volume=clone["handle"], dry_run=True)
    assert [step["step"] for step in plan["steps"]] == ["flatten-image", "answer"]
    flat = vdisk.until("volume flatten", volume=clone["handle"], wait=20)
    assert (flat["handle"], flat["source"]) == (clone["handle"], None)
    assert vdisk("volume info", volume=clone["handle"])["depth"] == 0
    assert vdisk("volume flatten", volume=clone["handle"]) == flat
    vdisk("volume rm", volume=volume["handle"])
    vdisk.drained(pool_spec)
    assert image_names(cluster, pool_spec) == [clone["image"]]
    assert checksum(cluster, pool_spec, clone["image"]) == content


def test_handles_of_the_ceph_csi_family_are_issued_on_demand(cluster: Cluster, vdisk: Vdisk, pool: str) -> None:
    cluster.ceph("config", "set", "mgr", "mgr/vdisk/handle_format", "ceph-csi")
    try:
        plain(cluster, pool)
        made = vdisk.until("adopt", image_spec=f"{pool}/golden", name="base")
        fsid = cluster.connect().get_fsid()
        expected = f"0001-0024-{fsid}-{pool_id(cluster, pool):016x}-{made['uuid']}"
        assert vdisk("volume info", volume=expected)["uuid"] == made["uuid"]
    finally:
        cluster.ceph("config", "set", "mgr", "mgr/vdisk/handle_format", "cstor")
