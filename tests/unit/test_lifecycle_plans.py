"""The steps of every operation in order, and the requests that are refused."""

from dataclasses import replace

import pytest

from fake.cluster import FakeCluster
from fake.drive import GIB, SCENARIOS, Run, a_snapshot, a_volume, cloned, do, restored, snapshot_request, uuid_of
from fake.inventory import faults, inventory
from vdisk.lifecycle.group_snap import CreateGroup
from vdisk.lifecycle.registry import REQUESTS, request_from_dict, request_to_dict
from vdisk.lifecycle.removal import RemoveSnapshot, RemoveVolume
from vdisk.lifecycle.snap_create import CreateSnapshot
from vdisk.lifecycle.volume_clone import CloneVolume
from vdisk.lifecycle.volume_create import CreateVolume
from vdisk.lifecycle.volume_resize import ResizeVolume
from vdisk.lifecycle.volume_restore import RestoreVolume
from vdisk.model.errors import (
    AlreadyExists,
    HasDependents,
    Internal,
    InUse,
    InvalidArgument,
    NotFound,
    NotReady,
    OutOfRange,
    Unsupported,
)
from vdisk.model.layout import Layout
from vdisk.model.names import Kind
from vdisk.model.observed import Watcher

CREATION = ["reserve-name", "write-entry"]
CUT_CLONE = [*CREATION, "cut-snapshot", "clone-image"]
EXCHANGE = ["put-record", "trash-image", "restore-image", "trash-image", "clone-image"]
STEPS = {
    "create": [*CREATION, "create-image", "store-image-id", "answer"],
    "create-in-namespace": [*CREATION, "create-image", "store-image-id", "answer"],
    "restore": [*CREATION, "clone-image", "store-image-id", "answer"],
    "restore-grown": [*CREATION, "clone-image", "grow-image", "store-image-id", "answer"],
    "restore-before-seal": [*CREATION, "seal", "clone-image", "store-image-id", "answer"],
    "restore-to-namespace": [*CREATION, "clone-image", "store-image-id", "answer"],
    "clone": [*CUT_CLONE, "store-image-id", "drop-snapshot", "answer"],
    "clone-grown": [*CUT_CLONE, "grow-image", "store-image-id", "drop-snapshot", "answer"],
    "clone-to-namespace": [*CUT_CLONE, "store-image-id", "drop-snapshot", "answer"],
    "resize": ["grow-image", "answer"],
    "flatten": ["flatten-image", "answer"],
    "snap-create": [*CUT_CLONE, "store-image-id", "drop-snapshot", "answer", "seal"],
    "snap-create-of-plain-image": [*CUT_CLONE, "store-image-id", "drop-snapshot", "answer", "seal"],
    "revert": [*EXCHANGE, "grow-image", "store-image-id", "answer"],
    "revert-before-seal": ["seal", *EXCHANGE, "grow-image", "store-image-id", "answer"],
    "revert-adopted": [*EXCHANGE, "store-image-id", "mark-adopted", "erase-record", "answer"],
    "group-create": [
        *CREATION * 3,
        *["make-group", "cut-group", *["clone-member", "store-image-id"] * 2, "write-entry", "answer"],
        *["drop-group", "seal", "seal"],
    ],
    "group-rm": [
        *["trash-image", "remove-entry", "release-name"] * 2,
        *["remove-entry", "release-name", "answer"],
        *["drop-snapshot", "await-children", "queue-removal"] * 2,
    ],
    "group-rm-kept": [
        *["put-record", "trash-image", "remove-entry", "release-name"] * 2,
        *["remove-entry", "release-name", "answer"],
    ],
    "rm": ["trash-image", "remove-entry", "release-name", "answer", "await-children", "queue-removal"],
    "rm-kept": ["put-record", "trash-image", "remove-entry", "release-name", "answer"],
    "rm-expired": ["erase-record", "answer", "await-children", "queue-removal"],
    "snap-rm-kept": ["put-record", "trash-image", "remove-entry", "release-name", "answer"],
    "snap-rm-expired": ["erase-record", "answer", "drop-snapshot", "await-children", "queue-removal"],
    "trash-restore": ["reserve-name", "restore-image", "write-entry", "erase-record", "answer"],
    "trash-restore-renamed": ["reserve-name", "restore-image", "write-entry", "erase-record", "answer"],
    "trash-restore-snapshot": ["reserve-name", "restore-image", "write-entry", "erase-record", "answer"],
    "trash-restore-image": ["restore-image", "answer"],
    "adopt": ["put-record", "reserve-name", "write-entry", "store-image-id", "answer"],
    "adopt-released": ["reserve-name", "write-entry", "store-image-id", "erase-record", "answer"],
    "adopt-snapshot": [*CREATION, "clone-image", "store-image-id", "answer", "seal"],
    "release": ["put-record", "remove-entry", "release-name", "answer"],
    "release-adopted": ["put-record", "remove-entry", "release-name", "answer"],
    "rm-adopted": [
        *["trash-image", "remove-entry", "release-name", "erase-record", "answer"],
        *["await-children", "queue-removal"],
    ],
    "rm-with-temp": [
        *["trash-image", "trash-image", "remove-entry", "release-name", "answer"],
        *["await-children", "queue-removal", "await-children", "queue-removal"],
    ],
    "rm-with-temp-of-itself": [
        *["trash-image", "trash-image", "remove-entry", "release-name", "answer"],
        *["await-children", "queue-removal", "await-children", "queue-removal"],
    ],
    "rm-with-clone": ["trash-image", "remove-entry", "release-name", "answer", "await-children", "queue-removal"],
    "snap-rm": [
        *["trash-image", "remove-entry", "release-name", "answer"],
        *["drop-snapshot", "await-children", "queue-removal"],
    ],
    "snap-rm-unsealed": [
        *["trash-image", "remove-entry", "release-name", "answer"],
        *["await-children", "queue-removal"],
    ],
    "schedule-add": ["put-record", "answer"],
    "schedule-change": ["put-record", "answer"],
    "schedule-rm": ["erase-record", "answer", "erase-record", "erase-records"],
    "snap-rm-with-restored-volume": [
        *["trash-image", "remove-entry", "release-name", "answer"],
        *["drop-snapshot", "await-children", "queue-removal"],
    ],
}


