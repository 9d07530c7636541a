"""`FakeCluster`: an in-memory ``vdisk.engine.ports.Cluster`` that behaves as the real one, down to half-done work.

Every change passes *moments*: ``before``, ``after``, and those in between at which a crash of the mgr leaves librbd's
work half done (an image in name only, a clone that its parent does not know). At each moment ``hook`` is called as
``hook(effect, moment)``, without any lock held, so it may raise `Crash`, raise an error, or wait. Reads pass the single
moment ``read``. ``fail_on`` injects errors.
"""

from __future__ import annotations

import itertools
import threading
import uuid as uuids
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from vdisk.model.errors import AlreadyExists, InvalidArgument, NotFound, NotReady, OutOfRange, VdiskError
from vdisk.model.groups import CUT, RbdGroup
from vdisk.model.layout import DEFAULT_ORDER, SNAPSHOT_FEATURES, Layout
from vdisk.model.names import Kind
from vdisk.model.observed import LAYERING, OBJECT_MAP, Child, Entry, Image, Location, Parent, Task, Trashed, Watcher
from vdisk.model.records import Store
from vdisk.model.specs import PoolSpec

from .state import GroupState, Header, Key, Pool, SnapState, Space, key_of

Hook = Callable[[str, str], None]


class Crash(BaseException):
    """The mgr died here. Not an ``Exception``, so that no error handling survives it."""


