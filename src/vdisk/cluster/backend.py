"""The cluster as the engine and the service see it: journal, images, pools, tasks and intents behind one object."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence

from ..model.groups import RbdGroup
from ..model.layout import Layout
from ..model.names import Kind
from ..model.observed import Entry, Image, Location, Task, Trashed, Watcher
from ..model.records import Store
from ..model.specs import PoolSpec
from .connection import MgrContext, open_command_connection, open_data_connection
from .groups import Groups, clone_takes_id
from .header import decode_image
from .images import Images
from .intents import IntentStore
from .journal import Journal
from .omap import Reading
from .pools import Pools
from .records import Records
from .survey import Survey
from .tasks import TaskQueue

#: A beacon goes out every two seconds (mgr_beacon_period) and takes a monitor round.
FENCE_SECONDS = 5.0
#: Journal objects that are read side by side.
_SIDE_BY_SIDE = 1000


class CephCluster:
    """Implements ``engine.ports.Cluster`` on a real cluster."""

    def __init__(self, mgr: MgrContext, log: logging.Logger) -> None:
        self._mgr = mgr
        self.data = open_data_connection(mgr, log)
        self.commands = open_command_connection(mgr)
        self.journal = Journal(self.data, log)
        self.images = Images(self.data, mgr, log)
        self.groups = Groups(self.data, self.images, log)
        self.pools = Pools(self.data, self.images)
        self.tasks = TaskQueue(self.commands, log)
        self.intents = IntentStore(self.data)
        self.records = Records(self.data)
        self.surveys = Survey(self.data)
        self._queue_is_safe = mgr.task_queue_is_safe()
        if not self._queue_is_safe:
            log.warning(
                "rbd_support's tasks would crash this mgr (Python callbacks in a sub-interpreter); "
                "vdisk removes trashed images itself"
            )

    def close(self) -> None:
        """Give the connections back."""
        self.images.close()
        self.data.close()
        self.commands.close()

    def fence(self) -> None:
        """Make sure that a failover would stop what is written from here; ``NotReady`` while it would not."""
        self.data.fence(self._mgr.client_addresses, FENCE_SECONDS)

    # -- lifecycle.base.View -------------------------------------------------------------------------------------

    def lookup(self, where: Location, kind: Kind, name: str) -> str | None:
        """Return the uuid reserved under a request name."""
        return self.journal.lookup(where, kind, name)

    def entry(self, where: Location, kind: Kind, uuid: str) -> Entry | None:
        """Return a journal object."""
        return self.journal.entry(where, kind, uuid)

    def find(self, where: Location, name: str) -> Image | None:
        """Return an image outside of the trash."""
        return self.images.find(where, name)

    def entry_and_image(self, where: Location, kind: Kind, uuid: str) -> tuple[Entry | None, Image | None]:
        """Return a journal object and the image with the standard name; the one is read while the other is."""
        with self.data.ioctx(where, f"reading {kind.value} {uuid} in {where}") as ioctx:
            reading = Reading(ioctx, kind.object(uuid))
            try:
                image = self.images.find(where, kind.image(uuid))
            finally:
                values = reading.result()
            return self.journal.decode(kind, uuid, values), image

    def image_id(self, where: Location, name: str) -> str | None:
        """Return the id of an image outside of the trash."""
        return self.images.id_of(where, name)

    def find_id(self, where: Location, image_id: str) -> Image | None:
        """Return an image by id."""
        return self.images.find_id(where, image_id)

    def name_of(self, where: Location, image_id: str) -> tuple[str, bool] | None:
        """Return the name of an image by id."""
        return self.images.name_of(where, image_id)

    def partial(self, where: Location, name: str) -> str | None:
        """Return the id of an image that is there in name only."""
        return self.images.partial(where, name)

    def watchers(self, where: Location, image_id: str) -> tuple[Watcher, ...]:
        """Return who has an image open."""
        return self.images.watchers(where, image_id)

    def trashed(self, where: Location, image_id: str) -> Trashed | None:
        """Return an image's entry in the trash."""
        return self.images.trashed(where, image_id)

    def modified(self, where: Location, oid: str) -> float | None:
        """Return when an object was written last."""
        return self.surveys.modified(where, oid)

    def record(self, where: Location, store: Store, key: str) -> str | None:
        """Return a record."""
        return self.records.get(where, store, key)

    def task_list(self) -> list[Task]:
        """Return rbd_support's tasks; none where it can't carry any out."""
        return self.tasks.list() if self._queue_is_safe else []

    def default_features(self) -> int:
        """Return the feature bits that librbd gives a new image."""
        return self.images.default_features()

    def pool_id(self, pool: str) -> int | None:
        """Return a pool's id."""
        return self.pools.id_of(pool)

    def clones_groups(self) -> bool:
        """Tell whether librbd can clone what a group's snapshot holds."""
        return clone_takes_id()

    def rbd_group(self, where: Location, name: str) -> RbdGroup | None:
        """Return an RBD group."""
        return self.groups.find(where, name)

    def group_name(self, where: Location, group_id: str) -> str | None:
        """Return the name of an RBD group."""
        return self.groups.name_of(where, group_id)

    # -- engine.ports.Effects ------------------------------------------------------------------------------------

    def reserve(self, where: Location, kind: Kind, name: str, uuid: str) -> bool:
        """Insert a directory key if absent."""
        return self.journal.reserve(where, kind, name, uuid)

    def write_entry(self, where: Location, kind: Kind, uuid: str, values: Mapping[str, str]) -> None:
        """Create a journal object or add keys to it."""
        self.journal.write(where, kind, uuid, values)

    def remove_entry(self, where: Location, kind: Kind, uuid: str) -> None:
        """Remove a journal object."""
        self.journal.remove_entry(where, kind, uuid)

    def release(self, where: Location, kind: Kind, name: str, uuid: str) -> None:
        """Remove a directory key that leads to ``uuid``."""
        self.journal.release(where, kind, name, uuid)

    def create_image(self, where: Location, name: str, size: int, layout: Layout) -> None:
        """Create an empty image."""
        self.images.create(where, name, size, layout)

    def clone_image(self, parent: Location, image: str, snap: str, where: Location, name: str, layout: Layout) -> None:
        """Clone a snapshot to a new image."""
        self.images.clone(parent, image, snap, where, name, layout)

    def cut(self, where: Location, image: str, snap: str) -> None:
        """Snapshot an image."""
        self.images.cut(where, image, snap)

    def let_go(self, where: Location, snap: str) -> None:
        """Give back what a cut keeps for the removal of its snapshot."""
        self.images.let_go(where, snap)

    def seal(self, where: Location, image: str) -> None:
        """Snapshot a clone under its own name."""
        self.images.seal(where, image)

    def drop(self, where: Location, image_id: str, snap: str) -> None:
        """Remove a snapshot."""
        self.images.drop(where, image_id, snap)

    def purge(self, where: Location, image_id: str, snap_id: int) -> None:
        """Remove a snapshot from librbd's trash namespace."""
        self.images.purge(where, image_id, snap_id)

    def make_group(self, where: Location, group: str, images: Sequence[str]) -> None:
        """Make an RBD group of images."""
        self.groups.make(where, group, images)

    def cut_group(self, where: Location, group: str, seals: Sequence[str]) -> None:
        """Snapshot all images of an RBD group at one moment."""
        self.groups.cut(where, group, seals)

    def clone_member(self, where: Location, group: str, image: str, name: str, layout: Layout) -> None:
        """Clone what a group's snapshot holds of an image."""
        self.groups.clone(where, group, image, name, layout)

    def drop_group(self, where: Location, group: str) -> None:
        """Remove an RBD group with its snapshots."""
        self.groups.drop(where, group)

    def grow(self, where: Location, image: str, size: int) -> None:
        """Grow an image."""
        self.images.resize(where, image, size)

    def remove_unfinished(self, where: Location, image: str, image_id: str) -> None:
        """Remove an image that was never finished."""
        self.images.remove_unfinished(where, image, image_id)

    def trash(self, where: Location, image: str, seconds: int = 0) -> None:
        """Move an image to the trash, protected from being removed for so long."""
        self.images.trash(where, image, seconds)

    def flatten(self, where: Location, image: str, image_id: str) -> None:
        """Give an image to rbd_support to flatten.

        Where its tasks kill the mgr, and in the trash, where they reach no image, it is flattened here and now. One of
        which only the link is left is found by neither.
        """
        if self.images.finish_flatten(where, image_id):
            return
        if self._takes_tasks(where) and self.images.id_of(where, image) == image_id:
            self.tasks.add_flatten(where, image)
        else:
            self.images.flatten(where, image_id)

    def flatten_progress(self, where: Location, image: str) -> float:
        """Return how much of an image rbd_support has flattened (0 to 1); 0 where that is not known."""
        place = (where.pool, where.namespace, image, "flatten")
        found = (task for task in self.task_list() if (task.pool, task.namespace, task.image, task.action) == place)
        return next((task.progress for task in found), 0.0)

    def restore_image(self, where: Location, image_id: str, name: str) -> None:
        """Bring an image back from the trash under a name."""
        self.images.restore(where, image_id, name)

    def put_records(self, where: Location, store: Store, records: Mapping[str, str]) -> None:
        """Write or replace records."""
        self.records.put(where, store, records)

    def erase_records(self, where: Location, store: Store, keys: list[str]) -> None:
        """Erase records."""
        self.records.erase(where, store, keys)

    def erase_prefix(self, where: Location, store: Store, prefix: str) -> None:
        """Erase all records whose keys begin with ``prefix``."""
        self.records.erase_prefix(where, store, prefix)

    def queue_removal(self, where: Location, image_id: str) -> str | None:
        """Give a trashed image to rbd_support and return the task id, None when the image is gone."""
        return self.tasks.add_trash_remove(where, image_id)

    def may_queue(self, where: Location, image_id: str) -> bool:
        """Tell whether rbd_support can be given a trashed image.

        Not where its tasks kill the mgr, nor where its own record of the task would hang in a full pool (and all of
        rbd_support with it): deleting is the way out of a full pool. Nor one that librbd still protects, because it was
        kept and is purged before its time: tasks do not override that.
        """
        if not self._takes_tasks(where):
            return False
        entry = self.images.trashed(where, image_id)
        return entry is None or entry.deferred_until <= time.time()

    def _takes_tasks(self, where: Location) -> bool:
        return self._queue_is_safe and where.pool_id not in self._mgr.full_pools()

    def tasks_of(self, where: Location) -> Mapping[str, str]:
        """Return the images of a pool and namespace that rbd_support is to remove from the trash: id → task id."""
        return self.tasks.of(self.data, where)

    def failed_tasks(self) -> Mapping[str, str]:
        """Return the tasks of rbd_support that failed and are to be tried again: id → reason."""
        return {task.id: task.retry_message for task in self.tasks.list() if task.retry_message}

    def cancel_task(self, task_id: str) -> None:
        """Cancel a task of rbd_support."""
        self.tasks.cancel(task_id)

    def removal_needs(self, where: Location, image_id: str) -> tuple[tuple[int, str, str] | None, int]:
        """Return what the removal of a trashed image takes: whose lock besides its own, and how many objects."""
        return self.images.removal_needs(where, image_id)

    def remove_trashed(self, where: Location, image_id: str) -> None:
        """Remove an image from the trash with its data."""
        self.images.remove_trashed(where, image_id)

    # -- engine.ports.Intents ------------------------------------------------------------------------------------

    def put_intent(self, where: Location, op_id: str, value: str) -> None:
        """Write or replace an intent."""
        self.intents.put(where, op_id, value)

    def erase_intent(self, where: Location, op_id: str) -> None:
        """Erase an intent."""
        self.intents.erase(where, op_id)

    def load_intents(self, where: Location) -> dict[str, str]:
        """Return the intents of a location."""
        return self.intents.load(where)

    # -- engine.ports.Directory ----------------------------------------------------------------------------------

    def locate(self, spec: PoolSpec) -> Location:
        """Resolve a pool and namespace."""
        return self.pools.locate(spec)

    def pool_name(self, pool_id: int) -> str | None:
        """Return a pool's name."""
        return self.pools.name_of(pool_id)

    def namespaces(self, pool_id: int, pool: str) -> list[str]:
        """Return a pool's namespaces without the default one."""
        return self.images.namespaces(pool_id, pool)

    def rbd_pools(self) -> list[Location]:
        """Return every pool for RBD images."""
        return self.pools.rbd_pools()

    def names(self, where: Location, kind: Kind, after: str, limit: int) -> list[tuple[str, str]]:
        """Return a page of (request name, uuid)."""
        return self.journal.names(where, kind, after, limit)

    def count_names(self, where: Location, kind: Kind, limit: int) -> int:
        """Count the names in a directory, no further than ``limit``."""
        return self.journal.count(where, kind, limit)

    def entries(self, where: Location, kind: Kind, uuids: Sequence[str]) -> list[Entry | None]:
        """Return many journal objects in their order, read side by side."""
        with self.data.ioctx(where, f"reading {kind.value}s in {where}") as ioctx:
            found: list[Entry | None] = []
            for at in range(0, len(uuids), _SIDE_BY_SIDE):
                found += self.journal.entries(ioctx, kind, uuids[at : at + _SIDE_BY_SIDE])
            return found

    def image_of(self, where: Location, entry: Entry) -> Image | None:
        """Return an entry's image by its stored id, in one read."""
        if entry.image_id is None:
            return self.images.find(where, entry.image)
        return self.images.load(where, entry.image, entry.image_id)

    def things(
        self, where: Location, kind: Kind, after: str, limit: int, source: str | None = None
    ) -> list[tuple[str, str, Entry | None, Image | None]]:
        """Return a page of (request name, uuid, journal entry, image); what is read of each is read side by side."""
        names = self.journal.names(where, kind, after, limit)
        with self.data.ioctx(where, f"listing {kind.value}s in {where}") as ioctx:
            images: list[Reading | Entry | None] = []
            entries = []
            for entry in self.journal.entries(ioctx, kind, [uuid for _, uuid in names]):
                wanted = entry is not None and source in (None, entry.source)
                known = entry is not None and entry.image_id is not None
                entries.append(entry)
                images.append(self.images.reading(ioctx, entry) if wanted and known else entry if wanted else None)
            return [
                (name, uuid, entry, self._listed(where, entry, image))
                for (name, uuid), entry, image in zip(names, entries, images)
            ]

    def _listed(self, where: Location, entry: Entry | None, image: Reading | Entry | None) -> Image | None:
        """Return an image whose header is being read, or whose id the journal does not have yet."""
        if entry is None or image is None:
            return None
        if isinstance(image, Entry):
            return self.images.find(where, entry.image)
        values = image.result()
        return decode_image(entry.image, entry.image_id or "", values) if values else None

    def used(self, where: Location, image: Image) -> int | None:
        """Return the bytes an image's own objects take, None when it has no object map."""
        return self.images.used(where, image)

    def exclusive(self, where: Location, image: Image) -> int | None:
        """Return the bytes of an image's objects that no snapshot of it shares."""
        return self.images.exclusive(where, image)

    def pool_usage(self, pool_id: int) -> tuple[int, int]:
        """Return (bytes stored, bytes that can still be stored) of a pool."""
        return self._mgr.pool_usage(pool_id)

    def reconnected(self) -> int:
        """See :class:`Figures`."""
        return max(0, self.data.sessions - 1)

    # -- engine.ports.Surveys ------------------------------------------------------------------------------------

    def survey_journal(self, where: Location) -> Iterator[tuple[Kind, str] | str]:
        """Yield every journal object, and every instance that has a directory object."""
        return self.surveys.journal(where)

    def survey_images(self, where: Location) -> Iterator[tuple[str, str]]:
        """Yield (name, image id) of every image."""
        return self.surveys.images(where)

    def load_image(self, where: Location, name: str, image_id: str) -> Image | None:
        """Return the image of that id under a name that is known already."""
        return self.images.load(where, name, image_id)

    def survey_groups(self, where: Location) -> Iterator[str]:
        """Yield the name of every RBD group."""
        return self.surveys.groups(where)

    def survey_trash(self, where: Location, after: str = "") -> Iterator[Trashed]:
        """Yield every entry of the trash that follows the image id ``after``."""
        return self.surveys.trash(where, after)

    def survey_records(self, where: Location, store: Store, after: str = "") -> Iterator[tuple[str, str]]:
        """Yield every record of a store that follows the key ``after``."""
        while page := self.records.page(where, store, after):
            yield from page.items()
            after = max(page, key=str.encode)
