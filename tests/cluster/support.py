"""What the cluster tests share: vdisk's commands as a JSON client sends them, and looks at everything a pool holds."""

import contextlib
import errno
import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import rados
import rbd

from harness.cluster import Cluster
from harness.wait import wait_for

ADMIN = "client.admin"
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")

_COMMON = ["name", "handle", "uuid", "pool", "namespace", "image", "image_id"]
VOLUME_FIELDS = [*_COMMON, "size", "state", "created_at", "source"]
SNAPSHOT_FIELDS = [*_COMMON, "source", "size", "created_at", "state", "ready_to_use", "sealed"]
INFO_FIELDS = ["used", "parents", "depth", "watchers", "exclusive", "held_by", "frees"]
OPERATION_FIELDS = ["id", "kind", "target", "state", "step", "progress", "waiting_for", "started_at", "error"]

ERRNO = {
    "invalid_argument": errno.EINVAL,
    "not_found": errno.ENOENT,
    "already_exists": errno.EEXIST,
    "in_use": errno.EBUSY,
    "has_dependents": errno.ENOTEMPTY,
    "pending": errno.EAGAIN,
    "throttled": errno.EAGAIN,
    "not_ready": errno.EAGAIN,
    "out_of_range": errno.ERANGE,
    "no_space": errno.ENOSPC,
    "denied": errno.EACCES,
    "unsupported": errno.EOPNOTSUPP,
    "internal": errno.EIO,
}
"""Stable error code -> errno (doc/errors.md)."""
RETRYABLE = {"pending", "throttled", "not_ready", "no_space"}


class CommandFailed(AssertionError):
    """A vdisk command that should have worked did not."""


@dataclass(frozen=True)
class Refusal:
    """A vdisk command's error, checked for its form."""

    code: str
    message: str
    details: Mapping[str, Any] = field(default_factory=dict)


class Vdisk:
    """``vdisk`` commands of one cluster as one entity, in JSON, with a deadline each."""

    def __init__(self, cluster: Cluster, entity: str = ADMIN, timeout: float = 40) -> None:
        self.cluster = cluster
        self.entity = entity
        self.timeout = timeout

    def raw(self, words: str, **args: Any) -> tuple[int, str, str]:
        """Send ``vdisk <words>`` with exactly these arguments."""
        return self.cluster.mgr_command({"prefix": f"vdisk {words}", **args}, entity=self.entity, timeout=self.timeout)

    def __call__(self, words: str, **args: Any) -> Any:
        """Send a command that has to work and return what its JSON holds."""
        ret, out, status = self.raw(words, **{"format": "json", **args})
        if ret:
            raise CommandFailed(f"vdisk {words} {args}: {ret} {status or out}")
        return json.loads(out)

    def refused(self, words: str, **args: Any) -> Refusal:
        """Send a command that has to fail, check the form of its error and return it."""
        ret, out, status = self.raw(words, **{"format": "json", **args})
        assert ret != 0, f"vdisk {words} {args} worked: {out}"
        return check_error(ret, out, status)

    def until(self, words: str, timeout: float = 40, **args: Any) -> Any:
        """Repeat a command until it works, as a client does on EAGAIN."""

        def answered() -> Any:
            try:
                return self(words, **args)
            except rados.Error as error:
                raise CommandFailed(str(error)) from error

        return wait_for(answered, timeout, f"vdisk {words} works", ignore=(CommandFailed,))

    def sealed(self, snapshot: str, timeout: float = 20) -> dict[str, Any]:
        """Wait until a snapshot is sealed and return it."""

        def look() -> Any:
            info = self("snap info", snapshot=snapshot)
            return info if info["sealed"] else None

        found: dict[str, Any] = wait_for(look, timeout, f"{snapshot} is sealed")
        return found

    def operations(self, spec: str) -> list[dict[str, Any]]:
        """Return the operations whose target lies in a pool (and all its namespaces) or a namespace."""
        return [op for op in self("op ls") if op["target"].startswith(spec + "/")]

    def drained(self, spec: str, timeout: float = 60) -> None:
        """Wait until every operation of a pool or namespace has ended, and rbd_support has done what it was given."""
        pool, _, _ = spec.partition("/")

        def done() -> bool:
            left = [op for op in self.operations(spec) if op["state"] not in ("done", "failed")]
            assert not left, left
            tasks = [task for task in rbd_tasks(self.cluster) if task["refs"].get("pool_name") == pool]
            assert not tasks, tasks
            return True

        wait_for(done, timeout, f"all operations of {spec} ended", interval=0.1)


def check_error(ret: int, out: str, status: str) -> Refusal:
    """Check that an error has the form of doc/errors.md, whatever it is, and return it."""
    body = json.loads(out)
    assert list(body) == ["error"]
    error = body["error"]
    assert list(error) == ["code", "message", "retryable", "details"]
    code, message = error["code"], error["message"]
    assert ret == -ERRNO[code], (ret, error)
    assert error["retryable"] is (code in RETRYABLE)
    assert isinstance(error["details"], dict)
    assert message
    assert "\n" not in message
    told = f"{code}: {message}"
    # The mgr appends advice of its own about caps to every EACCES that a module answers with.
    assert status == told or (code == "denied" and status.startswith(told) and "access denied" in status), status
    for text in (out, status):
        assert "Traceback" not in text
        assert 'File "' not in text
        assert ".py" not in text
    return Refusal(code, message, error["details"])


def rbd_tasks(cluster: Cluster) -> list[dict[str, Any]]:
    """Return what ``ceph rbd task list`` shows."""
    ret, out, status = cluster.mgr_command({"prefix": "rbd task list", "format": "json"}, timeout=20)
    assert ret == 0, status
    tasks: list[dict[str, Any]] = json.loads(out or "[]")
    return tasks


