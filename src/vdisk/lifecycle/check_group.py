"""Judges group snapshots: directory keys, journal object, members, and the RBD group that one is made through.

RBD groups under other names, and journal objects that name such, are other drivers': nothing is said of them.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..model.findings import Subject, Trouble
from ..model.groups import is_ours, mapping_of
from ..model.names import Kind
from ..model.observed import Entry
from .check_look import Look, Verdict, finding
from .steps import DropGroup, ReleaseName, RemoveEntry, ReserveName, Step

_KIND = Kind.GROUP
_NO_RISK = "none: nothing that holds data is removed"


def judge_group(look: Look, subject: Subject) -> list[Verdict]:
    """Return what is wrong with one group snapshot; nothing while somebody may be at work on it."""
    view, where, uuid = look.view, look.where, subject.key
    entry = view.entry(where, _KIND, uuid)
    if entry is not None and not is_ours(entry):
        return []
    names = dict.fromkeys([*subject.names, *([entry.name] if entry is not None and entry.name else [])])
    owned = [name for name in names if view.lookup(where, _KIND, name) == uuid]
    if look.in_hand(uuid, _KIND.image(uuid), *owned) or look.young_object(_KIND.object(uuid)):
        return []
    if entry is None:
        return [*_without_object(look, subject, owned), *_rbd_group(look, subject, None)]
    if not mapping_of(entry):
        return [_unfinished(look, subject, owned)]
    return [
        *_key(look, subject, entry, owned),
        *_members(look, subject, entry, owned),
        *_rbd_group(look, subject, entry),
    ]


def _place(look: Look, name: str) -> str:
    return f"{_KIND.directory(look.where.journal)}:{_KIND.key(name)}"


def _forget(look: Look, uuid: str, owned: list[str]) -> list[Step]:
    return [
        RemoveEntry(look.where, _KIND, uuid),
        *(ReleaseName(look.where, _KIND, name, uuid) for name in owned),
    ]


def _without_object(look: Look, subject: Subject, owned: list[str]) -> Iterator[Verdict]:
    uuid = subject.key
    if owned:
        yield Verdict(
            finding(
                look, Trouble.KEY_WITHOUT_OBJECT, subject,
                [*(_place(look, name) for name in owned), _KIND.object(uuid)],
                "a driver died between reserving the name and writing the object, or between the two removals of a "
                "delete", "remove the directory key, so that the name is free again", _NO_RISK, automatic=True,
                uuid=uuid, image=None,
            ),
            tuple(ReleaseName(look.where, _KIND, name, uuid) for name in owned),
        )  # fmt: skip


def _unfinished(look: Look, subject: Subject, owned: list[str]) -> Verdict:
    """A group snapshot that was never completed, and no operation is going to."""
    uuid, where = subject.key, look.where
    group = look.view.rbd_group(where, _KIND.image(uuid))
    objects = [*(_place(look, name) for name in owned), _KIND.object(uuid)]
    steps = _forget(look, uuid, owned)
    if group is not None:
        objects.append(f"RBD group {where}/{group.name}")
        steps.insert(0, DropGroup(where, group.name))
    cut = group is not None and group.cut
    return Verdict(
        finding(
            look, Trouble.GROUP_UNFINISHED, subject, objects,
            "the group snapshot was never completed, and the operation that was to do so is gone",
            "remove the reservation" + (" and the RBD group that it was made through" if group is not None else "")
            + "; snapshots that were made already become ordinary ones",
            _NO_RISK if not cut else "what its snapshot holds can't be had back; no client was ever told of it",
            automatic=not cut, cut=cut,
        ),
        tuple(steps),
    )  # fmt: skip


def _key(look: Look, subject: Subject, entry: Entry, owned: list[str]) -> Iterator[Verdict]:
    name = entry.name
    if name is None or name in owned:
        return
    free = look.sole and look.view.lookup(look.where, _KIND, name) is None
    yield Verdict(
        finding(
            look, Trouble.OBJECT_WITHOUT_KEY, subject, [_KIND.object(entry.uuid), _place(look, name)],
            "the directory key of this group snapshot was removed" if free else "its name leads to another one",
            f"reserve the name {name} again" if free else None, _NO_RISK, automatic=True, name=name,
        ),
        (ReserveName(look.where, _KIND, name, entry.uuid),) if free else (),
    )  # fmt: skip


def _members(look: Look, subject: Subject, entry: Entry, owned: list[str]) -> Iterator[Verdict]:
    uuids = sorted(mapping_of(entry).values())
    lost = [uuid for uuid in uuids if look.view.entry(look.where, Kind.SNAPSHOT, uuid) is None]
    if lost and not look.in_hand(*lost):
        yield Verdict(
            finding(
                look, Trouble.GROUP_MEMBER_LOST, subject,
                [_KIND.object(entry.uuid), *(Kind.SNAPSHOT.object(uuid) for uuid in lost)],
                "snapshots of this group snapshot were removed without it",
                "make the journal forget the group snapshot; the snapshots that are left become ordinary ones",
                "the handle of the group snapshot is not known any more", lost=lost, left=len(uuids) - len(lost),
            ),
            tuple(_forget(look, entry.uuid, owned)),
        )  # fmt: skip


def _rbd_group(look: Look, subject: Subject, entry: Entry | None) -> Iterator[Verdict]:
    """The RBD group of a group snapshot that is complete, or that the journal does not know."""
    group = look.view.rbd_group(look.where, _KIND.image(subject.key))
    if group is None or look.young_object(f"rbd_group_header.{group.id}"):
        return
    safe = entry is not None or not group.cut
    yield Verdict(
        finding(
            look, Trouble.LEFTOVER_GROUP, subject, [f"RBD group {look.where}/{group.name}"],
            "an operation that made a group snapshot ended before it had removed the RBD group that it used for that",
            "remove the RBD group and its snapshot; the images stay",
            "none: the group snapshot has what it holds" if entry is not None else _NO_RISK if safe else
            "what its snapshot holds can't be had back; no client was ever told of it",
            automatic=safe, images=len(group.image_ids), cut=group.cut,
        ),
        (DropGroup(look.where, group.name),),
    )  # fmt: skip
