"""Measures the CSI controller beside the bare module: csi_rates.py [--release R] [--count N] [--at 1,8,64] [--fast].

Both ask the same of one cluster. The bare client sends a command with ``wait`` 0 and looks for the end of its own
operation with ``op ls --ids``, as the driver does for all calls together. Prints a table in Markdown: calls a second
and the median in milliseconds.
"""

import argparse
import concurrent.futures
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import rados

from cluster.csi_driver import MIB, create_request, running
from harness.cluster import Cluster
from harness.config import FAST
from vdisk_csi.proto import csi_pb2 as csi

_PAUSE = 0.04
Calls = list[Callable[[int], Any]]


def bare(handle: rados.Rados, words: str, **arguments: Any) -> Any:
    """Send a vdisk command and wait for its end."""

    def send(words: str, **arguments: Any) -> Any:
        command = {"prefix": f"vdisk {words}", "format": "json", **arguments}
        code, out, status = handle.mgr_command(json.dumps(command, ensure_ascii=False), b"")
        if code:
            raise RuntimeError(f"{words}: {code} {status}")
        return json.loads(out)

    answer = send(words, wait=0, **arguments)
    while answer.get("state") == "pending":
        time.sleep(_PAUSE)
        (row,) = send("op ls", ids=answer["operation"])
        if row["answered"]:
            return {**answer, "handle": row["handle"], "image": row["image"]}
        if row["state"] in ("failed", "unknown"):
            raise RuntimeError(str(row))
    return answer


class Bare:
    """The four requests as commands."""

    name = "module"

    def __init__(self, handle: rados.Rados) -> None:
        self._handle = handle
        self._volumes: dict[str, Any] = {}
        self._snaps: dict[str, Any] = {}

    def create(self, key: str) -> None:
        """Create a volume."""
        self._volumes[key] = bare(self._handle, "volume create", pool_spec="rbd", name=key, size="16M")

    def snapshot(self, key: str) -> None:
        """Snapshot it."""
        image = f"rbd/{self._volumes[key]['image']}"
        self._snaps[key] = bare(self._handle, "snap create", image_spec=image, snap_name=key)

    def restore(self, key: str) -> None:
        """Make a volume of the snapshot."""
        self._volumes["r" + key] = bare(
            self._handle, "volume restore", snapshot=self._snaps[key]["handle"], name="r" + key, size="16M"
        )

    def delete(self, key: str) -> None:
        """Delete the three."""
        bare(self._handle, "volume rm", volume=self._volumes["r" + key]["handle"])
        bare(self._handle, "snap rm", snapshot=self._snaps[key]["handle"])
        bare(self._handle, "volume rm", volume=self._volumes[key]["handle"])


class Driver:
    """The four requests as calls."""

    name = "driver"

    def __init__(self, controller: Any) -> None:
        self._controller = controller
        self._volumes: dict[str, str] = {}
        self._snaps: dict[str, str] = {}

    def create(self, key: str) -> None:
        """Create a volume."""
        self._volumes[key] = self._controller.CreateVolume(create_request("rbd", key, 16 * MIB)).volume.volume_id

    def snapshot(self, key: str) -> None:
        """Snapshot it."""
        request = csi.CreateSnapshotRequest(source_volume_id=self._volumes[key], name=key)
        self._snaps[key] = self._controller.CreateSnapshot(request).snapshot.snapshot_id

    def restore(self, key: str) -> None:
        """Make a volume of the snapshot."""
        request = create_request("rbd", "r" + key, 16 * MIB, snapshot=self._snaps[key])
        self._volumes["r" + key] = self._controller.CreateVolume(request).volume.volume_id

    def delete(self, key: str) -> None:
        """Delete the three."""
        self._controller.DeleteVolume(csi.DeleteVolumeRequest(volume_id=self._volumes["r" + key]))
        self._controller.DeleteSnapshot(csi.DeleteSnapshotRequest(snapshot_id=self._snaps[key]))
        self._controller.DeleteVolume(csi.DeleteVolumeRequest(volume_id=self._volumes[key]))


def measure(call: Callable[[str], None], keys: list[str], at: int) -> tuple[float, float]:
    """Return calls a second and the median in milliseconds."""

    def timed(key: str) -> float:
        start = time.monotonic()
        call(key)
        return time.monotonic() - start

    start = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(at) as threads:
        times = list(threads.map(timed, keys))
    return len(keys) / (time.monotonic() - start), 1000 * statistics.median(times)


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--release", default="pacific")
    options.add_argument("--count", type=int, default=128, help="volumes at the largest concurrency")
    options.add_argument("--at", default="1,8,64", help="calls at once")
    options.add_argument("--fast", action="store_true", help="monitors that decide at once")
    args = options.parse_args()
    print("| request | at once | module: a second | ms | driver: a second | ms |\n|---|---|---|---|---|---|")
    with Cluster(args.release, conf=FAST if args.fast else {}) as cluster, running(cluster) as process:
        cluster.create_pool("rbd")
        for at in map(int, args.at.split(",")):
            count = min(args.count, max(6, 2 * at))
            sides = [Bare(cluster.connect()), Driver(process.controller)]
            for request in ("create", "snapshot", "restore", "delete"):
                cells = []
                for side in sides:
                    keys = [f"{side.name}-{at}-{number}" for number in range(count)]
                    rate, median = measure(getattr(side, request), keys, at)
                    cells.append(f"{rate:.1f} | {median:.0f}")
                print(f"| {request} | {at} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
