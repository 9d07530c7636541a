"""Snapshots of images that vdisk has just made and nobody has open, taken without opening them.

Opening a clone through librbd, which opens its parent too, and locking it costs fifty OSD operations; the snapshot
itself is six. So where nothing can be in the way, the seal is written as librbd writes it (operation/
SnapshotCreateRequest.cc, object_map/SnapshotCreateRequest.cc): a snapshot id of the pool's, ``rbd.snapshot_add`` on the
header, a copy of the object map, ``rbd.object_map_snap_add``, and word to whoever watches the header. Whoever holds the
image's lock, journaling, a data pool of its own or a flag such as an invalid object map leave it to librbd.

The id is nothing but a number that the monitors give out, whatever it is for. It is asked for together with the one for
the cut, so that both come out of the same monitor round.
"""

from __future__ import annotations

import errno
import struct
import threading
from collections import OrderedDict

import rados

from ..model.errors import VdiskError
from ..model.observed import EXCLUSIVE_LOCK, OBJECT_MAP, OPERATIONS, PLAIN, STRIPING, Image, Location
from .connection import Connection
from .methods import execute, frame, string, tell_watchers

#: Features whose snapshots are no more than what is written here.
_SEALABLE = PLAIN | STRIPING | OPERATIONS
_LOCK = "rbd_lock"
_CHUNK = 4 << 20
#: cls::rbd::SnapshotNamespace of a user's snapshot.
_USER_NAMESPACE = frame(1, 1, struct.pack("<I", 0))
_MAX_ORDERS = 1000


class Seals:
    """Takes such snapshots, and orders their ids ahead."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._orders: OrderedDict[tuple[int, str], _Order] = OrderedDict()

    def order(self, where: Location, image: str) -> None:
        """Ask the monitors for the id of an image's snapshot to come; returns at once."""
        order = _Order(self._connection, where)
        with self._lock:
            self._orders[where.pool_id, image] = order
            while len(self._orders) > _MAX_ORDERS:
                self._orders.popitem(last=False)
        threading.Thread(target=order.run, name="vdisk-snap-id", daemon=True).start()

    def take(self, where: Location, image: Image, snap: str) -> bool:
        """Snapshot ``image`` as ``snap``; False when only librbd can."""
        if image.flags or image.features & ~_SEALABLE or image.data_pool_id is not None or image.snaps:
            return False
        header = f"rbd_header.{image.id}"
        with self._connection.ioctx(where, f"sealing {where}/{image.name}") as ioctx:
            if image.features & EXCLUSIVE_LOCK and _locked(ioctx, header):
                return False
            snap_id = self._id(ioctx, where, image.name)
            try:
                execute(ioctx, header, ("snapshot_add", string(snap) + struct.pack("<Q", snap_id) + _USER_NAMESPACE))
            except rados.Error as error:
                if getattr(error, "errno", None) == errno.ESTALE:
                    return False  # somebody's snapshot came and went, and took a newer id
                raise
            if image.features & OBJECT_MAP:
                _copy_object_map(ioctx, image.id, snap_id)
            tell_watchers(ioctx, header)
        return True

    def _id(self, ioctx: rados.Ioctx, where: Location, image: str) -> int:
        with self._lock:
            order = self._orders.pop((where.pool_id, image), None)
        found = order.wait() if order is not None else None
        return found if found is not None else int(ioctx.create_self_managed_snap())


class _Order:
    """An id that was asked for. Whatever goes wrong means that it is asked for again when it is needed."""

    def __init__(self, connection: Connection, where: Location) -> None:
        self._connection = connection
        self._where = where
        self._done = threading.Event()
        self._id: int | None = None

    def run(self) -> None:
        try:
            with self._connection.ioctx(self._where, "asking for a snapshot id") as ioctx:
                self._id = int(ioctx.create_self_managed_snap())
        except VdiskError:
            return  # whoever needs the id asks again, and has somebody to tell
        finally:
            self._done.set()

    def wait(self) -> int | None:
        self._done.wait()
        return self._id


def _locked(ioctx: rados.Ioctx, header: str) -> bool:
    """Tell whether anybody holds the image's exclusive lock (``cls_lock_get_info_op`` and its reply)."""
    _, reply = ioctx.execute(header, "lock", "get_info", frame(1, 1, string(_LOCK)))
    (lockers,) = struct.unpack_from("<I", reply, 6)
    return bool(lockers)


def _copy_object_map(ioctx: rados.Ioctx, image_id: str, snap_id: int) -> None:
    """Keep the object map for the snapshot, and mark what exists as unchanged since."""
    oid = f"rbd_object_map.{image_id}"
    data = b""
    try:
        while part := ioctx.read(oid, _CHUNK, len(data)):
            data += part
            if len(part) < _CHUNK:
                break
    except rados.ObjectNotFound:
        return  # then the image has none, whatever its features say
    ioctx.write_full(f"{oid}.{snap_id:016x}", data)
    execute(ioctx, oid, ("object_map_snap_add", b""))
