"""Judges the trash, rbd_support's tasks, undelete records and directories."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..model.findings import Subject, SubjectKind, Trouble
from ..model.observed import Task
from ..model.records import Store, kept_from_text
from .check_entry import judge_entry
from .check_group import judge_group
from .check_image import judge_image
from .check_look import Look, Verdict, csi_uuid, finding
from .steps import AwaitChildren, CancelTask, DropSnapshot, EraseRecord, PurgeSnapshot, QueueRemoval, TrashImage

#: Actions of tasks whose image may be gone, by whether the task names it by an id in the trash.
_ACTIONS = {"trash remove": True, "flatten": False, "remove": False}


def judge(look: Look, subject: Subject) -> list[Verdict]:
    """Return what is wrong with any subject, looked at now."""
    if subject.kind in (SubjectKind.VOLUME, SubjectKind.SNAPSHOT):
        return judge_entry(look, subject)
    # An intent or a directory is told of, never repaired.
    judging = _JUDGES.get(subject.kind)
    return judging(look, subject) if judging is not None else []


def judge_trash(look: Look, subject: Subject) -> list[Verdict]:
    """An image in the trash: by whom, and who is going to remove it. What others put there is theirs."""
    where = look.where
    entry = look.view.trashed(where, subject.key)
    named = csi_uuid(entry.name) if entry is not None else None
    if entry is None or named is None or look.in_hand(entry.id, entry.name, named[1]) or look.young(entry.deleted_at):
        return []
    kind, uuid = named
    place = f"trash of {where}: {entry.id} ({entry.name})"
    if not entry.moved:
        return [
            Verdict(
                finding(
                    look, Trouble.TRASH_MOVE_UNFINISHED, subject, [place],
                    "the move to the trash was cut short; librbd does not remove such an image",
                    "move it again, which finishes it", "none: the image stays in the trash", automatic=True,
                    deleted_at=entry.deleted_at,
                ),
                (TrashImage(where, entry.name),),
            )
        ]  # fmt: skip
    journalled = look.view.entry(where, kind, uuid)
    kept = look.view.record(where, Store.TRASH, uuid) is not None or entry.deferred_until > look.now
    if look.tasked(entry.id) or kept or (journalled is not None and journalled.image_id == entry.id):
        return []
    image = look.view.find_id(where, entry.id)
    if image is None:
        return []
    own = {entry.name, kind.image(uuid)}
    return [
        Verdict(
            finding(
                look, Trouble.TRASH_ORPHAN, subject, [place],
                "no task and no operation is going to remove it: its task was cancelled, or a driver died before it "
                "had added one",
                "remove the image and its data", "the image's data is gone afterwards", held=look.used(image),
                deleted_at=entry.deleted_at, name=entry.name, clones=len(image.children),
            ),
            (
                *(DropSnapshot(where, image.id, snap.name) for snap in image.snaps if snap.user and snap.name in own),
                *(PurgeSnapshot(where, image.id, snap.id) for snap in image.abandoned()),
                AwaitChildren(where, image.id),
                QueueRemoval(where, image.id),
            ),
        )
    ]  # fmt: skip


def judge_task(look: Look, subject: Subject) -> list[Verdict]:
    """A task of rbd_support's whose image does not exist: it would be tried again for ever."""
    task = next((task for task in look.tasks if task.id == subject.key), None)
    if task is None or task.action not in _ACTIONS or not _gone(look, task):
        return []
    return [
        Verdict(
            finding(
                look, Trouble.TASK_WITHOUT_IMAGE, subject, [f"rbd task {task.id}"],
                "the image was removed by somebody else while the task was queued", "cancel the task",
                "none: there is nothing that it could do", automatic=True, action=task.action, image=task.image,
                message=task.message, retry_message=task.retry_message,
            ),
            (CancelTask(look.where, task.id),),
        )
    ]  # fmt: skip


def _gone(look: Look, task: Task) -> bool:
    if _ACTIONS[task.action]:
        return look.view.find_id(look.where, task.image) is None and look.view.trashed(look.where, task.image) is None
    return look.view.find(look.where, task.image) is None and look.view.partial(look.where, task.image) is None


def judge_record(look: Look, subject: Subject) -> list[Verdict]:
    """An undelete record whose image is not in the trash: there is nothing to bring back."""
    kept = kept_from_text(look.view.record(look.where, Store.TRASH, subject.key))
    if kept is None or look.in_hand(kept.uuid, kept.image_id, kept.image) or look.young(kept.deleted_at):
        return []
    if look.view.trashed(look.where, kept.image_id) is not None:
        return []
    if (
        look.view.find_id(look.where, kept.image_id) is not None
        and look.view.entry(look.where, kept.kind, kept.uuid) is None
    ):
        return []  # restored without its journal: the image is told of, and the record is what can mend it
    return [
        Verdict(
            finding(
                look, Trouble.RECORD_WITHOUT_IMAGE, subject, [f"{Store.TRASH.value}:{subject.key}"],
                "the image was removed from the trash, or brought back, without vdisk", "erase the undelete record",
                "none: there is no image that it could bring back", automatic=True, name=kept.name,
                image_id=kept.image_id, expires_at=kept.expires_at,
            ),
            (EraseRecord(look.where, Store.TRASH, subject.key),),
        )
    ]  # fmt: skip


_JUDGES: Mapping[SubjectKind, Callable[[Look, Subject], list[Verdict]]] = {
    SubjectKind.GROUP: judge_group,
    SubjectKind.IMAGE: judge_image,
    SubjectKind.TRASH: judge_trash,
    SubjectKind.TASK: judge_task,
    SubjectKind.RECORD: judge_record,
}
