"""Everything that a pool and namespace hold, as lines that can be compared exactly.

Read without the mgr, and without opening an image, because that can write to the object map of its parent's snapshot.
What differs between two runs of the same thing is given a name: uuids become the request name that leads to them,
image ids the image's name, ids of snapshots are left out. So two inventories are equal exactly when the same things
exist, and their difference reads like a story.
"""

import json
import re
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import rados
import rbd

from vdisk.cluster.header import decode_image
from vdisk.model.observed import Snap

INTENTS = "vdisk.intents"
_DIRECTORIES = {
    "csi.volumes.default": "csi.volume.",
    "csi.snaps.default": "csi.snap.",
    "csi.groups.default": "csi.volume.group.",
}
_LABELS = {"csi.volume.": "volume", "csi.snap.": "snapshot", "csi.volume.group.": "group"}
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_ENTRY = re.compile(rf"csi\.(?:volume|snap|volume\.group)\.({_UUID.pattern})")
_LOST = re.compile(r"(csi\.imageid=)[0-9a-f]+\b")
_SCHEDULE_ID = re.compile(r"^(run|made)\.[0-9a-f]{12}")
_PARTS = ("rbd_header", "rbd_object_map", "rbd_data", "journal")
#: Objects that say nothing by being there: their keys are what counts, or they belong to RBD's own house.
_FIXED = {
    *_DIRECTORIES,
    INTENTS,
    "vdisk.trash",
    "vdisk.images",
    "vdisk.check",
    "vdisk.schedules",
    "rbd_directory",
    "rbd_group_directory",
    "rbd_info",
    "rbd_trash",
    "rbd_children",
    "rbd_task",
    "rbd_namespace",
    "rbd_mirroring",
    "rbd_mirror_leader",
    "rbd_trash_purge_schedule",
    "rbd_mirror_snapshot_schedule",
}


@dataclass(frozen=True)
class Inventory:
    """Lines, one for each thing that exists, sorted."""

    lines: tuple[str, ...]

    def difference(self, other: "Inventory") -> str:
        """Tell what has to change to come from ``other`` to this one: ``+`` is only here, ``-`` only there."""
        here, there = Counter(self.lines), Counter(other.lines)
        changes = [*("- " + line for line in (there - here).elements()), *("+ " + line for line in here - there)]
        return "\n".join(changes) or "(nothing)"

    def __str__(self) -> str:
        return "\n".join(self.lines) or "(nothing)"


def take(handle: rados.Rados, pool: str, namespace: str = "") -> Inventory:
    """Return the inventory of a pool and namespace."""
    with handle.open_ioctx(pool) as ioctx:
        tasks = omap(ioctx, "rbd_task")
        ioctx.set_namespace(namespace)
        return Inventory(tuple(sorted(_Reader(ioctx, namespace, tasks).lines())))


def intents(handle: rados.Rados, pool: str, namespace: str = "") -> dict[str, dict[str, Any]]:
    """Return the durable intents of a pool and namespace by operation id."""
    with handle.open_ioctx(pool) as ioctx:
        ioctx.set_namespace(namespace)
        return {key: json.loads(value) for key, value in omap(ioctx, INTENTS).items()}


def reservations(handle: rados.Rados, pool: str, namespace: str = "") -> dict[str, str]:
    """Return every directory key with the uuid that it leads to."""
    with handle.open_ioctx(pool) as ioctx:
        ioctx.set_namespace(namespace)
        return {key: value.decode() for oid in _DIRECTORIES for key, value in omap(ioctx, oid).items()}


def omap(ioctx: rados.Ioctx, oid: str) -> dict[str, bytes]:
    """Return all pairs of an object, none when it does not exist."""
    pairs: dict[str, bytes] = {}
    after = ""
    while True:
        with rados.ReadOpCtx() as op:
            found, _ = ioctx.get_omap_vals(op, after, "", 1000)
            try:
                ioctx.operate_read_op(op, oid)
            except rados.ObjectNotFound:
                return pairs
            page = [(str(key), bytes(value)) for key, value in found]
        if not page:
            return pairs
        pairs.update(page)
        after = page[-1][0]


