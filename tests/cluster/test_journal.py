"""The journal on a real cluster, used directly: who wins a name, what a lookup costs, what others wrote."""

import json
import logging
import re
import threading
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
import rados

from cluster.support import Vdisk, image_spec, journal, omap, opened, pool_id, set_omap
from harness.cluster import Cluster
from harness.wait import wait_for
from vdisk.cluster.backend import CephCluster
from vdisk.cluster.connection import ENTITY, Connection
from vdisk.cluster.journal import Journal
from vdisk.model.errors import Disconnected, NotFound
from vdisk.model.names import Kind
from vdisk.model.observed import Location
from vdisk.model.specs import PoolSpec

LOG = logging.getLogger("vdisk.test")


class StandIn:
    """What the cluster floor needs of the mgr module that it lives in, from a test's process."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.registered: list[str] = []

    def get_context(self) -> object:
        """Not needed where the data connection has a context of its own."""
        raise NotImplementedError

    def monitor_addresses(self) -> str:
        """Return the monitors' addresses."""
        return str(self.cluster.connect().conf_get("mon_host"))

    def client_addresses(self) -> frozenset[str]:
        """Return the addresses of the mgr's clients: none of this process."""
        return frozenset()

    def blocklisted(self) -> frozenset[str]:
        """Return the addresses that the monitors have cut off."""
        _, out, _ = self.cluster.mon_command({"prefix": "osd blocklist ls", "format": "json"})
        return frozenset(entry["addr"] for entry in json.JSONDecoder().raw_decode(out)[0])

    def task_queue_is_safe(self) -> bool:
        """Tell that rbd_support may be given work."""
        return True

    def send_mon_command(self, command: Mapping[str, Any]) -> tuple[int, str, str]:
        """Run a monitor command."""
        return self.cluster.mon_command(command)

    def register_client(self, addresses: str) -> None:
        """Remember what was registered."""
        self.registered.append(addresses)

    def unregister_client(self, addresses: str) -> None:
        """Forget it."""
        self.registered.remove(addresses)


def where_of(cluster: Cluster, spec: str) -> Location:
    """Return the location of ``pool[/namespace]``."""
    pool, _, namespace = spec.partition("/")
    return Location(pool_id(cluster, pool), pool, namespace)


@pytest.fixture
def connection(cluster: Cluster) -> Iterator[Connection]:
    """A data connection of this process."""
    made = Connection(cluster.new_handle, lambda handle: handle.shutdown())
    yield made
    made.close()


