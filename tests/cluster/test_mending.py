"""What librbd and the OSD leave when a client dies at the wrong moment, and do not get over by themselves."""

import contextlib
import logging
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import rados
import rbd

from cluster.conftest import NewCluster
from cluster.support import MIB, Vdisk, image_spec, leave_link, omap, opened, read_image, snapshots, trash, write_image
from cluster.test_journal import StandIn, where_of
from harness.cluster import Cluster
from harness.wait import wait_for
from vdisk.cluster.connection import Connection
from vdisk.cluster.images import Images
from vdisk.cluster.mending import forget_watches
from vdisk.model.errors import NotReady
from vdisk.model.layout import Layout
from vdisk.model.observed import Location


@pytest.fixture
def vdisk(cluster: Cluster) -> Vdisk:
    """vdisk's commands as client.admin."""
    return Vdisk(cluster)


@contextlib.contextmanager
def data_connection(cluster: Cluster, entity: str = "client.admin") -> Iterator[Connection]:
    """Yield vdisk's data connection, in this process."""

    def opener() -> rados.Rados:
        handle = cluster.new_handle(entity)
        handle.conf_set("rbd_default_clone_format", "2")  # as vdisk does where a clone can't name its format
        return handle

    with contextlib.closing(Connection(opener, lambda handle: handle.shutdown())) as connection:
        yield connection


@contextlib.contextmanager
def images_of(cluster: Cluster, entity: str = "client.admin") -> Iterator[Images]:
    """Yield vdisk's images, in this process."""
    with data_connection(cluster, entity) as connection:
        yield Images(connection, StandIn(cluster), logging.getLogger("vdisk.test"))


@pytest.fixture
def images(cluster: Cluster) -> Iterator[Images]:
    """Images of the shared cluster."""
    with images_of(cluster) as found:
        yield found


# -- snapshots without their object map -------------------------------------------------------------------------------


def lose_map(cluster: Cluster, spec: str, image: str, snap: str) -> None:
    """Leave a snapshot as its creation does when it is cut: in the header, and without its object map."""
    with opened(cluster, spec) as ioctx:
        with rbd.Image(ioctx, image, read_only=True) as opened_image:
            image_id, [number] = opened_image.id(), [s["id"] for s in opened_image.list_snaps() if s["name"] == snap]
        ioctx.remove_object(f"rbd_object_map.{image_id}.{number:016x}")
        with pytest.raises(rbd.ImageNotFound):
            rbd.Image(ioctx, image, snapshot=snap, read_only=True)


def test_a_snapshot_whose_seal_was_cut_can_be_restored(cluster: Cluster, vdisk: Vdisk, pool_spec: str) -> None:
    volume = vdisk("volume create", pool_spec=pool_spec, name="pvc", size=20 * MIB)
    write_image(cluster, pool_spec, volume["image"], b"kept", 9 * MIB)
    vdisk("snap create", image_spec=image_spec(volume), snap_name="shot")
    shot = vdisk.sealed(f"{pool_spec}/shot")
    lose_map(cluster, pool_spec, shot["image"], shot["image"])
    restored = vdisk("volume restore", snapshot=shot["handle"], name="restored")
    assert read_image(cluster, pool_spec, restored["image"], 4, 9 * MIB) == b"kept"
    with opened(cluster, pool_spec) as ioctx, rbd.Image(ioctx, shot["image"], snapshot=shot["image"]) as sealed:
        assert sealed.read(9 * MIB, 4) == b"kept"
        assert sealed.flags() == 0
    for kind, name in (("volume", "restored"), ("snap", "shot"), ("volume", "pvc")):
        vdisk(f"{kind} rm", **{"volume" if kind == "volume" else "snapshot": f"{pool_spec}/{name}"})
    vdisk.drained(pool_spec)
    with opened(cluster, pool_spec) as ioctx:
        assert [item.key for item in ioctx.list_objects() if "object_map" in item.key] == []


def test_a_clone_of_a_snapshot_that_was_cut_on_a_volume_in_use_has_all_of_it(
    cluster: Cluster, images: Images, pool: str
) -> None:
    with opened(cluster, pool) as ioctx:
        where = Location(ioctx.get_pool_id(), pool)
        rbd.RBD().create(ioctx, "disk", 20 * MIB, old_format=False)
        with rbd.Image(ioctx, "disk") as disk:
            disk.write(b"before", 9 * MIB)
            disk.create_snap("shot")
            lose_map(cluster, pool, "disk", "shot")
            disk.discard(8 * MIB, 4 * MIB)  # the map of the present says that nothing is there
            disk.write(b"after", 0)
        images.clone(where, "disk", "shot", where, "clone", Layout())
        with rbd.Image(ioctx, "clone") as clone:
            assert clone.read(9 * MIB, 6) == b"before"
            assert clone.read(0, 5) == b"\0" * 5


