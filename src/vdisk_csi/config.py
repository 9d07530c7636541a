"""What the driver was told at its start."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from .cluster import Identity

DRIVER_NAME = "vdisk.csi.cstor.com"


@dataclass(frozen=True)
class Config:
    """Options of ``vdisk-csi``. Times are in seconds."""

    endpoint: str
    controller: bool
    node: bool
    driver_name: str = DRIVER_NAME
    identity: Identity = field(default_factory=Identity)
    timeout: float = 60.0
    """The longest that a call takes, whatever its client allows."""
    mgr_timeout: float = 30.0
    """How long a manager may give no answer."""
    cluster_id: str = ""
    """Beside the fsid, what ``clusterID`` of a StorageClass may be."""
    pools: tuple[str, ...] = ()
    """Pool specs that are listed; all RBD pools if there are none."""
    nodes_by_address: bool = False
    """Node ids are the nodes' addresses, so watchers tell where a volume is published."""
    node_id: str = ""
    state_dir: Path = Path("/var/lib/vdisk-csi")
    mounter: str = ""
    max_volumes: int = 0
    http_endpoint: str = ""
