"""The engine on a fake cluster with real threads: order, joining, waiting, failing, undoing, recovering, stopping."""

import json

import pytest

from fake.cluster import CrashAt, FakeCluster
from fake.drive import GIB, SCENARIOS, a_snapshot, a_volume, cloned, new_uuid, snapshot_request, uuid_of
from fake.engines import PATIENCE, Gate, Gates
from fake.inventory import faults, inventory
from vdisk.engine import engine as engine_module
from vdisk.engine.operation import Operation, State, operation_from_intent
from vdisk.lifecycle.removal import RemoveSnapshot, RemoveVolume
from vdisk.lifecycle.snap_create import CreateSnapshot
from vdisk.lifecycle.volume_create import CreateVolume
from vdisk.lifecycle.volume_resize import ResizeVolume
from vdisk.lifecycle.volume_restore import RestoreVolume
from vdisk.model.errors import Disconnected, Internal, InvalidArgument, NoSpace, NotFound, NotReady, Pending, Throttled
from vdisk.model.layout import Layout
from vdisk.model.names import Kind
from vdisk.model.observed import Location


def create(fake, name="pvc-1", size=GIB, spec="rbd", uuid=None):
    return CreateVolume(fake.where(spec), name, uuid or new_uuid(), size, Layout())


def remove(request):
    cls = RemoveVolume if request.target is Kind.VOLUME else RemoveSnapshot
    return cls(request.where, request.name, request.uuid)


# -- order and concurrency -------------------------------------------------------------------------------------------


def test_operations_on_one_image_run_in_the_order_they_came(fake, mgr):
    volume = a_volume(fake)
    fake.hook = gate = Gate("grow")
    sizes = [2 * GIB, 3 * GIB, 4 * GIB]
    first, *others = [mgr.engine.submit(ResizeVolume(volume.where, "pvc-1", volume.uuid, size)) for size in sizes]
    gate.reach()
    assert [op.state for op in others] == [State.QUEUED, State.QUEUED]
    assert others[0].waiting_for == [f"operation {first.id}"]
    gate.open()
    mgr.ended(first, *others)
    assert [op.error for op in (first, *others)] == [None, None, None]
    assert fake.find(volume.where, volume.image).size == 4 * GIB


def test_operations_on_different_images_run_side_by_side(fake, mgr):
    fake.hook = gate = Gate("create_image", count=5)
    operations = [mgr.engine.submit(create(fake, f"pvc-{number}")) for number in range(5)]
    mgr.until(lambda: all(op.step == "create-image" for op in operations), "five creations at a time")
    gate.open()
    mgr.ended(*operations)
    assert faults(fake) == []


def test_a_stuck_image_holds_up_only_itself(fake, mgr):
    stuck, free = a_volume(fake, 1, "pvc-1"), a_volume(fake, 2, "pvc-2")
    fake.hook = gate = Gate("grow")
    held = mgr.engine.submit(ResizeVolume(stuck.where, "pvc-1", stuck.uuid, 2 * GIB))
    gate.reach()
    passing = mgr.engine.submit(ResizeVolume(free.where, "pvc-2", free.uuid, 2 * GIB))
    mgr.ended(passing)
    assert not held.state.final
    gate.open()
    mgr.ended(held)


def test_restores_of_one_snapshot_run_side_by_side(fake, mgr):
    snap = a_snapshot(fake)
    fake.hook = gate = Gate("clone_image", count=3)
    operations = [
        mgr.engine.submit(RestoreVolume(snap.where, f"r{n}", new_uuid(), snap.where, snap.uuid, None, Layout()))
        for n in range(3)
    ]
    mgr.until(lambda: all(op.step == "clone-image" for op in operations), "three clones at a time")
    gate.open()
    mgr.ended(*operations)
    assert faults(fake) == []


def test_create_delete_create_of_one_name_ends_with_a_new_volume(fake, mgr):
    first = create(fake)
    fake.hook = gate = Gate("create_image")
    operations = [mgr.engine.submit(first)]
    gate.reach()
    operations.append(mgr.engine.submit(remove(first)))
    second = create(fake, size=2 * GIB)
    operations.append(mgr.engine.submit(second))
    assert len({op.id for op in operations}) == 3
    gate.open()
    mgr.ended(*operations)
    fake.run_tasks()
    assert [op.error for op in operations] == [None, None, None]
    assert fake.lookup(second.where, Kind.VOLUME, "pvc-1") == second.uuid
    assert faults(fake) == []


