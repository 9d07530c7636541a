"""Bring back from the trash what was removed: image, journal entries and handle; or a bare image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..model.errors import AlreadyExists, NotFound
from ..model.names import IMAGE_NAME_KEY, Kind
from ..model.records import Kept, Store, kept_from_text
from .base import Lock, Plan, Request, View, image_lock, name_lock
from .steps import Answer, EraseRecord, ReleaseName, RemoveEntry, ReserveName, RestoreImage, Step, WriteEntry


@dataclass(frozen=True)
class Undelete(Request):
    """What an undelete record holds, back under ``name`` with the uuid that it had.

    ``where`` has the journal's instance of the record.
    """

    image_id: str

    def locks(self) -> Sequence[Lock]:
        """The name and the image."""
        return [name_lock(self.where, self.target, self.name), image_lock(self.where, self.image)]

    def same(self, other: Request) -> bool:
        """Same uuid and name."""
        return type(other) is type(self) and (self.where, self.uuid, self.name) == (other.where, other.uuid, other.name)

    def plan(self, view: View) -> Plan:
        """Reserve the name, restore the image, write the journal object, and only then forget the record."""
        kept = kept_from_text(view.record(self.where, Store.TRASH, self.uuid))
        owner = view.lookup(self.where, self.target, self.name)
        entry = view.entry(self.where, self.target, self.uuid)
        what = f"{self.target.value} {self.name!r} in {self.where}"
        image = view.find_id(self.where, self.image_id)
        if kept is None:
            if entry is not None and owner == self.uuid and image is not None and not image.trashed:
                return Plan(self, (Answer(self.where),))
            raise NotFound(f"nothing is kept of {what}: it was removed for good, or restored under another name")
        if owner not in (None, self.uuid):
            raise AlreadyExists(f"{what} exists as {owner}: give another name", uuid=owner)
        if image is None:
            raise NotFound(f"the image of {what} (id {self.image_id}) is not in the trash any more")
        name = self._free_name(view, kept)
        values = {**kept.values, IMAGE_NAME_KEY: name, self.target.name_key: self.name}
        steps: list[Step] = []
        if owner is None:
            steps.append(ReserveName(self.where, self.target, self.name, self.uuid))
        if view.trashed(self.where, image.id) is not None:
            steps.append(RestoreImage(self.where, image.id, name))
        if entry is None or dict(entry.values) != values:
            steps.append(WriteEntry(self.where, self.target, self.uuid, tuple(sorted(values.items()))))
        return Plan(self, (*steps, EraseRecord(self.where, Store.TRASH, self.uuid), Answer(self.where)))

    def undo(self, view: View) -> Plan:
        """Free the name again as long as the image is in the trash; once it begins to come back go forward."""
        image = view.find_id(self.where, self.image_id)
        listed = view.find(self.where, image.name) if image is not None else None
        if listed is not None and listed.id == self.image_id:
            return self.plan(view)
        steps: list[Step] = []
        if view.entry(self.where, self.target, self.uuid) is not None:
            steps.append(RemoveEntry(self.where, self.target, self.uuid))
        if view.lookup(self.where, self.target, self.name) == self.uuid:
            steps.append(ReleaseName(self.where, self.target, self.name, self.uuid))
        return Plan(self, tuple(steps))

    def _free_name(self, view: View, kept: Kept) -> str:
        """Return the image's former name, or the standard one if somebody else has got it meanwhile."""
        for name in dict.fromkeys((kept.image, self.image)):
            found = view.find(self.where, name)
            if found is None or found.id == self.image_id:
                return name
        raise AlreadyExists(f"image {self.where}/{kept.image} exists again and is another one; rename it first")


@dataclass(frozen=True)
class UndeleteVolume(Undelete):
    """A removed volume."""

    kind: ClassVar[str] = "trash restore volume"
    target: ClassVar[Kind] = Kind.VOLUME


@dataclass(frozen=True)
class UndeleteSnapshot(Undelete):
    """A removed snapshot, with its seal."""

    kind: ClassVar[str] = "trash restore snapshot"
    target: ClassVar[Kind] = Kind.SNAPSHOT


@dataclass(frozen=True)
class RestoreBare(Request):
    """An image in the trash that no undelete record knows, back as the image ``name``; the journal stays as it is."""

    kind: ClassVar[str] = "trash restore image"
    target: ClassVar[Kind] = Kind.VOLUME

    image_id: str

    def locks(self) -> Sequence[Lock]:
        """The image."""
        return [image_lock(self.where, self.name)]

    def same(self, other: Request) -> bool:
        """Same image and name."""
        return isinstance(other, RestoreBare) and (self.where, self.image_id, self.name) == (
            other.where,
            other.image_id,
            other.name,
        )

    def plan(self, view: View) -> Plan:
        """Restore the image."""
        there = view.find(self.where, self.name)
        trashed = view.trashed(self.where, self.image_id) is not None
        if there is not None and there.id == self.image_id and not trashed:
            return Plan(self, (Answer(self.where),))
        if there is not None and there.id != self.image_id:
            raise AlreadyExists(f"image {self.where}/{self.name} exists: give another name")
        if not trashed:
            raise NotFound(f"image id {self.image_id} is not in the trash of {self.where}")
        return Plan(self, (RestoreImage(self.where, self.image_id, self.name), Answer(self.where)))
