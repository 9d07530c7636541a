"""Judges images by what is on them: left-over cuts and temporary clones, abandoned snapshots, chains, counts."""

from __future__ import annotations

from collections.abc import Iterator

from ..model.findings import Subject, SubjectKind, Trouble
from ..model.names import Kind
from ..model.observed import Image, Snap
from .check_look import Look, Verdict, csi_uuid, finding, is_temp
from .steps import AwaitChildren, DropSnapshot, FlattenImage, PurgeSnapshot, QueueRemoval, Step, TrashImage


def judge_image(look: Look, subject: Subject) -> list[Verdict]:
    """Return what is wrong with the image of an id, outside of the trash."""
    image = look.view.find_id(look.where, subject.key)
    return [] if image is None or image.trashed else judge_seen(look, image)


def judge_seen(look: Look, image: Image) -> list[Verdict]:
    """Return what is wrong with an image that was read just now."""
    subject = Subject(SubjectKind.IMAGE, image.id)
    judges = (_cuts, _abandoned, _limits, _unfinished)  # the last needs what the one before has read
    found = [verdict for judge in judges for verdict in judge(look, subject, image)]
    if is_temp(image.name):
        found += _temp(look, subject, image)
    return found


def _cuts(look: Look, subject: Subject, image: Image) -> Iterator[Verdict]:
    for snap in image.snaps:
        named = csi_uuid(snap.name) if snap.user and snap.name != image.name else None
        if named is None or look.in_hand(named[1], snap.name) or look.young(snap.created_at):
            continue
        if is_temp(image.name):
            continue  # goes with the temporary clone
        yield _cut(look, subject, image, snap, *named)


def _cut(look: Look, subject: Subject, image: Image, snap: Snap, kind: Kind, uuid: str) -> Verdict:
    """A snapshot that was cut for a clone and stayed."""
    where = look.where
    entry = look.view.entry(where, kind, uuid)
    clone = look.view.find(where, entry.image if entry is not None else snap.name)
    complete = clone is not None and entry is not None and entry.image_id == clone.id
    safe = bool(snap.children) or complete
    return Verdict(
        finding(
            look, Trouble.LEFTOVER_CUT, subject, [f"image {where}/{image.name}@{snap.name}"],
            "a driver died while it was copying the image, before it removed the snapshot that it had cut for that",
            "remove the snapshot",
            "none: its clone has what it holds" if safe else
            "no clone has what the snapshot holds; no client was ever told of it",
            automatic=safe, snapshot=snap.name, snapshot_id=snap.id, created_at=snap.created_at,
            clones=len(snap.children), complete=complete,
        ),
        (DropSnapshot(where, image.id, snap.name),),
    )  # fmt: skip


def _abandoned(look: Look, subject: Subject, image: Image) -> Iterator[Verdict]:
    left = image.abandoned()
    if not left or look.young_object(f"rbd_header.{image.id}"):
        return
    names = [snap.original_name or snap.name for snap in left]
    if any(look.in_hand(name, *((csi_uuid(name) or (None, None))[1:])) for name in names):
        return
    yield Verdict(
        finding(
            look, Trouble.SNAPSHOT_ABANDONED, subject,
            [f"image {look.where}/{image.name}, trashed snapshot id {snap.id}" for snap in left],
            "the removal of a snapshot was cut short after it had lost its last clone, or its last clone's removal was",
            "remove it from librbd's trash namespace", "none: it was removed already, and no clone hangs on it",
            automatic=True, snapshots=[{"id": snap.id, "name": snap.original_name} for snap in left],
        ),
        tuple(PurgeSnapshot(look.where, image.id, snap.id) for snap in left),
    )  # fmt: skip


