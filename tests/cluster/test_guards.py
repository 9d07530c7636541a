"""Guards on real clusters: deep chains and many snapshots stay within their bounds, and every byte is what it was."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import rbd

from cluster.support import MIB, Vdisk, image_spec, opened, read_image, write_image
from cluster.test_groups import named
from cluster.test_removal import make
from harness.cluster import Cluster
from harness.wait import wait_for

DEFAULTS = {"clone_depth_soft": 4, "clone_depth_hard": 8, "snapshots_soft": 250, "snapshots_hard": 450}
GENERATIONS = 20
BLOCK = 64 << 10


@pytest.fixture
def vdisk(cluster: Cluster) -> Vdisk:
    """vdisk's commands as client.admin."""
    return Vdisk(cluster)


@contextlib.contextmanager
def bounds(cluster: Cluster, **options: int) -> Iterator[None]:
    """Set options of the guards for a while."""
    for name, value in options.items():
        cluster.ceph("config", "set", "mgr", f"mgr/vdisk/{name}", str(value))
    yield
    for name in options:  # a removed option keeps its last value until the next start on some releases
        cluster.ceph("config", "set", "mgr", f"mgr/vdisk/{name}", str(DEFAULTS[name]))


def block(number: int) -> bytes:
    """Return what a generation writes."""
    return bytes([number + 1]) * BLOCK


def flattened(vdisk: Vdisk, spec: str) -> list[str]:
    """Return the images of a pool or namespace that were flattened by the guards, or are to be."""
    return [op["target"].rpartition("/")[2] for op in vdisk.operations(spec) if op["kind"] == "flatten"]


def snap_count(cluster: Cluster, spec: str, image: str) -> int:
    """Return how many snapshots an image has, those in librbd's trash namespace included."""
    with opened(cluster, spec) as ioctx, rbd.Image(ioctx, image, read_only=True) as handle:
        return len(list(handle.list_snaps()))


def test_twenty_generations_stay_shallow_and_hold_what_they_held(
    cluster: Cluster, vdisk: Vdisk, pool_spec: str
) -> None:
    volume = make(vdisk, pool_spec, "v0", size=str(4 * MIB))
    made, deepest = [volume], 0
    for number in range(GENERATIONS):
        write_image(cluster, pool_spec, volume["image"], block(number), number * BLOCK)
        vdisk.until("snap create", image_spec=image_spec(volume), snap_name=f"s{number}")
        volume = vdisk.until("volume restore", snapshot=f"{pool_spec}/s{number}", name=f"v{number + 1}")
        made.append(volume)
        deepest = max(deepest, vdisk("volume info", volume=volume["handle"])["depth"])
        if number % 3 == 1:  # some ancestors go, and are kept in the trash by what hangs on them
            vdisk("snap rm", snapshot=f"{pool_spec}/s{number}")
    assert deepest <= 8
    assert flattened(vdisk, pool_spec)
    assert all(name.startswith("csi-snap-") for name in flattened(vdisk, pool_spec)), "no volume was touched"
    for number, one in enumerate(made):
        held = read_image(cluster, pool_spec, one["image"], (GENERATIONS + 1) * BLOCK)
        own = number + 1 if number < GENERATIONS else number
        expected = b"".join(block(at) for at in range(own)).ljust(len(held), b"\0")
        assert held == expected, f"generation {number}"
    for item in vdisk("snap ls", pool_spec=pool_spec):
        vdisk.until("snap rm", snapshot=item["handle"])
    for one in made:
        vdisk.until("volume rm", volume=one["handle"])
    vdisk.drained(pool_spec)


def test_the_hard_bound_is_told_and_what_waits_goes_on(cluster: Cluster, vdisk: Vdisk, pool: str) -> None:
    volume = make(vdisk, pool, "v0")
    with bounds(cluster, clone_depth_soft=2, clone_depth_hard=2):
        for number in range(4):
            write_image(cluster, pool, volume["image"], block(number), number * BLOCK)
            vdisk("volume clone", volume=volume["handle"], name=f"v{number + 1}", wait=0)
            volume = vdisk.until("volume clone", volume=volume["handle"], name=f"v{number + 1}")
            assert vdisk("volume info", volume=volume["handle"])["depth"] <= 2
    assert flattened(vdisk, pool)
    held = read_image(cluster, pool, volume["image"], 4 * BLOCK)
    assert held == b"".join(block(at) for at in range(4))


