"""Latency, throughput and cost of each request, beside the bare flow and the command line."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from bench.clients import BareClone, BareCreate, BareSnap, BareSnapshot, Command, Timing
from bench.stage import GIB, POOL, Stage

#: Longer than a seal, or any other commit that the last request left behind.
_REST_SECONDS = 0.3


def snapshots_one_at_a_time(stage: Stage) -> None:
    """A snapshot until it is ready, beside the bare flow of two rounds and the same with the rbd tool.

    At the fast pace each begins from rest. Monitors propose what comes just after a commit within the interval, and
    what comes later after ``paxos_min_wait``, five times as long: back to back it is chance which of both one gets.
    """
    count = stage.sizes.slow_singles if stage.interval == "default" else stage.sizes.singles
    [ours] = stage.volumes(1)
    bare_image(stage, "bare-single")
    vdisk, bare, cli = [], [], []
    rest = 0.0 if stage.interval == "default" else _REST_SECONDS
    for number in range(count):
        time.sleep(rest)
        vdisk.append(stage.fleet.one(snapshot(stage, ours)))
        time.sleep(rest)
        bare.append(stage.fleet.one(BareSnapshot(POOL, "bare-single", stage.name("bare-snap"))))
        if number < 2:
            time.sleep(rest)
            cli.append(timed(lambda: cli_snapshot(stage)))
    stage.add("snapshot", "vdisk", vdisk)
    stage.add("snapshot", "bare", bare, mark="sealed")
    stage.add("snapshot, first round", "bare", bare, mark="ready")
    stage.add("snapshot", "cli", cli)


def snapshot_cost(stage: Stage) -> None:
    """OSD operations and CPU of the mgr for one snapshot, seal included."""
    count = stage.sizes.singles
    [ours] = stage.volumes(1)
    bare_image(stage, "bare-cost")
    stage.fleet.one(snapshot(stage, ours))
    stage.fleet.one(BareSnapshot(POOL, "bare-cost", stage.name("bare-snap")))
    with stage.counted(count) as cost:
        vdisk = [stage.fleet.one(snapshot(stage, ours)) for _ in range(count)]
    stage.add("snapshot cost", "vdisk", vdisk, cost=cost)
    with stage.counted(count) as cost:
        bare = [stage.fleet.one(BareSnapshot(POOL, "bare-cost", stage.name("bare-snap"))) for _ in range(count)]
    stage.add("snapshot cost", "bare", bare, mark="sealed", cost=cost)


def snapshots_side_by_side(stage: Stage) -> None:
    """Snapshots ready a second with clients on an image each, in turns with the bare flow."""
    most = max(stage.sizes.clients)
    ours = stage.volumes(most)
    for number in range(most):
        bare_image(stage, f"bare-{number}")
    for clients in stage.sizes.clients:
        each = stage.sizes.per_client
        rounds = stage.sizes.rounds
        spent = {"vdisk": 0.0, "bare": 0.0}
        timings: dict[str, list[Timing]] = {"vdisk": [], "bare": []}
        for _ in range(rounds):
            work: list[list[Any]] = [
                [snapshot(stage, ours[number], wait=0 if clients > 1 else None) for _ in range(each)]
                for number in range(clients)
            ]
            run_side_by_side(stage, work, "vdisk", spent, timings)
            stage.drain()
            work = [
                [BareSnapshot(POOL, f"bare-{number}", stage.name("bare-snap")) for _ in range(each)]
                for number in range(clients)
            ]
            run_side_by_side(stage, work, "bare", spent, timings)
        for subject in ("vdisk", "bare"):
            done = timings[subject]
            stage.add("snapshots", subject, done, clients=clients, per_second=len(done) / spent[subject])


def run_side_by_side(
    stage: Stage, work: list[list[Any]], subject: str, spent: dict[str, float], timings: dict[str, list[Timing]]
) -> None:
    """Have clients work and add up the time and what they did."""
    started = time.monotonic()
    done = stage.fleet.run(work)
    spent[subject] += time.monotonic() - started
    timings[subject] += [timing for client in done for timing in client]


def creates(stage: Stage) -> None:
    """An empty volume, and the same request again."""
    count = stage.sizes.singles
    vdisk, again, bare, cli = [], [], [], []
    for number in range(count):
        name = stage.name("pvc")
        create = Command({"prefix": "vdisk volume create", "pool_spec": POOL, "name": name, "size": str(GIB)})
        vdisk.append(stage.fleet.one(create))
        again.append(stage.fleet.one(create))
        bare.append(stage.fleet.one(BareCreate(POOL, stage.name("bare-image"), GIB)))
        if number < 2:
            cli.append(timed(lambda: stage.cluster.rbd("create", "--size", "1G", f"{POOL}/{stage.name('cli-image')}")))
    stage.add("volume create", "vdisk", vdisk)
    stage.add("volume create", "bare", bare)
    stage.add("volume create", "cli", cli)
    stage.add("repeated create", "vdisk", again)


def restores(stage: Stage) -> None:
    """A snapshot to a new volume, beside a bare clone; and the repetition of a snapshot."""
    count = stage.sizes.singles
    [ours] = stage.volumes(1)
    made = stage.fleet.one(snapshot(stage, ours)).answer
    stage.drain()
    bare_image(stage, "bare-parent")
    bare_snapshot = stage.name("bare-snap")
    stage.fleet.one(BareSnapshot(POOL, "bare-parent", bare_snapshot))
    vdisk, bare, again = [], [], []

    def restore() -> Timing:
        wanted = {"prefix": "vdisk volume restore", "snapshot": made["handle"], "name": stage.name("pvc")}
        return stage.fleet.one(Command(wanted))

    def clone() -> Timing:
        return stage.fleet.one(BareClone(POOL, bare_snapshot, bare_snapshot, stage.name("bare-clone")))

    for _ in range(count):
        vdisk.append(restore())
        bare.append(clone())
        repeat = {"prefix": "vdisk snap create", "image_spec": f"{POOL}/{ours['image']}", "snap_name": made["name"]}
        again.append(stage.fleet.one(Command(repeat)))
    stage.add("volume restore", "vdisk", vdisk)
    stage.add("volume restore", "bare", bare)
    stage.add("repeated snapshot", "vdisk", again)
    for subject, once in (("vdisk", restore), ("bare", clone)):
        with stage.counted(count) as cost:
            timings = [once() for _ in range(count)]
        stage.add("restore cost", subject, timings, cost=cost)


def clones(stage: Stage) -> None:
    """A volume to a new volume, beside one bare snapshot, which is one monitor round."""
    count = stage.sizes.slow_singles
    [ours] = stage.volumes(1)
    bare_image(stage, "bare-round")
    vdisk, bare = [], []
    for _ in range(count):
        clone = {"prefix": "vdisk volume clone", "volume": ours["handle"], "name": stage.name("pvc")}
        vdisk.append(stage.fleet.one(Command(clone)))
        bare.append(stage.fleet.one(BareSnap(POOL, "bare-round", stage.name("snap"))))
    stage.add("volume clone", "vdisk", vdisk)
    stage.add("volume clone", "bare", bare)


def snapshot(stage: Stage, volume: dict[str, Any], wait: float | None = None) -> Command:
    """Return the command that snapshots a volume until the snapshot is ready."""
    arguments = {
        "prefix": "vdisk snap create",
        "image_spec": f"{volume['pool']}/{volume['image']}",
        "snap_name": stage.name("snapshot"),
    }
    return Command(arguments if wait is None else {**arguments, "wait": wait})


def bare_image(stage: Stage, name: str, size: int = GIB) -> None:
    """Make an image for the bare flow."""
    stage.fleet.one(BareCreate(POOL, name, size))


def timed(function: Callable[[], Any]) -> Timing:
    """Measure a call."""
    started = time.monotonic()
    function()
    return Timing(started, time.monotonic() - started)


def cli_snapshot(stage: Stage) -> None:
    """The flow of a snapshot with the rbd tool."""
    rbd = stage.cluster.rbd
    name = stage.name("cli-snap")
    rbd("snap", "create", f"{POOL}/bare-single@{name}")
    rbd("clone", "--rbd-default-clone-format", "2", f"{POOL}/bare-single@{name}", f"{POOL}/{name}")
    rbd("snap", "rm", f"{POOL}/bare-single@{name}")
    rbd("snap", "create", f"{POOL}/{name}@{name}")