def _unfinished(look: Look, subject: Subject, image: Image) -> Iterator[Verdict]:
    """A flattening that was cut before its last step: librbd opens neither the image nor what hangs on it."""
    link = image.parent
    if link is None or look.in_hand(image.id, image.name) or look.young(image.created_at):
        return
    parent, snap = look.above(link)
    if snap:
        return
    yield Verdict(
        finding(
            look, Trouble.FLATTEN_UNFINISHED, subject, [f"image {look.where}/{image.name}"],
            "a client died at the very end of flattening the image: its parent's snapshot went, and the link to it "
            "stayed", "remove the link",
            "none: the parent is there without that snapshot, as only a flattening leaves it" if parent else
            "none after a flattening; if the parent's header was lost otherwise, what the image shares with it "
            "reads as zeros from then on",
            automatic=parent, image_id=image.id, parent_pool_id=link.pool_id, parent_namespace=link.namespace,
            parent_image_id=link.image_id, parent_snap_id=link.snap_id, parent_exists=parent,
        ),
        (FlattenImage(look.where, image.name, image.id),),
    )  # fmt: skip


def _limits(look: Look, subject: Subject, image: Image) -> Iterator[Verdict]:
    depth = look.depth(image) if image.parent is not None else 0
    if depth >= look.limits.depth:
        yield Verdict(
            finding(
                look, Trouble.DEPTH_NEAR_LIMIT, subject, [f"image {look.where}/{image.name}"],
                f"its chain of clones has {depth} parents: reads get slower with each, and librbd follows 16 at most",
                None, "nothing is done: flatten the image (rbd flatten), which takes the space of what it shares",
                depth=depth,
            )
        )  # fmt: skip
    if len(image.snaps) >= look.limits.snapshots:
        yield Verdict(
            finding(
                look, Trouble.SNAPSHOTS_NEAR_LIMIT, subject, [f"image {look.where}/{image.name}"],
                f"it has {len(image.snaps)} snapshots, trashed ones included, and krbd maps no image with more than "
                "510", None, "nothing is done: remove snapshots, or flatten the clones that keep trashed ones",
                snapshots=len(image.snaps),
            )
        )  # fmt: skip


def _temp(look: Look, subject: Subject, image: Image) -> Iterator[Verdict]:
    """A temporary clone. As the parent of its volume it is how ceph-csi clones, and goes with the volume."""
    named = csi_uuid(image.name)
    assert named is not None
    kind, uuid = named
    where = look.where
    if look.in_hand(uuid) or look.young(image.created_at) or look.young_object(f"rbd_header.{image.id}"):
        return
    entry = look.view.entry(where, kind, uuid)
    volume = look.view.find(where, entry.image if entry is not None else kind.image(uuid))
    if volume is not None and volume.parent is not None and volume.parent.image_id == image.id:
        return
    if entry is not None and entry.image_id is None:
        return  # a clone under way, or one that is told of as a reservation
    if image.children:
        return  # something hangs on it
    complete = volume is not None and entry is not None and entry.image_id == volume.id
    steps: list[Step] = [
        *(DropSnapshot(where, image.id, snap.name) for snap in image.snaps if snap.user and csi_uuid(snap.name)),
        TrashImage(where, image.name),
        *(PurgeSnapshot(where, image.id, snap.id) for snap in image.abandoned()),
        AwaitChildren(where, image.id),
        QueueRemoval(where, image.id),
    ]
    foreign = [snap.name for snap in image.snaps if snap.user and not csi_uuid(snap.name)]
    yield Verdict(
        finding(
            look, Trouble.LEFTOVER_TEMP, subject, [f"image {where}/{image.name}"],
            "a driver died while it cloned a volume, and nobody needs the intermediate image",
            None if foreign else "remove the image", f"nothing is done: it has snapshots {', '.join(foreign)}"
            if foreign else "none: the volume is complete without it" if complete else
            "it may be the only copy of what was to become a volume; no client was ever told of that volume",
            automatic=complete, held=look.used(image), image_id=image.id, volume_complete=complete,
        ),
        () if foreign else tuple(steps),
    )  # fmt: skip
