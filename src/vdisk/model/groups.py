"""Group snapshots: several volumes at one moment. How the journal has them, and what they are made through.

The journal is that which ceph-csi keeps of volume groups (internal/journal/volumegroupjournal.go): a directory
``csi.groups.<instance>``, an object ``csi.volume.group.<uuid>`` with ``csi.groupname`` (the RBD group) and
``csi.volname`` (the request name), and in it, once the group snapshot is complete, a key for each volume: its handle,
with the handle of its snapshot as the value. The snapshots themselves are ordinary ones, which name their group by
their request names: ``group-<uuid of the group>-<number>``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from .errors import InvalidArgument
from .handles import decode_handle
from .names import UUID_PATTERN, Kind
from .observed import Entry

#: Key of the RBD group's name in the journal object.
GROUP_NAME_KEY = "csi.groupname"
#: Name of the snapshot of the RBD group that a group snapshot is made through.
CUT = "cut"
#: Volumes that one group snapshot may have: while it is cut, all of them stand still.
MAX_MEMBERS = 100

_MEMBER_NAME = re.compile(rf"group-({UUID_PATTERN})-[0-9]+")


@dataclass(frozen=True)
class Member:
    """One volume of a group snapshot: its image and handle, and uuid and handle of the snapshot that is its share.

    ``name`` and ``image_id`` are settled by plans: the snapshot's request name, and the id of its image where that is
    unfinished or in the trash.
    """

    uuid: str
    image: str = ""
    volume: str = ""
    snapshot: str = ""
    name: str = ""
    image_id: str = ""


@dataclass(frozen=True)
class RbdGroup:
    """An RBD group as its header tells it. ``cut`` says that it has a complete snapshot :data:`CUT`."""

    name: str
    id: str
    image_ids: frozenset[str]
    cut: bool = False
    snapshots: tuple[str, ...] = ()


def member_name(group: str, number: int) -> str:
    """Return the request name of a group's snapshot, by the group's uuid."""
    return f"group-{group}-{number}"


def group_of_name(name: str | None) -> str | None:
    """Return the uuid of the group that a snapshot's request name names, None for any other name."""
    found = _MEMBER_NAME.fullmatch(name or "")
    return found[1] if found is not None else None


def mapping_of(entry: Entry | None) -> Mapping[str, str]:
    """Return uuid of the volume → uuid of its snapshot, of a journal object; empty as long as it is not complete."""
    found = {}
    for key, value in entry.values.items() if entry is not None else ():
        try:
            found[decode_handle(key).uuid] = decode_handle(value).uuid
        except InvalidArgument:
            continue  # another key
    return found


def is_ours(entry: Entry) -> bool:
    """Tell whether vdisk made a group's journal object: other drivers' RBD groups have other names."""
    return entry.values.get(GROUP_NAME_KEY) == Kind.GROUP.image(entry.uuid)
