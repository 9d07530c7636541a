"""`vdisk volume revert` on real clusters: content, handle, other snapshots, and the former content, by checksum."""

import os
from typing import Any

import pytest
import rbd

from cluster.support import (
    MIB,
    Vdisk,
    image_names,
    image_spec,
    journal,
    opened,
    read_image,
    trash,
    unchanged,
    write_image,
)
from cluster.test_removal import assert_nothing_left, make, snap
from cluster.test_undelete import checksum, filled
from harness.cluster import Cluster


@pytest.fixture
def vdisk(cluster: Cluster) -> Vdisk:
    """vdisk's commands as client.admin."""
    return Vdisk(cluster)


def overwrite(cluster: Cluster, spec: str, volume: dict[str, Any]) -> str:
    """Write something else all over a volume; returns its checksum."""
    write_image(cluster, spec, volume["image"], os.urandom(2 * MIB), MIB)
    return checksum(cluster, spec, volume["image"])


def test_content_handle_and_other_snapshots(cluster: Cluster, vdisk: Vdisk, pool_spec: str) -> None:
    volume, first = filled(cluster, vdisk, pool_spec)
    one = snap(vdisk, volume, "one")
    second = overwrite(cluster, pool_spec, volume)
    two = snap(vdisk, volume, "two")
    third = overwrite(cluster, pool_spec, volume)
    vdisk("volume resize", volume=volume["handle"], size=str(12 * MIB))
    before = journal(cluster, pool_spec)
    with unchanged(cluster):
        plan = vdisk("volume revert", volume=volume["handle"], snapshot=one["handle"], dry_run=True)
    names = [step["step"] for step in plan["steps"]]
    assert names == [
        "put-record", "trash-image", "restore-image", "trash-image", "clone-image", "grow-image", "store-image-id",
        "answer",
    ]  # fmt: skip
    answer = vdisk("volume revert", volume=volume["handle"], snapshot=one["handle"])
    assert checksum(cluster, pool_spec, volume["image"]) == first
    assert read_image(cluster, pool_spec, volume["image"], 4 * MIB, 8 * MIB) == bytes(4 * MIB)
    assert (answer["handle"], answer["image"], answer["size"]) == (volume["handle"], volume["image"], 12 * MIB)
    assert answer["source"]["name"] == "one"
    after = journal(cluster, pool_spec)
    own = f"csi.volume.{volume['uuid']}"
    assert after[own].pop("csi.imageid").decode() == answer["image_id"] != volume["image_id"]
    before[own].pop("csi.imageid")
    assert after == before
    # What it held is a volume in the trash, under the handle that the answer names.
    (row,) = vdisk("trash ls", pool_spec=pool_spec)
    assert (row["handle"], row["name"], row["id"]) == (answer["former"]["handle"], "pvc", volume["image_id"])
    former = vdisk("trash restore", id=answer["former"]["handle"], new_name="before")
    assert checksum(cluster, pool_spec, former["image"]) == third
    # Snapshots from before and after hold what they held, and more can be taken.
    for shot, content in ((one, first), (two, second)):
        restored = vdisk("volume restore", snapshot=shot["handle"], name=f"of-{shot['name']}")
        assert checksum(cluster, pool_spec, restored["image"]) == content
    fourth = overwrite(cluster, pool_spec, volume)
    three = snap(vdisk, answer, "three")
    vdisk("volume revert", volume=volume["handle"], snapshot=two["handle"], keep_for="0")
    assert checksum(cluster, pool_spec, volume["image"]) == second
    vdisk("volume revert", volume=volume["handle"], snapshot=three["handle"])
    assert checksum(cluster, pool_spec, volume["image"]) == fourth
    assert vdisk("check", pool_spec=pool_spec)["findings"] == []
    for item in vdisk("snap ls", pool_spec=pool_spec):
        vdisk("snap rm", snapshot=item["handle"])
    for item in vdisk("volume ls", pool_spec=pool_spec):
        vdisk("volume rm", volume=item["handle"])
    vdisk("trash purge", pool_spec=pool_spec, older_than="0")
    vdisk.drained(pool_spec)
    assert_nothing_left(cluster, pool_spec)


def test_what_it_refuses(cluster: Cluster, vdisk: Vdisk, pool: str) -> None:
    volume, content = filled(cluster, vdisk, pool)
    other = make(vdisk, pool, "other")
    shot = snap(vdisk, volume)
    overwrite(cluster, pool, volume)
    asked = {"volume": volume["handle"], "snapshot": shot["handle"]}
    with opened(cluster, pool) as ioctx, rbd.Image(ioctx, volume["image"]) as image:
        with unchanged(cluster):
            refusal = vdisk.refused("volume revert", **asked)
        assert refusal.code == "in_use"
        assert refusal.details["watchers"][0]["address"] in refusal.message
        image.create_snap("by-hand")
    refusal = vdisk.refused("volume revert", **asked)
    assert (refusal.code, refusal.details) == ("has_dependents", {"dependents": ["by-hand"]})
    with opened(cluster, pool) as ioctx, rbd.Image(ioctx, volume["image"]) as image:
        image.remove_snap("by-hand")
    for args, code in (
        ({**asked, "volume": other["handle"]}, "invalid_argument"),
        ({**asked, "snapshot": f"{pool}/none"}, "not_found"),
        ({**asked, "volume": f"{pool}/none"}, "not_found"),
        ({**asked, "keep_for": "soon"}, "invalid_argument"),
    ):
        assert vdisk.refused("volume revert", **args).code == code
    assert vdisk("volume revert", **asked)["handle"] == volume["handle"]
    assert checksum(cluster, pool, volume["image"]) == content
    assert trash(cluster, pool) == {volume["image_id"]: f"csi-vol-{vdisk('trash ls', pool_spec=pool)[0]['uuid']}"}


def test_an_unsealed_snapshot_and_an_adopted_image(cluster: Cluster, vdisk: Vdisk, pool: str) -> None:
    with opened(cluster, pool) as ioctx:
        rbd.RBD().create(ioctx, "golden", 8 * MIB)
    write_image(cluster, pool, "golden", b"as it was")
    volume = vdisk("adopt", image_spec=f"{pool}/golden", name="pvc")
    shot = snap(vdisk, volume)
    with opened(cluster, pool) as ioctx, rbd.Image(ioctx, shot["image"]) as image:
        image.remove_snap(shot["image"])
    write_image(cluster, pool, "golden", b"as it is!")
    answer = vdisk("volume revert", volume=image_spec(volume), snapshot=shot["handle"])
    assert (answer["image"], answer["handle"]) == ("golden", volume["handle"])
    assert read_image(cluster, pool, "golden", 9) == b"as it was"
    assert vdisk("volume info", volume=f"{pool}/golden")["handle"] == volume["handle"]
    assert vdisk("check", pool_spec=pool)["findings"] == []
    former = vdisk("trash restore", id=answer["former"]["handle"], new_name="before")
    assert read_image(cluster, pool, former["image"], 9) == b"as it is!"
    vdisk("volume rm", volume=f"{pool}/golden")
    assert "golden" not in image_names(cluster, pool)
