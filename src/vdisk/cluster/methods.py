"""Calls of the methods that an OSD has for RBD's objects (src/cls/rbd/cls_rbd.cc), and the encoding of what they take.

Ceph's encoding is little-endian; a string is its length in 32 bits and its UTF-8 bytes, and a structure is framed by
its version, the oldest version that can read it (a byte each) and its length in 32 bits.
"""

from __future__ import annotations

import struct

import rados

from . import omap
from .header import decode_string

Call = tuple[str, bytes]
"""Name and input of a method of class ``rbd``."""


def string(text: str) -> bytes:
    """Encode a string."""
    data = text.encode()
    return struct.pack("<I", len(data)) + data


def frame(version: int, compatible: int, content: bytes) -> bytes:
    """Encode a structure."""
    return struct.pack("<BBI", version, compatible, len(content)) + content


#: librbd's NotifyMessage (WatchNotifyTypes.cc): version 6, compatible 1, 4 bytes: NOTIFY_OP_HEADER_UPDATE.
_HEADER_UPDATE = frame(6, 1, struct.pack("<I", 3)).decode("ascii")
_NOTIFY_MS = 5000


def execute(ioctx: rados.Ioctx, oid: str, *calls: Call, new: bool = False) -> None:
    """Call methods of one object in one write, which happens wholly or not at all.

    None of them sees what another has written. With ``new`` the object is made, and one that exists is an error.
    """
    with rados.WriteOpCtx() as op:
        if new:
            op.new(rados.LIBRADOS_CREATE_EXCLUSIVE)
        for method, data in calls:
            op.execute("rbd", method, data)
        omap.write(ioctx, op, oid)


def read_id(ioctx: rados.Ioctx, name: str) -> str | None:
    """Return the id of the image of that name outside of the trash, None for no image. One read."""
    try:
        return decode_string(ioctx.read(f"rbd_id.{name}", 1024))
    except rados.ObjectNotFound:
        return None


def resize_map(objects: int, state: int) -> Call:
    """Give an object map so many objects; new ones are in ``state`` (0 does not exist, 1 may exist)."""
    return "object_map_resize", struct.pack("<QB", objects, state)


def tell_watchers(ioctx: rados.Ioctx, header: str) -> None:
    """Have whoever watches a header read it again, as librbd does after each change."""
    ioctx.notify(header, _HEADER_UPDATE, _NOTIFY_MS)
