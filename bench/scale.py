"""A journal of a hundred thousand names: written with plain RADOS operations, in the form that librbd and vdisk write.

Making that many volumes through vdisk would take an hour. ``tests/cluster/test_bench.py`` holds what is written here to
what vdisk and librbd leave for a real volume.
"""

from __future__ import annotations

import multiprocessing
import struct
import time
import uuid as uuids
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import rados

from bench.clients import Command, Target, Timing
from bench.probe import cpu_seconds, rss
from bench.stage import GIB, Stage

_IN_FLIGHT = 256
_BATCH = 500
#: layering, exclusive-lock, object-map, fast-diff, deep-flatten: librbd's default.
_FEATURES = 0x3D


@dataclass(frozen=True)
class Written:
    """The objects of one volume: name -> omap, and name -> data."""

    omap: dict[str, dict[str, bytes]]
    data: dict[str, bytes]
    directories: dict[str, dict[str, bytes]]


def volume_objects(name: str, uuid: str, image_id: str, size: int, now: float) -> Written:
    """Return what a volume of vdisk's leaves: directory key, journal object, and the image as librbd makes it."""
    image = f"csi-vol-{uuid}"
    stamp = struct.pack("<II", int(now), int(now % 1 * 1e9))
    header = {
        "access_timestamp": stamp,
        "create_timestamp": stamp,
        "features": struct.pack("<Q", _FEATURES),
        "flags": struct.pack("<Q", 0),
        "modify_timestamp": stamp,
        "object_prefix": _string(f"rbd_data.{image_id}"),
        "order": bytes([22]),
        "size": struct.pack("<Q", size),
        "snap_seq": struct.pack("<Q", 0),
    }
    entry = {"csi.imageid": image_id, "csi.imagename": image, "csi.volname": name}
    return Written(
        omap={
            f"csi.volume.{uuid}": {key: value.encode() for key, value in entry.items()},
            f"rbd_header.{image_id}": header,
        },
        data={f"rbd_id.{image}": _string(image_id)},
        directories={
            "csi.volumes.default": {f"csi.volume.{name}": uuid.encode()},
            "rbd_directory": {f"name_{image}": _string(image_id), f"id_{image_id}": _string(image)},
        },
    )


def snapshot_objects(name: str, uuid: str, image_id: str) -> Written:
    """Return the journal's part of a snapshot; its image is of no interest to what is measured here."""
    image = f"csi-snap-{uuid}"
    entry = {
        "csi.imageid": image_id,
        "csi.imagename": image,
        "csi.snapname": name,
        "csi.source": "csi-vol-00000000-0000-0000-0000-000000000000",
    }
    return Written(
        omap={f"csi.snap.{uuid}": {key: value.encode() for key, value in entry.items()}},
        data={},
        directories={"csi.snaps.default": {f"csi.snap.{name}": uuid.encode()}},
    )


