"""Health checks and progress: raised by what is there, cleared by themselves, shown for what lasts, always ended."""

import logging
import threading

import pytest

from fake.drive import GIB, a_snapshot, a_volume, new_uuid, removed_plain, uuid_of
from fake.engines import PATIENCE, Gate, Mgr
from vdisk.engine.guards import GuardSettings
from vdisk.engine.health import HealthBoard
from vdisk.engine.operation import Operation, State
from vdisk.engine.reaper import ReaperSettings
from vdisk.lifecycle.flatten import FlattenChain
from vdisk.lifecycle.removal import RemoveVolume
from vdisk.lifecycle.snap_create import CreateSnapshot
from vdisk.lifecycle.volume_clone import CloneVolume
from vdisk.lifecycle.volume_create import CreateVolume
from vdisk.model.errors import Internal, NotReady
from vdisk.model.layout import SNAPSHOT_FEATURES, Layout
from vdisk.service import vitals as vitals_module
from vdisk.service.checks import Limits, Settings, Wish
from vdisk.service.vitals import DEPTH, SNAPSHOTS, STUCK, TASK_QUEUE, Vitals


class Events:
    def __init__(self):
        self.shown, self.log = {}, []

    def update(self, event, message, fraction):
        self.shown[event] = (message, fraction)
        self.log.append((message, fraction))

    def complete(self, event):
        del self.shown[event]


class Room:
    """Vitals of a mgr on a fake cluster, looked at by hand, with a clock of their own."""

    def __init__(self, fake, **mgr):
        self.fake, self.now = fake, 1000.0
        bounds = mgr.pop("guards", GuardSettings())
        self.mgr = Mgr(fake, guards=bounds, **mgr)
        self.mgr.engine.recover()
        self.events = Events()
        self.board = HealthBoard(lambda checks: None)
        self.vitals = Vitals(
            self.mgr.session, self.mgr.engine, self.mgr.checks, self.board, self.events, bounds, lambda: 60.0,
            logging.getLogger("vdisk.test"), clock=lambda: self.now,
        )  # fmt: skip

    def look(self, later=0.0):
        self.now += later
        self.vitals.look()
        return self.board.checks()

    def closer(self):
        self.vitals.look_at_bounds()
        self.vitals.look_at_task_queue()
        return self.board.checks()


@pytest.fixture
def room(fake):
    made = []

    def make(**mgr):
        made.append(Room(fake, **mgr))
        return made[-1]

    yield make
    for one in made:
        one.mgr.stop()


def test_a_stuck_operation_is_told_of_until_it_is_retried(fake, room):
    here = room()
    request = removed_plain(fake)
    fake.fail_on("remove_trashed", Internal("broken"))
    operation = here.mgr.engine.submit(request)
    here.mgr.until(lambda: operation.state is State.FAILED)
    check = here.look()[STUCK]
    assert check.summary == "1 operation(s) of vdisk are stuck"
    assert operation.id in check.detail[0]
    assert "broken" in check.detail[0]
    assert "op retry" in check.detail[0]
    here.mgr.engine.retry(operation.id)
    here.mgr.ended(operation)
    assert here.look() == {}


def test_what_is_tried_again_for_ten_minutes_is_stuck_too(fake, room):
    here = room()
    fake.fail_on("create_image", NotReady("no answer"), times=1000)
    operation = here.mgr.engine.submit(CreateVolume(fake.where(), "pvc", new_uuid(), GIB, Layout()))
    here.mgr.until(lambda: operation.state is State.WAITING and operation.waiting_since is not None)
    here.now = operation.started_at
    assert here.look() == {}
    here.now += 3600
    # Another try may go on just now, of which something else is told.
    here.mgr.until(lambda: "no answer" in str(here.look().get(STUCK)), "the error is told of")


def test_a_step_that_hangs_is_stuck_but_not_a_long_one(fake, room):
    here = room()
    gate = fake.hook = Gate("create_image")
    operation = here.mgr.engine.submit(CreateVolume(fake.where(), "pvc", new_uuid(), GIB, Layout()))
    gate.reach()
    here.now = operation.step_since
    assert here.look() == {}
    assert "step create-image" in here.look(later=601)[STUCK].detail[0]
    operation.step = "flatten-image"
    assert here.look() == {}
    gate.open()
    here.mgr.ended(operation)


def test_a_task_queue_that_does_not_answer_is_told_of_and_nothing_waits_for_it(fake, room, monkeypatch):
    here = room(reaper=ReaperSettings(window=lambda: 4))
    down = threading.Event()

    def unless_down(real):
        def call(*args):
            if down.is_set():
                raise NotReady("rbd_support module is not ready, try again")
            return real(*args)

        return call

    for name in ("task_list", "queue_removal"):
        monkeypatch.setattr(fake, name, unless_down(getattr(fake, name)))
    down.set()
    assert here.closer() == {}, "once may be a failover"
    assert "not ready" in here.closer()[TASK_QUEUE].detail[0]
    here.mgr.ended(here.mgr.engine.submit(removed_plain(fake)))
    assert fake.space(fake.where()).trash == {}
    assert TASK_QUEUE in here.closer()
    down.clear()
    assert here.closer() == {}


