"""The service: finding, listing page by page, describing, and not hanging with a pool that hangs."""

import pytest

from fake.drive import GIB, a_snapshot, a_volume, cloned, do, new_uuid, restored, uuid_of
from fake.engines import FSID, PATIENCE, Gate
from vdisk.lifecycle.removal import RemoveSnapshot, RemoveVolume
from vdisk.lifecycle.volume_create import CreateVolume
from vdisk.model.errors import InvalidArgument, NotFound, NotReady
from vdisk.model.handles import Handle, HandleFormat
from vdisk.model.layout import Layout
from vdisk.model.names import Kind
from vdisk.model.observed import Watcher
from vdisk.model.specs import NameRef, PoolSpec

RBD = PoolSpec("rbd")


def found(mgr, fake, name, kind=Kind.VOLUME, spec="rbd", image=None):
    return mgr.service.find_name(fake.where(spec), kind, NameRef(PoolSpec(*spec.split("/")), name, image))


def test_volumes_are_found_by_request_name_and_by_image_name(fake, mgr):
    volume = a_volume(fake)
    assert found(mgr, fake, "pvc-1") == found(mgr, fake, volume.image)
    assert found(mgr, fake, "pvc-1").uuid == volume.uuid
    with pytest.raises(NotFound):
        found(mgr, fake, "pvc-2")
    with pytest.raises(NotFound):
        found(mgr, fake, "pvc-1", Kind.SNAPSHOT)


def test_snapshots_are_found_by_their_image_too_if_it_is_theirs(fake, mgr):
    snap = a_snapshot(fake)
    assert found(mgr, fake, "snapshot-1", Kind.SNAPSHOT, image=snap.source).uuid == snap.uuid
    assert found(mgr, fake, snap.image, Kind.SNAPSHOT).name == "snapshot-1"
    with pytest.raises(NotFound, match="has no snapshot"):
        found(mgr, fake, "snapshot-1", Kind.SNAPSHOT, image="other")


def test_uuids_are_found_in_the_namespaces_that_may_be_looked_at(fake, mgr):
    a_volume(fake, 1, "pvc-1", "rbd/ns1")
    where = fake.where()

    def find(*namespaces):
        return mgr.service.find_uuid(where.pool_id, "rbd", Kind.VOLUME, uuid_of(1), namespaces)

    assert find("", "ns1").where.namespace == "ns1"
    assert find("ns1", "").where.namespace == "ns1"
    assert find("") is None
    assert find() is None


def test_handles_of_other_clusters_are_not_found(mgr):
    mgr.service.check_cluster(Handle(FSID, 1, uuid_of(1)))
    with pytest.raises(NotFound):
        mgr.service.check_cluster(Handle("other", 1, uuid_of(1)))


def test_handles_are_issued_in_the_family_of_the_option(fake, start):
    mgr = start(handle_format=lambda: HandleFormat.CEPH_CSI)
    assert mgr.service.handle(fake.where(), uuid_of(1)) == f"0001-0024-{FSID}-0000000000000001-{uuid_of(1)}"


def test_pools_are_resolved_with_the_errors_of_the_design(fake, mgr):
    fake.add_pool("plain", applications=())
    assert mgr.service.locate(PoolSpec("rbd", "ns1")) == fake.where("rbd/ns1")
    for spec in (PoolSpec("nothing"), PoolSpec("rbd", "nothing")):
        with pytest.raises(NotFound):
            mgr.service.locate(spec)
    with pytest.raises(InvalidArgument):
        mgr.service.locate(PoolSpec("plain"))
    assert mgr.service.namespaces(1, "rbd") == ["", "ns1"]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100, None])
def test_pages_follow_the_order_of_names_and_a_short_one_is_the_last(fake, mgr, limit, monkeypatch):
    from vdisk.service import core

    monkeypatch.setattr(core, "_PAGE", 2)
    names = sorted(["a", "b", "B", "é", "名", "z-1", "z-10"], key=str.encode)
    for name in names:
        do(fake, CreateVolume(fake.where(), name, new_uuid(), GIB, Layout()))
    seen, marker = [], ""
    while True:
        page = [volume.name for volume in mgr.service.volumes(fake.where(), limit, marker)]
        seen += page
        if limit is None or len(page) < limit:
            break
        assert len(page) == limit
        marker = page[-1]
    assert seen == names


def test_snapshots_of_one_image_are_listed_in_pages(fake, mgr, monkeypatch):
    from fake.drive import snapshot_request
    from vdisk.service import core

    monkeypatch.setattr(core, "_PAGE", 2)
    one, two = a_volume(fake, 1, "pvc-1"), a_volume(fake, 2, "pvc-2")
    for number, source in enumerate([one, two, one, two, one]):
        do(fake, snapshot_request(fake, source.image, f"s{number}", 10 + number))
    assert [snap.name for snap in mgr.service.snapshots(fake.where(), one.image, None, "")] == ["s0", "s2", "s4"]
    assert [snap.name for snap in mgr.service.snapshots(fake.where(), one.image, 2, "s0")] == ["s2", "s4"]
    assert [snap.name for snap in mgr.service.snapshots(fake.where(), None, None, "s3")] == ["s4"]
    assert mgr.service.snapshots(fake.where("rbd/ns1"), None, None, "") == []


def test_a_volume_tells_where_its_content_came_from(fake, mgr):
    do(fake, restored(fake))
    volume = mgr.service.volume(found(mgr, fake, "pvc-2"))
    assert (volume.source.kind, volume.source.name) == ("snapshot", "snapshot-1")
    assert volume.created_at == fake.now
    assert mgr.service.volume(found(mgr, fake, "pvc-1")).source is None


