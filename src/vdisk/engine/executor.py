"""Carries out steps: the one place through which every change to the cluster goes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..lifecycle import steps
from ..lifecycle.base import View
from ..model.errors import Internal, LostRace, NotFound
from ..model.observed import Child, Location
from .ports import Effects


class Waiting(Exception):
    """A step can't go on until something else goes; ``waiting_for`` names it."""

    def __init__(self, waiting_for: list[str]) -> None:
        super().__init__(", ".join(waiting_for))
        self.waiting_for = waiting_for


class Executor:
    """Runs one step at a time. ``failpoint`` is called as ``(step name, "before" or "after")`` around each."""

    def __init__(self, effects: Effects, view: View, failpoint: Callable[[str, str], None] | None = None) -> None:
        self._effects = effects
        self._view = view
        self._failpoint = failpoint

    def run(self, step: steps.Step) -> None:
        """Carry out a step. Raises errors of the model, or :class:`Waiting`."""
        with self.failpoints(step.name):
            self._effects.fence()
            self._run(step)

    @contextmanager
    def failpoints(self, name: str) -> Iterator[None]:
        """Put the failpoints before and after a step, or another moment with a name, around a block."""
        if self._failpoint is not None:
            self._failpoint(name, "before")
        yield
        if self._failpoint is not None:
            self._failpoint(name, "after")

    def _run(self, step: steps.Step) -> None:
        do = self._effects
        match step:
            case steps.ReserveName(where, kind, name, uuid):
                if not do.reserve(where, kind, name, uuid) and self._view.lookup(where, kind, name) != uuid:
                    raise LostRace(f"{kind.value} name {name!r} in {where} was just taken by somebody else")
            case steps.WriteEntry(where, kind, uuid, values):
                do.write_entry(where, kind, uuid, dict(values))
            case steps.CreateImage(where, image, size, layout):
                do.create_image(where, image, size, layout)
            case steps.CutSnapshot(where, image, snap):
                do.cut(where, image, snap)
            case steps.CloneImage(where, parent, image, snap, child, layout):
                do.clone_image(parent, image, snap, where, child, layout)
            case steps.GrowImage(where, image, size):
                do.grow(where, image, size)
            case steps.StoreImageId(where, kind, uuid, image):
                found = self._view.find(where, image)
                if found is None:
                    raise Internal(f"image {where}/{image} vanished while it was being made")
                do.write_entry(where, kind, uuid, {"csi.imageid": found.id})
            case steps.DropSnapshot(where, image_id, snap):
                do.drop(where, image_id, snap)
            case steps.PurgeSnapshot(where, image_id, snap_id):
                do.purge(where, image_id, snap_id)
            case steps.Seal(where, image):
                do.cut(where, image, image)
            case steps.RemoveUnfinished(where, image, image_id):
                do.remove_unfinished(where, image, image_id)
            case steps.TrashImage(where, image, until):
                do.trash(where, image, max(0, math.ceil(until - time.time())))
            case steps.FlattenImage(where, image, image_id):
                self._flatten(where, image, image_id)
            case steps.RestoreImage(where, image_id, image):
                do.restore_image(where, image_id, image)
            case steps.PutRecord(where, store, key, value):
                do.put_records(where, store, {key: value})
            case steps.EraseRecord(where, store, key):
                do.erase_records(where, store, [key])
            case steps.CancelTask(_, task_id):
                do.cancel_task(task_id)
            case steps.RemoveEntry(where, kind, uuid):
                do.remove_entry(where, kind, uuid)
            case steps.ReleaseName(where, kind, name, uuid):
                do.release(where, kind, name, uuid)
            case steps.AwaitChildren(where, image_id):
                self._await_children(where, image_id)
            case steps.QueueRemoval(where, image_id):
                do.queue_removal(where, image_id)
            case steps.Answer():
                pass
            case _:
                raise Internal(f"no way to carry out step {step.name}")

    def _flatten(self, where: Location, image: str, image_id: str) -> None:
        """Queue the task, again if somebody cancelled it, and wait for its end."""
        if not self._attached(where, image_id):
            return
        self._effects.flatten(where, image)
        if self._attached(where, image_id):
            raise Waiting([f"{where}/{image} to be flattened (ceph rbd task list)"])

    def _attached(self, where: Location, image_id: str) -> bool:
        found = self._view.find_id(where, image_id)
        return found is not None and found.parent is not None

    def _await_children(self, where: Location, image_id: str) -> None:
        image = self._view.find_id(where, image_id)
        if image is not None and image.children:
            raise Waiting([self._child_name(where, child) for child in image.children])

    def _child_name(self, where: Location, child: Child) -> str:
        """Name a clone for a person; its bare id where it can't be read."""
        if child.pool_id != where.pool_id:
            return f"image id {child.image_id} in pool id {child.pool_id}"
        there = Location(where.pool_id, where.pool, child.namespace)
        try:
            image = self._view.find_id(there, child.image_id)
        except NotFound:
            image = None
        if image is None:
            return f"{there} image id {child.image_id}"
        return f"{there}/{image.name}" + (f" (in the trash as {image.id})" if image.trashed else "")