def test_a_task_queue_that_is_silent_holds_up_no_other_look(fake, room, monkeypatch):
    monkeypatch.setattr(vitals_module, "_TICK", 0.001)
    monkeypatch.setattr(vitals_module, "_SHOW_AFTER", 0.0)
    here = room(guards=GuardSettings(lambda: 1, lambda: 3))
    asked, answer = threading.Event(), threading.Event()

    def silent():
        silent.calls += 1
        asked.set()
        assert answer.wait(PATIENCE)
        return []

    silent.calls = 0
    monkeypatch.setattr(fake, "task_list", silent)
    here.vitals._interval = lambda: 0.0
    here.vitals.start()
    assert asked.wait(PATIENCE)
    clone = CloneVolume(fake.where(), "c1", new_uuid(), fake.where(), a_volume(fake).image, None, Layout())
    here.mgr.service.run(clone, PATIENCE)
    here.mgr.engine.guards.look_after(clone.where, fake.image_id(clone.where, clone.image), clone.image, "depth")
    stuck = a_volume(fake, 50, "stuck")
    fake.fail_on("remove_trashed", Internal("broken"))
    here.mgr.engine.submit(RemoveVolume(stuck.where, stuck.name, stuck.uuid))
    here.mgr.until(lambda: {STUCK, DEPTH} <= set(here.board.checks()), "the checks beside the silent queue")
    assert silent.calls == 1
    answer.set()
    here.vitals.stop()


def test_images_near_a_bound_are_told_of_until_they_are_not(fake, room):
    fake.flattening = True
    here = room(guards=GuardSettings(lambda: 1, lambda: 3, lambda: 1, lambda: 3))
    volume = a_volume(fake)
    for number in (1, 2, 3):
        layout = Layout(features=SNAPSHOT_FEATURES)
        here.mgr.service.run(
            CreateSnapshot(volume.where, f"s{number}", uuid_of(20 + number), volume.image, layout), PATIENCE
        )
    clone = CloneVolume(volume.where, "c1", uuid_of(31), volume.where, f"csi-snap-{uuid_of(21)}", None, Layout())
    here.mgr.service.run(clone, PATIENCE)
    found = here.closer()
    assert set(found) == {DEPTH, SNAPSHOTS}
    assert f"rbd/{volume.image} has 3 snapshots (snapshots_hard 3)" in found[SNAPSHOTS].detail[0]
    assert "has 1 parents (clone_depth_hard 3)" in found[DEPTH].detail[0]
    fake.flattening = False
    here.mgr.until(lambda: not here.mgr.engine._book.live, hurry=True)
    for snap in fake.find(volume.where, volume.image).snaps:
        for child in snap.children:
            fake.flatten(volume.where, "", child.image_id)
    assert here.closer() == {}


def test_what_a_check_found_near_a_bound_is_told_of_after_a_failover(fake, room):
    here = room(guards=GuardSettings(lambda: 1, lambda: 1))
    here.mgr.checks._settings = Settings(lambda: 0.0, lambda: 0.0, lambda: False, lambda: Limits(1, 1))
    snap = a_snapshot(fake)
    here.mgr.checks.check(snap.where, Wish(), PATIENCE)
    again = room(guards=GuardSettings(lambda: 1, lambda: 1))
    assert f"csi-snap-{snap.uuid}" in again.closer()[DEPTH].detail[0]


def test_what_rbd_support_does_not_show_is_shown_when_it_lasts(fake, room):
    here = room()
    clone = CloneVolume(fake.where(), "c1", new_uuid(), fake.where(), a_volume(fake).image, None, Layout())
    here.mgr.service.run(clone, PATIENCE)
    gate = fake.hook = Gate("flatten")
    image_id = fake.image_id(clone.where, clone.image)
    operation = here.mgr.engine.submit(FlattenChain(clone.where, clone.image, clone.uuid, image_id=image_id))
    gate.reach()
    here.look()
    assert here.events.shown == {}
    here.look(later=4)
    assert here.events.shown == {operation.id: (f"Flattening rbd/{clone.image}", operation.progress)}
    gate.open()
    here.mgr.ended(operation)
    here.look(later=1)
    assert here.events.shown == {}
    assert len(here.events.log) == 1


def test_a_backlog_is_one_event_that_only_goes_forward(fake, room):
    gate = fake.hook = Gate("remove_trashed", count=1000)
    here = room(reaper=ReaperSettings(window=lambda: 0, threads=lambda: 64))
    operations: list[Operation] = []

    def remove(count):
        for _ in range(count):
            number = 100 + len(operations)
            a_volume(fake, number, f"v{number}")
            operations.append(here.mgr.engine.submit(RemoveVolume(fake.where(), f"v{number}", uuid_of(number))))
        here.mgr.answered(*operations)

    remove(9)
    here.look()
    here.look(later=4)
    assert here.events.shown == {}, "a few are gone before anyone has looked"
    remove(3)
    here.look()
    here.look(later=4)
    ((event, (message, fraction)),) = here.events.shown.items()
    assert (message, fraction) == ("Reclaiming deleted images", 0.0)
    gate.open()
    here.mgr.ended(*operations)
    here.look(later=1)
    assert here.events.shown == {}
    assert event


def test_a_check_is_shown_with_its_progress(fake, room):
    here = room()
    a_volume(fake)
    gate = fake.hook = Gate("names", "read")
    run = here.mgr.checks.begin(fake.where(), Wish())
    here.look()
    here.look(later=4)
    gate.open()
    run.done.wait(PATIENCE)
    assert [message for message, _ in here.events.log] == ["Checking rbd"]
    here.look(later=1)
    assert here.events.shown == {}


def test_what_is_shown_is_ended_with_the_module(fake, room, monkeypatch):
    monkeypatch.setattr(vitals_module, "_TICK", 0.01)
    monkeypatch.setattr(vitals_module, "_SHOW_AFTER", 0.0)
    here = room()
    gate = fake.hook = Gate("names", "read")
    a_volume(fake)
    run = here.mgr.checks.begin(fake.where(), Wish())
    here.vitals.start()
    here.mgr.until(lambda: bool(here.events.shown))
    here.vitals.stop()
    here.mgr.until(lambda: here.events.shown == {}, "it is ended")
    gate.open()
    run.done.wait(PATIENCE)
