"""Snapshot several volumes at one moment, and remove such a group snapshot.

The moment is that of an RBD group's snapshot. The group is there for nothing else: what it holds of each image is
cloned into an ordinary snapshot. The journal object names the members last, which completes it; then comes the answer,
and after it the group goes: librbd may take ten seconds to get the lock of a volume that is written to all the time.

Until the names are there a complete cut is kept and what is missing is made of it; without one (a crash came before it,
or into it) it is taken anew, and everything that was made of an earlier one with it: a group snapshot never mixes two
moments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from ..model.errors import AlreadyExists, Internal, InUse, NotFound, Unsupported
from ..model.groups import GROUP_NAME_KEY, Member, RbdGroup, mapping_of, member_name
from ..model.handles import decode_handle
from ..model.layout import Layout
from ..model.names import Kind
from ..model.observed import EXCLUSIVE_LOCK, Entry, Image
from .base import Clones, Lock, Plan, Request, View, image_lock, name_lock
from .creation import image_steps, journal_steps, reservation, take_back
from .removal import RemoveSnapshot
from .snap_create import CreateSnapshot
from .steps import (
    Answer,
    CloneMember,
    CutGroup,
    DropGroup,
    MakeGroup,
    ReleaseName,
    RemoveEntry,
    ReserveName,
    Seal,
    Step,
    WriteEntry,
)
from .volume_clone import cloneable


@dataclass(frozen=True)
class _Group(Request):
    """What making and removing share."""

    target: ClassVar[Kind] = Kind.GROUP

    members: tuple[Member, ...] = ()

    @property
    def also(self) -> tuple[str, ...]:
        """The snapshots, by uuid, name and image."""
        return tuple(
            word
            for member in self.members
            for word in (member.uuid, Kind.SNAPSHOT.image(member.uuid), member.name, member.image_id)
        )

    def _locks(self, to_the_end: bool) -> list[Lock]:
        """The name and the snapshots' images."""
        images = [image_lock(self.where, Kind.SNAPSHOT.image(m.uuid), to_the_end=to_the_end) for m in self.members]
        return [name_lock(self.where, self.target, self.name, to_the_end=to_the_end), *images]

    def _forget(self) -> list[Step]:
        """Steps that make the journal forget the group."""
        return [
            RemoveEntry(self.where, self.target, self.uuid),
            ReleaseName(self.where, self.target, self.name, self.uuid),
        ]

    def _drop(self, view: View) -> list[Step]:
        """Steps that remove the RBD group, if it is there."""
        found = view.rbd_group(self.where, self.image)
        return [] if found is None else [DropGroup(self.where, self.image)]