def test_sealing_again_makes_a_cut_seal_whole(cluster: Cluster, vdisk: Vdisk, images: Images, pool: str) -> None:
    volume = vdisk("volume create", pool_spec=pool, name="pvc", size=20 * MIB)
    vdisk("snap create", image_spec=image_spec(volume), snap_name="shot")
    shot = vdisk.sealed(f"{pool}/shot")
    lose_map(cluster, pool, shot["image"], shot["image"])
    with opened(cluster, pool) as ioctx:
        images.seal(Location(ioctx.get_pool_id(), pool), shot["image"])
        rbd.Image(ioctx, shot["image"], snapshot=shot["image"], read_only=True).close()
    assert snapshots(cluster, pool, shot["image"]) == [shot["image"]]


# -- removals that stop before the entry in the trash ------------------------------------------------------------------

_PREFIXES = ("rbd_header", "rbd_object_map", "rbd_data", "rbd_directory", "rbd_children", "rbd_mirroring", "journal")
#: Every object of an image, and of the trash everything but taking an entry out.
_ALL_BUT_THE_ENTRY = ", ".join(
    (
        "allow r",
        "allow class-read",
        *(f"allow rwx object_prefix {prefix}" for prefix in _PREFIXES),
        *(f"allow class rbd {method}" for method in ("trash_get", "trash_state_set")),
    )
)


def test_a_removal_that_leaves_the_entry_in_the_trash_is_not_over(cluster: Cluster, images: Images, pool: str) -> None:
    """A client that is cut off after the header went and before the entry did, as one that may not remove entries."""
    cluster.auth("client.almost", mon="profile rbd", osd=_ALL_BUT_THE_ENTRY)
    with opened(cluster, pool) as ioctx, images_of(cluster, "client.almost") as almost:
        where = Location(ioctx.get_pool_id(), pool)
        rbd.RBD().create(ioctx, "image", 8 * MIB, old_format=False)
        image_id = images.id_of(where, "image")
        assert image_id is not None
        images.trash(where, "image")
        for _ in range(2):
            with pytest.raises(NotReady, match="before its entry"):
                almost.remove_trashed(where, image_id)
            assert list(trash(cluster, pool)) == [image_id]
            assert missing(ioctx, f"rbd_header.{image_id}")
        images.remove_trashed(where, image_id)
        images.remove_trashed(where, image_id)
        assert trash(cluster, pool) == {}


def missing(ioctx: rados.Ioctx, oid: str) -> bool:
    """Tell whether an object does not exist."""
    try:
        ioctx.stat(oid)
        return False
    except rados.ObjectNotFound:
        return True


# -- flattenings that were cut before their last step ------------------------------------------------------------------


def test_what_was_flattened_all_but_its_link_is_found_again(
    cluster: Cluster, vdisk: Vdisk, images: Images, pool_spec: str
) -> None:
    source = vdisk("volume create", pool_spec=pool_spec, name="pvc", size=20 * MIB)
    write_image(cluster, pool_spec, source["image"], b"kept", 9 * MIB)
    clone = vdisk("volume clone", volume=source["handle"], name="clone")
    vdisk("snap create", image_spec=image_spec(clone), snap_name="shot")
    shot, where = vdisk.sealed(f"{pool_spec}/shot"), where_of(cluster, pool_spec)
    with opened(cluster, pool_spec) as ioctx:
        assert not images.finish_flatten(where, clone["image_id"])  # its snapshot is in librbd's trash, and there
        leave_link(ioctx, clone["image"])
    grown = {"volume": clone["handle"], "size": str(24 * MIB)}
    assert vdisk.refused("volume resize", **grown, wait=1).code == "pending", "it is there, and not found for now"
    vdisk("volume flatten", volume=clone["handle"])
    assert read_image(cluster, pool_spec, clone["image"], 4, 9 * MIB) == b"kept"
    assert read_image(cluster, pool_spec, shot["image"], 4, 9 * MIB) == b"kept"
    assert not images.finish_flatten(where, clone["image_id"])
    vdisk("volume resize", **grown)
    info = vdisk("volume info", volume=clone["handle"])
    assert (info["depth"], info["size"]) == (0, 24 * MIB)


# -- watches of nobody ------------------------------------------------------------------------------------------------

#: A client that watches an object as soon as it is told to.
_WATCHER = """
import rados, sys, time
cluster = rados.Rados(conffile=sys.argv[1], rados_id="admin")
cluster.connect()
ioctx = cluster.open_ioctx(sys.argv[2])
ioctx.stat(sys.argv[3])
print(cluster.get_addrs(), flush=True)
sys.stdin.readline()
ioctx.watch(sys.argv[3], lambda *_: None, lambda *_: None, 30)
time.sleep(600)
"""


