"""Clones are written without opening parent or clone: they have to be what librbd would have written."""

import contextlib
import logging
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import rados
import rbd

from cluster.inventory import string
from cluster.support import MIB, omap, opened, read_image, snapshots, trash
from cluster.test_journal import StandIn, where_of
from cluster.test_mending import data_connection
from harness.cluster import Cluster
from vdisk.cluster.clones import Clones
from vdisk.cluster.connection import Connection
from vdisk.cluster.images import Images
from vdisk.cluster.methods import Call, execute
from vdisk.model.errors import AlreadyExists, NotFound
from vdisk.model.layout import SNAPSHOT_FEATURES, Layout
from vdisk.model.observed import LAYERING, Child

_TIMES = ("create_timestamp", "access_timestamp", "modify_timestamp")
JOURNALED = rbd.RBD_FEATURE_LAYERING | rbd.RBD_FEATURE_EXCLUSIVE_LOCK | rbd.RBD_FEATURE_JOURNALING


@pytest.fixture
def connection(cluster: Cluster) -> Iterator[Connection]:
    """vdisk's data connection, in this process."""
    with data_connection(cluster) as connection:
        yield connection


@pytest.fixture
def images(cluster: Cluster, connection: Connection) -> Images:
    """vdisk's images, in this process."""
    return Images(connection, StandIn(cluster), logging.getLogger("vdisk.test"))


@pytest.fixture
def clones(connection: Connection) -> Clones:
    """What writes clones."""
    return Clones(connection)


def make_base(cluster: Cluster, spec: str, **layout: Any) -> None:
    """Make an image `base` with a snapshot `s`, which holds less than the image does."""
    with opened(cluster, spec) as ioctx:
        rbd.RBD().create(ioctx, "base", 21 * MIB + 5, old_format=False, **layout)
        with rbd.Image(ioctx, "base") as image:
            image.write(b"kept", 9 * MIB)
            image.create_snap("s")
            image.write(b"lost", 9 * MIB)
            image.resize(40 * MIB)


def clone_by_librbd(connection: Connection, cluster: Cluster, source: str, target: str, layout: Layout) -> None:
    """Clone `base@s` to `librbds` as vdisk would through librbd."""
    with (
        connection.ioctx(where_of(cluster, source), "cloning") as parent,
        connection.ioctx(where_of(cluster, target), "cloning") as child,
    ):
        rbd.RBD().clone(parent, "base", "s", child, "librbds", **layout.clone_arguments())


def id_of(ioctx: rados.Ioctx, name: str) -> str:
    """Return an image's id, without opening it."""
    return string(ioctx.read(f"rbd_id.{name}"))


def anatomy(ioctx: rados.Ioctx, name: str) -> dict[str, Any]:
    """Return every object of an image and what the directory says of it, without its name, its id, and times."""
    image_id = id_of(ioctx, name)

    def neutral(data: bytes) -> bytes:
        for text, to in ((image_id, b"<id>"), (f"rbd_data.{image_id}", b"<prefix>"), (name, b"<name>")):
            data = data.replace(struct.pack("<I", len(text)) + text.encode(), to)
        return data

    found: dict[str, Any] = {}
    for item in ioctx.list_objects():
        if item.key == f"rbd_id.{name}" or image_id in item.key:
            values = {key: b"" if key in _TIMES else neutral(value) for key, value in omap(ioctx, item.key).items()}
            content = neutral(ioctx.read(item.key, 1 << 20))
            found[item.key.replace(image_id, "<id>").replace(name, "<name>")] = (
                content,
                values,
                dict(ioctx.get_xattrs(item.key)),
            )
    directory = omap(ioctx, "rbd_directory")
    found["directory"] = neutral(directory[f"name_{name}"]), neutral(directory[f"id_{image_id}"])
    return found


LAYOUTS = {
    "as the parent": Layout(),
    "for snapshots": Layout(features=SNAPSHOT_FEATURES),
    "layering": Layout(features=LAYERING),
    "small objects": Layout(order=16),
    "large objects": Layout(order=25),
}
PARENTS: dict[str, dict[str, Any]] = {
    "default": {},
    "layering": {"features": rbd.RBD_FEATURE_LAYERING},
    "large objects": {"order": 24},
}


