"""What the cluster tests share: vdisk's commands as a JSON client sends them, and looks at everything a pool holds."""

import contextlib
import errno
import json
import re
import signal
import subprocess
import sys
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
INFO_FIELDS = ["used", "parents", "depth", "watchers", "exclusive", "held_by", "frees", "frees_with"]
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

    def __init__(self, cluster: Cluster, entity: str = ADMIN, timeout: float = 60) -> None:
        self.cluster = cluster
        self.entity = entity
        self.timeout = timeout

    def raw(self, words: str, **args: Any) -> tuple[int, str, str]:
        """Send ``vdisk <words>`` with exactly these arguments."""
        return self.cluster.mgr_command({"prefix": f"vdisk {words}", **args}, entity=self.entity, timeout=self.timeout)

    def patiently(self, words: str, **args: Any) -> tuple[int, str, str]:
        """Send a command in JSON, again while it is still running after the time that commands wait by themselves."""

        def settled() -> tuple[int, str, str] | None:
            answer = self.raw(words, **{"format": "json", **args})
            return None if "wait" not in args and answer[2].startswith("pending: ") else answer

        return wait_for(settled, 60, f"vdisk {words} {args} is through", ignore=())

    def __call__(self, words: str, **args: Any) -> Any:
        """Send a command that has to work and return what its JSON holds."""
        ret, out, status = self.patiently(words, **args)
        if ret:
            raise CommandFailed(f"vdisk {words} {args}: {ret} {status or out}")
        return json.loads(out)

    def refused(self, words: str, **args: Any) -> Refusal:
        """Send a command that has to fail, check the form of its error and return it."""
        ret, out, status = self.patiently(words, **args)
        assert ret != 0, f"vdisk {words} {args} worked: {out}"
        return check_error(ret, out, status)

    def until(self, words: str, timeout: float = 40, **args: Any) -> Any:
        """Repeat a command until it works, as a client does on EAGAIN."""

        def answered() -> tuple[Any]:
            try:
                return (self(words, **args),)  # an empty list is an answer, too
            except rados.Error as error:
                raise CommandFailed(str(error)) from error

        return wait_for(answered, timeout, f"vdisk {words} works", ignore=(CommandFailed,))[0]

    def sealed(self, snapshot: str, timeout: float = 20) -> dict[str, Any]:
        """Wait until a snapshot is sealed and return it.

        The seal is in the image's header before its object map is there and before vdisk lets go of the image: what
        makes it has to be over, too.
        """

        def look() -> Any:
            info = self("snap info", snapshot=snapshot)
            place = "/".join(filter(None, (info["pool"], info["namespace"])))
            sealing = any(
                op["target"] == f"{place}/{info['name']}" or ("group" in info and op["kind"] == "group snap create")
                for op in self.moving(place)
            )
            return info if info["sealed"] and not sealing else None

        found: dict[str, Any] = wait_for(look, timeout, f"{snapshot} is sealed")
        return found

    def recovered(self) -> bool:
        """Tell whether vdisk has read all that the mgr before this one began: before, it knows of none of that."""
        return not self("status").get("recovering")

    def moving(self, spec: str = "", may_wait: bool = True) -> list[dict[str, Any]]:
        """Return the operations (of a pool or namespace) that are neither over nor, if they may, wait for clones."""
        return [
            op
            for op in self("op ls")
            if (not spec or op["target"].startswith(spec + "/"))
            and op["state"] not in ("done", "failed")
            and not (may_wait and op["state"] == "waiting" and op["step"] == "await-children")
        ]

    def operations(self, spec: str) -> list[dict[str, Any]]:
        """Return the operations whose target lies in a pool (and all its namespaces) or a namespace."""
        return [op for op in self("op ls") if op["target"].startswith(spec + "/")]

    def drained(self, spec: str, timeout: float = 60) -> None:
        """Wait until every operation of a pool or namespace has ended, and rbd_support has done what it was given."""
        pool, _, _ = spec.partition("/")

        def done() -> bool:
            assert self.recovered()
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


def wait_recovered(cluster: Cluster) -> None:
    """Wait until vdisk, which answers before, has read what the mgr before this one began."""
    wait_for(Vdisk(cluster).recovered, 40, "vdisk has read what was begun")


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


