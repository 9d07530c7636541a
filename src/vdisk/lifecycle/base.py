"""What every operation has in common: the request, what it may observe, and the plan it makes of that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from ..model.groups import RbdGroup
from ..model.names import Kind
from ..model.observed import Entry, Image, Location, Task, Trashed, Watcher
from ..model.records import Store
from .steps import Step


class View(Protocol):
    """What operations may read of the cluster."""

    def lookup(self, where: Location, kind: Kind, name: str) -> str | None:
        """Return the uuid reserved under a request name."""

    def entry(self, where: Location, kind: Kind, uuid: str) -> Entry | None:
        """Return a journal object."""

    def find(self, where: Location, name: str) -> Image | None:
        """Return an image outside of the trash."""

    def entry_and_image(self, where: Location, kind: Kind, uuid: str) -> tuple[Entry | None, Image | None]:
        """Return a journal object, and the image outside of the trash that has the standard name of that uuid."""

    def image_id(self, where: Location, name: str) -> str | None:
        """Return the id of an image outside of the trash."""

    def find_id(self, where: Location, image_id: str) -> Image | None:
        """Return an image by id, in the trash or not; of one that is half removed there, what remains."""

    def name_of(self, where: Location, image_id: str) -> tuple[str, bool] | None:
        """Return the name of an image by id, and whether it is in the trash."""

    def partial(self, where: Location, name: str) -> str | None:
        """Return the id of an image that is there in name only: its creation was cut short before its header."""

    def watchers(self, where: Location, image_id: str) -> tuple[Watcher, ...]:
        """Return who has an image open."""

    def trashed(self, where: Location, image_id: str) -> Trashed | None:
        """Return an image's entry in the trash."""

    def modified(self, where: Location, oid: str) -> float | None:
        """Return when an object was written last, in seconds since the epoch; None when it does not exist."""

    def record(self, where: Location, store: Store, key: str) -> str | None:
        """Return one of vdisk's records."""

    def task_list(self) -> list[Task]:
        """Return rbd_support's tasks."""

    def used(self, where: Location, image: Image) -> int | None:
        """Return the bytes an image's own objects take, None when it has no object map."""

    def clones_groups(self) -> bool:
        """Tell whether librbd can clone what a group's snapshot holds."""

    def rbd_group(self, where: Location, name: str) -> RbdGroup | None:
        """Return an RBD group."""

    def group_name(self, where: Location, group_id: str) -> str | None:
        """Return the name of the RBD group of that id."""

    def default_features(self) -> int:
        """Return the feature bits that librbd gives a new image."""

    def pool_id(self, pool: str) -> int | None:
        """Return a pool's id."""

    def pool_name(self, pool_id: int) -> str | None:
        """Return a pool's name."""


@dataclass(frozen=True)
class Lock:
    """Something an operation needs for itself (or together with others that only read it): operations queue for it.

    It is given back when the operation has answered, or with ``to_the_end`` when its background part is over too. Of
    those that share it at most ``most`` run side by side (0: any number), so that a stuck one can't take every worker.
    """

    key: str
    shared: bool = False
    to_the_end: bool = False
    most: int = 0


#: How many requests may share one cut of an image, each on a worker.
SHARE_OF_A_CUT = 8


def name_lock(where: Location, kind: Kind, name: str, to_the_end: bool = False) -> Lock:
    """The lock of a request name. A creation holds it to the end: its intent must be gone before anyone removes or
    changes what it made, or a crash in between would make it once more, or have it differ from what was asked."""
    return Lock(f"{where.pool_id}/{where.namespace}/{where.journal}/{kind.value}/{name}", to_the_end=to_the_end)


def image_lock(where: Location, image: str, shared: bool = False, to_the_end: bool = False, most: int = 0) -> Lock:
    """The lock of an image."""
    return Lock(f"{where.pool_id}/{where.namespace}/image/{image}", shared, to_the_end, most)


def cut_lock(where: Location, image: str) -> Lock:
    """The lock of an image that is about to be cut: together with others that are, since they can share a cut."""
    return image_lock(where, image, shared=True, most=SHARE_OF_A_CUT)


@dataclass(frozen=True)
class Clones:
    """An image that a plan makes a clone of, and whether it is cut for that: what guards of chains and counts need."""

    where: Location
    image: Image
    cut: bool = False


@dataclass(frozen=True)
class Plan:
    """The steps that lead from what was observed to what is wanted.

    ``request`` is the request with what observing settled (a reservation that was taken over, the id of an image that
    is about to lose its name): it is what the durable intent holds, so that planning again needs nothing else.
    """

    request: Request
    steps: tuple[Step, ...]
    frees: int = 0
    """Size in bytes of the image that a removal is about."""
    clones: tuple[Clones, ...] = ()


@dataclass(frozen=True)
class Request:
    """What is wanted. Immutable, made of plain data, and all that a durable intent needs to remember.

    ``uuid`` names the volume or snapshot. For one that is to be created it is proposed by the caller and new, so an
    existing reservation with this very uuid was made by this very request before it was interrupted.
    """

    kind: ClassVar[str]
    target: ClassVar[Kind]
    creates: ClassVar[bool] = False
    removes: ClassVar[bool] = False

    where: Location
    name: str
    uuid: str

    def locks(self) -> Sequence[Lock]:
        """What the operation queues for."""
        raise NotImplementedError

    def same(self, other: Request) -> bool:
        """Tell whether ``other`` asks for the same thing, so that one operation can serve both."""
        raise NotImplementedError

    def plan(self, view: View) -> Plan:
        """Observe and return the plan; raises a ``VdiskError`` when the request cannot be granted."""
        raise NotImplementedError

    def undo(self, view: View) -> Plan:
        """Return the plan that removes what an unfinished request left; no steps when there is nothing to undo.

        Where nothing can be undone any more it leads forward instead, and includes the answer.
        """
        return Plan(self, ())

    @property
    def image(self) -> str:
        """Name of the image that the request is about."""
        return self.target.image(self.uuid)

    @property
    def goes(self) -> tuple[str, ...]:
        """Ids of the images that are gone when the request has been carried out."""
        return ()

    @property
    def also(self) -> tuple[str, ...]:
        """What else the request has in hand: uuids and ids of images."""
        return ()