@pytest.mark.parametrize("parent", PARENTS)
def test_a_clone_is_what_librbd_writes(
    cluster: Cluster, connection: Connection, clones: Clones, images: Images, pool_spec: str, parent: str
) -> None:
    make_base(cluster, pool_spec, **PARENTS[parent])
    where = where_of(cluster, pool_spec)
    with opened(cluster, pool_spec) as ioctx:
        for name, layout in LAYOUTS.items():
            clone_by_librbd(connection, cluster, pool_spec, pool_spec, layout)
            assert clones.write(where, "base", "s", where, "ours", layout)
            assert anatomy(ioctx, "ours") == anatomy(ioctx, "librbds"), name
            base = images.find(where, "base")
            assert base is not None
            wanted = {id_of(ioctx, each) for each in ("ours", "librbds")}
            assert set(base.children) == {Child(where.pool_id, where.namespace, each) for each in wanted}
            for each in ("ours", "librbds"):
                with rbd.Image(ioctx, each) as image:
                    assert (image.size(), image.flags()) == (21 * MIB + 5, 0)
                    assert image.read(9 * MIB, 4) == b"kept"
                    image.write(b"own", 2 * MIB)
                    mapped = image.features() & rbd.RBD_FEATURE_OBJECT_MAP
                if mapped:
                    cluster.rbd("object-map", "check", f"{pool_spec}/{each}")
                rbd.RBD().remove(ioctx, each)
        assert [child for snap in images.find(where, "base").snaps for child in snap.children] == []  # type: ignore[union-attr]


def test_librbd_takes_a_clone_for_its_own(cluster: Cluster, clones: Clones, images: Images, pool_spec: str) -> None:
    make_base(cluster, pool_spec)
    where = where_of(cluster, pool_spec)
    assert clones.write(where, "base", "s", where, "ours", Layout(features=SNAPSHOT_FEATURES))
    with opened(cluster, pool_spec) as ioctx:
        with rbd.Image(ioctx, "base") as image:
            # With a clone on it, it moves to librbd's trash namespace.
            image.remove_snap("s")
            assert [told["image"] for told in image.list_descendants()] == ["ours"]
        assert snapshots(cluster, pool_spec, "base") == []
        base = images.find(where, "base")
        assert base is not None
        assert [len(snap.children) for snap in base.snaps] == [1]
        with rbd.Image(ioctx, "ours") as image:
            assert image.parent_info()[1] == "base"
            image.create_snap("own")
            image.write(b"above", 9 * MIB)
            image.flatten()
            assert image.read(9 * MIB, 5) == b"above"
        with rbd.Image(ioctx, "ours", snapshot="own") as image:
            assert image.read(9 * MIB, 4) == b"kept"
        base = images.find(where, "base")
        assert base is not None
        assert base.snaps == ()
        # A clone of a clone, which goes with its link to the parent's snapshot.
        assert clones.write(where, "ours", "own", where, "next", Layout())
        assert read_image(cluster, pool_spec, "next", 4, 9 * MIB) == b"kept"
        rbd.RBD().trash_move(ioctx, "next", 0)
        [image_id] = trash(cluster, pool_spec)
        rbd.RBD().trash_remove(ioctx, image_id)
        assert images.find(where, "ours").children == ()  # type: ignore[union-attr]


def test_a_clone_may_live_in_another_namespace(
    cluster: Cluster, connection: Connection, clones: Clones, images: Images, pool_ns: str
) -> None:
    root = pool_ns.partition("/")[0]
    make_base(cluster, root)
    clone_by_librbd(connection, cluster, root, pool_ns, Layout())
    assert clones.write(where_of(cluster, root), "base", "s", where_of(cluster, pool_ns), "ours", Layout())
    with opened(cluster, pool_ns) as ioctx:
        assert anatomy(ioctx, "ours") == anatomy(ioctx, "librbds")
    assert read_image(cluster, pool_ns, "ours", 4, 9 * MIB) == b"kept"
    base = images.find(where_of(cluster, root), "base")
    assert base is not None
    assert {child.namespace for child in base.children} == {"ns1"}
    assert len(base.children) == 2


