"""What was observed in the cluster: journal entries and images, as plain data that plans are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .names import DEFAULT_JOURNAL, IMAGE_ID_KEY, IMAGE_NAME_KEY, SOURCE_KEY, Kind

# RBD feature bits (librbd, rbd/features.h).
LAYERING = 1 << 0
STRIPING = 1 << 1
EXCLUSIVE_LOCK = 1 << 2
OBJECT_MAP = 1 << 3
FAST_DIFF = 1 << 4
DEEP_FLATTEN = 1 << 5
JOURNALING = 1 << 6
DATA_POOL = 1 << 7
OPERATIONS = 1 << 8

#: Features of an image that is no more than its header, its object map and its data.
PLAIN = LAYERING | EXCLUSIVE_LOCK | OBJECT_MAP | FAST_DIFF | DEEP_FLATTEN

FEATURE_BITS: Mapping[str, int] = {
    "layering": LAYERING,
    "striping": STRIPING,
    "exclusive-lock": EXCLUSIVE_LOCK,
    "object-map": OBJECT_MAP,
    "fast-diff": FAST_DIFF,
    "deep-flatten": DEEP_FLATTEN,
    "journaling": JOURNALING,
    "data-pool": DATA_POOL,
}


@dataclass(frozen=True, order=True)
class Location:
    """A pool and RADOS namespace, resolved: the id survives a rename, the name is what users read.

    ``journal`` is the journal's instance. An operation keeps the one that it began with, whatever the option says
    meanwhile.
    """

    pool_id: int
    pool: str
    namespace: str = ""
    journal: str = DEFAULT_JOURNAL

    def __str__(self) -> str:
        return f"{self.pool}/{self.namespace}" if self.namespace else self.pool


@dataclass(frozen=True)
class Entry:
    """A journal object, ``csi.volume.<uuid>`` or ``csi.snap.<uuid>``, with every key it holds."""

    kind: Kind
    uuid: str
    values: Mapping[str, str] = field(default_factory=dict)

    @property
    def image(self) -> str:
        """Image name; the kind's standard name when the key is missing (a half-written entry)."""
        return self.values.get(IMAGE_NAME_KEY) or self.kind.image(self.uuid)

    @property
    def name(self) -> str | None:
        """The request name."""
        return self.values.get(self.kind.name_key)

    @property
    def image_id(self) -> str | None:
        """RBD image id; stored once the image is complete."""
        return self.values.get(IMAGE_ID_KEY)

    @property
    def source(self) -> str | None:
        """Image name of a snapshot's source."""
        return self.values.get(SOURCE_KEY)


@dataclass(frozen=True)
class Parent:
    """The parent link of a clone (librbd ``cls_rbd_parent``)."""

    pool_id: int
    namespace: str
    image_id: str
    snap_id: int


@dataclass(frozen=True, order=True)
class Child:
    """A linked clone, as the parent's header lists it (librbd ``ChildImageSpec``)."""

    pool_id: int
    namespace: str
    image_id: str


@dataclass(frozen=True)
class Snap:
    """A snapshot record of an image. ``user`` is false for those in librbd's trash, group and mirror namespaces."""

    id: int
    name: str
    size: int
    user: bool
    children: tuple[Child, ...] = ()
    """Linked clones (clone format 2)."""
    original_name: str | None = None
    """Name before it was moved to librbd's trash namespace; None outside of it."""
    created_at: float | None = None
    """Seconds since the epoch."""
    group_id: str | None = None
    """Id of the RBD group that the snapshot was made for; None for any other."""


@dataclass(frozen=True)
class Image:
    """An RBD image as its header tells it. Sizes in bytes, ``created_at`` in seconds since the epoch."""

    name: str
    id: str
    size: int
    features: int
    order: int
    stripe_unit: int
    stripe_count: int
    data_pool_id: int | None
    created_at: float | None
    parent: Parent | None
    snaps: tuple[Snap, ...] = ()
    trashed: bool = False
    flags: int = 0
    """librbd's flags: object map or fast-diff known to be wrong."""
    group_id: str | None = None
    """Id of the RBD group that the image is a member of."""

    @classmethod
    def remains(cls, name: str, image_id: str) -> Image:
        """What is left of an image in the trash whose removal was cut after its header: an entry, nothing else."""
        return cls(name, image_id, 0, 0, 0, 0, 0, None, None, None, (), trashed=True)

    def snap(self, name: str) -> Snap | None:
        """The user snapshot of that name."""
        return next((snap for snap in self.snaps if snap.user and snap.name == name), None)

    def snap_by_id(self, snap_id: int) -> Snap | None:
        """The snapshot of that id, in whichever namespace."""
        return next((snap for snap in self.snaps if snap.id == snap_id), None)

    def abandoned(self, name: str | None = None) -> list[Snap]:
        """Snapshots (once called ``name``, if given) that an interrupted removal left in librbd's trash namespace.

        librbd removes a snapshot there together with its last clone; without one nothing ever would.
        """
        return [
            snap
            for snap in self.snaps
            if snap.original_name is not None and name in (None, snap.original_name) and not snap.children
        ]

    @property
    def children(self) -> tuple[Child, ...]:
        """The clones that hang on any snapshot of the image, trashed snapshots included."""
        return tuple(child for snap in self.snaps for child in snap.children)


@dataclass(frozen=True)
class Watcher:
    """Somebody who has the image open (``rbd status``).

    ``mgr`` tells that it is a module of the active mgr at work, such as rbd_support detaching a clone, which goes away
    by itself; ``dead``, that the monitors have blocklisted it: it can neither read nor write any more.
    """

    address: str
    client: int
    cookie: int
    mgr: bool = False
    dead: bool = False

    @property
    def uses(self) -> bool:
        """Tell whether somebody uses the image through it."""
        return not self.mgr and not self.dead

    def to_dict(self) -> dict[str, str | int]:
        """Return the JSON form."""
        return {"address": self.address, "client": self.client, "cookie": self.cookie}


@dataclass(frozen=True)
class Trashed:
    """An entry of the trash. Times in seconds since the epoch; before ``deferred_until`` librbd removes nothing.

    ``moved`` is false while the move there is not over, or was cut short.
    """

    id: str
    name: str
    deleted_at: float
    deferred_until: float
    moved: bool


@dataclass(frozen=True)
class Task:
    """A task of rbd_support as ``ceph rbd task list`` shows it. ``image`` is its name or id, as the task has it."""

    id: str
    action: str
    pool: str
    namespace: str
    image: str
    message: str
    retry_message: str | None
    progress: float = 0.0
    """How much is done, 0 to 1."""
