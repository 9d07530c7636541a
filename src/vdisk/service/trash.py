"""The trash: what is kept for undeleting and what is not, bringing back, purging, and expiry."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from ..engine.engine import Engine
from ..engine.operation import Operation
from ..engine.ports import Cluster
from ..lifecycle.base import Request
from ..lifecycle.removal import Removal, RemoveSnapshot, RemoveVolume
from ..lifecycle.undelete import RestoreBare, Undelete, UndeleteSnapshot, UndeleteVolume
from ..model.errors import InUse, NotFound, Throttled, Unsupported
from ..model.names import Kind, parse_image_name
from ..model.objects import rfc3339
from ..model.observed import Entry, Image, Location, Trashed
from ..model.records import Kept, Store, kept_from_text, mark_from_text
from .core import Service

_UNDELETE: Mapping[Kind, type[Undelete]] = {Kind.VOLUME: UndeleteVolume, Kind.SNAPSHOT: UndeleteSnapshot}


class Trash:
    """The trash of a cluster's pools. Any thread may call."""

    def __init__(
        self,
        cluster: Cluster,
        engine: Engine,
        volumes: Service,
        log: logging.Logger,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._cluster = cluster
        self._engine = engine
        self._volumes = volumes
        self._log = log
        self._clock = clock

    # -- looking -------------------------------------------------------------------------------------------------

    def listed(self, where: Location, limit: int | None = None, marker: str = "") -> list[dict[str, Any]]:
        """Return what is in the trash, kept for undeleting or not: all in the order of names.

        With ``limit``, or an id as ``marker``, at most that many of those that follow it in the order of image ids.
        """

        def read() -> list[dict[str, Any]]:
            removals = self._removals(where)
            entries = itertools.islice(self._cluster.survey_trash(where, marker), limit)
            return [self._shown(where, entry, removals.get(entry.id)) for entry in entries]

        rows = self._volumes.read(where.pool_id, read)
        if limit is not None or marker:
            return rows
        return sorted(rows, key=lambda row: (str(row["name"] or row["image"]), str(row["id"])))

    def _shown(self, where: Location, entry: Trashed, removal: Operation | None) -> dict[str, Any]:
        image = self._cluster.find_id(where, entry.id)
        kept = self._kept_of(where, entry)
        return {
            "id": entry.id,
            "name": kept.name if kept is not None else None,
            "kind": kept.kind.value if kept is not None else "image",
            "handle": self._volumes.handle(where, kept.uuid) if kept is not None else None,
            "uuid": kept.uuid if kept is not None else None,
            "pool": where.pool,
            "namespace": where.namespace,
            "image": entry.name,
            "size": image.size if image is not None else None,
            "used": self._cluster.used(where, image) if image is not None else None,
            "deleted_at": rfc3339(entry.deleted_at),
            "expires_at": rfc3339(kept.expires_at) if kept is not None else None,
            "removal": removal.id if removal is not None else None,
        }

    def _kept_of(self, where: Location, entry: Trashed) -> Kept | None:
        """Return the undelete record of an image in the trash."""
        uuid = self._uuid_of(where, entry.id, entry.name)
        kept = kept_from_text(self._cluster.record(where, Store.TRASH, uuid)) if uuid is not None else None
        return kept if kept is not None and kept.image_id == entry.id else None

    def _uuid_of(self, where: Location, image_id: str, name: str) -> str | None:
        """Return the uuid that an image's mark has, as an adopted one's, or else its name."""
        mark = mark_from_text(self._cluster.record(where, Store.IMAGES, image_id))
        named = parse_image_name(name)
        return mark.uuid if mark is not None else named[1] if named is not None else None

    def _kept(self, where: Location) -> Iterator[Kept]:
        for _, text in self._cluster.survey_records(where, Store.TRASH):
            kept = kept_from_text(text)
            if kept is not None:
                yield kept

    def _removals(self, where: Location) -> dict[str, Operation]:
        """Return the operations under way that remove an image of the trash, by its id."""
        found: dict[str, Operation] = {}
        for operation in self._engine.unfinished():
            request = operation.request
            here = (request.where.pool_id, request.where.namespace) == (where.pool_id, where.namespace)
            if here and isinstance(request, Removal) and not request.keep_until:
                found[request.image_id] = found[request.temp_id] = operation
        return found

    def keeps(self, where: Location, uuid: str) -> bool:
        """Tell whether something of a uuid is kept in a location, or is back already."""

        def read() -> bool:
            return (self._cluster.record(where, Store.TRASH, uuid) or self._entry(where, uuid)) is not None

        return self._volumes.read(where.pool_id, read)

    def _entry(self, where: Location, uuid: str) -> Entry | None:
        return self._cluster.entry(where, Kind.VOLUME, uuid) or self._cluster.entry(where, Kind.SNAPSHOT, uuid)

    # -- bringing back -------------------------------------------------------------------------------------------

    def undelete(self, where: Location, uuid: str, name: str | None) -> Request:
        """Request what was kept of a uuid, under the name that it had or another."""
        text = self._volumes.read(where.pool_id, lambda: self._cluster.record(where, Store.TRASH, uuid))
        kept = kept_from_text(text)
        if kept is None and text is not None:
            raise Unsupported(
                f"the undelete record of {uuid} in {where} was written by another version of vdisk; it is kept as it is"
            )
        if kept is None:
            entry = self._volumes.read(where.pool_id, lambda: self._entry(where, uuid))
            if entry is not None and entry.name and entry.image_id and name in (None, entry.name):
                return _UNDELETE[entry.kind](where, entry.name, uuid, entry.image_id)  # a repeat: it is back
            raise NotFound(f"nothing is kept of {uuid} in {where}: it was never removed with --keep-for, or is gone")
        return self._undelete(where, kept, name)

    def undelete_image(self, where: Location, image_id: str, name: str | None) -> Request:
        """Request an image of the trash by its id: with its journal entries if they were kept."""

        def read() -> tuple[Trashed | None, Kept | None]:
            kept = next((kept for kept in self._kept(where) if kept.image_id == image_id), None)
            return self._cluster.trashed(where, image_id), kept

        entry, kept = self._volumes.read(where.pool_id, read)
        if kept is not None:
            return self._undelete(where, kept, name)
        if entry is None:
            return self._back_already(where, image_id, name)
        removal = self._removals(where).get(image_id)
        if removal is not None:
            raise InUse(
                f"image id {image_id} is being removed for good by operation {removal.id}", operation=removal.id
            )
        return RestoreBare(where, name or entry.name, image_id, image_id)

    def _back_already(self, where: Location, image_id: str, name: str | None) -> Request:
        """Request what a repeat asks for: an image that is not in the trash any more because it is back."""

        def read() -> tuple[Image | None, Entry | None]:
            image = self._cluster.find_id(where, image_id)
            if image is None:
                return None, None
            uuid = self._uuid_of(where, image_id, image.name)
            return image, self._entry(where, uuid) if uuid is not None else None

        image, entry = self._volumes.read(where.pool_id, read)
        if image is None:
            raise NotFound(f"image id {image_id} is not in the trash of {where}")
        if entry is not None and entry.image_id == image_id and entry.name and name in (None, entry.name):
            return _UNDELETE[entry.kind](where, entry.name, entry.uuid, image_id)
        return RestoreBare(where, name or image.name, image_id, image_id)

    def _undelete(self, where: Location, kept: Kept, name: str | None) -> Request:
        return _UNDELETE[kept.kind](replace(where, journal=kept.journal), name or kept.name, kept.uuid, kept.image_id)

    # -- purging -------------------------------------------------------------------------------------------------

    def purge(
        self, where: Location, older_than: int | None, keep_last: int | None, threshold: float | None
    ) -> list[Request]:
        """Return the removals for good that a purge asks for, oldest first; without any bound what has expired.

        ``older_than`` in seconds since the removal; ``keep_last`` spares the latest so many; ``threshold`` is the part
        of the pool (0 to 1) that may be used: the oldest go until what they take brings it below that.
        """

        def read() -> list[Kept]:
            kept = sorted(self._kept(where), key=lambda found: found.deleted_at)
            now = self._clock()
            if older_than is None and keep_last is None and threshold is None:
                return [found for found in kept if found.expires_at <= now]
            chosen = kept
            if older_than is not None:
                chosen = [found for found in chosen if now - found.deleted_at >= older_than]
            if keep_last is not None:
                spared = {found.uuid for found in kept[max(0, len(kept) - keep_last) :]}
                chosen = [found for found in chosen if found.uuid not in spared]
            return chosen if threshold is None else list(self._until_below(where, chosen, threshold))

        return [self._for_good(where, kept) for kept in self._volumes.read(where.pool_id, read)]

    def _until_below(self, where: Location, kept: list[Kept], threshold: float) -> Iterator[Kept]:
        stored, available = self._cluster.pool_usage(where.pool_id)
        total = stored + available
        for found in kept:
            if total <= 0 or stored / total < threshold:
                return
            image = self._cluster.find_id(where, found.image_id)
            used = self._cluster.used(where, image) if image is not None else 0
            stored -= used if used is not None else image.size if image is not None else 0
            yield found

    def _for_good(self, where: Location, kept: Kept) -> Request:
        cls = RemoveVolume if kept.kind is Kind.VOLUME else RemoveSnapshot
        return cls(replace(where, journal=kept.journal), kept.name, kept.uuid, image_id=kept.image_id, kept_only=True)

    def expire(self, where: Location) -> int:
        """Begin the removal of what has expired in a location; returns how many were begun. Reads on this thread."""
        now, begun = self._clock(), 0
        for kept in self._kept(where):
            if kept.expires_at > now:
                continue
            try:
                self._engine.submit(self._for_good(where, kept))
            except Throttled:
                break  # the rest next time
            begun += 1
            self._log.info("%s %s of %s was kept long enough: removing it", kept.kind.value, kept.uuid, where)
        return begun
