"""vdisk's own durable records: which omap objects there are beside the intents, and what an undelete record holds."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .names import Kind
from .observed import Entry, Location

_VERSION = 1


class Store(enum.Enum):
    """An omap object of a pool and namespace that holds records of vdisk; the value is the object's name."""

    TRASH = "vdisk.trash"
    """Undelete records (:class:`Kept`) by uuid."""
    IMAGES = "vdisk.images"
    """Images that were adopted or released (:class:`Mark`) by image id."""
    CHECK = "vdisk.check"
    """What the last check found: ``summary``, and ``finding.<id>`` each."""
    SCHEDULES = "vdisk.schedules"
    """Snapshot schedules, how their last runs went, and what they made (``model.schedules``)."""


@dataclass(frozen=True)
class Kept:
    """An undelete record: all that is needed to bring a removed volume or snapshot back with its handle.

    ``values`` is the whole journal object. Times in seconds since the epoch.
    """

    kind: Kind
    uuid: str
    name: str
    image: str
    image_id: str
    journal: str
    values: Mapping[str, str]
    deleted_at: float
    expires_at: float

    def entry(self) -> Entry:
        """Return the journal object as it was."""
        return Entry(self.kind, self.uuid, self.values)

    def to_text(self) -> str:
        """Return the durable form."""
        return json.dumps(
            {
                "v": _VERSION,
                "kind": self.kind.value,
                "uuid": self.uuid,
                "name": self.name,
                "image": self.image,
                "image_id": self.image_id,
                "journal": self.journal,
                "values": dict(self.values),
                "deleted_at": self.deleted_at,
                "expires_at": self.expires_at,
            },
            sort_keys=True,
        )


def kept_from_text(text: str | None) -> Kept | None:
    """Rebuild an undelete record; None for none, and for one of a version that can't be read, which is left alone."""
    data = _decoded(text)
    try:
        return Kept(
            Kind(data["kind"]),
            str(data["uuid"]),
            str(data["name"]),
            str(data["image"]),
            str(data["image_id"]),
            str(data["journal"]),
            {str(key): str(value) for key, value in data["values"].items()},
            float(data["deleted_at"]),
            float(data["expires_at"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


@dataclass(frozen=True)
class Mark:
    """What vdisk knows of an image under a name of its own: adopted as the volume ``uuid``, or released from it."""

    uuid: str
    adopted: bool

    def to_text(self) -> str:
        """Return the durable form."""
        return json.dumps({"v": _VERSION, "uuid": self.uuid, "adopted": self.adopted}, sort_keys=True)


def mark_from_text(text: str | None) -> Mark | None:
    """Rebuild a mark; None for none and for one that can't be read."""
    data = _decoded(text)
    try:
        return Mark(str(data["uuid"]), bool(data["adopted"]))
    except (KeyError, TypeError):
        return None


def place(where: Location) -> dict[str, str]:
    """Return the JSON form of a place."""
    return {"pool": where.pool, "namespace": where.namespace}


def _decoded(text: str | None) -> Mapping[str, Any]:
    try:
        data = json.loads(text or "{}")
    except ValueError:
        return {}
    return data if isinstance(data, Mapping) and data.get("v") == _VERSION else {}
