"""Soak: mixed operations at random while one thing after another happens to mgrs and OSD, all of it from a seed.

`VDISK_SOAK` is for how many seconds (by default 60 on Pacific and 30 elsewhere, 1800 for the full claim),
`VDISK_SOAK_SEED` the seed (1).
"""

import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
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

SECONDS = float(os.environ.get("VDISK_SOAK", "0"))
#: Where nobody says how long: a release that runs without a root of its own, and has no tests of groups and the page.
BY_DEFAULT = {"pacific": 60.0}
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


@dataclass
class Report:
    """What was done and what happened meanwhile, for the documentation (``tools/matrix.py``)."""

    seed: int
    seconds: float
    operations: dict[str, int]
    faults: dict[str, int]
    repeats: int
    """Commands that had to be sent again: nobody answered, or "still running"."""
    longest: float
    """Seconds until the slowest operation was answered for good."""
    usages: list[Usage] = field(default_factory=list)
    """What the active mgr had after each round without faults."""


def work(cluster: Cluster, actors: list[Soaker], seconds: float, chance: random.Random, faults: bool) -> Report:
    """Have clients work for so long; returns what happened to them, after all of them agree with what there is."""
    for actor in actors:
        actor.model, actor.client.repeats = Model(), 0
    ends, stop, happened = time.monotonic() + seconds, threading.Event(), Counter[str]()
    crowd = Crowd([lambda actor=actor: actor.run(stop.is_set) for actor in actors])  # type: ignore[misc]

    def done() -> int:
        return sum(actor.model.operations.total() for actor in actors)

    while time.monotonic() < ends:
        wanted = done() + chance.randrange(10, 60)
        wait_for(lambda: crowd.check() and (done() >= wanted or time.monotonic() > ends), PATIENCE, "the load goes on")  # noqa: B023
        if faults:
            fault = chance.choice(sorted(FAULTS))
            FAULTS[fault](cluster)
            happened[fault] += 1
    stop.set()
    crowd.join(PATIENCE)
    agree(cluster, POOL, actors)
    report = Vdisk(cluster).until("check", pool_spec=POOL, wait="60")
    assert report["findings"] == [], report["findings"]
    operations = sum((actor.model.operations for actor in actors), Counter[str]())
    longest = max(actor.model.longest for actor in actors)
    repeats = sum(actor.client.repeats for actor in actors)
    return Report(SEED, seconds, dict(operations), dict(happened), repeats, round(longest, 1))


@pytest.mark.slow
@pytest.mark.timeout(600 + 2 * SECONDS)
def test_whatever_happens_what_was_answered_is_true_and_nothing_leaks(
    pair: Cluster, record_property: Callable[[str, object], None]
) -> None:
    chance = random.Random(SEED)
    seconds = SECONDS or BY_DEFAULT.get(pair.release.name, 30.0)
    actors = [Soaker(pair, POOL, SEED * 1000 + number) for number in range(CLIENTS)]
    report = work(pair, actors, seconds, chance, faults=True)
    print(report)
    remove_all(pair, POOL)
    assert inventory.take(pair.connect(), POOL).lines == ()
    # Then without faults: the second time through, the mgr has to get by with what it took for the first.
    for _ in range(3):
        work(pair, actors, min(30.0, max(5.0, seconds / 10)), chance, faults=False)
        remove_all(pair, POOL)
        report.usages.append(Usage.of(pair))
    print(*report.usages, sep="\n")
    record_property("soak", json.dumps(asdict(report)))
    first, _, last = usages = report.usages
    assert last.memory <= first.memory * 1.1 + 16, usages
    # Connections that were given up are closed some time later.
    wait_for(
        lambda: Usage.of(pair).files <= first.files + 8, 60, f"no more files than at first: {usages}", interval=0.5
    )
    wait_for(lambda: Usage.of(pair).threads <= first.threads, 60, "threads are no more than at first", interval=0.5)
    assert pair.crash_dumps() == []
