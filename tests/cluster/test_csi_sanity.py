"""What csi-sanity (kubernetes-csi/csi-test, pkg/sanity) asks of a driver, in its order: one process with both parts.

Its ids of things that don't exist are no handles (``fake-vol-id-...``), and its lists may show others' volumes too.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.csi_driver import GIB, MIB, Driver, create_request, mounting, refused, running
from harness.cluster import Cluster
from vdisk_csi.mounters import usable
from vdisk_csi.proto import csi_pb2 as csi

FAKE = "fake-vol-id-8fb1"
SIZE = 64 * MIB
FUSE = {"mounter": "rbd-fuse"}
Plugin, Rpc = csi.PluginCapability, csi.ControllerServiceCapability.RPC


@pytest.fixture(scope="module")
def driver(cluster: Cluster) -> Iterator[Driver]:
    """A driver with both parts, where there can be a node; for all tests here."""
    with running(cluster, node="rbd-fuse" in usable()) as found:
        yield found


def made(driver: Driver, pool: str, name: str, size: int = SIZE, **more: Any) -> csi.Volume:
    """Create a volume as csi-sanity does, with a range of exactly one size."""
    return driver.controller.CreateVolume(create_request(pool, name, size, limit=size, **FUSE, **more)).volume


def test_identity(driver: Driver) -> None:
    found = driver.identity.GetPluginCapabilities(csi.GetPluginCapabilitiesRequest()).capabilities
    services = {Plugin.Service.CONTROLLER_SERVICE, Plugin.Service.GROUP_CONTROLLER_SERVICE}
    for each in found:
        if each.WhichOneof("type") == "service":
            assert each.service.type in services
        else:
            assert each.volume_expansion.type == Plugin.VolumeExpansion.ONLINE
    driver.identity.Probe(csi.ProbeRequest())
    info = driver.identity.GetPluginInfo(csi.GetPluginInfoRequest())
    assert re.fullmatch(r"[a-zA-Z0-9]([a-zA-Z0-9.-]{0,61}[a-zA-Z0-9])?", info.name)
    assert info.vendor_version


def test_controller_refusals(driver: Driver, pool: str) -> None:
    ctl = driver.controller
    volume = made(driver, pool, "source")
    for call, request, code in (
        (ctl.CreateVolume, csi.CreateVolumeRequest(parameters={"pool": pool}), "INVALID_ARGUMENT"),
        (ctl.CreateVolume, csi.CreateVolumeRequest(name="n", parameters={"pool": pool}), "INVALID_ARGUMENT"),
        (ctl.CreateVolume, create_request(pool, "n", SIZE, snapshot="non-existing-snapshot-id"), "NOT_FOUND"),
        (ctl.CreateVolume, create_request(pool, "n", SIZE, volume=FAKE), "NOT_FOUND"),
        (ctl.DeleteVolume, csi.DeleteVolumeRequest(), "INVALID_ARGUMENT"),
        (ctl.ValidateVolumeCapabilities, csi.ValidateVolumeCapabilitiesRequest(), "INVALID_ARGUMENT"),
        (
            ctl.ValidateVolumeCapabilities,
            csi.ValidateVolumeCapabilitiesRequest(volume_id=volume.volume_id),
            "INVALID_ARGUMENT",
        ),
        (
            ctl.ValidateVolumeCapabilities,
            csi.ValidateVolumeCapabilitiesRequest(volume_id=FAKE, volume_capabilities=[mounting()]),
            "NOT_FOUND",
        ),
        (ctl.ListVolumes, csi.ListVolumesRequest(starting_token="invalid-token"), "ABORTED"),
        (ctl.ListSnapshots, csi.ListSnapshotsRequest(starting_token="invalid-token"), "ABORTED"),
        (ctl.DeleteSnapshot, csi.DeleteSnapshotRequest(), "INVALID_ARGUMENT"),
        (ctl.CreateSnapshot, csi.CreateSnapshotRequest(source_volume_id="testId"), "INVALID_ARGUMENT"),
        (ctl.CreateSnapshot, csi.CreateSnapshotRequest(name="name"), "INVALID_ARGUMENT"),
        (
            ctl.ControllerExpandVolume,
            csi.ControllerExpandVolumeRequest(capacity_range=csi.CapacityRange(required_bytes=GIB)),
            "INVALID_ARGUMENT",
        ),
        (ctl.ControllerExpandVolume, csi.ControllerExpandVolumeRequest(), "INVALID_ARGUMENT"),
        (ctl.ControllerGetVolume, csi.ControllerGetVolumeRequest(), "INVALID_ARGUMENT"),
        (ctl.ControllerGetVolume, csi.ControllerGetVolumeRequest(volume_id=FAKE), "NOT_FOUND"),
        (ctl.GetSnapshot, csi.GetSnapshotRequest(), "INVALID_ARGUMENT"),
        (ctl.GetSnapshot, csi.GetSnapshotRequest(snapshot_id="reallyfakesnapshotid"), "NOT_FOUND"),
        (ctl.ControllerModifyVolume, csi.ControllerModifyVolumeRequest(volume_id=volume.volume_id), "UNIMPLEMENTED"),
    ):
        refused(call, request, code)
    ctl.DeleteVolume(csi.DeleteVolumeRequest(volume_id="fake-invalid-vol-id"))
    ctl.DeleteSnapshot(csi.DeleteSnapshotRequest(snapshot_id="reallyfakesnapshotid"))


def test_volumes(driver: Driver, pool: str) -> None:
    ctl = driver.controller
    ctl.GetCapacity(csi.GetCapacityRequest())
    before = len(ctl.ListVolumes(csi.ListVolumesRequest()).entries)
    first = made(driver, pool, "twice")
    assert made(driver, pool, "twice").volume_id == first.volume_id
    assert first.capacity_bytes >= SIZE
    refused(ctl.CreateVolume, create_request(pool, "twice", 2 * SIZE, limit=2 * SIZE), "ALREADY_EXISTS")
    long = made(driver, pool, "sanity-controller-create-maxlen-".ljust(128, "x"))
    assert {entry.volume.volume_id for entry in ctl.ListVolumes(csi.ListVolumesRequest()).entries} >= {
        first.volume_id,
        long.volume_id,
    }
    assert len(ctl.ListVolumes(csi.ListVolumesRequest()).entries) == before + 2
    confirmed = ctl.ValidateVolumeCapabilities(
        csi.ValidateVolumeCapabilitiesRequest(volume_id=first.volume_id, volume_capabilities=[mounting()])
    ).confirmed
    assert confirmed.volume_capabilities
    clone = made(driver, pool, "clone", volume=first.volume_id)
    grown = ctl.ControllerExpandVolume(
        csi.ControllerExpandVolumeRequest(
            volume_id=first.volume_id,
            capacity_range=csi.CapacityRange(required_bytes=SIZE + GIB),
            volume_capability=mounting(),
        )
    )
    assert grown.capacity_bytes == SIZE + GIB
    for volume in (first, long, clone):
        ctl.DeleteVolume(csi.DeleteVolumeRequest(volume_id=volume.volume_id))
    assert len(ctl.ListVolumes(csi.ListVolumesRequest()).entries) == before


def test_snapshots(driver: Driver, pool: str) -> None:
    ctl = driver.controller
    before = len(ctl.ListSnapshots(csi.ListSnapshotsRequest()).entries)
    volumes = [made(driver, pool, f"v{number}") for number in range(2)]

    def shoot(name: str, volume: csi.Volume) -> csi.Snapshot:
        return ctl.CreateSnapshot(csi.CreateSnapshotRequest(name=name, source_volume_id=volume.volume_id)).snapshot

    names = ["target", "b", "c", "d", "sanity-maxlen-".ljust(128, "x")]
    snaps = [shoot(name, volumes[number > 0]) for number, name in enumerate(names)]
    for snap in snaps:
        assert snap.snapshot_id
        assert snap.source_volume_id
        assert snap.creation_time.seconds
    assert shoot("target", volumes[0]) == snaps[0]
    other = csi.CreateSnapshotRequest(name="target", source_volume_id=volumes[1].volume_id)
    refused(ctl.CreateSnapshot, other, "ALREADY_EXISTS")
    made(driver, pool, "restored", snapshot=snaps[0].snapshot_id)

    def listed(**asked: Any) -> list[str]:
        return [entry.snapshot.snapshot_id for entry in ctl.ListSnapshots(csi.ListSnapshotsRequest(**asked)).entries]

    assert listed(snapshot_id=snaps[0].snapshot_id) == [snaps[0].snapshot_id]
    assert listed(source_volume_id=volumes[0].volume_id) == [snaps[0].snapshot_id]
    assert listed(snapshot_id="none-exist-id") == listed(source_volume_id=FAKE) == []
    assert len(listed()) == before + len(snaps)
    page = ctl.ListSnapshots(csi.ListSnapshotsRequest(max_entries=2))
    assert len(page.entries) == 2
    assert len(listed(starting_token=page.next_token)) == before + len(snaps) - 2
    for snap in snaps:
        ctl.DeleteSnapshot(csi.DeleteSnapshotRequest(snapshot_id=snap.snapshot_id))
    assert len(listed()) == before


@pytest.mark.skipif("rbd-fuse" not in usable(), reason="needs root, rbd-fuse, FUSE and loop devices")
def test_node(driver: Driver, pool: str, tmp_path: Path) -> None:
    node = driver.node
    staging, target = str(tmp_path / "staging"), str(tmp_path / "mount" / "target")
    Path(staging).mkdir()
    Path(target).parent.mkdir()
    info = node.NodeGetInfo(csi.NodeGetInfoRequest())
    assert info.node_id
    assert info.max_volumes_per_node >= 0
    volume = made(driver, pool, "sanity-node")
    ident, context, capability = volume.volume_id, dict(volume.volume_context), mounting()
    for call, request, code in (
        (node.NodePublishVolume, csi.NodePublishVolumeRequest(), "INVALID_ARGUMENT"),
        (node.NodePublishVolume, csi.NodePublishVolumeRequest(volume_id=FAKE), "INVALID_ARGUMENT"),
        (node.NodePublishVolume, csi.NodePublishVolumeRequest(volume_id=FAKE, target_path=target), "INVALID_ARGUMENT"),
        (node.NodeUnpublishVolume, csi.NodeUnpublishVolumeRequest(), "INVALID_ARGUMENT"),
        (node.NodeUnpublishVolume, csi.NodeUnpublishVolumeRequest(volume_id=FAKE), "INVALID_ARGUMENT"),
        (
            node.NodeStageVolume,
            csi.NodeStageVolumeRequest(staging_target_path=staging, volume_capability=capability),
            "INVALID_ARGUMENT",
        ),
        (
            node.NodeStageVolume,
            csi.NodeStageVolumeRequest(volume_id=FAKE, volume_capability=capability),
            "INVALID_ARGUMENT",
        ),
        (
            node.NodeStageVolume,
            csi.NodeStageVolumeRequest(volume_id=ident, staging_target_path=staging),
            "INVALID_ARGUMENT",
        ),
        (node.NodeUnstageVolume, csi.NodeUnstageVolumeRequest(staging_target_path=staging), "INVALID_ARGUMENT"),
        (node.NodeUnstageVolume, csi.NodeUnstageVolumeRequest(volume_id=FAKE), "INVALID_ARGUMENT"),
        (node.NodeGetVolumeStats, csi.NodeGetVolumeStatsRequest(volume_path="some/path"), "INVALID_ARGUMENT"),
        (node.NodeGetVolumeStats, csi.NodeGetVolumeStatsRequest(volume_id=FAKE), "INVALID_ARGUMENT"),
        (
            node.NodeGetVolumeStats,
            csi.NodeGetVolumeStatsRequest(volume_id=FAKE, volume_path="some/path"),
            "NOT_FOUND",
        ),
        (node.NodeExpandVolume, csi.NodeExpandVolumeRequest(volume_path=target), "INVALID_ARGUMENT"),
        (node.NodeExpandVolume, csi.NodeExpandVolumeRequest(volume_id=ident), "INVALID_ARGUMENT"),
        (node.NodeExpandVolume, csi.NodeExpandVolumeRequest(volume_id=FAKE, volume_path="some/path"), "NOT_FOUND"),
    ):
        refused(call, request, code)
    larger = csi.CapacityRange(required_bytes=2 * SIZE)
    driver.controller.ControllerExpandVolume(csi.ControllerExpandVolumeRequest(volume_id=ident, capacity_range=larger))
    stage = csi.NodeStageVolumeRequest(
        volume_id=ident, volume_capability=capability, staging_target_path=staging, volume_context=context
    )
    publish = csi.NodePublishVolumeRequest(
        volume_id=ident, volume_capability=capability, staging_target_path=staging, volume_context=context,
        target_path=target,
    )  # fmt: skip
    for _ in range(2):
        node.NodeStageVolume(stage, timeout=60)
    for _ in range(2):
        node.NodePublishVolume(publish, timeout=60)
    assert node.NodeGetVolumeStats(csi.NodeGetVolumeStatsRequest(volume_id=ident, volume_path=target)).usage
    refused(
        node.NodeGetVolumeStats, csi.NodeGetVolumeStatsRequest(volume_id=ident, volume_path="some/path"), "NOT_FOUND"
    )
    node.NodeExpandVolume(
        csi.NodeExpandVolumeRequest(volume_id=ident, volume_path=target, capacity_range=larger), timeout=60
    )
    assert Path(target).is_dir()
    for _ in range(2):
        node.NodeUnpublishVolume(csi.NodeUnpublishVolumeRequest(volume_id=ident, target_path=target), timeout=60)
    assert not Path(target).exists()
    for _ in range(2):
        node.NodeUnstageVolume(csi.NodeUnstageVolumeRequest(volume_id=ident, staging_target_path=staging), timeout=60)
    driver.controller.DeleteVolume(csi.DeleteVolumeRequest(volume_id=ident))