def test_a_name_is_free_once_its_removal_answered(fake, mgr):
    request = cloned(fake)
    mgr.ended(mgr.engine.submit(request))
    removal = mgr.engine.submit(RemoveVolume(request.source_where, "pvc-1", uuid_of(1)))
    mgr.answered(removal)
    again = mgr.engine.submit(create(fake, "pvc-1"))
    mgr.ended(again)
    assert again.error is None
    assert not removal.state.final


# -- joining and waiting ---------------------------------------------------------------------------------------------


def test_a_repeated_request_joins_the_operation_under_way(fake, mgr):
    fake.hook = gate = Gate("create_image")
    first = mgr.engine.submit(create(fake))
    gate.reach()
    assert mgr.engine.submit(create(fake)) is first
    assert mgr.engine.submit(create(fake, size=2 * GIB)) is not first
    gate.open()
    mgr.ended(first)


def test_a_repeated_removal_joins_even_after_it_answered(fake, mgr):
    request = cloned(fake)
    mgr.ended(mgr.engine.submit(request))
    wanted = RemoveVolume(request.source_where, "pvc-1", uuid_of(1))
    removal = mgr.engine.submit(wanted)
    mgr.answered(removal)
    assert mgr.engine.submit(wanted) is removal


def test_repeating_after_the_end_answers_without_an_intent(fake, mgr):
    mgr.ended(mgr.engine.submit(create(fake)))
    fake.calls.clear()
    again = mgr.engine.submit(create(fake))
    mgr.ended(again)
    assert again.error is None
    assert fake.calls == []


def test_wait_zero_returns_once_the_intent_is_durable(fake, mgr):
    fake.hook = gate = Gate("reserve")
    operation = mgr.engine.submit(create(fake))
    assert mgr.engine.wait(operation, 0) is False
    assert list(fake.space(fake.where()).intents) == [operation.id]
    gate.open()
    mgr.ended(operation)
    assert mgr.engine.wait(operation, 0) is True


def test_wait_zero_on_a_pool_that_does_not_answer_is_not_ready(fake, mgr, monkeypatch):
    monkeypatch.setattr(engine_module, "ACCEPT_SECONDS", 0.02)
    fake.hook = gate = Gate("put_intent")
    operation = mgr.engine.submit(create(fake))
    with pytest.raises(NotReady, match=operation.id):
        mgr.engine.wait(operation, 0)
    gate.open()
    mgr.ended(operation)


def test_nothing_is_changed_before_the_intent_is_durable(fake, mgr):
    fake.hook = gate = Gate("put_intent")
    operation = mgr.engine.submit(create(fake))
    gate.reach()
    assert [call for call in fake.calls if call != "put_intent"] == []
    assert not operation.durable
    gate.open()
    mgr.ended(operation)


def test_waiting_in_vain_is_pending_and_nothing_is_lost(fake, mgr):
    fake.hook = gate = Gate("create_image")
    with pytest.raises(Pending) as caught:
        mgr.service.run(create(fake), 0.02)
    op_id = caught.value.details["operation"]
    assert op_id in caught.value.message
    gate.open()
    operation, settled = mgr.service.run(create(fake), PATIENCE)
    assert settled
    assert operation.id == op_id
    mgr.ended(operation)
    assert faults(fake) == []


def test_a_snapshot_answers_before_it_is_sealed(fake, mgr):
    volume = a_volume(fake)
    fake.hook = sealing = Gate("seal", count=1)
    operation, settled = mgr.service.run(snapshot_request(fake, volume.image), PATIENCE)
    assert settled
    assert not operation.state.final
    assert mgr.service.created(operation, settled).sealed is False
    sealing.open()
    mgr.ended(operation)
    assert mgr.service.created(operation, settled).sealed is True


def test_removal_of_a_snapshot_waits_for_its_seal(fake, mgr):
    volume = a_volume(fake)
    fake.hook = sealing = Gate("seal")
    snap = snapshot_request(fake, volume.image)
    operation = mgr.engine.submit(snap)
    sealing.reach()
    removal = mgr.engine.submit(remove(snap))
    assert removal.state is State.QUEUED
    sealing.open()
    mgr.ended(operation, removal)
    fake.run_tasks()
    assert faults(fake) == []


