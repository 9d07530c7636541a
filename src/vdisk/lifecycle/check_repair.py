"""Repairs one finding: look again, and do what the finding proposes if it is still so."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from ..model.findings import Subject, SubjectKind
from ..model.names import Kind
from .base import Lock, Plan, Request, View, image_lock, name_lock
from .check_look import Look
from .check_trash import judge
from .steps import Answer, AwaitChildren, QueueRemoval, Step


@dataclass(frozen=True)
class Repair(Request):
    """The repair of the finding whose id is ``uuid``. ``name`` says what it is about, for people.

    ``names`` are the subject's names, a line each. ``image_id`` is settled by a plan whose last steps reclaim an image:
    from the trash move on nothing else leads to it.
    """

    kind: ClassVar[str] = "check repair"
    target: ClassVar[Kind] = Kind.VOLUME

    subject: str
    key: str
    names: str = ""
    image_id: str = ""

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
        found = next((v for v in judge(look, self._subject) if v.finding.id == self.uuid), None)
        steps: tuple[Step, ...] = found.steps if found is not None else ()
        if not steps and self.image_id:
            image = view.find_id(self.where, self.image_id)
            if image is not None and image.trashed:
                steps = (AwaitChildren(self.where, image.id), QueueRemoval(self.where, image.id))
        queued = [step.image_id for step in steps if isinstance(step, QueueRemoval)]
        request = replace(self, image_id=queued[0]) if queued else self
        wait = next((at for at, step in enumerate(steps) if isinstance(step, AwaitChildren)), len(steps))
        return Plan(request, (*steps[:wait], Answer(self.where), *steps[wait:]))

    def undo(self, view: View) -> Plan:
        """Nothing: each step leaves the journal better than before, and what is left is found again."""
        return Plan(self, ())

    @property
    def _subject(self) -> Subject:
        return Subject(SubjectKind(self.subject), self.key, tuple(filter(None, self.names.split("\n"))))
