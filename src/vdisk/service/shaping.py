"""Gathers the shape of a pool while a check goes through its images anyway."""

from __future__ import annotations

import threading
from collections import Counter

from ..engine.ports import Cluster
from ..model.errors import NotFound
from ..model.observed import Image, Location, Parent
from ..model.shape import Shape

#: Longest chain that is followed; librbd itself refuses earlier.
_MAX_DEPTH = 64


class Shaping:
    """Images are added by any thread; :meth:`shape` follows their parents, with a read for each one not added."""

    def __init__(self, cluster: Cluster, where: Location) -> None:
        self._cluster = cluster
        self._where = where
        self._lock = threading.Lock()
        self._parents: dict[Parent, Parent | None] = {}
        self._here: list[Parent | None] = []
        self._snapshots = 0
        self._size = 0

    def add(self, image: Image) -> None:
        """Take an image outside of the trash into account."""
        own = Parent(self._where.pool_id, self._where.namespace, image.id, 0)
        with self._lock:
            self._parents[own] = image.parent
            self._here.append(image.parent)
            self._snapshots = max(self._snapshots, len(image.snaps))
            self._size += image.size

    def shape(self) -> Shape:
        """Return the shape of all images that were added."""
        depths: Counter[int] = Counter(self._depth(parent) for parent in self._here)
        return Shape(dict(depths), self._snapshots, len(self._here), self._size)

    def _depth(self, link: Parent | None) -> int:
        for depth in range(_MAX_DEPTH):
            if link is None:
                return depth
            link = self._above(Parent(link.pool_id, link.namespace, link.image_id, 0))
        return _MAX_DEPTH

    def _above(self, own: Parent) -> Parent | None:
        """Return the parent link of an image, which may be in the trash or in another pool."""
        if own not in self._parents:
            image = None
            try:
                pool = self._cluster.pool_name(own.pool_id)
                if pool is not None:
                    image = self._cluster.find_id(Location(own.pool_id, pool, own.namespace), own.image_id)
            except NotFound:
                pass  # its pool is being removed
            self._parents[own] = image.parent if image is not None else None
        return self._parents[own]
