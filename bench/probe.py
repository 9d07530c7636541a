"""What a daemon did meanwhile: OSD operations, CPU seconds, memory."""

from __future__ import annotations

import json
import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.cluster import Cluster

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Usage:
    """Counters at one moment: client operations of all OSDs, CPU seconds and resident bytes of the active mgr."""

    osd_ops: int
    mgr_cpu: float
    mgr_rss: int


def usage(cluster: Cluster) -> Usage:
    """Read the counters."""
    pid = cluster.mgrs[cluster.active_mgr()].pid
    return Usage(osd_ops(cluster), cpu_seconds(pid), rss(pid))


def osd_ops(cluster: Cluster) -> int:
    """Return how many client operations the OSDs have carried out (``osd.op`` of ``perf dump``)."""
    total = 0
    for ident in cluster.osds:
        dump = admin_socket(cluster.layout.sockets / f"osd.{ident}.asok", "perf dump", logger="osd")
        total += int(dump["osd"]["op"])
    return total


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def rss(pid: int) -> int:
    """Return the resident memory of a process in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


def admin_socket(path: Path, prefix: str, **arguments: str) -> Any:
    """Send a command to a daemon's admin socket and return what its JSON holds."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(30)
        connection.connect(str(path))
        connection.sendall(json.dumps({"prefix": prefix, "format": "json", **arguments}).encode() + b"\0")
        (length,) = struct.unpack(">I", _receive(connection, 4))
        return json.loads(_receive(connection, length))


def _receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise ConnectionError("the admin socket closed early")
        data += part
    return data
