"""The CSI controller on real clusters, call by call as the specification has it."""

import concurrent.futures
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from cluster.csi_driver import GIB, MIB, Driver, Mode, create_request, mounting, raw, refused, running
from cluster.support import Vdisk, image_names, opened
from harness.cluster import Cluster
from harness.genesis import free_ports
from harness.wait import wait_for
from vdisk_csi.proto import csi_pb2 as csi

UUID = "00000000-0000-4000-8000-000000000000"
#: Made of everything but what the specification bans: 128 bytes with characters of one to four bytes.
LONG_NAME = "pvc-" + "ä€🎈" * 13 + "x" * 7
NAMES = ["pvc-1", "a/b@c%d", "%2F", "x" * 128, "/" * 128, LONG_NAME, " lead", "tab\tinside\nline", "快照", "🎈"]

CAPABILITIES = [
    "CREATE_DELETE_VOLUME", "LIST_VOLUMES", "GET_CAPACITY", "CREATE_DELETE_SNAPSHOT", "LIST_SNAPSHOTS", "CLONE_VOLUME",
    "EXPAND_VOLUME", "VOLUME_CONDITION", "GET_VOLUME", "SINGLE_NODE_MULTI_WRITER", "GET_SNAPSHOT",
]  # fmt: skip


@pytest.fixture(scope="module")
def driver(cluster: Cluster) -> Iterator[Driver]:
    """A controller for all tests here."""
    with running(cluster) as found:
        yield found


@pytest.fixture
def make(driver: Driver, pool: str) -> Callable[..., csi.Volume]:
    """Create a volume in a fresh pool."""
    return lambda name="pvc-1", size=64 * MIB, **more: (
        driver.controller.CreateVolume(create_request(pool, name, size, **more)).volume
    )


@pytest.fixture
def shoot(driver: Driver) -> Callable[..., csi.Snapshot]:
    """Create a snapshot."""

    def shoot(volume: csi.Volume, name: str = "snapshot-1") -> csi.Snapshot:
        return driver.controller.CreateSnapshot(
            csi.CreateSnapshotRequest(source_volume_id=volume.volume_id, name=name)
        ).snapshot

    return shoot


def bad_ids(cluster: Cluster, pool_id: int) -> list[str]:
    """Return 50 ids that lead to nothing: malformed, of other clusters, of other pools, of nothing at all."""
    fsid = cluster.fsid
    good = f"0101-24-{fsid}-{pool_id:08x}-{UUID}"
    made = [
        good, f"0001-0024-{fsid}-{pool_id:016x}-{UUID}", good.replace(fsid, UUID), good.upper(), good + " ", " " + good,
        good[:-1], good + "0", good.replace("-24-", "-23-"), good.replace("-24-", "-ff-"), good.replace("-24-", "-00-"),
        good.replace("0101", "0102"), good.replace(f"{pool_id:08x}", "ffffffff"), good.replace(f"{pool_id:08x}", "0"),
        good.replace("0000-4000", "0000/4000"), f"0101-24-{fsid}", f"0101-24-{fsid}-", f"{good}-{UUID}",
        f"pool/csi-vol-{UUID}", f"csi-vol-{UUID}", f"csi-snap-{UUID}", UUID,
    ]  # fmt: skip
    text = "0101 0101- 0001-0024- x - --help ../../etc/passwd / // @ a@b rbd/x rbd/ns/x rbd/x@y None null 0 -1 {} %s%n"
    other = ['{"a": 1}', "\t", "x" * 128, "x" * 129, "x" * 4096, "äöü", "🎈" * 32, "' OR 1=1 --", "$(reboot)", " "]
    found = [*made, *text.split(" "), *other]
    assert len(set(found)) >= 50
    return found


# -- what it is -------------------------------------------------------------------------------------------------------


def test_it_says_what_it_is_and_can_do(driver: Driver) -> None:
    info = driver.identity.GetPluginInfo(csi.GetPluginInfoRequest())
    assert (info.name, bool(info.vendor_version)) == ("vdisk.csi.cstor.com", True)
    driver.wait_ready()
    plugin = driver.identity.GetPluginCapabilities(csi.GetPluginCapabilitiesRequest()).capabilities
    services = [each.service.type for each in plugin if each.WhichOneof("type") == "service"]
    assert services in ([1], [1, 3])  # which of them: test_csi_groups
    rpc = csi.ControllerServiceCapability.RPC
    kinds = driver.controller.ControllerGetCapabilities(csi.ControllerGetCapabilitiesRequest()).capabilities
    assert {rpc.Type.Name(each.rpc.type) for each in kinds} == set(CAPABILITIES)


