"""Schedules at work on a cluster in memory: runs, pruning, failures, crashes, a mgr's threads, commands."""

import json
import logging
from dataclasses import replace
from types import SimpleNamespace

import pytest

from fake.cluster import Crash, CrashAt, FakeCluster
from fake.drive import a_volume, do, snapshot_request, uuid_of
from fake.engines import PATIENCE, Gate, Mgr
from fake.inventory import faults
from vdisk.commands.access import Access
from vdisk.commands.dispatch import dispatch
from vdisk.commands.handlers import Handlers
from vdisk.engine import runs as runs_module
from vdisk.engine import scheduler as scheduler_module
from vdisk.engine.clock import Clock, from_environment
from vdisk.engine.scheduler import CODE
from vdisk.lifecycle.removal import RemoveVolume
from vdisk.lifecycle.volume_create import CreateVolume
from vdisk.model.errors import Disconnected, NoSpace, NotReady, VdiskError
from vdisk.model.layout import Layout
from vdisk.model.names import Kind
from vdisk.model.records import Store
from vdisk.model.schedules import schedule_from_text
from vdisk.model.timing import latest, parse_retention, upcoming
from vdisk.service import schedules as schedules_module
from vdisk.service.checks import Wish

HOUR, DAY = 3600.0, 86400.0


class Site:
    """A mgr with the commands of an administrator on a fake whose clock the test turns."""

    def __init__(self, mgr: Mgr, authorize=lambda args: True):
        self.mgr = mgr
        self.fake: FakeCluster = mgr.fake
        self.handlers = Handlers(mgr.services, Access(mgr.service, authorize), lambda: PATIENCE)
        mgr.scheduler.scan()
        for known in mgr.scheduler._known.values():
            known.read = True

    def __call__(self, words, **args):
        number, out, status = dispatch(
            self.handlers, {"prefix": f"vdisk schedule {words}", "format": "json", **args}, logging.getLogger("x")
        )
        answer = json.loads(out)
        assert number == 0 or status.startswith(answer["error"]["code"])
        return answer

    def add(self, target="rbd/pvc-1", interval="1h", **args):
        answer = self("add", pool_spec=target, interval=interval, **args)
        assert "error" not in answer, answer
        return answer

    def status(self, target="rbd/pvc-1"):
        (row,) = self("status", pool_spec=target)
        return row

    def run(self, spec="rbd"):
        self.mgr.scheduler.look(self.fake.where(spec))

    def next_hour(self, spec="rbd", hours=1):
        """Turn the clock to the hour and run what is due then; returns when that was."""
        self.fake.now = upcoming(60, None, self.fake.now) + (hours - 1) * HOUR
        self.run(spec)
        return latest(60, None, self.fake.now)

    def snapshots(self, spec="rbd"):
        return sorted(self.fake.space(self.fake.where(spec)).directories[Kind.SNAPSHOT])

    def records(self, prefix, spec="rbd"):
        store = self.fake.space(self.fake.where(spec)).records[Store.SCHEDULES]
        return {key: json.loads(text) for key, text in store.items() if key.startswith(prefix)}

    def health(self):
        check = self.mgr.board.checks().get(CODE)
        return [] if check is None else list(check.detail)


@pytest.fixture(autouse=True)
def _nothing_to_wait_for(monkeypatch):
    """Most tests have no thread that reads schedules anew, so a list of all places need not wait for one."""
    monkeypatch.setattr(schedules_module, "_PLACES_SECONDS", 0.0)


@pytest.fixture
def site(mgr):
    return Site(mgr)


def test_a_schedule_takes_snapshots_when_they_are_due(fake, site):
    volume = a_volume(fake)
    added = site.add()
    assert (added["target"], added["volume"], added["interval"], added["keep"]) == ("rbd/pvc-1", "pvc-1", "1h", None)
    site.run()
    assert site.snapshots() == []
    due = site.next_hour()
    (name,) = site.snapshots()
    assert name.endswith(f"-{added['id']}-{volume.uuid}")
    site.run()
    assert site.snapshots() == [name]
    row = site.status()
    assert (row["state"], row["taken"], row["made"], row["kept"], row["failed"]) == ("waiting", 1, 1, 1, 0)
    assert (row["last_run"], row["last_good"], row["latest"]) == (row["last_run"],) * 3
    assert due % HOUR == 0
    site.next_hour()
    assert len(site.snapshots()) == 2
    site.mgr.quiet()
    assert faults(fake) == []
    assert site.health() == []


