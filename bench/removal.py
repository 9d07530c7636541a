"""What deleting costs: the answer, and the space, beside rbd_support's queue."""

from __future__ import annotations

import time

import rbd

from bench.clients import BareSnapshot, Command, Timing
from bench.paths import bare_image, run_side_by_side, snapshot, timed
from bench.stage import GIB, POOL, Stage, tasks
from harness.wait import wait_for


def snapshots_removed(stage: Stage) -> None:
    """Deleting a snapshot one at a time and with all clients, and how fast the space of all of them comes back."""
    most = max(stage.sizes.clients)
    total = 200 if most >= 32 else 4 * most
    ours = stage.volumes(most)
    each = -(-total // most)
    work = [[snapshot(stage, ours[number], wait=0) for _ in range(each)] for number in range(most)]
    made = [timing.answer["handle"] for client in stage.fleet.run(work) for timing in client]
    stage.drain()
    # At the monitors' usual pace each is given its time to be reclaimed, so that only the answer is measured.
    single = stage.sizes.slow_singles if stage.interval == "default" else stage.sizes.singles
    singles, rest = made[:single], made[single:]
    alone = []
    for handle in singles:
        alone.append(stage.fleet.one(Command({"prefix": "vdisk snap rm", "snapshot": handle})))
        if stage.interval == "default":
            stage.drain()
    stage.drain()
    stage.add("snapshot removal", "vdisk", alone)
    spent = {"vdisk": 0.0}
    timings: dict[str, list[Timing]] = {"vdisk": []}
    removals: list[list[Command]] = [[] for _ in range(most)]
    for number, handle in enumerate(rest):
        removals[number % most].append(Command({"prefix": "vdisk snap rm", "snapshot": handle, "wait": 0}, pause=0.05))
    started = time.monotonic()
    run_side_by_side(stage, [jobs for jobs in removals if jobs], "vdisk", spent, timings)
    stage.drain()
    reclaimed = time.monotonic() - started
    stage.add("snapshot removals", "vdisk", timings["vdisk"], clients=most, per_second=len(rest) / spent["vdisk"])
    stage.add_value("space reclaimed", "vdisk", len(rest) / reclaimed, count=len(rest))


def rbd_supports_queue(stage: Stage) -> None:
    """What an administrator has: snapshots of the same form, trashed and given to rbd_support."""
    count = stage.sizes.queue_sample
    bare_image(stage, "bare-queue")
    names = [stage.name("bare-snap") for _ in range(count)]
    stage.fleet.run([[BareSnapshot(POOL, "bare-queue", name) for name in names]])
    ids = []
    with stage.cluster.connect().open_ioctx(POOL) as ioctx:
        for name in names:
            with rbd.Image(ioctx, name) as image:
                image.remove_snap(name)
                ids.append(image.id())
            rbd.RBD().trash_move(ioctx, name, 0)
    add = [
        timed(lambda spec=f"{POOL}/{image_id}": add_task(stage, spec))  # type: ignore[misc]
        for image_id in ids
    ]
    wait_for(lambda: not tasks(stage.cluster), 240, "rbd_support has removed all", interval=0.05)
    seconds = time.monotonic() - add[0].started
    stage.add("snapshot removal", "rbd_support", add)
    stage.add_value("space reclaimed", "rbd_support", count / seconds, count=count)


def add_task(stage: Stage, spec: str) -> None:
    """Add a task to rbd_support's queue."""
    number, _, status = stage.cluster.mgr_command({"prefix": "rbd task add trash remove", "image_id_spec": spec})
    if number:
        raise RuntimeError(f"rbd task add trash remove {spec}: {number} {status}")


def removal_of_sizes(stage: Stage) -> None:
    """Deleting a snapshot of a huge volume until its space is free, beside one of a small volume."""
    sizes = {"1 GiB": GIB, "huge": stage.sizes.huge}
    timings: dict[str, list[Timing]] = {label: [] for label in sizes}
    for _ in range(max(3, stage.sizes.slow_singles)):
        for label, size in sizes.items():
            [volume] = stage.volumes(1, size)
            made = stage.fleet.one(snapshot(stage, volume)).answer
            stage.drain()
            timings[label].append(timed(lambda handle=made["handle"]: remove_to_the_end(stage, handle)))  # type: ignore[misc]
    for label, done in timings.items():
        stage.add(f"snapshot reclaimed, {label}", "vdisk", done)


def remove_to_the_end(stage: Stage, handle: str) -> None:
    """Delete a snapshot and wait until its space is free."""
    answer = stage.vdisk("snap rm", snapshot=handle)
    done = Command({"prefix": "vdisk op info", "id": answer["operation"]}, until=("state", "done"), pause=0.005)
    stage.fleet.one(done)
    wait_for(lambda: not tasks(stage.cluster), 240, "rbd_support has removed it", interval=0.005)
