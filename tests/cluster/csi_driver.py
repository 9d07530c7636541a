"""The CSI driver as a process of its own, against a cluster of any release, and its services as a client sees them."""

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from harness.cli import clean_env
from harness.client import ADMIN
from harness.cluster import Cluster
from harness.releases import REPO
from harness.wait import wait_for
from vdisk_csi.failpoints import VARIABLE
from vdisk_csi.proto import csi_pb2 as csi
from vdisk_csi.proto import csi_pb2_grpc

_numbers = itertools.count(1)
GIB, MIB = 1 << 30, 1 << 20
Mode = csi.VolumeCapability.AccessMode


class Driver:
    """A driver process. ``options`` are more of its command line, ``env`` more of its environment."""

    def __init__(
        self,
        cluster: Cluster,
        *options: str,
        controller: bool = True,
        node: bool = False,
        entity: str = ADMIN,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.cluster = cluster
        self.dir = cluster.layout.dir / f"csi{next(_numbers)}"
        self.dir.mkdir()
        self.failpoint = self.dir / "failpoint"
        self._socket = self.dir / "csi.sock"
        self._argv = [sys.executable, "-m", "vdisk_csi", "--endpoint", f"unix://{self._socket}"]
        self._argv += ["--conf", str(cluster.conf_path), "--name", entity]
        self._argv += ["--keyring", str(cluster.layout.keyring(entity)), "--log-level", "debug"]
        self._argv += ["--controller"] if controller else []
        if node:
            self._argv += ["--node", "--node-id", "node-1", "--state-dir", str(self.dir / "state")]
        self._argv += options
        self._env = {**(env or {}), "PYTHONPATH": str(REPO / "src"), VARIABLE: f"@{self.failpoint}"}
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: grpc.Channel | None = None

    def start(self) -> "Driver":
        """Start it and return once it answers."""
        with (self.dir / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._argv, env=clean_env(self._env), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        process = self._process

        def listening() -> bool:
            assert process.poll() is None, self.log()[-3000:]
            return self._socket.exists()

        wait_for(listening, 30, "the driver listens", interval=0.02)
        # A subchannel is shared by channels to the same address, and remembers that connecting failed.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 50)]
        self._channel = grpc.insecure_channel(f"unix:{self._socket}", options=options)
        grpc.channel_ready_future(self._channel).result(timeout=90)
        self.identity = csi_pb2_grpc.IdentityStub(self._channel)
        self.controller = csi_pb2_grpc.ControllerStub(self._channel)
        self.groups = csi_pb2_grpc.GroupControllerStub(self._channel)
        self.node = csi_pb2_grpc.NodeStub(self._channel)
        return self

    def stop(self) -> int:
        """End it in good order and return its exit code."""
        self._close()
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(30)

    def kill(self) -> None:
        """End it as a crash does."""
        self._close()
        assert self._process is not None
        self._process.kill()
        self._process.wait(30)

    def died(self) -> bool:
        """Wait for the end of a driver that kills itself, and tell whether it did."""
        assert self._process is not None
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            return False
        self._close()
        return self._process.returncode == -9

    def wait_ready(self) -> None:
        """Wait until it says that it is ready; it gives the manager three seconds to answer each time it is asked."""
        wait_for(lambda: self.identity.Probe(csi.ProbeRequest()).ready.value, 20, "the driver is ready", ignore=())

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self._socket

    def log(self) -> str:
        """What it logged so far."""
        return (self.dir / "log").read_text(errors="replace")

    def lines(self) -> list[dict[str, Any]]:
        """The lines of its log."""
        return [json.loads(line) for line in self.log().split("\n")[:-1] if line.startswith("{")]

    def _close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None


@contextmanager
def running(cluster: Cluster, *options: str, **more: Any) -> Iterator[Driver]:
    """A driver that runs inside of the block."""
    driver = Driver(cluster, *options, **more).start()
    try:
        yield driver
    finally:
        if driver.running:
            driver.kill()


def refused(call: Any, request: Any, *codes: str, timeout: float = 60) -> str:
    """Make a call that has to fail with one of the codes (names of gRPC status codes); returns its message."""
    with pytest.raises(grpc.RpcError) as raised:
        call(request, timeout=timeout)
    code, details = raised.value.code().name, raised.value.details() or ""
    assert code in codes, f"{code}, not {codes}: {details}"
    assert "Traceback" not in details
    assert "\n" not in details
    return details


def mounting(fs: str = "", mode: int = Mode.SINGLE_NODE_WRITER, flags: tuple[str, ...] = ()) -> csi.VolumeCapability:
    """A capability of access type mount."""
    kind = csi.VolumeCapability.MountVolume(fs_type=fs, mount_flags=flags)
    return csi.VolumeCapability(mount=kind, access_mode=Mode(mode=mode))


def raw(mode: int = Mode.SINGLE_NODE_WRITER) -> csi.VolumeCapability:
    """A capability of access type block."""
    return csi.VolumeCapability(block=csi.VolumeCapability.BlockVolume(), access_mode=Mode(mode=mode))


def create_request(
    pool: str,
    name: str,
    size: int = GIB,
    *,
    limit: int = 0,
    snapshot: str = "",
    volume: str = "",
    capability: csi.VolumeCapability | None = None,
    **parameters: str,
) -> csi.CreateVolumeRequest:
    """A CreateVolume request; ``pool`` is ``pool[/namespace]``."""
    where, _, namespace = pool.partition("/")
    given = {"pool": where, **({"radosNamespace": namespace} if namespace else {}), **parameters}
    request = csi.CreateVolumeRequest(
        name=name, parameters=given, volume_capabilities=[capability if capability is not None else mounting()]
    )
    if size or limit:
        request.capacity_range.required_bytes = size
        request.capacity_range.limit_bytes = limit
    if snapshot:
        request.volume_content_source.snapshot.snapshot_id = snapshot
    if volume:
        request.volume_content_source.volume.volume_id = volume
    return request
