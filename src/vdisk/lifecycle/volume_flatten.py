"""Flatten a volume: copy what it shares with its parents, so that it depends on none of them any more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..model.errors import NotFound, NotReady
from ..model.names import Kind
from .base import Lock, Plan, Request, View
from .steps import Answer, FlattenImage


@dataclass(frozen=True)
class FlattenVolume(Request):
    """A volume without a parent. It stays in use meanwhile: flattening disturbs nobody but by its load."""

    kind: ClassVar[str] = "volume flatten"
    target: ClassVar[Kind] = Kind.VOLUME

    def locks(self) -> Sequence[Lock]:
        """Nothing but its own turn: it may take hours, in which snapshots and clones of the volume go on."""
        return [Lock(f"{self.where.pool_id}/{self.where.namespace}/flatten/{self.uuid}")]

    def same(self, other: Request) -> bool:
        """Same volume."""
        return isinstance(other, FlattenVolume) and (self.where, self.uuid) == (other.where, other.uuid)

    def plan(self, view: View) -> Plan:
        """Flatten the image unless it has no parent."""
        entry = view.entry(self.where, self.target, self.uuid)
        image = view.find(self.where, entry.image) if entry is not None else None
        if entry is None or image is None:
            raise NotFound(f"volume {self.name!r} does not exist in {self.where}")
        if entry.image_id is None:
            raise NotReady(f"volume {self.name!r} in {self.where} is not complete yet; try again")
        if image.parent is None:
            return Plan(self, (Answer(self.where),))
        return Plan(self, (FlattenImage(self.where, image.name, image.id), Answer(self.where)))
