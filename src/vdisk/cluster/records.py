"""vdisk's records beside the intents: omap objects of the pool and namespace concerned (``model.records.Store``)."""

from __future__ import annotations

from collections.abc import Mapping

from ..model.observed import Location
from ..model.records import Store
from . import omap
from .connection import Connection

_PAGE = 1000


class Records:
    """Reads and writes records as text."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, where: Location, store: Store, key: str) -> str | None:
        """Return one record: one keyed read."""
        with self._connection.ioctx(where, f"reading {store.value} of {where}") as ioctx:
            found = omap.get_keys(ioctx, store.value, [key]) or {}
        return found[key].decode("utf-8", "replace") if key in found else None

    def page(self, where: Location, store: Store, after: str) -> dict[str, str]:
        """Return up to a thousand records that follow the key ``after``; empty when there are no more."""
        with self._connection.ioctx(where, f"reading {store.value} of {where}") as ioctx:
            found = omap.get_page(ioctx, store.value, after, "", _PAGE)
        return {} if found is None else {key: value.decode("utf-8", "replace") for key, value in found[0]}

    def put(self, where: Location, store: Store, records: Mapping[str, str]) -> None:
        """Write or replace records."""
        with self._connection.ioctx(where, f"writing {store.value} of {where}") as ioctx:
            omap.set_values(ioctx, store.value, {key: value.encode() for key, value in records.items()})

    def erase_prefix(self, where: Location, store: Store, prefix: str) -> None:
        """Erase all records whose keys begin with ``prefix``, page by page."""
        with self._connection.ioctx(where, f"erasing records of {store.value} of {where}") as ioctx:
            while (page := omap.get_page(ioctx, store.value, "", prefix, _PAGE)) is not None and page[0]:
                omap.remove_keys(ioctx, store.value, [key for key, _ in page[0]])

    def erase(self, where: Location, store: Store, keys: list[str]) -> None:
        """Erase records; absent ones are no error."""
        with self._connection.ioctx(where, f"erasing records of {store.value} of {where}") as ioctx:
            omap.remove_keys(ioctx, store.value, keys)
