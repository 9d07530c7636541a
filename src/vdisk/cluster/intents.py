"""Durable intents: what was begun and is not finished, in one omap object of the pool and namespace concerned.

Object ``vdisk.intents``; key: the operation id; value: JSON with ``v`` (format version, an integer). Written in half a
millisecond where the mgr's key-value store takes a monitor round. The engine knows what is inside.
"""

from __future__ import annotations

from ..model.observed import Location
from . import omap
from .connection import Connection

OBJECT = "vdisk.intents"


class IntentStore:
    """Reads and writes intents as text."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def put(self, where: Location, op_id: str, value: str) -> None:
        """Write or replace an intent."""
        with self._connection.ioctx(where, f"writing the intent of operation {op_id}") as ioctx:
            omap.set_values(ioctx, OBJECT, {op_id: value.encode()})

    def erase(self, where: Location, op_id: str) -> None:
        """Erase an intent; an absent one is no error."""
        with self._connection.ioctx(where, f"erasing the intent of operation {op_id}") as ioctx:
            omap.remove_keys(ioctx, OBJECT, [op_id])

    def load(self, where: Location) -> dict[str, str]:
        """Return every intent of a pool and namespace: operation id → value."""
        with self._connection.ioctx(where, f"reading the intents of {where}") as ioctx:
            found = omap.get_all(ioctx, OBJECT) or {}
        return {key: value.decode("utf-8", "replace") for key, value in found.items()}
