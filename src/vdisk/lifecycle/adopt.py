"""Adopt an existing image (or a snapshot of one) into the journal without copying, and let a volume go again.

An adopted image keeps its name; ``csi.imagename`` leads to it. Nothing leads back from a name of its own to the uuid,
so a record (``vdisk.images``, by image id) does; it is also what makes sure that an image is adopted once only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from ..model.errors import AlreadyExists, InvalidArgument, NotFound
from ..model.layout import Layout
from ..model.names import IMAGE_NAME_KEY, Kind, parse_image_name
from ..model.observed import Image
from ..model.records import Mark, Store, mark_from_text
from .base import Clones, Lock, Plan, Request, View, image_lock, name_lock
from .creation import (
    Creation,
    image_steps,
    is_complete,
    journal_steps,
    new_locks,
    refuse_unfinished,
    reservation,
    undo_creation,
)
from .steps import (
    Answer,
    CloneImage,
    EraseRecord,
    PutRecord,
    ReleaseName,
    RemoveEntry,
    ReserveName,
    Seal,
    Step,
    StoreImageId,
    WriteEntry,
)
from .volume_clone import cloneable


@dataclass(frozen=True)
class AdoptVolume(Request):
    """The image ``source`` as the volume ``name``; ``csi-vol-<uuid>`` gets back the uuid that it has."""

    kind: ClassVar[str] = "adopt volume"
    target: ClassVar[Kind] = Kind.VOLUME

    source: str

    def locks(self) -> Sequence[Lock]:
        """The name and the image."""
        return [name_lock(self.where, self.target, self.name), image_lock(self.where, self.source)]

    def same(self, other: Request) -> bool:
        """Same name and image."""
        return isinstance(other, AdoptVolume) and (self.where, self.name, self.source) == (
            other.where,
            other.name,
            other.source,
        )

    def plan(self, view: View) -> Plan:
        """Note whose the image is, reserve, write the journal object, store the id."""
        image = view.find(self.where, self.source)
        if image is None:
            raise NotFound(f"image {self.where}/{self.source} does not exist")
        owner = _owner(view, self, image)
        uuid = view.lookup(self.where, self.target, self.name)
        what = f"volume {self.name!r} in {self.where}"
        if uuid is not None and uuid not in (self.uuid, owner):
            raise AlreadyExists(f"{what} exists as {uuid}", uuid=uuid)
        if owner is not None and owner != self.uuid and uuid != owner:
            raise AlreadyExists(f"image {self.where}/{self.source} is a volume already, {owner}", uuid=owner)
        request = replace(self, uuid=uuid or self._own_uuid(view))
        entry = view.entry(self.where, self.target, request.uuid)
        # A standard name leads to the uuid by itself; then there must be no mark that says it was released.
        mark = Mark(request.uuid, True).to_text() if self.source != request.image else None
        marked = view.record(self.where, Store.IMAGES, image.id)
        values = {IMAGE_NAME_KEY: self.source, self.target.name_key: self.name}
        steps: list[Step] = []
        if mark is not None and marked != mark:
            steps.append(PutRecord(self.where, Store.IMAGES, image.id, mark))
        if uuid is None:
            steps.append(ReserveName(self.where, self.target, self.name, request.uuid))
        if entry is None or any(entry.values.get(key) != value for key, value in values.items()):
            steps.append(WriteEntry(self.where, self.target, request.uuid, tuple(sorted(values.items()))))
        if entry is None or entry.image_id != image.id:
            steps.append(StoreImageId(self.where, self.target, request.uuid, self.source))
        if mark is None and marked is not None:
            steps.append(EraseRecord(self.where, Store.IMAGES, image.id))
        return Plan(request, (*steps, Answer(self.where)))

    def undo(self, view: View) -> Plan:
        """Forget what was written; the image was never touched."""
        if is_complete(self, view):
            return self.plan(view)
        steps: list[Step] = []
        if view.lookup(self.where, self.target, self.name) == self.uuid:
            steps += [
                RemoveEntry(self.where, self.target, self.uuid),
                ReleaseName(self.where, self.target, self.name, self.uuid),
            ]
        image = view.find(self.where, self.source)
        if image is not None and view.record(self.where, Store.IMAGES, image.id) == Mark(self.uuid, True).to_text():
            steps.append(EraseRecord(self.where, Store.IMAGES, image.id))
        return Plan(self, tuple(steps))

    def _own_uuid(self, view: View) -> str:
        """Return the uuid in the image's name if nobody has it, so that its former handle leads to it again."""
        named = parse_image_name(self.source)
        if named is None or named[0] is not Kind.VOLUME or view.entry(self.where, Kind.VOLUME, named[1]) is not None:
            return self.uuid
        return named[1]