def test_what_is_not_advertised_is_not_implemented(driver: Driver) -> None:
    controller = driver.controller
    refused(controller.ControllerPublishVolume, csi.ControllerPublishVolumeRequest(volume_id="x"), "UNIMPLEMENTED")
    refused(controller.ControllerUnpublishVolume, csi.ControllerUnpublishVolumeRequest(volume_id="x"), "UNIMPLEMENTED")
    refused(controller.ControllerModifyVolume, csi.ControllerModifyVolumeRequest(volume_id="x"), "UNIMPLEMENTED")
    refused(driver.node.NodeGetInfo, csi.NodeGetInfoRequest(), "UNIMPLEMENTED")


def no_mode() -> csi.VolumeCapability:
    """A capability without access mode."""
    return csi.VolumeCapability(mount=csi.VolumeCapability.MountVolume())


def no_type() -> csi.VolumeCapability:
    """A capability without access type."""
    return csi.VolumeCapability(access_mode=Mode(mode=Mode.SINGLE_NODE_WRITER))


def changed(request: Any, **fields: Any) -> Any:
    """Return a copy of a request with other fields."""
    copy = type(request)()
    copy.CopyFrom(request)
    for field, value in fields.items():
        copy.ClearField(field)
        if isinstance(value, list):
            getattr(copy, field).extend(value)
        elif isinstance(value, dict):
            getattr(copy, field).update(value)
        elif hasattr(value, "DESCRIPTOR"):
            getattr(copy, field).CopyFrom(value)
        else:
            setattr(copy, field, value)
    return copy


def test_missing_and_malformed_fields_are_invalid(driver: Driver, pool: str) -> None:
    good = create_request(pool, "pvc", 64 * MIB)
    capacity = csi.CapacityRange(required_bytes=MIB)
    volume = "volume_id"
    cases: dict[str, list[Any]] = {
        "CreateVolume": [
            changed(good, name=""),
            changed(good, name="x" * 129),
            changed(good, name="bell\x07"),
            changed(good, name="del\x7f"),
            changed(good, name="c1\x85"),
            changed(good, volume_capabilities=[]),
            changed(good, volume_capabilities=[no_mode()]),
            changed(good, volume_capabilities=[no_type()]),
            changed(good, volume_capabilities=[mounting(), no_type()]),
            changed(good, volume_capabilities=[mounting("ntfs")]),
            changed(good, volume_capabilities=[mounting(mode=Mode.MULTI_NODE_MULTI_WRITER)]),
            changed(good, parameters={}),
            changed(good, parameters={"pool": pool, "poool": "x"}),
            changed(good, parameters={"pool": pool, "clusterID": UUID}),
            changed(good, parameters={"pool": pool, "imageFeatures": "telepathy"}),
            changed(good, parameters={"pool": pool, "objectSize": "5000"}),
            changed(good, parameters={"pool": pool, "stripeUnit": "64K"}),
            changed(good, parameters={"pool": pool, "mounter": "tape"}),
            changed(good, parameters={"pool": pool, "csi.storage.k8s.io/fstype": "ntfs"}),
            changed(good, parameters={"pool": "a/b@c"}),
            changed(good, mutable_parameters={"iops": "1"}),
            changed(good, volume_content_source=csi.VolumeContentSource()),
            changed(
                good,
                volume_content_source=csi.VolumeContentSource(snapshot=csi.VolumeContentSource.SnapshotSource()),
            ),
            changed(good, volume_content_source=csi.VolumeContentSource(volume=csi.VolumeContentSource.VolumeSource())),
            changed(good, secrets={"userID": "admin"}),
        ],
        "DeleteVolume": [csi.DeleteVolumeRequest()],
        "ControllerExpandVolume": [
            csi.ControllerExpandVolumeRequest(capacity_range=capacity),
            csi.ControllerExpandVolumeRequest(volume_id=volume),
            csi.ControllerExpandVolumeRequest(volume_id=volume, capacity_range=capacity, volume_capability=no_mode()),
        ],
        "ControllerGetVolume": [csi.ControllerGetVolumeRequest()],
        "ValidateVolumeCapabilities": [
            csi.ValidateVolumeCapabilitiesRequest(volume_capabilities=[mounting()]),
            csi.ValidateVolumeCapabilitiesRequest(volume_id=volume),
        ],
        "ListVolumes": [csi.ListVolumesRequest(max_entries=-1)],
        "GetCapacity": [
            csi.GetCapacityRequest(parameters={"nonsense": "x"}),
            csi.GetCapacityRequest(parameters={"pool": "no-such-pool"}),
        ],
        "CreateSnapshot": [
            csi.CreateSnapshotRequest(name="s"),
            csi.CreateSnapshotRequest(source_volume_id=volume),
            csi.CreateSnapshotRequest(source_volume_id=volume, name="x" * 129),
            csi.CreateSnapshotRequest(source_volume_id=volume, name="s", parameters={"pool": "x"}),
        ],
        "DeleteSnapshot": [csi.DeleteSnapshotRequest()],
        "GetSnapshot": [csi.GetSnapshotRequest()],
        "ListSnapshots": [
            csi.ListSnapshotsRequest(max_entries=-1),
            csi.ListSnapshotsRequest(max_entries=-1, snapshot_id="x"),
        ],
    }
    for method, requests in cases.items():
        for request in requests:
            refused(getattr(driver.controller, method), request, "INVALID_ARGUMENT")
    assert image_names(driver.cluster, pool) == []