#: Scenarios that a repeat finds nothing of, or that always end in the background.
NOT_REPEATED = ("rm", "snap-rm", "release", "schedule-rm", "group-rm")


@pytest.fixture
def fake() -> FakeCluster:
    return FakeCluster()


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_plan_has_the_steps_of_the_operation_in_order(fake, scenario):
    request = SCENARIOS[scenario](fake)
    assert Run(fake, request).step_names() == STEPS[scenario]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_planning_changes_nothing_and_every_step_tells_what_it_does(fake, scenario):
    request = SCENARIOS[scenario](fake)
    before = inventory(fake)
    fake.calls.clear()
    plan = request.plan(fake)
    assert fake.calls == []
    assert inventory(fake) == before
    assert all(step.describe() and "\n" not in step.describe() for step in plan.steps)


@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if not name.startswith(NOT_REPEATED)])
def test_repeating_a_finished_request_changes_nothing(fake, scenario):
    request = do(fake, SCENARIOS[scenario](fake))
    if isinstance(request, (CreateSnapshot, CreateGroup)):
        request = replace(request, seals=False)  # who asks again has no seal in hand
    before = inventory(fake)
    fake.calls.clear()
    assert Run(fake, request).step_names() == ["answer"]
    again = type(request)(**{**request.__dict__, "uuid": uuid_of(9)}) if type(request).creates else request
    planned = again.plan(fake)
    assert planned.request.uuid == request.uuid
    assert [step.name for step in planned.steps] == ["answer"]
    assert inventory(fake) == before


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_what_an_operation_leaves_is_whole(fake, scenario):
    run = Run(fake, SCENARIOS[scenario](fake)).go()
    if run.waits is None:
        fake.run_tasks()
        wrong = faults(fake)
        if "before-seal" in scenario or "unsealed" in scenario:
            wrong = [fault for fault in wrong if "not sealed" not in fault]
        if scenario == "release":
            wrong = [fault for fault in wrong if "that no object leads to" not in fault]
        assert wrong == []


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_requests_survive_their_durable_form(fake, scenario):
    request = SCENARIOS[scenario](fake).plan(fake).request
    assert request_from_dict(request.kind, request_to_dict(request)) == request
    assert REQUESTS[request.kind] is type(request)