def test_what_was_missed_is_taken_once(fake, site):
    a_volume(fake)
    site.add()
    site.next_hour()
    site.next_hour(hours=1000)
    assert len(site.snapshots()) == 2
    assert site.status()["made"] == 2


def test_retention_removes_what_it_made_and_nothing_else(fake, site):
    volume = a_volume(fake)
    shot = snapshot_request(fake, volume.image, "by-hand", 77)
    do(fake, shot)
    site.add(keep="3n")
    names = []
    for _ in range(6):
        site.next_hour()
        names = sorted({*names, *site.snapshots()})
    assert site.snapshots() == ["by-hand", *names[-3:]]
    assert site.status()["kept"] == 3
    assert site.status()["made"] == 6
    site.mgr.quiet()
    fake.run_tasks()
    assert faults(fake) == []


def test_what_looks_like_its_own_but_is_not_stays(fake, site):
    """Only what a record says and what has its name still is a schedule's own."""
    volume = a_volume(fake)
    added = site.add(keep="1n")
    first, second = site.next_hour(), site.next_hour()
    (key,) = site.records("made.")
    (due, uuid) = site.records("made.")[key]["snaps"][0]
    assert due == second > first
    # The same kind of name, made by hand; and one that the schedule made, renamed by undeleting it.
    imitation = f"scheduled-2020-01-01-00_00_UTC-{added['id']}-{volume.uuid}"
    do(fake, snapshot_request(fake, volume.image, imitation, 78))
    own = next(name for name in site.snapshots() if name != imitation)
    space = fake.space(volume.where)
    del space.directories[Kind.SNAPSHOT][own]
    space.directories[Kind.SNAPSHOT]["renamed"] = uuid
    space.objects[Kind.SNAPSHOT, uuid]["csi.snapname"] = "renamed"
    site.next_hour()
    site.next_hour()
    assert {imitation, "renamed"} < set(site.snapshots())
    assert len(site.snapshots()) == 3
    assert site.status()["kept"] == 1


def test_a_name_that_somebody_else_took_is_not_taken_over(fake, site):
    volume = a_volume(fake)
    added = site.add(keep="1n")
    due = upcoming(60, None, fake.now)
    (text,) = fake.space(volume.where).records[Store.SCHEDULES].values()
    name = schedule_from_text(text).snapshot_name(volume.uuid, due)
    do(fake, snapshot_request(fake, volume.image, name, 79))
    site.next_hour()
    assert site.status()["state"] == "failing"
    assert "not the schedule's" in site.status()["error"]
    assert site.records("made.") == {}
    site.next_hour()
    site.next_hour()
    assert name in site.snapshots()
    assert len(site.snapshots()) == 2
    assert site.status()["state"] == "waiting"
    assert added["id"] in name


def test_snapshots_removed_by_hand_are_no_longer_counted(fake, site):
    a_volume(fake)
    site.add(keep="5n")
    for _ in range(3):
        site.next_hour()
    handlers = site.handlers
    handlers.snap_rm({"snapshot": f"rbd/{site.snapshots()[0]}", "keep_for": None, "wait": None, "dry_run": None})
    site.next_hour()
    assert site.status()["kept"] == len(site.snapshots()) == 3


def test_a_schedule_of_a_pool_covers_every_volume_and_new_ones(fake, site, monkeypatch):
    monkeypatch.setattr(scheduler_module, "_LOT", 3)
    for number in range(1, 8):
        a_volume(fake, number, f"pvc-{number}")
    a_volume(fake, 50, "elsewhere", "rbd/ns1")
    fake.reserve(fake.where(), Kind.VOLUME, "half-made", uuid_of(60))
    site.add("rbd", keep="2n")
    site.next_hour()
    assert len(site.snapshots()) == 7
    a_volume(fake, 9, "pvc-9")
    site.next_hour()
    site.next_hour()
    assert len(site.snapshots()) == 16
    assert site.snapshots("rbd/ns1") == []
    row = site.status("rbd")
    assert (row["target"], row["volume"], row["taken"], row["kept"], row["made"]) == ("rbd", None, 8, 16, 23)
    (mine,) = site("status", pool_spec="rbd/pvc-9")
    assert (mine["target"], mine["kept"]) == ("rbd", 2)
    assert site.health() == []


