"""Revert a volume: give its name and handle an image with the content of one of its snapshots, and keep the former one.

A snapshot is an image of its own, so there is nothing on the volume's image to roll back to, and copying in place would
take as long as the volume is large and leave neither content when it is cut. So the images are exchanged: the former
one goes to the trash with an undelete record, as a volume (``kept_uuid``) which ``trash restore`` brings back,
and a clone of the snapshot takes its name. The order is what makes it safe: the record is written first, the former
image is never removed here, and until ``csi.imageid`` leads to the clone the way back is to take it out of the trash.

On its way the former image leaves the trash once, under the name that it is kept by: librbd's rename can't be taken up
again when it was cut, and a move to the trash and a restore from it can.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from ..model.errors import HasDependents, InvalidArgument, NotFound, NotReady, Unsupported
from ..model.layout import CHOOSABLE, Layout
from ..model.names import IMAGE_NAME_KEY, Kind
from ..model.observed import JOURNALING, STRIPING, Entry, Image, Location
from ..model.records import Kept, Mark, Store
from .base import Clones, Lock, Plan, Request, View, image_lock, name_lock
from .removal import refuse_in_use
from .steps import (
    Answer,
    CloneImage,
    EraseRecord,
    GrowImage,
    MarkAdopted,
    PutRecord,
    RemoveUnfinished,
    RestoreImage,
    Seal,
    Step,
    StoreImageId,
    TrashImage,
)


@dataclass(frozen=True)
class RevertVolume(Request):
    """The volume ``uuid`` with the content of its snapshot ``snap_uuid``; its former content kept as ``kept_uuid``.

    ``image_id`` is the id of the former image and ``unfinished_id`` that of a clone that an earlier try began, both
    settled by the plan, which empties ``kept_uuid`` where the volume holds nothing but the snapshot already.
    ``keep_until`` and ``deleted_at`` are seconds since the epoch.
    """

    kind: ClassVar[str] = "volume revert"
    target: ClassVar[Kind] = Kind.VOLUME

    snap_where: Location
    snap_uuid: str
    kept_uuid: str
    keep_until: float
    deleted_at: float
    own_name: str = ""
    """The image's name where that is not the standard one."""
    image_id: str = ""
    unfinished_id: str = ""

    @property
    def snap_image(self) -> str:
        """Name of the snapshot's image, and of the snapshot on it."""
        return Kind.SNAPSHOT.image(self.snap_uuid)

    @property
    def kept_image(self) -> str:
        """Name by which the former image is kept."""
        return Kind.VOLUME.image(self.kept_uuid)

    def locks(self) -> Sequence[Lock]:
        """The name, the image and the one that is kept; the snapshot together with restores of it."""
        return [
            name_lock(self.where, self.target, self.name),
            image_lock(self.where, self.own_name or self.image),
            image_lock(self.where, self.kept_image),
            image_lock(self.snap_where, self.snap_image, shared=True),
        ]

    def same(self, other: Request) -> bool:
        """Same volume and snapshot."""
        return isinstance(other, RevertVolume) and (self.where, self.uuid, self.snap_where, self.snap_uuid) == (
            other.where,
            other.uuid,
            other.snap_where,
            other.snap_uuid,
        )

    def plan(self, view: View) -> Plan:
        """Seal the snapshot, keep the former image, clone, grow, store the id."""
        entry = view.entry(self.where, self.target, self.uuid)
        if entry is None:
            raise NotFound(f"volume {self.name!r} does not exist in {self.where}")
        if self.image_id and entry.image_id != self.image_id:
            return Plan(self, (*self._mark(view, entry), Answer(self.where)))
        if entry.image_id is None:
            raise NotReady(f"volume {self.name!r} in {self.where} is not complete yet; try again")
        if not self.image_id and view.image_id(self.where, entry.image) != entry.image_id:
            raise NotFound(f"image {self.where}/{entry.image} is not the one in the journal: 'vdisk check' tells why")
        request = self if self.image_id else replace(self, image_id=entry.image_id)
        former = view.find_id(self.where, request.image_id)
        snap = self._snapshot(view, entry)
        steps: list[Step] = []
        if snap.snap(self.snap_image) is None:
            steps.append(Seal(self.snap_where, self.snap_image))
        if former is not None:
            self._check_free(view, entry, former)
            if not self.image_id and self._pristine(view, former, snap):
                return Plan(replace(request, kept_uuid=""), (Answer(self.where),))
            steps += self._keep(view, entry, former)
        left = request._unfinished(view, entry)
        if left:
            request = replace(request, unfinished_id=left)
            steps.append(RemoveUnfinished(self.where, entry.image, left))
        layout = self._layout(view, former) if former is not None else Layout()
        steps.append(CloneImage(self.where, self.snap_where, self.snap_image, self.snap_image, entry.image, layout))
        if former is not None and former.size > snap.size:
            steps.append(GrowImage(self.where, entry.image, former.size))
        steps.append(StoreImageId(self.where, self.target, self.uuid, entry.image))
        clones = (Clones(self.snap_where, snap),)
        return Plan(request, (*steps, *request._mark(view, entry), Answer(self.where)), clones=clones)

    def undo(self, view: View) -> Plan:
        """Take the former image out of the trash again, in the place of an unfinished clone."""
        entry = view.entry(self.where, self.target, self.uuid)
        former = view.find_id(self.where, self.image_id) if self.image_id else None
        if entry is None or not self.image_id:
            return Plan(self, ())
        if former is None or entry.image_id != self.image_id:
            return self.plan(view)
        left = self._unfinished(view, entry)
        steps: list[Step] = [RemoveUnfinished(self.where, entry.image, left)] if left else []
        trashed = view.trashed(self.where, former.id)
        home = former.name == entry.image
        if former.trashed or trashed is not None or not home:
            # A restore that was cut is finished under the name that it had: librbd takes it up again under no other.
            half = not former.trashed and trashed is not None and trashed.moved
            if (half and not home) or (former.trashed and view.image_id(self.where, self.kept_image) == former.id):
                steps.append(RestoreImage(self.where, former.id, self.kept_image))
                steps.append(TrashImage(self.where, self.kept_image, self.keep_until))
            elif not former.trashed and not half:
                steps.append(TrashImage(self.where, former.name, self.keep_until))
            steps.append(RestoreImage(self.where, former.id, entry.image))
        steps.append(EraseRecord(self.where, Store.TRASH, self.kept_uuid))
        return Plan(replace(self, unfinished_id=left), tuple(steps))

    # -- what there is -------------------------------------------------------------------------------------------

    def _snapshot(self, view: View, entry: Entry) -> Image:
        """Return the snapshot's image; raises unless it is a complete snapshot of this volume."""
        found = view.entry(self.snap_where, Kind.SNAPSHOT, self.snap_uuid)
        snap = view.find(self.snap_where, self.snap_image)
        if found is None or snap is None:
            raise NotFound(f"snapshot {self.snap_uuid} does not exist in {self.snap_where}")
        here = (self.where.pool_id, self.where.namespace) == (self.snap_where.pool_id, self.snap_where.namespace)
        if not here or found.source != entry.image:
            raise InvalidArgument(
                f"snapshot {found.name!r} in {self.snap_where} is one of {found.source!r}, not of volume "
                f"{self.name!r}: 'vdisk volume restore' makes a new volume of it"
            )
        if found.image_id is None:
            raise NotReady(f"snapshot {found.name!r} in {self.snap_where} is not ready yet; try again")
        return snap

    def _check_free(self, view: View, entry: Entry, former: Image) -> None:
        """Raise when somebody has the former image open, or keeps on it what would go to the trash with it."""
        if former.trashed or former.name != entry.image:
            return
        what = f"volume {self.name!r} in {self.where}"
        if former.features & JOURNALING:
            raise Unsupported(f"{what} is journaled, and its journal does not pass to another image")
        snaps = [snap.name for snap in former.snaps if snap.user]
        if snaps:
            raise HasDependents(
                f"{what} has snapshots that were not made by vdisk: {', '.join(snaps)}; remove or adopt them first",
                dependents=snaps,
            )
        refuse_in_use(view, self.where, former, what)

    def _pristine(self, view: View, image: Image, snap: Image) -> bool:
        """Tell whether an image is a clone of the snapshot that nothing was written to.

        A client sends its command again when it lost the answer with the mgr, and must not find its work done twice.
        """
        link, seal = image.parent, snap.snap(self.snap_image)
        if link is None or seal is None or (link.image_id, link.snap_id) != (snap.id, seal.id):
            return False
        whole = image.size >= snap.size and not image.snaps and not image.flags
        return whole and view.used(self.where, image) == 0

    def _unfinished(self, view: View, entry: Entry) -> str:
        """Return the id of the clone that an earlier try began, by name or in the trash; empty when there is none."""
        there = view.image_id(self.where, entry.image) or view.partial(self.where, entry.image)
        if there is not None and there != self.image_id:
            return there
        left = view.find_id(self.where, self.unfinished_id) if self.unfinished_id else None
        return left.id if left is not None else ""

    # -- parts of the plan ---------------------------------------------------------------------------------------

    def _keep(self, view: View, entry: Entry, former: Image) -> list[Step]:
        """Steps that bring the former image to the trash under the name that it is kept by, from wherever it is."""
        steps: list[Step] = []
        if not former.trashed and former.name == entry.image:
            values = {**entry.values, IMAGE_NAME_KEY: self.kept_image}
            kept = Kept(
                self.target, self.kept_uuid, self.name, self.kept_image, former.id, self.where.journal, values,
                self.deleted_at, self.keep_until,
            )  # fmt: skip
            steps.append(PutRecord(self.where, Store.TRASH, self.kept_uuid, kept.to_text()))
            steps.append(TrashImage(self.where, entry.image, self.keep_until))
        elif former.trashed and former.name == self.kept_image:
            return []
        trashed = view.trashed(self.where, former.id)
        if former.name == entry.image or (trashed is not None and trashed.moved):
            steps.append(RestoreImage(self.where, former.id, self.kept_image))
        return [*steps, TrashImage(self.where, self.kept_image, self.keep_until)]

    def _mark(self, view: View, entry: Entry) -> list[Step]:
        """Steps that move the record of an image with a name of its own to the new one."""
        if entry.image == self.image:
            return []
        mark, there = Mark(self.uuid, True).to_text(), view.image_id(self.where, entry.image)
        steps: list[Step] = []
        if there in (None, self.image_id) or view.record(self.where, Store.IMAGES, there or "") != mark:
            steps.append(MarkAdopted(self.where, entry.image, mark))
        if view.record(self.where, Store.IMAGES, self.image_id) is not None:
            steps.append(EraseRecord(self.where, Store.IMAGES, self.image_id))
        return steps

    def _layout(self, view: View, former: Image) -> Layout:
        """Lay the clone out like the former image."""
        striped = bool(former.features & STRIPING)
        return Layout(
            former.features & CHOOSABLE,
            former.order,
            former.stripe_unit if striped else None,
            former.stripe_count if striped else None,
            view.pool_name(former.data_pool_id) if former.data_pool_id is not None else None,
        )
