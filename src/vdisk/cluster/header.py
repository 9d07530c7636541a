"""Reads RBD images' headers with plain RADOS reads: two operations where opening the image takes a dozen and a watch.

Formats: librbd's on-disk omap of ``rbd_header.<id>`` (src/cls/rbd/cls_rbd.cc and cls_rbd_types.cc), the objects
``rbd_id.<name>``, ``rbd_directory`` and ``rbd_trash``. Ceph's encoding frames every structure as version, compatible
version (one byte each) and length (32 bits), all little-endian, so unknown later fields are passed over.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from ..model.errors import Internal
from ..model.groups import CUT, RbdGroup
from ..model.observed import Child, Image, Parent, Snap, Trashed

#: cls::rbd::TRASH_IMAGE_STATE_MOVING.
_TRASH_STATE_MOVING = 1
#: cls::rbd::SNAPSHOT_NAMESPACE_TYPE_USER, _GROUP and _TRASH; the other is mirror.
_USER_NAMESPACE = 0
_GROUP_NAMESPACE = 1
_TRASH_NAMESPACE = 2
#: cls::rbd::GROUP_SNAPSHOT_STATE_COMPLETE.
_GROUP_SNAP_COMPLETE = 1


class _Cursor:
    """Decodes Ceph's encoding from a buffer."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def empty(self) -> bool:
        return self._at >= len(self._data)

    def take(self, size: int) -> bytes:
        if self._at + size > len(self._data):
            raise Internal("an RBD header value is shorter than its format says")
        self._at += size
        return self._data[self._at - size : self._at]

    def u8(self) -> int:
        return self.take(1)[0]

    def u32(self) -> int:
        return int(struct.unpack("<I", self.take(4))[0])

    def u64(self) -> int:
        return int(struct.unpack("<Q", self.take(8))[0])

    def i64(self) -> int:
        return int(struct.unpack("<q", self.take(8))[0])

    def time(self) -> float:
        return self.u32() + self.u32() / 1e9

    def text(self) -> str:
        return self.take(self.u32()).decode("utf-8", "replace")

    def frame(self) -> tuple[int, int, _Cursor]:
        """Enter a framed structure; returns (version, compatible version, cursor over its content)."""
        version, compatible = self.u8(), self.u8()
        return version, compatible, _Cursor(self.take(self.u32()))


def decode_string(data: bytes) -> str:
    """Decode a length-prefixed string, the content of ``rbd_id.<name>`` and of ``rbd_directory`` values."""
    return _Cursor(data).text()


def decode_trash(image_id: str, data: bytes) -> Trashed:
    """Decode a ``cls::rbd::TrashImageSpec``, the value of ``id_<image id>`` in ``rbd_trash``.

    A move that was cut short leaves the state MOVING; librbd removes no such image, and moving it again finishes it.
    """
    version, _, content = _Cursor(data).frame()
    content.u8()  # source: user, mirroring, migration, ...
    name, deleted_at, deferred_until = content.text(), content.time(), content.time()
    moved = version < 2 or content.u8() != _TRASH_STATE_MOVING
    return Trashed(image_id, name, deleted_at, deferred_until, moved)


def decode_time(data: bytes) -> float:
    """Decode ``utime_t`` (seconds and nanoseconds) to seconds since the epoch."""
    return _Cursor(data).time()


def decode_parent(data: bytes) -> Parent | None:
    """Decode ``cls_rbd_parent``: version 1 has no namespace; a pool id of -1 or no overlap means no parent any more."""
    version, _, content = _Cursor(data).frame()
    pool_id = content.i64()
    namespace = content.text() if version >= 2 else ""
    image_id, snap_id = content.text(), content.u64()
    # From version 2 on the overlap is an optional, which starts with whether it is there.
    attached = content.u8() != 0 if version >= 2 else content.u64() > 0
    return Parent(pool_id, namespace, image_id, snap_id) if pool_id >= 0 and attached else None


