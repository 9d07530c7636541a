"""Lineage: families of images, read through the trash and across pools."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from ..engine.engine import Engine
from ..engine.ports import Cluster
from ..model.errors import NotFound
from ..model.lineage import Family, Key, Node
from ..model.names import Kind, parse_image_name
from ..model.observed import Image, Location
from ..model.records import Store, kept_from_text, mark_from_text
from .core import Found, Service

#: Families beyond that are cut: what is drawn of more is of no use to anybody.
_MAX_NODES = 20_000
#: Whom images are open by costs opening each of them, so that it is asked for small families only.
_MAX_WATCHED = 200
#: Clones that are named where only one image is asked about.
_MAX_NAMED = 50


class Lineage:
    """Families of a cluster's images. Any thread may call."""

    def __init__(self, cluster: Cluster, engine: Engine, volumes: Service) -> None:
        self._cluster = cluster
        self._engine = engine
        self._volumes = volumes

    def of_location(self, where: Location) -> Family:
        """Return everything in a pool and namespace, its trash too, with relatives elsewhere."""

        def read() -> Family:
            here = [(where.pool_id, where.namespace, image_id) for _, image_id in self._cluster.survey_images(where)]
            trash = [(where.pool_id, where.namespace, entry.id) for entry in self._cluster.survey_trash(where)]
            return self._family([*here, *trash])

        return self._volumes.read(where.pool_id, read)

    def of(self, found: Found, whole: bool = True) -> tuple[Family, Node | None]:
        """Return the family of a volume or snapshot, and its own node; None while it has no image.

        Without ``whole`` only its parents and its own clones, and nobody is asked who has them open.
        """

        def read() -> tuple[Family, Node | None]:
            image = self._cluster.image_of(found.where, found.entry) if found.entry is not None else None
            if image is None:
                return Family(), None
            key = (found.where.pool_id, found.where.namespace, image.id)
            family = self._family([key], whole)
            return family, family.nodes.get(key)

        return self._volumes.read(found.where.pool_id, read)

    # -- inner ---------------------------------------------------------------------------------------------------

    def _family(self, start: Iterable[Key], whole: bool = True) -> Family:
        """Follow parents and clones from the given images to all that belong to them."""
        start = list(start)
        places: dict[int, str | None] = {}
        images: dict[Key, tuple[Location, Image]] = {}
        todo = deque(start)
        seen = set(todo)
        upwards = set(todo)
        while todo and len(images) < _MAX_NODES:
            key = todo.popleft()
            if key[0] not in places:
                places[key[0]] = self._cluster.pool_name(key[0])
            pool = places[key[0]]
            if pool is None:
                continue
            where = Location(key[0], pool, key[1])
            try:
                image = self._cluster.find_id(where, key[2])
            except NotFound:
                continue  # its pool was removed meanwhile
            if image is None:
                continue
            images[key] = (where, image)
            link = image.parent
            related = [(child.pool_id, child.namespace, child.image_id) for child in image.children]
            if not whole:
                related = related[:_MAX_NAMED] if key in start else []
            if link is not None and (whole or key in upwards):
                upwards.add((link.pool_id, link.namespace, link.image_id))
                related.append((link.pool_id, link.namespace, link.image_id))
            fresh = [other for other in related if other not in seen]
            seen.update(fresh)
            todo.extend(fresh)
        watch = whole and len(images) <= _MAX_WATCHED
        removals = {
            getattr(op.request, "image_id", ""): op.id for op in self._engine.unfinished() if op.request.removes
        }
        return Family({key: self._node(where, image, watch, removals) for key, (where, image) in images.items()})

    def _node(self, where: Location, image: Image, watch: bool, removals: dict[str, str]) -> Node:
        kept = None
        kind, uuid = self._journalled(where, image)
        name = None
        if uuid is not None:
            entry = self._cluster.entry(where, Kind(kind), uuid)
            name = entry.name if entry is not None else None
            if image.trashed:
                kept = kept_from_text(self._cluster.record(where, Store.TRASH, uuid))
                name = kept.name if kept is not None else name
        own = {image.name}
        watchers = self._cluster.watchers(where, image.id) if watch and not image.trashed else None if not watch else ()
        return Node(
            where,
            image,
            kind,
            name,
            self._volumes.handle(where, uuid) if uuid is not None else None,
            self._cluster.used(where, image),
            self._cluster.exclusive(where, image),
            None if watchers is None else tuple(watcher for watcher in watchers if watcher.uses),
            kept.expires_at if kept is not None else None,
            removals.get(image.id),
            tuple(snap.name for snap in image.snaps if snap.user and snap.name not in own),
        )

    def _journalled(self, where: Location, image: Image) -> tuple[str, str | None]:
        """Return (kind, uuid) of an image: by its name, or by the mark of an adopted one."""
        named = parse_image_name(image.name)
        if named is not None:
            return named[0].value, named[1]
        mark = mark_from_text(self._cluster.record(where, Store.IMAGES, image.id))
        if mark is not None and mark.adopted:
            return Kind.VOLUME.value, mark.uuid
        return "image", None