@pytest.mark.parametrize("data", [{}, {"where": 1}, {"where": None, "name": "x", "uuid": "y"}, {"nonsense": 1}])
@pytest.mark.parametrize("kind", REQUESTS)
def test_durable_forms_of_other_versions_are_a_value_error(kind, data):
    with pytest.raises(ValueError, match=r"fields of"):
        request_from_dict(kind, data)
    with pytest.raises(ValueError, match="unknown kind"):
        request_from_dict("volume fold", data)


def test_snapshot_leaves_what_the_source_note_shows(fake):
    volume = a_volume(fake)
    snap = snapshot_request(fake, volume.image)
    do(fake, snap)
    source, image = fake.find(snap.where, volume.image), fake.find(snap.where, snap.image)
    assert [taken.name for taken in source.snaps if taken.user] == []
    assert [taken.name for taken in image.snaps] == [snap.image]
    assert image.parent.image_id == source.id
    space = fake.space(snap.where)
    assert space.directories[Kind.SNAPSHOT] == {"snapshot-1": snap.uuid}
    assert space.objects[Kind.SNAPSHOT, snap.uuid] == {
        "csi.imagename": snap.image,
        "csi.snapname": "snapshot-1",
        "csi.source": volume.image,
        "csi.imageid": image.id,
    }


def test_volume_create_writes_the_keys_of_the_source_note_and_no_others(fake):
    volume = a_volume(fake)
    image = fake.find(volume.where, volume.image)
    assert fake.space(volume.where).objects == {
        (Kind.VOLUME, volume.uuid): {
            "csi.imagename": volume.image,
            "csi.volname": "pvc-1",
            "csi.imageid": image.id,
        }
    }


def test_keys_of_other_writers_are_kept(fake):
    request = SCENARIOS["create"](fake)
    fake.reserve(request.where, Kind.VOLUME, request.name, request.uuid)
    fake.write_entry(request.where, Kind.VOLUME, request.uuid, {"csi.volume.owner": "tenant"})
    do(fake, request)
    assert fake.entry(request.where, Kind.VOLUME, request.uuid).values["csi.volume.owner"] == "tenant"


# -- conflicts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "layout", "word"),
    [
        (2 * GIB, Layout(), "size"),
        (GIB, Layout(features=1), "features"),
        (GIB, Layout(order=23), "object size"),
        (GIB, Layout(stripe_unit=1 << 20, stripe_count=4), "stripe unit"),
        (GIB, Layout(data_pool="data"), "data pool"),
    ],
)
def test_create_under_a_taken_name_says_what_differs(fake, size, layout, word):
    a_volume(fake)
    fake.add_pool("data")
    with pytest.raises(AlreadyExists, match=word) as caught:
        CreateVolume(fake.where(), "pvc-1", uuid_of(9), size, layout).plan(fake)
    assert any(word in difference for difference in caught.value.details["differs"])


def test_the_pool_of_the_image_as_its_data_pool_is_no_data_pool(fake):
    request = do(fake, CreateVolume(fake.where(), "pvc-1", uuid_of(1), GIB, Layout(data_pool="rbd")))
    assert [step.name for step in request.plan(fake).steps] == ["answer"]


