"""What vdisk reads from images' headers by itself, compared field by field with what librbd answers."""

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import rados
import rbd

from cluster.support import GIB, MIB, Vdisk, image_spec, opened, pool_id, snapshots
from cluster.test_journal import StandIn, where_of
from harness.cluster import Cluster
from vdisk.cluster.connection import Connection
from vdisk.cluster.images import Images
from vdisk.model.observed import DATA_POOL, STRIPING, Image

V2 = ("--rbd-default-clone-format", "2")
ALL_FEATURES = ["layering", "exclusive-lock", "object-map", "fast-diff", "deep-flatten", "journaling"]


class Context(StandIn):
    """A stand-in for the mgr whose modules' clients are those that a test says."""

    clients: frozenset[str] = frozenset()

    def client_addresses(self) -> frozenset[str]:
        """Return the addresses of the mgr's clients."""
        return self.clients


@pytest.fixture
def context(cluster: Cluster) -> Context:
    """The stand-in for the mgr."""
    return Context(cluster)


@pytest.fixture
def images(cluster: Cluster, context: Context) -> Iterator[Images]:
    """vdisk's reader of images, in this process."""
    connection = Connection(cluster.new_handle, lambda handle: handle.shutdown())
    yield Images(connection, context, logging.getLogger("vdisk.test"))
    connection.close()


def told_by_librbd(ioctx: rados.Ioctx, image_id: str) -> dict[str, Any]:
    """Return what librbd tells about an image."""
    with rbd.Image(ioctx, image_id=image_id, read_only=True) as image:
        stat = image.stat()
        return {
            "id": image.id(),
            "name": image.get_name(),
            "size": image.size(),
            "features": image.features(),
            "order": stat["order"],
            "stripe_unit": image.stripe_unit(),
            "stripe_count": image.stripe_count(),
            "data_pool_id": image.data_pool_id() if image.features() & DATA_POOL else None,
            "created": int(image.create_timestamp().timestamp()),
            "snaps": [
                (snap["id"], snap["name"], snap["size"], snap["namespace"] == rbd.RBD_SNAP_NAMESPACE_TYPE_USER)
                for snap in image.list_snaps()
            ],
            "parent": librbd_parent(image),
        }


def librbd_parent(image: rbd.Image) -> tuple[str, str, str] | None:
    """Return (pool, namespace, image id) of the parent."""
    try:
        found = image.get_parent_image_spec()
    except rbd.ImageNotFound:
        return None
    return found["pool_name"], found["pool_namespace"], image.parent_id()


def told_by_vdisk(cluster: Cluster, image: Image) -> dict[str, Any]:
    """Return the same of what vdisk read."""
    parent = None
    if image.parent is not None:
        name = cluster.connect().pool_reverse_lookup(image.parent.pool_id)
        parent = (name, image.parent.namespace, image.parent.image_id)
    assert image.created_at is not None
    return {
        "id": image.id,
        "name": image.name,
        "size": image.size,
        "features": image.features,
        "order": image.order,
        "stripe_unit": image.stripe_unit,
        "stripe_count": image.stripe_count,
        "data_pool_id": image.data_pool_id,
        "created": int(image.created_at),
        "snaps": [(snap.id, snap.name, snap.size, snap.user) for snap in image.snaps],
        "parent": parent,
    }


def children_by_librbd(ioctx: rados.Ioctx, image_id: str) -> set[tuple[str, str, str]]:
    """Return (pool, namespace, image id) of every clone that hangs on an image."""
    with rbd.Image(ioctx, image_id=image_id, read_only=True) as image:
        return {(child["pool"], child["pool_namespace"], child["id"]) for child in image.list_descendants()}


def compare(cluster: Cluster, images: Images, spec: str, name: str) -> Image:
    """Compare an image outside of the trash through every way of reading it, and return it."""
    where = where_of(cluster, spec)
    with opened(cluster, spec) as ioctx:
        found = images.find(where, name)
        assert found is not None
        told = told_by_librbd(ioctx, found.id)
        assert told_by_vdisk(cluster, found) == told
        assert images.find_id(where, found.id) == found
        assert images.load(where, name, found.id) == found
        assert not found.trashed
        assert not images.partial(where, name)
    return found


