"""Messages of volumes and snapshots from what vdisk shows of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from google.protobuf import timestamp_pb2

from .errors import not_found
from .ids import parse_id
from .proto import csi_pb2 as csi

Row = Mapping[str, Any]


def known(text: str, what: str) -> str:
    """Return an id that can be one of ours; NOT_FOUND for any other text."""
    if parse_id(text) is None:
        raise not_found(f"{what} {text[:128]!r} does not exist")
    return text


def volume_context(row: Row, driver_name: str) -> dict[str, str]:
    """Return a volume's context, as the CSI drivers whose journal vdisk shares write it."""
    parts = parse_id(row["handle"])
    return {
        "clusterID": parts.cluster_id if parts is not None else "",
        "driverType": driver_name,
        "imageName": row["image"],
        "journalPool": row["pool"],
        "pool": row["pool"],
        "radosNamespace": row["namespace"],
    }


def volume_message(row: Row, context: Mapping[str, str]) -> csi.Volume:
    """Return a volume's message."""
    return csi.Volume(
        volume_id=row["handle"],
        capacity_bytes=row["size"] or 0,
        volume_context=context,
        content_source=_content_source(row),
    )


def condition(row: Row) -> csi.VolumeCondition:
    """Return a volume's condition, from what vdisk shows of it."""
    if row["size"] is None:
        return csi.VolumeCondition(abnormal=True, message=f"image {row['image']} does not exist")
    if row["state"] != "ready":
        return csi.VolumeCondition(abnormal=True, message=f"the volume is {row['state']}: it is not complete")
    return csi.VolumeCondition(abnormal=False, message="the image exists and is complete")


def is_cut(row: Row) -> bool:
    """Tell whether a snapshot has been taken: the specification has others not listed."""
    return row["state"] != "pending" and row["created_at"] is not None


def snapshot_message(row: Row, source: str = "") -> csi.Snapshot:
    """Return a snapshot's message. A source that is no volume of vdisk's is named by its image."""
    image = "/".join(part for part in (row["pool"], row["namespace"], row["source"]["image"] or "") if part)
    return csi.Snapshot(
        snapshot_id=row["handle"],
        source_volume_id=source or row["source"]["handle"] or image,
        size_bytes=row["size"] or 0,
        creation_time=_timestamp(row["created_at"]),
        ready_to_use=row["state"] == "ready",
        group_snapshot_id=row.get("group") or "",
    )


def group_message(row: Row, sources: Sequence[str] = ()) -> csi.VolumeGroupSnapshot:
    """Return a group snapshot's message. ``sources`` are the volumes' ids as a caller wrote them."""
    by_uuid = {parts.uuid: source for source in sources if (parts := parse_id(source)) is not None}
    snapshots = []
    for each in row["snapshots"]:
        parts = parse_id(each["source"]["handle"] or "")
        source = by_uuid.get(parts.uuid, "") if parts is not None else ""
        snapshots.append(snapshot_message({**each, "group": row["handle"]}, source))
    return csi.VolumeGroupSnapshot(
        group_snapshot_id=row["handle"],
        snapshots=snapshots,
        creation_time=_timestamp(row["created_at"]),
        ready_to_use=row["state"] == "ready",
    )


def _timestamp(text: str | None) -> timestamp_pb2.Timestamp:
    stamp = timestamp_pb2.Timestamp()
    if text is not None:
        stamp.FromDatetime(datetime.fromisoformat(text))
    return stamp


def _content_source(row: Row) -> csi.VolumeContentSource | None:
    source = row.get("source")
    if not source or not source["handle"]:
        return None
    if source["kind"] == "snapshot":
        return csi.VolumeContentSource(snapshot=csi.VolumeContentSource.SnapshotSource(snapshot_id=source["handle"]))
    return csi.VolumeContentSource(volume=csi.VolumeContentSource.VolumeSource(volume_id=source["handle"]))
