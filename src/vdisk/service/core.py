"""The one API that commands, the dashboard and HTTP share: finding, listing, describing, and asking for changes.

Methods may be called from any thread. They never touch the cluster on the caller's thread: reads run on reader threads
with a deadline, changes on the engine's workers, so that a pool that hangs can't hold up the module's command thread.
"""

from __future__ import annotations

import threading
import time
import uuid as uuids
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ..engine.engine import Engine
from ..engine.operation import Operation
from ..engine.patience import GiveWay, patient
from ..engine.ports import Cluster
from ..engine.workers import Workers
from ..lifecycle.adopt import AdoptSnapshot, AdoptVolume, ReleaseVolume
from ..lifecycle.base import Plan, Request, View
from ..lifecycle.group_snap import RemoveGroup
from ..lifecycle.removal import RemoveSnapshot, RemoveVolume
from ..lifecycle.snap_create import CreateSnapshot
from ..lifecycle.volume_clone import CloneVolume
from ..lifecycle.volume_create import CreateVolume
from ..lifecycle.volume_flatten import FlattenVolume
from ..lifecycle.volume_resize import ResizeVolume
from ..lifecycle.volume_restore import RestoreVolume
from ..lifecycle.volume_revert import RevertVolume
from ..model.errors import Internal, NotFound, NotReady, Pending, VdiskError
from ..model.groups import Member, group_of_name, mapping_of
from ..model.handles import Handle, HandleFormat
from ..model.layout import Layout
from ..model.names import DEFAULT_JOURNAL, Kind, parse_image_name
from ..model.objects import Snapshot, Source, Volume
from ..model.observed import Entry, Image, Location
from ..model.records import Store, mark_from_text
from ..model.specs import NameRef, PoolSpec

T = TypeVar("T")
_PAGE = 1000
_MAX_DEPTH = 64
_KEEP_NAMESPACES = 10_000
#: Reads of one pool that may hang before further ones are refused at once.
_MAX_HANGING_READS = 8


@dataclass(frozen=True)
class Found:
    """A volume or snapshot that a reference led to. ``entry`` is None where only the directory key is left."""

    where: Location
    kind: Kind
    uuid: str
    name: str
    entry: Entry | None


@dataclass(frozen=True)
class Settings:
    """Options, read anew each time so that they take effect at once. Times in seconds."""

    cluster_id: Callable[[], str]
    known_cluster_ids: Callable[[], Sequence[str]]
    handle_format: Callable[[], HandleFormat]
    snapshot_features: Callable[[], int]
    read_timeout: Callable[[], float]
    give_way: GiveWay
    """Tells whether others want the thread that a caller waits on."""
    journal: Callable[[], str] = lambda: DEFAULT_JOURNAL
    """Instance of the journal that requests are made for."""


