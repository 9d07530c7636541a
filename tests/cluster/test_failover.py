"""Two mgrs, many clients, and one thing after another that happens to the active mgr: what was acknowledged stays true.

`VDISK_FAILOVER_OPS` is the least number of operations of the mixed load (80 by default, 300 for the full claim).
"""

import contextlib
import errno
import itertools
import json
import os
import queue
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import rados

from cluster import inventory
from cluster.support import MIB, Vdisk
from cluster.test_crash import lighten
from harness.cli import CephError
from harness.client import Answer
from harness.cluster import Cluster
from harness.config import FAST, Conf
from harness.releases import ensure_root
from harness.wait import BUSY, wait_for

CLIENTS = 16
OPERATIONS = int(os.environ.get("VDISK_FAILOVER_OPS", "80"))
FAILOVERS = ("fail", "kill", "stop", "fail", "kill")
SIZE = 8 * MIB
PATIENCE = 90.0
"""Seconds after which a client that repeats its command gives up: something is stuck then."""


@pytest.fixture(scope="module")
def pair(release_name: str) -> Iterator[Cluster]:
    """A cluster of this file's own with two managers."""
    ensure_root(release_name)
    with Cluster(release_name, mgrs=2, conf={**FAST, "mon_mgr_beacon_grace": 5}) as cluster:
        lighten(cluster)
        yield cluster


@pytest.fixture
def pool(pair: Cluster) -> Iterator[str]:
    """A fresh pool."""
    name = f"p{next(_numbers)}"
    pair.create_pool(name)
    yield name
    pair.delete_pool(name)


_numbers = itertools.count(1)