def test_too_much_work_is_throttled_and_joining_still_works(fake, start):
    mgr = start(queue_limit=2)
    fake.hook = gate = Gate("create_image", count=2)
    operations = [mgr.engine.submit(create(fake, f"pvc-{number}")) for number in range(2)]
    with pytest.raises(Throttled):
        mgr.engine.submit(create(fake, "pvc-2"))
    assert mgr.engine.submit(create(fake, "pvc-1")) is operations[1]
    gate.open()
    mgr.ended(*operations)


# -- failing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [NotReady("later"), Disconnected("blocklisted")])
@pytest.mark.parametrize("method", ["image_id", "lookup", "put_intent", "reserve", "create_image", "write_entry"])
def test_what_passes_is_tried_again(fake, mgr, method, error):
    fake.fail_on(method, error, times=3)
    operation = mgr.engine.submit(create(fake))
    mgr.ended(operation)
    assert operation.error is None
    assert operation.attempts >= 2
    assert faults(fake) == []


@pytest.mark.parametrize(
    "scenario",
    [
        name
        for name in SCENARIOS
        if not name.startswith(
            ("rm", "snap-rm", "group-rm", "resize", "flatten", "trash", "adopt", "release", "schedule")
        )
    ],
)
def test_a_full_pool_fails_a_creation_and_leaves_no_trace(fake, mgr, scenario):
    request = SCENARIOS[scenario](fake)
    before = inventory(fake)
    making = {"create": "create_image", "group": "clone_member"}
    fake.fail_on(making.get(scenario.partition("-")[0], "clone_image"), NoSpace("full"))
    operation = mgr.engine.submit(request)
    mgr.ended(operation)
    assert operation.state is State.FAILED
    assert isinstance(operation.error, NoSpace)
    after = inventory(fake)
    if not scenario.endswith("before-seal"):  # a seal is good work and stays
        assert after == before
    assert after["rbd"]["intents"] == [] if "rbd" in after else True


def test_the_error_of_a_failed_creation_reaches_the_caller(fake, mgr):
    fake.fail_on("create_image", NoSpace("full"))
    with pytest.raises(NoSpace, match="full"):
        mgr.service.run(create(fake), PATIENCE)
    operation, settled = mgr.service.run(create(fake), PATIENCE)
    assert settled
    mgr.ended(operation)


def test_a_refused_request_leaves_no_intent(fake, mgr):
    with pytest.raises(NotFound):
        mgr.service.run(snapshot_request(fake, "nothing"), PATIENCE)
    assert "put_intent" not in fake.calls


def test_a_failure_once_the_image_is_complete_leaves_no_cut_on_the_source(fake, mgr):
    volume = a_volume(fake)
    fake.fail_on("drop", NoSpace("full"))
    operation = mgr.engine.submit(snapshot_request(fake, volume.image))
    mgr.ended(operation)
    assert [snap.name for snap in fake.find(volume.where, volume.image).snaps if snap.user] == []
    assert faults(fake) == []


def test_undoing_goes_on_through_a_restart(fake, start):
    mgr = start()
    request = create(fake)
    fake.fail_on("create_image", NoSpace("full"))
    fake.hook = gate = Gate("release")
    operation = mgr.engine.submit(request)
    gate.reach()
    mgr.session.kill()
    gate.open()
    mgr.stop()
    fake.hook = None
    assert list(fake.space(request.where).intents) == [operation.id]
    second = start()
    second.engine.recover()
    second.until(lambda: operation.id in second.engine._book.finished, "the end of undoing")
    ended = second.engine.operation(operation.id)
    assert isinstance(ended.error, NoSpace)
    assert inventory(fake) == {"tasks": []}


def test_an_unexpected_exception_is_internal_and_undone(fake, mgr):
    fake.fail_on("create_image", RuntimeError("secret"))
    operation = mgr.engine.submit(create(fake))
    mgr.ended(operation)
    assert isinstance(operation.error, Internal)
    assert "secret" not in operation.error.message
    assert inventory(fake) == {"tasks": []}


