"""Snapshot any RBD image into an image of its own: cut, clone, drop the cut; then seal in the background."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from ..model.errors import AlreadyExists
from ..model.layout import Layout
from ..model.names import Kind
from .base import Clones, Lock, Plan, Request, View, cut_lock, image_lock, name_lock
from .creation import Creation, image_steps, journal_steps, refuse_unfinished, reservation, undo_creation
from .steps import Answer, DropSnapshot, Seal, Step
from .volume_clone import cloneable, cut_and_clone, drop_cut


@dataclass(frozen=True)
class CreateSnapshot(Creation):
    """A snapshot of the image ``source`` of the same location. Ready once its clone exists; sealed after that.

    ``seals`` is settled by the plan that seals: a seal that a crash cut looks like a whole one, and is gone over again.
    """

    kind: ClassVar[str] = "snap create"
    target: ClassVar[Kind] = Kind.SNAPSHOT

    source: str
    layout: Layout
    unfinished_id: str = ""
    seals: bool = False

    def locks(self) -> Sequence[Lock]:
        """The name and the image until it is sealed, the source (with other cuts of it) until the answer."""
        return [
            name_lock(self.where, self.target, self.name, to_the_end=True),
            cut_lock(self.where, self.source),
            image_lock(self.where, self.image, to_the_end=True),
        ]

    def same(self, other: Request) -> bool:
        """Same name and source."""
        return isinstance(other, CreateSnapshot) and (self.where, self.name, self.source) == (
            other.where,
            other.name,
            other.source,
        )

    def plan(self, view: View) -> Plan:
        """Reserve, cut, clone, store the id, drop the cut; answer; seal.

        The id is stored before the cut is dropped: until then an interrupted try can still be made anew from the cut's
        source, and afterwards the clone is known to be linked, so that dropping the cut can't cost it its content.
        """
        request, found = reservation(self, view)
        if found.entry is not None and found.entry.source not in (None, self.source):
            raise AlreadyExists(
                f"snapshot {self.name!r} exists in {self.where} and is one of {found.entry.source!r}, "
                f"not of {self.source!r}",
                source=found.entry.source,
            )
        source = view.find(self.where, self.source)
        if found.complete and found.image is not None:
            steps: list[Step] = [*drop_cut(self.where, source, request.image), Answer(self.where)]
            if self.seals or found.image.snap(found.image.name) is None:
                steps.append(Seal(self.where, found.image.name))
                request = replace(request, seals=True)
            return Plan(request, tuple(steps))
        refuse_unfinished(request, found)
        cloneable(self.where, self.source, source)
        assert source is not None
        making = cut_and_clone(request, found, self.where, self.source, self.layout)
        return Plan(
            replace(request, seals=True),
            (
                *drop_cut(self.where, source, request.image),
                *journal_steps(request, found, source=self.source),
                *image_steps(request, found, making),
                DropSnapshot(self.where, source.id, request.image),
                Answer(self.where),
                Seal(self.where, request.image),
            ),
            clones=(Clones(self.where, source, cut=True),),
        )

    def undo(self, view: View) -> Plan:
        """Remove the unfinished clone, its cut and the reservation."""
        return undo_creation(self, view, lambda: drop_cut(self.where, view.find(self.where, self.source), self.image))