def test_create_under_the_name_of_a_clone_is_refused(fake):
    do(fake, cloned(fake))
    with pytest.raises(AlreadyExists, match="clone"):
        CreateVolume(fake.where(), "pvc-2", uuid_of(9), GIB, Layout()).plan(fake)


def test_restore_under_the_name_of_another_volume_is_refused(fake):
    request = restored(fake)
    a_volume(fake, 5, "pvc-2")
    with pytest.raises(AlreadyExists, match="not a clone"):
        request.plan(fake)


def test_restore_of_another_snapshot_under_a_taken_name_is_refused(fake):
    request = restored(fake)
    do(fake, request)
    do(fake, snapshot_request(fake, "csi-vol-" + uuid_of(1), "snapshot-2", 7))
    other = RestoreVolume(request.where, "pvc-2", uuid_of(9), request.where, uuid_of(7), None, Layout())
    with pytest.raises(AlreadyExists, match="something else"):
        other.plan(fake)


@pytest.mark.parametrize("scenario", ["restore", "clone"])
def test_a_copy_of_another_size_under_a_taken_name_is_refused(fake, scenario):
    request = SCENARIOS[scenario](fake)
    do(fake, request)
    with pytest.raises(AlreadyExists, match="size"):
        type(request)(**{**request.__dict__, "size": 4 * GIB}).plan(fake)


@pytest.mark.parametrize("scenario", ["restore", "clone"])
def test_a_copy_has_the_layout_that_was_asked_for_and_a_repeat_says_what_differs(fake, scenario):
    layout = Layout(features=1, order=23, stripe_unit=1 << 20, stripe_count=2, data_pool="data")
    fake.add_pool("data")
    request = replace(SCENARIOS[scenario](fake), layout=layout)
    do(fake, request)
    image = fake.find(request.where, request.image)
    assert (image.features, image.order, image.stripe_unit, image.stripe_count) == (1, 23, 1 << 20, 2)
    assert image.data_pool_id == fake.pool_id("data")
    assert [step.name for step in replace(request, layout=Layout()).plan(fake).steps] == ["answer"]
    for other, word in (
        (replace(layout, features=61), "features"),
        (replace(layout, order=22), "object size"),
        (replace(layout, stripe_unit=1 << 19), "stripe unit"),
        (replace(layout, stripe_count=4), "stripe count"),
        (replace(layout, data_pool="rbd"), "data pool"),
    ):
        with pytest.raises(AlreadyExists, match=word) as caught:
            replace(request, layout=other).plan(fake)
        assert len(caught.value.details["differs"]) == 1


@pytest.mark.parametrize("scenario", ["restore", "clone"])
def test_a_copy_with_an_impossible_layout_is_refused(fake, scenario):
    request = SCENARIOS[scenario](fake)
    with pytest.raises(NotFound, match="data pool"):
        replace(request, layout=Layout(data_pool="nothing")).plan(fake)
    with pytest.raises(InvalidArgument, match="larger than the object size"):
        replace(request, layout=Layout(stripe_unit=1 << 23, stripe_count=2)).plan(fake)
    for header in fake.space(fake.where()).headers.values():
        header.order = 25
    replace(request, layout=Layout(stripe_unit=1 << 23, stripe_count=2)).plan(fake)
    with pytest.raises(OutOfRange, match="object map"):
        replace(request, size=1 << 52, layout=Layout(order=12)).plan(fake)
    replace(request, size=1 << 52, layout=Layout(order=25, features=1)).plan(fake)


@pytest.mark.parametrize("scenario", ["restore", "clone"])
def test_a_copy_smaller_than_its_source_is_out_of_range(fake, scenario):
    request = SCENARIOS[scenario](fake)
    with pytest.raises(OutOfRange) as caught:
        type(request)(**{**request.__dict__, "size": 1}).plan(fake)
    assert caught.value.details["minimum"] == GIB