def populate(target: Target, pool: str, volumes: int, snapshots: int = 0) -> None:
    """Fill a pool's journal; two processes, because one is busy in its interpreter."""
    context = multiprocessing.get_context("spawn")
    processes = []
    for part in range(2):
        spans = [range(part * count // 2, (part + 1) * count // 2) for count in (volumes, snapshots)]
        processes.append(context.Process(target=_write, args=(target, pool, *spans)))
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        if process.exitcode:
            raise RuntimeError(f"filling the journal of {pool} failed")


def _write(target: Target, pool: str, volumes: range, snapshots: range) -> None:
    handle = target.connect()
    with handle.open_ioctx(pool) as ioctx:
        made = list(_all_objects(volumes, snapshots))
        pending: list[rados.Completion] = []
        for start in range(0, len(made), _BATCH):
            batch = made[start : start + _BATCH]
            for written in batch:
                for oid, values in written.omap.items():
                    _put(ioctx, oid, values, pending)
                for oid, data in written.data.items():
                    pending.append(ioctx.aio_write_full(oid, data))
            _merge(ioctx, batch, pending)
            while len(pending) > _IN_FLIGHT:
                pending.pop(0).wait_for_complete()
        for completion in pending:
            completion.wait_for_complete()
    handle.shutdown()


def _all_objects(volumes: range, snapshots: range) -> Iterator[Written]:
    now = time.time()
    for number in volumes:
        yield volume_objects(f"filler-{number:07}", str(uuids.uuid4()), f"f{number:011x}", GIB, now)
    for number in snapshots:
        yield snapshot_objects(f"filler-{number:07}", str(uuids.uuid4()), f"e{number:011x}")


def _put(ioctx: rados.Ioctx, oid: str, values: dict[str, bytes], pending: list[rados.Completion]) -> None:
    with rados.WriteOpCtx() as op:
        ioctx.set_omap(op, tuple(values), tuple(values.values()))
        pending.append(ioctx.operate_aio_write_op(op, oid))


def _merge(ioctx: rados.Ioctx, batch: Sequence[Written], pending: list[rados.Completion]) -> None:
    """Write the directories' keys of many volumes at once."""
    merged: dict[str, dict[str, bytes]] = {}
    for written in batch:
        for oid, values in written.directories.items():
            merged.setdefault(oid, {}).update(values)
    for oid, values in merged.items():
        _put(ioctx, oid, values, pending)


def _string(text: str) -> bytes:
    return struct.pack("<I", len(text)) + text.encode()


def journal_sizes(stage: Stage) -> None:
    """Lookup, create, delete and list in pools with more and more names, in turns; and what the mgr keeps of it."""
    target = Target(stage.cluster.conf_path, stage.cluster.layout.keyring("client.admin"))
    pools = {size: f"journal-{size}" for size in stage.sizes.journal}
    for pool in pools.values():
        stage.cluster.create_pool(pool, pg_num=32)
    pid = stage.cluster.mgrs[stage.cluster.active_mgr()].pid
    warm_up(stage, pools[min(pools)])
    before = rss(pid)
    for size, pool in pools.items():
        populate(target, pool, size, size // 5)
    latencies(stage, pools)
    biggest = pools[max(pools)]
    page = {"prefix": "vdisk volume ls", "pool_spec": biggest, "limit": 1000}
    timings = [stage.fleet.one(Command({**page, "marker": f"filler-{number * 1000:07}"})) for number in range(8)]
    stage.add("list of 1000", "vdisk", timings)
    stage.add_value("mgr memory grown, MiB", "vdisk", (rss(pid) - before) / (1 << 20), count=max(pools))
    idle(stage)


def warm_up(stage: Stage, pool: str) -> None:
    """Have the mgr do once what is measured, so that its growth is that of the journal."""
    [volume] = stage.volumes(1, pool=pool)
    stage.vdisk("volume ls", pool_spec=pool)
    stage.vdisk("volume rm", volume=volume["handle"])
    stage.drain()


def latencies(stage: Stage, pools: dict[int, str]) -> None:
    """Lookup, create and delete in each pool, in turns."""
    found: dict[tuple[str, int], list[Timing]] = {}
    for number in range(stage.sizes.singles * 2):
        for size, pool in pools.items():
            name = stage.name("pvc")
            create = {"prefix": "vdisk volume create", "pool_spec": pool, "name": name, "size": str(GIB)}
            lookup = {"prefix": "vdisk volume info", "volume": f"{pool}/{name}"}
            remove = {"prefix": "vdisk volume rm", "volume": f"{pool}/{name}"}
            for what, arguments in (("create", create), ("lookup", lookup), ("delete", remove)):
                timing = stage.fleet.one(Command(arguments))
                if number:
                    found.setdefault((what, size), []).append(timing)
    for (what, size), timings in found.items():
        stage.add(f"{what} in a journal of {size}", "vdisk", timings)


def idle(stage: Stage) -> None:
    """CPU share of the whole mgr, all of its modules, when nothing is asked of it."""
    stage.drain()
    pid = stage.cluster.mgrs[stage.cluster.active_mgr()].pid
    started, before = time.monotonic(), cpu_seconds(pid)
    time.sleep(stage.sizes.idle_seconds)
    share = (cpu_seconds(pid) - before) / (time.monotonic() - started) * 100
    stage.add_value("mgr CPU when idle, %", "vdisk", share)
