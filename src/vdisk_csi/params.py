"""Parameters of a StorageClass and of a VolumeSnapshotClass. An unknown one is an error, not ignored."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from .errors import invalid

#: Parameter -> argument of ``vdisk volume create``, ``restore`` and ``clone``.
_LAYOUT = {
    "imageFeatures": "image_features",
    "dataPool": "data_pool",
    "objectSize": "object_size",
    "stripeUnit": "stripe_unit",
    "stripeCount": "stripe_count",
}
FS_TYPE = "csi.storage.k8s.io/fstype"
#: Parameters that only the node reads, out of the volume's context.
_FOR_NODES = ("mounter", "mkfsOptions", FS_TYPE)
#: What Kubernetes' sidecars add or use themselves: names of the claim, references to secrets.
_KUBERNETES = "csi.storage.k8s.io/"
FILE_SYSTEMS = ("ext4", "ext3", "xfs")
MOUNTERS = ("krbd", "rbd-nbd", "rbd-fuse")
_PART = re.compile(r"[^/@\x00-\x1f\x7f-\x9f]+")


@dataclass(frozen=True)
class VolumeParameters:
    """A StorageClass: ``pool_spec`` is None where it names no pool, ``layout`` holds arguments of the commands."""

    cluster_id: str
    pool_spec: str | None
    layout: Mapping[str, str]
    for_nodes: Mapping[str, str]
    pools: tuple[str, ...]
    """Pools that the volume's data would lie in."""


def parse_volume_parameters(given: Mapping[str, str]) -> VolumeParameters:
    """Read a StorageClass's parameters."""
    known = {"clusterID", "pool", "radosNamespace", *_LAYOUT, *_FOR_NODES}
    unknown = sorted(key for key in given if key not in known and not key.startswith(_KUBERNETES))
    if unknown:
        raise invalid(f"unknown parameter {unknown[0]!r}; known are {', '.join(sorted(known))}")
    check_fs_type(given.get(FS_TYPE, ""), FS_TYPE)
    mounter = given.get("mounter", "")
    if mounter and mounter not in MOUNTERS:
        raise invalid(f"parameter mounter {mounter!r} is none of {', '.join(MOUNTERS)}")
    pool, namespace = given.get("pool", ""), given.get("radosNamespace", "")
    for key in ("pool", "radosNamespace", "dataPool"):
        if given.get(key) and not _PART.fullmatch(given[key]):
            raise invalid(f"parameter {key} {given[key]!r} is no name")
    if namespace and not pool:
        raise invalid("parameter radosNamespace needs the parameter pool")
    data = given.get("dataPool") or pool
    return VolumeParameters(
        cluster_id=given.get("clusterID", ""),
        pool_spec="/".join(part for part in (pool, namespace) if part) or None,
        layout={_LAYOUT[key]: value for key, value in given.items() if key in _LAYOUT and value},
        for_nodes={key: given[key] for key in _FOR_NODES if given.get(key)},
        pools=(data,) if data else (),
    )


def parse_snapshot_parameters(given: Mapping[str, str]) -> str:
    """Read a VolumeSnapshotClass's parameters and return its cluster id, empty if there is none."""
    unknown = sorted(key for key in given if key != "clusterID" and not key.startswith(_KUBERNETES))
    if unknown:
        raise invalid(f"unknown parameter {unknown[0]!r} of a snapshot; known is clusterID")
    return given.get("clusterID", "")


def check_fs_type(fs_type: str, field: str = "fs_type") -> str:
    """Return a file system type, which may be empty; INVALID_ARGUMENT for one that is not supported."""
    if fs_type and fs_type not in FILE_SYSTEMS:
        raise invalid(f"{field} {fs_type!r} is none of {', '.join(FILE_SYSTEMS)}")
    return fs_type