def test_what_fails_after_the_answer_keeps_its_intent_for_the_operator(fake, mgr):
    volume = a_volume(fake)
    fake.fail_on("remove_trashed", Internal("odd"))
    operation = mgr.engine.submit(remove(volume))
    mgr.ended(operation)
    assert operation.answered
    assert operation.state is State.FAILED
    assert list(fake.space(volume.where).intents) == [operation.id]


def test_a_removal_that_fails_in_the_middle_still_reclaims_the_image(fake, mgr):
    volume = a_volume(fake)
    fake.fail_on("remove_entry", Internal("odd"))
    first = mgr.engine.submit(remove(volume))
    mgr.ended(first)
    if first.state is State.FAILED:
        again = mgr.engine.submit(remove(volume))
        mgr.ended(again)
        assert again.error is None
    fake.run_tasks()
    assert fake.space(volume.where).trash == {}
    assert fake.space(volume.where).headers == {}


def test_operations_go_quietly_with_their_pool(fake, mgr):
    fake.add_pool("other")
    where = fake.where("other")
    fake.hook = gate = Gate("create_image")
    operation = mgr.engine.submit(CreateVolume(where, "pvc-1", uuid_of(1), GIB, Layout()))
    gate.reach()
    fake.remove_pool("other")
    fake.hook = None
    gate.open()
    mgr.ended(operation)
    assert isinstance(operation.error, NotFound)
    assert not operation.durable


@pytest.mark.parametrize("answered", [False, True], ids=["waited for", "in the background"])
def test_what_hangs_in_a_pool_that_was_removed_is_given_up(fake, mgr, monkeypatch, answered):
    monkeypatch.setattr(engine_module, "_HANGS_SECONDS", 0.01)
    fake.add_pool("other")
    volume = a_volume(fake, spec="other")
    larger = ResizeVolume(volume.where, volume.name, volume.uuid, 2 * GIB)
    fake.hook = gate = Gate("remove_trashed" if answered else "grow")
    hanging = mgr.engine.submit(remove(volume) if answered else larger)
    gate.reach()
    beside = mgr.engine.submit(create(fake))
    mgr.ended(beside)
    assert not hanging.state.final, "its pool is there"
    fake.remove_pool("other")
    mgr.ended(hanging)
    assert isinstance(hanging.error, NotFound)
    assert (hanging.state, hanging.durable, hanging.answered) == (State.FAILED, False, answered)
    figures = mgr.engine.figures()
    assert (figures["workers_busy"], figures["background_busy"], figures["running"]) == (0, 0, 0)
    gate.open()  # and it ends after all
    mgr.until(lambda: not mgr.engine._workers._busy and not mgr.engine._reapers._busy, "the end of what hung")
    assert hanging.state is State.FAILED


def test_cancelling_a_creation_undoes_it(fake, mgr):
    fake.hook = gate = Gate("create_image", moment="after")
    operation = mgr.engine.submit(create(fake))
    gate.reach()
    mgr.engine.cancel(operation.id)
    gate.open()
    mgr.ended(operation)
    assert operation.state is State.FAILED
    assert "cancelled" in operation.error.message
    assert inventory(fake) == {"tasks": []}


def test_cancelling_a_queued_operation_lets_those_behind_it_pass(fake, mgr):
    volume = a_volume(fake)
    fake.hook = gate = Gate("grow")
    sizes = [2 * GIB, 3 * GIB, 4 * GIB]
    first, second, third = (mgr.engine.submit(ResizeVolume(volume.where, "pvc-1", volume.uuid, size)) for size in sizes)
    gate.reach()
    mgr.engine.cancel(second.id)
    assert second.state is State.FAILED
    gate.open()
    mgr.ended(first, third)
    assert third.error is None
    assert fake.find(volume.where, volume.image).size == 4 * GIB


def test_what_has_ended_or_answered_or_only_goes_forward_is_not_cancelled(fake, mgr):
    done = mgr.engine.submit(create(fake))
    mgr.ended(done)
    volume = a_volume(fake, 7, "pvc-7")
    fake.hook = gate = Gate("trash")
    removal = mgr.engine.submit(remove(volume))
    gate.reach()
    for operation in (done, removal):
        with pytest.raises(InvalidArgument):
            mgr.engine.cancel(operation.id)
    gate.open()
    mgr.ended(removal)