def decode_children(data: bytes) -> tuple[Child, ...]:
    """Decode a set of ``cls::rbd::ChildImageSpec``, the value of ``snap_children_<snap id>``."""
    cursor = _Cursor(data)
    children = []
    for _ in range(cursor.u32()):
        version, _, content = cursor.frame()
        pool_id, image_id = content.i64(), content.text()
        children.append(Child(pool_id, content.text() if version >= 2 else "", image_id))
    return tuple(sorted(children))


def decode_snap(data: bytes, children: bytes | None = None) -> Snap:
    """Decode ``cls_rbd_snap``; before compatible version 8 it carries features and a parent in the middle."""
    version, compatible, content = _Cursor(data).frame()
    snap_id, name, size = content.u64(), content.text(), content.u64()
    if compatible < 8:
        content.u64()  # features, unused
        content.frame()  # parent
    content.u8()  # protection status
    user, original_name, created_at, group_id = True, None, None, None
    if version >= 3:
        content.u64()  # flags
    if version >= 5:
        _, _, namespace = content.frame()
        kind = namespace.u32()
        user = kind == _USER_NAMESPACE
        if kind == _TRASH_NAMESPACE:
            original_name = namespace.text()
        if kind == _GROUP_NAMESPACE and not namespace.empty:
            namespace.i64()  # pool of the group
            group_id = namespace.text()
    if version >= 6:
        created_at = content.time()
    found = decode_children(children) if children else ()
    return Snap(snap_id, name, size, user, found, original_name, created_at, group_id)


def decode_group_ref(data: bytes) -> str | None:
    """Decode a ``cls::rbd::GroupSpec``, the value of ``rbd_group_ref``: the group's id, None for no group."""
    _, _, content = _Cursor(data).frame()
    pool_id, group_id = content.i64(), content.text()
    return group_id if pool_id >= 0 and group_id else None


def decode_group(name: str, group_id: str, values: Mapping[str, bytes]) -> RbdGroup:
    """Build a group from the omap of ``rbd_group_header.<id>``: its images, in any state, and its snapshots.

    ``cls::rbd::GroupSnapshot`` begins with id, name and state.
    """
    names, cut = [], False
    for key, value in values.items():
        if key.startswith("snapshot_"):
            _, _, content = _Cursor(value).frame()
            content.text()
            names.append(content.text())
            cut = cut or (names[-1] == CUT and content.u8() == _GROUP_SNAP_COMPLETE)
    images = frozenset(key.rpartition("_")[2] for key in values if key.startswith("image_"))
    return RbdGroup(name, group_id, images, cut, tuple(names))


def decode_image(name: str, image_id: str, values: Mapping[str, bytes], trashed: bool = False) -> Image:
    """Build an :class:`Image` from the omap of its header object."""
    try:
        snaps = [
            decode_snap(value, values.get(key.replace("snapshot_", "snap_children_", 1)))
            for key, value in values.items()
            if key.startswith("snapshot_")
        ]
        order = _Cursor(values["order"]).u8()
        data_pool = values.get("data_pool_id")
        created = values.get("create_timestamp")
        return Image(
            name=name,
            id=image_id,
            size=_Cursor(values["size"]).u64(),
            features=_Cursor(values["features"]).u64(),
            order=order,
            stripe_unit=_Cursor(values["stripe_unit"]).u64() if "stripe_unit" in values else 1 << order,
            stripe_count=_Cursor(values["stripe_count"]).u64() if "stripe_count" in values else 1,
            data_pool_id=_Cursor(data_pool).i64() if data_pool else None,
            created_at=decode_time(created) if created else None,
            parent=decode_parent(values["parent"]) if "parent" in values else None,
            snaps=tuple(sorted(snaps, key=lambda snap: snap.id)),
            trashed=trashed,
            flags=_Cursor(values["flags"]).u64() if "flags" in values else 0,
            group_id=decode_group_ref(values["rbd_group_ref"]) if "rbd_group_ref" in values else None,
        )
    except KeyError as missing:
        raise Internal(f"the header of image {name or image_id} has no {missing}") from None
