"""Carries out steps: the one place through which every change to the cluster goes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from ..lifecycle import steps
from ..lifecycle.base import View
from ..model.errors import Internal, LostRace, NotFound
from ..model.observed import Child, Location
from .cuts import SharedCuts
from .ports import Effects
from .waiting import Key, Waiting

#: Clones that are named to people; each name is a read or two.
_NAMED = 20


class Executor:
    """Runs one step at a time. ``remove`` removes a trashed image for good (:meth:`Reaper.remove`).

    ``failpoint`` is called as ``(step name, "before" or "after")`` around each.
    """

    def __init__(
        self,
        effects: Effects,
        view: View,
        remove: Callable[[Location, str], Waiting | None],
        failpoint: Callable[[str, str], None] | None = None,
    ) -> None:
        self._effects = effects
        self._view = view
        self._remove = remove
        self._failpoint = failpoint
        self._cuts = SharedCuts(effects)

    def run(self, step: steps.Step) -> None:
        """Carry out a step. Raises errors of the model, or :class:`Waiting`."""
        with self.failpoints(step.name):
            self._effects.fence()
            waiting = self._run(step)
        if waiting is not None:
            raise waiting

    def let_go(self, plan: Iterable[steps.Step]) -> None:
        """Give back what the steps of a plan, carried out or not, keep from one to the next."""
        for step in plan:
            if isinstance(step, steps.CutSnapshot):
                self._cuts.leave(step.where, step.snap)

    @contextmanager
    def failpoints(self, name: str) -> Iterator[None]:
        """Put the failpoints before and after a step, or another moment with a name, around a block."""
        if self._failpoint is not None:
            self._failpoint(name, "before")
        yield
        if self._failpoint is not None:
            self._failpoint(name, "after")

    def _run(self, step: steps.Step) -> Waiting | None:
        """Carry out a step; returns what it set in motion and has to be waited for."""
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
                self._cuts.cut(where, image, snap)
            case steps.CloneImage(where, parent, image, snap, child, layout):
                self._cuts.clone(parent, image, snap, where, child, layout)
            case steps.MakeGroup(where, group, images):
                do.make_group(where, group, images)
            case steps.CutGroup(where, group, seals):
                do.cut_group(where, group, seals)
            case steps.CloneMember(where, group, image, child, layout):
                do.clone_member(where, group, image, child, layout)
            case steps.DropGroup(where, group):
                do.drop_group(where, group)
            case steps.GrowImage(where, image, size):
                do.grow(where, image, size)
            case steps.StoreImageId(where, kind, uuid, image):
                image_id = self._view.image_id(where, image)
                if image_id is None:
                    raise Internal(f"image {where}/{image} vanished while it was being made")
                do.write_entry(where, kind, uuid, {"csi.imageid": image_id})
            case steps.DropSnapshot(where, image_id, snap):
                self._cuts.drop(where, image_id, snap)
            case steps.PurgeSnapshot(where, image_id, snap_id):
                do.purge(where, image_id, snap_id)
            case steps.Seal(where, image):
                do.seal(where, image)
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
            case steps.EraseRecords(where, store, prefix):
                do.erase_prefix(where, store, prefix)
            case steps.CancelTask(_, task_id):
                do.cancel_task(task_id)
            case steps.RemoveEntry(where, kind, uuid):
                do.remove_entry(where, kind, uuid)
            case steps.ReleaseName(where, kind, name, uuid):
                do.release(where, kind, name, uuid)
            case steps.AwaitChildren(where, image_id):
                self._await_children(where, image_id)
            case steps.QueueRemoval(where, image_id):
                return self._remove(where, image_id)
            case steps.Answer():
                pass
            case _:
                raise Internal(f"no way to carry out step {step.name}")
        return None

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
            named = [self._child_name(where, child) for child in image.children[:_NAMED]]
            rest = [f"image id {child.image_id} in pool id {child.pool_id}" for child in image.children[_NAMED:]]
            keys = (Key(child.pool_id, child.namespace, child.image_id) for child in image.children)
            raise Waiting([*named, *rest], keys)

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