SHAPES: list[tuple[str, list[str]]] = [
    ("defaults", ["--size", "8M"]),
    ("one-byte", ["--size", "1B"]),
    ("large", ["--size", "64T"]),
    ("layering", ["--size", "8M", "--image-feature", "layering"]),
    ("everything", ["--size", "8M", *(part for name in ALL_FEATURES for part in ("--image-feature", name))]),
    ("small-objects", ["--size", "8M", "--object-size", "4K"]),
    ("large-objects", ["--size", "64M", "--object-size", "32M"]),
    ("striped", ["--size", "8M", "--stripe-unit", "64K", "--stripe-count", "8"]),
    ("striped-small", ["--size", "8M", "--object-size", "1M", "--stripe-unit", "4K", "--stripe-count", "3"]),
]


def test_shapes_of_images(cluster: Cluster, images: Images, pool_spec: str) -> None:
    for name, options in SHAPES:
        size, rest = options[1], options[2:]
        cluster.rbd("create", f"{pool_spec}/{name}", "--size", size, *rest)
        image = compare(cluster, images, pool_spec, name)
        assert image.parent is None
        assert image.children == ()
        assert image.data_pool_id is None
        assert abs((image.created_at or 0) - time.time()) < 120
    striped = images.find(where_of(cluster, pool_spec), "striped")
    assert striped is not None
    assert striped.features & STRIPING
    assert images.find(where_of(cluster, pool_spec), "no-such-image") is None
    assert images.find_id(where_of(cluster, pool_spec), "1234567890ab") is None
    assert images.name_of(where_of(cluster, pool_spec), "1234567890ab") is None
    assert images.load(where_of(cluster, pool_spec), "no-such-image", "1234567890ab") is None


def test_data_pool(cluster: Cluster, images: Images, pool: str, pool_ns: str) -> None:
    data = pool_ns.partition("/")[0]
    cluster.rbd("create", f"{pool}/image", "--size", "8M", "--data-pool", data)
    assert compare(cluster, images, pool, "image").data_pool_id == pool_id(cluster, data)


def test_snapshots_and_resizing(cluster: Cluster, images: Images, pool_spec: str) -> None:
    with opened(cluster, pool_spec) as ioctx:
        rbd.RBD().create(ioctx, "image", 4 * MIB)
        for number in range(12):
            with rbd.Image(ioctx, "image") as image:
                image.create_snap(f"s-{number}")
                image.resize((5 + number) * MIB)
        with rbd.Image(ioctx, "image") as image:
            for number in (0, 3, 11):
                image.remove_snap(f"s-{number}")
            image.create_snap("ümläut ✓")
    found = compare(cluster, images, pool_spec, "image")
    assert [snap.name for snap in found.snaps] == [*(f"s-{number}" for number in (1, 2, *range(4, 11))), "ümläut ✓"]
    assert found.snap("s-4") is not None
    assert found.snap("s-3") is None


def test_image_with_hundreds_of_snapshots(cluster: Cluster, images: Images, pool: str) -> None:
    with opened(cluster, pool) as ioctx:
        rbd.RBD().create(ioctx, "image", 4 * MIB, features=rbd.RBD_FEATURE_LAYERING)
        with rbd.Image(ioctx, "image") as image:
            image.create_snap("s")
        # Each snapshot takes a monitor round; the header of one with many is made by hand, from a real record.
        header = f"rbd_header.{images.find(where_of(cluster, pool), 'image').id}"  # type: ignore[union-attr]
        with rados.ReadOpCtx() as op:
            found, _ = ioctx.get_omap_vals(op, "", "snapshot_", 10)
            ioctx.operate_read_op(op, header)
            [(key, value)] = list(found)
        first = int(key.partition("_")[2], 16)
        with rados.WriteOpCtx() as op:
            keys = tuple(f"snapshot_{first + number:016x}" for number in range(1, 1500))
            ioctx.set_omap(op, keys, tuple(value for _ in keys))
            ioctx.operate_write_op(op, header)
        read = images.find(where_of(cluster, pool), "image")
        assert read is not None
        assert len(read.snaps) == 1500
        assert read.size == 4 * MIB