def test_a_stuck_operation_is_kept_apart_and_can_be_retried(fake, mgr):
    volume = a_volume(fake)
    fake.fail_on("remove_trashed", Internal("odd"))
    operation = mgr.engine.submit(remove(volume))
    mgr.ended(operation)
    assert mgr.engine.figures()["stuck"] == 1
    assert operation in mgr.engine.operations()
    assert mgr.engine.unfinished() == [operation]
    mgr.engine.retry(operation.id)
    mgr.ended(operation)
    assert operation in mgr.engine.operations()
    assert mgr.engine.unfinished() == []
    fake.run_tasks()
    assert operation.error is None
    assert mgr.engine.figures()["stuck"] == 0
    assert inventory(fake) == {"tasks": []}
    with pytest.raises(InvalidArgument):
        mgr.engine.retry(operation.id)


# -- answers that stay true ------------------------------------------------------------------------------------------


def test_a_volume_that_was_removed_does_not_come_back_when_erasing_its_intent_failed(fake, mgr):
    request = create(fake)
    held = Gate("erase_intent")
    fake.fail_on("erase_intent", NotReady("later"))
    fake.hook = held
    creation = mgr.engine.submit(request)
    held.reach()
    removal = mgr.engine.submit(remove(request))
    mgr.until(lambda: removal.answered or removal.state is State.QUEUED, "the removal's answer or its queueing")
    held.open()
    mgr.ended(creation, removal)
    fake.run_tasks()
    assert removal.error is None
    assert fake.lookup(request.where, Kind.VOLUME, request.name) is None
    assert fake.find(request.where, request.image) is None
    assert faults(fake) == []


def test_a_volume_that_was_removed_does_not_come_back_after_a_crash(fake, start):
    mgr = start()
    request = create(fake)
    held = Gate("erase_intent")
    fake.hook = held
    creation = mgr.engine.submit(request)
    held.reach()
    removal = mgr.engine.submit(remove(request))
    mgr.until(lambda: removal.state.final or removal.state is State.QUEUED, "the removal's end or its queueing")
    mgr.session.kill()
    gone = removal.state.final
    del fake.space(request.where).intents[creation.id]
    fake.space(request.where).intents[creation.id] = creation.to_intent()
    held.open()
    mgr.stop()
    fake.hook = None
    # What the dead mgr's last call did is undone by hand: the crash came before it.
    fake.space(request.where).intents[creation.id] = creation.to_intent()
    second = start()
    second.engine.recover()
    second.until(lambda: creation.id in second.engine._book.finished, "the end of the recovered creation")
    if gone:
        assert fake.lookup(request.where, Kind.VOLUME, request.name) is None


def test_a_snapshot_under_a_taken_over_reservation_is_not_removed_before_its_seal(fake, mgr):
    volume = a_volume(fake)
    fake.reserve(volume.where, Kind.SNAPSHOT, "snapshot-1", uuid_of(7))
    fake.hook = sealing = Gate("seal")
    operation = mgr.engine.submit(snapshot_request(fake, volume.image))
    sealing.reach()
    assert operation.request.uuid == uuid_of(7)
    removal = mgr.engine.submit(RemoveSnapshot(volume.where, "snapshot-1", uuid_of(7)))
    mgr.until(lambda: removal.answered or removal.state is State.QUEUED, "the removal's answer or its queueing")
    sealing.open()
    mgr.ended(operation, removal)
    fake.run_tasks()
    assert operation.error is None
    assert fake.lookup(volume.where, Kind.SNAPSHOT, "snapshot-1") is None
    assert faults(fake) == []


