"""The CSI GroupController on real clusters: every code where the release can do it, and nothing where it can not."""

from collections.abc import Iterator

import pytest

from cluster.csi_driver import MIB, Driver, create_request, refused, running
from cluster.support import Vdisk, image_names, read_image, write_image
from harness.cluster import Cluster
from vdisk_csi.proto import csi_pb2 as csi

Service = csi.PluginCapability.Service
UUID = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def driver(cluster: Cluster) -> Iterator[Driver]:
    """A controller for all tests here."""
    with running(cluster) as found:
        yield found


def test_it_is_advertised_only_where_it_works(cluster: Cluster, driver: Driver) -> None:
    able = Vdisk(cluster)("status")["group_snapshots"]
    assert able is (cluster.release.name == "tentacle")
    plugin = driver.identity.GetPluginCapabilities(csi.GetPluginCapabilitiesRequest()).capabilities
    services = [each.service.type for each in plugin if each.WhichOneof("type") == "service"]
    assert services == [Service.CONTROLLER_SERVICE, *([Service.GROUP_CONTROLLER_SERVICE] if able else [])]
    found = driver.groups.GroupControllerGetCapabilities(csi.GroupControllerGetCapabilitiesRequest()).capabilities
    assert [each.rpc.type for each in found] == ([1] if able else [])
    if not able:
        refused(driver.groups.CreateVolumeGroupSnapshot, csi.CreateVolumeGroupSnapshotRequest(), "UNIMPLEMENTED")
        refused(driver.groups.DeleteVolumeGroupSnapshot, csi.DeleteVolumeGroupSnapshotRequest(), "UNIMPLEMENTED")
        refused(driver.groups.GetVolumeGroupSnapshot, csi.GetVolumeGroupSnapshotRequest(), "UNIMPLEMENTED")


def test_group_snapshots_call_by_call(cluster: Cluster, driver: Driver, pool: str, pool_ns: str) -> None:
    if not Vdisk(cluster)("status")["group_snapshots"]:
        pytest.skip("this release's librbd clones no group snapshots")
    groups, controller = driver.groups, driver.controller
    create, get, delete = (
        groups.CreateVolumeGroupSnapshot,
        groups.GetVolumeGroupSnapshot,
        groups.DeleteVolumeGroupSnapshot,
    )
    volumes = [controller.CreateVolume(create_request(pool, name, 8 * MIB)).volume for name in ("a", "b")]
    away = controller.CreateVolume(create_request(pool_ns, "away", 8 * MIB)).volume
    plain = controller.CreateVolume(create_request(pool, "plain", 8 * MIB, imageFeatures="layering")).volume
    for volume in volumes:
        write_image(cluster, pool, volume.volume_context["imageName"], volume.volume_id.encode())
    ids = [volume.volume_id for volume in volumes]
    nothing = ids[0][:-36] + UUID

    def asked(name: str, *sources: str, **more: dict[str, str]) -> csi.CreateVolumeGroupSnapshotRequest:
        return csi.CreateVolumeGroupSnapshotRequest(name=name, source_volume_ids=sources, **more)

    for request, code in (
        (asked("", *ids), "INVALID_ARGUMENT"),
        (asked("g"), "INVALID_ARGUMENT"),
        (asked("g", ids[0], ""), "INVALID_ARGUMENT"),
        (asked("x" * 129, *ids), "INVALID_ARGUMENT"),
        (asked("g", *ids, parameters={"unknown": "x"}), "INVALID_ARGUMENT"),
        (asked("g", ids[0], ids[0]), "INVALID_ARGUMENT"),
        (asked("g", ids[0], "no id"), "NOT_FOUND"),
        (asked("g", ids[0], nothing), "NOT_FOUND"),
        (asked("g", ids[0], away.volume_id), "FAILED_PRECONDITION"),
        (asked("g", ids[0], plain.volume_id), "FAILED_PRECONDITION"),
    ):
        refused(create, request, code)

    group = create(asked("g/1", *ids)).group_snapshot
    assert group.ready_to_use
    assert group.creation_time.seconds > 0
    assert sorted(snap.source_volume_id for snap in group.snapshots) == sorted(ids)
    for snap in group.snapshots:
        assert (snap.group_snapshot_id, snap.ready_to_use, snap.size_bytes) == (group.group_snapshot_id, True, 8 * MIB)
        assert controller.GetSnapshot(csi.GetSnapshotRequest(snapshot_id=snap.snapshot_id)).snapshot == snap
        request = csi.DeleteSnapshotRequest(snapshot_id=snap.snapshot_id)
        assert "group" in refused(controller.DeleteSnapshot, request, "FAILED_PRECONDITION")
    assert create(asked("g/1", *reversed(ids))).group_snapshot == group
    refused(create, asked("g/1", ids[0]), "ALREADY_EXISTS")
    refused(create, asked("g/1", *ids, plain.volume_id), "ALREADY_EXISTS", "FAILED_PRECONDITION")
    listed = controller.ListSnapshots(csi.ListSnapshotsRequest(source_volume_id=ids[0])).entries
    assert [entry.snapshot.group_snapshot_id for entry in listed] == [group.group_snapshot_id]

    members = [snap.snapshot_id for snap in group.snapshots]
    found = get(csi.GetVolumeGroupSnapshotRequest(group_snapshot_id=group.group_snapshot_id, snapshot_ids=members))
    assert found.group_snapshot == group
    wrong = [members[0], ids[0]]
    refused(
        get,
        csi.GetVolumeGroupSnapshotRequest(group_snapshot_id=group.group_snapshot_id, snapshot_ids=wrong),
        "INVALID_ARGUMENT",
    )
    refused(get, csi.GetVolumeGroupSnapshotRequest(), "INVALID_ARGUMENT")
    for ident in ("no id", nothing, ids[0], members[0]):
        refused(get, csi.GetVolumeGroupSnapshotRequest(group_snapshot_id=ident), "NOT_FOUND")
        delete(csi.DeleteVolumeGroupSnapshotRequest(group_snapshot_id=ident))

    for number, snap in enumerate(group.snapshots):
        restored = controller.CreateVolume(create_request(pool, f"r{number}", 0, snapshot=snap.snapshot_id)).volume
        held = read_image(cluster, pool, restored.volume_context["imageName"], len(ids[0]))
        assert held.decode() == snap.source_volume_id
    refused(delete, csi.DeleteVolumeGroupSnapshotRequest(), "INVALID_ARGUMENT")
    mismatch = csi.DeleteVolumeGroupSnapshotRequest(group_snapshot_id=group.group_snapshot_id, snapshot_ids=wrong)
    refused(delete, mismatch, "INVALID_ARGUMENT")
    gone = csi.DeleteVolumeGroupSnapshotRequest(group_snapshot_id=group.group_snapshot_id, snapshot_ids=members)
    for _ in range(2):
        delete(gone)
    refused(get, csi.GetVolumeGroupSnapshotRequest(group_snapshot_id=group.group_snapshot_id), "NOT_FOUND")
    assert not [name for name in image_names(cluster, pool) if name.startswith("csi-snap-")]
