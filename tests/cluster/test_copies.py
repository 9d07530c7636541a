"""Restores and clones with a layout of their own: what librbd makes of it, what a repeat compares, what is refused."""

from typing import Any

import pytest

from cluster.csi_driver import MIB, create_request, refused, running
from cluster.support import KIB, Vdisk, image_names, image_spec, opened, read_image, unchanged, write_image
from harness.cluster import Cluster
from vdisk_csi.proto import csi_pb2 as csi


@pytest.fixture
def vdisk(cluster: Cluster) -> Vdisk:
    """vdisk's commands as client.admin."""
    return Vdisk(cluster)


def layout_of(cluster: Cluster, volume: dict[str, Any]) -> tuple[Any, ...]:
    """Return features, object size, stripe unit, stripe count and data pool of a volume, as ``rbd info`` has them."""
    info = cluster.rbd_json("info", image_spec(volume))
    features = {name for name in info["features"] if name not in ("striping", "data-pool", "operations")}
    return features, info["object_size"], info.get("stripe_unit"), info.get("stripe_count"), info.get("data_pool")


def test_copies_have_the_layout_that_is_asked_for(cluster: Cluster, vdisk: Vdisk, pool: str, pool_ns: str) -> None:
    data = pool_ns.partition("/")[0]
    volume = vdisk(
        "volume create", pool_spec=pool, name="pvc", size="8M", image_features="layering,exclusive-lock",
        object_size="2M",
    )  # fmt: skip
    write_image(cluster, pool, volume["image"], b"content" * 1000, MIB)
    shot = vdisk("snap create", image_spec=image_spec(volume), snap_name="shot")
    sources = (("volume restore", {"snapshot": shot["handle"]}), ("volume clone", {"volume": volume["handle"]}))
    asked = {
        "image_features": "layering,deep-flatten", "object_size": "1M", "stripe_unit": "64K", "stripe_count": 4,
        "data_pool": data,
    }  # fmt: skip
    made = []
    for words, source in sources:
        for target in (pool, pool_ns, data):
            name = f"{words}-{target}".replace("/", "-").replace(" ", "-")
            copy = vdisk(words, **source, name=name, pool_spec=target, size="12M", **asked)
            made.append((target, copy))
            # Its own pool is no data pool for librbd.
            data_pool = None if target.startswith(data) else data
            expected = ({"layering", "deep-flatten"}, MIB, 64 * KIB, 4, data_pool)
            assert layout_of(cluster, copy) == expected, (words, target)
            assert read_image(cluster, target, copy["image"], 7000, MIB) == b"content" * 1000
            write_image(cluster, target, copy["image"], b"own", 9 * MIB)
            assert read_image(cluster, target, copy["image"], 3, 9 * MIB) == b"own"
            with unchanged(cluster):
                for less in (asked, {}, {"object_size": "1M"}):
                    again = {**source, "name": name, "pool_spec": target, **less}
                    assert vdisk(words, **again) == copy
                for option, other, told in (
                    ("image_features", "layering", "features"),
                    ("object_size", "2M", "object size"),
                    ("stripe_unit", "128K", "stripe unit"),
                    ("stripe_count", 2, "stripe count"),
                    ("data_pool", pool, "data pool"),
                    ("size", "13M", "size"),
                ):
                    differs = vdisk.refused(
                        words, **source, name=name, pool_spec=target, **{**asked, "size": "12M", option: other}
                    )
                    assert differs.code == "already_exists"
                    assert [text for text in differs.details["differs"] if told in text] == differs.details["differs"]
    restored = vdisk("volume restore", snapshot=shot["handle"], name="restored")
    cloned = vdisk("volume clone", volume=volume["handle"], name="cloned")
    kept = {"layering", "exclusive-lock", "object-map", "fast-diff", "deep-flatten"}
    assert layout_of(cluster, restored)[:2] == (kept, 2 * MIB)
    assert layout_of(cluster, cloned)[:2] == ({"layering", "exclusive-lock"}, 2 * MIB)
    for number, (words, source) in enumerate(sources):
        # An object size alone means objects without stripes, whatever librbd would make of it.
        for size in (64 * KIB, 8 * MIB):
            for target in (pool, data):
                copy = vdisk(words, **source, name=f"objects-{number}-{size}", pool_spec=target, object_size=str(size))
                made.append((target, copy))
                assert layout_of(cluster, copy)[1:] == (size, None, None, None)
                assert read_image(cluster, target, copy["image"], 7000, MIB) == b"content" * 1000
        for bad, code in (
            ({"stripe_unit": "4M", "stripe_count": 2}, "invalid_argument"),
            ({"stripe_unit": "64K"}, "invalid_argument"),
            ({"image_features": "exclusive-lock"}, "invalid_argument"),
            ({"object_size": "3M"}, "invalid_argument"),
            ({"data_pool": "no-such-pool"}, "not_found"),
            (
                {"object_size": "4K", "size": "2T", "image_features": "layering,exclusive-lock,object-map"},
                "out_of_range",
            ),
        ):
            with unchanged(cluster):
                assert vdisk.refused(words, **source, name="bad", **bad).code == code, (words, bad)
    for target, copy in made:
        vdisk("volume rm", volume=copy["handle"])
        vdisk.drained(target)
    assert image_names(cluster, pool_ns) == image_names(cluster, data) == []
    with opened(cluster, data) as ioctx:
        assert [item.key for item in ioctx.list_objects() if item.key.startswith("rbd_data.")] == []


def test_a_storage_class_holds_for_restores_and_clones(cluster: Cluster, pool: str, pool_ns: str) -> None:
    data = pool_ns.partition("/")[0]
    laid_out = {
        "imageFeatures": "layering,exclusive-lock", "objectSize": "1048576", "stripeUnit": "65536", "stripeCount": "4",
        "dataPool": data,
    }  # fmt: skip
    with running(cluster) as driver:
        create = driver.controller.CreateVolume
        volume = create(create_request(pool, "pvc", 8 * MIB)).volume
        shot = driver.controller.CreateSnapshot(
            csi.CreateSnapshotRequest(source_volume_id=volume.volume_id, name="shot")
        ).snapshot
        for source in ({"snapshot": shot.snapshot_id}, {"volume": volume.volume_id}):
            name = f"of-{next(iter(source))}"
            asked = create_request(pool, name, 0, **source, **laid_out)
            copy = create(asked).volume
            assert create(asked).volume == copy
            info = cluster.rbd_json("info", f"{pool}/{copy.volume_context['imageName']}")
            assert set(info["features"]) >= {"layering", "exclusive-lock", "striping", "data-pool"}
            assert "object-map" not in info["features"]
            assert (info["object_size"], info["stripe_unit"], info["stripe_count"]) == (MIB, 64 * KIB, 4)
            assert info["data_pool"] == data
            other = create_request(pool, name, 0, **source, **{**laid_out, "objectSize": "2097152"})
            assert "object size" in refused(create, other, "ALREADY_EXISTS")