@pytest.mark.parametrize("mode", ["pool", "image"])
def test_a_clone_in_a_mirrored_pool_is_what_librbd_writes(
    cluster: Cluster, connection: Connection, clones: Clones, pool: str, mode: str
) -> None:
    make_base(cluster, pool)
    where = where_of(cluster, pool)
    cluster.rbd("mirror", "pool", "enable", pool, mode)
    clone_by_librbd(connection, cluster, pool, pool, Layout())
    with opened(cluster, pool) as ioctx:
        mirrored = omap(ioctx, "rbd_mirroring")
        assert clones.write(where, "base", "s", where, "ours", Layout())
        assert anatomy(ioctx, "ours") == anatomy(ioctx, "librbds")
        assert omap(ioctx, "rbd_mirroring") == mirrored


def test_what_is_there_is_refused_and_kept(cluster: Cluster, clones: Clones, pool_spec: str) -> None:
    make_base(cluster, pool_spec)
    where = where_of(cluster, pool_spec)
    with opened(cluster, pool_spec) as ioctx:
        rbd.RBD().create(ioctx, "taken", MIB, old_format=False)
        before = anatomy(ioctx, "taken")
        with pytest.raises(AlreadyExists):
            clones.write(where, "base", "s", where, "taken", Layout())
        assert anatomy(ioctx, "taken") == before
        assert rbd.RBD().list(ioctx) == ["base", "taken"]


def test_a_snapshot_that_goes_meanwhile_leaves_what_is_removed_as_unfinished(
    cluster: Cluster, clones: Clones, images: Images, monkeypatch: pytest.MonkeyPatch, pool_spec: str
) -> None:
    make_base(cluster, pool_spec)
    where = where_of(cluster, pool_spec)
    with opened(cluster, pool_spec) as ioctx:
        before = {item.key for item in ioctx.list_objects()}
        real = execute

        def remove_first(at: rados.Ioctx, oid: str, *calls: Call, new: bool = False) -> None:
            if calls[0][0] == "child_attach":
                with rbd.Image(ioctx, "base") as image:
                    image.remove_snap("s")
            real(at, oid, *calls, new=new)

        monkeypatch.setattr("vdisk.cluster.clones.execute", remove_first)
        with pytest.raises(NotFound):
            clones.write(where, "base", "s", where, "ours", Layout())
        images.remove_unfinished(where, "ours", id_of(ioctx, "ours"))
        left = {item.key for item in ioctx.list_objects()} - before
        assert left <= {"rbd_trash"}
        assert rbd.RBD().list(ioctx) == ["base"]
        assert trash(cluster, pool_spec) == {}


def test_a_namespace_that_is_being_removed_takes_no_clone(cluster: Cluster, clones: Clones, pool_ns: str) -> None:
    make_base(cluster, pool_ns.partition("/")[0])
    with opened(cluster, pool_ns) as ioctx:
        # What librbd writes when it begins to remove a namespace (api/Namespace.cc).
        with rados.WriteOpCtx() as op:
            op.execute("rbd", "dir_state_set", b"\1")
            ioctx.operate_write_op(op, "rbd_directory")
        root = where_of(cluster, pool_ns.partition("/")[0])
        with pytest.raises(NotFound):
            clones.write(root, "base", "s", where_of(cluster, pool_ns), "ours", Layout())
        assert [item.key for item in ioctx.list_objects()] == ["rbd_directory"]


# -- what is left to librbd --------------------------------------------------------------------------------------------


def with_metadata(cluster: Cluster, spec: str) -> None:
    """Give the parent metadata, which librbd copies to its clones."""
    make_base(cluster, spec)
    with opened(cluster, spec) as ioctx, rbd.Image(ioctx, "base") as image:
        image.metadata_set("team", "storage")


def with_pool_option(option: str, value: str) -> Callable[[Cluster, str], None]:
    """Set a default of the pool's own."""

    def prepare(cluster: Cluster, spec: str) -> None:
        make_base(cluster, spec)
        assert cluster.rbd("config", "pool", "set", spec.partition("/")[0], option, value).rc == 0

    return prepare


def with_journal(cluster: Cluster, spec: str) -> None:
    """Make the parent one with a journal, which its clones have too."""
    make_base(cluster, spec, features=JOURNALED)


def with_stripes(cluster: Cluster, spec: str) -> None:
    """Make the parent a striped one, as its clones are."""
    make_base(cluster, spec, stripe_unit=64 * 1024, stripe_count=3)


def with_lost_map(cluster: Cluster, spec: str) -> None:
    """Lose the object map of the snapshot."""
    make_base(cluster, spec)
    with opened(cluster, spec) as ioctx:
        [lost] = [item.key for item in ioctx.list_objects() if item.key.count(".") == 2 and "object_map" in item.key]
        ioctx.remove_object(lost)


