"""Times `vdisk check` on a cluster of its own that is filled with volumes first: journal, and real images.

    python tools/check_rates.py --release pacific --volumes 20000

The volumes are written by processes beside the mgr, the way vdisk and librbd write them, because what is measured is
the check, not their creation. Prints what was made and how fast, and the check's time, its rate and what it found.
"""

import argparse
import concurrent.futures
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import rados
import rbd

REPO = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPO / "tests"), str(REPO / "src")]

from cluster.support import Vdisk  # noqa: E402
from harness.cluster import Cluster  # noqa: E402
from harness.config import FAST  # noqa: E402
from harness.releases import ensure_root  # noqa: E402

POOL = "checked"
SIZE = 4 << 20
BATCH = 250


def fill(conf: str, keyring: str, numbers: Sequence[int]) -> int:
    """Make volumes of these numbers with one connection; returns how many."""
    handle = rados.Rados(name="client.admin", conffile=conf, conf={"keyring": keyring, "log_file": ""})
    handle.connect()
    try:
        with handle.open_ioctx(POOL) as ioctx:
            keys = {}
            for number in numbers:
                ident, name = str(uuid.uuid4()), f"pvc-{number:06}"
                image = f"csi-vol-{ident}"
                rbd.RBD().create(ioctx, image, SIZE, features=rbd.RBD_FEATURE_LAYERING, old_format=False)
                image_id = ioctx.read(f"rbd_id.{image}")[4:].decode()
                _set(ioctx, f"csi.volume.{ident}", _entry(image, name, image_id))
                keys[f"csi.volume.{name}"] = ident.encode()
            _set(ioctx, "csi.volumes.default", keys)
    finally:
        handle.shutdown()
    return len(numbers)


def _entry(image: str, name: str, image_id: str) -> dict[str, bytes]:
    values = {"csi.imagename": image, "csi.volname": name, "csi.imageid": image_id}
    return {key: value.encode() for key, value in values.items()}


def _set(ioctx: rados.Ioctx, oid: str, values: dict[str, bytes]) -> None:
    with rados.WriteOpCtx() as op:
        ioctx.set_omap(op, tuple(values), tuple(values.values()))
        ioctx.operate_write_op(op, oid, mtime=int(time.time()))


def measure(release: str, volumes: int, seconds: float) -> None:
    """Fill a cluster for at most so long, check it, and print the figures."""
    ensure_root(release)
    with Cluster(release, conf=FAST) as cluster:
        cluster.ceph("config", "set", "mgr", "mgr/vdisk/check_interval", "0")
        cluster.ceph("config", "set", "mgr", "mgr/vdisk/check_grace", "0")
        cluster.create_pool(POOL)
        vdisk = Vdisk(cluster, timeout=700)
        vdisk("volume create", pool_spec=POOL, name="first", size="4M")
        began, made = time.monotonic(), 1
        arguments = (str(cluster.conf_path), str(cluster.layout.keyring("client.admin")))
        with concurrent.futures.ProcessPoolExecutor(4) as pool:
            batches = [range(at, min(at + BATCH, volumes)) for at in range(1, volumes, BATCH)]
            while batches and time.monotonic() - began < seconds:
                now, batches = batches[:8], batches[8:]
                made += sum(pool.map(fill, *([argument] * len(now) for argument in arguments), now))
        took = time.monotonic() - began
        print(f"{release}: {made} volumes made in {took:.0f} s ({made / took:.0f} a second)", flush=True)
        began = time.monotonic()
        result = vdisk("check", pool_spec=POOL, wait=600)
        took = time.monotonic() - began
        print(f"checked in {took:.1f} s ({made / took:.0f} a second): {result['checked']}, {result['found']} found")


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--release", default="pacific")
    parser.add_argument("--volumes", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=240, help="stop filling after so long")
    args = parser.parse_args()
    measure(args.release, args.volumes, args.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
