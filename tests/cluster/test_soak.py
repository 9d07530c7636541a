"""Soak: mixed operations at random while one thing after another happens to mgrs and OSD, all of it from a seed.

`VDISK_SOAK` is for how many seconds (30 by default, 1800 for the full claim), `VDISK_SOAK_SEED` the seed (1).
"""

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster import inventory
from cluster.support import Vdisk
from cluster.test_crash import lighten
from cluster.test_failover import PATIENCE, Actor, Crowd, Model, agree, data_address, fail_over, remove_all
from harness.cluster import Cluster
from harness.config import FAST
from harness.releases import ensure_root
from harness.wait import wait_for

SECONDS = float(os.environ.get("VDISK_SOAK", "30"))
SEED = int(os.environ.get("VDISK_SOAK_SEED", "1"))
CLIENTS = 6
POOL = "soak"
#: Things that a client keeps; beyond that it only removes, so that a long soak does not become a full pool.
MOST = 12


@pytest.fixture
def pair(release_name: str) -> Iterator[Cluster]:
    """Two managers, and an OSD that keeps its data when it is killed."""
    ensure_root(release_name)
    conf = {**FAST, "mon_mgr_beacon_grace": 5, "mgr:mgr/vdisk/check_grace": 0}
    with Cluster(release_name, mgrs=2, store="bluestore", conf=conf) as cluster:
        lighten(cluster)
        cluster.create_pool(POOL)
        yield cluster


class Soaker(Actor):
    """A client that goes on for any length of time."""

    def run(self, enough: Callable[[], bool], allowed: Callable[[], bool] = lambda: True) -> None:
        """Work until it is enough."""
        while not enough():
            volumes, snapshots = self.model.volumes, self.model.snapshots
            choices = [self._create, self._create_shared]
            if volumes:
                choices += [self._snap, self._snap, self._clone, self._resize, self._remove]
            if snapshots:
                choices += [self._restore, self._restore, self._remove_snapshot]
            if len(volumes) + len(snapshots) > MOST:
                choices = [self._remove] if len(volumes) > len(snapshots) else [self._remove_snapshot]
            self._random.choice(choices)()


def blocklist(cluster: Cluster) -> None:
    """Cut vdisk's client off."""
    address = wait_for(lambda: data_address(cluster), 30, "the address of vdisk's client")
    ret, _, status = cluster.mon_command({"prefix": "osd blocklist", "blocklistop": "add", "addr": address})
    assert ret == 0, status


def pause_osd(cluster: Cluster) -> None:
    """Have the OSD answer nobody while the mgr is failed over: what vdisk began there hangs meanwhile."""
    cluster.osds["0"].pause()
    try:
        fail_over(cluster, "fail")
    finally:
        cluster.osds["0"].resume()


def kill_osd(cluster: Cluster) -> None:
    """Kill the OSD and start it again."""
    cluster.osds["0"].kill()
    cluster.osds["0"].start()


FAULTS: dict[str, Callable[[Cluster], None]] = {
    "mgr fail": lambda cluster: fail_over(cluster, "fail"),
    "mgr SIGKILL": lambda cluster: fail_over(cluster, "kill"),
    "mgr SIGSTOP": lambda cluster: fail_over(cluster, "stop"),
    "blocklist": blocklist,
    "OSD SIGSTOP": pause_osd,
    "OSD SIGKILL": kill_osd,
}


@dataclass(frozen=True)
class Usage:
    """What the active mgr's process has: threads, file descriptors, resident memory in MiB."""

    threads: int
    files: int
    memory: float

    @classmethod
    def of(cls, cluster: Cluster) -> "Usage":
        """Look."""
        where = Path(f"/proc/{cluster.mgrs[cluster.active_mgr()].pid}")
        pages = int((where / "statm").read_text().split()[1])
        memory = pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
        return cls(len(list((where / "task").iterdir())), len(list((where / "fd").iterdir())), memory)


def work(cluster: Cluster, actors: list[Soaker], seconds: float, chance: random.Random, faults: bool) -> Counter[str]:
    """Have clients work for so long; returns what happened to them, after all of them agree with what there is."""
    for actor in actors:
        actor.model = Model()
    ends, stop, happened = time.monotonic() + seconds, threading.Event(), Counter[str]()
    crowd = Crowd([lambda actor=actor: actor.run(stop.is_set) for actor in actors])  # type: ignore[misc]

    def done() -> int:
        return sum(actor.model.operations for actor in actors)

    while time.monotonic() < ends:
        wanted = done() + chance.randrange(10, 60)
        wait_for(lambda: crowd.check() and (done() >= wanted or time.monotonic() > ends), PATIENCE, "the load goes on")  # noqa: B023
        if faults:
            fault = chance.choice(sorted(FAULTS))
            FAULTS[fault](cluster)
            happened[fault] += 1
    stop.set()
    crowd.join(PATIENCE)
    happened["operations"] = done()
    agree(cluster, POOL, actors)
    report = Vdisk(cluster).until("check", pool_spec=POOL, wait="60")
    assert report["findings"] == [], report["findings"]
    return happened


@pytest.mark.slow
@pytest.mark.timeout(600 + 2 * SECONDS)
def test_whatever_happens_what_was_answered_is_true_and_nothing_leaks(pair: Cluster) -> None:
    chance = random.Random(SEED)
    actors = [Soaker(pair, POOL, SEED * 1000 + number) for number in range(CLIENTS)]
    happened = work(pair, actors, SECONDS, chance, faults=True)
    print(f"seed {SEED}, {SECONDS:g} s: {dict(happened)}")
    remove_all(pair, POOL)
    assert inventory.take(pair.connect(), POOL).lines == ()
    # Then without faults: the second time through, the mgr has to get by with what it took for the first.
    usages = []
    for _ in range(3):
        work(pair, actors, min(30.0, max(5.0, SECONDS / 10)), chance, faults=False)
        remove_all(pair, POOL)
        usages.append(Usage.of(pair))
    print(*usages, sep="\n")
    first, _, last = usages
    assert last.files <= first.files + 8, usages
    assert last.memory <= first.memory * 1.1 + 16, usages
    wait_for(lambda: Usage.of(pair).threads <= first.threads, 60, "threads are no more than at first", interval=0.5)
    assert pair.crash_dumps() == []