def test_many_at_once_are_spread_over_the_workers(fake, start):
    mgr = start(workers=4)
    site = Site(mgr)
    for number in range(1, 61):
        a_volume(fake, number, f"pvc-{number}")
        site.add(f"rbd/pvc-{number}")
    site.next_hour()
    assert len(site.snapshots()) == 60
    assert len(mgr.engine._workers._threads) <= 4


def test_a_volume_that_is_gone_is_told_and_holds_up_nothing(fake, site):
    gone, _ = a_volume(fake), a_volume(fake, 2, "pvc-2")
    first = site.add("rbd/pvc-1")
    site.add("rbd/pvc-2")
    do(fake, RemoveVolume(gone.where, gone.name, gone.uuid))
    site.next_hour()
    assert len(site.snapshots()) == 1
    row = site.status("rbd/pvc-1")
    assert (row["state"], row["exists"], row["taken"], row["failed"]) == ("failing", False, 0, 1)
    assert "does not exist" in row["error"]
    (line,) = site.health()
    assert line.startswith("volume rbd/pvc-1, every 1h: 1 failed at ")
    assert len(site("rm", pool_spec=first["handle"])["removed"]) == 1
    site.run()
    assert site.health() == []
    assert site("status", pool_spec="rbd/pvc-1")["error"]["code"] == "not_found"


def test_what_fails_is_tried_again_and_clears_by_itself(fake, site):
    a_volume(fake)
    site.add()
    fake.fail_on("cut", NoSpace("pool 'rbd' is full"), times=2)
    due = site.next_hour()
    row = site.status()
    assert (row["state"], row["failed"], row["error"]) == ("failing", 1, "no_space: pool 'rbd' is full")
    assert len(site.health()) == 1
    site.run()
    assert site.status()["failed"] == 1
    fake.now = due + 61
    site.run()
    assert site.status()["state"] == "failing"
    fake.now = due + 61 + 121
    site.run()
    assert site.health() == []
    assert (site.status()["state"], site.status()["taken"], len(site.snapshots())) == ("waiting", 1, 1)


@pytest.mark.parametrize("target", ["rbd", "rbd/pvc-1"])
def test_a_pool_that_takes_not_even_a_record_is_told(fake, site, target):
    a_volume(fake)
    site.add(target)
    # Neither the snapshot's uuid nor, that often, the end of the run can be written.
    fake.fail_on("put_records", NoSpace("pool 'rbd' is full"), times=4)
    due = site.next_hour()
    assert site.records("run.") == {}
    assert (site.status(target)["state"], site.snapshots()) == ("failing", [])
    assert len(site.health()) == 1
    site.run()
    assert len(site.health()) == 1
    fake._failures.clear()
    fake.now = due + 61
    site.run()
    assert (site.status(target)["state"], site.status(target)["made"], len(site.snapshots())) == ("waiting", 1, 1)
    assert site.health() == []


def test_a_lost_connection_is_nobodys_failure(fake, site):
    a_volume(fake)
    site.add()
    fake.fail_on("put_records", Disconnected("blocklisted"))
    site.next_hour()
    assert site.health() == []
    assert site.status()["failed"] == 0
    site.run()
    assert site.status()["made"] == 1


def test_of_a_pool_only_the_failed_volumes_are_tried_again(fake, site):
    for number in range(1, 5):
        a_volume(fake, number, f"pvc-{number}")
    site.add("rbd")
    fake.fail_on("cut", NoSpace("pool 'rbd' is full"))
    due = site.next_hour()
    row = site.status("rbd")
    assert (row["taken"], row["failed"]) == (3, 1)
    assert row["failures"][0]["error"].startswith("no_space")
    fake.calls.clear()
    fake.now = due + 61
    site.run()
    assert fake.calls.count("cut") == 1
    assert (site.status("rbd")["taken"], site.status("rbd")["failed"], site.status("rbd")["made"]) == (4, 0, 4)
    assert site.health() == []


def test_a_snapshot_that_cannot_be_pruned_is_told(fake, site):
    a_volume(fake)
    site.add(keep="1n")
    site.next_hour()
    fake.fail_on("trash", VdiskError("odd"))
    due = site.next_hour()
    assert site.status()["state"] == "failing"
    assert len(site.snapshots()) == 2
    fake.now = due + 61
    site.run()
    assert len(site.snapshots()) == 1
    assert site.health() == []