def clone(cluster: Cluster, source: str, target: str) -> None:
    """Clone with the release's own tool, in clone format 2."""
    cluster.rbd("clone", *V2, source, target)


def test_clones_of_clones(cluster: Cluster, images: Images, pool: str, pool_ns: str) -> None:
    with opened(cluster, pool) as ioctx:
        rbd.RBD().create(ioctx, "base", 8 * MIB)
        with rbd.Image(ioctx, "base") as image:
            image.write(b"x" * MIB, 0)
            for name in ("a", "b", "unused"):
                image.create_snap(name)
    clone(cluster, f"{pool}/base@a", f"{pool}/one")
    clone(cluster, f"{pool}/base@a", f"{pool_ns}/two")
    clone(cluster, f"{pool}/base@b", f"{pool_ns}/three")
    with opened(cluster, pool_ns) as ioctx, rbd.Image(ioctx, "two") as image:
        image.create_snap("c")
    clone(cluster, f"{pool_ns}/two@c", f"{pool_ns}/four")
    clone(cluster, f"{pool_ns}/two@c", f"{pool}/five")

    found = {name: compare(cluster, images, pool, name) for name in ("base", "one", "five")}
    found |= {name: compare(cluster, images, pool_ns, name) for name in ("two", "three", "four")}
    namespaced = pool_ns.partition("/")[0]
    for name, spec in (("base", pool), ("two", pool_ns), ("one", pool)):
        told = {
            (cluster.connect().pool_reverse_lookup(child.pool_id), child.namespace, child.image_id)
            for child in found[name].children
        }
        here, there = (pool, ""), (namespaced, "ns1")
        expected = {
            "base": {(*here, found["one"].id), (*there, found["two"].id), (*there, found["three"].id)},
            "two": {(*there, found["four"].id), (*here, found["five"].id)},
            "one": set(),
        }[name]
        assert told == expected, name
        with opened(cluster, spec) as ioctx:
            assert told <= children_by_librbd(ioctx, found[name].id)
    by_snap = {snap.name: len(snap.children) for snap in found["base"].snaps}
    assert by_snap == {"a": 2, "b": 1, "unused": 0}

    # A snapshot with clones goes to librbd's trash namespace; its children are still known.
    with opened(cluster, pool) as ioctx, rbd.Image(ioctx, "base") as image:
        image.remove_snap("a")
    base = compare(cluster, images, pool, "base")
    assert base.snap("a") is None
    assert [(snap.user, len(snap.children)) for snap in base.snaps] == [(False, 2), (True, 1), (True, 0)]
    assert snapshots(cluster, pool, "base") == ["b", "unused"]

    # A flattened clone has no parent any more, and its parent one child less.
    with opened(cluster, pool_ns) as ioctx, rbd.Image(ioctx, "three") as image:
        image.flatten()
    assert compare(cluster, images, pool_ns, "three").parent is None
    assert len(compare(cluster, images, pool, "base").children) == 2

    # A flattened clone with a snapshot that was made before, with and without deep-flatten.
    with opened(cluster, pool) as ioctx:
        for name in ("one", "five"):
            with rbd.Image(ioctx, name) as image:
                image.create_snap("before")
                if name == "five":
                    image.update_features(rbd.RBD_FEATURE_DEEP_FLATTEN, False)
                image.flatten()
    for name in ("one", "five"):
        assert compare(cluster, images, pool, name).parent is None
    assert compare(cluster, images, pool, "base").snap("b") is not None


