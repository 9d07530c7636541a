"""The Identity service."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from google.protobuf import wrappers_pb2

from .call import Call
from .config import Config
from .deadline import Deadline
from .errors import CsiError
from .mgr import Client
from .proto import csi_pb2 as csi
from .version import VERSION

_PROBE_SECONDS = 3.0
#: How long a manager may take to tell what its release can do.
_GROUPS_SECONDS = 10.0


class Identity:
    """Who the driver is and whether it can work. ``ready`` tells the latter, ``groups`` whether it snapshots groups."""

    def __init__(
        self,
        config: Config,
        ready: Callable[[Deadline], Awaitable[bool]],
        groups: Callable[[Deadline], Awaitable[bool]],
    ) -> None:
        self._config = config
        self._ready = ready
        self._groups = groups

    async def GetPluginInfo(self, request: csi.GetPluginInfoRequest, call: Call) -> csi.GetPluginInfoResponse:
        """Name and version."""
        return csi.GetPluginInfoResponse(name=self._config.driver_name, vendor_version=VERSION)

    async def GetPluginCapabilities(
        self, request: csi.GetPluginCapabilitiesRequest, call: Call
    ) -> csi.GetPluginCapabilitiesResponse:
        """The controllers, if this process has them, and growing volumes while they are in use."""
        kinds = csi.PluginCapability
        services = [kinds.Service.CONTROLLER_SERVICE] if self._config.controller else []
        if self._config.controller and await self._groups(call.deadline.within(_GROUPS_SECONDS)):
            services.append(kinds.Service.GROUP_CONTROLLER_SERVICE)
        online = kinds(volume_expansion=kinds.VolumeExpansion(type=kinds.VolumeExpansion.ONLINE))
        found = [kinds(service=kinds.Service(type=service)) for service in services]
        return csi.GetPluginCapabilitiesResponse(capabilities=[*found, online])

    async def Probe(self, request: csi.ProbeRequest, call: Call) -> csi.ProbeResponse:
        """Whether calls can succeed now."""
        ready = await self._ready(call.deadline.within(_PROBE_SECONDS))
        return csi.ProbeResponse(ready=wrappers_pb2.BoolValue(value=ready))


class Readiness:
    """Whether vdisk answers. There is one look at a time, so that probes don't pile up while no manager is active."""

    def __init__(self, client: Callable[[], Client]) -> None:
        self._client = client
        self._look: asyncio.Task[bool] | None = None

    async def __call__(self, deadline: Deadline) -> bool:
        """Return whether vdisk answers within the deadline."""
        if self._look is None or self._look.done():
            self._look = asyncio.create_task(self._once())
        try:
            return await deadline.wait(self._look)
        except TimeoutError:
            return False

    async def _once(self) -> bool:
        try:
            await self._client().send("status", Deadline(10 * _PROBE_SECONDS))
        except CsiError:
            return False
        return True