# -- ids and names ----------------------------------------------------------------------------------------------------


def test_bad_ids_are_not_found_in_lookups_and_gone_in_deletes(driver: Driver, pool: str) -> None:
    with opened(driver.cluster, pool) as ioctx:
        ids = bad_ids(driver.cluster, ioctx.get_pool_id())
    controller = driver.controller
    capacity = csi.CapacityRange(required_bytes=GIB)
    for bad in ids:
        refused(controller.ControllerGetVolume, csi.ControllerGetVolumeRequest(volume_id=bad), "NOT_FOUND")
        refused(controller.GetSnapshot, csi.GetSnapshotRequest(snapshot_id=bad), "NOT_FOUND")
        refused(
            controller.ControllerExpandVolume,
            csi.ControllerExpandVolumeRequest(volume_id=bad, capacity_range=capacity),
            "NOT_FOUND",
        )
        refused(
            controller.ValidateVolumeCapabilities,
            csi.ValidateVolumeCapabilitiesRequest(volume_id=bad, volume_capabilities=[mounting()]),
            "NOT_FOUND",
        )
        refused(controller.CreateSnapshot, csi.CreateSnapshotRequest(source_volume_id=bad, name="s-1"), "NOT_FOUND")
        for kind in ({"snapshot": bad}, {"volume": bad}):
            refused(controller.CreateVolume, create_request(pool, "pvc-1", **kind), "NOT_FOUND")
        controller.DeleteVolume(csi.DeleteVolumeRequest(volume_id=bad))
        controller.DeleteSnapshot(csi.DeleteSnapshotRequest(snapshot_id=bad))
        assert not controller.ListSnapshots(csi.ListSnapshotsRequest(snapshot_id=bad)).entries
        assert not controller.ListSnapshots(csi.ListSnapshotsRequest(source_volume_id=bad)).entries
    assert image_names(driver.cluster, pool) == []


def test_any_name_that_csi_allows_is_one_volume_of_its_own(driver: Driver, pool: str) -> None:
    made = {}
    for name in NAMES:
        first = driver.controller.CreateVolume(create_request(pool, name, 64 * MIB)).volume
        again = driver.controller.CreateVolume(create_request(pool, name, 64 * MIB)).volume
        assert again == first
        made[name] = first.volume_id
        shot = csi.CreateSnapshotRequest(source_volume_id=first.volume_id, name=name)
        taken = driver.controller.CreateSnapshot(shot).snapshot
        assert driver.controller.CreateSnapshot(shot).snapshot == taken
    assert len(set(made.values())) == len(NAMES)
    listed = driver.controller.ListVolumes(csi.ListVolumesRequest()).entries
    assert set(made.values()) <= {entry.volume.volume_id for entry in listed}


