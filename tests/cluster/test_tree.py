"""Lineage on real clusters: through the trash, across namespaces and pools, with real sizes and watchers."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import rbd

from cluster.support import MIB, Vdisk, image_spec, opened, write_image
from cluster.test_removal import make
from harness.cluster import Cluster
from harness.wait import wait_for


@pytest.fixture
def vdisk(cluster: Cluster) -> Vdisk:
    """vdisk's commands as client.admin."""
    return Vdisk(cluster)


def walk(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield a node and all below it."""
    yield node
    for child in node["children"]:
        yield from walk(child)


def test_a_family_through_the_trash_and_across_pools(
    cluster: Cluster, vdisk: Vdisk, pool_spec: str, request: pytest.FixtureRequest
) -> None:
    features = "layering,exclusive-lock,object-map,fast-diff"
    volume = make(vdisk, pool_spec, "pvc-1", size=str(16 * MIB), image_features=features)
    write_image(cluster, pool_spec, volume["image"], b"x" * (4 * MIB), 0)
    write_image(cluster, pool_spec, volume["image"], b"x" * 100, 12 * MIB)
    with opened(cluster, pool_spec) as ioctx, rbd.Image(ioctx, volume["image"]) as image:
        image.create_snap("by-hand")
        image.write(b"later", 12 * MIB)
    info = vdisk("volume info", volume=volume["handle"])
    assert (info["used"], info["exclusive"]) == (8 * MIB, 4 * MIB)
    assert "snapshot by-hand" in info["held_by"]
    assert info["frees"] == 0
    with opened(cluster, pool_spec) as ioctx, rbd.Image(ioctx, volume["image"]) as image:
        image.remove_snap("by-hand")
    shot = vdisk("snap create", image_spec=image_spec(volume), snap_name="shot")
    vdisk.sealed(shot["handle"])
    elsewhere = f"{pool_spec.partition('/')[0]}-other"
    cluster.create_pool(elsewhere)
    request.addfinalizer(lambda: cluster.delete_pool(elsewhere))
    here = vdisk("volume restore", snapshot=shot["handle"], name="here")
    there = vdisk("volume restore", snapshot=shot["handle"], name="there", pool_spec=elsewhere)
    removal = vdisk("volume rm", volume=volume["handle"])
    with opened(cluster, pool_spec) as ioctx, rbd.Image(ioctx, here["image"]):
        for of in (pool_spec, here["handle"], f"{elsewhere}/there"):
            (root,) = vdisk("tree", pool_spec=of)
            found = {node["image"]: node for node in walk(root)}
            assert set(found) == {thing["image"] for thing in (volume, shot, here, there)}
            assert (root["image"], root["trashed"], root["used"]) == (volume["image"], True, 8 * MIB)
            assert root["removal"] == removal["operation"]
            assert root["held_by"] == [f"clone {image_spec(shot)}"]
            assert [found[thing["image"]]["depth"] for thing in (volume, shot, here, there)] == [0, 1, 2, 2]
            assert found[there["image"]]["pool"] == elsewhere
            assert len(found[here["image"]]["watchers"]) == 1
            assert "in use by" in str(found[here["image"]]["held_by"])
    drawing = vdisk.raw("tree", pool_spec=pool_spec)[1]
    assert drawing.splitlines()[0].startswith(f"{image_spec(volume)}: in the trash, 16 MiB, used 8 MiB")
    assert f"├─ {image_spec(here)}" in drawing or f"└─ {image_spec(here)}" in drawing
    assert vdisk.refused("tree", pool_spec="no-such-pool").code == "not_found"
    assert vdisk.refused("tree", pool_spec=f"{pool_spec}/nothing").code == "not_found"
    vdisk("volume rm", volume=there["handle"])
    vdisk("volume rm", volume=here["handle"])
    vdisk.drained(elsewhere)

    def alone() -> Any:
        (root,) = vdisk("tree", pool_spec=pool_spec)
        (snap,) = root["children"]
        return snap if not snap["children"] else None

    snap = wait_for(alone, 30, "the clones are gone")
    assert snap["frees_with"] == [f"{image_spec(volume)} (in the trash)"]
    assert snap["frees"] == 8 * MIB
    info = vdisk("snap info", snapshot=shot["handle"])
    for fact in ("used", "exclusive", "depth", "watchers", "held_by", "frees", "frees_with", "created_at", "size"):
        assert info[fact] == snap[fact], fact
    vdisk("snap rm", snapshot=shot["handle"])
    vdisk.drained(pool_spec)
    assert vdisk("tree", pool_spec=pool_spec) == []
