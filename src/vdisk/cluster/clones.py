"""Clones of snapshots, written without opening parent or clone.

librbd opens both, at fifty OSD operations and most of a restore's time; the clone itself is six writes. So where
nothing can be in the way, it is written as librbd writes it (image/CloneRequest.cc, CreateRequest.cc,
AttachParentRequest.cc, AttachChildRequest.cc), in the same order, so that one that is cut short is left as librbd's
might be: the name in the directory, the object that leads from it to the id, the header, the object map, the link to
the parent, and last the parent's link to the clone, which fails if the snapshot is gone by then.

What takes more than that is left to librbd: another pool, which may never have held an image; striping, a data pool or
a journal, asked for or by default, in the pool's own configuration too; a parent with features or operations that are
not known here; and one with image metadata, which librbd copies.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Mapping

import rados

from ..model.layout import MAX_OBJECT_MAP_OBJECTS, Layout
from ..model.observed import (
    FAST_DIFF,
    LAYERING,
    OBJECT_MAP,
    OPERATIONS,
    PLAIN,
    Child,
    Image,
    Location,
    Parent,
    Snap,
)
from . import omap
from .connection import Connection
from .header import decode_image
from .mending import lacks_map
from .methods import Call, execute, frame, read_id, resize_map, string

#: Features that a parent may have. librbd passes others on to clones, wholly or in part.
_PARENTS = PLAIN | OPERATIONS
#: librbd's RBD_OPERATION_FEATUREs: being a parent of format 2, a clone of format 2, in a group, snapshots in the trash.
_CLONE_CHILD = 1 << 1
_OPERATIONS = 1 << 0 | _CLONE_CHILD | 1 << 2 | 1 << 3
#: Options by which librbd lays out what nobody laid out otherwise.
_DEFAULTS = ("rbd_default_data_pool", "rbd_default_stripe_unit", "rbd_default_stripe_count")
#: What a pool's own configuration is kept in, in its default namespace, with this prefix to the options' names.
_POOL_INFO = "rbd_info"
_POOL_OPTION = "metadata_conf_"
_METADATA = "metadata_"
#: RBD_MAX_IMAGE_ID_LENGTH.
_MAX_ID = 14
_NO_DATA_POOL = -1
_DIRECTORY_READY = b"\0"
_ABSENT = 0


class Clones:
    """Writes such clones."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def write(self, parent: Location, image: str, snap: str, where: Location, name: str, layout: Layout) -> bool:
        """Clone ``image@snap`` (clone format 2) to a new image; False when only librbd can.

        An existing image raises ``AlreadyExists``, a snapshot that goes meanwhile ``NotFound``.
        """
        if parent.pool_id != where.pool_id or layout.stripe_unit is not None or layout.data_pool is not None:
            return False
        what = f"cloning {parent}/{image}@{snap} to {where}/{name}"
        with (
            self._connection.handle(what) as handle,
            self._connection.ioctx(Location(where.pool_id, where.pool), what) as pool_ioctx,
            self._connection.ioctx(parent, what) as parent_ioctx,
            self._connection.ioctx(where, what) as ioctx,
        ):
            configured = omap.Reading(pool_ioctx, _POOL_INFO)
            try:
                found = _clonable(parent_ioctx, image, snap)
            finally:
                options = configured.result() or {}
            if found is None or _configured(handle, options):
                return False
            source, at = found
            features = source.features & PLAIN if layout.features is None else layout.features
            if features & OBJECT_MAP:
                features |= FAST_DIFF
            order = source.order if layout.order is None else layout.order
            if features & ~PLAIN or not features & LAYERING or -(-at.size >> order) > MAX_OBJECT_MAP_OBJECTS:
                return False
            child = Child(where.pool_id, where.namespace, _new_id(handle))
            link = Parent(parent.pool_id, parent.namespace, source.id, at.id)
            for oid, new, calls in _child_writes(child, name, at.size, features, order, link):
                execute(ioctx, oid, *calls, new=new)
            execute(parent_ioctx, f"rbd_header.{source.id}", _attached(child, at.id))
        return True


def _configured(handle: rados.Rados, pool_options: Mapping[str, bytes]) -> bool:
    """Tell whether somebody has set a default that librbd follows and a clone of ours would not."""
    if any(_POOL_OPTION + option in pool_options for option in _DEFAULTS):
        return True
    return any(handle.conf_get(option) not in ("", "0") for option in _DEFAULTS)


def _clonable(ioctx: rados.Ioctx, name: str, snap: str) -> tuple[Image, Snap] | None:
    """Read an image and its snapshot; None for what librbd has to see to, or to refuse."""
    image_id = read_id(ioctx, name)
    values = omap.get_all(ioctx, f"rbd_header.{image_id}") if image_id is not None else None
    if image_id is None or not values or any(key.startswith(_METADATA) for key in values):
        return None
    (operations,) = struct.unpack("<Q", values.get("op_features", bytes(8)))
    image = decode_image(name, image_id, values)
    found = image.snap(snap)
    if found is None or image.features & ~_PARENTS or operations & ~_OPERATIONS:
        return None
    return None if lacks_map(ioctx, image, found) else (image, found)


def _child_writes(
    child: Child, name: str, size: int, features: int, order: int, parent: Parent
) -> Iterator[tuple[str, bool, tuple[Call, ...]]]:
    """Give the writes that make a clone, in order: object, whether it is a new one, and what is called there."""
    header = f"rbd_header.{child.image_id}"
    listed = ("dir_add_image", string(name) + string(child.image_id))
    # librbd asks this in namespaces only: one that is being removed takes no more images.
    ready = (("dir_state_assert", _DIRECTORY_READY),) if child.namespace else ()
    yield "rbd_directory", False, (*ready, listed)
    yield f"rbd_id.{name}", True, (("set_id", string(child.image_id)),)
    prefix = string(f"rbd_data.{child.image_id}") + struct.pack("<q", _NO_DATA_POOL)
    yield header, True, (("create", struct.pack("<QBQ", size, order, features) + prefix),)
    if features & OBJECT_MAP:
        yield f"rbd_object_map.{child.image_id}", False, (resize_map(-(-size >> order), _ABSENT),)
    spec = struct.pack("<q", parent.pool_id) + string(parent.namespace) + string(parent.image_id)
    link = frame(1, 1, spec + struct.pack("<Q", parent.snap_id)) + struct.pack("<QB", size, False)
    format_2 = struct.pack("<QQ", _CLONE_CHILD, _CLONE_CHILD)
    yield header, False, (("parent_attach", link), ("op_features_set", format_2))


def _attached(child: Child, snap_id: int) -> Call:
    """Have a parent know its clone."""
    spec = struct.pack("<q", child.pool_id) + string(child.image_id) + string(child.namespace)
    return "child_attach", struct.pack("<Q", snap_id) + frame(2, 1, spec)


def _new_id(handle: rados.Rados) -> str:
    """Make up an image id as librbd does: the client's number and a random one (Utils.cc, generate_image_id)."""
    return f"{handle.get_instance_id():x}{random.getrandbits(32):x}"[-_MAX_ID:]