def test_an_image_that_hangs_holds_up_only_itself_and_gathers_nothing(fake, start, monkeypatch):
    site = Site(start())

    def clock():
        """A run's patience is at its end as soon as the other volume has its snapshot."""
        done = any(op.answered and op.request.creates for op in site.mgr.engine.operations())
        return 2 * runs_module.PATIENCE if done else 0.0

    monkeypatch.setattr(runs_module, "time", SimpleNamespace(monotonic=clock))
    monkeypatch.setattr(runs_module, "_LOOK", 0.01)
    a_volume(fake)
    a_volume(fake, 2, "pvc-2")
    site.add("rbd")
    fake.hook = gate = Gate("cut")
    due = site.next_hour()
    gate.reach()
    assert (site.status("rbd")["taken"], site.status("rbd")["failed"]) == (1, 1)
    site.next_hour()
    assert (site.status("rbd")["taken"], site.status("rbd")["failed"]) == (1, 1)
    assert "still under way" in site.status("rbd")["error"]
    assert len(site.mgr.engine.operations()) == 4  # the schedule, two of one volume, the one that hangs
    gate.open()
    site.mgr.quiet()
    site.next_hour()
    assert site.health() == []
    assert len(site.snapshots()) == 5
    assert due


def test_pruned_snapshots_can_be_undeleted_with_the_option(fake, start):
    site = Site(start(keep_for=DAY))
    a_volume(fake)
    site.add(keep="1n")
    site.next_hour()
    (first,) = site.snapshots()
    site.next_hour()
    trash = site.mgr.trash.listed(fake.where())
    assert [row["name"] for row in trash] == [first]
    handlers = site.handlers
    handlers.trash_restore({"id": trash[0]["handle"], "new_name": None, "wait": None, "dry_run": None})
    site.next_hour()
    assert first in site.snapshots()
    assert len(site.snapshots()) == 2


# -- changing schedules ----------------------------------------------------------------------------------------------


def test_adding_again_changes_the_retention_and_nothing_else(fake, site):
    a_volume(fake)
    first = site.add()
    for _ in range(4):
        site.next_hour()
    assert site.add() == first
    again = site.add(keep="2n")
    assert again == {**first, "keep": "2n"}
    site.next_hour()
    assert len(site.snapshots()) == 2
    assert [row["keep"] for row in site("ls")] == ["2n"]


def test_other_intervals_and_start_times_are_other_schedules(fake, site):
    a_volume(fake)
    for interval, start in (("1h", None), ("60m", None), ("1d", "03:00"), ("1d", "05:00+02:00"), ("1d", "04:00")):
        site.add(interval=interval, **({"start_time": start} if start else {}))
    rows = site("ls", pool_spec="rbd/pvc-1")
    assert [(row["interval"], row["start_time"]) for row in rows] == [
        ("1d", "03:00:00"),
        ("1d", "04:00:00"),
        ("1h", None),
    ]
    assert [
        row["start_time"] for row in site("rm", pool_spec="rbd/pvc-1", interval="1d", start_time="04:00")["removed"]
    ]
    assert len(site("rm", pool_spec="rbd/pvc-1", interval="24h")["removed"]) == 1
    assert len(site("rm", pool_spec="rbd/pvc-1")["removed"]) == 1
    assert site("rm", pool_spec="rbd/pvc-1") == {"removed": []}
    assert site("ls") == []


def test_a_removed_schedule_leaves_its_snapshots_and_nothing_of_itself(fake, site):
    a_volume(fake)
    site.add(keep="3n")
    for _ in range(3):
        site.next_hour()
    shown = site("rm", pool_spec="rbd/pvc-1", dry_run=True)
    assert [step["step"] for step in shown["steps"]] == [
        "erase-record",
        "answer",
        "erase-record",
        "erase-records",
    ]
    assert len(site("ls")) == 1
    site("rm", pool_spec="rbd/pvc-1")
    site.mgr.quiet()
    assert site.records("") == {}
    assert len(site.snapshots()) == 3
    site.add(keep="1n")
    site.next_hour()
    site.next_hour()
    assert len(site.snapshots()) == 4