def test_snapshot_name_of_another_source_is_refused(fake):
    a_snapshot(fake)
    other = a_volume(fake, 5, "pvc-5")
    with pytest.raises(AlreadyExists) as caught:
        snapshot_request(fake, other.image).plan(fake)
    assert caught.value.details["source"] == "csi-vol-" + uuid_of(1)


def test_sources_that_do_not_exist_are_not_found(fake):
    where = fake.where()
    for request in (
        snapshot_request(fake, "nothing"),
        CloneVolume(where, "n", uuid_of(1), where, "nothing", None, Layout()),
        RestoreVolume(where, "n", uuid_of(1), where, uuid_of(2), None, Layout()),
        ResizeVolume(where, "n", uuid_of(1), GIB),
        RemoveVolume(where, "n", uuid_of(1)),
        RemoveSnapshot(where, "n", uuid_of(1)),
        CreateVolume(where, "n", uuid_of(1), GIB, Layout(data_pool="nothing")),
    ):
        with pytest.raises(NotFound):
            request.plan(fake)


@pytest.mark.parametrize("scenario", ["clone", "snap-create"])
def test_sources_without_layering_are_unsupported(fake, scenario):
    request = SCENARIOS[scenario](fake)
    for header in fake.space(fake.where()).headers.values():
        header.features = 0
    with pytest.raises(Unsupported):
        request.plan(fake)


def test_restore_of_an_unfinished_snapshot_is_not_ready(fake):
    request = restored(fake, sealed=False)
    del fake.space(request.where).objects[Kind.SNAPSHOT, request.snap_uuid]["csi.imageid"]
    with pytest.raises(NotReady):
        request.plan(fake)


def test_resize_only_grows(fake):
    volume = a_volume(fake)
    with pytest.raises(OutOfRange) as caught:
        ResizeVolume(volume.where, "pvc-1", volume.uuid, GIB - 1).plan(fake)
    assert caught.value.details["minimum"] == GIB
    assert Run(fake, ResizeVolume(volume.where, "pvc-1", volume.uuid, GIB)).step_names() == ["answer"]


def test_resize_of_an_unfinished_volume_is_not_ready(fake):
    volume = a_volume(fake)
    del fake.space(volume.where).objects[Kind.VOLUME, volume.uuid]["csi.imageid"]
    with pytest.raises(NotReady):
        ResizeVolume(volume.where, "pvc-1", volume.uuid, 2 * GIB).plan(fake)


def test_sizes_beyond_an_object_map_are_out_of_range_before_anything_changes(fake):
    with pytest.raises(OutOfRange, match="object map"):
        CreateVolume(fake.where(), "pvc-1", uuid_of(1), 1 << 60, Layout()).plan(fake)
    CreateVolume(fake.where(), "pvc-1", uuid_of(1), 1 << 60, Layout(features=1)).plan(fake)
    volume = a_volume(fake)
    with pytest.raises(OutOfRange, match="object map"):
        ResizeVolume(volume.where, "pvc-1", volume.uuid, 1 << 60).plan(fake)


@pytest.mark.parametrize("make", [a_volume, a_snapshot])
def test_removal_names_who_has_the_image_open(fake, make):
    made = make(fake)
    fake.watch(made.where, made.image, Watcher("10.0.0.9:0/123", 4711, 1))
    cls = RemoveVolume if made.target is Kind.VOLUME else RemoveSnapshot
    with pytest.raises(InUse, match=r"10\.0\.0\.9.*4711") as caught:
        cls(made.where, made.name, made.uuid).plan(fake)
    assert caught.value.details["watchers"] == [{"address": "10.0.0.9:0/123", "client": 4711, "cookie": 1}]


@pytest.mark.parametrize("what", ["mgr", "dead"])
def test_a_module_of_the_mgr_at_work_and_a_blocklisted_client_do_not_use_the_image(fake, what):
    volume = a_volume(fake)
    fake.watch(volume.where, volume.image, Watcher("10.0.0.9:0/123", 4711, 1, **{what: True}))
    do(fake, RemoveVolume(volume.where, volume.name, volume.uuid))
    assert fake.find(volume.where, volume.image) is None