@dataclass(frozen=True)
class CreateGroup(_Group):
    """A snapshot of every member's volume, all of one moment. Ready once all clones exist; sealed after that.

    The volumes are nobody else's until the end: as long as one is in the RBD group, it can't be in another one, nor go.
    """

    kind: ClassVar[str] = "group snap create"
    creates: ClassVar[bool] = True

    layout: Layout = field(default_factory=Layout)
    seals: bool = False
    """Settled by the plan that seals: a seal that a crash cut looks like a whole one, and is gone over again."""

    def locks(self) -> Sequence[Lock]:
        """The name and the snapshots until they are sealed, the volumes until they have left the RBD group."""
        volumes = (image_lock(self.where, member.image, to_the_end=True) for member in self.members)
        return [*self._locks(to_the_end=True), *volumes]

    def same(self, other: Request) -> bool:
        """Same name and volumes."""
        return isinstance(other, CreateGroup) and (self.where, self.name, self._volumes()) == (
            other.where,
            other.name,
            other._volumes(),
        )

    def plan(self, view: View) -> Plan:
        """Reserve all names; cut; clone each; write down the members; answer; remove the RBD group; seal."""
        if not view.clones_groups():
            raise Unsupported(
                "this release's librbd can't clone the snapshots that a group snapshot consists of (it has no "
                "rbd_clone4): group snapshots need Tentacle or later"
            )
        uuid = view.lookup(self.where, self.target, self.name)
        request = self if uuid is None else replace(self, uuid=uuid)
        entry = None if uuid is None else view.entry(self.where, self.target, uuid)
        mapping = mapping_of(entry)
        if mapping:
            return request._repeated(view, mapping)
        return request._made(view, uuid is not None, entry)

    def undo(self, view: View) -> Plan:
        """Remove the unfinished snapshots, the RBD group and the reservations; bring a complete one to its end."""
        if view.lookup(self.where, self.target, self.name) != self.uuid:
            return Plan(self, ())
        if mapping_of(view.entry(self.where, self.target, self.uuid)):
            return self.plan(view)
        steps: list[Step] = []
        members = []
        for number, member in enumerate(self.members):
            plan = take_back(self._share(member, number), view)
            assert isinstance(plan.request, CreateSnapshot)
            members.append(replace(member, image_id=plan.request.unfinished_id))
            steps += plan.steps
        return Plan(replace(self, members=tuple(members)), (*steps, *self._drop(view), *self._forget()))

    def _volumes(self) -> frozenset[str]:
        return frozenset(decode_handle(member.volume).uuid for member in self.members)

    def _share(self, member: Member, number: int) -> CreateSnapshot:
        """The request for one member's snapshot, whose names and journal object are as those of any other."""
        name = member_name(self.uuid, number)
        return CreateSnapshot(
            self.where, name, member.uuid, member.image, self.layout, unfinished_id=member.image_id
        )  # fmt: skip

    def _repeated(self, view: View, mapping: Mapping[str, str]) -> Plan:
        """Plan for a group snapshot that is complete: what is left to clean up, and seals that are missing."""
        if frozenset(mapping) != self._volumes():
            raise AlreadyExists(
                f"group snapshot {self.name!r} exists in {self.where} and is one of other volumes",
                volumes=sorted(mapping),
            )
        images = [view.find(self.where, Kind.SNAPSHOT.image(uuid)) for uuid in sorted(mapping.values())]
        seals = [
            Seal(self.where, image.name)
            for image in images
            if image is not None and (self.seals or image.snap(image.name) is None)
        ]
        return Plan(replace(self, seals=bool(seals)), (Answer(self.where), *self._drop(view), *seals))

    def _made(self, view: View, reserved: bool, entry: Entry | None) -> Plan:
        group = view.rbd_group(self.where, self.image)
        sources = [self._source(view, member, group) for member in self.members]
        cut = group is not None and group.cut and group.image_ids == {source.id for source in sources}
        steps: list[Step] = []
        if not reserved:
            steps.append(ReserveName(self.where, self.target, self.name, self.uuid))
        values = {GROUP_NAME_KEY: self.image, self.target.name_key: self.name}
        if entry is None or any(entry.values.get(key) != value for key, value in values.items()):
            steps.append(WriteEntry(self.where, self.target, self.uuid, tuple(sorted(values.items()))))
        making: list[Step] = []
        clones: list[Clones] = []
        members = []
        for number, (member, source) in enumerate(zip(self.members, sources)):
            share, before, after = self._share_steps(view, self._share(member, number), cut)
            if after:
                clones.append(Clones(self.where, source, cut=not cut))
            members.append(replace(member, name=share.name, image_id=share.unfinished_id))
            steps += before
            making += after
        if not cut:
            seals = tuple(Kind.SNAPSHOT.image(member.uuid) for member in self.members)
            steps += self._drop(view)
            steps.append(MakeGroup(self.where, self.image, tuple(member.image for member in self.members)))
            steps.append(CutGroup(self.where, self.image, seals))
        complete = tuple(sorted((member.volume, member.snapshot) for member in self.members))
        return Plan(
            replace(self, members=tuple(members), seals=True),
            (
                *steps,
                *making,
                WriteEntry(self.where, self.target, self.uuid, complete),
                Answer(self.where),
                DropGroup(self.where, self.image),
                *(Seal(self.where, Kind.SNAPSHOT.image(member.uuid)) for member in self.members),
            ),
            clones=tuple(clones),
        )

    def _share_steps(
        self, view: View, share: CreateSnapshot, cut: bool
    ) -> tuple[CreateSnapshot, list[Step], list[Step]]:
        """Return one member's request as settled, and its steps before and after the cut.

        A clone of an earlier cut loses its journal object first: no crash may leave one that names an image that is
        gone.
        """
        settled, found = reservation(share, view)
        if found.uuid not in (None, share.uuid):
            raise AlreadyExists(
                f"group snapshot {self.name!r} in {self.where} exists as {self.uuid}, but its creation was never "
                "finished; remove it before creating it again",
                uuid=self.uuid,
            )
        before: list[Step] = []
        if found.complete and not cut and found.image is not None:
            before.append(RemoveEntry(self.where, share.target, share.uuid))
            found = replace(found, entry=None, unfinished=found.image.id)
            settled = replace(settled, unfinished_id=found.image.id if found.image else "")
        before += journal_steps(settled, found, source=share.source)
        if found.complete:
            return settled, before, []
        clone = CloneMember(self.where, self.image, share.source, settled.image, self.layout)
        return settled, before, image_steps(settled, found, [clone])

    def _source(self, view: View, member: Member, own: RbdGroup | None) -> Image:
        """Return a member's image; raises where it can't be snapshotted together with others."""
        source = view.find(self.where, member.image)
        cloneable(self.where, member.image, source)
        assert source is not None
        if not source.features & EXCLUSIVE_LOCK:
            raise Unsupported(
                f"image {self.where}/{member.image} lacks the exclusive-lock feature, so writes to it can't be held "
                "back while others are snapshotted",
                image=member.image,
            )
        if source.group_id is not None and (own is None or source.group_id != own.id):
            name = view.group_name(self.where, source.group_id) or f"with the id {source.group_id}"
            raise InUse(
                f"image {self.where}/{member.image} is in the RBD group {name}, and RBD lets it be in one only: "
                f"take it out first (rbd group image rm)",
                image=member.image,
                group=name,
            )
        return source


