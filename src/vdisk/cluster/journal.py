"""The journal (doc/concepts.md): directory objects and one object per volume and snapshot, byte for byte.

Every effect writes one INFO line in the manner of the source note's driver log, so that the mgr log tells the story.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping

import rados

from ..model.errors import NotFound
from ..model.names import Kind
from ..model.observed import Entry, Location
from . import omap
from .connection import Connection


def place(where: Location, oid: str) -> str:
    """Name an object in log lines the way the source note's driver does."""
    return f'(pool="{where.pool}", namespace="{where.namespace}", name="{oid}")'


class Journal:
    """Reads and writes the journal; which instance of it, a location says."""

    def __init__(self, connection: Connection, log: logging.Logger) -> None:
        self._connection = connection
        self._log = log

    def lookup(self, where: Location, kind: Kind, name: str) -> str | None:
        """Return the uuid reserved under a request name: one keyed read, whatever the directory's size."""
        key = kind.key(name)
        with self._connection.ioctx(where, f"looking up {kind.value} {name!r} in {where}") as ioctx:
            found = omap.get_keys(ioctx, kind.directory(where.journal), [key]) or {}
        return _text(found[key]) if key in found else None

    def names(self, where: Location, kind: Kind, after: str, limit: int) -> list[tuple[str, str]]:
        """Return up to ``limit`` (request name, uuid) that follow the name ``after``, in the order of names."""
        oid, prefix = kind.directory(where.journal), kind.key("")
        found: list[tuple[str, bytes]] = []
        more, last = True, kind.key(after)
        while more and len(found) < limit:
            with self._connection.ioctx(where, f"listing {kind.value}s in {where}") as ioctx:
                page = omap.get_page(ioctx, oid, last, prefix, limit - len(found))
            if page is None:
                self._check_pool(where)
                break
            pairs, more = page
            if not pairs:
                break
            found += pairs
            last = pairs[-1][0]
        return [(kind.request_name(key) or "", _text(value)) for key, value in found]

    def count(self, where: Location, kind: Kind, limit: int) -> int:
        """Count the keys of a directory page by page, no further than ``limit``."""
        counted, last, more = 0, "", True
        while more and counted < limit:
            with self._connection.ioctx(where, f"counting {kind.value}s in {where}") as ioctx:
                page = omap.get_page(ioctx, kind.directory(where.journal), last, "", limit - counted)
            if page is None or not page[0]:
                break
            pairs, more = page
            counted += len(pairs)
            last = pairs[-1][0]
        return counted

    def _check_pool(self, where: Location) -> None:
        """Tell a missing directory from a missing pool; by now librados has the map that knows."""
        with self._connection.handle(f"looking up pool {where.pool}") as handle:
            if handle.pool_reverse_lookup(where.pool_id) is None:
                raise NotFound(f"pool {where.pool!r} does not exist")

    def entry(self, where: Location, kind: Kind, uuid: str) -> Entry | None:
        """Read a journal object with every key it holds; None when it does not exist."""
        with self._connection.ioctx(where, f"reading {kind.object(uuid)} in {where}") as ioctx:
            values = omap.get_all(ioctx, kind.object(uuid))
        return self.decode(kind, uuid, values)

    def entries(self, ioctx: rados.Ioctx, kind: Kind, uuids: Iterable[str]) -> Iterator[Entry | None]:
        """Read many journal objects at once, in order."""
        reads = [(uuid, omap.Reading(ioctx, kind.object(uuid))) for uuid in uuids]
        for uuid, read in reads:
            yield self.decode(kind, uuid, read.result())

    @staticmethod
    def decode(kind: Kind, uuid: str, values: Mapping[str, bytes] | None) -> Entry | None:
        """Return the journal object of that omap, None for None."""
        return None if values is None else Entry(kind, uuid, {key: _text(value) for key, value in values.items()})

    def reserve(self, where: Location, kind: Kind, name: str, uuid: str) -> bool:
        """Insert the directory key only if it is absent, atomically; False when somebody else has the name."""
        oid, key = kind.directory(where.journal), kind.key(name)
        with self._connection.ioctx(where, f"reserving {kind.value} {name!r} in {where}") as ioctx:
            won = omap.insert_new(ioctx, oid, key, uuid.encode())
        if won:
            self._log.info("set omap keys %s: map[%s:%s]", place(where, oid), key, uuid)
        return won

    def write(self, where: Location, kind: Kind, uuid: str, values: Mapping[str, str]) -> None:
        """Create the journal object or add keys to it; keys that it has besides are left alone."""
        oid = kind.object(uuid)
        with self._connection.ioctx(where, f"writing {oid} in {where}") as ioctx:
            omap.set_values(ioctx, oid, {key: value.encode() for key, value in values.items()})
        shown = " ".join(f"{key}:{value}" for key, value in sorted(values.items()))
        self._log.info("set omap keys %s: map[%s]", place(where, oid), shown)

    def remove_entry(self, where: Location, kind: Kind, uuid: str) -> None:
        """Remove the journal object; an absent one is no error."""
        oid = kind.object(uuid)
        with self._connection.ioctx(where, f"removing {oid} in {where}") as ioctx:
            if omap.remove_object(ioctx, oid):
                self._log.info("removed object %s", place(where, oid))

    def release(self, where: Location, kind: Kind, name: str, uuid: str) -> None:
        """Remove the directory key if it still leads to ``uuid``; a name that was given anew is left alone."""
        oid, key = kind.directory(where.journal), kind.key(name)
        with self._connection.ioctx(where, f"releasing {kind.value} {name!r} in {where}") as ioctx:
            if omap.remove_if(ioctx, oid, key, uuid):
                self._log.info("removed omap keys %s: [%s]", place(where, oid), key)


def _text(value: bytes) -> str:
    """Decode a journal value; what others wrote is shown, never rejected."""
    return value.decode("utf-8", "replace")