def string(data: bytes) -> str:
    """Decode a length-prefixed string, as in ``rbd_directory`` and ``rbd_id``."""
    (length,) = struct.unpack_from("<I", data)
    return data[4 : 4 + length].decode()


class _Reader:
    """Reads one pool and namespace."""

    def __init__(self, ioctx: rados.Ioctx, namespace: str, tasks: Mapping[str, bytes]) -> None:
        self._ioctx = ioctx
        self._namespace = namespace
        self._tasks = tasks
        self._objects = {str(entry.key) for entry in ioctx.list_objects()}
        listing = omap(ioctx, "rbd_directory")
        self._names = {key[5:]: string(value) for key, value in listing.items() if key.startswith("name_")}
        self._ids = {key[3:]: string(value) for key, value in listing.items() if key.startswith("id_")}
        self._trash = {str(entry["id"]): str(entry["name"]) for entry in rbd.RBD().trash_list(ioctx)}
        entries = omap(ioctx, "rbd_trash")
        self._unlisted = set(entries) - {f"id_{image_id}" for image_id in self._trash}
        # An entry ends with its state, and librbd lists one whose move there was cut like any other.
        self._moving = {key.removeprefix("id_") for key, entry in entries.items() if entry[-1:] == b"\x01"}
        self._known = {**self._ids, **{image_id: name for name, image_id in self._names.items()}, **self._trash}
        self._labels = self._make_labels()

    def lines(self) -> Iterator[str]:
        """Yield all lines."""
        return map(self._plain, self._raw())

    def _raw(self) -> Iterator[str]:
        for oid in _DIRECTORIES:
            for key, value in omap(self._ioctx, oid).items():
                yield f"{oid} {key} -> {value.decode()}"
        for oid in filter(_ENTRY.fullmatch, self._objects):
            pairs = omap(self._ioctx, oid)
            shown = [f"{key}={value.decode()}" for key, value in sorted(pairs.items())]
            # The keys of a group have uuids in them, so their order is nothing to compare by.
            yield from (f"{oid} {pair}" for pair in (shown if "group" in oid else [" ".join(shown)]))
        for name, image_id in self._names.items():
            if self._ids.get(image_id) != name:
                yield f"rbd_directory name_{name} -> {image_id}, which is {self._ids.get(image_id)!r}"
            if f"rbd_id.{name}" not in self._objects:
                yield f"rbd_directory name_{name} without rbd_id object"
            yield f"image {name}: {self._image(image_id)}"
        for image_id, name in self._ids.items():
            if self._names.get(name) != image_id:
                yield f"rbd_directory id_{image_id} -> {name}, which is {self._names.get(name)!r}"
        for image_id, name in self._trash.items():
            yield f"trash {name}{', moving' if image_id in self._moving else ''}: {self._image(image_id)}"
        yield from (f"trash entry {key}, not listed" for key in self._unlisted)
        yield from (f"rbd_children {key.hex()}" for key in map(str.encode, omap(self._ioctx, "rbd_children")))
        yield from (f"rbd_group_directory {key}" for key in omap(self._ioctx, "rbd_group_directory"))
        yield from self._task_lines()
        for value in omap(self._ioctx, INTENTS).values():
            yield _intent(value)
        for store in ("vdisk.trash", "vdisk.images"):
            yield from (f"record {store} {key}" for key in omap(self._ioctx, store))
        for key in omap(self._ioctx, "vdisk.schedules"):
            yield "record vdisk.schedules " + _SCHEDULE_ID.sub(r"\1.<id>", key)
        yield from self._strays()

    def _task_lines(self) -> Iterator[str]:
        for value in self._tasks.values():
            task = json.loads(value)
            refs = task.get("refs", {})
            if refs.get("pool_namespace", "") == self._namespace:
                yield f"task {refs.get('action')} {refs.get('image_id') or refs.get('image_name')}"

    def _strays(self) -> Iterator[str]:
        for oid in sorted(self._objects - _FIXED):
            if _ENTRY.fullmatch(oid):
                continue
            if self._part(oid) is not None:
                continue
            if oid.startswith("rbd_id.") and oid[len("rbd_id.") :] in self._names:
                continue
            yield f"stray object {oid}"

    def _part(self, oid: str) -> tuple[str, str] | None:
        """Return which part of which known image an object is; ``rbd_data`` may name the pool before the image."""
        kind, *rest = oid.split(".")
        image_id = next((part for part in rest[:2] if part in self._known), None)
        return (kind, image_id) if kind in _PARTS and image_id is not None else None

    def _image(self, image_id: str) -> str:
        """Describe an image: size, features, parent, snapshots with their clones, and how many objects it takes."""
        parts = Counter(part[0] for part in map(self._part, self._objects) if part and part[1] == image_id)
        objects = f"{parts['rbd_data']} data objects, {parts['rbd_object_map']} object maps"
        header = omap(self._ioctx, f"rbd_header.{image_id}")
        if not header:
            return f"without header, {objects}"
        image = decode_image("", image_id, header)
        parent = "no parent" if image.parent is None else f"parent {self._name(image.parent.image_id)}"
        snaps = ", ".join(map(self._snap, image.snaps)) or "no snapshots"
        grouped = ", in an RBD group" if image.group_id is not None else ""
        return f"{image.size} bytes, features {image.features:#x}, {parent}, {snaps}, {objects}{grouped}"

    def _snap(self, snap: Snap) -> str:
        """Describe a snapshot and its clones."""
        # The name of a group's snapshot on an image is made of ids.
        former = re.sub(r"^\.group\..*", "of a group", snap.original_name or "")
        shown = f"snapshot {snap.name}" if snap.user else f"trashed snapshot {former}"
        # Plain before they are sorted: the order of uuids is chance.
        clones = ", ".join(sorted(self._plain(self._name(child.image_id)) for child in snap.children))
        return shown + (f" with clones {clones}" if clones else "")

    def _name(self, image_id: str) -> str:
        """Name an image of this pool and namespace, and say when it is in the trash."""
        name = self._known.get(image_id, "that is not here")
        return f"{name} (trash)" if image_id in self._trash else name

    def _make_labels(self) -> dict[str, str]:
        labels: dict[str, str] = {}
        for oid, prefix in _DIRECTORIES.items():
            for key, value in omap(self._ioctx, oid).items():
                labels[value.decode()] = f"<{_LABELS[prefix]} {key.removeprefix(prefix)}>"
        labels.update({image_id: f"<id of {name}>" for image_id, name in self._known.items()})
        for key, value in omap(self._ioctx, "rbd_group_directory").items():
            if key.startswith("name_"):
                labels[string(value)] = f"<id of {key.removeprefix('name_')}>"
        return labels

    def _plain(self, line: str) -> str:
        for raw in sorted(self._labels, key=len, reverse=True):
            line = re.sub(rf"(?<![0-9a-f]){re.escape(raw)}(?![0-9a-f])", self._labels[raw], line)
        for uuid, label in self._labels.items():  # labels of image ids have names with uuids inside
            line = line.replace(uuid, label)
        for uuid in filter(_UUID.fullmatch, self._labels):  # a name that was taken is given with a part of the uuid
            line = re.sub(rf"-{uuid[:8]}(?!-)", "-<of its uuid>", line)
        return _LOST.sub(r"\1<id of no image>", _UUID.sub("<uuid>", line))


def _intent(value: bytes) -> str:
    try:
        intent = json.loads(value)
        return f"intent {intent['kind']} {intent['request']['name']}"
    except (ValueError, LookupError, TypeError):
        return f"intent that can't be read: {value.decode(errors='replace')}"
