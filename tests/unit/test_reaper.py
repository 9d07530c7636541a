"""Who removes trashed images, in which order, and how fast."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from types import SimpleNamespace

import pytest

from fake.cluster import FakeCluster
from fake.drive import GIB, do, snapshot_request, uuid_of
from fake.engines import PATIENCE, Gate, Gates, Mgr
from vdisk.engine import restraint
from vdisk.engine.operation import State
from vdisk.engine.reaper import Reaper, ReaperSettings
from vdisk.engine.waiting import Key, Waiting
from vdisk.lifecycle.removal import RemoveSnapshot, RemoveVolume
from vdisk.lifecycle.volume_create import CreateVolume
from vdisk.model.errors import NotReady
from vdisk.model.layout import Layout
from vdisk.model.observed import Location

LOG = logging.getLogger("vdisk.test")


@pytest.fixture
def fake() -> FakeCluster:
    return FakeCluster({"rbd": {}, "other": {}})


@pytest.fixture(autouse=True)
def _short_restraint(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the reaper hold back for a moment only after requests."""
    monkeypatch.setattr(restraint, "_HELD_SECONDS", 0.01)


def trashed(fake: FakeCluster, pool: str, count: int) -> list[str]:
    """Return the ids of images in the trash."""
    where, ids = fake.where(pool), []
    for number in range(count):
        fake.create_image(where, f"image-{number}", GIB, Layout())
        ids.append(fake.space(where).ids[f"image-{number}"])
        fake.trash(where, f"image-{number}")
    return ids


def reaper_on(fake: FakeCluster, threads: int = 4, window: int = 2, rate: float = 0.0) -> tuple[Reaper, list[Key]]:
    """Return a reaper and the list of those that it says rbd_support has removed."""
    gone: list[Key] = []
    settings = ReaperSettings(lambda: threads, lambda: window, lambda: rate)
    return Reaper(fake, settings, LOG, gone.append), gone


def test_a_window_goes_to_rbd_support_and_the_rest_is_removed_here(fake: FakeCluster) -> None:
    where, ids = fake.where(), trashed(fake, "rbd", 5)
    reaper, gone = reaper_on(fake)
    answers = [reaper.remove(where, image_id) for image_id in ids]
    assert [isinstance(answer, Waiting) for answer in answers] == [True, True, False, False, False]
    assert [image_id for _, image_id in fake.tasks] == ids[:2]
    assert list(fake.space(where).trash) == ids[:2]
    assert reaper.look_after is not None
    reaper.look()
    assert gone == []
    fake.run_tasks()
    reaper.look()
    assert {key.image_id for key in gone} == set(ids[:2])
    assert reaper.look_after is None
    assert reaper.figures()["removed"] == 5


def test_what_has_a_task_already_is_left_to_it(fake: FakeCluster) -> None:
    where, ids = fake.where(), trashed(fake, "rbd", 2)
    before = fake.queue_removal(where, ids[1])
    reaper, _ = reaper_on(fake, window=0)
    assert reaper.remove(where, ids[0]) is None
    waiting = reaper.remove(where, ids[1])
    assert waiting is not None
    assert str(before) in str(waiting)
    assert fake.calls.count("queue_removal") == 1