def has_task_queue(cluster: Cluster) -> bool:
    """Tell whether vdisk gives removals to rbd_support; on Reef with Python 3.13 that would kill the mgr."""
    return cluster.release.name != "reef"


# -- looking at pools -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def opened(cluster: Cluster, spec: str) -> Iterator[rados.Ioctx]:
    """Yield an I/O context of ``pool[/namespace]``."""
    pool, _, namespace = spec.partition("/")
    with cluster.connect().open_ioctx(pool) as ioctx:
        ioctx.set_namespace(namespace)
        yield ioctx


def pool_id(cluster: Cluster, spec: str) -> int:
    """Return the id of the pool of a spec."""
    with opened(cluster, spec) as ioctx:
        return int(ioctx.get_pool_id())


def image_spec(thing: Mapping[str, Any]) -> str:
    """Return ``pool[/namespace]/image`` of a volume or snapshot."""
    return "/".join(part for part in (thing["pool"], thing["namespace"], thing["image"]) if part)


def omap(ioctx: rados.Ioctx, oid: str) -> dict[str, bytes]:
    """Return every key and value of an object's omap."""
    pairs: dict[str, bytes] = {}
    after = ""
    while True:
        with rados.ReadOpCtx() as op:
            found, _ = ioctx.get_omap_vals(op, after, "", 1000)
            ioctx.operate_read_op(op, oid)
            # The binding gives None for an empty value.
            page = [(key, value or b"") for key, value in found]
        pairs.update(page)
        if len(page) < 1000:
            return pairs
        after = page[-1][0]


def set_omap(ioctx: rados.Ioctx, oid: str, values: Mapping[str | bytes, bytes]) -> None:
    """Set keys of an object's omap."""
    with rados.WriteOpCtx() as op:
        ioctx.set_omap(op, tuple(values), tuple(values.values()))
        # Without a time the binding dates the object to 1970.
        ioctx.operate_write_op(op, oid, mtime=int(time.time()))


def objects(cluster: Cluster, spec: str) -> list[str]:
    """Return the names of all RADOS objects of a pool and namespace."""
    with opened(cluster, spec) as ioctx:
        return sorted(item.key for item in ioctx.list_objects())


def journal(cluster: Cluster, spec: str) -> dict[str, dict[str, bytes]]:
    """Return every object of the journal with its omap, as it is in the cluster."""
    with opened(cluster, spec) as ioctx:
        names = sorted(item.key for item in ioctx.list_objects())
        return {name: omap(ioctx, name) for name in names if name.startswith("csi.")}


def image_names(cluster: Cluster, spec: str) -> list[str]:
    """Return the images of a pool and namespace, as ``rbd ls`` does."""
    with opened(cluster, spec) as ioctx:
        return sorted(rbd.RBD().list(ioctx))


def trash(cluster: Cluster, spec: str) -> dict[str, str]:
    """Return the trash of a pool and namespace: image id -> former name."""
    with opened(cluster, spec) as ioctx:
        return {entry["id"]: entry["name"] for entry in rbd.RBD().trash_list(ioctx)}


def snapshots(cluster: Cluster, spec: str, image: str) -> list[str]:
    """Return the snapshots that users see on an image."""
    with opened(cluster, spec) as ioctx, rbd.Image(ioctx, image, read_only=True) as handle:
        return [snap["name"] for snap in handle.list_snaps() if snap["namespace"] == rbd.RBD_SNAP_NAMESPACE_TYPE_USER]


def read_image(cluster: Cluster, spec: str, image: str, size: int, offset: int = 0) -> bytes:
    """Read from an image."""
    with opened(cluster, spec) as ioctx, rbd.Image(ioctx, image, read_only=True) as handle:
        return bytes(handle.read(offset, size))


def write_image(cluster: Cluster, spec: str, image: str, data: bytes, offset: int = 0) -> None:
    """Write to an image."""
    with opened(cluster, spec) as ioctx, rbd.Image(ioctx, image) as handle:
        handle.write(data, offset)
        handle.flush()


def inventory(cluster: Cluster) -> dict[tuple[str, str, str], tuple[bytes, dict[str, bytes]]]:
    """Return every RADOS object of every pool: (pool, namespace, object) -> (its first bytes, its omap).

    Two inventories are equal when nothing at all was changed.
    """
    found = {}
    handle = cluster.connect()
    for pool in handle.list_pools():
        if pool.startswith((".", "device_")):
            continue
        with handle.open_ioctx(pool) as ioctx:
            ioctx.set_namespace(rados.LIBRADOS_ALL_NSPACES)
            listed = [(item.nspace, item.key) for item in ioctx.list_objects()]
            for namespace, key in listed:
                ioctx.set_namespace(namespace)
                found[pool, namespace, key] = (bytes(ioctx.read(key, 4096)), omap(ioctx, key))
    return found


def differences(before: Mapping[Any, Any], after: Mapping[Any, Any]) -> list[Any]:
    """Return the keys under which two inventories differ."""
    return [key for key in sorted({*before, *after}) if before.get(key) != after.get(key)]


@contextlib.contextmanager
def unchanged(cluster: Cluster) -> Iterator[None]:
    """Assert that the block changes nothing in any pool."""
    before = inventory(cluster)
    yield
    after = inventory(cluster)
    changed = differences(before, after)
    assert not changed, "\n".join(f"{key}: {before.get(key)} -> {after.get(key)}" for key in changed)


def mgr_log(cluster: Cluster) -> str:
    """Return what all managers logged so far."""
    return "".join(daemon.log() for daemon in cluster.mgrs.values())