class Service:
    """Volumes and snapshots of a cluster."""

    def __init__(self, cluster: Cluster, engine: Engine, readers: Workers, settings: Settings) -> None:
        self.engine = engine
        self._cluster = cluster
        self._readers = readers
        self._settings = settings
        self._namespaces: OrderedDict[tuple[int, str], str] = OrderedDict()
        self._lock = threading.Lock()

    # -- finding -------------------------------------------------------------------------------------------------

    def locate(self, spec: PoolSpec) -> Location:
        """Resolve a pool and namespace; raises ``NotFound``, or ``InvalidArgument`` for a pool not meant for RBD."""
        where = self.read(spec.pool, lambda: self._cluster.locate(spec))
        return replace(where, journal=self._settings.journal())

    def pool_name(self, pool_id: int) -> str | None:
        """Return the name of a pool, None when there is none of that id."""
        return self.read(pool_id, lambda: self._cluster.pool_name(pool_id))

    def namespaces(self, pool_id: int, pool: str) -> list[str]:
        """Return the namespaces of a pool, the default one (empty name) first."""
        return ["", *self.read(pool_id, lambda: self._cluster.namespaces(pool_id, pool))]

    def places(self) -> list[dict[str, Any]]:
        """Return every pool that may hold volumes, with its namespaces and its space in bytes."""

        def read() -> list[dict[str, Any]]:
            found = []
            for root in self._cluster.rbd_pools():
                used, available = self._cluster.pool_usage(root.pool_id)
                found.append(
                    {
                        "pool": root.pool,
                        "namespaces": self._cluster.namespaces(root.pool_id, root.pool),
                        "used": used,
                        "available": available,
                    }
                )
            return sorted(found, key=lambda place: str(place["pool"]))

        return self.read("pools", read)

    def check_cluster(self, handle: Handle) -> None:
        """Raise ``NotFound`` for the handle of another cluster."""
        if handle.cluster_id not in self._settings.known_cluster_ids():
            raise NotFound(f"the handle belongs to cluster {handle.cluster_id!r}, not to this one")

    def find_name(self, where: Location, kind: Kind, ref: NameRef) -> Found:
        """Find by request name or image name; for ``image@name`` the snapshot has to be one of that image."""

        def find() -> Found:
            named = parse_image_name(ref.name)
            if named is not None and named[0] is kind and ref.image is None:
                entry = self._cluster.entry(where, kind, named[1])
                if entry is not None:
                    return Found(where, kind, named[1], entry.name or "", entry)
            uuid = self._cluster.lookup(where, kind, ref.name) or self._adopted(where, kind, ref)
            if uuid is None:
                raise NotFound(f"{kind.value} {ref.name!r} does not exist in {where}")
            entry = self._cluster.entry(where, kind, uuid)
            if ref.image is not None and (entry is None or entry.source != ref.image):
                raise NotFound(f"image {where}/{ref.image} has no {kind.value} {ref.name!r}")
            name = entry.name if entry is not None and entry.image == ref.name else ref.name
            return Found(where, kind, uuid, name or ref.name, entry)

        return self.read(where.pool_id, find)

    def likely_namespace(self, handle: Handle) -> str:
        """Return the namespace that a handle's volume or snapshot was last seen in, the default one if it was not."""
        with self._lock:
            return self._namespaces.get((handle.pool_id, handle.uuid), "")

    def find_uuid(self, pool_id: int, pool: str, kind: Kind, uuid: str, namespaces: Sequence[str]) -> Found | None:
        """Find by uuid in the given namespaces of a pool, the one it was last seen in first."""

        def find() -> Found | None:
            key = (pool_id, uuid)
            with self._lock:
                known = self._namespaces.get(key)
            for namespace in sorted(namespaces, key=lambda namespace: namespace != known):
                where = Location(pool_id, pool, namespace, self._settings.journal())
                entry = self._cluster.entry(where, kind, uuid)
                if entry is not None:
                    with self._lock:
                        self._namespaces[key] = namespace
                        while len(self._namespaces) > _KEEP_NAMESPACES:
                            self._namespaces.popitem(last=False)
                    return Found(where, kind, uuid, entry.name or "", entry)
            return None

        return self.read(pool_id, find)

    # -- describing ----------------------------------------------------------------------------------------------

    def volume(self, found: Found) -> Volume:
        """Describe a volume."""
        return self.read(found.where.pool_id, lambda: self._volume(found, self._image(found)))

    def snapshot(self, found: Found) -> Snapshot:
        """Describe a snapshot."""
        return self.read(found.where.pool_id, lambda: self._snapshot(found, self._image(found)))

    def details(self, found: Found) -> dict[str, Any]:
        """Return what ``info`` adds: used bytes, the parent chain through the trash, its depth, and watchers."""

        def read() -> dict[str, Any]:
            image = self._image(found)
            if image is None:
                return {"used": None, "parents": [], "depth": 0, "watchers": []}
            parents = list(self._ancestors(image))
            return {
                "used": self._cluster.used(found.where, image),
                "parents": parents,
                "depth": len(parents),
                "watchers": [w.to_dict() for w in self._cluster.watchers(found.where, image.id) if w.uses],
            }

        return self.read(found.where.pool_id, read)

    def volumes(self, where: Location, limit: int | None, marker: str) -> list[Volume]:
        """Return volumes in the order of names, those after ``marker``, at most ``limit``."""
        return self.read(
            where.pool_id, lambda: [self._volume(*thing) for thing in self._page(where, Kind.VOLUME, limit, marker)]
        )

    def snapshots(self, where: Location, image: str | None, limit: int | None, marker: str) -> list[Snapshot]:
        """Return snapshots (of one source image, if given) in the order of names."""

        def read() -> list[Snapshot]:
            result: list[Snapshot] = []
            for thing in self._page(where, Kind.SNAPSHOT, None if image is not None else limit, marker, image):
                result.append(self._snapshot(*thing))
                if limit is not None and len(result) >= limit:
                    break
            return result

        return self.read(where.pool_id, read)

    # -- changing ------------------------------------------------------------------------------------------------

    def create_volume(self, where: Location, name: str, size: int, layout: Layout) -> Request:
        """Request an empty volume of ``size`` bytes."""
        return CreateVolume(where, name, _new_uuid(), size, layout)

    def restore_volume(self, where: Location, name: str, snap: Found, size: int | None, layout: Layout) -> Request:
        """Request a volume with a snapshot's content; what its size and layout leave open is the snapshot's."""
        return RestoreVolume(where, name, _new_uuid(), snap.where, snap.uuid, size, layout)

    def clone_volume(self, where: Location, name: str, source: Found, size: int | None, layout: Layout) -> Request:
        """Request a volume with another volume's present content."""
        if source.entry is None:
            raise NotReady(f"volume {source.name!r} in {source.where} is not complete yet; try again")
        return CloneVolume(where, name, _new_uuid(), source.where, source.entry.image, size, layout)

    def create_snapshot(self, where: Location, name: str, image: str) -> Request:
        """Request a snapshot of any RBD image."""
        return CreateSnapshot(where, name, _new_uuid(), image, self.snapshot_layout())

    def snapshot_layout(self) -> Layout:
        """Return how the images of snapshots are laid out."""
        return Layout(features=self._settings.snapshot_features())

    def adopt(self, where: Location, name: str, image: str, snap: str | None) -> Request:
        """Request an existing image as a volume, or an existing snapshot of one as a snapshot."""
        if snap is None:
            return AdoptVolume(where, name, _new_uuid(), image)
        return AdoptSnapshot(where, name, _new_uuid(), image, snap, self.snapshot_layout())

    def release(self, found: Found) -> Request:
        """Request that the journal forgets a volume."""
        return ReleaseVolume(found.where, found.name, found.uuid, own_name=own_name(found))

    def flatten_volume(self, volume: Found) -> Request:
        """Request that a volume depends on no parent any more."""
        return FlattenVolume(volume.where, volume.name, volume.uuid)

    def resize_volume(self, volume: Found, size: int) -> Request:
        """Request a volume's growth."""
        return ResizeVolume(volume.where, volume.name, volume.uuid, size, own_name(volume))

    def revert_volume(self, volume: Found, snap: Found, keep_for: int) -> RevertVolume:
        """Request a volume's return to one of its snapshots; what it holds now can be undeleted for ``keep_for`` s."""
        now = time.time()
        return RevertVolume(
            volume.where, volume.name, volume.uuid, snap.where, snap.uuid, _new_uuid(), now + keep_for, now,
            own_name(volume),
        )  # fmt: skip

    def remove(self, found: Found, keep_for: int = 0) -> Request:
        """Request the removal of a volume or snapshot, which can be undone for ``keep_for`` seconds."""
        now = time.time()
        until, since = (now + keep_for, now) if keep_for else (0.0, 0.0)
        if found.kind is Kind.GROUP:
            members = tuple(Member(uuid) for uuid in mapping_of(found.entry).values())
            return RemoveGroup(found.where, found.name, found.uuid, members, keep_until=until, deleted_at=since)
        cls = RemoveVolume if found.kind is Kind.VOLUME else RemoveSnapshot
        return cls(
            found.where, found.name, found.uuid, keep_until=until, deleted_at=since, own_name=own_name(found)
        )  # fmt: skip

    def plan(self, request: Request) -> list[dict[str, str]]:
        """Return the steps that a request would run now; changes nothing."""
        return self._steps(request, request.plan)

    def cancel(self, operation: Operation, wait: float) -> None:
        """Cancel an operation and wait at most ``wait`` seconds until it is undone."""
        self.engine.cancel(operation.id)
        self.engine.rest(operation, wait, self._settings.give_way)

    def plan_cancel(self, operation: Operation) -> list[dict[str, str]]:
        """Return the steps that cancelling an operation would run now; changes nothing."""
        self.engine.cancel(operation.id, dry_run=True)
        return self._steps(operation.request, operation.request.undo)

    def retry(self, operation: Operation, wait: float) -> None:
        """Run a stuck or waiting operation again, and wait at most ``wait`` seconds until it ended or waits again."""
        self.engine.retry(operation.id)
        self.engine.rest(operation, wait, self._settings.give_way)

    def plan_retry(self, operation: Operation) -> list[dict[str, str]]:
        """Return the steps that running an operation again would run now; changes nothing."""
        undoing = self.engine.retry(operation.id, dry_run=True).undoing
        request = operation.request
        return self._steps(request, request.undo if undoing else request.plan)

    def run(self, request: Request, wait: float) -> tuple[Operation, bool]:
        """Have a request carried out and wait at most ``wait`` seconds; returns the operation and whether it answered.

        Raises the operation's error, or ``Pending`` when it was waited for in vain. With ``wait`` 0 an operation that
        goes on is no error.
        """
        operation = self.engine.submit(request)
        settled = self.engine.wait(operation, wait, self._settings.give_way)
        if operation.error is not None and not operation.answered and operation.state.final:
            raise operation.error
        if not settled and wait > 0:
            waits = operation.error.message if operation.error is not None else "; ".join(operation.waiting_for[:1])
            reason = f" (waiting for {waits})" if waits and operation.error is None else f" ({waits})" if waits else ""
            raise Pending(
                f"still running, operation {operation.id}; repeat the command to go on waiting{reason}",
                operation=operation.id,
            )
        return operation, settled

    def run_all(self, requests: Sequence[Request], wait: float) -> list[Operation]:
        """Have requests carried out side by side and wait at most ``wait`` seconds for all of them together.

        What is not done by then goes on; an error of one is its operation's and stops no other.
        """
        operations = [self.engine.submit(request) for request in requests]
        end = time.monotonic() + wait
        for operation in operations:
            # Even with no time left each is waited for until its intent is durable.
            self.engine.wait(operation, max(0.0, end - time.monotonic()), self._settings.give_way)
        return operations

    def created(self, operation: Operation, settled: bool, origin: Found | None = None) -> Volume | Snapshot:
        """Describe what a creating or resizing operation made; before it is there, what is known of it.

        ``origin`` is what a volume was made from, if the caller has just looked that up: it is not read once more.
        """
        request = operation.request
        made = self.read(request.where.pool_id, lambda: self._made(request, origin)) if settled else None
        return self.pending(operation) if made is None else made

    def pending(self, operation: Operation) -> Volume | Snapshot:
        """Describe a volume or snapshot whose creation is under way, without reading anything."""
        request = operation.request
        size = getattr(request, "size", None)
        handle = self.handle(request.where, request.uuid)
        where = request.where
        if request.target is Kind.SNAPSHOT:
            source = getattr(request, "source", None)
            return Snapshot(
                request.name, handle, request.uuid, where.pool, where.namespace, request.image, None, source,
                self._image_handle(where, source), size, None, "pending", False,
            )  # fmt: skip
        return Volume(
            request.name, handle, request.uuid, where.pool, where.namespace, request.image, None, size, "pending", None,
            None,
        )  # fmt: skip

    def handle(self, where: Location, uuid: str) -> str:
        """Return the handle of a uuid in the family that the options ask for."""
        return Handle(self._settings.cluster_id(), where.pool_id, uuid).encode(self._settings.handle_format())

    # -- inner ---------------------------------------------------------------------------------------------------

    def _steps(self, request: Request, plan: Callable[[View], Plan]) -> list[dict[str, str]]:
        """Return the steps of a plan that is made of what there is now, as ``--dry-run`` shows them."""
        steps = self.read(request.where.pool_id, lambda: plan(self._cluster)).steps
        return [{"step": step.name, "description": step.describe()} for step in steps]

    def read(self, group: Hashable, function: Callable[[], T]) -> T:
        """Run a read on a reader thread and wait for it, at most ``read_timeout`` seconds."""
        if self._readers.group_load(group) >= _MAX_HANGING_READS:
            raise NotReady(f"pool {group!r} does not answer: {_MAX_HANGING_READS} reads are waiting for it; try again")
        done = threading.Event()
        results: list[T] = []
        errors: list[BaseException] = []

        def job() -> None:
            try:
                results.append(function())
            except BaseException as error:
                errors.append(error)
                if not isinstance(error, VdiskError):
                    raise
            finally:
                done.set()

        self._readers.submit(group, job)
        seconds = self._settings.read_timeout()
        if not patient(done.wait, seconds, self._settings.give_way):
            raise NotReady(f"pool {group!r} did not answer within {seconds:g} s; try again")
        if errors:
            if isinstance(errors[0], VdiskError):
                raise errors[0]
            raise Internal("an unexpected error happened while reading; see the mgr log") from errors[0]
        return results[0]

    def _page(
        self, where: Location, kind: Kind, limit: int | None, marker: str, source: str | None = None
    ) -> Iterator[tuple[Found, Image | None]]:
        """Go through a directory, page by page; with ``source`` only snapshots of that image."""
        left = limit
        while left is None or left > 0:
            size = _PAGE if left is None else min(left, _PAGE)
            things = self._cluster.things(where, kind, marker, size, source)
            for name, uuid, entry, image in things:
                if source is None or (entry is not None and entry.source == source):
                    yield Found(where, kind, uuid, name, entry), image
            if len(things) < size:
                return
            marker = things[-1][0]
            left = None if left is None else left - len(things)

    def _image(self, found: Found) -> Image | None:
        return None if found.entry is None else self._cluster.image_of(found.where, found.entry)

    def _identity(self, found: Found) -> dict[str, Any]:
        """Return the fields of :class:`Identity`."""
        entry = found.entry
        return {
            "name": found.name or None,
            "handle": self.handle(found.where, found.uuid),
            "uuid": found.uuid,
            "pool": found.where.pool,
            "namespace": found.where.namespace,
            "image": entry.image if entry is not None else found.kind.image(found.uuid),
            "image_id": entry.image_id if entry is not None else None,
        }

    def _made(self, request: Request, origin: Found | None) -> Volume | Snapshot | None:
        entry = self._cluster.entry(request.where, request.target, request.uuid)
        if entry is None:
            return None
        found = Found(request.where, request.target, request.uuid, entry.name or request.name, entry)
        image = self._image(found)
        return self._volume(found, image, origin) if found.kind is Kind.VOLUME else self._snapshot(found, image)

    def _volume(self, found: Found, image: Image | None, origin: Found | None = None) -> Volume:
        complete = found.entry is not None and found.entry.image_id is not None and image is not None
        return Volume(
            **self._identity(found),
            size=image.size if image is not None else None,
            state="ready" if complete else "pending",
            created_at=image.created_at if image is not None else None,
            source=self._source(image, origin) if image is not None else None,
        )

    def _snapshot(self, found: Found, image: Image | None) -> Snapshot:
        complete = found.entry is not None and found.entry.image_id is not None and image is not None
        source = found.entry.source if found.entry is not None else None
        return Snapshot(
            **self._identity(found),
            source_image=source,
            source_handle=self._image_handle(found.where, source),
            size=image.size if image is not None else None,
            created_at=image.created_at if image is not None else None,
            state="ready" if complete else "pending",
            sealed=image is not None and image.snap(image.name) is not None,
            group=self._group(found),
        )

    def _group(self, found: Found) -> str | None:
        """Return the handle of the group snapshot that a snapshot belongs to."""
        uuid = group_of_name(found.name)
        entry = self._cluster.entry(found.where, Kind.GROUP, uuid) if uuid is not None else None
        return self.handle(found.where, entry.uuid) if entry and found.uuid in mapping_of(entry).values() else None

    def _adopted(self, where: Location, kind: Kind, ref: NameRef) -> str | None:
        """Return the uuid of the volume that an image of that name was adopted as."""
        if kind is not Kind.VOLUME or ref.image is not None:
            return None
        image = self._cluster.find(where, ref.name)
        mark = mark_from_text(self._cluster.record(where, Store.IMAGES, image.id)) if image is not None else None
        return mark.uuid if mark is not None and mark.adopted else None

    def _image_handle(self, where: Location, image: str | None) -> str | None:
        named = parse_image_name(image) if image is not None else None
        return self.handle(where, named[1]) if named is not None else None

    def _source(self, image: Image, origin: Found | None = None) -> Source | None:
        """Tell from the parent link where a volume's content came from; None for one without a parent.

        Nothing is read where the caller knows: a request that is carried out, or found to be, has that very ``origin``.
        """
        link = image.parent
        if link is None:
            return None
        if origin is not None and origin.entry is not None and not own_name(origin):
            name = origin.entry.name or origin.entry.image
            return Source(origin.kind.value, self.handle(origin.where, origin.uuid), name, origin.where)
        pool = self._cluster.pool_name(link.pool_id)
        where = Location(link.pool_id, pool or "", link.namespace)
        found = self._cluster.name_of(where, link.image_id) if pool is not None else None
        named = parse_image_name(found[0]) if found is not None else None
        if found is None or named is None:
            return Source("image", None, found[0] if found is not None else None, where)
        kind, uuid = named
        entry = self._cluster.entry(where, kind, uuid)
        name = entry.name if entry is not None and entry.name is not None else found[0]
        return Source(kind.value, self.handle(where, uuid), name, where)

    def _ancestors(self, image: Image) -> Iterator[dict[str, Any]]:
        """Follow the parent links of an image, through the trash and across pools."""
        for _ in range(_MAX_DEPTH):
            link = image.parent
            if link is None:
                return
            pool = self._cluster.pool_name(link.pool_id)
            where = Location(link.pool_id, pool or "", link.namespace)
            above = self._cluster.find_id(where, link.image_id) if pool is not None else None
            yield {
                "pool": pool,
                "pool_id": link.pool_id,
                "namespace": link.namespace,
                "image": above.name if above is not None else None,
                "image_id": link.image_id,
                "size": above.size if above is not None else None,
                "trashed": above.trashed if above is not None else None,
            }
            if above is None:
                return
            image = above


def own_name(found: Found) -> str:
    """Return the name of an image that has not the standard one, empty for one that has."""
    image = found.entry.image if found.entry is not None else ""
    return image if image != found.kind.image(found.uuid) else ""


def _new_uuid() -> str:
    """Return a new uuid; version 1 would show a machine's address, so it is random."""
    return str(uuids.uuid4())
