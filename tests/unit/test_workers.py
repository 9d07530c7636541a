"""The worker pool's shares and the order of locks."""

import threading
import time
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fake.engines import LOG, PATIENCE
from vdisk.engine import workers as workers_module
from vdisk.engine.locks import LockTable
from vdisk.engine.workers import Timer, Workers
from vdisk.lifecycle.base import Lock


@pytest.fixture
def workers():
    made = []

    def make(limit, **options):
        made.append(Workers("test", lambda: limit, LOG, **options))
        return made[-1]

    yield make
    for pool in made:
        pool.stop(PATIENCE)


def test_a_group_gets_at_most_three_quarters_of_the_threads(workers):
    pool, release, running = workers(8), threading.Event(), threading.Semaphore(0)

    def job():
        running.release()
        release.wait(PATIENCE)

    for _ in range(20):
        pool.submit("a", job)
    for _ in range(6):
        assert running.acquire(timeout=PATIENCE)
    assert not running.acquire(blocking=False)
    assert pool.load() == (14, 6)
    assert pool.group_load("a") == 20
    done = threading.Event()
    pool.submit("b", done.set)
    assert done.wait(PATIENCE)
    release.set()


def test_jobs_of_a_group_start_in_order_on_one_thread(workers):
    pool, seen, done = workers(1), [], threading.Event()
    for number in range(50):
        pool.submit("a", lambda number=number: seen.append(number))
    pool.submit("a", done.set)
    assert done.wait(PATIENCE)
    assert seen == list(range(50))


def test_a_job_behind_a_resting_thread_that_was_woken_for_another_gets_a_thread_of_its_own(workers):
    pool, first = workers(8), threading.Event()
    pool.submit("a", first.set)
    assert first.wait(PATIENCE)
    rested = threading.Event()
    while not rested.is_set():  # until that thread rests
        with pool._changed:
            if pool._idle == 1:
                rested.set()
            else:
                pool._changed.wait(0.001)
    second = threading.Event()
    stuck = []
    with pool._changed:  # both come before the resting thread is awake
        pool.submit("a", lambda: stuck.append(second.wait(PATIENCE / 4)))
        pool.submit("b", second.set)
    assert second.wait(PATIENCE / 8), "the second job waits for the end of the first"


def test_others_have_as_many_threads_as_hang_in_a_group_that_is_given_up(workers):
    pool, release, running, done = workers(2), threading.Event(), threading.Semaphore(0), threading.Barrier(3)

    def hang():
        running.release()
        release.wait(PATIENCE)

    pool.submit("a", hang)
    assert running.acquire(timeout=PATIENCE)
    for _ in range(2):  # which can be through only together
        for group in ("b", "c"):
            pool.submit(group, lambda: done.wait(PATIENCE))
        pool.give_up("a")
        done.wait(PATIENCE)
    assert pool.stop(PATIENCE), "what was given up is not waited for"
    release.set()


def test_a_job_that_comes_as_a_thread_goes_home_is_not_left_lying(workers):
    pool, done = workers(1, idle_seconds=0.001), threading.Event()
    rest = pool._rest

    def late():
        pool._rest = rest
        pool._idle += 1
        pool.submit("a", done.set)
        pool._idle -= 1
        return False

    pool._rest = late
    pool.submit("a", lambda: None)
    assert done.wait(PATIENCE)


def test_a_limit_that_fell_and_rose_leaves_no_job_lying():
    limit, together = [6], threading.Barrier(7)
    pool = Workers("test", lambda: limit[0], LOG)
    for _ in range(2):
        for group in range(6):
            pool.submit(group, lambda: together.wait(PATIENCE))
        together.wait(PATIENCE)
    until = time.monotonic() + PATIENCE
    while pool._idle < 6:
        assert time.monotonic() < until
    limit[0] = 1  # all but one are one too many now
    done, release = threading.Event(), threading.Event()
    pool.submit("a", done.set)
    assert done.wait(PATIENCE)
    pool.submit("a", lambda: release.wait(PATIENCE))
    done.clear()
    pool.submit("b", done.set)
    assert not done.is_set()
    limit[0] = 2
    pool.nudge()
    assert done.wait(PATIENCE)
    release.set()
    assert pool.stop(PATIENCE)


