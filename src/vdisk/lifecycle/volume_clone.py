"""Clone a volume to a new volume: snapshot, clone, remove the snapshot. No temporary image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..model.errors import NotFound, OutOfRange, Unsupported
from ..model.layout import Layout
from ..model.names import Kind
from ..model.observed import LAYERING, Image, Location
from .base import Clones, Lock, Plan, Request, View, cut_lock, image_lock
from .creation import (
    Creation,
    Reservation,
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
from .steps import Answer, CloneImage, CutSnapshot, DropSnapshot, GrowImage, PurgeSnapshot, Step
from .volume_restore import check_clone


@dataclass(frozen=True)
class CloneVolume(Creation):
    """A volume with the present content of another; ``size`` in bytes, None for the source's own."""

    kind: ClassVar[str] = "volume clone"
    target: ClassVar[Kind] = Kind.VOLUME

    source_where: Location
    source_image: str
    size: int | None
    layout: Layout
    unfinished_id: str = ""

    def locks(self) -> Sequence[Lock]:
        """The name, the new image and the source; a clone into another pool, which may hang, shares no cut."""
        inside = self.where.pool_id == self.source_where.pool_id
        return [*new_locks(self), (cut_lock if inside else image_lock)(self.source_where, self.source_image)]

    def same(self, other: Request) -> bool:
        """Same name, source, size and layout."""
        return (
            isinstance(other, CloneVolume)
            and (self.where, self.name, self.size, self.layout) == (other.where, other.name, other.size, other.layout)
            and (self.source_where, self.source_image) == (other.source_where, other.source_image)
        )

    def plan(self, view: View) -> Plan:
        """Reserve, cut, clone, grow, store the id, drop the cut."""
        pool_id = data_pool_id(self.where, self.layout, view)
        request, found = reservation(self, view)
        source = view.find(self.source_where, self.source_image)
        if found.complete and found.image is not None:
            check_clone(
                self.name,
                self.where,
                found.image,
                source,
                self.source_where,
                f"{self.source_where}/{self.source_image}",
            )
            check_existing(self, found.image, self.size, self.layout, pool_id)
            return Plan(request, (*drop_cut(self.source_where, source, request.image), Answer(self.where)))
        refuse_unfinished(request, found)
        cloneable(self.source_where, self.source_image, source)
        assert source is not None
        if self.size is not None and self.size < source.size:
            raise OutOfRange(f"size {self.size} is smaller than the source's {source.size} bytes", minimum=source.size)
        check_derived(self.size, self.layout, source)
        making = cut_and_clone(request, found, self.source_where, self.source_image, self.layout)
        if self.size is not None and self.size > source.size:
            making.append(GrowImage(self.where, request.image, self.size))
        steps = [
            *drop_cut(self.source_where, source, request.image),
            *journal_steps(request, found),
            *image_steps(request, found, making),
            DropSnapshot(self.source_where, source.id, request.image),
            Answer(self.where),
        ]
        return Plan(request, tuple(steps), clones=(Clones(self.source_where, source, cut=True),))

    def undo(self, view: View) -> Plan:
        """Remove the unfinished clone, its cut and the reservation."""

        def cut() -> list[Step]:
            return drop_cut(self.source_where, view.find(self.source_where, self.source_image), self.image)

        return undo_creation(self, view, cut)


def cloneable(where: Location, image: str, source: Image | None) -> None:
    """Raise unless ``source`` exists and can be the parent of a clone."""
    if source is None:
        raise NotFound(f"image {where}/{image} does not exist")
    if not source.features & LAYERING:
        raise Unsupported(f"image {where}/{image} lacks the layering feature, so it can't be snapshotted into a clone")


def cut_and_clone(
    request: Request, found: Reservation, source_where: Location, source_image: str, layout: Layout
) -> list[Step]:
    """Steps that snapshot the source under the new image's name and clone that."""
    return [
        CutSnapshot(source_where, source_image, request.image),
        CloneImage(request.where, source_where, source_image, request.image, request.image, layout),
    ]


def drop_cut(where: Location, source: Image | None, snap: str) -> list[Step]:
    """Steps that remove a cut that is still on the source, such as one an interrupted try left, in either namespace."""
    if source is None:
        return []
    steps: list[Step] = [PurgeSnapshot(where, source.id, left.id) for left in source.abandoned(snap)]
    if source.snap(snap) is not None:
        steps.append(DropSnapshot(where, source.id, snap))
    return steps