def test_a_schedule_removed_in_mid_run_records_nothing_more(fake, site):
    for number in range(1, 4):
        a_volume(fake, number, f"pvc-{number}")
    site.add("rbd")
    fake.hook = hook = _Once("cut", lambda: site("rm", pool_spec="rbd"))
    site.next_hour()
    site.mgr.quiet()
    assert hook.done
    assert not site.records("run.")
    assert not site.records("schedule.")
    assert site.mgr.scheduler._under_way == set()


class _Once:
    """A hook that does something the first time that a call is about to be made."""

    def __init__(self, method, action):
        self.method, self.action, self.done = method, action, False

    def __call__(self, method, moment):
        if method == self.method and not self.done:
            self.done = True
            self.action()


def test_dry_run_and_wait(fake, site):
    a_volume(fake)
    shown = site("add", pool_spec="rbd/pvc-1", interval="1h", dry_run=True)
    assert [step["step"] for step in shown["steps"]] == ["put-record", "answer"]
    assert site("ls", pool_spec="rbd") == []
    fake.hook = gate = Gate("put_records")
    pending = site("add", pool_spec="rbd/pvc-1", interval="1h", wait=0)
    assert (pending["state"], pending["interval"]) == ("pending", "1h")
    gate.open()
    site.mgr.quiet()
    assert site("ls", pool_spec="rbd")[0]["id"] == pending["id"]


@pytest.mark.parametrize(
    ("args", "code"),
    [
        ({"interval": "soon"}, "invalid_argument"),
        ({"interval": "0m"}, "invalid_argument"),
        ({"interval": "999999999d"}, "out_of_range"),
        ({"start_time": "noon"}, "invalid_argument"),
        ({"keep": "all"}, "invalid_argument"),
        ({"pool_spec": "rbd/nothing"}, "not_found"),
        ({"pool_spec": "nothing"}, "not_found"),
        ({"pool_spec": "rbd/a/b/c"}, "invalid_argument"),
        ({"pool_spec": "0101-nonsense"}, "invalid_argument"),
    ],
)
def test_bad_input_changes_nothing(fake, site, args, code):
    a_volume(fake)
    fake.calls.clear()
    answer = site("add", **{"pool_spec": "rbd/pvc-1", "interval": "1h", **args})
    assert answer["error"]["code"] == code
    assert fake.calls == []


def test_records_that_cannot_be_read_are_kept_and_told(fake, site):
    volume = a_volume(fake)
    site.add()
    space = fake.space(volume.where)
    (key,) = space.records[Store.SCHEDULES]
    newer = json.dumps({"v": 2, "what": "ever"})
    space.records[Store.SCHEDULES][key] = newer
    site.next_hour()
    assert site.snapshots() == []
    (line,) = site.health()
    assert key in line
    assert site.status()["state"] == "unreadable"
    assert site("ls")[0]["unreadable"] == key
    assert site("add", pool_spec="rbd/pvc-1", interval="1h")["error"]["code"] == "unsupported"
    assert site("rm", pool_spec="rbd/pvc-1") == {"removed": []}
    assert space.records[Store.SCHEDULES] == {key: newer}


@pytest.mark.parametrize("prefix", ["run.", "made."])
def test_a_damaged_record_of_a_run_or_of_snapshots_stops_the_schedule_only(fake, site, prefix):
    volume, _ = a_volume(fake), a_volume(fake, 2, "pvc-2")
    site.add(keep="1n")
    site.add("rbd/pvc-2")
    site.next_hour()
    before = site.snapshots()
    store = fake.space(volume.where).records[Store.SCHEDULES]
    ident = site.status()["id"]
    key = f"run.{ident}" if prefix == "run." else f"made.{ident}.{volume.uuid}"
    store[key] = "{damaged"
    site.next_hour()
    assert store[key] == "{damaged"
    assert set(before) < set(site.snapshots())
    assert len(site.snapshots()) == 3
    assert len(site.health()) == 1
    assert site.status()["state"] in ("unreadable", "failing")
    assert site.status("rbd/pvc-2")["state"] == "waiting"


# -- tenants ---------------------------------------------------------------------------------------------------------


