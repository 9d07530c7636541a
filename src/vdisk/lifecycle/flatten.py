"""Flatten an image in the middle of a chain of clones, so that what hangs on it has a shorter one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..model.names import Kind
from .base import Lock, Plan, Request, View
from .steps import Answer, FlattenImage

#: Images of one pool that are flattened for the guards side by side; rbd_support itself does one at a time.
SIDE_BY_SIDE = 2


@dataclass(frozen=True)
class FlattenChain(Request):
    """The image of that id, in the trash or not, without a parent. ``name`` is its name, for people.

    Nobody asked for it by a command, so one that fails is no promise broken: it ends, and the next request that the
    chain is too long for asks again.
    """

    kind: ClassVar[str] = "flatten"
    target: ClassVar[Kind] = Kind.VOLUME

    image_id: str

    def locks(self) -> Sequence[Lock]:
        """Its own turn, and one of the few places of its pool: it may take hours and must not take the cluster."""
        place = f"{self.where.pool_id}/flatten"
        return [
            Lock(f"{place}/{self.where.namespace}/{self.image_id}"),
            Lock(place, shared=True, most=SIDE_BY_SIDE),
        ]

    def same(self, other: Request) -> bool:
        """Same image."""
        return isinstance(other, FlattenChain) and (self.where.pool_id, self.where.namespace, self.image_id) == (
            other.where.pool_id,
            other.where.namespace,
            other.image_id,
        )

    def plan(self, view: View) -> Plan:
        """Flatten the image unless it is gone or has no parent."""
        image = view.find_id(self.where, self.image_id)
        if image is None or image.parent is None:
            return Plan(self, (Answer(self.where),))
        return Plan(self, (FlattenImage(self.where, image.name, image.id), Answer(self.where)))
