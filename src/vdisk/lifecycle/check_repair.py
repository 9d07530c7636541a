"""Repairs one finding: look again, and do what the finding proposes if it is still so."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from ..model.findings import Subject, SubjectKind, Trouble
from ..model.names import Kind
from .base import Lock, Plan, Request, View, image_lock, name_lock
from .check_look import Look, Verdict
from .check_trash import judge
from .steps import Answer, AwaitChildren, DropSnapshot, PurgeSnapshot, QueueRemoval, RemoveUnfinished, Step


@dataclass(frozen=True)
class Repair(Request):
    """The repair of the finding whose id is ``uuid``. ``name`` says what it is about, for people.

    ``names`` are the subject's names, a line each. Plans settle the rest: ``began`` are the steps of the first one, a
    line each; ``image_id`` is the image that they remove, to which nothing else leads from its move to the trash on.

    Between two steps of a repair what is wrong is something else, with another id. An interrupted repair goes on with
    that if all of it was part of what it began with: so it is judged anew, and does no more than was asked for.
    """

    kind: ClassVar[str] = "check repair"
    target: ClassVar[Kind] = Kind.VOLUME

    subject: str
    key: str
    names: str = ""
    image_id: str = ""
    began: str = ""

    def locks(self) -> Sequence[Lock]:
        """The names, and the image where its name is known."""
        if self._subject.kind is SubjectKind.IMAGE:
            return [image_lock(self.where, self.name)]
        if self._subject.kind not in (SubjectKind.VOLUME, SubjectKind.SNAPSHOT, SubjectKind.GROUP):
            return [Lock(f"{self.where.pool_id}/{self.where.namespace}/{self.subject}/{self.key}")]
        kind = Kind(self.subject)
        return [
            image_lock(self.where, kind.image(self.key)),
            *(name_lock(self.where, kind, name) for name in self._subject.names),
        ]

    def same(self, other: Request) -> bool:
        """The same finding."""
        return isinstance(other, Repair) and (self.where, self.uuid) == (other.where, other.uuid)

    def plan(self, view: View) -> Plan:
        """The steps of the finding, none if it is not so any more; the journal before the answer, space after it."""
        # Whoever was at work on the subject when it was found has had its time; vdisk's own work is kept off by locks.
        tasks = () if self._subject.kind is SubjectKind.IMAGE else tuple(view.task_list())
        look = Look(view, self.where, math.inf, tasks=tasks)
        steps = self._removing(view, self._left(view, judge(look, self._subject)))
        removed = [step.image_id for step in steps if isinstance(step, (QueueRemoval, RemoveUnfinished))]
        request = replace(self, image_id=removed[0]) if removed else self
        if not self.began:
            request = replace(request, began="\n".join(step.describe() for step in steps))
        wait = next((at for at, step in enumerate(steps) if isinstance(step, AwaitChildren)), len(steps))
        return Plan(request, (*steps[:wait], Answer(self.where), *steps[wait:]))

    def undo(self, view: View) -> Plan:
        """Nothing: each step leaves the journal better than before, and what is left is found again."""
        return Plan(self, ())

    def _left(self, view: View, verdicts: Sequence[Verdict]) -> tuple[Step, ...]:
        """Return the steps of the finding, or of what is left of it since the repair was begun."""
        found = next((verdict for verdict in verdicts if verdict.finding.id == self.uuid), None)
        if found is not None:
            return found.steps
        left: dict[Step, None] = {}
        for verdict in verdicts:
            steps = [step for step in verdict.steps if self._begun(view, step)]
            # What was abandoned may be of several removals, each of which stands for itself.
            if len(steps) == len(verdict.steps) or verdict.finding.trouble is Trouble.SNAPSHOT_ABANDONED:
                left.update(dict.fromkeys(steps))
        return tuple(left)

    def _begun(self, view: View, step: Step) -> bool:
        """Tell whether a step is what the repair began with, or the rest of that.

        librbd moves a snapshot to its trash namespace, under another name, before it removes it, and may be cut there.
        """
        began = self.began.split("\n")
        steps: list[Step] = [step]
        if isinstance(step, PurgeSnapshot):
            image = view.find_id(self.where, step.image_id)
            moved = [snap for snap in image.abandoned() if snap.id == step.snap_id] if image is not None else []
            steps += [DropSnapshot(self.where, step.image_id, snap.original_name or "") for snap in moved]
        return any(step.describe() in began for step in steps)

    def _removing(self, view: View, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        """Add what is left to do about the image that the repair has moved to the trash, in whatever state it is."""
        image = view.find_id(self.where, self.image_id) if self.image_id else None
        if image is None or not image.trashed:
            return steps
        again = RemoveUnfinished(self.where, image.name, image.id)
        if again.describe() in self.began.split("\n"):
            return (again, *(step for step in steps if step != again))
        return steps or (AwaitChildren(self.where, image.id), QueueRemoval(self.where, image.id))

    @property
    def _subject(self) -> Subject:
        return Subject(SubjectKind(self.subject), self.key, tuple(filter(None, self.names.split("\n"))))