def test_tenants_see_and_change_their_own_only(fake, site):
    a_volume(fake)
    a_volume(fake, 2, "mine", "rbd/ns1")
    tenant = Site(site.mgr, lambda args: args.get("namespace") == "ns1")
    site.add()
    theirs = site.add("rbd")
    mine = tenant.add("rbd/ns1/mine")
    tenant.add("rbd/ns1", interval="1d")
    assert [row["target"] for row in site("ls")] == ["rbd", "rbd/pvc-1", "rbd/ns1", "rbd/ns1/mine"]
    assert [row["target"] for row in tenant("ls")] == ["rbd/ns1", "rbd/ns1/mine"]
    assert [row["target"] for row in tenant("status")] == ["rbd/ns1", "rbd/ns1/mine"]
    for words, args in (
        ("ls", {}),
        ("status", {}),
        ("rm", {}),
        ("add", {"interval": "1h"}),
    ):
        for target in ("rbd", "rbd/pvc-1", site.mgr.service.handle(fake.where(), uuid_of(1)), "other"):
            assert tenant(words, pool_spec=target, **args)["error"]["code"] == "denied", (words, target)
    assert theirs["handle"] is None
    assert len(tenant("rm", pool_spec=mine["handle"])["removed"]) == 1
    assert len(site("ls")) == 3


# -- crashes ---------------------------------------------------------------------------------------------------------


def stage():
    """A cluster with two volumes under a schedule of the pool that has held one snapshot of each, and is due again."""
    fake = FakeCluster()
    for number in (1, 2):
        a_volume(fake, number, f"pvc-{number}")
    mgr = Mgr(fake)
    site = Site(mgr)
    site.add("rbd", keep="1n")
    site.next_hour()
    mgr.quiet()
    mgr.stop()
    fake.now = upcoming(60, None, fake.now)
    return fake


def crashed(fake, number):
    """Run what is due and let the mgr die at a moment; returns whether it came so far."""
    mgr = Mgr(fake)

    def die():
        mgr.scheduler._stopping = True
        mgr.session.kill()

    fake.hook = hook = CrashAt(number, also=die)
    try:
        mgr.scheduler.look(fake.where())
        live = mgr.engine._book.live
        mgr.until(lambda: mgr.session.dead or (not live and mgr.idle()), "the end or the crash")
    except Crash:
        pass
    finally:
        fake.hook = None
        mgr.kill()
    return number < len(hook.seen)


def test_a_crash_anywhere_in_a_run_has_no_second_effect(short_pauses, monkeypatch):
    monkeypatch.setattr(runs_module, "_LOOK", 0.002)
    number = 0
    while True:
        fake = stage()
        due = latest(60, None, fake.now)
        if not crashed(fake, number):
            break
        mgr = Mgr(fake)
        try:
            mgr.engine.recover()
            site = Site(mgr)
            site.run()
            mgr.quiet()
            fake.run_tasks()
            mgr.quiet()
            row = site.status("rbd")
            assert len(site.snapshots()) == 2, number
            assert (row["state"], row["taken"], row["kept"], row["made"]) == ("waiting", 2, 2, 4), number
            held = [found["snaps"] for found in site.records("made.").values()]
            directory = fake.space(fake.where()).directories[Kind.SNAPSHOT]
            assert sorted(snaps[0][1] for snaps in held) == sorted(directory.values())
            assert {snaps[0][0] for snaps in held} == {due}
            assert faults(fake) == [], number
        finally:
            mgr.stop()
        number += 1
    assert number > 30


def test_two_years_with_restarts_stops_and_failures(fake, start):
    """The whole engine, on a clock that is turned: what is held in the end is what the retention says."""
    a_volume(fake)
    a_volume(fake, 2, "pvc-2")
    do(fake, snapshot_request(fake, "csi-vol-" + uuid_of(1), "by-hand", 77))
    site = Site(start())
    site.add("rbd", "1d", start_time="03:00", keep="7d4w6m1y")
    begin, taken = fake.now, []
    keep = parse_retention("7d4w6m1y")
    held = set()
    day = 0
    while day < 730:
        stop = 12 if day % 97 == 96 else 1
        day += stop
        fake.now = latest(1440, 180, begin) + day * DAY + 5
        if day % 50 == 0:
            site.mgr.stop()
            site = Site(start())
        if day % 31 == 0:
            fake.fail_on("cut", NoSpace("pool 'rbd' is full"))
            site.run()
            assert site.health()
            fake.now += 61
        site.run()
        due = latest(1440, 180, fake.now)
        taken.append(due)
        held = keep.keeps(held | {due})
    site.mgr.quiet()
    fake.run_tasks()
    assert len(taken) < 730
    for number in (1, 2):
        (made,) = (found for key, found in site.records("made.").items() if key.endswith(uuid_of(number)))
        assert {at for at, _ in made["snaps"]} == held
    assert len(site.snapshots()) == 2 * len(held) + 1
    assert "by-hand" in site.snapshots()
    row = site.status("rbd")
    assert (row["made"], row["kept"], row["state"]) == (2 * len(taken), 2 * len(held), "waiting")
    assert site.health() == []
    assert faults(fake) == []