def test_one_of_many_writers_wins_a_name(cluster: Cluster, pool_spec: str) -> None:
    where = where_of(cluster, pool_spec)
    connections = [Connection(cluster.new_handle, lambda handle: handle.shutdown()) for _ in range(4)]
    journals = [Journal(connection, LOG) for connection in connections]
    for attempt in range(8):
        uuids = [str(uuid.uuid4()) for _ in range(16)]
        won: list[str] = []
        start = threading.Barrier(16)

        def reserve(number: int, name: str, uuids: list[str], start: threading.Barrier, won: list[str]) -> None:
            start.wait(30)
            if journals[number % 4].reserve(where, Kind.VOLUME, name, uuids[number]):
                won.append(uuids[number])

        name = f"name-{attempt}"
        threads = [threading.Thread(target=reserve, args=(number, name, uuids, start, won)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(won) == 1
        assert journals[0].lookup(where, Kind.VOLUME, f"name-{attempt}") == won[0]
        # A release by one of those who lost changes nothing.
        loser = next(each for each in uuids if each != won[0])
        journals[1].release(where, Kind.VOLUME, f"name-{attempt}", loser)
        assert journals[2].lookup(where, Kind.VOLUME, f"name-{attempt}") == won[0]
        journals[3].release(where, Kind.VOLUME, f"name-{attempt}", won[0])
        assert journals[0].lookup(where, Kind.VOLUME, f"name-{attempt}") is None
    assert journal(cluster, pool_spec) == {"csi.volumes.default": {}}
    for connection in connections:
        connection.close()


def reads(cluster: Cluster) -> tuple[int, int]:
    """Return how many reads the OSD served so far and how many bytes it gave out."""
    asok = cluster.layout.sockets / "osd.0.asok"
    counters = json.loads(cluster.ceph("--admin-daemon", str(asok), "perf", "dump", "osd").out)["osd"]
    return counters["op_r"], counters["op_r_out_bytes"]


def test_a_name_among_20000_costs_one_keyed_read(cluster: Cluster, connection: Connection, pool: str) -> None:
    where = where_of(cluster, pool)
    book = Journal(connection, LOG)
    wanted = str(uuid.uuid4())
    with opened(cluster, pool) as ioctx:
        for start in range(0, 20_000, 2_000):
            keys = [f"csi.volume.pvc-{number:08d}" for number in range(start, start + 2_000)]
            set_omap(ioctx, "csi.volumes.default", {key: str(uuid.uuid4()).encode() for key in keys})
        set_omap(ioctx, "csi.volumes.default", {"csi.volume.wanted": wanted.encode()})
    assert book.lookup(where, Kind.VOLUME, "wanted") == wanted

    def cheap() -> bool:
        before = reads(cluster)
        for _ in range(200):
            assert book.lookup(where, Kind.VOLUME, "wanted") == wanted
            assert book.lookup(where, Kind.VOLUME, "not there") is None
        after = reads(cluster)
        assert 400 <= after[0] - before[0] < 600
        assert after[1] - before[1] < 400 * 500
        return True

    # Others read too: rbd_support looks at its schedules and tasks now and then, and vdisk after its pools.
    wait_for(cheap, 20, "a lookup costs one read, of one key")
    # Pages are read one by one and in order, wherever they start.
    names = [name for name, _ in book.names(where, Kind.VOLUME, "pvc-00010000", 700)]
    assert names == [f"pvc-{number:08d}" for number in range(10_001, 10_701)]
    assert [name for name, _ in book.names(where, Kind.VOLUME, "pvc-00019998", 700)] == ["pvc-00019999", "wanted"]
    assert [item["name"] for item in Vdisk(cluster)("volume ls", pool_spec=pool, limit=3, marker="pvc-00000007")] == [
        "pvc-00000008",
        "pvc-00000009",
        "pvc-00000010",
    ]


def test_names_are_listed_beyond_what_one_read_gives(cluster: Cluster, connection: Connection, pool: str) -> None:
    where = where_of(cluster, pool)
    with opened(cluster, pool) as ioctx:
        pairs = {f"csi.snap.s-{number:05d}": str(uuid.uuid4()).encode() for number in range(2_500)}
        set_omap(ioctx, "csi.snaps.default", pairs)
        # Keys of somebody else, before and behind ours.
        set_omap(ioctx, "csi.snaps.default", {"aaa": b"1", "csi.snap": b"2", "csi.snap_": b"3", "zzz": b"4"})
    found: list[str] = []
    while True:
        page = Journal(connection, LOG).names(where, Kind.SNAPSHOT, found[-1] if found else "", 1000)
        found += [name for name, _ in page]
        if len(page) < 1000:
            break
    assert found == [f"s-{number:05d}" for number in range(2_500)]
    assert len(Vdisk(cluster)("snap ls", pool_spec=pool)) == 2_500


def test_keys_of_others_survive(cluster: Cluster, pool_spec: str) -> None:
    vdisk = Vdisk(cluster)
    volume = vdisk("volume create", pool_spec=pool_spec, name="pvc", size="4M")
    foreign = {
        "csi.journalpool": b"rbd",
        "csi.volume.owner": b"tenant-7",
        "csi.volume.encryptKMS": b"vault",
        "csi.groupid": b"0001-group",
        "csi.binary": b"\x00\xff\xfe",
        "csi.empty": b"",
    }
    oid = f"csi.volume.{volume['uuid']}"
    with opened(cluster, pool_spec) as ioctx:
        set_omap(ioctx, oid, foreign)
        set_omap(ioctx, "csi.volumes.default", {"csi.other.key": b"\xff\xff"})
        before = omap(ioctx, oid)
    assert foreign.items() <= before.items()
    resized = vdisk("volume resize", volume=volume["handle"], size="8M")
    shot = vdisk("snap create", image_spec=image_spec(volume), snap_name="shot")
    vdisk("volume clone", volume=volume["handle"], name="cloned")
    assert vdisk("volume create", pool_spec=pool_spec, name="pvc", size="8M") == resized
    with opened(cluster, pool_spec) as ioctx:
        assert omap(ioctx, oid) == before
    where = where_of(cluster, pool_spec)
    connection = Connection(cluster.new_handle, lambda handle: handle.shutdown())
    entry = Journal(connection, LOG).entry(where, Kind.VOLUME, volume["uuid"])
    connection.close()
    assert entry is not None
    assert entry.values.keys() == before.keys()
    assert (entry.image, entry.name, entry.image_id) == (volume["image"], "pvc", volume["image_id"])
    vdisk("snap rm", snapshot=shot["handle"])
    vdisk("volume rm", volume=f"{pool_spec}/cloned")
    vdisk("volume rm", volume=volume["handle"])
    assert journal(cluster, pool_spec)["csi.volumes.default"] == {"csi.other.key": b"\xff\xff"}


def test_what_is_not_utf8_is_shown_and_not_tripped_over(cluster: Cluster, pool: str) -> None:
    vdisk = Vdisk(cluster)
    volume = vdisk("volume create", pool_spec=pool, name="pvc", size="4M")
    other = vdisk("volume create", pool_spec=pool, name="other", size="4M")
    with opened(cluster, pool) as ioctx:
        set_omap(ioctx, f"csi.volume.{volume['uuid']}", {"csi.owner": b"\xff\xfe"})
        set_omap(ioctx, "csi.volumes.default", {"csi.volume.odd": b"\xff\xfe", "csi.volume.short": b""})
        set_omap(ioctx, "csi.volumes.default", {"csi.volume.not-a-uuid": b"no uuid at all"})
    listed = {item["name"]: item for item in vdisk("volume ls", pool_spec=pool)}
    assert listed["pvc"] == volume
    assert listed["other"] == other
    for name in ("odd", "short", "not-a-uuid"):
        assert listed[name]["state"] == "pending"
    assert vdisk("volume info", volume=f"{pool}/pvc")["uuid"] == volume["uuid"]


def test_key_that_is_not_utf8_does_not_hide_the_others(cluster: Cluster, pool: str) -> None:
    vdisk = Vdisk(cluster)
    volume = vdisk("volume create", pool_spec=pool, name="pvc", size="4M")
    with opened(cluster, pool) as ioctx:
        set_omap(ioctx, "csi.volumes.default", {b"csi.volume.\xff\xfe": b"odd", "csi.volume.z": b"later"})
        set_omap(ioctx, f"csi.volume.{volume['uuid']}", {b"csi.\xff": b"odd"})
    assert vdisk("volume info", volume=f"{pool}/pvc")["uuid"] == volume["uuid"]
    assert volume in vdisk("volume ls", pool_spec=pool)


def test_namespaces_are_separate(cluster: Cluster, connection: Connection, pool_ns: str) -> None:
    pool = pool_ns.partition("/")[0]
    here, there = where_of(cluster, pool), where_of(cluster, pool_ns)
    book = Journal(connection, LOG)
    one, two = str(uuid.uuid4()), str(uuid.uuid4())
    assert book.reserve(here, Kind.VOLUME, "same", one)
    assert book.lookup(there, Kind.VOLUME, "same") is None
    assert book.reserve(there, Kind.VOLUME, "same", two)
    book.write(here, Kind.VOLUME, one, {"csi.volname": "same"})
    assert book.entry(there, Kind.VOLUME, one) is None
    assert (book.lookup(here, Kind.VOLUME, "same"), book.lookup(there, Kind.VOLUME, "same")) == (one, two)
    book.release(there, Kind.VOLUME, "same", two)
    assert book.lookup(here, Kind.VOLUME, "same") == one
    # Volumes and snapshots are different names, too.
    assert book.lookup(here, Kind.SNAPSHOT, "same") is None


def test_instances_are_separate(cluster: Cluster, connection: Connection, pool: str) -> None:
    where = where_of(cluster, pool)
    book = Journal(connection, LOG)
    assert book.reserve(where, Kind.SNAPSHOT, "same", "1")
    assert book.reserve(replace(where, journal="k8s-2"), Kind.SNAPSHOT, "same", "2")
    assert journal(cluster, pool) == {
        "csi.snaps.default": {"csi.snap.same": b"1"},
        "csi.snaps.k8s-2": {"csi.snap.same": b"2"},
    }


def test_the_whole_floor_works_from_a_process_of_its_own(cluster: Cluster, pool_spec: str) -> None:
    context = StandIn(cluster)
    backend = CephCluster(context, LOG)
    try:
        pool, _, namespace = pool_spec.partition("/")
        where = backend.locate(PoolSpec(pool, namespace))
        assert where == where_of(cluster, pool_spec)
        assert backend.pool_name(where.pool_id) == pool
        assert backend.pool_id(pool) == where.pool_id
        assert backend.namespaces(where.pool_id, pool) == ([namespace] if namespace else [])
        assert where.pool_id in [root.pool_id for root in backend.rbd_pools()]
        with pytest.raises(NotFound):
            backend.locate(PoolSpec(pool, "no-such-namespace"))
        # The data connection is fenced, and is the module's own entity.
        [address] = context.registered
        assert address
        assert cluster.mon("auth get-key", entity=ENTITY)["key"]
        backend.put_intent(where, "op-1", "{}")
        assert backend.load_intents(where) == {"op-1": "{}"}
        backend.erase_intent(where, "op-1")
        assert backend.load_intents(where) == {}
        assert [task for task in backend.tasks.list() if task.pool == pool] == []
    finally:
        backend.close()
    assert context.registered == []


def test_connection_that_was_blocklisted_is_made_anew(cluster: Cluster, pool: str) -> None:
    context = StandIn(cluster)
    backend = CephCluster(context, LOG)
    where = where_of(cluster, pool)
    blocklisted: list[str] = []
    try:
        assert backend.reserve(where, Kind.VOLUME, "before", "1")
        sessions = backend.data.sessions
        [addresses] = context.registered
        with backend.data.handle("looking") as handle:
            mine = handle.get_addrs()
        assert mine == addresses
        blocklisted = re.findall(r"[0-9.]+:[0-9]+/[0-9]+", addresses)
        assert blocklisted
        for address in blocklisted:
            cluster.mon("osd blocklist", blocklistop="add", addr=address, expire=60.0)

        def refused() -> bool:
            try:
                backend.lookup(where, Kind.VOLUME, "before")
            except Disconnected:
                return True
            return False

        wait_for(refused, 20, "the connection is refused", interval=0, ignore=())
        found = wait_for(
            lambda: backend.lookup(where, Kind.VOLUME, "before"), 20, "it is made anew", ignore=(Disconnected,)
        )
        assert found == "1"
        assert backend.data.sessions == sessions + 1
    finally:
        backend.close()
        for address in blocklisted:
            cluster.mon("osd blocklist", blocklistop="rm", addr=address)


def test_calls_that_are_under_way_survive_closing(cluster: Cluster, pool: str) -> None:
    backend = CephCluster(StandIn(cluster), LOG)
    with backend.data.ioctx(where_of(cluster, pool), "a call under way") as ioctx:
        backend.close()
        ioctx.write_full("kept", b"alive")
        assert ioctx.read("kept") == b"alive"
    with pytest.raises((rados.Error, ValueError)):
        ioctx.read("kept")