# -- recovering ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", ["create", "restore-to-namespace", "clone-grown", "snap-create", "rm", "snap-rm"])
def test_a_new_mgr_finishes_what_a_dead_one_began(start, scenario):
    reference = FakeCluster()
    watch = CrashAt()
    request = SCENARIOS[scenario](reference)
    first = start(reference)
    reference.hook = watch
    first.ended(first.engine.submit(request))
    reference.hook = None
    reference.run_tasks()
    end = inventory(reference)
    begun = watch.seen.index(("put_intent", "after"))
    for number in range(begun, len(watch.seen)):
        fake = FakeCluster()
        request = SCENARIOS[scenario](fake)
        dying = start(fake)
        fake.hook = CrashAt(number, dying.session.kill)
        dying.engine.submit(request)
        dying.until(lambda mgr=dying: mgr.session.dead and not mgr.engine._workers.load()[1], "the crash")
        fake.hook = None
        dying.stop()
        heir = start(fake)
        heir.engine.recover()
        heir.until(lambda mgr=heir: len(mgr.engine._recovery.loaded) == 2 and not mgr.engine._book.live, "recovery")
        fake.run_tasks()
        assert inventory(fake) == end, f"crashed {watch.seen[number]}"


def test_recovery_keeps_the_order_of_what_was_begun(fake, start):
    first = start()
    volume = a_volume(fake)
    fake.hook = gate = Gate("grow")
    operation = first.engine.submit(ResizeVolume(volume.where, "pvc-1", volume.uuid, 2 * GIB))
    gate.reach()
    first.session.kill()
    gate.open()
    first.stop()
    fake.hook = None
    second = start()
    new = second.engine.submit(ResizeVolume(volume.where, "pvc-1", volume.uuid, 3 * GIB))
    second.until(lambda: new.state.final and operation.id in second.engine._book.finished, "the end of both")
    assert second.engine.operation(operation.id).error is None
    assert new.error is None
    assert fake.find(volume.where, volume.image).size == 3 * GIB


def test_requests_that_arrive_before_the_intents_are_read_wait_for_them(fake, mgr):
    fake.fail_on("load_intents", NotReady("later"), times=3)
    operation = mgr.engine.submit(create(fake))
    mgr.ended(operation)
    assert operation.error is None


def test_an_operation_tells_that_it_waits_for_intents_to_be_read(fake, mgr):
    fake.hook = gate = Gate("load_intents", moment="read")
    operation = mgr.engine.submit(create(fake))
    gate.reach()
    shown = operation.to_dict(details=True)
    assert (shown["state"], shown["waiting_for"]) == ("queued", ["the intents of rbd to be read"])
    assert shown["waiting_since"] is not None
    assert mgr.engine.figures()["recovering"] == 2, "the list of pools, and what is in this one"
    gate.open()
    mgr.ended(operation)
    assert (operation.waiting_for, operation.waiting_since) == ([], None)
    mgr.engine.recover()
    mgr.until(lambda: len(mgr.engine._recovery.loaded) == 2, "recovery")
    assert mgr.engine.figures()["recovering"] == 0


@pytest.mark.parametrize("scenario", ["create", "restore", "clone"])
def test_nobody_snapshots_what_may_have_to_be_made_anew(fake, mgr, scenario):
    request = SCENARIOS[scenario](fake)
    fake.hook = gate = Gate("write_entry", count=2)
    fake.fail_on("write_entry", NotReady("later"))
    making = mgr.engine.submit(request)
    gate.reach()
    cut = mgr.engine.submit(CreateSnapshot(request.where, "early", uuid_of(8), request.image, Layout(features=61)))
    assert (cut.state, cut.waiting_for) == (State.QUEUED, [f"operation {making.id}"])
    gate.open()
    mgr.ended(making, cut)
    assert (making.error, cut.error) == (None, None)


def test_cancelling_what_waits_for_intents_to_be_read_wedges_no_name(fake, mgr):
    fake.hook = gate = Gate("load_intents", moment="read")
    cancelled = mgr.engine.submit(create(fake))
    gate.reach()
    mgr.engine.cancel(cancelled.id)
    assert cancelled.state is State.FAILED
    gate.open()
    again = mgr.engine.submit(create(fake))
    mgr.ended(again)
    assert again.error is None


def test_recovery_is_tried_again_when_the_pools_cannot_be_listed(fake, mgr):
    fake.fail_on("rbd_pools", NotReady("later"), times=2)
    mgr.engine.recover()
    mgr.until(lambda: len(mgr.engine._recovery.loaded) == 2, "recovery")


