"""What users see: volumes, snapshots and pages of them, with their JSON fields (doc/commands.md)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from .observed import Location


def rfc3339(seconds: float | None) -> str | None:
    """Format seconds since the epoch as RFC 3339 UTC with milliseconds (``2022-06-20T11:19:14.000Z``)."""
    if seconds is None:
        return None
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


@dataclass(frozen=True)
class Source:
    """What a volume's content came from: a ``snapshot``, a ``volume`` or a plain ``image``, and where that lies."""

    kind: str
    handle: str | None
    name: str | None
    where: Location

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"kind": self.kind, "handle": self.handle, "name": self.name}


@dataclass(frozen=True)
class Identity:
    """What volumes and snapshots have in common: their names in every form."""

    name: str | None
    handle: str
    uuid: str
    pool: str
    namespace: str
    image: str
    image_id: str | None

    def _identity(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "handle": self.handle,
            "uuid": self.uuid,
            "pool": self.pool,
            "namespace": self.namespace,
            "image": self.image,
            "image_id": self.image_id,
        }


@dataclass(frozen=True)
class Volume(Identity):
    """A volume of the journal. ``size`` in bytes; ``created_at`` is the image's own creation time (epoch seconds)."""

    size: int | None
    state: str
    created_at: float | None
    source: Source | None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            **self._identity(),
            "size": self.size,
            "state": self.state,
            "created_at": rfc3339(self.created_at),
            "source": self.source.to_dict() if self.source else None,
        }


@dataclass(frozen=True)
class Snapshot(Identity):
    """A snapshot of the journal: ``csi-snap-<uuid>``, an image with a snapshot of its own name once it is sealed."""

    source_image: str | None
    source_handle: str | None
    size: int | None
    created_at: float | None
    state: str
    sealed: bool
    group: str | None = None
    """Handle of the group snapshot that it belongs to."""

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            **self._identity(),
            "source": {"image": self.source_image, "handle": self.source_handle},
            "size": self.size,
            "created_at": rfc3339(self.created_at),
            "state": self.state,
            "ready_to_use": self.state == "ready",
            "sealed": self.sealed,
            **({"group": self.group} if self.group is not None else {}),
        }


@dataclass(frozen=True)
class GroupSnapshot:
    """Snapshots of several volumes at one moment. ``created_at`` is that of its first snapshot (epoch seconds)."""

    name: str | None
    handle: str
    uuid: str
    pool: str
    namespace: str
    state: str
    snapshots: tuple[Snapshot, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        times = [snapshot.created_at for snapshot in self.snapshots if snapshot.created_at is not None]
        return {
            "name": self.name,
            "handle": self.handle,
            "uuid": self.uuid,
            "pool": self.pool,
            "namespace": self.namespace,
            "created_at": rfc3339(min(times, default=None)),
            "state": self.state,
            "ready_to_use": self.state == "ready",
            "snapshots": [snapshot.to_dict() for snapshot in self.snapshots],
        }
