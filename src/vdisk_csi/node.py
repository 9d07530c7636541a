"""The Node service."""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import Callable
from typing import TypeVar

from grpc import StatusCode

from .call import Call
from .capabilities import check_capability, is_read_only
from .config import Config
from .deadline import Deadline
from .errors import CsiError, internal, invalid, not_found, required
from .filesystems import Filesystems, device_size
from .ids import parse_id
from .mgr import Client, Clients
from .mounters import Mounters
from .mounts import Mounts
from .params import FS_TYPE, check_fs_type
from .places import pool_of
from .proto import csi_pb2 as csi
from .records import Record, Records
from .shapes import known
from .sizes import parse_range
from .staging import Staging
from .threads import Threads
from .tools import ToolFailed, run

T = TypeVar("T")
_THREADS = 32
#: The specification's limit of a path, in bytes.
_MAX_PATH = 4096
_Type = csi.NodeServiceCapability.RPC
_CAPABILITIES = (
    _Type.STAGE_UNSTAGE_VOLUME,
    _Type.GET_VOLUME_STATS,
    _Type.EXPAND_VOLUME,
    _Type.VOLUME_CONDITION,
    _Type.SINGLE_NODE_MULTI_WRITER,
)


class Node:
    """Attaching, formatting and mounting volumes on this node."""

    def __init__(self, config: Config, clients: Clients, mounters: Mounters) -> None:
        self._config = config
        self._clients = clients
        self._mounters = mounters
        records = Records(config.state_dir / "volumes")
        self._staging = Staging(records, config.state_dir / "fuse", mounters, Mounts(run), Filesystems(run))
        self._turns = Turns(Threads("node", _THREADS))

    # -- what the node is ----------------------------------------------------------------------------------------

    async def NodeGetInfo(self, request: csi.NodeGetInfoRequest, call: Call) -> csi.NodeGetInfoResponse:
        """The node's id and how many volumes it takes."""
        return csi.NodeGetInfoResponse(node_id=self._config.node_id, max_volumes_per_node=self._config.max_volumes)

    async def NodeGetCapabilities(
        self, request: csi.NodeGetCapabilitiesRequest, call: Call
    ) -> csi.NodeGetCapabilitiesResponse:
        """The calls that are there."""
        return csi.NodeGetCapabilitiesResponse(
            capabilities=[csi.NodeServiceCapability(rpc=_Type(type=kind)) for kind in _CAPABILITIES]
        )

    # -- staging and publishing ----------------------------------------------------------------------------------

    async def NodeStageVolume(self, request: csi.NodeStageVolumeRequest, call: Call) -> csi.NodeStageVolumeResponse:
        """Attach a volume and mount it at the staging path, formatting it if it is blank."""
        volume_id = required(request.volume_id, "volume_id")
        path = _path(request.staging_target_path, "staging_target_path")
        _capability(request)
        if os.path.islink(path) or (os.path.lexists(path) and not os.path.isdir(path)):
            raise invalid(f"staging_target_path {path} is no directory")
        known(volume_id, "volume")
        client = self._clients.of(request.secrets)
        wanted = await self._record(client, request, path, call.deadline)
        identity = client.cluster.identity
        await self._turns.run(volume_id, call.deadline, lambda: self._staging.stage(wanted, identity))
        return csi.NodeStageVolumeResponse()

    async def NodeUnstageVolume(
        self, request: csi.NodeUnstageVolumeRequest, call: Call
    ) -> csi.NodeUnstageVolumeResponse:
        """Unmount a volume from the staging path and detach it."""
        volume_id = required(request.volume_id, "volume_id")
        path = _path(request.staging_target_path, "staging_target_path")
        await self._turns.run(volume_id, call.deadline, lambda: self._staging.unstage(volume_id, path))
        return csi.NodeUnstageVolumeResponse()

    async def NodePublishVolume(
        self, request: csi.NodePublishVolumeRequest, call: Call
    ) -> csi.NodePublishVolumeResponse:
        """Show a staged volume at the target path."""
        volume_id = required(request.volume_id, "volume_id")
        target = _path(request.target_path, "target_path")
        _capability(request)
        if not request.staging_target_path:
            raise CsiError(
                StatusCode.FAILED_PRECONDITION, "staging_target_path is missing: the volume has to be staged"
            )
        staging = _path(request.staging_target_path, "staging_target_path")
        if os.path.islink(target):
            raise invalid(f"target_path {target} is a link")
        known(volume_id, "volume")
        capability = request.volume_capability
        block = capability.WhichOneof("access_type") == "block"
        read_only = request.readonly or is_read_only(capability)
        mode = int(capability.access_mode.mode)
        await self._turns.run(
            volume_id,
            call.deadline,
            lambda: self._staging.publish(volume_id, staging, target, block, mode, read_only),
        )
        return csi.NodePublishVolumeResponse()

    async def NodeUnpublishVolume(
        self, request: csi.NodeUnpublishVolumeRequest, call: Call
    ) -> csi.NodeUnpublishVolumeResponse:
        """Take a volume away from the target path."""
        volume_id = required(request.volume_id, "volume_id")
        target = _path(request.target_path, "target_path")
        await self._turns.run(volume_id, call.deadline, lambda: self._staging.unpublish(volume_id, target))
        return csi.NodeUnpublishVolumeResponse()

    # -- growing and looking -------------------------------------------------------------------------------------

    async def NodeExpandVolume(self, request: csi.NodeExpandVolumeRequest, call: Call) -> csi.NodeExpandVolumeResponse:
        """Have the device and the file system take on the image's size."""
        volume_id = required(request.volume_id, "volume_id")
        path = _volume_path(request.volume_path, volume_id)
        asked = parse_range(request.capacity_range)
        if request.HasField("volume_capability"):
            check_capability(request.volume_capability)
        size = await self._turns.run(
            volume_id, call.deadline, lambda: self._staging.expand(volume_id, path, asked.required)
        )
        return csi.NodeExpandVolumeResponse(capacity_bytes=size)

    async def NodeGetVolumeStats(
        self, request: csi.NodeGetVolumeStatsRequest, call: Call
    ) -> csi.NodeGetVolumeStatsResponse:
        """What is used and free, and whether the volume works."""
        volume_id = required(request.volume_id, "volume_id")
        path = _volume_path(request.volume_path, volume_id)
        return await self._turns.run(volume_id, call.deadline, lambda: self._stats(volume_id, path))

    # -- inner ---------------------------------------------------------------------------------------------------

    def _stats(self, volume_id: str, path: str) -> csi.NodeGetVolumeStatsResponse:
        record = self._staging.at(volume_id, path)
        units = csi.VolumeUsage
        try:
            if record.block:
                device = self._staging.device(record)
                if device is None:
                    raise OSError("its device is gone")
                usage = [units(total=device_size(device), unit=units.BYTES)]
            elif not self._staging.mounted(path):
                raise not_found(f"volume {volume_id} is not at {path}")
            else:
                found = os.statvfs(path)
                usage = [
                    units(
                        total=found.f_blocks * found.f_frsize,
                        available=found.f_bavail * found.f_frsize,
                        used=(found.f_blocks - found.f_bfree) * found.f_frsize,
                        unit=units.BYTES,
                    ),
                    units(
                        total=found.f_files,
                        available=found.f_favail,
                        used=found.f_files - found.f_ffree,
                        unit=units.INODES,
                    ),
                ]
                if self._staging.device(record) is None:
                    raise OSError("what attached its image has died")
        except OSError as error:
            condition = csi.VolumeCondition(abnormal=True, message=f"the volume does not work: {error}")
            return csi.NodeGetVolumeStatsResponse(volume_condition=condition)
        condition = csi.VolumeCondition(abnormal=False, message="the volume works")
        return csi.NodeGetVolumeStatsResponse(usage=usage, volume_condition=condition)

    async def _record(
        self, client: Client, request: csi.NodeStageVolumeRequest, path: str, deadline: Deadline
    ) -> Record:
        """Return the record of the volume that a request asks for."""
        context = request.volume_context
        pool, namespace, image = context["pool"], context["radosNamespace"], context["imageName"]
        if not pool or not image:
            # A volume that somebody described by hand, with nothing but its id.
            parts = parse_id(request.volume_id)
            pool = await pool_of(client, request.volume_id, deadline) or ""
            image = f"csi-vol-{parts.uuid}" if parts is not None else ""
        if not pool or not image:
            raise not_found(f"volume {request.volume_id} does not exist: there is no such pool")
        for field, value in (("pool", pool), ("radosNamespace", namespace), ("imageName", image)):
            if any(character in value for character in "/@") or value.startswith("-"):
                raise invalid(f"volume_context {field} {value!r} is no name")
        capability = request.volume_capability
        block = capability.WhichOneof("access_type") == "block"
        try:
            mkfs_options = tuple(shlex.split(context["mkfsOptions"]))
        except ValueError as error:
            raise invalid(f"volume_context mkfsOptions: {error}") from error
        return Record(
            volume_id=request.volume_id,
            pool=pool,
            namespace=namespace,
            image=image,
            mounter=context["mounter"] or self._mounters.preferred,
            staging_path=path,
            block=block,
            mode=int(capability.access_mode.mode),
            read_only=is_read_only(capability),
            fs_type="" if block else capability.mount.fs_type or check_fs_type(context[FS_TYPE], FS_TYPE),
            mount_flags=() if block else tuple(capability.mount.mount_flags),
            mkfs_options=() if block else mkfs_options,
        )


