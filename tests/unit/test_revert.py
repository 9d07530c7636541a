"""Reverting a volume: what it needs, what it refuses, and where the former content goes."""

import pytest

from fake.drive import GIB, a_snapshot, a_volume, adopted, do, revert_request, reverted, snapshot_request, uuid_of
from fake.engines import PATIENCE
from fake.inventory import faults, inventory
from vdisk.lifecycle.undelete import UndeleteVolume
from vdisk.model.errors import HasDependents, InUse, InvalidArgument, NoSpace, NotFound, NotReady, Unsupported
from vdisk.model.names import Kind
from vdisk.model.observed import JOURNALING, Watcher
from vdisk.model.records import Store, kept_from_text


def test_the_former_content_is_a_volume_in_the_trash_that_comes_back(fake):
    request = reverted(fake)
    where = request.where
    fake.write_entry(where, Kind.VOLUME, request.uuid, {"csi.volume.owner": "tenant"})
    old = fake.image_id(where, request.image)
    do(fake, request)
    entry = fake.entry(where, Kind.VOLUME, request.uuid)
    assert entry.image == request.image
    assert entry.values["csi.volume.owner"] == "tenant"
    assert entry.image_id == fake.image_id(where, request.image) != old
    image = fake.find(where, request.image)
    assert image.size == 2 * GIB, "a volume never gets smaller"
    kept = kept_from_text(fake.record(where, Store.TRASH, request.kept_uuid))
    assert (kept.image_id, kept.name, kept.values["csi.volume.owner"]) == (old, "pvc-1", "tenant")
    assert fake.trashed(where, old).name == request.kept_image
    assert faults(fake) == []
    do(fake, UndeleteVolume(where, "pvc-before", request.kept_uuid, old))
    back = fake.entry(where, Kind.VOLUME, request.kept_uuid)
    assert (back.name, back.image, back.image_id) == ("pvc-before", request.kept_image, old)
    assert faults(fake) == []


def test_a_repeat_after_a_lost_answer_finds_its_work_done(fake, mgr):
    request = reverted(fake)
    do(fake, request)
    before = inventory(fake)
    again = type(request)(**{**request.__dict__, "kept_uuid": uuid_of(9)})
    operation, settled = mgr.service.run(again, PATIENCE)
    assert settled
    assert operation.request.kept_uuid == ""
    assert inventory(fake) == before
    fake.space(request.where).headers[fake.image_id(request.where, request.image)].used = 4096
    assert again.plan(fake).request.kept_uuid == uuid_of(9)


def test_it_can_be_reverted_again_and_to_later_snapshots(fake):
    first = reverted(fake)
    do(fake, first)
    later = snapshot_request(fake, first.image, "snapshot-2", 8)
    do(fake, later)
    for number, snap in ((11, first.snap_uuid), (12, later.uuid), (13, first.snap_uuid)):
        fake.space(first.where).headers[fake.image_id(first.where, first.image)].used = 4096
        again = type(first)(
            first.where, "pvc-1", first.uuid, first.where, snap, uuid_of(number), fake.now + 10, fake.now
        )
        do(fake, again)
        parent = fake.find(first.where, first.image).parent
        assert parent.image_id == fake.image_id(first.where, Kind.SNAPSHOT.image(snap))
    assert faults(fake) == []


def test_the_layout_stays(fake):
    request = reverted(fake)
    before = fake.find(request.where, request.image)
    do(fake, request)
    after = fake.find(request.where, request.image)
    for field in ("size", "features", "order", "stripe_unit", "stripe_count", "data_pool_id"):
        assert getattr(after, field) == getattr(before, field), field


def refuses(fake, request, error, words):
    before = inventory(fake)
    with pytest.raises(error) as raised:
        request.plan(fake)
    assert words in raised.value.message
    assert inventory(fake) == before


def test_what_is_in_use_stays_and_the_watchers_are_named(fake):
    request = reverted(fake)
    fake.watch(request.where, request.image, Watcher("10.0.0.1:0/1", 4242, 1))
    refuses(fake, request, InUse, "10.0.0.1:0/1 (client.4242)")


def test_a_snapshot_of_something_else_is_refused(fake):
    request = reverted(fake)
    a_volume(fake, 6, "pvc-6")
    other = type(request)(
        request.where, "pvc-6", uuid_of(6), request.where, request.snap_uuid, uuid_of(7), fake.now, fake.now
    )
    refuses(fake, other, InvalidArgument, "'vdisk volume restore' makes a new volume of it")


def test_a_snapshot_by_hand_would_be_lost_and_is_named(fake):
    request = reverted(fake)
    fake.cut(request.where, request.image, "by-hand")
    refuses(fake, request, HasDependents, "by-hand")


def test_a_snapshot_that_is_gone_or_not_ready(fake):
    request = reverted(fake)
    space = fake.space(request.where)
    values = space.objects[Kind.SNAPSHOT, request.snap_uuid]
    image_id = values.pop("csi.imageid")
    refuses(fake, request, NotReady, "not ready yet")
    values["csi.imageid"] = image_id
    del space.objects[Kind.SNAPSHOT, request.snap_uuid]
    refuses(fake, request, NotFound, "does not exist")


def test_a_volume_that_is_gone_or_journaled(fake):
    snap = a_snapshot(fake)
    request = revert_request(fake, snap)
    header = fake.space(request.where).headers[fake.image_id(request.where, request.image)]
    header.features |= JOURNALING
    refuses(fake, request, Unsupported, "journaled")
    del fake.space(request.where).objects[Kind.VOLUME, request.uuid]
    refuses(fake, request, NotFound, "does not exist")


def test_an_image_that_is_not_the_one_in_the_journal_is_left_alone(fake):
    request = reverted(fake)
    fake.write_entry(request.where, Kind.VOLUME, request.uuid, {"csi.imageid": "10bad"})
    refuses(fake, request, NotFound, "vdisk check")


def test_through_the_engine_a_full_pool_leaves_the_volume_as_it_was(fake, mgr):
    request = reverted(fake)
    before = inventory(fake)
    fake.fail_on("clone_image", NoSpace("the pool is full"))
    with pytest.raises(NoSpace):
        mgr.service.run(request, PATIENCE)
    assert inventory(fake) == before


def test_an_adopted_volume_keeps_its_image_name(fake):
    do(fake, adopted(fake))
    snap = snapshot_request(fake, "plain")
    do(fake, snap)
    do(fake, revert_request(fake, snap))
    entry = fake.entry(snap.where, Kind.VOLUME, uuid_of(1))
    assert entry.image == "plain"
    assert fake.record(snap.where, Store.IMAGES, entry.image_id) is not None
    assert len(fake.space(snap.where).records[Store.IMAGES]) == 1