def test_clone_of_format_1(cluster: Cluster, images: Images, pool: str) -> None:
    with opened(cluster, pool) as ioctx:
        rbd.RBD().create(ioctx, "base", 8 * MIB)
        with rbd.Image(ioctx, "base") as image:
            image.create_snap("s")
            image.protect_snap("s")
    cluster.rbd("clone", "--rbd-default-clone-format", "1", f"{pool}/base@s", f"{pool}/child")
    child = compare(cluster, images, pool, "child")
    assert child.parent is not None
    assert compare(cluster, images, pool, "base").snap("s") is not None


def test_parent_of_a_shrunk_clone(cluster: Cluster, images: Images, pool: str) -> None:
    with opened(cluster, pool) as ioctx:
        rbd.RBD().create(ioctx, "base", 8 * MIB)
        with rbd.Image(ioctx, "base") as image:
            image.write(b"x", 0)
            image.create_snap("s")
        clone(cluster, f"{pool}/base@s", f"{pool}/child")
        for size in (4 * MIB, 0):
            with rbd.Image(ioctx, "child") as image:
                image.resize(size)
            found = images.find(where_of(cluster, pool), "child")
            assert found is not None
            assert found.size == size
            # librbd no longer tells a parent without an overlap, but the clone hangs on it all the same.
            base = images.find(where_of(cluster, pool), "base")
            assert base is not None
            assert [each.image_id for each in base.children] == [found.id]
            assert found.parent is not None


def test_trash(cluster: Cluster, images: Images, pool_spec: str) -> None:
    where = where_of(cluster, pool_spec)
    with opened(cluster, pool_spec) as ioctx:
        rbd.RBD().create(ioctx, "image", 8 * MIB)
        with rbd.Image(ioctx, "image") as image:
            image.create_snap("s")
        before = compare(cluster, images, pool_spec, "image")
        assert images.name_of(where, before.id) == ("image", False)
        rbd.RBD().trash_move(ioctx, "image", 0)
        assert images.name_of(where, before.id) == ("image", True)
        assert images.find(where, "image") is None
        assert not images.partial(where, "image")
        trashed = images.find_id(where, before.id)
        assert trashed is not None
        assert trashed.trashed
        assert trashed.name == "image"
        assert told_by_vdisk(cluster, trashed) == {**told_by_librbd(ioctx, before.id), "name": "image"}
        # The name may be given anew, and the old one is still found by its id.
        rbd.RBD().create(ioctx, "image", 4 * MIB)
        fresh = compare(cluster, images, pool_spec, "image")
        assert fresh.id != before.id
        assert images.find_id(where, before.id) == trashed
        rbd.RBD().trash_restore(ioctx, before.id, "renamed")
        restored = compare(cluster, images, pool_spec, "renamed")
        assert (restored.id, restored.trashed) == (before.id, False)


def test_partial_images(cluster: Cluster, images: Images, pool_spec: str) -> None:
    where = where_of(cluster, pool_spec)
    with opened(cluster, pool_spec) as ioctx:
        for name in ("headless", "listed"):
            rbd.RBD().create(ioctx, name, 8 * MIB)
        # What a creation leaves that was cut short: the name without the header, or only the directory's entry.
        headless, listed = images.find(where, "headless"), images.find(where, "listed")
        assert headless is not None
        assert listed is not None
        ioctx.remove_object(f"rbd_header.{headless.id}")
        ioctx.remove_object(f"rbd_header.{listed.id}")
        ioctx.remove_object("rbd_id.listed")
        for name, image_id in (("headless", headless.id), ("listed", listed.id)):
            assert images.find(where, name) is None
            assert images.partial(where, name) == image_id
            images.remove_unfinished(where, name, image_id)
            assert images.partial(where, name) is None
            assert images.find_id(where, image_id) is None
            rbd.RBD().create(ioctx, name, 8 * MIB)
            compare(cluster, images, pool_spec, name)