def test_a_failing_job_takes_no_thread_with_it(workers):
    pool, done = workers(1), threading.Event()
    pool.submit("a", lambda: 1 / 0)
    pool.submit("a", done.set)
    assert done.wait(PATIENCE)


def test_stopping_drops_what_is_queued_and_tells_what_still_runs(workers):
    pool, running, release = workers(1), threading.Event(), threading.Event()

    def job():
        running.set()
        release.wait(PATIENCE)

    pool.submit("a", job)
    pool.submit("a", job)
    assert running.wait(PATIENCE)
    assert pool.stop(0.001) is False
    assert pool.load() == (0, 1)
    pool.submit("a", job)
    assert pool.load() == (0, 1)
    release.set()
    assert pool.stop(PATIENCE) is True


def test_the_timer_calls_in_the_order_of_times_and_survives_failures(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(workers_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    timer, seen, done = Timer("test", LOG), [], threading.Event()
    timer.after(0.02, done.set)
    timer.after(0.01, lambda: seen.append(2))
    timer.after(0.0, lambda: 1 / 0)
    timer.after(0.005, lambda: seen.append(1))
    now[0] = 1.0
    timer.after(1.0, lambda: None)  # which has it look at the clock
    assert done.wait(PATIENCE)
    assert seen == [1, 2]
    timer.stop()


# -- locks -----------------------------------------------------------------------------------------------------------

LOCKS = st.lists(st.builds(Lock, st.sampled_from("abc"), st.booleans(), st.booleans()), max_size=4)


@settings(max_examples=60, deadline=None)
@given(st.lists(LOCKS, min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_operations_never_overlap_wrongly_never_starve_and_keep_their_order(wanted, random):
    table = LockTable()
    for number, locks in enumerate(wanted):
        table.enqueue(str(number), locks)
    waiting, running = {str(number) for number in range(len(wanted))}, set()

    def exclusive(number):
        keys = {}
        for lock in wanted[int(number)]:
            keys[lock.key] = keys.get(lock.key, False) or not lock.shared
        return keys

    while waiting or running:
        for op in sorted(waiting):
            if not table.blockers(op):
                waiting.discard(op)
                running.add(op)
        assert running, "a deadlock"
        for one in running:
            for other in running - {one}:
                shared = exclusive(one).keys() & exclusive(other).keys()
                assert not any(exclusive(one)[key] or exclusive(other)[key] for key in shared)
        first = min(waiting, key=int, default=None)
        if first is not None:
            assert all(int(blocker) < int(first) for blocker in table.blockers(first))
        over = random.choice(sorted(running))
        running.discard(over)
        if random.random() < 0.5:
            table.release(over, everything=False)
        woken = table.release(over)
        assert over not in woken
    assert table._queues == {}
    assert table._held == {}


def test_locks_held_to_the_end_outlast_the_answer():
    table = LockTable()
    table.enqueue("1", [Lock("name"), Lock("image", to_the_end=True)])
    table.enqueue("2", [Lock("name")])
    table.enqueue("3", [Lock("image")])
    assert table.blockers("2") == table.blockers("3") == ["1"]
    assert table.release("1", everything=False) == ["2"]
    assert table.blockers("2") == []
    assert table.blockers("3") == ["1"]
    assert table.release("1") == ["3"]
    assert table.blockers("3") == []


def test_readers_share_and_writers_wait_their_turn():
    table = LockTable()
    for op, shared in (("1", True), ("2", True), ("3", False), ("4", True)):
        table.enqueue(op, [Lock("image", shared)])
    assert table.blockers("2") == []
    assert table.blockers("3") == ["1", "2"]
    assert table.blockers("4") == ["3"]
    assert table.last("image") == "4"
    assert table.last("other") is None
