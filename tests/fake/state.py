"""What the fake cluster holds: per pool and namespace the directories, objects, images, trash and intents."""

from __future__ import annotations

from dataclasses import dataclass, field

from vdisk.model.names import Kind
from vdisk.model.observed import Child, Image, Location, Parent, Snap, Watcher
from vdisk.model.records import Store

Key = tuple[int, str]
"""A pool id and namespace."""


def key_of(where: Location) -> Key:
    """Return what the state is kept under: names of pools may change, ids stay."""
    return where.pool_id, where.namespace


@dataclass
class SnapState:
    """A snapshot record of an image header."""

    id: int
    name: str
    size: int
    user: bool = True
    children: set[Child] = field(default_factory=set)
    original_name: str | None = None
    created_at: float = 0.0
    group_id: str | None = None

    def view(self) -> Snap:
        """Return the immutable form that plans see."""
        return Snap(
            self.id, self.name, self.size, self.user, tuple(sorted(self.children)), self.original_name, self.created_at,
            self.group_id,
        )  # fmt: skip


@dataclass
class Header:
    """An image's header object; the names that lead to it are kept apart, as in RADOS."""

    size: int
    features: int
    order: int
    stripe_unit: int
    stripe_count: int
    data_pool_id: int | None
    created_at: float
    parent: Parent | None = None
    snaps: list[SnapState] = field(default_factory=list)
    used: int = 0
    group_id: str | None = None

    def snap(self, name: str) -> SnapState | None:
        """Return the user snapshot of that name."""
        return next((snap for snap in self.snaps if snap.user and snap.name == name), None)

    def view(self, name: str, image_id: str, trashed: bool) -> Image:
        """Return the immutable form that plans see."""
        return Image(
            name=name,
            id=image_id,
            size=self.size,
            features=self.features,
            order=self.order,
            stripe_unit=self.stripe_unit,
            stripe_count=self.stripe_count,
            data_pool_id=self.data_pool_id,
            created_at=self.created_at,
            parent=self.parent,
            snaps=tuple(snap.view() for snap in self.snaps),
            trashed=trashed,
            group_id=self.group_id,
        )


@dataclass
class GroupState:
    """An RBD group: ``snaps`` are its snapshots by name, with whether each is complete."""

    id: str
    image_ids: set[str] = field(default_factory=set)
    snaps: dict[str, bool] = field(default_factory=dict)


@dataclass
class Space:
    """One pool and namespace. ``ids`` are the ``rbd_id.*`` objects, ``listing`` is ``rbd_directory``.

    ``moving`` are the images in the trash whose move there is not over,
    ``deferred`` until when librbd protects one there.
    """

    directories: dict[Kind, dict[str, str]] = field(default_factory=lambda: {kind: {} for kind in Kind})
    objects: dict[tuple[Kind, str], dict[str, str]] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    listing: dict[str, str] = field(default_factory=dict)
    headers: dict[str, Header] = field(default_factory=dict)
    trash: dict[str, str] = field(default_factory=dict)
    moving: set[str] = field(default_factory=set)
    intents: dict[str, str] = field(default_factory=dict)
    records: dict[Store, dict[str, str]] = field(default_factory=lambda: {store: {} for store in Store})
    deferred: dict[str, float] = field(default_factory=dict)
    watchers: dict[str, list[Watcher]] = field(default_factory=dict)
    groups: dict[str, GroupState] = field(default_factory=dict)


@dataclass
class Pool:
    """A pool: its id, applications and namespaces besides the default one."""

    id: int
    applications: set[str]
    namespaces: list[str]
