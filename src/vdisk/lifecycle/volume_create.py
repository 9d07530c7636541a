"""Create an empty volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..model.errors import AlreadyExists
from ..model.layout import Layout, check_size, layout_differences
from ..model.names import Kind
from .base import Lock, Plan, Request, View
from .creation import (
    Creation,
    data_pool_id,
    image_steps,
    journal_steps,
    new_locks,
    refuse_unfinished,
    reservation,
    undo_creation,
)
from .steps import Answer, CreateImage


@dataclass(frozen=True)
class CreateVolume(Creation):
    """An empty volume of ``size`` bytes."""

    kind: ClassVar[str] = "volume create"
    target: ClassVar[Kind] = Kind.VOLUME

    size: int
    layout: Layout
    unfinished_id: str = ""

    def locks(self) -> Sequence[Lock]:
        """The name and the new image."""
        return new_locks(self)

    def same(self, other: Request) -> bool:
        """Same name, size and layout."""
        return isinstance(other, CreateVolume) and (self.where, self.name, self.size, self.layout) == (
            other.where,
            other.name,
            other.size,
            other.layout,
        )

    def plan(self, view: View) -> Plan:
        """Reserve, create, store the id."""
        pool_id = data_pool_id(self.where, self.layout, view)
        features = self.layout.features
        check_size(self.size, self.layout.order, lambda: view.default_features() if features is None else features)
        request, found = reservation(self, view)
        if found.complete and found.image is not None:
            differs = layout_differences(found.image, self.layout, pool_id)
            if found.image.size != self.size:
                differs.insert(0, f"size {found.image.size}, not {self.size}")
            if found.image.parent is not None:
                differs.insert(0, "a clone, not an empty volume")
            if differs:
                raise AlreadyExists(
                    f"volume {self.name!r} exists in {self.where} and differs: {'; '.join(differs)}", differs=differs
                )
            return Plan(request, (Answer(self.where),))
        refuse_unfinished(request, found)
        making = [CreateImage(self.where, request.image, self.size, self.layout)]
        steps = [*journal_steps(request, found), *image_steps(request, found, making), Answer(self.where)]
        return Plan(request, tuple(steps))

    def undo(self, view: View) -> Plan:
        """Remove the unfinished image and the reservation."""
        return undo_creation(self, view)