def test_the_answer_of_a_restore_names_its_source_without_reading_it_once_more(fake, mgr):
    do(fake, restored(fake))
    snapshot = found(mgr, fake, "snapshot-1", Kind.SNAPSHOT)
    operation = mgr.engine.submit(mgr.service.restore_volume(fake.where(), "pvc-2", snapshot, None, Layout()))
    mgr.answered(operation)
    mgr.quiet()
    whole = mgr.service.created(operation, True)
    reads = []
    fake.hook = lambda method, moment: reads.append(method)
    assert mgr.service.created(operation, True, snapshot) == whole
    assert reads == ["entry", "image_of"]


def test_details_follow_the_parents_through_the_trash(fake, mgr):
    do(fake, restored(fake))
    do(fake, RemoveVolume(fake.where(), "pvc-1", uuid_of(1)))
    fake.watch(fake.where(), "csi-vol-" + uuid_of(3), Watcher("10.0.0.1:0/1", 5, 6))
    details = mgr.service.details(found(mgr, fake, "pvc-2"))
    assert [(parent["image"][:8], parent["trashed"]) for parent in details["parents"]] == [
        ("csi-snap", False),
        ("csi-vol-", True),
    ]
    assert details["depth"] == 2
    assert details["watchers"] == [{"address": "10.0.0.1:0/1", "client": 5, "cookie": 6}]
    assert details["used"] == 0


def test_what_is_half_written_is_pending(fake, mgr):
    where = fake.where()
    fake.reserve(where, Kind.VOLUME, "pvc-1", uuid_of(1))
    bare = mgr.service.volume(found(mgr, fake, "pvc-1"))
    assert (bare.state, bare.size, bare.image) == ("pending", None, "csi-vol-" + uuid_of(1))
    assert mgr.service.details(found(mgr, fake, "pvc-1"))["parents"] == []
    fake.reserve(where, Kind.SNAPSHOT, "s", uuid_of(2))
    assert mgr.service.snapshot(found(mgr, fake, "s", Kind.SNAPSHOT)).to_dict()["ready_to_use"] is False


def test_a_creation_under_way_is_described_without_reading(fake, mgr):
    fake.hook = gate = Gate("put_intent", count=9)
    request = CreateVolume(fake.where(), "pvc-1", uuid_of(1), GIB, Layout())
    operation = mgr.engine.submit(request)
    gate.reach()
    assert mgr.engine.pending_creation(fake.where(), Kind.VOLUME, "pvc-1") is operation
    assert mgr.engine.pending_creation(fake.where(), Kind.SNAPSHOT, "pvc-1") is None
    shown = mgr.service.pending(operation)
    assert (shown.name, shown.state, shown.size, shown.uuid) == ("pvc-1", "pending", GIB, uuid_of(1))
    gate.open()
    mgr.ended(operation)
    assert mgr.engine.pending_creation(fake.where(), Kind.VOLUME, "pvc-1") is None
    assert mgr.service.created(operation, True).state == "ready"


def test_removals_are_remembered_by_name_and_by_uuid(fake, mgr):
    volume, where = a_volume(fake), fake.where()
    request = RemoveVolume(where, volume.name, volume.uuid)
    assert mgr.engine.removal_of(where, Kind.VOLUME, "pvc-1") is None
    operation, settled = mgr.service.run(request, PATIENCE)
    assert settled
    assert mgr.engine.removal_of(where, Kind.VOLUME, "pvc-1") is operation
    assert mgr.engine.removal_of_uuid(where.pool_id, Kind.VOLUME, volume.uuid) is operation
    assert mgr.engine.removal_of(where, Kind.SNAPSHOT, "pvc-1") is None
    assert mgr.engine.removal_of(fake.where("rbd/ns1"), Kind.VOLUME, "pvc-1") is None
    mgr.ended(operation)
    assert mgr.engine.removal_of(where, Kind.VOLUME, "pvc-1") is operation


def test_a_waiting_removal_is_remembered_too(fake, mgr):
    request = cloned(fake)
    do(fake, request)
    operation, settled = mgr.service.run(RemoveVolume(fake.where(), "pvc-1", uuid_of(1)), PATIENCE)
    assert settled
    assert mgr.engine.removal_of(fake.where(), Kind.VOLUME, "pvc-1") is operation


def test_a_pool_that_does_not_answer_is_not_ready_within_the_timeout(fake, start):
    mgr = start(read_timeout=lambda: 0.02)
    fake.hook = gate = Gate("names", "read")
    with pytest.raises(NotReady, match="did not answer"):
        mgr.service.volumes(fake.where(), None, "")
    gate.open()


def test_bugs_while_reading_are_internal(fake, mgr):
    from vdisk.model.errors import Internal

    fake.fail_on("names", RuntimeError("secret"))
    with pytest.raises(Internal) as caught:
        mgr.service.volumes(fake.where(), None, "")
    assert "secret" not in caught.value.message


def test_removing_a_snapshot_leaves_its_restored_volume(fake, mgr):
    do(fake, restored(fake))
    operation, settled = mgr.service.run(RemoveSnapshot(fake.where(), "snapshot-1", uuid_of(2)), PATIENCE)
    assert settled
    assert not operation.state.final or operation.error is None
    assert mgr.service.volume(found(mgr, fake, "pvc-2")).state == "ready"