@pytest.mark.parametrize("make", [a_volume, a_snapshot])
def test_removal_refuses_foreign_snapshots_and_names_them(fake, make):
    made = make(fake)
    fake.cut(made.where, made.image, "nightly")
    cls = RemoveVolume if made.target is Kind.VOLUME else RemoveSnapshot
    with pytest.raises(HasDependents, match="nightly") as caught:
        cls(made.where, made.name, made.uuid).plan(fake)
    assert caught.value.details["dependents"] == ["nightly"]


def test_removal_does_not_touch_an_image_that_took_the_name_since(fake):
    volume = a_volume(fake)
    run = Run(fake, RemoveVolume(volume.where, volume.name, volume.uuid)).go()
    fake.run_tasks()
    fake.create_image(volume.where, volume.image, GIB, Layout())
    assert "trash-image" not in run.step_names()


def test_journal_that_leads_to_another_name_is_never_followed(fake):
    volume = a_volume(fake)
    fake.reserve(volume.where, Kind.VOLUME, "pvc-9", volume.uuid)
    with pytest.raises(Internal, match="belongs to the name"):
        CreateVolume(volume.where, "pvc-9", uuid_of(9), GIB, Layout()).plan(fake)


def test_journal_that_leads_to_a_lost_image_is_reported(fake):
    volume = a_volume(fake)
    fake.remove_unfinished(volume.where, volume.image, fake.find(volume.where, volume.image).id)
    with pytest.raises(Internal, match="does not exist"):
        CreateVolume(volume.where, "pvc-1", uuid_of(9), GIB, Layout()).plan(fake)
    do(fake, RemoveVolume(volume.where, volume.name, volume.uuid))
    a_volume(fake, 9)


def test_a_reservation_without_an_image_is_taken_over(fake):
    where = fake.where()
    fake.reserve(where, Kind.VOLUME, "pvc-1", uuid_of(7))
    request = do(fake, CreateVolume(where, "pvc-1", uuid_of(1), GIB, Layout()))
    assert request.uuid == uuid_of(7)
    assert faults(fake) == []


def test_an_image_that_somebody_else_left_unfinished_is_never_touched(fake):
    where = fake.where()
    fake.reserve(where, Kind.VOLUME, "pvc-1", uuid_of(7))
    fake.create_image(where, "csi-vol-" + uuid_of(7), GIB, Layout())
    with pytest.raises(AlreadyExists, match="never finished"):
        CreateVolume(where, "pvc-1", uuid_of(1), GIB, Layout()).plan(fake)


def test_losing_the_race_for_a_name_leads_to_the_winner(fake):
    where = fake.where()
    run = Run(fake, CreateVolume(where, "pvc-1", uuid_of(1), GIB, Layout()))
    lost = []

    def win(effect, moment):
        if effect == "reserve" and moment == "before" and not lost:
            lost.append(True)
            fake.space(where).directories[Kind.VOLUME]["pvc-1"] = uuid_of(7)

    fake.hook = win
    assert run.go().request.uuid == uuid_of(7)
    assert faults(fake) == []


def test_snapshot_images_get_the_features_of_the_request(fake):
    volume = a_volume(fake)
    do(fake, CreateSnapshot(volume.where, "s", uuid_of(4), volume.image, Layout(features=1)))
    assert fake.find(volume.where, "csi-snap-" + uuid_of(4)).features == 1


def test_restore_is_possible_after_the_source_volume_is_gone(fake):
    request = restored(fake)
    run = Run(fake, RemoveVolume(request.where, "pvc-1", uuid_of(1))).go()
    assert run.waits == [f"rbd/csi-snap-{uuid_of(2)}"]
    do(fake, request)
    assert fake.find(request.where, request.image) is not None
