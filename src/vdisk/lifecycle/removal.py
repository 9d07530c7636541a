"""Delete a volume or a snapshot: trash, journal, answer; then its snapshot and its space in the background.

The image goes to the trash before the journal forgets it, so that no crash can leave an image that nothing leads to:
until the answer the journal has it, from the trash move on the durable intent has its id.

With ``keep_until`` the removal ends with the answer: an undelete record, written before anything else, holds all that
brings the volume or snapshot back, and librbd protects the image in the trash. When that time has come a removal of the
same uuid, without it, goes on where the first one stopped (``service.trash``).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from ..model.errors import HasDependents, Internal, InUse, NotFound
from ..model.groups import group_of_name, mapping_of
from ..model.names import Kind, temp_image
from ..model.observed import Entry, Image, Location
from ..model.records import Kept, Store, kept_from_text
from .base import Lock, Plan, Request, View, image_lock, name_lock
from .steps import (
    Answer,
    AwaitChildren,
    DropSnapshot,
    EraseRecord,
    PurgeSnapshot,
    PutRecord,
    QueueRemoval,
    ReleaseName,
    RemoveEntry,
    RemoveUnfinished,
    Step,
    TrashImage,
)


def refuse_in_use(view: View, where: Location, image: Image, what: str) -> None:
    """Raise ``InUse``, naming who has the image open, unless nobody uses it; ``what`` is what it is called."""
    watchers = [watcher for watcher in view.watchers(where, image.id) if watcher.uses]
    if watchers:
        raise InUse(
            f"{what} is in use by {', '.join(f'{w.address} (client.{w.client})' for w in watchers)}",
            watchers=[watcher.to_dict() for watcher in watchers],
        )


@dataclass(frozen=True)
class Removal(Request):
    """What the removals of volumes and snapshots share.

    ``image_id`` and ``temp_id`` are settled by the first plan; empty means that there is no such image. ``keep_until``
    and ``deleted_at`` are seconds since the epoch; 0 keeps nothing.
    """

    removes: ClassVar[bool] = True

    image_id: str = ""
    temp_id: str = ""
    keep_until: float = 0.0
    deleted_at: float = 0.0
    own_name: str = ""
    """The image's name where that is not the standard one."""
    of_group: bool = False
    """Removed together with the group snapshot that it belongs to."""
    kept_only: bool = False
    """Remove what an earlier removal kept, and nothing that was brought back meanwhile."""

    @property
    def goes(self) -> tuple[str, ...]:
        """The image and its left-over clone."""
        return tuple(filter(None, (self.image_id, self.temp_id)))

    def locks(self) -> Sequence[Lock]:
        """The name and the image, until the answer: what goes on afterwards concerns nobody else."""
        locks = [image_lock(self.where, self.own_name or self.image)]
        if self.name:
            locks.append(name_lock(self.where, self.target, self.name))
        return locks

    def same(self, other: Request) -> bool:
        """Same volume or snapshot."""
        return (
            isinstance(other, Removal)
            and type(other) is type(self)
            and (self.where, self.uuid, self.kept_only) == (other.where, other.uuid, other.kept_only)
        )

    def undo(self, view: View) -> Plan:
        """Let a removal that never got as far as the trash be forgotten; one that did has to go on."""
        image = view.find_id(self.where, self.image_id) if self.image_id else None
        if image is not None and image.trashed:
            raise Internal(f"{self.target.value} {self.name or self.uuid!r} in {self.where} is in the trash already")
        temp = view.find_id(self.where, self.temp_id) if self.temp_id else None
        if temp is not None and temp.trashed:
            return Plan(self, (QueueRemoval(self.where, temp.id),))
        return Plan(self, (EraseRecord(self.where, Store.TRASH, self.uuid),) if self.keep_until else ())

    def _remove(self, view: View, entry: Entry | None, extra: Sequence[Step], own: Collection[str]) -> Plan:
        """Plan the removal. ``extra`` cleans up beside the image, ``own`` names its own snapshots."""
        image_name = self._image_name(view, entry)
        image = self._observe(view, image_name, entry)
        reserved = bool(self.name) and view.lookup(self.where, self.target, self.name) == self.uuid
        if image is None and entry is None and not reserved and not self.image_id and not self.temp_id:
            raise NotFound(f"{self.target.value} {self.name or self.uuid!r} does not exist in {self.where}")
        request = self if image is None else replace(self, image_id=image.id)
        steps: list[Step] = [*extra]
        keeps = image is not None and self._keeps(image, entry)
        partial = view.partial(self.where, image_name) if image is None and entry is not None else None
        if partial is not None:
            request = replace(self, image_id=partial)
            steps.append(RemoveUnfinished(self.where, image_name, partial))
        if image is not None and not image.trashed:
            self._check_free(view, image, own)
            if keeps and entry is not None:
                steps.append(PutRecord(self.where, Store.TRASH, self.uuid, self._record(image, entry).to_text()))
            steps.append(TrashImage(self.where, image.name, self.keep_until if keeps else 0.0))
        elif image is not None and not keeps:
            steps += self._let_go(view, image)
        if entry is not None:
            steps.append(RemoveEntry(self.where, self.target, self.uuid))
        if reserved:
            steps.append(ReleaseName(self.where, self.target, self.name, self.uuid))
        if image is not None and not keeps and (self.own_name or image_name != self.image):
            steps.append(EraseRecord(self.where, Store.IMAGES, image.id))
        steps.append(Answer(self.where))
        if image is not None and not keeps:
            steps += self._reclaim(image, own)
        return Plan(request, tuple(steps), 0 if image is None else image.size)

    def _back(self, view: View, entry: Entry | None) -> bool:
        """Tell whether what was kept is in use again, or never was in the trash."""
        if not self.kept_only:
            return False
        image = view.find_id(self.where, self.image_id)
        return entry is not None or (image is not None and not image.trashed)

    def _image_name(self, view: View, entry: Entry | None) -> str:
        """Return the image's name: as the journal has it, or as an undelete record does."""
        if entry is not None:
            return entry.image
        kept = kept_from_text(view.record(self.where, Store.TRASH, self.uuid)) if self.image_id else None
        return kept.image if kept is not None else self.image

    def _keeps(self, image: Image, entry: Entry | None) -> bool:
        """Tell whether the image is to be kept: a creation that was never finished is not worth it."""
        if not self.keep_until:
            return False
        return image.trashed if entry is None else entry.image_id == image.id

    def _record(self, image: Image, entry: Entry) -> Kept:
        return Kept(
            self.target, self.uuid, entry.name or self.name, entry.image, image.id, self.where.journal, entry.values,
            self.deleted_at, self.keep_until,
        )  # fmt: skip

    def _let_go(self, view: View, image: Image) -> list[Step]:
        """Steps that end the keeping of an image that an earlier removal kept in the trash."""
        kept = kept_from_text(view.record(self.where, Store.TRASH, self.uuid))
        if kept is None or kept.image_id != image.id:
            return []
        steps: list[Step] = [EraseRecord(self.where, Store.TRASH, self.uuid)]
        if kept.image != self.image:
            steps.append(EraseRecord(self.where, Store.IMAGES, image.id))
        return steps

    def _reclaim(self, image: Image, own: Collection[str]) -> tuple[Step, ...]:
        """Steps that free a trashed image: its own snapshots, what interrupted removals left, its clones, itself."""
        return (
            *(DropSnapshot(self.where, image.id, snap.name) for snap in image.snaps if snap.user and snap.name in own),
            *(PurgeSnapshot(self.where, image.id, snap.id) for snap in image.abandoned()),
            AwaitChildren(self.where, image.id),
            QueueRemoval(self.where, image.id),
        )

    def _observe(self, view: View, image_name: str, entry: Entry | None) -> Image | None:
        """Find the image by name, or in the trash by the id that an earlier plan settled or the journal has."""
        image = view.find(self.where, image_name)
        image_id = self.image_id or (entry.image_id if entry is not None else None)
        if image is not None and self.image_id and image.id != self.image_id:
            image = None  # the name was given to another image since
        if image is None and image_id:
            image = view.find_id(self.where, image_id)
        return image

    def _check_free(self, view: View, image: Image, own: Collection[str]) -> None:
        """Raise when somebody has the image open or keeps snapshots on it that are not vdisk's."""
        what = f"{self.target.value} {self.name or self.uuid!r} in {self.where}"
        snaps = [snap.name for snap in image.snaps if snap.user and snap.name not in own]
        if snaps:
            raise HasDependents(
                f"{what} has snapshots that were not made by vdisk: {', '.join(snaps)}; remove them first",
                dependents=snaps,
            )
        refuse_in_use(view, self.where, image, what)