def die_watching(cluster: Cluster, pool: str, oid: str) -> str:
    """Have a client die while the OSD has its watch in hand; return its address."""
    argv = [sys.executable, "-c", _WATCHER, str(cluster.conf_path), pool, oid]
    client = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert client.stdin is not None
    assert client.stdout is not None
    address = client.stdout.readline().strip()
    cluster.osds["0"].pause()
    client.stdin.write("\n")
    client.stdin.flush()
    time.sleep(0.5)  # until it is in the OSD's socket, which nothing tells of
    client.kill()
    client.communicate()
    cluster.osds["0"].resume()
    return address


def test_ending_watches_leaves_the_header_as_it_is(cluster: Cluster, pool: str) -> None:
    with opened(cluster, pool) as ioctx:
        rbd.RBD().create(ioctx, "image", 8 * MIB, old_format=False)
        with rbd.Image(ioctx, "image") as image:
            image.create_snap("shot")
            image.metadata_set("key", "value")
            image_id = image.id()
        # A writer that loses its watch takes a new one, and the lock anew by its cookie, whenever it gets to it.
        with rbd.Image(ioctx, "image", read_only=True):
            header = f"rbd_header.{image_id}"
            before = omap(ioctx, header), dict(ioctx.get_xattrs(header))
            assert forget_watches(ioctx, image_id)
            assert (omap(ioctx, header), dict(ioctx.get_xattrs(header))) == before
            with rbd.Image(ioctx, "image", read_only=True) as other:
                assert [snap["name"] for snap in other.list_snaps()] == ["shot"]


def leave_watch(cluster: Cluster, pool: str, image_id: str) -> str:
    """Have the OSD keep the watch of a blocklisted client; return the client's address."""

    def watched() -> list[str]:
        with opened(cluster, pool) as ioctx, rbd.Image(ioctx, image_id=image_id, read_only=True) as image:
            return [watcher["addr"] for watcher in image.watchers_list()]

    for _ in range(25):  # whether the OSD is still at it when the connection breaks is a matter of microseconds
        address = die_watching(cluster, pool, f"rbd_header.{image_id}")
        cluster.mon_command({"prefix": "osd blocklist", "blocklistop": "add", "addr": address})
        # What asks with the map that has the blocklisting is answered once the OSD, too, has dropped what it drops.
        cluster.connect().wait_for_latest_osdmap()
        if watched():
            return address
    pytest.skip("the OSD never left such a watch")


def test_an_image_in_the_trash_that_a_dead_client_still_watches_is_removed(new_cluster: NewCluster) -> None:
    if new_cluster.release != "pacific":
        pytest.skip("only Pacific's OSD was seen to leave such a watch")
    cluster = new_cluster(mgrs=1, module=False, store="bluestore")
    cluster.create_pool("p")
    with images_of(cluster) as images, opened(cluster, "p") as ioctx:
        where = Location(ioctx.get_pool_id(), "p")
        rbd.RBD().create(ioctx, "base", 8 * MIB, old_format=False)
        with rbd.Image(ioctx, "base") as base:
            base.create_snap("shot")
        cluster.rbd("clone", "--rbd-default-clone-format", "2", "p/base@shot", "p/image")
        with rbd.Image(ioctx, "image") as image:
            image.write(b"x", 0)
            image_id = image.id()
        images.trash(where, "image")
        leave_watch(cluster, "p", image_id)
        with pytest.raises(rbd.ImageBusy):
            rbd.RBD().trash_remove(ioctx, image_id, force=True)
        # Somebody who is alive has it open as well: nothing is done.
        with rbd.Image(ioctx, image_id=image_id), pytest.raises(NotReady, match="is busy; open at"):
            images.remove_trashed(where, image_id)
        images.remove_trashed(where, image_id)
        assert trash(cluster, "p") == {}
        left = {item.key for item in ioctx.list_objects()}
        assert not [key for key in left if image_id in key]
        with rbd.Image(ioctx, "base") as base:
            base.remove_snap("shot")  # nothing hangs on it any more


def test_a_volume_that_only_a_dead_client_watches_is_not_in_use(new_cluster: NewCluster) -> None:
    if new_cluster.release != "pacific":
        pytest.skip("only Pacific's OSD was seen to leave such a watch")
    cluster = new_cluster(mgrs=1, store="bluestore")
    cluster.create_pool("p")
    vdisk = Vdisk(cluster)
    volume = vdisk("volume create", pool_spec="p", name="pvc", size=8 * MIB)
    leave_watch(cluster, "p", volume["image_id"])
    with opened(cluster, "p") as ioctx, rbd.Image(ioctx, volume["image"]):
        assert vdisk.refused("volume rm", volume="p/pvc").code == "in_use"
    vdisk.until("volume rm", volume="p/pvc")
    wait_for(lambda: trash(cluster, "p") == {}, 60, "the image is gone")
