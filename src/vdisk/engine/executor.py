"""Carries out steps: the one place through which every change to the cluster goes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from ..lifecycle import steps
from ..lifecycle.base import View
from ..model.errors import Internal, LostRace, NotFound, NotReady
from ..model.observed import Child, Location
from ..model.records import Store
from .cuts import SharedCuts
from .ports import Effects
from .waiting import Key, Waiting

#: Clones that are named to people; each name is a read or two.
_NAMED = 20
#: Seconds after which a flattening is looked at again at the latest.
_LOOK_SECONDS = 5.0


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
        do, where = self._effects, step.where
        if isinstance(step, steps.ReserveName):
            if (
                not do.reserve(where, step.kind, step.request_name, step.uuid)
                and self._view.lookup(where, step.kind, step.request_name) != step.uuid
            ):
                raise LostRace(
                    f"{step.kind.value} name {step.request_name!r} in {where} was just taken by somebody else"
                )
        elif isinstance(step, steps.WriteEntry):
            do.write_entry(where, step.kind, step.uuid, dict(step.values))
        elif isinstance(step, steps.CreateImage):
            do.create_image(where, step.image, step.size, step.layout)
        elif isinstance(step, steps.CutSnapshot):
            with self._there(where, step.image):
                self._cuts.cut(where, step.image, step.snap)
        elif isinstance(step, steps.CloneImage):
            with self._there(step.parent, step.image):
                self._cuts.clone(step.parent, step.image, step.snap, where, step.child, step.layout)
        elif isinstance(step, steps.MakeGroup):
            do.make_group(where, step.group, step.images)
        elif isinstance(step, steps.CutGroup):
            do.cut_group(where, step.group, step.seals)
        elif isinstance(step, steps.CloneMember):
            do.clone_member(where, step.group, step.image, step.child, step.layout)
        elif isinstance(step, steps.DropGroup):
            do.drop_group(where, step.group)
        elif isinstance(step, steps.GrowImage):
            with self._there(where, step.image):
                do.grow(where, step.image, step.size)
        elif isinstance(step, steps.StoreImageId):
            do.write_entry(where, step.kind, step.uuid, {"csi.imageid": self._id_of(where, step.image)})
        elif isinstance(step, steps.DropSnapshot):
            self._cuts.drop(where, step.image_id, step.snap)
        elif isinstance(step, steps.PurgeSnapshot):
            do.purge(where, step.image_id, step.snap_id)
        elif isinstance(step, steps.Seal):
            do.seal(where, step.image)
        elif isinstance(step, steps.RemoveUnfinished):
            do.remove_unfinished(where, step.image, step.image_id)
        elif isinstance(step, steps.TrashImage):
            do.trash(where, step.image, max(0, math.ceil(step.until - time.time())))
        elif isinstance(step, steps.FlattenImage):
            self._flatten(where, step.image, step.image_id)
        elif isinstance(step, steps.RestoreImage):
            do.restore_image(where, step.image_id, step.image)
        elif isinstance(step, steps.PutRecord):
            do.put_records(where, step.store, {step.key: step.value})
        elif isinstance(step, steps.EraseRecord):
            do.erase_records(where, step.store, [step.key])
        elif isinstance(step, steps.EraseRecords):
            do.erase_prefix(where, step.store, step.prefix)
        elif isinstance(step, steps.MarkAdopted):
            do.put_records(where, Store.IMAGES, {self._id_of(where, step.image): step.value})
        elif isinstance(step, steps.CancelTask):
            do.cancel_task(step.task_id)
        elif isinstance(step, steps.RemoveEntry):
            do.remove_entry(where, step.kind, step.uuid)
        elif isinstance(step, steps.ReleaseName):
            do.release(where, step.kind, step.request_name, step.uuid)
        elif isinstance(step, steps.AwaitChildren):
            self._await_children(where, step.image_id)
        elif isinstance(step, steps.QueueRemoval):
            return self._remove(where, step.image_id)
        elif isinstance(step, steps.Answer):
            pass
        else:
            raise Internal(f"no way to carry out step {step.name}")
        return None

    @contextmanager
    def _there(self, where: Location, image: str) -> Iterator[None]:
        """Try later what can't open an image that is there.

        At the end of a flattening the parent's snapshot goes before the clone's link to it, and who opens the clone, or
        what hangs on it, just then is told "not found".
        """
        try:
            yield
        except NotFound as error:
            if self._view.find(where, image) is None:
                raise
            raise NotReady(f"{where}/{image}, or an image that it hangs on, is just being flattened") from error

    def _id_of(self, where: Location, image: str) -> str:
        image_id = self._view.image_id(where, image)
        if image_id is None:
            raise Internal(f"image {where}/{image} vanished while it was being made")
        return image_id

    def _flatten(self, where: Location, image: str, image_id: str) -> None:
        """Queue the task, again if somebody cancelled it, and wait for its end.

        Not while vdisk has the image open and locked for a cut: librbd hands a flattening over to whoever has the lock,
        and rbd_support was seen to abort the mgr as it closed an image after that (AsyncOpTracker).
        """
        if not self._attached(where, image_id):
            return
        if self._cuts.under_way(where, image):
            raise Waiting([f"a snapshot of {where}/{image} that is being taken"], most=_LOOK_SECONDS)
        self._effects.flatten(where, image, image_id)
        if self._attached(where, image_id):
            done = self._effects.flatten_progress(where, image)
            raise Waiting([f"{where}/{image} to be flattened (ceph rbd task list)"], most=_LOOK_SECONDS, done=done)

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
            found = self._view.name_of(there, child.image_id)
        except NotFound:
            found = None
        if found is None:
            return f"{there} image id {child.image_id}"
        name, trashed = found
        return f"{there}/{name}" + (f" (in the trash as {child.image_id})" if trashed else "")