def another(handle: str) -> str:
    """Return a handle of the same form and pool that leads to nothing."""
    return handle[:-36] + "00000000-0000-4000-8000-000000000000"


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
    handle.wait_for_latest_osdmap()  # or pools that were removed just now are still there
    for pool in handle.list_pools():
        if pool.startswith((".", "device_")):
            continue
        with handle.open_ioctx(pool) as ioctx:
            ioctx.set_namespace(rados.LIBRADOS_ALL_NSPACES)
            listed = [(item.nspace, item.key) for item in ioctx.list_objects()]
            for namespace, key in listed:
                ioctx.set_namespace(namespace)
                # Data that was in snapshots is listed until it is trimmed.
                with contextlib.suppress(rados.ObjectNotFound):
                    found[pool, namespace, key] = (bytes(ioctx.read(key, 4096)), omap(ioctx, key))
    return found


def differences(before: Mapping[Any, Any], after: Mapping[Any, Any]) -> list[Any]:
    """Return the keys under which two inventories differ."""
    return [key for key in sorted({*before, *after}) if before.get(key) != after.get(key)]


@contextlib.contextmanager
def unchanged(cluster: Cluster) -> Iterator[None]:
    """Assert that the block changes nothing in any pool.

    Answers come before the end of what was asked for (seals, reclaiming, the erasure of intents): that is waited for.
    """
    vdisk = Vdisk(cluster)

    def at_rest() -> bool:
        assert vdisk.recovered()
        moving = vdisk.moving()
        assert not moving, moving
        return True

    wait_for(at_rest, 40, "nothing is under way")
    before = inventory(cluster)
    yield
    after = inventory(cluster)
    changed = differences(before, after)
    assert not changed, "\n".join(f"{key}: {before.get(key)} -> {after.get(key)}" for key in changed)


def mgr_log(cluster: Cluster) -> str:
    """Return what all managers logged so far. Each writes on a thread of its own, which may lag: it is told to."""
    for name, daemon in cluster.mgrs.items():
        if daemon.running:
            cluster.ceph(
                "--admin-daemon", str(cluster.layout.sockets / f"mgr.{name}.asok"), "log", "flush", check=False
            )
    return "".join(daemon.log() for daemon in cluster.mgrs.values())


# -- clients that are in the way ---------------------------------------------------------------------------------------

_OWNER = """
import sys, rados, rbd
conf, keyring, pool, by, image = sys.argv[1:]
handle = rados.Rados(name="client.admin", conffile=conf, conf={"keyring": keyring, "log_file": ""})
handle.connect()
ioctx = handle.open_ioctx(pool)
opened = rbd.Image(ioctx, **{by: image})
opened.lock_acquire(rbd.RBD_LOCK_MODE_EXCLUSIVE)
opened.write(b"mine", 0)
print("locked", flush=True)
sys.stdin.read()
opened.close()
ioctx.close()
handle.shutdown()
"""


@contextlib.contextmanager
def silent_owner(cluster: Cluster, pool: str, image: str, by: str = "name") -> Iterator["subprocess.Popen[str]"]:
    """Have a client hold the exclusive lock of an image of that name (or ``image_id``) and stop answering.

    Who wants the lock gets it after ``SIGCONT``; ``communicate("")`` has the client end in good order. However long
    that takes: the OSD, which takes a client that says nothing for 30 s for dead, is told to be patient with this one.
    """
    for name in cluster.osds:
        cluster.ceph("tell", f"osd.{name}", "config", "set", "osd_client_watch_timeout", "3600")
    keyring = str(cluster.layout.keyring("client.admin"))
    argv = [sys.executable, "-c", _OWNER, str(cluster.conf_path), keyring, pool, by, image]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        try:
            assert owner.stdout is not None
            assert owner.stdout.readline() == "locked\n"
            for name in cluster.osds:
                cluster.ceph("tell", f"osd.{name}", "config", "set", "osd_client_watch_timeout", "30")
            owner.send_signal(signal.SIGSTOP)
            yield owner
        finally:
            owner.kill()


def leave_link(ioctx: rados.Ioctx, image: str) -> None:
    """Flatten an image and leave it as a flattening does that is cut before its last step.

    All data is its own, its parent's snapshot is gone, and its header still leads there. ``image`` has to be the only
    clone of a snapshot that was removed.
    """
    with rbd.Image(ioctx, image) as handle:
        header = f"rbd_header.{handle.id()}"
        linked = omap(ioctx, header)
        handle.flatten()
    # What only the last step changes: the link, and the overlap in the records of snapshots.
    changed = {key: value for key, value in linked.items() if key == "parent" or key.startswith("snapshot_")}
    set_omap(ioctx, header, changed)
    with contextlib.suppress(rbd.ImageNotFound):
        rbd.Image(ioctx, image, read_only=True).close()
        raise AssertionError(f"{image} is found although its parent's snapshot is gone")