def test_ids_of_both_families_are_understood(
    driver: Driver, pool: str, make: Callable[..., csi.Volume], shoot: Callable[..., csi.Snapshot]
) -> None:
    volume = make()
    found = re.fullmatch(r"0101-24-(.{36})-(.{8})-(.{36})", volume.volume_id)
    assert found is not None
    other = f"0001-0024-{found[1]}-{int(found[2], 16):016x}-{found[3]}"
    got = driver.controller.ControllerGetVolume(csi.ControllerGetVolumeRequest(volume_id=other)).volume
    assert got.volume_id == other
    assert dict(got.volume_context) == dict(volume.volume_context)
    taken = driver.controller.CreateSnapshot(csi.CreateSnapshotRequest(source_volume_id=other, name="s-1")).snapshot
    assert taken.source_volume_id == other
    assert shoot(volume, "s-1").snapshot_id == taken.snapshot_id
    clone = make("pvc-2", volume=other)
    assert make("pvc-2", volume=volume.volume_id).volume_id == clone.volume_id
    assert driver.controller.CreateVolume(create_request(pool, "pvc-2", 0, limit=GIB, volume=other)).volume


# -- volumes ----------------------------------------------------------------------------------------------------------


def test_a_volume_has_the_context_that_the_source_note_shows(driver: Driver, pool_spec: str, cluster: Cluster) -> None:
    volume = driver.controller.CreateVolume(
        create_request(
            pool_spec, "pvc-1", 64 * MIB, clusterID=cluster.fsid, mounter="rbd-fuse", mkfsOptions="-b 4096",
            imageFeatures="layering,exclusive-lock", objectSize="8M",
            **{"csi.storage.k8s.io/fstype": "ext4", "csi.storage.k8s.io/pvc/name": "claim"},
        )
    ).volume  # fmt: skip
    pool, _, namespace = pool_spec.partition("/")
    (image,) = image_names(cluster, pool_spec)
    assert dict(volume.volume_context) == {
        "clusterID": cluster.fsid,
        "driverType": "vdisk.csi.cstor.com",
        "imageName": image,
        "journalPool": pool,
        "pool": pool,
        "radosNamespace": namespace,
        "mounter": "rbd-fuse",
        "mkfsOptions": "-b 4096",
        "csi.storage.k8s.io/fstype": "ext4",
    }
    info = cluster.rbd_json("info", f"{pool_spec}/{image}")
    assert (info["size"], info["object_size"], info["features"]) == (64 * MIB, 8 * MIB, ["layering", "exclusive-lock"])


@pytest.mark.parametrize(
    ("required", "limit", "size"),
    [
        (0, 0, GIB),
        (1, 0, MIB),
        (64 * MIB + 1, 0, 65 * MIB),
        (64 * MIB, 64 * MIB, 64 * MIB),
        (0, 64 * MIB + 5, 64 * MIB),
        (0, 2 * GIB, GIB),
        (64 * MIB - 5, 64 * MIB, 64 * MIB),
        (2, 1, None),
        (-1, 0, None),
        (0, -1, None),
        (0, 5, None),
        (64 * MIB + 1, 64 * MIB + 2, None),
        (2**63 - 1, 0, None),
    ],
)
def test_capacity_ranges(driver: Driver, pool: str, required: int, limit: int, size: int | None) -> None:
    request = create_request(pool, "pvc-1", required, limit=limit)
    if size is None:
        refused(driver.controller.CreateVolume, request, "OUT_OF_RANGE")
        assert image_names(driver.cluster, pool) == []
        return
    assert driver.controller.CreateVolume(request).volume.capacity_bytes == size
    (image,) = image_names(driver.cluster, pool)
    assert driver.cluster.rbd_json("info", f"{pool}/{image}")["size"] == size


def test_no_capacity_range_at_all_is_a_default_size(driver: Driver, pool: str) -> None:
    request = create_request(pool, "pvc-1")
    request.ClearField("capacity_range")
    assert driver.controller.CreateVolume(request).volume.capacity_bytes == GIB