class Turns:
    """Has calls about one volume run one after the other, on threads; those about others run beside them."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    async def run(self, volume_id: str, deadline: Deadline, function: Callable[[], T]) -> T:
        """Return a function's result; ABORTED when it does not end in time, and then it goes on all the same."""
        task = asyncio.create_task(self._in_turn(volume_id, function))
        task.add_done_callback(_seen)
        try:
            return await deadline.wait(task)
        except TimeoutError:
            raise CsiError(StatusCode.ABORTED, f"an operation on volume {volume_id} is still under way") from None
        except ToolFailed as error:
            raise internal(str(error)) from error
        except OSError as error:
            raise internal(f"{error.filename or 'the node'}: {error.strerror or error}") from error

    async def _in_turn(self, volume_id: str, function: Callable[[], T]) -> T:
        lock, users = self._locks.get(volume_id, (asyncio.Lock(), 0))
        self._locks[volume_id] = (lock, users + 1)
        try:
            async with lock:
                return await self._threads.run(function)
        finally:
            lock, users = self._locks[volume_id]
            if users == 1:
                del self._locks[volume_id]
            else:
                self._locks[volume_id] = (lock, users - 1)


def _seen(task: asyncio.Task[T]) -> None:
    if not task.cancelled():
        task.exception()


def _path(path: str, field: str) -> str:
    """Return a path that is absolute and not too long."""
    required(path, field)
    if not path.startswith("/") or "\0" in path or len(path.encode()) > _MAX_PATH:
        raise invalid(f"{field} is no absolute path of at most {_MAX_PATH} bytes")
    return os.path.normpath(path)


def _volume_path(path: str, volume_id: str) -> str:
    """Return a path at which a volume may be; NOT_FOUND for one at which none can be."""
    required(path, "volume_path")
    if not path.startswith("/") or "\0" in path:
        raise not_found(f"volume {volume_id} is not at {path[:128]!r}")
    return os.path.normpath(path)


def _capability(request: csi.NodeStageVolumeRequest | csi.NodePublishVolumeRequest) -> None:
    if not request.HasField("volume_capability"):
        raise invalid("volume_capability is missing")
    check_capability(request.volume_capability)