class Client:
    """A client with a librados handle of its own, which repeats what was not answered for good."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._handle = cluster.new_handle()
        self.repeats = 0

    def close(self) -> None:
        """Disconnect: to a mgr, each client is a connection."""
        self._handle.shutdown()

    def __call__(self, words: str, **args: Any) -> tuple[int, dict[str, Any]]:
        """Send a command until it is answered with something else than EAGAIN; return code and JSON."""
        command = {"prefix": f"vdisk {words}", "format": "json", **args}

        def final() -> tuple[int, dict[str, Any]] | None:
            answer = self._send(command)
            if answer is not None and answer[0] not in (-errno.EAGAIN, -errno.EOPNOTSUPP):
                return answer[0], json.loads(answer[1])
            # EOPNOTSUPP comes from a mgr that is active but has not loaded its modules yet.
            self.repeats += 1
            return None

        return wait_for(final, PATIENCE, f"vdisk {words} {args} is answered", ignore=(), interval=0.1)

    def _send(self, command: Mapping[str, Any], seconds: float = 20) -> Answer | None:
        """Send once; None when no answer came, and the handle that waits for it is given up."""
        done: queue.Queue[Any] = queue.Queue()
        handle = self._handle

        def body() -> None:
            try:
                done.put(handle.mgr_command(json.dumps(command), b""))
            except rados.Error as error:
                done.put(error)

        threading.Thread(target=body, daemon=True).start()
        try:
            answer = done.get(timeout=seconds)
        except queue.Empty:
            _abandoned.append(handle)
            self._handle = self._cluster.new_handle()
            return None
        if isinstance(answer, rados.Error):
            return None
        return answer[0], answer[1].decode(), answer[2]


_abandoned: list[rados.Rados] = []


@dataclass
class Model:
    """What one client was told is true: volumes with their sizes, snapshots with their sources."""

    volumes: dict[str, int] = field(default_factory=dict)
    snapshots: dict[str, str] = field(default_factory=dict)
    handles: dict[str, set[str]] = field(default_factory=dict)
    plain: set[str] = field(default_factory=set)
    operations: Counter[str] = field(default_factory=Counter)
    """Commands that were answered for good, by their words."""
    longest: float = 0.0
    """Seconds until the slowest of them was."""


class Actor:
    """One client at work: mixed operations on names of its own, and creations of names that all clients want."""

    def __init__(self, cluster: Cluster, pool: str, number: int) -> None:
        self.client = Client(cluster)
        self.model = Model()
        self._pool = pool
        self._number = number
        self._random = random.Random(number)
        self._names = (f"c{number}-{i}" for i in itertools.count(1))

    def run(self, enough: Callable[[], bool], allowed: Callable[[], bool] = lambda: True) -> None:
        """Work until it is enough, pausing while nothing more is allowed."""
        self._create()
        while not enough():
            if not allowed():
                wait_for(lambda: allowed() or enough(), PATIENCE, "the clients may go on")
                continue
            choices = [self._create, self._create_shared]
            if self.model.volumes:
                choices += [self._snap, self._snap, self._clone, self._resize, self._remove]
            if self.model.snapshots:
                choices += [self._restore, self._restore, self._remove_snapshot]
            self._random.choice(choices)()

    def _do(self, words: str, wanted: tuple[int, ...] = (0,), **args: Any) -> dict[str, Any]:
        """Ask with some patience or none; when none, ask again until it is there."""
        wait, began = self._random.choice(["0", "0.5", "5"]), time.monotonic()
        ret, answer = self.client(words, wait=wait, **args)
        assert ret in wanted, (words, args, ret, answer)
        if ret == 0 and answer.get("state") == "pending":
            ret, answer = self.client(words, wait="20", **args)
            assert ret in wanted, (words, args, ret, answer)
        self.model.operations[words] += 1
        self.model.longest = max(self.model.longest, time.monotonic() - began)
        return answer

    def _made(self, name: str, answer: dict[str, Any], size: int) -> None:
        assert answer["state"] == "ready", answer
        assert answer["size"] == size, answer
        self.model.handles.setdefault(name, set()).add(answer["handle"])

    def _create(self) -> None:
        name = next(self._names)
        self._made(name, self._do("volume create", pool_spec=self._pool, name=name, size=str(SIZE)), SIZE)
        self.model.volumes[name] = SIZE
        self.model.plain.add(name)

    def _create_shared(self) -> None:
        name = f"shared-{self._random.randrange(6)}"
        self._made(name, self._do("volume create", pool_spec=self._pool, name=name, size=str(SIZE)), SIZE)

    def _snap(self) -> None:
        source, name = self._origin(), next(self._names)
        ret, info = self.client("volume info", volume=f"{self._pool}/{source}")
        assert ret == 0, info
        answer = self._do("snap create", image_spec=f"{self._pool}/{info['image']}", snap_name=name)
        self._made(name, answer, self.model.volumes[source])
        assert answer["source"]["image"] == info["image"]
        self.model.snapshots[name] = source

    def _restore(self) -> None:
        snap, name = self._random.choice(sorted(self.model.snapshots)), next(self._names)
        answer = self._do("volume restore", snapshot=f"{self._pool}/{snap}", name=name)
        self.model.volumes[name] = answer["size"]
        self._made(name, answer, answer["size"])

    def _clone(self) -> None:
        source, name = self._origin(), next(self._names)
        answer = self._do("volume clone", volume=f"{self._pool}/{source}", name=name)
        self._made(name, answer, self.model.volumes[source])
        self.model.volumes[name] = answer["size"]

    def _resize(self) -> None:
        name = self._volume()
        size = self.model.volumes[name] + MIB
        self._made(name, self._do("volume resize", volume=f"{self._pool}/{name}", size=str(size)), size)
        self.model.volumes[name] = size

    def _remove(self) -> None:
        name = self._volume()
        # A removal that was done before its answer got lost is not found when it is asked for again.
        self._do("volume rm", (0, -errno.ENOENT), volume=f"{self._pool}/{name}")
        del self.model.volumes[name]

    def _remove_snapshot(self) -> None:
        name = self._random.choice(sorted(self.model.snapshots))
        self._do("snap rm", (0, -errno.ENOENT), snapshot=f"{self._pool}/{name}")
        del self.model.snapshots[name]

    def _origin(self) -> str:
        """Return a volume that is no clone if there is one: how long chains of clones may get is not the question."""
        plain = sorted(self.model.plain & set(self.model.volumes))
        return self._random.choice(plain) if plain else self._volume()

    def _volume(self) -> str:
        return self._random.choice(sorted(self.model.volumes))


class Crowd:
    """Threads whose first failure is the test's."""

    def __init__(self, works: list[Callable[[], None]]) -> None:
        self.errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(work,), daemon=True) for work in works]
        for thread in self._threads:
            thread.start()

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self.errors.append(error)

    def check(self) -> bool:
        """Raise the first failure; True when there is none."""
        if self.errors:
            raise self.errors[0]
        return True

    def join(self, seconds: float) -> None:
        """Wait for all of them."""
        wait_for(lambda: self.check() and not any(t.is_alive() for t in self._threads), seconds, "all clients are done")
        self.check()


