"""Restore a snapshot to a new volume: clone ``csi-snap-<uuid>@csi-snap-<uuid>`` to ``csi-vol-<uuid>``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..model.errors import AlreadyExists, NotFound, NotReady, OutOfRange
from ..model.layout import Layout
from ..model.names import Kind
from ..model.observed import Image, Location
from .base import Clones, Lock, Plan, Request, View, image_lock
from .creation import (
    Creation,
    check_derived,
    check_existing,
    data_pool_id,
    image_steps,
    journal_steps,
    new_locks,
    refuse_unfinished,
    reservation,
    undo_creation,
)
from .steps import Answer, CloneImage, GrowImage, Seal, Step


@dataclass(frozen=True)
class RestoreVolume(Creation):
    """A volume with the content of a snapshot; ``size`` in bytes, None for the snapshot's own."""

    kind: ClassVar[str] = "volume restore"
    target: ClassVar[Kind] = Kind.VOLUME

    snap_where: Location
    snap_uuid: str
    size: int | None
    layout: Layout
    unfinished_id: str = ""

    @property
    def snap_image(self) -> str:
        """Name of the snapshot's image, and of the snapshot on it."""
        return Kind.SNAPSHOT.image(self.snap_uuid)

    def locks(self) -> Sequence[Lock]:
        """The name, the new image, and the snapshot together with other restores of it."""
        return [*new_locks(self), image_lock(self.snap_where, self.snap_image, shared=True)]

    def same(self, other: Request) -> bool:
        """Same name, snapshot, size and layout."""
        return (
            isinstance(other, RestoreVolume)
            and (self.where, self.name, self.size, self.layout) == (other.where, other.name, other.size, other.layout)
            and (self.snap_where, self.snap_uuid) == (other.snap_where, other.snap_uuid)
        )

    def plan(self, view: View) -> Plan:
        """Reserve, seal the snapshot if that is still to come, clone, grow, store the id."""
        pool_id = data_pool_id(self.where, self.layout, view)
        request, found = reservation(self, view)
        entry, snap = view.entry_and_image(self.snap_where, Kind.SNAPSHOT, self.snap_uuid)
        if found.complete and found.image is not None:
            check_clone(self.name, self.where, found.image, snap, self.snap_where, f"snapshot {self.snap_uuid}")
            check_existing(self, found.image, self.size, self.layout, pool_id)
            return Plan(request, (Answer(self.where),))
        refuse_unfinished(request, found)
        if entry is None or snap is None:
            raise NotFound(f"snapshot {self.snap_uuid} does not exist in {self.snap_where}")
        if entry.image_id is None and snap.snap(self.snap_image) is None:
            raise NotReady(f"snapshot {entry.name!r} in {self.snap_where} is not ready yet; try again")
        if self.size is not None and self.size < snap.size:
            raise OutOfRange(f"size {self.size} is smaller than the snapshot's {snap.size} bytes", minimum=snap.size)
        check_derived(self.size, self.layout, snap)
        making: list[Step] = []
        if snap.snap(self.snap_image) is None:
            making.append(Seal(self.snap_where, self.snap_image))
        making.append(
            CloneImage(self.where, self.snap_where, self.snap_image, self.snap_image, request.image, self.layout)
        )
        if self.size is not None and self.size > snap.size:
            making.append(GrowImage(self.where, request.image, self.size))
        steps = [*journal_steps(request, found), *image_steps(request, found, making), Answer(self.where)]
        return Plan(request, tuple(steps), clones=(Clones(self.snap_where, snap),))

    def undo(self, view: View) -> Plan:
        """Remove the unfinished clone and the reservation."""
        return undo_creation(self, view)


def check_clone(name: str, where: Location, image: Image, source: Image | None, at: Location, what: str) -> None:
    """Raise :class:`AlreadyExists` unless ``image`` is a clone of ``source``, which may itself be gone by now."""
    parent = image.parent
    if parent is None:
        raise AlreadyExists(f"volume {name!r} exists in {where} and is not a clone of {what}")
    if source is not None and (parent.pool_id, parent.namespace, parent.image_id) != (
        at.pool_id,
        at.namespace,
        source.id,
    ):
        raise AlreadyExists(f"volume {name!r} exists in {where} and is a clone of something else than {what}")