@dataclass(frozen=True)
class RemoveVolume(Removal):
    """No such volume, and no left-over ``<image>-temp`` either."""

    kind: ClassVar[str] = "volume rm"
    target: ClassVar[Kind] = Kind.VOLUME

    def plan(self, view: View) -> Plan:
        """Temp image, image, journal; answer; wait for clones, queue the removals, a clone before its parent."""
        entry = view.entry(self.where, self.target, self.uuid)
        if self._back(view, entry):
            return Plan(self, (Answer(self.where),))
        name = self._image_name(view, entry)
        temp_name = temp_image(name)
        # What is kept keeps its temporary clone: it may hang on it.
        temp = view.find(self.where, temp_name) if not self.keep_until else None
        if temp is None and self.temp_id:
            temp = view.find_id(self.where, self.temp_id)
        if temp is None:
            return self._remove(view, entry, [], ())
        before: list[Step] = []
        own = {temp_name, name}
        if not temp.trashed:
            self._check_free(view, temp, own)
            before.append(TrashImage(self.where, temp.name))
        plan = replace(self, temp_id=temp.id)._remove(view, entry, before, ())
        assert isinstance(plan.request, RemoveVolume)
        temp_steps = self._reclaim(temp, own)
        if temp.parent is not None and temp.parent.image_id == plan.request.image_id:
            answered = plan.steps.index(Answer(self.where)) + 1
            return Plan(plan.request, (*plan.steps[:answered], *temp_steps, *plan.steps[answered:]), plan.frees)
        return Plan(plan.request, (*plan.steps, *temp_steps), plan.frees)


