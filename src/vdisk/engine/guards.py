"""Guards: chains of clones and the snapshots of an image stay short enough to be read, mapped and removed.

librbd reads a block that a clone has not written from its parents, one after the other, follows 16 of them at most, and
krbd maps no image with more than 510 snapshots. Both grow by ordinary use: restore, snapshot, restore. So before a plan
that makes a clone is carried out, the chain that the clone would have and the snapshots that its parent has are looked
at. From a soft bound on an image in the middle is flattened in the background; what would pass the hard bound waits for
that. What a plan has read anyway is all that is looked at as long as an image is no clone or its chain is known.

What is flattened is least disturbing first: images of snapshots, which nobody has open; removed images that only clones
keep; volumes that nobody has open; the others. An image without deep-flatten keeps its parent for its snapshots, so
flattening it would shorten no chain.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, MutableMapping
from dataclasses import dataclass, replace

from ..lifecycle import chains
from ..lifecycle.base import Clones, Plan, Request
from ..lifecycle.flatten import FlattenChain
from ..model.errors import NotFound, NotReady, Throttled, Unsupported
from ..model.names import Kind, parse_image_name
from ..model.observed import DEEP_FLATTEN, Child, Image, Location
from .ports import Cluster
from .waiting import Key, Waiting

#: Chains that are remembered, and images whose chain or snapshots are near a bound.
_REMEMBERED = 20_000
_NEAR = 200
#: Snapshots with clones that are looked at for those that are flattened with the least disturbance, and are chosen.
_LOOKED_AT = 16
_CHOSEN = 2


@dataclass(frozen=True)
class GuardSettings:
    """Options, read anew each time; a bound of 0 is none."""

    depth_soft: Callable[[], int] = lambda: 4
    depth_hard: Callable[[], int] = lambda: 8
    snapshots_soft: Callable[[], int] = lambda: 250
    snapshots_hard: Callable[[], int] = lambda: 450

    def near_depth(self) -> int:
        """Return the length of a chain that is halfway from the soft to the hard bound."""
        return _halfway(self.depth_soft(), self.depth_hard())

    def near_snapshots(self) -> int:
        """Return how many snapshots are halfway from the soft to the hard bound."""
        return _halfway(self.snapshots_soft(), self.snapshots_hard())


def _halfway(soft: int, hard: int) -> int:
    """Return the middle of two bounds, either if the other is none, and what is never reached if both are."""
    if not soft or not hard:
        return soft or hard or 1 << 30
    return (soft + max(soft, hard) + 1) // 2


@dataclass(frozen=True)
class Near:
    """An image that is near a bound: its place, and how long its chain is or how many snapshots it has."""

    where: Location
    image_id: str
    name: str
    what: str
    """``depth`` or ``snapshots``."""
    number: int


class Guards:
    """Looks at plans before they are carried out. ``submit`` takes the flattening that is needed. Any thread."""

    def __init__(self, cluster: Cluster, settings: GuardSettings, submit: Callable[[Request], object]) -> None:
        self._cluster = cluster
        self._settings = settings
        self._submit = submit
        self._lock = threading.Lock()
        self._depths: OrderedDict[chains.Key, int] = OrderedDict()
        self._flattening: set[Key] = set()
        self._near: OrderedDict[tuple[int, str, str, str], Near] = OrderedDict()

    def admit(self, plan: Plan) -> None:
        """Begin the flattening that a plan makes needful, for all that it clones side by side.

        Raises :class:`Waiting` for a plan that would pass a hard bound, and ``Unsupported`` for one that would and
        where nothing can be flattened.
        """
        waits = [
            found
            for clones in plan.clones
            for found in (self._admit_depth(clones), self._admit_count(clones) if clones.cut else None)
            if found is not None
        ]
        if waits:
            raise Waiting(
                [reason for found in waits for reason in found.waiting_for],
                [key for found in waits for key in found.keys],
            )

    def over(self, key: Key) -> None:
        """Take note that the flattening of an image has ended."""
        with self._lock:
            self._flattening.discard(key)

    def near(self) -> list[Near]:
        """Return the images near a bound, looked at anew; what is not near it any more is forgotten."""
        with self._lock:
            seen = list(self._near.values())
        for item in seen:
            number = self._number(item)
            with self._lock:
                if number < self._bound(item.what):
                    self._near.pop(_near_key(item), None)
                else:
                    self._near[_near_key(item)] = replace(item, number=number)
        with self._lock:
            return list(self._near.values())

    def look_after(self, where: Location, image_id: str, name: str, what: str) -> None:
        """Have an image that somebody else found near a bound looked at from now on."""
        self._note(Near(where, image_id, name, what, self._bound(what)))

    # -- chains --------------------------------------------------------------------------------------------------

    def _admit_depth(self, clones: Clones) -> Waiting | None:
        soft, hard = self._settings.depth_soft(), self._settings.depth_hard()
        lowest = min((bound for bound in (soft, hard and hard + 1) if bound), default=0)
        if not lowest or self._known_depth(clones.image) + 1 < lowest:
            return None
        chain = self._chain(clones)
        deep = len(chain)
        if deep >= self._settings.near_depth():
            self._note(Near(clones.where, clones.image.id, clones.image.name, "depth", deep - 1))
        chosen = self._choose(chain, lowest) if deep >= lowest else None
        if chosen is not None:
            self._flatten([chosen])
        if not hard or deep <= hard:
            return None
        place = f"{clones.where}/{clones.image.name}"
        if chosen is None:
            raise Unsupported(
                f"a clone of {place} would have a chain of {deep} parents, {hard} are allowed (option "
                "clone_depth_hard), and none of them can be flattened: they lack the feature deep-flatten"
            )
        return Waiting(
            [
                f"a chain of clones to be flattened: that of {place} would have {deep} parents, and {hard} are "
                f"allowed (option clone_depth_hard); {chosen[0]}/{chosen[1].name} is being flattened"
            ],
            [_key(*chosen)],
        )

    def _known_depth(self, image: Image) -> int:
        """Return a depth that is not below the real one, read only where nothing is known."""
        if image.parent is None:
            return 0
        with self._lock:
            known: MutableMapping[chains.Key, int] = {
                key: self._depths[key]
                for key in [(image.parent.pool_id, image.parent.namespace, image.parent.image_id)]
                if key in self._depths
            }
        found = chains.depth(image, self._load, known)
        self._remember(known.items())
        return found

    def _chain(self, clones: Clones) -> list[tuple[Location, Image]]:
        """Return the image that is cloned and its parents, nearest first, as they are now."""
        above = chains.ancestors(clones.image, self._cluster.find_id)
        chain = [(clones.where, clones.image)]
        chain += [(Location(link.pool_id, f"pool id {link.pool_id}", link.namespace), image) for link, image in above]
        self._remember(
            ((where.pool_id, where.namespace, image.id), len(chain) - 1 - at) for at, (where, image) in enumerate(chain)
        )
        return chain

    def _remember(self, depths: Iterable[tuple[chains.Key, int]]) -> None:
        with self._lock:
            for key, number in depths:
                self._depths[key] = number
                self._depths.move_to_end(key)
            while len(self._depths) > _REMEMBERED:
                self._depths.popitem(last=False)

    def _load(self, where: Location, image_id: str) -> Image | None:
        return self._cluster.load_image(where, "", image_id)

    def _choose(self, chain: list[tuple[Location, Image]], soft: int) -> tuple[Location, Image] | None:
        """Choose what to flatten: the least disturbing that brings the clone below the soft bound; low is best.

        One image of a chain at a time is flattened: what that is not enough for is seen when it is over.
        """
        with self._lock:
            under_way = [at for at, found in enumerate(chain) if _key(*found) in self._flattening]
        if under_way:
            return chain[under_way[0]]
        best: tuple[int, int] | None = None
        for at, (where, image) in enumerate(chain):
            if not _shortens(image) or (best is not None and at + 1 >= soft):
                continue
            rank = self._disturbance(where, image)
            if best is None or rank < best[0]:
                best = rank, at
        return None if best is None else chain[best[1]]

    # -- snapshots -----------------------------------------------------------------------------------------------

    def _admit_count(self, clones: Clones) -> Waiting | None:
        soft, hard = self._settings.snapshots_soft(), self._settings.snapshots_hard()
        count = len(clones.image.snaps)
        if count < min((bound for bound in (soft, hard) if bound), default=count + 1):
            return None
        if count >= self._settings.near_snapshots():
            self._note(Near(clones.where, clones.image.id, clones.image.name, "snapshots", count))
        chosen = self._choose_clones(clones.image)
        self._flatten(chosen)
        if not hard or count < hard:
            return None
        place = f"{clones.where}/{clones.image.name}"
        if not chosen:
            raise Unsupported(
                f"image {place} has {count} snapshots, {hard} are allowed (option snapshots_hard), and none of them is "
                "kept by a clone alone that could be flattened: remove some"
            )
        return Waiting(
            [
                f"snapshots to go: {place} has {count}, and {hard} are allowed (option snapshots_hard); "
                f"{', '.join(f'{where}/{image.name}' for where, image in chosen)} is being flattened"
            ],
            [_key(*found) for found in chosen],
        )

    def _choose_clones(self, image: Image) -> list[tuple[Location, Image]]:
        """Choose the clones of some snapshots that are kept by them alone, least disturbing and oldest first."""
        ranked: list[tuple[int, int, list[tuple[Location, Image]]]] = []
        kept = [snap for snap in image.snaps if snap.original_name is not None and snap.children]
        for snap in kept[:_LOOKED_AT]:
            clones = [self._child(child) for child in snap.children]
            if clones and all(found is not None and _whole(found[1]) for found in clones):
                there = [found for found in clones if found is not None]
                ranked.append((max(self._disturbance(*found) for found in there), len(ranked), there))
        ranked.sort(key=lambda item: item[:2])
        return [found for _, _, clones in ranked[:_CHOSEN] for found in clones]

    def _child(self, child: Child) -> tuple[Location, Image] | None:
        where = Location(child.pool_id, f"pool id {child.pool_id}", child.namespace)
        try:
            image = self._cluster.find_id(where, child.image_id)
        except NotFound:
            return None
        return None if image is None or image.parent is None else (where, image)

    # -- both ----------------------------------------------------------------------------------------------------

    def _disturbance(self, where: Location, image: Image) -> int:
        """Rank what flattening an image disturbs, least first."""
        named = parse_image_name(image.name)
        if named is not None and named[0] is Kind.SNAPSHOT and not image.trashed:
            return 0
        if image.trashed:
            return 1
        return 3 if any(watcher.uses for watcher in self._cluster.watchers(where, image.id)) else 2

    def _flatten(self, images: Iterable[tuple[Location, Image]]) -> None:
        for where, image in images:
            pool = self._cluster.pool_name(where.pool_id)
            if pool is None:
                continue
            place = Location(where.pool_id, pool, where.namespace)
            named = parse_image_name(image.name)
            with self._lock:
                self._flattening.add(_key(where, image))
            try:
                uuid = named[1] if named is not None else image.id
                self._submit(FlattenChain(place, image.name, uuid, image_id=image.id))
            except (Throttled, NotReady):
                self.over(_key(where, image))
                return  # too much is queued; the next request asks again

    def _note(self, item: Near) -> None:
        with self._lock:
            self._near[_near_key(item)] = item
            while len(self._near) > _NEAR:
                self._near.popitem(last=False)

    def _bound(self, what: str) -> int:
        # The chain of an image itself is one shorter than that of a clone of it.
        return self._settings.near_depth() - 1 if what == "depth" else self._settings.near_snapshots()

    def _number(self, item: Near) -> int:
        """Return what an image's chain or count is now; 0 for one that is gone."""
        try:
            image = self._cluster.find_id(item.where, item.image_id)
        except NotFound:
            return 0
        if image is None:
            return 0
        return len(chains.ancestors(image, self._cluster.find_id)) if item.what == "depth" else len(image.snaps)


def _shortens(image: Image) -> bool:
    """Tell whether flattening an image shortens the chain of what hangs on it."""
    return image.parent is not None and _whole(image)


def _whole(image: Image) -> bool:
    """Tell whether flattening an image takes its parent off its snapshots too."""
    return bool(image.features & DEEP_FLATTEN or not image.snaps)


def _key(where: Location, image: Image) -> Key:
    return Key(where.pool_id, where.namespace, image.id)


def _near_key(item: Near) -> tuple[int, str, str, str]:
    return item.where.pool_id, item.where.namespace, item.image_id, item.what