def _owner(view: View, request: AdoptVolume, image: Image) -> str | None:
    """Return the uuid of the volume that an image is, None when it is none."""
    mark = mark_from_text(view.record(request.where, Store.IMAGES, image.id))
    named = parse_image_name(image.name)
    uuids = [mark.uuid] if mark is not None and mark.adopted else []
    if named is not None and named[0] is Kind.SNAPSHOT:
        raise InvalidArgument(f"image {request.where}/{image.name} is that of a snapshot: 'vdisk check' can mend it")
    if named is not None:
        uuids.append(named[1])
    for uuid in uuids:
        entry = view.entry(request.where, Kind.VOLUME, uuid)
        if entry is not None and entry.image == image.name:
            return uuid
    return None


@dataclass(frozen=True)
class AdoptSnapshot(Creation):
    """The snapshot ``snap`` of the image ``source`` as the snapshot ``name``: a clone of it, sealed. It stays too."""

    kind: ClassVar[str] = "adopt snapshot"
    target: ClassVar[Kind] = Kind.SNAPSHOT
    source: str
    snap: str
    layout: Layout
    unfinished_id: str = ""

    def locks(self) -> Sequence[Lock]:
        """The name and the image until it is sealed, the source until the answer."""
        return [
            *new_locks(self),
            image_lock(self.where, self.source),
            image_lock(self.where, self.image, to_the_end=True),
        ]

    def same(self, other: Request) -> bool:
        """Same name and snapshot."""
        return isinstance(other, AdoptSnapshot) and (self.where, self.name, self.source, self.snap) == (
            other.where,
            other.name,
            other.source,
            other.snap,
        )

    def plan(self, view: View) -> Plan:
        """Reserve, clone the snapshot, store the id; answer; seal."""
        request, found = reservation(self, view)
        source = view.find(self.where, self.source)
        if found.complete and found.image is not None:
            self._check_same(view, found.image, source)
            done: list[Step] = [Answer(self.where)]
            if found.image.snap(found.image.name) is None:
                done.append(Seal(self.where, found.image.name))
            return Plan(request, tuple(done))
        refuse_unfinished(request, found)
        cloneable(self.where, self.source, source)
        assert source is not None
        if source.snap(self.snap) is None:
            raise NotFound(f"image {self.where}/{self.source} has no snapshot {self.snap!r}")
        making = [CloneImage(self.where, self.where, self.source, self.snap, request.image, self.layout)]
        return Plan(
            request,
            (
                *journal_steps(request, found, source=self.source),
                *image_steps(request, found, making),
                Answer(self.where),
                Seal(self.where, request.image),
            ),
            clones=(Clones(self.where, source),),
        )

    def undo(self, view: View) -> Plan:
        """Remove the unfinished clone and the reservation."""
        return undo_creation(self, view)

    def _check_same(self, view: View, image: Image, source: Image | None) -> None:
        snap = source.snap(self.snap) if source is not None else None
        link = image.parent
        wanted = (source.id, snap.id) if source is not None and snap is not None else None
        if link is not None and (link.image_id, link.snap_id) == wanted:
            return
        raise AlreadyExists(
            f"snapshot {self.name!r} exists in {self.where} and is not {self.source}@{self.snap}", uuid=self.uuid
        )


@dataclass(frozen=True)
class ReleaseVolume(Request):
    """No such volume in the journal; its image stays as it is. ``image_id`` is settled by the first plan."""

    kind: ClassVar[str] = "release"
    target: ClassVar[Kind] = Kind.VOLUME

    image_id: str = ""
    own_name: str = ""
    """The image's name where that is not the standard one."""

    def locks(self) -> Sequence[Lock]:
        """The name and the image."""
        locks = [image_lock(self.where, self.own_name or self.image)]
        if self.name:
            locks.append(name_lock(self.where, self.target, self.name))
        return locks

    def same(self, other: Request) -> bool:
        """Same volume."""
        return isinstance(other, ReleaseVolume) and (self.where, self.uuid) == (other.where, other.uuid)

    def plan(self, view: View) -> Plan:
        """Note that the image is let go on purpose, then forget it as a removal does."""
        entry = view.entry(self.where, self.target, self.uuid)
        reserved = bool(self.name) and view.lookup(self.where, self.target, self.name) == self.uuid
        if entry is None and not reserved and not self.image_id:
            raise NotFound(f"volume {self.name or self.uuid!r} does not exist in {self.where}")
        image = view.find(self.where, entry.image) if entry is not None else None
        request = self if image is None else replace(self, image_id=image.id)
        steps: list[Step] = []
        if image is not None:
            steps.append(PutRecord(self.where, Store.IMAGES, image.id, Mark(self.uuid, False).to_text()))
        if entry is not None:
            steps.append(RemoveEntry(self.where, self.target, self.uuid))
        if reserved:
            steps.append(ReleaseName(self.where, self.target, self.name, self.uuid))
        return Plan(request, (*steps, Answer(self.where)))
