"""What a crash leaves in an image's objects that librbd itself does not get over, and its mending.

* **A snapshot without its object map.** librbd adds a snapshot to the header first and keeps the object map for it
  afterwards (operation/SnapshotCreateRequest.cc), and so does ``seals.py``. Cut in between, the snapshot is there, and
  opening the image at it is answered "not found" for ever: the map can't be read, and not be declared invalid either,
  for that would have to be noted in the map (object_map/RefreshRequest.cc, InvalidateRequest.cc).
* **A link to a snapshot that is gone.** At the end of a flattening librbd takes the clone out of its parent's list,
  removes the parent's snapshot if that was the last and it was in the trash, and then the clone's link
  (image/DetachChildRequest.cc, DetachParentRequest.cc). Cut in between, the clone holds all its data, and opening it,
  or what hangs on it, is answered "not found" for ever.
* **A watch of nobody.** An OSD that has a client's watch in hand when the connection breaks writes it down and has
  nobody to time it out (PrimaryLogPG::do_osd_op_effects, which returns where there is no session any more). Neither
  half a minute nor the client's blocklisting ends it, only a restart of the OSD, and librbd removes no image that is
  watched.
"""

from __future__ import annotations

import contextlib

import rados

from ..model.observed import OBJECT_MAP, Image, Snap
from . import omap
from .methods import execute, resize_map, tell_watchers

#: cls_rbd's state of an object that may exist: always true enough, for what does not exist is found not to when read.
_MAY_EXIST = 1


def lacks_map(ioctx: rados.Ioctx, image: Image, snap: Snap) -> bool:
    """Tell whether a snapshot has to have an object map and has none: librbd opens neither it nor its clones then."""
    if not image.features & OBJECT_MAP:
        return False
    try:
        ioctx.stat(_map_of(image, snap))
    except rados.ObjectNotFound:
        return True
    return False


def mend_map(ioctx: rados.Ioctx, image: Image, snap: str) -> bool:
    """Give a snapshot an object map if it has to have one and has none; returns whether that was so.

    Every object may exist in it, because nobody can tell any more which did.
    """
    found = image.snap(snap)
    if found is None or not lacks_map(ioctx, image, found):
        return False
    objects = -(-found.size >> image.order)
    with contextlib.suppress(rados.ObjectExists):  # somebody was faster
        execute(ioctx, _map_of(image, found), resize_map(objects, _MAY_EXIST), new=True)
    return True


def _map_of(image: Image, snap: Snap) -> str:
    return f"rbd_object_map.{image.id}.{snap.id:016x}"


def cut_link(ioctx: rados.Ioctx, image: Image) -> None:
    """Take the last step of a flattening; that it was taken already, by somebody else, is no error."""
    header = f"rbd_header.{image.id}"
    with contextlib.suppress(rados.ObjectNotFound):
        execute(ioctx, header, ("parent_detach", b""))
        tell_watchers(ioctx, header)


def forget_watches(ioctx: rados.Ioctx, image_id: str) -> bool:
    """End every watch of an image that is to be removed, in the trash; False when somebody just changed its header.

    The header is removed and made again with the same content, in one operation, which takes its watches along.
    ``ioctx`` is the caller's alone, because the version that was read counts.
    """
    oid = f"rbd_header.{image_id}"
    ioctx.stat(oid)
    version = ioctx.get_last_version()
    values = omap.get_all(ioctx, oid) or {}
    attributes = dict(ioctx.get_xattrs(oid))
    if ioctx.get_last_version() != version:
        return False
    try:
        with rados.WriteOpCtx() as op:
            op.assert_version(version)
            op.remove()
            op.new(rados.LIBRADOS_CREATE_EXCLUSIVE)
            ioctx.set_omap(op, tuple(values), tuple(values.values()))
            for name, value in attributes.items():
                op.set_xattr(name, value)
            ioctx.operate_write_op(op, oid)
    except (rados.Error, OSError):
        # Of another version, or the OSD won't have it: the watches stay, and whoever wanted the removal tries again.
        return False
    return True