def test_what_remains_of_an_image_in_the_trash_is_found(cluster: Cluster, images: Images, pool_spec: str) -> None:
    where = where_of(cluster, pool_spec)
    with opened(cluster, pool_spec) as ioctx:
        rbd.RBD().create(ioctx, "image", 8 * MIB)
        found = images.find(where, "image")
        assert found is not None
        rbd.RBD().trash_move(ioctx, "image", 0)
        trashed = images.find_id(where, found.id)
        assert trashed is not None
        assert (trashed.trashed, trashed.size) == (True, 8 * MIB)
        ioctx.remove_object(f"rbd_header.{found.id}")
        remains = images.find_id(where, found.id)
        assert remains is not None
        assert (remains.name, remains.trashed, remains.size, remains.children) == ("image", True, 0, ())
        images.remove_trashed(where, found.id)
        assert images.find_id(where, found.id) is None


def test_watchers(cluster: Cluster, context: Context, images: Images, pool_spec: str) -> None:
    where = where_of(cluster, pool_spec)
    with opened(cluster, pool_spec) as ioctx:
        rbd.RBD().create(ioctx, "image", 8 * MIB)
        found = images.find(where, "image")
        assert found is not None
        assert images.watchers(where, found.id) == ()
        with rbd.Image(ioctx, "image", read_only=True):
            assert images.watchers(where, found.id) == ()
        with rbd.Image(ioctx, "image") as image:
            [watcher] = images.watchers(where, found.id)
            [told] = list(image.watchers_list())
            assert (watcher.address, watcher.client, watcher.cookie) == (told["addr"], told["id"], told["cookie"])
            assert watcher.client == cluster.connect().get_instance_id()
            assert not watcher.mgr
            context.clients = frozenset({watcher.address})
            [same] = images.watchers(where, found.id)
            assert same.mgr
        assert images.watchers(where, found.id) == ()
        rbd.RBD().remove(ioctx, "image")
        assert images.watchers(where, found.id) == ()


def test_used_space(cluster: Cluster, images: Images, pool: str) -> None:
    def used(name: str) -> int | None:
        image = images.find(where_of(cluster, pool), name)
        assert image is not None
        return images.used(where_of(cluster, pool), image)

    with opened(cluster, pool) as ioctx:
        create: Callable[..., None] = rbd.RBD().create
        create(ioctx, "mapped", 100 * MIB + 1)
        create(ioctx, "unmapped", 8 * MIB, features=rbd.RBD_FEATURE_LAYERING)
        create(ioctx, "huge", 64 * 1024 * GIB)
        assert (used("mapped"), used("unmapped"), used("huge")) == (0, None, 0)
        with rbd.Image(ioctx, "mapped") as image:
            for offset in (0, 41 * MIB, 100 * MIB):
                image.write(b"x", offset)
            told: list[int] = []
            image.diff_iterate(0, image.size(), None, lambda at, length, exists: told.append(length), whole_object=True)
        assert used("mapped") == 12 * MIB
        assert sum(told) == 8 * MIB + 1
        with rbd.Image(ioctx, "huge") as image:
            image.write(b"x", 64 * 1024 * GIB - 1)
            image.write(b"x", 1024 * GIB)
        assert used("huge") == 8 * MIB


def test_default_features_are_librbds(cluster: Cluster, images: Images, pool: str) -> None:
    cluster.rbd("create", f"{pool}/image", "--size", "8M")
    found = images.find(where_of(cluster, pool), "image")
    assert found is not None
    assert images.default_features() == found.features


def test_lineage_that_vdisk_itself_made(cluster: Cluster, images: Images, pool_ns: str) -> None:
    vdisk = Vdisk(cluster)
    volume = vdisk("volume create", pool_spec=pool_ns, name="pvc", size="4M")
    shot = vdisk("snap create", image_spec=image_spec(volume), snap_name="shot")
    vdisk.sealed(shot["handle"])
    restored = vdisk("volume restore", snapshot=shot["handle"], name="restored")
    cloned = vdisk("volume clone", volume=restored["handle"], name="cloned", size="8M")
    for thing in (volume, shot, restored, cloned):
        image = compare(cluster, images, pool_ns, thing["image"])
        assert (image.id, image.size) == (thing["image_id"], thing["size"])
    source = images.find(where_of(cluster, pool_ns), volume["image"])
    assert source is not None
    assert [snap.user for snap in source.snaps] == [False]