def test_a_name_that_is_taken_answers_with_what_fits_and_refuses_what_does_not(
    driver: Driver, pool: str, make: Callable[..., csi.Volume], shoot: Callable[..., csi.Snapshot]
) -> None:
    volume = make()
    driver.controller.ControllerExpandVolume(
        csi.ControllerExpandVolumeRequest(
            volume_id=volume.volume_id, capacity_range=csi.CapacityRange(required_bytes=128 * MIB)
        )
    )
    grown = make()  # as after an expansion that came before the repeat of the creation
    assert (grown.volume_id, grown.capacity_bytes) == (volume.volume_id, 128 * MIB)
    assert make(size=100 * MIB).capacity_bytes == 128 * MIB
    create = driver.controller.CreateVolume
    refused(create, create_request(pool, "pvc-1", 256 * MIB), "ALREADY_EXISTS")
    refused(create, create_request(pool, "pvc-1", MIB, limit=64 * MIB), "ALREADY_EXISTS")
    refused(create, create_request(pool, "pvc-1", 128 * MIB, objectSize="1M"), "ALREADY_EXISTS")
    other = make("pvc-2")
    one, two = shoot(volume, "s-1"), shoot(other, "s-2")
    refused(create, create_request(pool, "pvc-1", 128 * MIB, snapshot=one.snapshot_id), "ALREADY_EXISTS")
    refused(create, create_request(pool, "pvc-1", 128 * MIB, volume=other.volume_id), "ALREADY_EXISTS")
    make("restored", 128 * MIB, snapshot=one.snapshot_id)
    assert make("restored", 0, snapshot=one.snapshot_id).capacity_bytes == 128 * MIB
    refused(create, create_request(pool, "restored", 128 * MIB, snapshot=two.snapshot_id), "ALREADY_EXISTS")
    refused(create, create_request(pool, "restored", 128 * MIB), "ALREADY_EXISTS")
    shot = csi.CreateSnapshotRequest(name="s-1", source_volume_id=other.volume_id)
    refused(driver.controller.CreateSnapshot, shot, "ALREADY_EXISTS")


def test_sizes_of_clones_and_restores(
    driver: Driver, pool: str, make: Callable[..., csi.Volume], shoot: Callable[..., csi.Snapshot]
) -> None:
    volume = make()
    snap = shoot(volume)
    for kind in ({"snapshot": snap.snapshot_id}, {"volume": volume.volume_id}):
        name = next(iter(kind))
        create = driver.controller.CreateVolume
        refused(create, create_request(pool, name, 32 * MIB, **kind), "OUT_OF_RANGE")
        refused(create, create_request(pool, name, 0, limit=32 * MIB, **kind), "OUT_OF_RANGE")
        assert make(name + "-same", 0, **kind).capacity_bytes == 64 * MIB
        assert make(name + "-limited", 0, limit=GIB, **kind).capacity_bytes == 64 * MIB
        larger = make(name + "-larger", 96 * MIB, **kind)
        assert larger.capacity_bytes == 96 * MIB
        assert larger.content_source == create_request(pool, name, **kind).volume_content_source
        without_pool = create_request(pool, name + "-here", 0, **kind)
        without_pool.ClearField("parameters")
        assert create(without_pool).volume.volume_context["pool"] == pool


def test_expanding(driver: Driver, make: Callable[..., csi.Volume]) -> None:
    volume = make()

    def request(required: int, limit: int = 0) -> csi.ControllerExpandVolumeRequest:
        capacity = csi.CapacityRange(required_bytes=required, limit_bytes=limit)
        return csi.ControllerExpandVolumeRequest(volume_id=volume.volume_id, capacity_range=capacity)

    expand = driver.controller.ControllerExpandVolume
    for _ in range(2):
        answer = expand(request(128 * MIB))
        assert (answer.capacity_bytes, answer.node_expansion_required) == (128 * MIB, True)
    assert expand(request(MIB)).capacity_bytes == 128 * MIB
    refused(expand, request(MIB, 64 * MIB), "OUT_OF_RANGE")
    refused(expand, request(2, 1), "OUT_OF_RANGE")
    refused(expand, request(-1), "OUT_OF_RANGE")
    got = driver.controller.ControllerGetVolume(csi.ControllerGetVolumeRequest(volume_id=volume.volume_id))
    assert got.volume.capacity_bytes == 128 * MIB
    assert not got.status.volume_condition.abnormal
    assert got.status.volume_condition.message