UNREADABLE = {
    "no json": "{",
    "no object": "[]",
    "newer": json.dumps({"v": 99}),
    "unknown kind": json.dumps({"v": 1, "kind": "volume fold", "request": {}, "started_at": 1, "abort": None}),
    "unknown field": json.dumps({"v": 1, "kind": "volume rm", "request": {"x": 1}, "started_at": 1, "abort": None}),
    "missing": json.dumps({"v": 1}),
    "no abort": json.dumps(
        {
            "v": 1,
            "kind": "volume rm",
            "request": {"where": {"pool_id": 1, "pool": "rbd", "namespace": ""}, "name": "a", "uuid": "b"},
            "started_at": 1,
            "abort": "full",
        }
    ),
}


@pytest.mark.parametrize("text", UNREADABLE.values(), ids=UNREADABLE)
def test_an_intent_that_cannot_be_read_is_kept_and_reported(fake, mgr, text):
    where = fake.where()
    fake.put_intent(where, "op-1", text)
    operation = mgr.engine.submit(create(fake))
    mgr.ended(operation)
    assert operation.error is None
    assert [(intent.where, intent.id) for intent in mgr.engine.unreadable()] == [(where, "op-1")]
    assert fake.space(where).intents == {"op-1": text}
    assert mgr.engine.figures()["unreadable_intents"] == 1


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_an_operation_survives_its_intent(fake, scenario):
    operation = Operation("op-1", SCENARIOS[scenario](fake), 1655723953.25, abort=NoSpace("full", pool="rbd"))
    again = operation_from_intent("op-1", operation.to_intent())
    assert (again.id, again.request, again.started_at) == ("op-1", operation.request, operation.started_at)
    assert again.durable
    assert isinstance(again.abort, NoSpace)
    assert (again.abort.message, again.abort.details) == ("full", {"pool": "rbd"})


# -- waiting for clones ----------------------------------------------------------------------------------------------


def test_a_removal_waits_for_clones_says_which_and_goes_on_without_being_asked(fake, mgr):
    request = cloned(fake)
    mgr.ended(mgr.engine.submit(request))
    removal = mgr.engine.submit(RemoveVolume(request.source_where, "pvc-1", uuid_of(1)))
    mgr.until(lambda: removal.state is State.WAITING and removal.waiting_since is not None, "waiting")
    assert removal.answered
    assert removal.waiting_for == [f"rbd/{request.image}"]
    mgr.ended(mgr.engine.submit(RemoveVolume(request.where, request.name, request.uuid)))
    mgr.until(lambda: "in the trash" in str(removal.waiting_for) or removal.state.final, "the news of the clone")
    fake.run_tasks()
    mgr.ended(removal)
    fake.run_tasks()
    assert removal.error is None
    assert inventory(fake) == {"tasks": []}


def test_a_waiting_removal_survives_a_restart(fake, start):
    mgr = start()
    request = cloned(fake)
    mgr.ended(mgr.engine.submit(request))
    removal = mgr.engine.submit(RemoveVolume(request.source_where, "pvc-1", uuid_of(1)))
    mgr.until(lambda: removal.state is State.WAITING, "waiting")
    mgr.kill()
    heir = start()
    heir.engine.recover()
    heir.until(lambda: removal.id in heir.engine._book.live, "recovery")
    heir.ended(heir.engine.submit(RemoveVolume(request.where, request.name, request.uuid)))
    fake.run_tasks()
    heir.ended(heir.engine.operation(removal.id))
    fake.run_tasks()
    assert inventory(fake) == {"tasks": []}


# -- intents, figures, stopping --------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if name not in ("rm-with-clone",)])
def test_intents_are_erased_at_the_end(mgr, fake, scenario):
    request = SCENARIOS[scenario](fake)
    if scenario == "snap-rm-with-restored-volume":
        operation = mgr.engine.submit(request)
        mgr.until(lambda: operation.state is State.WAITING, "waiting")
        mgr.ended(mgr.engine.submit(RemoveVolume(fake.where(), "pvc-2", uuid_of(3))))
    else:
        operation = mgr.engine.submit(request)
    mgr.until(lambda: operation.state.final or bool(fake.run_tasks()), "the end")
    mgr.ended(operation)
    assert all(space.intents == {} for _, space in fake.spaces())


