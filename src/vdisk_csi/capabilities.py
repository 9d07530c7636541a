"""Volume capabilities: which combinations of access type and mode an RBD image can serve."""

from __future__ import annotations

from collections.abc import Iterable

from .errors import invalid
from .params import check_fs_type
from .proto import csi_pb2 as csi

Mode = csi.VolumeCapability.AccessMode
READ_ONLY_MODES = frozenset({Mode.SINGLE_NODE_READER_ONLY, Mode.MULTI_NODE_READER_ONLY})
#: Of these only one publication at a time is allowed: the specification's second table at NodePublishVolume, with "Non
#: MULTI_NODE_..." for the mode from before it had one for several writers on a node, and for the one that only reads.
ONE_PUBLICATION_MODES = frozenset(
    {Mode.SINGLE_NODE_WRITER, Mode.SINGLE_NODE_READER_ONLY, Mode.SINGLE_NODE_SINGLE_WRITER}
)
#: Several nodes, at least one of which writes: a local file system on the image would be destroyed.
_SHARED_WRITER_MODES = frozenset({Mode.MULTI_NODE_SINGLE_WRITER, Mode.MULTI_NODE_MULTI_WRITER})
_MODES = frozenset(Mode.Mode.values()) - {Mode.UNKNOWN}


def check_capability(capability: csi.VolumeCapability) -> None:
    """Raise INVALID_ARGUMENT unless the capability is complete and can be had."""
    kind = capability.WhichOneof("access_type")
    if kind is None:
        raise invalid("volume_capability: access_type is missing")
    if not capability.HasField("access_mode") or capability.access_mode.mode == Mode.UNKNOWN:
        raise invalid("volume_capability: access_mode is missing")
    mode = capability.access_mode.mode
    if mode not in _MODES:
        raise invalid(f"volume_capability: access_mode {mode} is unknown")
    if kind == "mount":
        check_fs_type(capability.mount.fs_type, "volume_capability: fs_type")
        if capability.mount.volume_mount_group:
            raise invalid("volume_capability: volume_mount_group is not supported")
        if mode in _SHARED_WRITER_MODES:
            raise invalid(
                f"volume_capability: {Mode.Mode.Name(mode)} needs access type block: "
                "a file system can't be written by several nodes"
            )


def check_capabilities(capabilities: Iterable[csi.VolumeCapability]) -> None:
    """Raise INVALID_ARGUMENT unless there are capabilities and each of them can be had."""
    found = list(capabilities)
    if not found:
        raise invalid("volume_capabilities is missing")
    for capability in found:
        check_capability(capability)


def is_read_only(capability: csi.VolumeCapability) -> bool:
    """Tell whether nobody may write."""
    return capability.access_mode.mode in READ_ONLY_MODES