def test_a_look_that_began_before_an_image_was_given_does_not_have_it_given_twice(
    fake: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, ids = fake.where(), trashed(fake, "rbd", 2)
    reaper, _ = reaper_on(fake, window=1)
    tasks_of = fake.tasks_of

    def overtaken(place: Location) -> Mapping[str, str]:
        before = tasks_of(place)
        monkeypatch.setattr(fake, "tasks_of", tasks_of)
        assert reaper.remove(where, ids[0]) is not None
        return before

    monkeypatch.setattr(fake, "tasks_of", overtaken)
    assert reaper.remove(where, ids[1]) is None
    assert isinstance(reaper.remove(where, ids[0]), Waiting)
    assert fake.calls.count("queue_removal") == 1
    assert list(fake.space(where).trash) == ids[:1]


def test_without_threads_everything_waits_for_a_place_at_rbd_support(fake: FakeCluster) -> None:
    where, ids = fake.where(), trashed(fake, "rbd", 2)
    reaper, _ = reaper_on(fake, threads=0, window=1)
    assert reaper.remove(where, ids[0]) is not None
    answers: list[Waiting | None] = []
    thread = threading.Thread(target=lambda: answers.append(reaper.remove(where, ids[1])))
    thread.start()
    fake.run_tasks()
    reaper.look()
    thread.join(PATIENCE)
    assert answers[0] is not None
    assert "remove_trashed" not in fake.calls
    reaper.stop()
    with pytest.raises(NotReady):
        reaper.remove(where, "another")


def test_what_rbd_support_does_not_take_is_removed_here(fake: FakeCluster) -> None:
    where, ids = fake.where(), trashed(fake, "rbd", 3)
    reaper, _ = reaper_on(fake, window=1)
    fake.fail_on("queue_removal", NotReady("rbd_support module is not ready"), times=2)
    assert [reaper.remove(where, image_id) for image_id in ids[:2]] == [None] * 2
    assert isinstance(reaper.remove(where, ids[2]), Waiting), "the place in the window is free again"
    alone, _ = reaper_on(fake, threads=0)
    fake.run_tasks()
    fake.fail_on("queue_removal", NotReady("rbd_support module is not ready"))
    with pytest.raises(NotReady):
        alone.remove(where, trashed(fake, "other", 1)[0])


def test_where_tasks_are_not_safe_or_the_pool_is_full_vdisk_removes_itself(fake: FakeCluster) -> None:
    fake.queue_is_safe = False
    where, ids = fake.where(), trashed(fake, "rbd", 3)
    reaper, _ = reaper_on(fake, threads=0)
    assert [reaper.remove(where, image_id) for image_id in ids] == [None] * 3
    assert fake.space(where).trash == {}


def test_a_failed_task_is_taken_back(fake: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vdisk.engine.reaper._FAILED_SECONDS", -1.0)
    where, ids = fake.where(), trashed(fake, "rbd", 1)
    reaper, gone = reaper_on(fake)
    assert reaper.remove(where, ids[0]) is not None
    [(_, _, task)] = fake._tasks
    fake.failed[task] = "image has watchers"
    reaper.look()
    assert [key.image_id for key in gone] == ids
    assert fake.tasks == []
    assert reaper.remove(where, ids[0]) is None
    assert fake.space(where).trash == {}


def test_the_rate_spaces_removals(fake: FakeCluster) -> None:
    where, ids = fake.where(), trashed(fake, "rbd", 4)
    clock = SimpleNamespace(now=5.0)
    waits: list[float] = []

    def wait(timeout: float) -> None:
        waits.append(timeout)
        clock.now += timeout

    reaper, _ = reaper_on(fake, window=0, rate=100.0)
    reaper._clock = lambda: clock.now
    reaper._changed.wait = wait  # type: ignore[method-assign,assignment]
    for image_id in ids:
        reaper.remove(where, image_id)
    assert waits == pytest.approx([0.01, 0.01, 0.01])


@pytest.mark.parametrize("rate", [0.001, 1e-300])
def test_a_changed_rate_frees_those_who_wait_for_it(fake: FakeCluster, rate: float) -> None:
    where, ids = fake.where(), trashed(fake, "rbd", 4)
    rates, asked = [rate], threading.Event()

    def now() -> float:
        if fake.calls.count("remove_trashed"):
            asked.set()
        return rates[0]

    reaper = Reaper(fake, ReaperSettings(window=lambda: 0, rate=now), LOG)
    assert reaper.remove(where, ids[0]) is None
    threads = [threading.Thread(target=reaper.remove, args=(where, image_id), daemon=True) for image_id in ids[1:]]
    for thread in threads:
        thread.start()
    assert asked.wait(PATIENCE)
    rates[0] = 0.0
    reaper.settings_changed()
    for thread in threads:
        thread.join(PATIENCE)
    assert fake.space(where).trash == {}


def test_those_who_wait_for_the_rate_are_let_go_when_it_stops(fake: FakeCluster) -> None:
    where, ids = fake.where(), trashed(fake, "rbd", 3)
    reaper, _ = reaper_on(fake, window=0, rate=0.001)
    assert reaper.remove(where, ids[0]) is None
    raised: list[BaseException] = []

    def remove(image_id: str) -> None:
        try:
            reaper.remove(where, image_id)
        except NotReady as error:
            raised.append(error)

    threads = [threading.Thread(target=remove, args=(image_id,), daemon=True) for image_id in ids[1:]]
    for thread in threads:
        thread.start()
    reaper.stop()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(raised) == 2


def test_operations_end_when_rbd_support_is_done_and_parents_follow(fake: FakeCluster) -> None:
    volume = do(fake, CreateVolume(fake.where(), "pvc-1", uuid_of(1), GIB, Layout()))
    snap = do(fake, snapshot_request(fake, volume.image))
    mgr = Mgr(fake, reaper=ReaperSettings(window=lambda: 1))
    mgr.engine.recover()
    parent = mgr.engine.submit(RemoveVolume(volume.where, volume.name, volume.uuid))
    mgr.until(lambda: parent.state is State.WAITING)
    child = mgr.engine.submit(RemoveSnapshot(snap.where, snap.name, snap.uuid))
    mgr.until(lambda: child.state is State.WAITING)
    assert "of rbd_support" in child.waiting_for[0]
    figures = mgr.engine.figures()["reaper"]
    assert (figures["backlog"], figures["waiting"], figures["given_to_rbd_support"]) == (2, 2, 1)
    assert figures["backlog_bytes"] == 2 * GIB
    fake.run_tasks()
    mgr.until(lambda: child.state is State.DONE, "the child's end", hurry=True)
    mgr.until(lambda: bool(fake.run_tasks()) or parent.state is State.DONE, "the parent's turn", hurry=True)
    mgr.until(lambda: parent.state is State.DONE, "the parent's end", hurry=True)
    mgr.engine.stop(PATIENCE)


def test_no_pool_takes_every_thread(fake: FakeCluster) -> None:
    volumes = [
        do(fake, CreateVolume(fake.where(pool), f"pvc-{number}", uuid_of(number + 100 * len(pool)), GIB, Layout()))
        for pool in ("rbd", "other")
        for number in range(8)
    ]
    mgr = Mgr(fake, reaper=ReaperSettings(threads=lambda: 4, window=lambda: 0))
    mgr.engine.recover()
    fake.hook = gate = Gate("remove_trashed", count=3)
    stuck = [mgr.engine.submit(RemoveVolume(v.where, v.name, v.uuid)) for v in volumes[:8]]
    mgr.until(lambda: fake.calls.count("remove_trashed") == 3, "three quarters of the threads are taken")
    others = [mgr.engine.submit(RemoveVolume(v.where, v.name, v.uuid)) for v in volumes[8:]]
    mgr.ended(*others)
    assert not any(operation.state.final for operation in stuck)
    gate.open()
    mgr.ended(*stuck)
    mgr.engine.stop(PATIENCE)


def test_answers_come_before_reclaiming_for_a_while(fake: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(restraint, "time", SimpleNamespace(monotonic=lambda: now[0]))
    doomed = [
        do(fake, CreateVolume(fake.where(), f"pvc-{number}", uuid_of(number), GIB, Layout())) for number in range(6)
    ]
    mgr = Mgr(fake, reaper=ReaperSettings(threads=lambda: 64, window=lambda: 0))
    mgr.engine.recover()
    creating, reclaiming = Gate("create_image", count=3), Gate("remove_trashed", count=6)
    fake.hook = Gates(creating, reclaiming)
    creates = [CreateVolume(fake.where(), f"new-{n}", uuid_of(100 + n), GIB, Layout()) for n in range(3)]
    made = fake.calls.count("create_image")
    operations = [mgr.engine.submit(request) for request in creates]
    mgr.until(lambda: fake.calls.count("create_image") == made + 3, "workers are at work")
    removals = [mgr.engine.submit(RemoveVolume(v.where, v.name, v.uuid)) for v in doomed]
    mgr.until(lambda: all(operation.answered for operation in removals), "all have answered")
    assert fake.calls.count("remove_trashed") <= 1
    # Nothing more is asked for, so all of them go on, though the one at work is stuck.
    now[0] += 1.0
    mgr.until(lambda: fake.calls.count("remove_trashed") == 6, "all are being removed")
    reclaiming.open()
    creating.open()
    mgr.ended(*operations, *removals)
    mgr.engine.stop(PATIENCE)


def test_clones_that_take_a_snapshot_of_the_same_image_along_go_one_after_the_other(fake: FakeCluster) -> None:
    volume = do(fake, CreateVolume(fake.where(), "pvc-1", uuid_of(1), GIB, Layout()))
    snaps = [do(fake, snapshot_request(fake, volume.image, f"snapshot-{n}", n)) for n in range(2, 8)]
    mgr = Mgr(fake, reaper=ReaperSettings(threads=lambda: 8, window=lambda: 0))
    mgr.engine.recover()
    fake.hook = gate = Gate("remove_trashed", count=1)
    operations = [mgr.engine.submit(RemoveSnapshot(s.where, s.name, s.uuid)) for s in snaps]
    gate.reach()
    mgr.until(lambda: sum(op.state is State.WAITING for op in operations) == 5, "the others wait for their turn")
    assert fake.calls.count("remove_trashed") == 1
    gate.open()
    mgr.ended(*operations)
    assert all(operation.error is None for operation in operations)
    assert fake.space(volume.where).trash == {}
    assert mgr.engine.reaper._lanes._lanes == {}
    mgr.engine.stop(PATIENCE)


def test_a_huge_image_is_not_given_to_rbd_support(fake: FakeCluster) -> None:
    where = fake.where()
    fake.create_image(where, "huge", 4096 * GIB, Layout())
    image_id = fake.space(where).ids["huge"]
    fake.trash(where, "huge")
    reaper, _ = reaper_on(fake)
    assert reaper.remove(where, image_id) is None
    assert "queue_removal" not in fake.calls