def test_deleting(
    driver: Driver, pool: str, make: Callable[..., csi.Volume], shoot: Callable[..., csi.Snapshot]
) -> None:
    volume = make()
    snap = shoot(volume)
    restored = make("pvc-2", snapshot=snap.snapshot_id)
    request = csi.DeleteVolumeRequest(volume_id=volume.volume_id)
    with opened(driver.cluster, pool) as ioctx:
        import rbd

        with rbd.Image(ioctx, volume.volume_context["imageName"]) as image:
            image.write(b"x", 0)
            message = refused(driver.controller.DeleteVolume, request, "FAILED_PRECONDITION")
            assert "in use" in message
    for _ in range(3):
        driver.controller.DeleteVolume(request)
    refused(
        driver.controller.ControllerGetVolume,
        csi.ControllerGetVolumeRequest(volume_id=volume.volume_id),
        "NOT_FOUND",
    )
    got = driver.controller.GetSnapshot(csi.GetSnapshotRequest(snapshot_id=snap.snapshot_id)).snapshot
    assert got == snap
    of_volume = csi.ListSnapshotsRequest(source_volume_id=volume.volume_id)
    assert [entry.snapshot for entry in driver.controller.ListSnapshots(of_volume).entries] == [snap]
    for _ in range(3):
        driver.controller.DeleteSnapshot(csi.DeleteSnapshotRequest(snapshot_id=snap.snapshot_id))
    refused(driver.controller.GetSnapshot, csi.GetSnapshotRequest(snapshot_id=snap.snapshot_id), "NOT_FOUND")
    again = make()
    assert again.volume_id != volume.volume_id
    assert driver.controller.ControllerGetVolume(
        csi.ControllerGetVolumeRequest(volume_id=restored.volume_id)
    ).volume.capacity_bytes == 64 * MIB  # fmt: skip


def test_what_capabilities_are_confirmed(driver: Driver, pool: str, make: Callable[..., csi.Volume]) -> None:
    volume = make()

    def confirmed(**fields: Any) -> bool:
        request = csi.ValidateVolumeCapabilitiesRequest(volume_id=volume.volume_id, **fields)
        answer = driver.controller.ValidateVolumeCapabilities(request)
        if answer.HasField("confirmed"):
            assert list(answer.confirmed.volume_capabilities) == list(request.volume_capabilities)
            assert dict(answer.confirmed.volume_context) == dict(request.volume_context)
            assert dict(answer.confirmed.parameters) == dict(request.parameters)
        else:
            assert answer.message
        return bool(answer.HasField("confirmed"))

    context = dict(volume.volume_context)
    for mode in (1, 2, 3, 6, 7):
        assert confirmed(volume_capabilities=[mounting("ext4", mode), raw(mode)], volume_context=context)
    for mode in (4, 5):
        assert confirmed(volume_capabilities=[raw(mode)], parameters={"pool": pool})
        assert not confirmed(volume_capabilities=[mounting(mode=mode)])
    assert not confirmed(volume_capabilities=[mounting("ntfs")])
    assert not confirmed(volume_capabilities=[mounting()], parameters={"nonsense": "1"})
    assert not confirmed(volume_capabilities=[mounting()], volume_context={**context, "imageName": "other"})


def test_capacity(driver: Driver, pool: str) -> None:
    def free(**fields: Any) -> int:
        return int(driver.controller.GetCapacity(csi.GetCapacityRequest(**fields)).available_capacity)

    assert free(parameters={"pool": pool}) > GIB
    # What is reclaimed between the two is free in the second only.
    wait_for(lambda: free() >= free(parameters={"pool": pool}), 20, "there is no less in all than in one")
    assert free(parameters={"pool": pool}, volume_capabilities=[mounting()]) > GIB
    assert free(volume_capabilities=[mounting(mode=Mode.MULTI_NODE_MULTI_WRITER)]) == 0


# -- lists ------------------------------------------------------------------------------------------------------------


def pages(call: Callable[[Any], Any], request: Any) -> list[list[Any]]:
    """Follow a list page by page."""
    found = []
    while True:
        answer = call(request)
        found.append(list(answer.entries))
        if not answer.next_token:
            return found
        request.starting_token = answer.next_token


