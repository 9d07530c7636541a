"""The Controller's calls about volumes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from google.protobuf import wrappers_pb2
from grpc import StatusCode

from .call import Call
from .capabilities import check_capabilities, check_capability
from .config import Config
from .creation import create, source_of
from .deadline import Deadline
from .errors import CsiError, invalid, out_of_range, required
from .ids import parse_id
from .mgr import Client, Clients
from .names import request_name
from .paging import page
from .params import parse_volume_parameters
from .places import Places, listed_specs
from .proto import csi_pb2 as csi
from .shapes import Row, condition, known, volume_context, volume_message
from .sizes import MINIMUM, parse_range

#: With published nodes each volume costs a command, so pages are kept short.
_PUBLISHED_PAGE = 100
_PUBLISHED_AT_ONCE = 8
#: Seconds to wait for the statistics of a pool that was just made, and between two looks.
_STATISTICS_SECONDS, _STATISTICS_PAUSE = 10.0, 0.5


class Volumes:
    """Volumes of the cluster, through vdisk's commands."""

    def __init__(self, config: Config, clients: Clients, places: Places) -> None:
        self._config = config
        self._clients = clients
        self._places = places

    # -- creating and deleting -----------------------------------------------------------------------------------

    async def CreateVolume(self, request: csi.CreateVolumeRequest, call: Call) -> csi.CreateVolumeResponse:
        """Create a volume: empty, from a snapshot or from a volume."""
        name = request_name(request.name)
        check_capabilities(request.volume_capabilities)
        asked = parse_range(request.capacity_range)
        parameters = parse_volume_parameters(request.parameters)
        if request.mutable_parameters:
            raise invalid("mutable_parameters are not supported")
        source = source_of(request)
        client = self._clients.of(request.secrets)
        await self.check_cluster(parameters.cluster_id, client, call.deadline)
        if source is None and parameters.pool_spec is None and len(self._config.pools) == 1:
            parameters = replace(parameters, pool_spec=self._config.pools[0])
        row = await create(client, name, parameters, source, asked, call.deadline)
        self._places.remember(row)
        volume = self._volume(row, parameters.for_nodes)
        if source is not None:
            volume.content_source.CopyFrom(request.volume_content_source)
        return csi.CreateVolumeResponse(volume=volume)

    async def DeleteVolume(self, request: csi.DeleteVolumeRequest, call: Call) -> csi.DeleteVolumeResponse:
        """Delete a volume; one that does not exist is no error."""
        volume_id = required(request.volume_id, "volume_id")
        client = self._clients.of(request.secrets)
        await remove(client, "volume rm", call.deadline, volume=volume_id)
        self._places.forget(volume_id)
        return csi.DeleteVolumeResponse()

    async def ControllerExpandVolume(
        self, request: csi.ControllerExpandVolumeRequest, call: Call
    ) -> csi.ControllerExpandVolumeResponse:
        """Grow a volume, in use or not; the node then has to grow the device and the file system."""
        volume_id = required(request.volume_id, "volume_id")
        if not request.HasField("capacity_range"):
            raise invalid("capacity_range is missing")
        if request.HasField("volume_capability"):
            check_capability(request.volume_capability)
        asked = parse_range(request.capacity_range)
        known(volume_id, "volume")
        client = self._clients.of(request.secrets)
        size = asked.size_or_default()
        try:
            await client.change("volume resize", call.deadline, volume=volume_id, size=str(size))
        except CsiError as error:
            present = error.details.get("minimum")
            if error.code is not StatusCode.OUT_OF_RANGE or present is None:
                raise
            if not asked.admits(present):
                raise out_of_range(f"the volume has {present} bytes already, and volumes only grow") from None
            size = present
        return csi.ControllerExpandVolumeResponse(capacity_bytes=size, node_expansion_required=True)

    # -- looking -------------------------------------------------------------------------------------------------

    async def ControllerGetVolume(
        self, request: csi.ControllerGetVolumeRequest, call: Call
    ) -> csi.ControllerGetVolumeResponse:
        """Describe a volume, its condition, and where it is published."""
        volume_id = known(required(request.volume_id, "volume_id"), "volume")
        row = await self._clients.of().send("volume info", call.deadline, volume=volume_id)
        status = csi.ControllerGetVolumeResponse.VolumeStatus(
            published_node_ids=self._published(row), volume_condition=condition(row)
        )
        return csi.ControllerGetVolumeResponse(volume=self._volume({**row, "handle": volume_id}, {}), status=status)

    async def ListVolumes(self, request: csi.ListVolumesRequest, call: Call) -> csi.ListVolumesResponse:
        """List the volumes of the configured pools, page by page."""
        client = self._clients.of()
        specs = await listed_specs(self._config, client, call.deadline)

        async def lister(spec: str, limit: int, marker: str) -> list[dict[str, Any]]:
            more = {"marker": marker} if marker else {}
            return await rows_of(client, "volume ls", call.deadline, not self._config.pools, spec, limit, more)

        most = request.max_entries
        if self._config.nodes_by_address and most >= 0:
            most = min(most or _PUBLISHED_PAGE, _PUBLISHED_PAGE)
        rows, token = await page(specs, most, request.starting_token, lister, lambda row: True)
        published = await self._published_of(client, rows, call.deadline)
        entries = [
            csi.ListVolumesResponse.Entry(
                volume=self._volume(row, {}),
                status=csi.ListVolumesResponse.VolumeStatus(
                    published_node_ids=published.get(row["handle"], []), volume_condition=condition(row)
                ),
            )
            for row in rows
        ]
        return csi.ListVolumesResponse(entries=entries, next_token=token)

    async def ValidateVolumeCapabilities(
        self, request: csi.ValidateVolumeCapabilitiesRequest, call: Call
    ) -> csi.ValidateVolumeCapabilitiesResponse:
        """Tell whether a volume that exists can be used so."""
        volume_id = required(request.volume_id, "volume_id")
        if not request.volume_capabilities:
            raise invalid("volume_capabilities is missing")
        known(volume_id, "volume")
        client = self._clients.of(request.secrets)
        row = await client.send("volume info", call.deadline, volume=volume_id)
        try:
            check_capabilities(request.volume_capabilities)
            parse_volume_parameters(request.parameters)
            if request.mutable_parameters:
                raise invalid("mutable_parameters are not supported")
            self._check_context(request.volume_context, {**row, "handle": volume_id})
        except CsiError as error:
            return csi.ValidateVolumeCapabilitiesResponse(message=error.message)
        confirmed = csi.ValidateVolumeCapabilitiesResponse.Confirmed(
            volume_context=request.volume_context,
            volume_capabilities=request.volume_capabilities,
            parameters=request.parameters,
        )
        return csi.ValidateVolumeCapabilitiesResponse(confirmed=confirmed)

    async def GetCapacity(self, request: csi.GetCapacityRequest, call: Call) -> csi.GetCapacityResponse:
        """What is free in the pool of a StorageClass; without one, in the pool that has the most."""
        parameters = parse_volume_parameters(request.parameters)
        client = self._clients.of()
        await self.check_cluster(parameters.cluster_id, client, call.deadline)
        answer = csi.GetCapacityResponse(minimum_volume_size=wrappers_pb2.Int64Value(value=MINIMUM))
        try:
            if request.volume_capabilities:
                check_capabilities(request.volume_capabilities)
        except CsiError:
            return answer  # of volumes that can't be had there is none
        pools = parameters.pools or {
            spec.partition("/")[0] for spec in await listed_specs(self._config, client, call.deadline)
        }
        free = await self._free(client, parameters.pools, call.deadline)
        answer.available_capacity = max((free.get(pool, 0) for pool in pools), default=0)
        return answer

    # -- shared with snapshots -----------------------------------------------------------------------------------

    async def check_cluster(self, cluster_id: str, client: Client, deadline: Deadline) -> None:
        """Raise INVALID_ARGUMENT when ``clusterID`` is given and not this cluster."""
        if cluster_id and cluster_id != self._config.cluster_id and cluster_id != await client.fsid(deadline):
            raise invalid(f"parameter clusterID {cluster_id!r} is not the cluster that this driver serves")

    # -- inner ---------------------------------------------------------------------------------------------------

    async def _free(self, client: Client, needed: Sequence[str], deadline: Deadline) -> Mapping[str, int]:
        """Return the free bytes of pools; the monitors hear of those of a new pool only after some seconds."""
        patience = deadline.within(_STATISTICS_SECONDS)
        while True:
            report = await client.mon("df", deadline)
            free = {pool["name"]: int(pool["stats"]["max_avail"]) for pool in report["pools"]}
            missing = sorted(set(needed) - set(free))
            if not missing:
                return free
            if missing[0] not in await client.mon("osd pool ls", deadline):
                raise invalid(f"pool {missing[0]!r} does not exist")
            if patience.left() <= _STATISTICS_PAUSE:
                raise CsiError(StatusCode.UNAVAILABLE, f"nothing is known yet of the space in pool {missing[0]!r}")
            await asyncio.sleep(_STATISTICS_PAUSE)

    def _volume(self, row: Row, for_nodes: Mapping[str, str]) -> csi.Volume:
        return volume_message(row, {**volume_context(row, self._config.driver_name), **for_nodes})

    def _check_context(self, given: Mapping[str, str], row: Row) -> None:
        expected = volume_context(row, self._config.driver_name)
        for key, value in given.items():
            if key in expected and expected[key] != value:
                raise invalid(f"volume_context {key} is {expected[key]!r}, not {value!r}")

    def _published(self, row: Row) -> list[str]:
        """Return the nodes on which a volume is open, where their ids are their addresses."""
        if not self._config.nodes_by_address:
            return []
        return sorted({watcher["address"].rpartition(":")[0].strip("[]") for watcher in row["watchers"]})

    async def _published_of(
        self, client: Client, rows: list[dict[str, Any]], deadline: Deadline
    ) -> Mapping[str, list[str]]:
        if not self._config.nodes_by_address:
            return {}
        turn = asyncio.Semaphore(_PUBLISHED_AT_ONCE)

        async def look(volume_id: str) -> tuple[str, list[str]]:
            try:
                async with turn:
                    return volume_id, self._published(await client.send("volume info", deadline, volume=volume_id))
            except CsiError as error:
                if error.code is StatusCode.NOT_FOUND:  # deleted in the meantime
                    return volume_id, []
                raise

        return dict(await asyncio.gather(*(look(row["handle"]) for row in rows)))


async def remove(client: Client, words: str, deadline: Deadline, **target: str) -> None:
    """Have a volume or snapshot removed; one that does not exist, or whose id makes no sense, is gone already."""
    if parse_id(next(iter(target.values()))) is None:
        return
    try:
        await client.change(words, deadline, **target)
    except CsiError as error:
        if error.code is not StatusCode.NOT_FOUND:
            raise


async def rows_of(
    client: Client, words: str, deadline: Deadline, lenient: bool, spec: str, limit: int, more: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return a page of a list; ``lenient`` passes over pools that the key does not allow or that are gone by now."""
    try:
        rows: list[dict[str, Any]] = await client.send(words, deadline, pool_spec=spec, limit=limit, **more)
        return rows
    except CsiError as error:
        if lenient and error.code in (StatusCode.PERMISSION_DENIED, StatusCode.NOT_FOUND, StatusCode.INVALID_ARGUMENT):
            return []
        raise
