"""The Controller service: what it can do. Its calls are in :mod:`.volumes` and :mod:`.snapshots`."""

from __future__ import annotations

from .call import Call
from .proto import csi_pb2 as csi

_Type = csi.ControllerServiceCapability.RPC
#: There is no ControllerPublishVolume: an RBD image needs no step between the controller and the node.
_CAPABILITIES = (
    _Type.CREATE_DELETE_VOLUME,
    _Type.LIST_VOLUMES,
    _Type.GET_CAPACITY,
    _Type.CREATE_DELETE_SNAPSHOT,
    _Type.LIST_SNAPSHOTS,
    _Type.CLONE_VOLUME,
    _Type.EXPAND_VOLUME,
    _Type.VOLUME_CONDITION,
    _Type.GET_VOLUME,
    _Type.SINGLE_NODE_MULTI_WRITER,
    _Type.GET_SNAPSHOT,
)


class Abilities:
    """What the controller can do."""

    async def ControllerGetCapabilities(
        self, request: csi.ControllerGetCapabilitiesRequest, call: Call
    ) -> csi.ControllerGetCapabilitiesResponse:
        """The calls that are there."""
        return csi.ControllerGetCapabilitiesResponse(
            capabilities=[csi.ControllerServiceCapability(rpc=_Type(type=kind)) for kind in _CAPABILITIES]
        )
