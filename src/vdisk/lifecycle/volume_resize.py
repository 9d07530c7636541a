"""Grow a volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..model.errors import NotFound, NotReady, OutOfRange
from ..model.layout import check_size
from ..model.names import Kind
from .base import Lock, Plan, Request, View, image_lock, name_lock
from .steps import Answer, GrowImage


@dataclass(frozen=True)
class ResizeVolume(Request):
    """A volume of ``size`` bytes; growing only."""

    kind: ClassVar[str] = "volume resize"
    target: ClassVar[Kind] = Kind.VOLUME

    size: int
    own_name: str = ""
    """The image's name where that is not the standard one."""

    def locks(self) -> Sequence[Lock]:
        """The name and the image: a creation that a crash left is over before anyone changes what it made."""
        return [name_lock(self.where, self.target, self.name), image_lock(self.where, self.own_name or self.image)]

    def same(self, other: Request) -> bool:
        """Same volume and size."""
        return isinstance(other, ResizeVolume) and (self.where, self.uuid, self.size) == (
            other.where,
            other.uuid,
            other.size,
        )

    def plan(self, view: View) -> Plan:
        """Grow the image unless it has the size already."""
        entry = view.entry(self.where, self.target, self.uuid)
        image = None if entry is None else view.find(self.where, entry.image)
        if entry is None or image is None:
            raise NotFound(f"volume {self.name!r} does not exist in {self.where}")
        if entry.image_id is None:
            raise NotReady(f"volume {self.name!r} in {self.where} is not complete yet; try again")
        if self.size < image.size:
            raise OutOfRange(
                f"size {self.size} is smaller than the volume's {image.size} bytes: volumes only grow",
                minimum=image.size,
            )
        check_size(self.size, image.order, lambda: image.features)
        if self.size == image.size:
            return Plan(self, (Answer(self.where),))
        return Plan(self, (GrowImage(self.where, image.name, self.size), Answer(self.where)))