def fail_over(cluster: Cluster, how: str) -> None:
    """Make another mgr the active one, and have the old one run again."""
    before = cluster.mgr_map()
    old = cluster.mgrs[before["active_name"]]
    if how == "fail":
        cluster.mon("mgr fail", who=before["active_name"])
    elif how == "kill":
        old.kill()
    else:
        old.pause()
    try:
        cluster.wait_active_mgr(60, not_gid=before["active_gid"])
    finally:
        if how == "stop":
            old.resume()
        elif how == "kill":
            old.start()
    wait_for(lambda: cluster.mgr_map()["standbys"], 60, f"a standby again after {how}", interval=0.1)


def quiet(cluster: Cluster, pool: str) -> inventory.Inventory:
    """Wait until all operations in a pool are over or wait for clones; return what there is then."""
    vdisk = Vdisk(cluster)

    def calm() -> inventory.Inventory | None:
        assert vdisk.recovered()
        busy = vdisk.moving(pool)
        assert not busy, busy
        found = inventory.take(cluster.connect(), pool)
        tasks = [line for line in found.lines if line.startswith("task ")]
        assert not tasks, tasks
        return found

    return wait_for(calm, 120, f"{pool} comes to rest", interval=0.3)


def agree(cluster: Cluster, pool: str, actors: Sequence[Actor]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Hold what the clients were told to what there is, once it is quiet; return volumes and snapshots by name."""
    found = quiet(cluster, pool)
    assert not [line for line in found.lines if "stray" in line or "without" in line], str(found)
    vdisk = Vdisk(cluster)
    volumes = {volume["name"]: volume for volume in vdisk("volume ls", pool_spec=pool)}
    snapshots = {snap["name"]: snap for snap in vdisk("snap ls", pool_spec=pool)}
    own = {name: size for actor in actors for name, size in actor.model.volumes.items()}
    shared = {name for actor in actors for name in actor.model.handles if name.startswith("shared-")}
    assert sorted(volumes) == sorted([*own, *shared])
    assert {name: volumes[name]["size"] for name in own} == own
    assert sorted(snapshots) == sorted(name for actor in actors for name in actor.model.snapshots)
    assert all(item["state"] == "ready" for item in [*volumes.values(), *snapshots.values()])
    # One name, one image: whoever asked for it, and however often, was told of the same.
    for name, item in {**volumes, **snapshots}.items():
        told = set[str]().union(*(actor.model.handles.get(name, set()) for actor in actors))
        assert told == {item["handle"]}, name
    return volumes, snapshots


def remove_all(cluster: Cluster, pool: str) -> None:
    """Remove all volumes and snapshots, and wait until nothing at all is left."""
    vdisk = Vdisk(cluster)
    with contextlib.closing(Client(cluster)) as client:
        for kind, argument in (("snap", "snapshot"), ("volume", "volume")):
            for item in vdisk(f"{kind} ls", pool_spec=pool):
                ret, told = client(f"{kind} rm", **{argument: item["handle"]})
                assert ret in (0, -errno.ENOENT), told

    def empty() -> bool:
        found = inventory.take(cluster.connect(), pool)
        assert not found.lines, str(found)
        return True

    wait_for(empty, 180, f"nothing is left in {pool}", interval=0.3)


@pytest.mark.timeout(300 + OPERATIONS)
def test_acknowledged_results_are_true_after_five_failovers(pair: Cluster, pool: str) -> None:
    actors = [Actor(pair, pool, number) for number in range(CLIENTS)]
    finished = threading.Event()

    def done() -> int:
        return sum(actor.model.operations.total() for actor in actors)

    def enough() -> bool:
        return finished.is_set() and done() >= OPERATIONS

    def allowed() -> bool:
        # What failovers leave behind counts too, or a slow one would be paid for with minutes of tidying up.
        return done() < limit[0]

    began = time.monotonic()
    share = max(1, OPERATIONS // (len(FAILOVERS) + 1))
    limit = [2 * share]
    crowd = Crowd([lambda actor=actor: actor.run(enough, allowed) for actor in actors])  # type: ignore[misc]
    for number, how in enumerate(FAILOVERS, 1):
        wait_for(lambda: crowd.check() and done() >= limit[0] - share, 120, "the load goes on")
        fail_over(pair, how)
        limit[0] = max(done(), share * number) + 2 * share
    limit[0] += OPERATIONS
    finished.set()
    crowd.join(PATIENCE + 30)
    repeats = sum(actor.client.repeats for actor in actors)
    print(f"{done()} operations, {repeats} repeats, {time.monotonic() - began:.0f} s until all clients were done")

    volumes, snapshots = agree(pair, pool, actors)
    print(f"{time.monotonic() - began:.0f} s until it was quiet, {len(volumes) + len(snapshots)} things left")
    assert all(snap["sealed"] for snap in snapshots.values())
    images = sorted(item["image"] for item in [*volumes.values(), *snapshots.values()])
    with pair.connect().open_ioctx(pool) as ioctx:
        directory = inventory.omap(ioctx, "rbd_directory")
    assert sorted(key[5:] for key in directory if key.startswith("name_")) == images
    remove_all(pair, pool)
    assert pair.crash_dumps() == []


# -- blocklisting -----------------------------------------------------------------------------------------------------

_CONNECTED = re.compile(r"connected to the cluster as (\S+)")
_ADDRESS = re.compile(r"([\d.]+:\d+/\d+)")


def data_address(cluster: Cluster) -> str:
    """Return the address of the client with which the active mgr's vdisk writes; `active_clients` has to list it."""
    dump = cluster.mgr_map()
    listed = {f"{a['addr']}/{a['nonce']}" for client in dump["active_clients"] for a in client["addrvec"]}
    named = [
        f"{a['addr']}/{a['nonce']}"
        for client in dump["active_clients"]
        if client.get("name") == "vdisk"
        for a in client["addrvec"]
    ]
    logged = _CONNECTED.findall(cluster.mgrs[dump["active_name"]].log())
    candidates = [address for text in logged[-1:] for address in _ADDRESS.findall(text)] or named[-1:]
    assert candidates, "vdisk has not connected"
    assert set(candidates) <= listed, f"{candidates} are not among the registered clients {sorted(listed)}"
    return candidates[0]


@pytest.mark.timeout(300)
def test_each_of_ten_blocklistings_in_a_row_is_overcome_in_ten_seconds(pair: Cluster, pool: str) -> None:
    actors = [Actor(pair, pool, number) for number in range(4)]
    stop = threading.Event()
    probe = Client(pair)
    assert probe("volume create", pool_spec=pool, name="first", size=str(SIZE))[0] == 0
    crowd = Crowd([lambda actor=actor: actor.run(stop.is_set) for actor in actors])  # type: ignore[misc]
    took, seen = [], set()
    for number in range(10):
        address = wait_for(lambda: data_address(pair), 10, "the address of vdisk's client")
        assert address not in seen, "it was blocklisted before and still writes"
        seen.add(address)
        began = time.monotonic()
        ret, _, status = pair.mon_command({"prefix": "osd blocklist", "blocklistop": "add", "addr": address})
        assert ret == 0, status
        ret, answer = probe("volume create", pool_spec=pool, name=f"probe{number}", size=str(SIZE), wait="10")
        assert ret == 0, answer
        took.append(time.monotonic() - began)
        fresh = wait_for(lambda: data_address(pair) not in seen, 10, "vdisk has connected anew")
        assert fresh
        crowd.check()
    stop.set()
    crowd.join(PATIENCE)
    print("recovered after", " ".join(f"{seconds:.1f}" for seconds in took), "s")
    assert max(took) < 10 * BUSY, took
    quiet(pair, pool)
    remove_all(pair, pool)
    assert pair.crash_dumps() == []


# -- stopping while busy ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def slow_monitors(cluster: Cluster) -> Iterator[None]:
    """Have the monitors decide once a second, as they do by default, so that a hundred snapshots take their time."""

    def pace(conf: Conf) -> None:
        for name, value in conf.items():
            cluster.ceph("daemon", str(cluster.layout.sockets / "mon.a.asok"), "config", "set", name, str(value))

    pace({"paxos_propose_interval": 1.0, "paxos_min_wait": 0.05})
    try:
        yield
    finally:
        pace(FAST)


def burst(cluster: Cluster, pool: str, tag: str, count: int) -> list[str]:
    """Ask for `count` snapshots without waiting for one; return their names once every request is acknowledged."""
    names = [f"{tag}{number:03d}" for number in range(count)]
    clients = [Client(cluster) for _ in range(8)]
    volumes = [volume["image"] for volume in Vdisk(cluster)("volume ls", pool_spec=pool)]

    def ask(share: int) -> None:
        for index in range(share, count, len(clients)):
            image = volumes[index % len(volumes)]
            ret, answer = clients[share]("snap create", image_spec=f"{pool}/{image}", snap_name=names[index], wait="0")
            assert ret == 0, answer

    Crowd([lambda share=share: ask(share) for share in range(len(clients))]).join(90)  # type: ignore[misc]
    return names


def enable(cluster: Cluster) -> None:
    """Enable vdisk; the monitors refuse until a mgr that just started has told them which modules it has."""

    def enabled() -> bool:
        cluster.enable_module("vdisk")
        return True

    wait_for(enabled, 60, "vdisk is enabled", ignore=(CephError,))


def under_way(cluster: Cluster) -> int:
    """Return how many operations are not over."""
    status = Vdisk(cluster)("status")
    return sum(int(status.get(state, 0)) for state in ("queued", "running", "waiting"))


@pytest.mark.timeout(400)
def test_stops_within_seconds_with_a_hundred_operations_under_way_and_goes_on_later(pair: Cluster, pool: str) -> None:
    vdisk = Vdisk(pair)
    for number in range(10):
        vdisk("volume create", pool_spec=pool, name=f"v{number}", size=str(SIZE))
    names: list[str] = []
    with contextlib.ExitStack() as stack:
        stack.enter_context(slow_monitors(pair))
        for how, count in (("terminate", 140), ("fail", 30), ("disable", 30)):
            busy = 0
            for more in range(5):  # ten are done in a second, and how long it takes to ask for them is chance
                names += burst(pair, pool, f"{how}-{more}-", count)
                busy = under_way(pair)
                if busy > 30:
                    break
            assert busy > 30, f"only {busy} operations were still under way"
            before = pair.mgr_map()
            old = pair.mgrs[before["active_name"]]
            began = time.monotonic()
            if how == "fail":
                pair.mon("mgr fail", who=before["active_name"])
                pair.wait_active_mgr(60, not_gid=before["active_gid"])
                pair.wait_standby(before["active_name"])
            elif how == "terminate":
                old.stop()
            else:
                pair.disable_module("vdisk")
            seconds = time.monotonic() - began
            print(f"{how} with {busy} operations under way: {seconds:.1f} s until the old mgr was out of the way")
            assert old.running is (how != "terminate")
            assert seconds < 10 * BUSY, f"{how}: {seconds:.1f} s until the old mgr was out of the way"
            if how == "terminate":
                old.start()
                pair.wait_standby(before["active_name"])
                pair.wait_module("vdisk")
            elif how == "disable":
                enable(pair)

    def all_ready() -> bool:
        snaps = {snap["name"]: snap for snap in vdisk("snap ls", pool_spec=pool)}
        missing = [name for name in names if not snaps.get(name, {}).get("sealed")]
        assert not missing, missing
        return True

    wait_for(all_ready, 120, "every snapshot that was acknowledged is there and sealed", interval=0.5)
    quiet(pair, pool)
    remove_all(pair, pool)
    assert pair.crash_dumps() == []
