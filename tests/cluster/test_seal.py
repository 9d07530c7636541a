"""Seals are written without opening the image: they have to be what librbd would have written."""

import re
from typing import Any

import pytest
import rados
import rbd

from cluster.support import MIB, Vdisk, image_spec, omap, opened, read_image, write_image
from harness.cluster import Cluster
from vdisk.cluster.header import decode_snap


@pytest.fixture
def vdisk(cluster: Cluster) -> Vdisk:
    """vdisk's commands as client.admin."""
    return Vdisk(cluster)


def sealed(vdisk: Vdisk, spec: str, size: int = 20 * MIB) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a volume with some data and its sealed snapshot."""
    volume = vdisk("volume create", pool_spec=spec, name="pvc", size=size)
    write_image(vdisk.cluster, spec, volume["image"], b"kept", 5 * MIB)
    vdisk("snap create", image_spec=image_spec(volume), snap_name="shot")
    return volume, vdisk.sealed(f"{spec}/shot")


def twin(cluster: Cluster, spec: str, image: str) -> str:
    """Make the same with librbd: snapshot, clone, snapshot of the clone; returns the clone's id."""
    with opened(cluster, spec) as ioctx:
        with rbd.Image(ioctx, image) as source:
            source.create_snap("twin")
        features = ("--image-feature", "layering,exclusive-lock,object-map,fast-diff,deep-flatten")
        cluster.rbd("clone", "--rbd-default-clone-format", "2", *features, f"{spec}/{image}@twin", f"{spec}/twin")
        with rbd.Image(ioctx, image) as source:
            source.remove_snap("twin")
        with rbd.Image(ioctx, "twin") as clone:
            clone.create_snap("twin")
            return str(clone.id())


def record(ioctx: rados.Ioctx, image_id: str) -> tuple[set[str], dict[str, bytes], bytes]:
    """Return a header's keys without numbers, its values, and the record of its only snapshot."""
    values = omap(ioctx, f"rbd_header.{image_id}")
    [snapshot] = [value for key, value in values.items() if key.startswith("snapshot_")]
    return {re.sub(r"_[0-9a-f]{16}$", "_N", key) for key in values}, values, snapshot


def test_a_seal_is_what_librbd_writes(cluster: Cluster, vdisk: Vdisk, pool_spec: str) -> None:
    volume, shot = sealed(vdisk, pool_spec)
    other = twin(cluster, pool_spec, volume["image"])
    with opened(cluster, pool_spec) as ioctx:
        ours, our_values, our_snapshot = record(ioctx, shot["image_id"])
        theirs, their_values, their_snapshot = record(ioctx, other)
        assert ours == theirs
        for key in ("features", "flags", "order", "size", "op_features"):
            assert our_values.get(key) == their_values.get(key), key
        # The same but for the name's length, the number and the time.
        assert len(our_snapshot) - len(shot["image"]) == len(their_snapshot) - len("twin")
        mine, yours = decode_snap(our_snapshot), decode_snap(their_snapshot)
        assert (mine.name, mine.size, mine.user) == (shot["image"], yours.size, True)
        assert our_values["snap_seq"] == mine.id.to_bytes(8, "little")
        for mapped, (image_id, found) in {"ours": (shot["image_id"], mine), "theirs": (other, yours)}.items():
            head = ioctx.read(f"rbd_object_map.{image_id}")
            kept = ioctx.read(f"rbd_object_map.{image_id}.{found.id:016x}")
            assert kept == ioctx.read(f"rbd_object_map.{other}.{yours.id:016x}"), mapped
            assert head == ioctx.read(f"rbd_object_map.{other}"), mapped


def test_librbd_takes_a_seal_for_its_own(cluster: Cluster, vdisk: Vdisk, pool_spec: str) -> None:
    volume, shot = sealed(vdisk, pool_spec)
    name = shot["image"]
    write_image(cluster, pool_spec, volume["image"], b"lost", 5 * MIB)
    with opened(cluster, pool_spec) as ioctx:
        with rbd.Image(ioctx, name, snapshot=name) as image:
            assert image.read(5 * MIB, 4) == b"kept"
            assert image.flags() == 0
        with rbd.Image(ioctx, name) as image:
            image.write(b"above", 0)
            image.flush()
            assert image.flags() == 0
        with rbd.Image(ioctx, name, snapshot=name) as image:
            assert image.read(0, 5) == b"\0" * 5
            assert image.read(5 * MIB, 4) == b"kept"
    checked = cluster.rbd("object-map", "check", f"{pool_spec}/{name}")
    assert checked.rc == 0
    restored = vdisk("volume restore", snapshot=shot["handle"], name="restored")
    assert read_image(cluster, pool_spec, restored["image"], 4, 5 * MIB) == b"kept"


def test_an_image_that_somebody_writes_to_is_sealed_by_librbd(cluster: Cluster, vdisk: Vdisk, pool: str) -> None:
    _, shot = sealed(vdisk, pool)
    name = shot["image"]
    with opened(cluster, pool) as ioctx, rbd.Image(ioctx, name) as image:
        image.remove_snap(name)
        image.write(b"own", 0)  # which takes the image's lock and keeps it
        restored = vdisk("volume restore", snapshot=shot["handle"], name="restored")
        assert [snap["name"] for snap in image.list_snaps()] == [name]
        image.write(b"new", 0)
        image.flush()
    assert read_image(cluster, pool, restored["image"], 3) == b"own"