def test_lists_page_by_page(cluster: Cluster, pool: str) -> None:
    cluster.create_pool(f"{pool}-2", namespaces=["ns1"])
    try:
        specs = [pool, f"{pool}-2", f"{pool}-2/ns1"]
        with running(cluster, *(word for spec in specs for word in ("--pool", spec))) as driver:
            volumes = [
                driver.controller.CreateVolume(create_request(spec, f"pvc-{number}", 16 * MIB)).volume
                for spec in specs
                for number in range(3)
            ]
            shots = [
                driver.controller.CreateSnapshot(
                    csi.CreateSnapshotRequest(source_volume_id=volumes[4].volume_id, name=f"s-{number}")
                ).snapshot
                for number in range(3)
            ]
            other = driver.controller.CreateSnapshot(
                csi.CreateSnapshotRequest(source_volume_id=volumes[0].volume_id, name="t")
            ).snapshot
            call = driver.controller.ListVolumes
            for most, lengths in ((0, [9]), (2, [2, 2, 2, 2, 1]), (3, [3, 3, 3]), (9, [9]), (100, [9])):
                found = pages(call, csi.ListVolumesRequest(max_entries=most))
                assert [len(page) for page in found] == lengths
                assert [entry.volume for page in found for entry in page] == volumes
                assert not any(entry.status.volume_condition.abnormal for page in found for entry in page)
            # What a page ended with may be deleted before the next one.
            first = call(csi.ListVolumesRequest(max_entries=2))
            driver.controller.DeleteVolume(csi.DeleteVolumeRequest(volume_id=volumes[1].volume_id))
            rest = call(csi.ListVolumesRequest(starting_token=first.next_token))
            assert [entry.volume for entry in rest.entries] == volumes[2:]
            snaps = driver.controller.ListSnapshots
            assert [e.snapshot for p in pages(snaps, csi.ListSnapshotsRequest(max_entries=1)) for e in p] == [
                other, *shots
            ]  # fmt: skip
            of_one = csi.ListSnapshotsRequest(source_volume_id=volumes[4].volume_id, max_entries=2)
            assert [[entry.snapshot for entry in page] for page in pages(snaps, of_one)] == [shots[:2], shots[2:]]
            one = csi.ListSnapshotsRequest(snapshot_id=shots[1].snapshot_id)
            assert [entry.snapshot for entry in snaps(one).entries] == [shots[1]]
            one.source_volume_id = volumes[0].volume_id
            assert not snaps(one).entries
            for token in ("x", "1", "-1", "e30=", "WyJubyIsICJ4Il0=", "🎈", "a" * 200):
                refused(call, csi.ListVolumesRequest(starting_token=token), "ABORTED")
                refused(snaps, csi.ListSnapshotsRequest(starting_token=token), "ABORTED")
    finally:
        cluster.delete_pool(f"{pool}-2")


def test_watchers_tell_where_a_volume_is_published(cluster: Cluster, pool: str) -> None:
    import rbd

    with running(cluster, "--nodes-by-address", "--pool", pool) as driver:
        # With one pool configured a StorageClass needs not name it.
        request = create_request(pool, "pvc-1", 16 * MIB)
        request.ClearField("parameters")
        volume = driver.controller.CreateVolume(request).volume
        with opened(cluster, pool) as ioctx, rbd.Image(ioctx, volume.volume_context["imageName"]) as image:
            image.write(b"x", 0)
            got = driver.controller.ControllerGetVolume(csi.ControllerGetVolumeRequest(volume_id=volume.volume_id))
            assert list(got.status.published_node_ids) == ["127.0.0.1"]
            (entry,) = driver.controller.ListVolumes(csi.ListVolumesRequest()).entries
            assert list(entry.status.published_node_ids) == ["127.0.0.1"]


# -- many at once -----------------------------------------------------------------------------------------------------


def test_concurrent_requests_for_one_name(
    driver: Driver, pool: str, make: Callable[..., csi.Volume], shoot: Callable[..., csi.Snapshot]
) -> None:
    with concurrent.futures.ThreadPoolExecutor(24) as threads:
        made = list(threads.map(lambda _: make("pvc-1"), range(24)))
        assert len({volume.volume_id for volume in made}) == 1
        shot = list(threads.map(lambda _: shoot(made[0]), range(24)))
        assert len({snap.snapshot_id for snap in shot}) == 1
        restored = list(threads.map(lambda _: make("pvc-2", snapshot=shot[0].snapshot_id), range(24)))
        assert len({volume.volume_id for volume in restored}) == 1

        def sized(size: int) -> tuple[str, int]:
            request = create_request(pool, "pvc-3", size * MIB, limit=size * MIB)
            try:
                return driver.controller.CreateVolume(request).volume.volume_id, size
            except grpc.RpcError as error:
                return error.code().name, size

        answers = list(threads.map(sized, [16, 32] * 12))
        won = {answer for answer in answers if answer[0] != "ALREADY_EXISTS"}
        assert len(won) == 1, answers
        assert len([answer for answer in answers if answer == next(iter(won))]) == 12

        def delete(_: int) -> None:
            driver.controller.DeleteVolume(csi.DeleteVolumeRequest(volume_id=made[0].volume_id))

        list(threads.map(delete, range(24)))
    assert len(image_names(driver.cluster, pool)) == 3


# -- keys -------------------------------------------------------------------------------------------------------------