@dataclass(frozen=True)
class RemoveGroup(_Group):
    """No such group snapshot, and none of its snapshots; volumes restored from them stay.

    With ``keep_until`` each of its snapshots is kept in the trash like any other, to be undeleted as one of its own.
    """

    kind: ClassVar[str] = "group snap rm"
    removes: ClassVar[bool] = True

    keep_until: float = 0.0
    deleted_at: float = 0.0

    @property
    def goes(self) -> tuple[str, ...]:
        """The snapshots' images."""
        return tuple(member.image_id for member in self.members if member.image_id)

    def locks(self) -> Sequence[Lock]:
        """The name and the snapshots, until the answer."""
        return self._locks(to_the_end=False)

    def same(self, other: Request) -> bool:
        """Same group snapshot."""
        return isinstance(other, RemoveGroup) and (self.where, self.uuid) == (other.where, other.uuid)

    def plan(self, view: View) -> Plan:
        """Every snapshot to the trash and out of the journal, then the group; answer; reclaim."""
        entry = view.entry(self.where, self.target, self.uuid)
        reserved = bool(self.name) and view.lookup(self.where, self.target, self.name) == self.uuid
        before: list[Step] = []
        after: list[tuple[bool, list[Step]]] = []
        members, frees = [], 0
        for member in self.members or self._unlisted(view):
            settled = self._named(view, member)
            try:
                plan = self._share(settled).plan(view)
            except NotFound:
                continue
            assert isinstance(plan.request, RemoveSnapshot)
            members.append(replace(settled, image_id=plan.request.image_id))
            answered = plan.steps.index(Answer(self.where))
            before += plan.steps[:answered]
            image = view.find_id(self.where, plan.request.image_id) if plan.request.image_id else None
            after.append((image is not None and bool(image.children), list(plan.steps[answered + 1 :])))
            frees += plan.frees
        if entry is None and not reserved and not members:
            raise NotFound(f"group snapshot {self.name or self.uuid!r} does not exist in {self.where}")
        forget = self._forget() if entry is not None or reserved else []
        after.sort(key=lambda pair: pair[0])  # one that waits for its clones holds up no other
        reclaim = [step for _, steps in after for step in steps]
        request = replace(self, members=tuple(members))
        return Plan(request, (*before, *self._drop(view), *forget, Answer(self.where), *reclaim), frees)

    def undo(self, view: View) -> Plan:
        """Let a removal that never got as far as the trash be forgotten; one that did has to go on."""
        for member in self.members:
            image = view.find_id(self.where, member.image_id) if member.image_id else None
            if image is not None and image.trashed:
                raise Internal(f"group snapshot {self.name or self.uuid!r} in {self.where} is in the trash already")
        plans = [self._share(member).undo(view) for member in self.members]
        return Plan(self, tuple(step for plan in plans for step in plan.steps))

    def _share(self, member: Member) -> RemoveSnapshot:
        return RemoveSnapshot(
            self.where, member.name, member.uuid, member.image_id, keep_until=self.keep_until,
            deleted_at=self.deleted_at, of_group=True,
        )  # fmt: skip

    def _named(self, view: View, member: Member) -> Member:
        entry = view.entry(self.where, Kind.SNAPSHOT, member.uuid) if not member.name else None
        return member if entry is None or entry.name is None else replace(member, name=entry.name)

    def _unlisted(self, view: View) -> list[Member]:
        """Find the snapshots of a group snapshot that was never completed, by their names."""
        found: list[Member] = []
        while (uuid := view.lookup(self.where, Kind.SNAPSHOT, member_name(self.uuid, len(found)))) is not None:
            found.append(Member(uuid, name=member_name(self.uuid, len(found))))
        return found
