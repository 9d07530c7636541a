"""The Controller's calls about snapshots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grpc import StatusCode

from .call import Call
from .config import Config
from .deadline import Deadline
from .errors import CsiError, invalid, required
from .ids import parse_id, same
from .mgr import Client, Clients
from .names import request_name
from .paging import page
from .params import parse_snapshot_parameters
from .places import Places, in_pool, listed_specs, pool_of
from .proto import csi_pb2 as csi
from .shapes import Row, is_cut, known, snapshot_message
from .volumes import Volumes, remove, rows_of


class Snapshots:
    """Snapshots of the cluster, through vdisk's commands."""

    def __init__(self, config: Config, clients: Clients, places: Places, volumes: Volumes) -> None:
        self._config = config
        self._clients = clients
        self._places = places
        self._volumes = volumes

    async def CreateSnapshot(self, request: csi.CreateSnapshotRequest, call: Call) -> csi.CreateSnapshotResponse:
        """Snapshot a volume; answers once the snapshot can be restored."""
        name = request_name(request.name)
        source = required(request.source_volume_id, "source_volume_id")
        cluster_id = parse_snapshot_parameters(request.parameters)
        known(source, "volume")
        client = self._clients.of(request.secrets)
        await self._volumes.check_cluster(cluster_id, client, call.deadline)
        row = await self._create(client, source, name, call.deadline)
        if row.get("created_at") is None:
            row = await client.send("snap info", call.deadline, snapshot=row["handle"])
        return csi.CreateSnapshotResponse(snapshot=snapshot_message(row, source))

    async def DeleteSnapshot(self, request: csi.DeleteSnapshotRequest, call: Call) -> csi.DeleteSnapshotResponse:
        """Delete a snapshot; one that does not exist is no error."""
        snapshot_id = required(request.snapshot_id, "snapshot_id")
        await remove(self._clients.of(request.secrets), "snap rm", call.deadline, snapshot=snapshot_id)
        return csi.DeleteSnapshotResponse()

    async def GetSnapshot(self, request: csi.GetSnapshotRequest, call: Call) -> csi.GetSnapshotResponse:
        """Describe a snapshot."""
        snapshot_id = known(required(request.snapshot_id, "snapshot_id"), "snapshot")
        row = await self._clients.of(request.secrets).send("snap info", call.deadline, snapshot=snapshot_id)
        return csi.GetSnapshotResponse(snapshot=snapshot_message({**row, "handle": snapshot_id}))

    async def ListSnapshots(self, request: csi.ListSnapshotsRequest, call: Call) -> csi.ListSnapshotsResponse:
        """List snapshots, page by page: all, those of a volume, or one."""
        if request.max_entries < 0:
            raise invalid(f"max_entries {request.max_entries} is negative")
        client = self._clients.of(request.secrets)
        if request.snapshot_id:
            return await self._one(client, request, call.deadline)
        specs = await listed_specs(self._config, client, call.deadline)
        images: Mapping[str, str] = {}
        if request.source_volume_id:
            images = await self._images(client, request.source_volume_id, specs, call.deadline)
            specs = sorted(images)

        async def lister(spec: str, limit: int, marker: str) -> list[dict[str, Any]]:
            more = {"marker": marker} if marker else {}
            if spec in images:
                found: list[dict[str, Any]] = await client.send(
                    "snap ls", call.deadline, image_spec=images[spec], limit=limit, **more
                )
                return found
            return await rows_of(client, "snap ls", call.deadline, not self._config.pools, spec, limit, more)

        rows, token = await page(specs, request.max_entries, request.starting_token, lister, is_cut)
        entries = [
            csi.ListSnapshotsResponse.Entry(snapshot=snapshot_message(row, request.source_volume_id)) for row in rows
        ]
        return csi.ListSnapshotsResponse(entries=entries, next_token=token)

    # -- inner ---------------------------------------------------------------------------------------------------

    async def _create(self, client: Client, source: str, name: str, deadline: Deadline) -> Row:
        """Have the snapshot made; where the volume lies may have been remembered wrongly, so then it is looked for."""
        for fresh in (self._places.known(source) is None, True):
            place = await self._places.find(client, source, deadline)
            try:
                return await client.change("snap create", deadline, image_spec=place.image_spec, snap_name=name)
            except CsiError as error:
                self._places.forget(source)
                if fresh or error.code not in (StatusCode.NOT_FOUND, StatusCode.PERMISSION_DENIED):
                    raise
        raise AssertionError("not reached")

    async def _one(
        self, client: Client, request: csi.ListSnapshotsRequest, deadline: Deadline
    ) -> csi.ListSnapshotsResponse:
        if parse_id(request.snapshot_id) is None:
            return csi.ListSnapshotsResponse()
        try:
            row = await client.send("snap info", deadline, snapshot=request.snapshot_id)
        except CsiError as error:
            if error.code is not StatusCode.NOT_FOUND:
                raise
            return csi.ListSnapshotsResponse()
        wanted = request.source_volume_id
        if not is_cut(row) or (wanted and not same(wanted, row["source"]["handle"] or "")):
            return csi.ListSnapshotsResponse()
        snapshot = snapshot_message({**row, "handle": request.snapshot_id}, wanted)
        return csi.ListSnapshotsResponse(entries=[csi.ListSnapshotsResponse.Entry(snapshot=snapshot)])

    async def _images(self, client: Client, volume_id: str, specs: list[str], deadline: Deadline) -> Mapping[str, str]:
        """Return pool spec -> image spec of a volume, which may be deleted while its snapshots are still there."""
        parts = parse_id(volume_id)
        if parts is None:
            return {}
        try:
            place = await self._places.find(client, volume_id, deadline)
            return {place.pool_spec: place.image_spec}
        except CsiError as error:
            if error.code is not StatusCode.NOT_FOUND:
                raise
        pool = await pool_of(client, volume_id, deadline)
        return {} if pool is None else {spec: f"{spec}/csi-vol-{parts.uuid}" for spec in in_pool(specs, pool)}