@dataclass(frozen=True)
class RemoveSnapshot(Removal):
    """No such snapshot; volumes restored from it stay."""

    kind: ClassVar[str] = "snap rm"
    target: ClassVar[Kind] = Kind.SNAPSHOT

    def plan(self, view: View) -> Plan:
        """A left-over cut, image, journal; answer; drop the seal, wait for clones, queue the removal."""
        entry = view.entry(self.where, self.target, self.uuid)
        if self._back(view, entry):
            return Plan(self, (Answer(self.where),))
        extra: list[Step] = []
        self._check_group(view, entry)
        if entry is not None and entry.source is not None:
            source = view.find(self.where, entry.source)
            if source is not None and source.snap(entry.image) is not None:
                extra.append(DropSnapshot(self.where, source.id, entry.image))
        return self._remove(view, entry, extra, {self._image_name(view, entry)})

    def _check_group(self, view: View, entry: Entry | None) -> None:
        """Raise when the snapshot belongs to a group snapshot, which is removed as a whole."""
        group = group_of_name(entry.name) if entry is not None and not self.of_group else None
        found = view.entry(self.where, Kind.GROUP, group) if group is not None else None
        if found is not None and self.uuid in mapping_of(found).values():
            raise HasDependents(
                f"snapshot {self.name or self.uuid!r} in {self.where} belongs to the group snapshot "
                f"{found.name!r}: remove that ('vdisk group snap rm')",
                group=found.name,
            )