def test_a_request_can_bring_its_own_key(driver: Driver, cluster: Cluster, pool: str) -> None:
    cluster.auth("client.csi-a", mon="allow r", mgr=f"allow module vdisk with pool={pool} rw")
    key = cluster.mon("auth get-key", entity="client.csi-a")["key"]
    secrets = {"userID": "csi-a", "userKey": key}
    request = changed(create_request(pool, "pvc-1", 16 * MIB), secrets=secrets)
    volume = driver.controller.CreateVolume(request).volume
    cluster.create_pool(f"{pool}-b")
    try:
        foreign = changed(create_request(f"{pool}-b", "pvc-1", 16 * MIB), secrets=secrets)
        refused(driver.controller.CreateVolume, foreign, "PERMISSION_DENIED")
    finally:
        cluster.delete_pool(f"{pool}-b")
    wrong = {"userID": "csi-a", "userKey": "AQBhZ2hlbQAAABAAc2VjcmV0IGtleSAwMDAwMDAwMA=="}
    delete = csi.DeleteVolumeRequest(volume_id=volume.volume_id)
    refused(driver.controller.DeleteVolume, changed(delete, secrets=wrong), "UNAUTHENTICATED")
    refused(driver.controller.DeleteVolume, changed(delete, secrets={"userKey": key}), "INVALID_ARGUMENT")
    driver.controller.DeleteVolume(changed(delete, secrets=secrets))
    assert key not in driver.log()
    assert wrong["userKey"] not in driver.log()
    assert any(line.get("volume_name") == "pvc-1" and line["request_id"] for line in driver.lines())


def test_the_least_key_that_the_documentation_names_is_enough(cluster: Cluster, pool: str) -> None:
    cluster.auth("client.csi-least", mon="allow r", mgr=f"allow module vdisk with pool={pool} rw")
    with running(cluster, entity="client.csi-least") as driver:
        volume = driver.controller.CreateVolume(create_request(pool, "pvc-1", 16 * MIB)).volume
        shot = csi.CreateSnapshotRequest(source_volume_id=volume.volume_id, name="s-1")
        snap = driver.controller.CreateSnapshot(shot).snapshot
        driver.wait_ready()
        assert driver.controller.GetCapacity(csi.GetCapacityRequest(parameters={"pool": pool})).available_capacity
        assert len(driver.controller.ListVolumes(csi.ListVolumesRequest()).entries) == 1
        driver.controller.DeleteSnapshot(csi.DeleteSnapshotRequest(snapshot_id=snap.snapshot_id))
        driver.controller.DeleteVolume(csi.DeleteVolumeRequest(volume_id=volume.volume_id))


# -- the process ------------------------------------------------------------------------------------------------------


def test_metrics_and_health(cluster: Cluster, pool: str) -> None:
    (port,) = free_ports(1)
    with running(cluster, "--http-endpoint", f"127.0.0.1:{port}") as driver:
        driver.controller.CreateVolume(create_request(pool, "pvc-1", 16 * MIB))
        refused(driver.controller.DeleteVolume, csi.DeleteVolumeRequest(), "INVALID_ARGUMENT")
        base = f"http://127.0.0.1:{port}"

        def healthy() -> bool:  # which it is not, either, when the manager takes its time
            with urllib.request.urlopen(f"{base}/healthz", timeout=60) as answer:
                return bool(answer.read() == b"ok\n")

        wait_for(healthy, 20, "the driver is healthy", ignore=(urllib.error.HTTPError,))
        with urllib.request.urlopen(f"{base}/metrics", timeout=60) as answer:
            text = answer.read().decode()
    assert 'vdisk_csi_calls_total{code="OK",method="Controller/CreateVolume"} 1.0' in text
    assert 'vdisk_csi_calls_total{code="INVALID_ARGUMENT",method="Controller/DeleteVolume"} 1.0' in text
    assert 'vdisk_csi_command_seconds_count{command="volume create"}' in text


def test_it_stops_in_good_order_and_starts_over_what_a_crash_left(cluster: Cluster) -> None:
    driver = Driver(cluster).start()
    driver.kill()
    assert driver.socket.exists()
    driver.start()
    driver.wait_ready()
    assert driver.stop() == 0
    assert not driver.socket.exists()


def test_the_journal_is_that_of_the_commands(
    driver: Driver, cluster: Cluster, pool: str, make: Callable[..., csi.Volume]
) -> None:
    volume = make()
    shown = Vdisk(cluster)("volume info", volume=f"{pool}/pvc-1")
    assert (shown["handle"], shown["image"]) == (volume.volume_id, volume.volume_context["imageName"])