def test_every_member_of_a_group_snapshot_is_held_to_the_bounds(cluster: Cluster, vdisk: Vdisk, pool: str) -> None:
    if not vdisk("status")["group_snapshots"]:
        pytest.skip("this release's librbd clones no group snapshots")
    pair = [make(vdisk, pool, name, size=str(4 * MIB)) for name in ("a0", "b0")]
    taken: list[tuple[dict[str, Any], int]] = []

    def group(name: str, written: int) -> dict[str, Any]:
        for volume in pair:
            write_image(cluster, pool, volume["image"], block(written), written * BLOCK)
        made: dict[str, Any] = vdisk.until("group snap create", name=name, volumes=named(pair))
        taken.extend((snap, written + 1) for snap in made["snapshots"])
        return made

    with bounds(cluster, snapshots_soft=2, snapshots_hard=3, clone_depth_soft=2, clone_depth_hard=2):
        for number in range(6):
            group(f"g{number}", number)
            assert all(snap_count(cluster, pool, volume["image"]) <= 3 for volume in pair)
        for number in range(6, 9):  # a volume of each snapshot, a snapshot of each such volume, and so on
            deep = group(f"g{number}", number)
            assert all(vdisk("snap info", snapshot=snap["handle"])["depth"] <= 2 for snap in deep["snapshots"])
            pair = [
                vdisk.until("volume restore", snapshot=snap["handle"], name=f"{name}{number}")
                for snap, name in zip(deep["snapshots"], "ab", strict=True)
            ]
            assert all(vdisk("volume info", volume=volume["handle"])["depth"] <= 2 for volume in pair)
    assert flattened(vdisk, pool)
    for snap, blocks in taken:
        held = read_image(cluster, pool, snap["image"], 10 * BLOCK)
        assert held == b"".join(block(at) for at in range(blocks)).ljust(len(held), b"\0"), snap["name"]


def test_the_snapshots_of_one_image_are_bounded(cluster: Cluster, vdisk: Vdisk, pool: str) -> None:
    volume = make(vdisk, pool, "v0")
    write_image(cluster, pool, volume["image"], block(0))
    highest = 0
    with bounds(cluster, snapshots_soft=3, snapshots_hard=5):
        for number in range(12):
            write_image(cluster, pool, volume["image"], block(number), number * BLOCK)
            vdisk.until("snap create", image_spec=image_spec(volume), snap_name=f"s{number:02}")
            highest = max(highest, snap_count(cluster, pool, volume["image"]))
        wait_for(lambda: snap_count(cluster, pool, volume["image"]) <= 5, 40, "the flattening is through")
    assert highest <= 6, "a shared cut may add one"
    assert len(flattened(vdisk, pool)) >= 6
    for number, item in enumerate(vdisk("snap ls", pool_spec=pool)):
        held = read_image(cluster, pool, item["image"], 13 * BLOCK)
        assert held == b"".join(block(at) for at in range(number + 1)).ljust(len(held), b"\0"), item["name"]
    with opened(cluster, pool) as ioctx, rbd.Image(ioctx, volume["image"]) as image:
        for name in ("a", "b"):
            image.create_snap(name)
    with bounds(cluster, snapshots_soft=1, snapshots_hard=1):

        def settled() -> bool:
            refusal = vdisk.refused("snap create", image_spec=image_spec(volume), snap_name="more", wait=0.2)
            return refusal.code == "unsupported" and "snapshots_hard" in refusal.message

        wait_for(settled, 60, "only snapshots by hand are left")


def test_four_hundred_and_fifty_snapshots_and_not_one_more(cluster: Cluster, vdisk: Vdisk, pool: str) -> None:
    """The bounds as they are by default, on an image that has as many snapshots of somebody's own."""
    # Without an exclusive lock snapshots of one image are taken side by side, many in one round of the monitors.
    volume = make(vdisk, pool, "v0", image_features="layering")
    write_image(cluster, pool, volume["image"], block(0))
    hard = DEFAULTS["snapshots_hard"]
    with opened(cluster, pool) as ioctx, ThreadPoolExecutor(8) as threads:

        def several(first: int) -> None:
            with rbd.Image(ioctx, volume["image"]) as image:
                for number in range(first, hard - 1, 8):
                    image.create_snap(f"by-hand-{number:03}")

        list(threads.map(several, range(8)))
    last = vdisk("snap create", image_spec=image_spec(volume), snap_name="last")
    assert snap_count(cluster, pool, volume["image"]) == hard
    # The one that is vdisk's own is kept by its clone alone: that is flattened, and then it makes room.
    more = vdisk.until("snap create", image_spec=image_spec(volume), snap_name="more")
    assert [name.partition("csi-snap-")[2] for name in flattened(vdisk, pool)] == [last["uuid"]]
    assert snap_count(cluster, pool, volume["image"]) == hard
    assert all(read_image(cluster, pool, shot["image"], BLOCK) == block(0) for shot in (last, more))
    vdisk("snap rm", snapshot=more["handle"])
    vdisk.drained(pool)
    with opened(cluster, pool) as ioctx, rbd.Image(ioctx, volume["image"]) as image:
        image.create_snap("by-hand-last")
    refusal = vdisk.refused("snap create", image_spec=image_spec(volume), snap_name="none")
    assert (refusal.code, f"has {hard} snapshots" in refusal.message) == ("unsupported", True)
