"""The GroupController service: snapshots of several volumes at one moment, where vdisk says that its release can."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from grpc import StatusCode

from .call import Call
from .deadline import Deadline
from .errors import CsiError, invalid, precondition, required
from .ids import parse_id, same
from .mgr import Clients
from .names import request_name
from .params import parse_snapshot_parameters
from .proto import csi_pb2 as csi
from .shapes import Row, group_message, known
from .volumes import Volumes, remove

_Type = csi.GroupControllerServiceCapability.RPC


class Support:
    """Whether the cluster's release can make group snapshots; asked of vdisk until it has answered once.

    Releases change when managers are upgraded, so a "no" is asked for again each time.
    """

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._known = False
        self._turn = asyncio.Lock()

    async def __call__(self, deadline: Deadline) -> bool:
        """Return whether it can; UNAVAILABLE when no manager answers."""
        async with self._turn:
            if not self._known:
                status = await self._clients.of().send("status", deadline)
                self._known = bool(status.get("group_snapshots"))
        return self._known


class Groups:
    """Group snapshots, through vdisk's commands."""

    def __init__(self, clients: Clients, volumes: Volumes, support: Support) -> None:
        self._clients = clients
        self._volumes = volumes
        self._support = support

    async def GroupControllerGetCapabilities(
        self, request: csi.GroupControllerGetCapabilitiesRequest, call: Call
    ) -> csi.GroupControllerGetCapabilitiesResponse:
        """All calls, or none."""
        kinds = [_Type.CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT] if await self._support(call.deadline) else []
        return csi.GroupControllerGetCapabilitiesResponse(
            capabilities=[csi.GroupControllerServiceCapability(rpc=_Type(type=kind)) for kind in kinds]
        )

    async def CreateVolumeGroupSnapshot(
        self, request: csi.CreateVolumeGroupSnapshotRequest, call: Call
    ) -> csi.CreateVolumeGroupSnapshotResponse:
        """Snapshot volumes at one moment; answers once each snapshot can be restored."""
        await self._check_support(call.deadline)
        name = request_name(request.name)
        if not request.source_volume_ids:
            raise invalid("source_volume_ids is missing")
        sources = [required(each, "source_volume_ids") for each in request.source_volume_ids]
        cluster_id = parse_snapshot_parameters(request.parameters)
        for source in sources:
            known(source, "volume")
        client = self._clients.of(request.secrets)
        await self._volumes.check_cluster(cluster_id, client, call.deadline)
        try:
            row = await client.change("group snap create", call.deadline, name=name, volumes=",".join(sources))
        except CsiError as error:
            # What the volumes are like is in the way, not how the call is made.
            if error.code in (StatusCode.INVALID_ARGUMENT, StatusCode.UNIMPLEMENTED) and error.details:
                raise precondition(error.message) from None
            raise
        if row["state"] != "ready" or not row["snapshots"]:
            row = await client.send("group snap info", call.deadline, group=row["handle"])
        return csi.CreateVolumeGroupSnapshotResponse(group_snapshot=group_message(row, sources))

    async def DeleteVolumeGroupSnapshot(
        self, request: csi.DeleteVolumeGroupSnapshotRequest, call: Call
    ) -> csi.DeleteVolumeGroupSnapshotResponse:
        """Delete a group snapshot with its snapshots; one that does not exist is no error."""
        await self._check_support(call.deadline)
        group_id = required(request.group_snapshot_id, "group_snapshot_id")
        client = self._clients.of(request.secrets)
        if request.snapshot_ids and parse_id(group_id) is not None:
            try:
                row = await client.send("group snap info", call.deadline, group=group_id)
            except CsiError as error:
                if error.code is not StatusCode.NOT_FOUND:
                    raise
            else:
                _check_members(row, request.snapshot_ids)
        await remove(client, "group snap rm", call.deadline, group=group_id)
        return csi.DeleteVolumeGroupSnapshotResponse()

    async def GetVolumeGroupSnapshot(
        self, request: csi.GetVolumeGroupSnapshotRequest, call: Call
    ) -> csi.GetVolumeGroupSnapshotResponse:
        """Describe a group snapshot."""
        await self._check_support(call.deadline)
        group_id = known(required(request.group_snapshot_id, "group_snapshot_id"), "group snapshot")
        row = await self._clients.of(request.secrets).send("group snap info", call.deadline, group=group_id)
        _check_members(row, request.snapshot_ids)
        message = group_message({**row, "handle": group_id})
        return csi.GetVolumeGroupSnapshotResponse(group_snapshot=message)

    async def _check_support(self, deadline: Deadline) -> None:
        if not await self._support(deadline):
            raise CsiError(StatusCode.UNIMPLEMENTED, "this Ceph release's librbd clones no group snapshots")


def _check_members(row: Row, snapshot_ids: Sequence[str]) -> None:
    """Raise INVALID_ARGUMENT where the caller has other snapshots in mind than those of the group."""
    there = [each["handle"] for each in row["snapshots"]]
    if snapshot_ids and not (
        len(snapshot_ids) == len(there) and all(any(same(one, other) for other in there) for one in snapshot_ids)
    ):
        raise invalid("snapshot_ids are not those of the group snapshot")