class FakeCluster:
    """A cluster in memory. Thread-safe. ``now`` is the time that new images are made at."""

    def __init__(self, pools: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self._lock = threading.RLock()
        self._pools: dict[str, Pool] = {}
        self._spaces: dict[Key, Space] = {}
        self._image_ids = (f"{number:x}" for number in itertools.count(0x10AA3AA335F8))
        self._snap_ids = itertools.count(4)
        self._pool_ids = itertools.count(1)
        self._task_ids = itertools.count(1)
        self._failures: dict[str, deque[tuple[BaseException, str]]] = {}
        self._tasks: list[tuple[Location, str, str]] = []
        self.hook: Hook | None = None
        self.now = 1655723953.0
        self.closed = False
        self.queue_is_safe = True
        self.failed: dict[str, str] = {}
        self.usage = (0, 1 << 40)
        self.flattening = False
        self.groups_work = True
        self.calls: list[str] = []
        """Effects that were begun, in order."""
        for name, settings in (pools or {"rbd": {"namespaces": ["ns1"]}}).items():
            self.add_pool(name, **settings)

    # -- setting the stage ---------------------------------------------------------------------------------------

    def add_pool(self, name: str, namespaces: list[str] | None = None, applications: tuple[str, ...] = ("rbd",)) -> int:
        """Make a pool and return its id."""
        with self._lock:
            self._pools[name] = Pool(next(self._pool_ids), set(applications), list(namespaces or []))
            return self._pools[name].id

    def remove_pool(self, name: str) -> None:
        """Remove a pool with everything in it."""
        with self._lock:
            pool_id = self._pools.pop(name).id
            self._spaces = {key: space for key, space in self._spaces.items() if key[0] != pool_id}

    def where(self, spec: str = "rbd") -> Location:
        """Return the location of ``pool[/namespace]``."""
        return self.locate(PoolSpec(*spec.split("/")))

    def space(self, where: Location) -> Space:
        """Return what a pool and namespace hold, for a test to look at and to tamper with."""
        with self._lock:
            key = key_of(where)
            found = self._spaces.get(key)
            if found is None:
                found = self._spaces[key] = Space()
            return found

    def spaces(self) -> list[tuple[Location, Space]]:
        """Return every pool and namespace that holds something."""
        with self._lock:
            names = {pool.id: name for name, pool in self._pools.items()}
            return [(Location(key[0], names[key[0]], key[1]), space) for key, space in sorted(self._spaces.items())]

    def fail_on(self, method: str, error: BaseException, times: int = 1, moment: str = "before") -> None:
        """Have the next ``times`` calls of a method raise ``error`` at a moment (``read`` for those that only read)."""
        with self._lock:
            self._failures.setdefault(method, deque()).extend([(error, moment)] * times)

    def watch(self, where: Location, image: str, *watchers: Watcher) -> None:
        """Have somebody open an image; without watchers everybody closes it."""
        with self._lock:
            space = self.space(where)
            space.watchers[space.ids[image]] = list(watchers)

    @property
    def tasks(self) -> list[tuple[Location, str]]:
        """rbd_support's queue: location and image id."""
        with self._lock:
            return [(where, image_id) for where, image_id, _ in self._tasks]

    def run_tasks(self) -> int:
        """Play rbd_support: remove what can be removed from the trash, and return how many images went."""
        removed = 0
        with self._lock:
            progress = True
            while progress:
                progress = False
                for task in list(self._tasks):
                    where, image_id, _ = task
                    space = self.space(where)
                    header = space.headers.get(image_id)
                    if image_id in space.moving or (header is not None and header.snaps):
                        continue  # refused by librbd: tried again later, for ever
                    if header is not None:
                        self._detach(where, image_id, header)
                        del space.headers[image_id]
                        removed += 1
                    space.trash.pop(image_id, None)
                    self._tasks.remove(task)
                    progress = True
        return removed

    # -- reading -------------------------------------------------------------------------------------------------

    def lookup(self, where: Location, kind: Kind, name: str) -> str | None:
        """Return the uuid reserved under a request name."""
        self._read("lookup", where)
        with self._lock:
            return self.space(where).directories[kind].get(name)

    def entry(self, where: Location, kind: Kind, uuid: str) -> Entry | None:
        """Return a journal object."""
        self._read("entry", where)
        with self._lock:
            values = self.space(where).objects.get((kind, uuid))
            return None if values is None else Entry(kind, uuid, dict(values))

    def find(self, where: Location, name: str) -> Image | None:
        """Return an image outside of the trash, by its ``rbd_id`` object as the real one does."""
        self._read("find", where)
        with self._lock:
            image_id = self.space(where).ids.get(name)
            return None if image_id is None else self._load(where, name, image_id, False)

    def entry_and_image(self, where: Location, kind: Kind, uuid: str) -> tuple[Entry | None, Image | None]:
        """Return a journal object and the image with the standard name."""
        return self.entry(where, kind, uuid), self.find(where, kind.image(uuid))

    def image_id(self, where: Location, name: str) -> str | None:
        """Return an image's id, by its ``rbd_id`` object."""
        self._read("image_id", where)
        with self._lock:
            return self.space(where).ids.get(name)

    def find_id(self, where: Location, image_id: str) -> Image | None:
        """Return an image by id: as the directory lists it, else as the trash does."""
        self._read("find_id", where)
        with self._lock:
            space = self.space(where)
            for name, listed in space.listing.items():
                if listed == image_id:
                    return self._load(where, name, image_id, False)
            if image_id in space.trash:
                name = space.trash[image_id]
                return self._load(where, name, image_id, image_id not in space.moving) or Image.remains(name, image_id)
            return None

    def name_of(self, where: Location, image_id: str) -> tuple[str, bool] | None:
        """Return the name of an image by id, and whether it is in the trash."""
        self._read("name_of", where)
        with self._lock:
            space = self.space(where)
            listed = next((name for name, found in space.listing.items() if found == image_id), None)
            if listed is not None:
                return listed, False
            return (space.trash[image_id], image_id not in space.moving) if image_id in space.trash else None

    def partial(self, where: Location, name: str) -> str | None:
        """Return the id of an image that is there in name only."""
        self._read("partial", where)
        with self._lock:
            space = self.space(where)
            image_id = space.ids.get(name)
            if image_id is None:
                return space.listing.get(name)
            return image_id if image_id not in space.headers else None

    def watchers(self, where: Location, image_id: str) -> tuple[Watcher, ...]:
        """Return who has an image open."""
        self._read("watchers", where)
        with self._lock:
            return tuple(self.space(where).watchers.get(image_id, ()))

    def clones_groups(self) -> bool:
        """Tell whether a group's snapshots can be cloned: as a test says."""
        return self.groups_work

    def rbd_group(self, where: Location, name: str) -> RbdGroup | None:
        """Return an RBD group."""
        self._read("rbd_group", where)
        with self._lock:
            group = self.space(where).groups.get(name)
            if group is None:
                return None
            return RbdGroup(name, group.id, frozenset(group.image_ids), group.snaps.get(CUT, False), tuple(group.snaps))

    def group_name(self, where: Location, group_id: str) -> str | None:
        """Return the name of an RBD group."""
        self._read("group_name", where)
        with self._lock:
            return next((name for name, group in self.space(where).groups.items() if group.id == group_id), None)

    def default_features(self) -> int:
        """Return librbd's default (61)."""
        return SNAPSHOT_FEATURES

    def pool_id(self, pool: str) -> int | None:
        """Return a pool's id."""
        self._read("pool_id", None)
        with self._lock:
            return self._pools[pool].id if pool in self._pools else None

    def locate(self, spec: PoolSpec) -> Location:
        """Resolve a pool and namespace with the real one's errors."""
        self._read("locate", None)
        with self._lock:
            pool = self._pools.get(spec.pool)
            if pool is None:
                raise NotFound(f"pool {spec.pool!r} does not exist")
            if "rbd" not in pool.applications:
                raise InvalidArgument(f"pool {spec.pool!r} is not for RBD images")
            if spec.namespace and spec.namespace not in pool.namespaces:
                raise NotFound(f"namespace {spec.namespace!r} does not exist in pool {spec.pool!r}")
            return Location(pool.id, spec.pool, spec.namespace)

    def pool_name(self, pool_id: int) -> str | None:
        """Return a pool's name."""
        self._read("pool_name", None)
        with self._lock:
            return next((name for name, pool in self._pools.items() if pool.id == pool_id), None)

    def namespaces(self, pool_id: int, pool: str) -> list[str]:
        """Return a pool's namespaces without the default one."""
        self._read("namespaces", None)
        with self._lock:
            for found in self._pools.values():
                if found.id == pool_id:
                    return list(found.namespaces)
            raise NotFound(f"reading the namespaces of {pool}: No such file or directory")

    def rbd_pools(self) -> list[Location]:
        """Return every pool for RBD images."""
        self._read("rbd_pools", None)
        with self._lock:
            return [Location(pool.id, name) for name, pool in self._pools.items() if "rbd" in pool.applications]

    def names(self, where: Location, kind: Kind, after: str, limit: int) -> list[tuple[str, str]]:
        """Return a page of (request name, uuid) in omap order, which is that of bytes."""
        self._read("names", where)
        with self._lock:
            pairs = sorted(self.space(where).directories[kind].items(), key=lambda pair: pair[0].encode())
            return [pair for pair in pairs if pair[0].encode() > after.encode()][:limit]

    def things(
        self, where: Location, kind: Kind, after: str, limit: int, source: str | None = None
    ) -> list[tuple[str, str, Entry | None, Image | None]]:
        """Return a page of (request name, uuid, journal entry, image)."""
        found = []
        for name, uuid in self.names(where, kind, after, limit):
            entry = self.entry(where, kind, uuid)
            wanted = entry is not None and source in (None, entry.source)
            found.append((name, uuid, entry, self.image_of(where, entry) if entry is not None and wanted else None))
        return found

    def entries(self, where: Location, kind: Kind, uuids: Sequence[str]) -> list[Entry | None]:
        """Return many journal objects in their order."""
        return [self.entry(where, kind, uuid) for uuid in uuids]

    def count_names(self, where: Location, kind: Kind, limit: int) -> int:
        """Count the names in a directory, no further than ``limit``."""
        return len(self.names(where, kind, "", limit))

    def image_of(self, where: Location, entry: Entry) -> Image | None:
        """Return an entry's image by its stored id; like the real one this does not look whether it is trashed."""
        self._read("image_of", where)
        with self._lock:
            image_id = entry.image_id or self.space(where).ids.get(entry.image)
            return None if image_id is None else self._load(where, entry.image, image_id, False)

    def used(self, where: Location, image: Image) -> int | None:
        """Return the bytes that a test gave an image, None when it has no object map."""
        self._read("used", where)
        with self._lock:
            header = self.space(where).headers.get(image.id)
            return header.used if header is not None and image.features & OBJECT_MAP else None

    def exclusive(self, where: Location, image: Image) -> int | None:
        """Return the bytes that a test gave an image, as if no snapshot shared any."""
        return self.used(where, image)

    def fence(self) -> None:
        """Make sure that a failover would stop what is written from here: always so, unless ``fail_on`` says not."""
        self._read("fence", None)

    # -- changing the journal ------------------------------------------------------------------------------------

    def reserve(self, where: Location, kind: Kind, name: str, uuid: str) -> bool:
        """Insert a directory key if absent."""
        self._moment("reserve", "before", where)
        with self._lock:
            directory = self.space(where).directories[kind]
            won = name not in directory
            directory.setdefault(name, uuid)
        self._moment("reserve", "after", where)
        return won

    def write_entry(self, where: Location, kind: Kind, uuid: str, values: Mapping[str, str]) -> None:
        """Create a journal object or add keys to it."""
        self._moment("write_entry", "before", where)
        with self._lock:
            self.space(where).objects.setdefault((kind, uuid), {}).update(values)
        self._moment("write_entry", "after", where)

    def remove_entry(self, where: Location, kind: Kind, uuid: str) -> None:
        """Remove a journal object; an absent one is no error."""
        self._moment("remove_entry", "before", where)
        with self._lock:
            self.space(where).objects.pop((kind, uuid), None)
        self._moment("remove_entry", "after", where)

    def release(self, where: Location, kind: Kind, name: str, uuid: str) -> None:
        """Remove a directory key if it still leads to ``uuid``."""
        self._moment("release", "before", where)
        with self._lock:
            directory = self.space(where).directories[kind]
            if directory.get(name) == uuid:
                del directory[name]
        self._moment("release", "after", where)

    # -- changing images -----------------------------------------------------------------------------------------

    def create_image(self, where: Location, name: str, size: int, layout: Layout) -> None:
        """Create an empty image: its id object, its place in the directory, its header, in librbd's order."""
        self._moment("create_image", "before", where)
        self._make("create_image", where, name, self._header(where, size, layout))
        self._moment("create_image", "after", where)

    def clone_image(self, parent: Location, image: str, snap: str, where: Location, name: str, layout: Layout) -> None:
        """Clone a snapshot: make the child, give it its parent, make it known to the parent, in librbd's order."""
        self._moment("clone_image", "before", where)
        with self._lock:
            source_id, source = self._open(parent, image)
            cut = source.snap(snap)
            if cut is None:
                raise NotFound(f"cloning {parent}/{image}@{snap}: No such file or directory")
            if not source.features & LAYERING:
                raise InvalidArgument(f"cloning {parent}/{image}@{snap}: Invalid argument")
            link = Parent(parent.pool_id, parent.namespace, source_id, cut.id)
            header = self._header(where, cut.size, layout)
        image_id = self._make("clone_image", where, name, header)
        self._moment("clone_image", "orphan", where)
        with self._lock:
            header.parent = link
        self._moment("clone_image", "unlinked", where)
        with self._lock:
            cut.children.add(Child(where.pool_id, where.namespace, image_id))
        self._moment("clone_image", "after", where)

    def cut(self, where: Location, image: str, snap: str) -> None:
        """Snapshot an image; a snapshot of that name is no error."""
        self._moment("cut", "before", where)
        with self._lock:
            _, header = self._open(where, image)
            if header.snap(snap) is None:
                header.snaps.append(SnapState(next(self._snap_ids), snap, header.size, created_at=self.now))
        self._moment("cut", "after", where)

    def let_go(self, where: Location, snap: str) -> None:
        """Nothing is kept open here."""

    def seal(self, where: Location, image: str) -> None:
        """Snapshot an image under its own name; a snapshot of that name is no error."""
        self._moment("seal", "before", where)
        with self._lock:
            _, header = self._open(where, image)
            if header.snap(image) is None:
                header.snaps.append(SnapState(next(self._snap_ids), image, header.size))
        self._moment("seal", "after", where)

    def drop(self, where: Location, image_id: str, snap: str) -> None:
        """Remove a snapshot, in the trash or not: to the trash namespace first, where linked clones keep it."""
        self._moment("drop", "before", where)
        with self._lock:
            header = self.space(where).headers.get(image_id)
            found = header.snap(snap) if header is not None else None
            if found is not None:
                found.user, found.name, found.original_name = False, str(uuids.uuid4()), snap
        if header is not None and found is not None and not found.children:
            self._moment("drop", "trashed", where)
            with self._lock:
                header.snaps.remove(found)
        self._moment("drop", "after", where)

    def purge(self, where: Location, image_id: str, snap_id: int) -> None:
        """Remove a snapshot from the trash namespace; one that is gone is no error."""
        self._moment("purge", "before", where)
        with self._lock:
            header = self.space(where).headers.get(image_id)
            for found in list(header.snaps) if header is not None else []:
                if found.id == snap_id and not found.children:
                    assert header is not None
                    header.snaps.remove(found)
        self._moment("purge", "after", where)

    def make_group(self, where: Location, group: str, images: Sequence[str]) -> None:
        """Make an RBD group and add images one by one, in librbd's order."""
        self._moment("make_group", "before", where)
        with self._lock:
            found = self.space(where).groups.setdefault(group, GroupState(next(self._image_ids)))
        self._moment("make_group", "empty", where)
        for image in images:
            with self._lock:
                image_id, header = self._open(where, image)
                if header.group_id not in (None, found.id):
                    raise AlreadyExists(f"adding {image} to group {group}: File exists")
                found.image_ids.add(image_id)
            self._moment("make_group", f"adding {images.index(image)}", where)
            with self._lock:
                header.group_id = found.id
        self._moment("make_group", "after", where)

    def cut_group(self, where: Location, group: str, seals: Sequence[str]) -> None:
        """Snapshot all images of an RBD group: the record, each image, the record once more, in librbd's order."""
        self._moment("cut_group", "before", where)
        with self._lock:
            found = self.space(where).groups[group]
            if found.snaps.get(CUT):
                return
            if CUT in found.snaps:
                self._drop_group_snap(where, found, CUT)
            found.snaps[CUT] = False
        for number, image_id in enumerate(sorted(found.image_ids)):
            self._moment("cut_group", f"cutting {number}", where)
            with self._lock:
                header = self.space(where).headers[image_id]
                snap = SnapState(next(self._snap_ids), f".group.{found.id}", header.size, user=False)
                snap.created_at, snap.group_id = self.now, found.id
                header.snaps.append(snap)
        self._moment("cut_group", "incomplete", where)
        with self._lock:
            found.snaps[CUT] = True
        self._moment("cut_group", "after", where)

    def clone_member(self, where: Location, group: str, image: str, name: str, layout: Layout) -> None:
        """Clone what a group's snapshot holds of an image, as any clone is made."""
        self._moment("clone_member", "before", where)
        with self._lock:
            source_id, source = self._open(where, image)
            found = self.space(where).groups[group]
            cut = next(snap for snap in source.snaps if snap.group_id == found.id)
            link = Parent(where.pool_id, where.namespace, source_id, cut.id)
            header = self._header(where, cut.size, layout)
        image_id = self._make("clone_member", where, name, header)
        self._moment("clone_member", "orphan", where)
        with self._lock:
            header.parent = link
        self._moment("clone_member", "unlinked", where)
        with self._lock:
            cut.children.add(Child(where.pool_id, where.namespace, image_id))
        self._moment("clone_member", "after", where)

    def drop_group(self, where: Location, group: str) -> None:
        """Remove an RBD group: its snapshots, then its images one by one, then itself; a missing one is no error."""
        self._moment("drop_group", "before", where)
        with self._lock:
            found = self.space(where).groups.get(group)
        for snap in list(found.snaps) if found is not None else ():
            assert found is not None
            with self._lock:
                self._drop_group_snap(where, found, snap)
            self._moment("drop_group", "unsnapped", where)
        for number, image_id in enumerate(sorted(found.image_ids) if found is not None else ()):
            assert found is not None
            with self._lock:
                header = self.space(where).headers.get(image_id)
                if header is not None and header.group_id == found.id:
                    header.group_id = None
            self._moment("drop_group", f"removing {number}", where)
            with self._lock:
                found.image_ids.discard(image_id)
        with self._lock:
            self.space(where).groups.pop(group, None)
        self._moment("drop_group", "after", where)

    def _drop_group_snap(self, where: Location, group: GroupState, name: str) -> None:
        """Remove a group's snapshot: what has clones moves to the trash namespace. Caller holds the lock."""
        for image_id in group.image_ids:
            header = self.space(where).headers.get(image_id)
            for snap in list(header.snaps) if header is not None else ():
                assert header is not None
                if snap.group_id == group.id:
                    snap.group_id, snap.original_name, snap.name = None, snap.name, str(uuids.uuid4())
                    if not snap.children:
                        header.snaps.remove(snap)
        del group.snaps[name]

    def grow(self, where: Location, image: str, size: int) -> None:
        """Grow an image."""
        self._moment("grow", "before", where)
        with self._lock:
            _, header = self._open(where, image)
            if size < header.size:
                raise OutOfRange("shrinking is not allowed")
            header.size = size
        self._moment("grow", "after", where)

    def remove_unfinished(self, where: Location, image: str, image_id: str) -> None:
        """Remove an image and what is left of one, through the trash.

        A clone that its parent does not know, or whose parent's snapshot is gone, goes like any other (measured).
        """
        self._moment("remove_unfinished", "before", where)
        with self._lock:
            space = self.space(where)
            if image not in space.listing and space.ids.get(image) == image_id and image_id not in space.headers:
                del space.ids[image]
        self._move_to_trash("remove_unfinished", where, image)
        with self._lock:
            header = space.headers.get(image_id) if image_id in space.trash else None
            if header is not None and header.snaps:
                raise NotReady(f"removing {where}/{image}: image has snapshots")
            abandoned = [] if header is None else self._unlink(where, image_id, header)
        self._moment("remove_unfinished", "unlinked", where)
        with self._lock:
            for above, snap in abandoned:
                above.snaps.remove(snap)
            if header is not None:
                del space.headers[image_id]
        self._moment("remove_unfinished", "headless", where)
        with self._lock:
            space.trash.pop(image_id, None)
        self._moment("remove_unfinished", "after", where)

    def trash(self, where: Location, image: str, seconds: int = 0) -> None:
        """Move an image to the trash."""
        self._moment("trash", "before", where)
        self._move_to_trash("trash", where, image, seconds)
        self._moment("trash", "after", where)

    def _move_to_trash(self, method: str, where: Location, image: str, seconds: int = 0) -> None:
        """Move an image: known in the trash first, then nameless, then off the directory, in librbd's order."""
        with self._lock:
            space = self.space(where)
            image_id = space.listing.get(image)
            if image_id is not None:
                if any(watcher.uses for watcher in space.watchers.get(image_id, ())):
                    raise NotReady(f"moving {where}/{image} to the trash: Device or resource busy")
                space.trash[image_id] = image
                space.deferred[image_id] = self.now + seconds
                space.moving.add(image_id)
            else:  # librbd looks for a move that was cut short
                image_id = next((at for at in space.moving if space.trash.get(at) == image), None)
        if image_id is not None:
            self._moment(method, "both", where)
            with self._lock:
                space.ids.pop(image, None)
            self._moment(method, "nameless", where)
            with self._lock:
                space.listing.pop(image, None)
            self._moment(method, "moving", where)
            with self._lock:
                space.moving.discard(image_id)
            self._moment(method, "trashed", where)

    def queue_removal(self, where: Location, image_id: str) -> str | None:
        """Give a trashed image to rbd_support; the same one twice is one task, one that is gone is none."""
        self._moment("queue_removal", "before", where)
        with self._lock:
            task = next((task for at, queued, task in self._tasks if (at, queued) == (where, image_id)), None)
            if task is None and image_id in self.space(where).trash:
                task = f"task-{next(self._task_ids)}"
                self._tasks.append((where, image_id, task))
        self._moment("queue_removal", "after", where)
        return task

    def may_queue(self, where: Location, image_id: str) -> bool:
        """Tell whether rbd_support takes an image: if a test says so, and not one that is still protected."""
        with self._lock:
            return self.queue_is_safe and self.space(where).deferred.get(image_id, 0.0) <= self.now

    def tasks_of(self, where: Location) -> Mapping[str, str]:
        """Return the tasks of a pool and namespace: image id → task id."""
        self._read("tasks_of", where)
        with self._lock:
            return {image_id: task for at, image_id, task in self._tasks if key_of(at) == key_of(where)}

    def failed_tasks(self) -> Mapping[str, str]:
        """Return the tasks that a test let fail: id → reason."""
        with self._lock:
            return {task: self.failed[task] for _, _, task in self._tasks if task in self.failed}

    def flatten_progress(self, where: Location, image: str) -> float:
        """Return half, as long as ``flattening`` says that the task goes on."""
        return 0.5 if self.flattening else 0.0

    def flatten(self, where: Location, image: str, image_id: str) -> None:
        """Flatten an image at once, or never as long as ``flattening`` says that the task goes on."""
        self._moment("flatten", "before", where)
        with self._lock:
            header = self.space(where).headers[image_id]
            abandoned = [] if self.flattening else self._unlink(where, image_id, header)
            if not self.flattening:
                header.parent = None
            for above, snap in abandoned:
                above.snaps.remove(snap)
        self._moment("flatten", "after", where)

    def restore_image(self, where: Location, image_id: str, name: str) -> None:
        """Bring an image back from the trash; one that is restored already is no error."""
        self._moment("restore_image", "before", where)
        with self._lock:
            space = self.space(where)
            if image_id in space.trash:
                if space.ids.get(name, image_id) != image_id:
                    raise AlreadyExists(f"restoring {where}/{name}: File exists")
                space.ids[name] = image_id
                space.listing[name] = image_id
        self._moment("restore_image", "both", where)
        with self._lock:
            space.trash.pop(image_id, None)
            space.deferred.pop(image_id, None)
            if space.ids.get(name) != image_id:
                raise NotFound(f"restoring image id {image_id}: No such file or directory")
        self._moment("restore_image", "after", where)

    def cancel_task(self, task_id: str) -> None:
        """Cancel a task; one that is gone is no error."""
        self._moment("cancel_task", "before", None)
        with self._lock:
            self._tasks = [task for task in self._tasks if task[2] != task_id]
        self._moment("cancel_task", "after", None)

    def removal_needs(self, where: Location, image_id: str) -> tuple[tuple[int, str, str] | None, int]:
        """Return the parent if the image's removal takes a snapshot of it along, and how many objects it has."""
        self._read("removal_needs", where)
        with self._lock:
            header = self.space(where).headers.get(image_id)
            link = header.parent if header is not None else None
            objects = header.size >> DEFAULT_ORDER if header is not None else 0
            if link is None:
                return None, objects
            parent = self._spaces[link.pool_id, link.namespace].headers[link.image_id]
            along = any(snap.id == link.snap_id and not snap.user for snap in parent.snaps)
            return (link.pool_id, link.namespace, link.image_id) if along else None, objects

    def remove_trashed(self, where: Location, image_id: str) -> None:
        """Remove an image from the trash; one that is gone is no error."""
        self._moment("remove_trashed", "before", where)
        with self._lock:
            space = self.space(where)
            header = space.headers.get(image_id)
            if header is not None and header.snaps:
                raise NotReady(f"removing image id {image_id} from the trash of {where}: image has snapshots")
            if header is not None:
                self._detach(where, image_id, header)
                del space.headers[image_id]
            space.trash.pop(image_id, None)
        self._moment("remove_trashed", "after", where)

    # -- records -------------------------------------------------------------------------------------------------

    def record(self, where: Location, store: Store, key: str) -> str | None:
        """Return a record."""
        self._read("record", where)
        with self._lock:
            return self.space(where).records[store].get(key)

    def put_records(self, where: Location, store: Store, records: Mapping[str, str]) -> None:
        """Write or replace records."""
        self._moment("put_records", "before", where)
        with self._lock:
            self.space(where).records[store].update(records)
        self._moment("put_records", "after", where)

    def erase_records(self, where: Location, store: Store, keys: list[str]) -> None:
        """Erase records; absent ones are no error."""
        self._moment("erase_records", "before", where)
        with self._lock:
            for key in keys:
                self.space(where).records[store].pop(key, None)
        self._moment("erase_records", "after", where)

    def erase_prefix(self, where: Location, store: Store, prefix: str) -> None:
        """Erase all records whose keys begin so."""
        self._moment("erase_prefix", "before", where)
        with self._lock:
            records = self.space(where).records[store]
            for key in [key for key in records if key.startswith(prefix)]:
                del records[key]
        self._moment("erase_prefix", "after", where)

    def pool_usage(self, pool_id: int) -> tuple[int, int]:
        """Return what a test says of every pool: (bytes stored, bytes available)."""
        return self.usage

    def reconnected(self) -> int:
        """Return 0: a fake session that was blocklisted stays so."""
        return 0

    # -- surveys -------------------------------------------------------------------------------------------------

    def survey_journal(self, where: Location) -> Iterator[tuple[Kind, str] | str]:
        """Yield every journal object and instance."""
        self._read("survey_journal", where)
        with self._lock:
            found: list[tuple[Kind, str] | str] = list(self.space(where).objects)
        yield from [*found, where.journal]

    def survey_images(self, where: Location) -> Iterator[tuple[str, str]]:
        """Yield every image of the directory."""
        self._read("survey_images", where)
        with self._lock:
            found = sorted(self.space(where).listing.items())
        yield from found

    def load_image(self, where: Location, name: str, image_id: str) -> Image | None:
        """Return the image of an id under a name that is known."""
        self._read("load_image", where)
        with self._lock:
            return self._load(where, name, image_id, False)

    def survey_groups(self, where: Location) -> Iterator[str]:
        """Yield the name of every RBD group."""
        self._read("survey_groups", where)
        with self._lock:
            found = sorted(self.space(where).groups)
        yield from found

    def survey_trash(self, where: Location, after: str = "") -> Iterator[Trashed]:
        """Yield every entry of the trash that follows the image id ``after``."""
        self._read("survey_trash", where)
        with self._lock:
            found = [self._trashed(where, image_id) for image_id in sorted(self.space(where).trash) if image_id > after]
        yield from (entry for entry in found if entry is not None)

    def survey_records(self, where: Location, store: Store, after: str = "") -> Iterator[tuple[str, str]]:
        """Yield every record of a store that follows the key ``after``."""
        self._read("survey_records", where)
        with self._lock:
            found = sorted(pair for pair in self.space(where).records[store].items() if pair[0] > after)
        yield from found

    def trashed(self, where: Location, image_id: str) -> Trashed | None:
        """Return an image's entry in the trash."""
        self._read("trashed", where)
        with self._lock:
            return self._trashed(where, image_id)

    def _trashed(self, where: Location, image_id: str) -> Trashed | None:
        space = self.space(where)
        if image_id not in space.trash:
            return None
        until = space.deferred.get(image_id, self.now)
        return Trashed(image_id, space.trash[image_id], self.now, until, image_id not in space.moving)

    def modified(self, where: Location, oid: str) -> float | None:
        """Return the present: a fake keeps no times, so with any grace all is young."""
        self._read("modified", where)
        return self.now

    def task_list(self) -> list[Task]:
        """Return rbd_support's tasks."""
        self._read("task_list", None)
        with self._lock:
            return [
                Task(task, "trash remove", where.pool, where.namespace, image_id, "", None)
                for where, image_id, task in self._tasks
            ]

    # -- intents -------------------------------------------------------------------------------------------------

    def put_intent(self, where: Location, op_id: str, value: str) -> None:
        """Write or replace an intent."""
        self._moment("put_intent", "before", where)
        with self._lock:
            self.space(where).intents[op_id] = value
        self._moment("put_intent", "after", where)

    def erase_intent(self, where: Location, op_id: str) -> None:
        """Erase an intent; an absent one is no error."""
        self._moment("erase_intent", "before", where)
        with self._lock:
            self.space(where).intents.pop(op_id, None)
        self._moment("erase_intent", "after", where)

    def load_intents(self, where: Location) -> dict[str, str]:
        """Return the intents of a location."""
        self._read("load_intents", where)
        with self._lock:
            return dict(self.space(where).intents)

    def close(self) -> None:
        """Give the connections back."""
        self.closed = True

    # -- inner ---------------------------------------------------------------------------------------------------

    def _read(self, method: str, where: Location | None) -> None:
        self._moment(method, "read", where)

    def _moment(self, method: str, moment: str, where: Location | None) -> None:
        with self._lock:
            if moment == "before":
                self.calls.append(method)
            failures = self._failures.get(method)
            error = failures.popleft()[0] if failures and failures[0][1] in (moment, _alias(moment)) else None
            if where is not None and where.pool_id not in {pool.id for pool in self._pools.values()}:
                error = error or NotFound(f"{method} in {where}: pool does not exist")
        if self.hook is not None:
            self.hook(method, moment)
        if error is not None:
            raise error

    def _open(self, where: Location, image: str) -> tuple[str, Header]:
        space = self.space(where)
        image_id = space.ids.get(image)
        header = space.headers.get(image_id) if image_id is not None else None
        if image_id is None or header is None:
            raise NotFound(f"opening {where}/{image}: No such file or directory")
        return image_id, header

    def _load(self, where: Location, name: str, image_id: str, trashed: bool) -> Image | None:
        header = self.space(where).headers.get(image_id)
        return None if header is None else header.view(name, image_id, trashed)

    def _header(self, where: Location, size: int, layout: Layout) -> Header:
        order = layout.order or DEFAULT_ORDER
        data_pool = None
        if layout.data_pool is not None:
            if layout.data_pool not in self._pools:
                raise NotFound(f"data pool {layout.data_pool!r}: No such file or directory")
            data_pool = self._pools[layout.data_pool].id
        return Header(
            size=size,
            features=layout.features if layout.features is not None else SNAPSHOT_FEATURES,
            order=order,
            stripe_unit=layout.stripe_unit or 1 << order,
            stripe_count=layout.stripe_count or 1,
            data_pool_id=data_pool if data_pool != where.pool_id else None,
            created_at=self.now,
        )

    def _make(self, effect: str, where: Location, name: str, header: Header) -> str:
        with self._lock:
            space = self.space(where)
            if name in space.ids or name in space.listing:
                raise AlreadyExists(f"creating image {where}/{name}: File exists")
            image_id = space.ids[name] = next(self._image_ids)
        self._moment(effect, "named", where)
        with self._lock:
            space.listing[name] = image_id
        self._moment(effect, "listed", where)
        with self._lock:
            space.headers[image_id] = header
        return image_id

    def _detach(self, where: Location, image_id: str, header: Header) -> None:
        """Unlink a clone from its parent; a trashed snapshot goes with its last clone."""
        for above, snap in self._unlink(where, image_id, header):
            above.snaps.remove(snap)

    def _unlink(self, where: Location, image_id: str, header: Header) -> list[tuple[Header, SnapState]]:
        """Unlink a clone from its parent; returns the trashed snapshot that loses its last clone by that.

        Only who removes the link removes the snapshot: after a crash in between nobody does.
        """
        link = header.parent
        if link is None:
            return []
        child = Child(where.pool_id, where.namespace, image_id)
        above = self._spaces.get((link.pool_id, link.namespace), Space()).headers.get(link.image_id)
        abandoned = []
        for snap in above.snaps if above is not None else []:
            if snap.id == link.snap_id and child in snap.children:
                snap.children.discard(child)
                if snap.original_name is not None and not snap.children and above is not None:
                    abandoned.append((above, snap))
        return abandoned


def _alias(moment: str) -> str:
    """Reads count as ``before``, so that ``fail_on`` works for them without a word."""
    return "before" if moment == "read" else moment


class Session:
    """A fake as one mgr sees it: once ``kill`` was called every call raises `Crash`, as if that mgr were no more."""

    def __init__(self, fake: FakeCluster) -> None:
        self._fake = fake
        self.dead = False

    def kill(self) -> None:
        """Let this mgr be dead."""
        self.dead = True

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._fake, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if self.dead:
                raise Crash
            try:
                result = method(*args, **kwargs)
            except VdiskError:
                if self.dead:
                    raise Crash from None
                raise
            if self.dead:  # a dead mgr hears no answer
                raise Crash
            return result

        return call


class CrashAt:
    """A hook that crashes at the n-th moment (from 0) that it is called at; without a number it only counts.

    ``also`` is told of the crash, for instance to kill the session of the mgr that dies.
    """

    def __init__(self, number: int | None = None, also: Callable[[], None] | None = None) -> None:
        self.number = number
        self.also = also
        self.seen: list[tuple[str, str]] = []

    def __call__(self, effect: str, moment: str) -> None:
        """Count a moment, and crash at the wanted one."""
        if moment == "read":
            return
        self.seen.append((effect, moment))
        if self.number is not None and len(self.seen) == self.number + 1:
            if self.also is not None:
                self.also()
            raise Crash(f"{effect} {moment}")