LEFT_TO_LIBRBD: dict[str, tuple[Callable[[Cluster, str], None], Layout]] = {
    "metadata": (with_metadata, Layout()),
    "stripes by default": (with_pool_option("rbd_default_stripe_unit", "65536"), Layout()),
    "stripe count by default": (with_pool_option("rbd_default_stripe_count", "4"), Layout()),
    "journal of the parent": (with_journal, Layout()),
    "journal asked for": (make_base, Layout(features=JOURNALED)),
    "stripes asked for": (make_base, Layout(stripe_unit=65536, stripe_count=2)),
    "stripes of the parent": (with_stripes, Layout()),
    "stripes of the parent, features": (with_stripes, Layout(features=SNAPSHOT_FEATURES)),
    "lost map": (with_lost_map, Layout()),
}


@pytest.mark.parametrize("case", LEFT_TO_LIBRBD)
def test_what_takes_more_is_left_to_librbd(
    cluster: Cluster, connection: Connection, clones: Clones, images: Images, pool_spec: str, case: str
) -> None:
    prepare, layout = LEFT_TO_LIBRBD[case]
    prepare(cluster, pool_spec)
    where = where_of(cluster, pool_spec)
    with opened(cluster, pool_spec) as ioctx:
        before = {item.key for item in ioctx.list_objects()}
        assert not clones.write(where, "base", "s", where, "ours", layout)
        assert {item.key for item in ioctx.list_objects()} == before
        images.clone(where, "base", "s", where, "ours", layout)
        clone_by_librbd(connection, cluster, pool_spec, pool_spec, layout)
        assert anatomy(ioctx, "ours").keys() == anatomy(ioctx, "librbds").keys()
        ours, theirs = (anatomy(ioctx, each)["rbd_header.<id>"][1] for each in ("ours", "librbds"))
        assert ours == theirs
        assert read_image(cluster, pool_spec, "ours", 4, 9 * MIB) == b"kept"


def test_a_data_pool_by_default_is_left_to_librbd(cluster: Cluster, clones: Clones, pool: str, pool_ns: str) -> None:
    data, where = pool_ns.partition("/")[0], where_of(cluster, pool)
    make_base(cluster, pool)
    assert not clones.write(where, "base", "s", where, "ours", Layout(data_pool=data))
    with_option = cluster.rbd("config", "pool", "set", pool, "rbd_default_data_pool", data)
    assert with_option.rc == 0
    assert not clones.write(where, "base", "s", where, "ours", Layout())
    assert cluster.rbd("config", "pool", "rm", pool, "rbd_default_data_pool").rc == 0
    assert clones.write(where, "base", "s", where, "ours", Layout())


def test_a_default_of_the_whole_cluster_is_left_to_librbd(cluster: Cluster, pool: str) -> None:
    make_base(cluster, pool)
    where = where_of(cluster, pool)
    handle = cluster.new_handle()
    handle.conf_set("rbd_default_stripe_count", "4")
    with contextlib.closing(Connection(lambda: handle, lambda used: used.shutdown())) as connection:
        assert not Clones(connection).write(where, "base", "s", where, "ours", Layout())


def test_another_pool_is_left_to_librbd(
    cluster: Cluster, clones: Clones, images: Images, pool: str, pool_ns: str
) -> None:
    make_base(cluster, pool)
    source, target = where_of(cluster, pool), where_of(cluster, pool_ns)
    assert not clones.write(source, "base", "s", target, "ours", Layout())
    images.clone(source, "base", "s", target, "ours", Layout())
    assert read_image(cluster, pool_ns, "ours", 4, 9 * MIB) == b"kept"


def test_a_missing_parent_is_refused(cluster: Cluster, clones: Clones, images: Images, pool: str) -> None:
    where = where_of(cluster, pool)
    assert not clones.write(where, "base", "s", where, "ours", Layout())
    make_base(cluster, pool)
    assert not clones.write(where, "base", "none", where, "ours", Layout())
    for image, snap in (("base", "none"), ("none", "s")):
        with pytest.raises(NotFound):
            images.clone(where, image, snap, where, "ours", Layout())
    with opened(cluster, pool) as ioctx:
        assert rbd.RBD().list(ioctx) == ["base"]
