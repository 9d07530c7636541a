"""Looks over a whole pool and namespace, page by page: what a check goes through, in bounded memory."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import rados

from ..model.names import UUID_PATTERN, Kind
from ..model.observed import Location, Trashed
from . import omap
from .connection import Connection
from .header import decode_string, decode_trash

_OBJECT = re.compile(rf"csi\.(volume\.group|volume|snap)\.({UUID_PATTERN})")
_KINDS = {"volume": Kind.VOLUME, "snap": Kind.SNAPSHOT, "volume.group": Kind.GROUP}
_DIRECTORY = re.compile(r"csi\.(?:volumes|snaps|groups)\.(.+)")
_NAMES = 1000


class Survey:
    """Listings of one location each. Nothing of them is remembered."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def journal(self, where: Location) -> Iterator[tuple[Kind, str] | str]:
        """Yield (kind, uuid) of every journal object, and the instance of every directory object, in no order.

        This lists all objects of the pool: nothing else leads to a journal object that no directory key leads to.
        """
        with self._connection.ioctx(where, f"listing the objects of {where}") as ioctx:
            for found in ioctx.list_objects():
                name = found.key
                if not name.startswith("csi."):
                    continue
                match = _OBJECT.fullmatch(name)
                if match is not None:
                    yield _KINDS[match[1]], match[2]
                elif (directory := _DIRECTORY.fullmatch(name)) is not None:
                    yield directory[1]

    def images(self, where: Location) -> Iterator[tuple[str, str]]:
        """Yield (name, image id) of every image outside of the trash, in the order of names."""
        for key, value in self._pairs(where, "rbd_directory", "name_"):
            yield key.removeprefix("name_"), decode_string(value)

    def trash(self, where: Location, after: str = "") -> Iterator[Trashed]:
        """Yield every entry of the trash that follows the image id ``after``, in the order of ids."""
        for key, value in self._pairs(where, "rbd_trash", "id_", f"id_{after}" if after else ""):
            yield decode_trash(key.removeprefix("id_"), value)

    def groups(self, where: Location) -> Iterator[str]:
        """Yield the name of every RBD group."""
        for key, _ in self._pairs(where, "rbd_group_directory", "name_"):
            yield key.removeprefix("name_")

    def modified(self, where: Location, oid: str) -> float | None:
        """Return when an object was written last, in seconds since the epoch; None when it does not exist."""
        with self._connection.ioctx(where, f"looking at {oid} in {where}") as ioctx:
            try:
                _, moment = ioctx.stat(oid)
            except rados.ObjectNotFound:
                return None
        # Local time, of a class that may be another interpreter's: a mgr's modules share what extensions keep.
        return time.mktime(tuple(moment))

    def _pairs(self, where: Location, oid: str, prefix: str, after: str = "") -> Iterator[tuple[str, bytes]]:
        more = True
        while more:
            with self._connection.ioctx(where, f"listing {oid} of {where}") as ioctx:
                page = omap.get_page(ioctx, oid, after, prefix, _NAMES)
            if page is None or not page[0]:
                return
            yield from page[0]
            after, more = page[0][-1][0], page[1]