# -- threads ---------------------------------------------------------------------------------------------------------


def test_the_scheduler_runs_by_itself(fake, site):
    a_volume(fake)
    mgr = site.mgr
    mgr.scheduler.start()
    site.add(keep="2n")
    for number in range(1, 5):
        fake.now = upcoming(60, None, fake.now)
        mgr.until(lambda number=number: site_made(fake) == number, f"run {number}")
    mgr.until(lambda: len(site.snapshots()) == 2, "pruning")
    fake.fail_on("cut", NoSpace("full"))
    fake.now = upcoming(60, None, fake.now)
    mgr.until(lambda: bool(site.health()), "the warning")
    fake.now += 61
    mgr.until(lambda: not site.health(), "the end of the warning")
    assert [row["target"] for row in site("ls")] == ["rbd/pvc-1"]


def site_made(fake):
    """Return how many snapshots a schedule says it has made."""
    store = fake.space(fake.where()).records[Store.SCHEDULES]
    return sum(json.loads(text)["taken"] + json.loads(text)["made"] for key, text in store.items() if key[:4] == "run.")


def test_a_pool_that_cannot_be_read_is_read_later_and_holds_up_no_other(fake, site, monkeypatch):
    monkeypatch.setattr(scheduler_module, "_AGAIN", 0.01)
    fake.add_pool("other")
    a_volume(fake)
    a_volume(fake, 2, "pvc-2", "other")
    site.add()
    site.add("other/pvc-2")
    fake.fail_on("survey_records", NotReady("the pool hangs"), times=3, moment="read")
    site.mgr.scheduler.start()
    fake.now = upcoming(60, None, fake.now)
    site.mgr.until(lambda: bool(site.snapshots()) and bool(site.snapshots("other")), "both snapshots")
    fake.remove_pool("other")
    site.mgr.scheduler.scan()
    assert [str(where) for where in site.mgr.scheduler.places(PATIENCE)[0]] == ["rbd"]


def test_a_list_of_all_says_what_it_does_not_know_yet(fake, mgr, monkeypatch):
    tenant = Site(mgr, lambda args: args.get("pool") == "rbd")
    assert tenant("ls") == []
    fake.add_pool("hangs")
    mgr.scheduler.scan()
    assert tenant("ls") == []
    site = Site(mgr)
    mgr.scheduler._known[fake.where("hangs").pool_id, ""].read = False
    assert site("ls")["error"]["code"] == "not_ready"
    assert "hangs" in site("status")["error"]["message"]
    assert tenant("status") == []
    mgr.scheduler._scanned = False
    assert tenant("ls")["error"]["code"] == "not_ready"


def test_a_clock_from_the_environment(tmp_path):
    path = tmp_path / "clock"
    clock = from_environment({"VDISK_SCHEDULE_CLOCK": f"@{path}"})
    assert clock.now() > 1.7e9
    path.write_text("12.5")
    assert clock.now() == 12.5
    assert from_environment({}) == Clock()
    with pytest.raises(ValueError, match="@<file>"):
        from_environment({"VDISK_SCHEDULE_CLOCK": "12.5"})


def test_a_check_finds_nothing_wrong_with_schedules(fake, site):
    volume = a_volume(fake)
    site.add(keep="1n")
    site.next_hour()
    site.next_hour()
    site.mgr.quiet()
    fake.run_tasks()
    site.mgr.quiet()
    assert site.mgr.checks.check(volume.where, Wish(), PATIENCE)["findings"] == []


def test_the_journal_instance_that_a_schedule_was_made_for_stays_its_own(fake, start):
    instance = ["default"]
    site = Site(start(journal=lambda: instance[0]))
    do(fake, CreateVolume(replace(fake.where(), journal="default"), "pvc-1", uuid_of(1), 1 << 30, Layout()))
    site.add("rbd")
    instance[0] = "other"
    site.next_hour()
    assert len(site.snapshots()) == 1
