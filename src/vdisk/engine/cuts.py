"""Cuts that are shared: requests that wait for a snapshot of the same image get clones of one.

Snapshots of one image come one at a time, each a monitor round. Whoever comes while one is being taken joins those that
wait for the next, which is taken after all of them came, so each gets the image as it is at a moment after it asked.

The first of them *leads*: the snapshot carries its name, and its intent answers for it. It is removed once everyone
has a clone. After a crash nobody shares anything: the leader's plan removes the snapshot, everyone unfinished makes its
own.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from ..model.errors import NotFound, NotReady, VdiskError
from ..model.layout import Layout
from ..model.observed import Location
from .ports import Effects

_Key = tuple[int, str, str]
#: Seconds that a leader keeps the snapshot for others whose clone hangs.
_PATIENCE = 60.0


@dataclass(eq=False)
class _Cut:
    """One snapshot and those who share it, by the names that they would have given it."""

    image: _Key
    leader: str
    members: set[str] = field(default_factory=set)
    taken: bool = False
    over: bool = False
    error: VdiskError | None = None


class SharedCuts:
    """Takes, uses and drops cuts. ``snap`` is always the caller's own name for it, which is unique."""

    def __init__(self, effects: Effects) -> None:
        self._effects = effects
        self._changed = threading.Condition()
        self._gathering: dict[_Key, _Cut] = {}
        self._taking: set[_Key] = set()
        self._cuts: dict[_Key, _Cut] = {}

    def cut(self, where: Location, image: str, snap: str) -> None:
        """Snapshot an image, or share the snapshot that somebody else is about to take."""
        key = (where.pool_id, where.namespace, image)
        with self._changed:
            joined = self._gathering.get(key)
            cut = joined or self._gathering.setdefault(key, _Cut(key, snap))
            cut.members.add(snap)
            self._cuts[self._own(where, snap)] = cut
            if joined is not None:
                self._changed.wait_for(lambda: cut.taken or cut.over)
                if cut.error is not None or not cut.taken:
                    raise NotReady(f"the snapshot of {where}/{image} that was waited for failed; trying again")
                return
            self._changed.wait_for(lambda: key not in self._taking)
            del self._gathering[key]
            self._taking.add(key)
        try:
            self._effects.cut(where, image, snap)
            cut.taken = True
        except VdiskError as error:
            cut.error = error
            raise
        finally:
            with self._changed:
                self._taking.discard(key)
                cut.over = not cut.taken
                self._changed.notify_all()

    def under_way(self, where: Location, image: str) -> bool:
        """Tell whether an image is being cut, or has a cut that is not dropped yet: it is open and locked for that."""
        key = (where.pool_id, where.namespace, image)
        with self._changed:
            return any(cut.image == key for cut in self._cuts.values())

    def clone(self, parent: Location, image: str, snap: str, where: Location, name: str, layout: Layout) -> None:
        """Clone the snapshot that stands for ``snap``."""
        with self._changed:
            cut = self._cuts.get(self._own(parent, snap))
        source = snap if cut is None else cut.leader
        try:
            self._effects.clone_image(parent, image, source, where, name, layout)
        except NotFound as error:
            if source == snap:
                raise
            raise NotReady(f"{error.message}; trying again") from error

    def drop(self, where: Location, image_id: str, snap: str) -> None:
        """Remove the snapshot that stands for ``snap`` when everyone who shares it has got so far; wait for that."""
        own = self._own(where, snap)
        with self._changed:
            cut = self._cuts.get(own)
            if cut is not None and cut.leader != snap:
                self._leave(own, snap, cut)
                self._changed.wait_for(lambda: cut.over, _PATIENCE)
                return
            if cut is not None:
                self._changed.wait_for(lambda: cut.members == {snap}, _PATIENCE)
        try:
            self._effects.drop(where, image_id, snap)
        finally:
            self.leave(where, snap)

    def leave(self, where: Location, snap: str) -> None:
        """Stop sharing, whether or not the end was reached; who shares nothing is no error."""
        own = self._own(where, snap)
        with self._changed:
            cut = self._cuts.get(own)
            if cut is None:
                return
            self._leave(own, snap, cut)
        if cut.leader == snap:
            self._effects.let_go(where, snap)

    def _leave(self, own: _Key, snap: str, cut: _Cut) -> None:
        """Caller holds the lock."""
        self._cuts.pop(own, None)
        cut.members.discard(snap)
        if cut.leader == snap:
            cut.over = True
        self._changed.notify_all()

    @staticmethod
    def _own(where: Location, snap: str) -> _Key:
        return where.pool_id, where.namespace, snap