def test_operations_tell_their_steps_and_timings(fake, mgr):
    operation = mgr.engine.submit(create(fake))
    mgr.ended(operation)
    shown = operation.to_dict(details=True)
    assert [step["name"] for step in shown["steps"]] == [
        "reserve-name",
        "write-entry",
        "create-image",
        "store-image-id",
        "answer",
    ]
    assert all(step["seconds"] >= 0 for step in shown["steps"])
    assert (shown["state"], shown["progress"], shown["error"]) == ("done", 1.0, None)
    assert shown["step"] is shown["step_started_at"] is None


def test_unknown_operations_are_not_found(mgr):
    with pytest.raises(NotFound):
        mgr.engine.operation("nothing")


def test_stopping_under_load_leaves_everything_to_the_next_mgr(fake, start):
    mgr = start(workers=4)
    requests = [create(fake, f"pvc-{number:03}") for number in range(60)]
    fake.hook = gate = Gate("create_image", count=4)
    operations = [mgr.engine.submit(request) for request in requests]
    gate.reach()
    gate.open()
    mgr.engine.stop(PATIENCE)
    assert mgr.engine._workers.load() == (0, 0)
    with pytest.raises(NotReady):
        mgr.engine.submit(create(fake, "late"))
    done = [op for op in operations if op.state.final]
    begun = fake.space(fake.where()).intents
    heir = start()
    heir.engine.recover()
    heir.until(lambda: len(heir.engine._recovery.loaded) == 2 and not heir.engine._book.live, "recovery")
    assert len(fake.space(fake.where()).directories[Kind.VOLUME]) >= len(done)
    assert begun == {}
    assert faults(fake) == []


def test_stopping_does_not_wait_for_a_call_that_hangs(fake, mgr):
    fake.hook = gate = Gate("create_image")
    mgr.engine.submit(create(fake))
    gate.reach()
    mgr.engine.stop(0.02)
    gate.open()


def test_a_pool_that_hangs_leaves_workers_for_the_others(fake, start):
    mgr = start(workers=8)
    fake.add_pool("hung")
    hung = fake.where("hung")
    gate = Gate("create_image", count=100)
    held = set()

    def hook(method, moment):
        if method == "create_image" and moment == "before" and len(held) < 6:
            held.add(object())
            gate(method, moment)

    fake.hook = hook
    stuck = [mgr.engine.submit(CreateVolume(hung, f"h{n}", new_uuid(), GIB, Layout())) for n in range(20)]
    mgr.until(lambda: len(held) == 6, "six workers in the hung pool")
    free = [mgr.engine.submit(create(fake, f"pvc-{n}")) for n in range(5)]
    mgr.ended(*free)
    assert not any(op.state.final for op in stuck)
    gate.open()
    mgr.ended(*stuck)


def test_a_removed_snapshot_and_its_restore_are_kept_in_order(fake, mgr):
    snap = a_snapshot(fake)
    restore = RestoreVolume(snap.where, "r", new_uuid(), snap.where, snap.uuid, None, Layout())
    fake.hook = gate = Gate("clone_image")
    first = mgr.engine.submit(restore)
    gate.reach()
    removal = mgr.engine.submit(remove(snap))
    late = mgr.engine.submit(RestoreVolume(snap.where, "late", new_uuid(), snap.where, snap.uuid, None, Layout()))
    gate.open()
    mgr.answered(first, removal)
    mgr.ended(first, late)
    assert isinstance(late.error, NotFound)
    assert fake.lookup(snap.where, Kind.VOLUME, "late") is None


def test_gates_can_be_combined():
    seen = []
    Gates(lambda method, moment: seen.append(1), lambda method, moment: seen.append(2))("a", "b")
    assert seen == [1, 2]


def test_locations_compare_by_value():
    assert str(Location(1, "rbd", "ns1")) == "rbd/ns1"
    assert CreateSnapshot.kind == "snap create"


def test_a_flatten_waits_for_its_task_and_asks_again(fake, mgr):
    request = SCENARIOS["flatten"](fake)
    fake.flattening = True
    operation = mgr.engine.submit(request)
    mgr.until(lambda: operation.state is State.WAITING and fake.calls.count("flatten") > 2, "further tries")
    assert operation.waiting_for == [f"rbd/{request.image} to be flattened (ceph rbd task list)"]
    assert not operation.answered
    fake.flattening = False
    mgr.ended(operation)
    assert operation.error is None
    assert fake.find(request.where, request.image).parent is None
    assert len(operation.history) == 2
