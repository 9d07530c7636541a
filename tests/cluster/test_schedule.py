"""Snapshot schedules on real clusters, on a clock that the tests turn: runs, pruning, restarts, failures, tenants.

A cluster of this file's own, because its mgrs go by the time that a file says (``VDISK_SCHEDULE_CLOCK``).
"""

import contextlib
import itertools
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import rbd

from cluster.support import MIB, Vdisk, image_names, image_spec, journal, omap, opened, set_omap, trash, write_image
from cluster.test_crash import lighten
from cluster.test_faults import wait_full
from cluster.test_removal import make
from harness.cluster import Cluster
from harness.config import FAST
from harness.releases import ensure_root
from harness.wait import wait_for
from vdisk.model.timing import latest, parse_retention, upcoming

CODE = "VDISK_SCHEDULE_FAILING"
HOUR, DAY = 3600.0, 86400.0
#: A Monday, 2024-01-01 00:00:10 UTC.
BEGIN = 1704067210.0
_numbers = itertools.count(1)


@dataclass
class Timed:
    """A cluster whose schedules go by the test's clock, and vdisk's commands."""

    cluster: Cluster
    vdisk: Vdisk
    now: float = BEGIN

    def turn(self, now: float) -> None:
        """Turn the clock; it never shows anything in between."""
        self.now = now
        path = self.cluster.dir / "clock"
        fresh = path.with_suffix(".new")
        fresh.write_text(repr(now))
        os.replace(fresh, path)

    def next(self, minutes: int = 60, start: int | None = None) -> float:
        """Turn the clock to when a schedule is due next, and return that."""
        self.turn(upcoming(minutes, start, self.now) + 1)
        return latest(minutes, start, self.now)

    def status(self, target: str) -> dict[str, Any]:
        """Return the status of a target's one schedule."""
        (row,) = self.vdisk("schedule status", pool_spec=target)
        found: dict[str, Any] = row
        return found

    def until(self, target: str, timeout: float = 20, **wanted: Any) -> dict[str, Any]:
        """Wait until a schedule's status has such values."""

        def look() -> dict[str, Any] | None:
            row = self.status(target)
            assert all(row[name] == value for name, value in wanted.items()), row
            return row

        return wait_for(look, timeout, f"the schedule of {target} has {wanted}", interval=0.02)

    def shots(self, spec: str) -> list[str]:
        """Return the names of all snapshots of a pool or namespace."""
        return [row["name"] for row in self.vdisk("snap ls", pool_spec=spec)]

    def restart(self) -> None:
        """Have the other mgr take over."""
        self.cluster.fail_mgr()
        self.cluster.wait_module()
        self.vdisk.until("schedule ls")

    def health(self) -> list[str]:
        """Return the lines of the schedules' health check, muted or not."""
        checks = self.cluster.health()["checks"]
        return [line["message"] for line in checks.get(CODE, {}).get("detail", [])]


@pytest.fixture(scope="module")
def timed(release_name: str) -> Iterator[Timed]:
    """Start the cluster of this file."""
    ensure_root(release_name)
    cluster = Cluster(release_name, mgrs=2, conf={**FAST, "mgr_stats_period": 1})
    for daemon in cluster.mgrs.values():
        daemon.env["VDISK_SCHEDULE_CLOCK"] = f"@{cluster.dir / 'clock'}"
        daemon.env["VDISK_FAILPOINT"] = f"@{cluster.dir / 'failpoint'}"
    made = Timed(cluster, Vdisk(cluster))
    made.turn(BEGIN)
    with cluster:
        lighten(cluster)
        # rbd_support and vdisk would take the lock of the volume from each other, half a second each time.
        cluster.ceph("config", "set", "mgr", "mgr/vdisk/reaper_window", "0")
        cluster.ceph("config", "set", "mgr", "mgr/vdisk/check_interval", "0")
        yield made


@pytest.fixture
def new_pool(timed: Timed) -> Iterator[Callable[[], str]]:
    """Make pools with a namespace ``ns1``, and remove them after the test."""
    made: list[str] = []

    def create() -> str:
        made.append(f"pool{next(_numbers)}")
        timed.cluster.create_pool(made[-1], namespaces=["ns1"])
        return made[-1]

    yield create
    for name in made:
        timed.cluster.delete_pool(name)


@pytest.fixture(params=["", "/ns1"], ids=["plain", "namespaced"])
def spec(request: pytest.FixtureRequest, new_pool: Callable[[], str]) -> str:
    """Once a pool, once a namespace of one."""
    return f"{new_pool()}{request.param}"


def test_a_schedule_runs_and_prunes_and_leaves_the_rest_alone(timed: Timed, spec: str) -> None:
    vdisk = timed.vdisk
    volume = make(vdisk, spec, "pvc", size=str(8 * MIB))
    vdisk("snap create", image_spec=image_spec(volume), snap_name="by-hand")
    added = vdisk("schedule add", pool_spec=f"{spec}/pvc", interval="60m", keep="3n")
    assert list(added) == [
        *("id", "target", "pool", "namespace", "volume", "handle", "exists"),
        *("interval", "start_time", "keep", "created_at"),
    ]
    assert (added["target"], added["interval"], added["keep"]) == (f"{spec}/pvc", "1h", "3n")
    assert vdisk("schedule add", pool_spec=volume["handle"], interval="1h", keep="3n") == added
    assert vdisk("schedule ls", pool_spec=spec) == [added]
    # What looks like a snapshot of the schedule's, by its name.
    imitation = f"scheduled-2020-01-01-00_00_UTC-{added['id']}-{volume['uuid']}"
    vdisk("snap create", image_spec=image_spec(volume), snap_name=imitation)
    names: set[str] = set()
    for number in range(1, 5):
        write_image(timed.cluster, spec, volume["image"], str(number).encode())
        timed.next()
        timed.until(f"{spec}/pvc", made=number, kept=min(number, 3), state="waiting")
        names |= {name for name in timed.shots(spec) if name not in ("by-hand", imitation)}
    ordered = sorted(names)
    assert len(ordered) == 4
    assert timed.shots(spec) == sorted(["by-hand", imitation, *ordered[1:]])
    restored = vdisk("volume restore", snapshot=f"{spec}/{ordered[1]}", name="restored")
    with opened(timed.cluster, spec) as ioctx, rbd.Image(ioctx, restored["image"], read_only=True) as image:
        assert bytes(image.read(0, 1)) == b"2"
    row = timed.status(f"{spec}/pvc")
    assert (row["last_run"], row["last_good"], row["latest"], row["failed"]) == (*(row["last_run"],) * 3, 0)
    removed = vdisk("schedule rm", pool_spec=f"{spec}/pvc")["removed"]
    assert [(item["target"], item["interval"]) for item in removed] == [(f"{spec}/pvc", "1h")]
    vdisk.drained(spec)
    with opened(timed.cluster, spec) as ioctx:
        assert omap(ioctx, "vdisk.schedules") == {}
    assert len(timed.shots(spec)) == 5
    found = vdisk("check", pool_spec=spec, wait=30)
    assert found["findings"] == []
    for name in timed.shots(spec):
        vdisk("snap rm", snapshot=f"{spec}/{name}")
    for name in ("restored", "pvc"):
        vdisk("volume rm", volume=f"{spec}/{name}")
    vdisk.drained(spec)
    assert image_names(timed.cluster, spec) == []
    assert trash(timed.cluster, spec) == {}
    assert not any(journal(timed.cluster, spec).values())


def test_a_pool_with_new_volumes_a_restart_and_missed_runs(timed: Timed, new_pool: Callable[[], str]) -> None:
    vdisk, pool = timed.vdisk, new_pool()
    for number in range(6):
        make(vdisk, pool, f"pvc-{number}", size="4M")
    make(vdisk, f"{pool}/ns1", "elsewhere", size="4M")
    vdisk("schedule add", pool_spec=pool, interval="1d", start_time="05:00+02:00", keep="7d")
    assert timed.status(pool)["start_time"] == "03:00:00"
    timed.next(1440, 180)
    timed.until(pool, made=6, taken=6, kept=6)
    make(vdisk, pool, "pvc-new", size="4M")
    # The mgr goes away at the very moment, and for weeks.
    timed.turn(timed.now + 20 * DAY)
    timed.restart()
    timed.until(pool, made=13, taken=7, kept=13, state="waiting")
    assert len(timed.shots(pool)) == 13
    assert timed.shots(f"{pool}/ns1") == []
    (mine,) = vdisk("schedule status", pool_spec=f"{pool}/pvc-new")
    assert (mine["target"], mine["kept"]) == (pool, 1)
    timed.restart()
    assert timed.status(pool)["made"] == 13
    timed.next(1440, 180)
    timed.until(pool, made=20, kept=20)
    assert timed.health() == []


@pytest.mark.parametrize("step", ["store-image-id", "trash-image"])
def test_a_mgr_that_dies_in_mid_run(timed: Timed, new_pool: Callable[[], str], step: str) -> None:
    """Every volume gets one snapshot of a due time, wherever the mgr is killed, and what is pruned is gone."""
    vdisk, cluster, pool = timed.vdisk, timed.cluster, new_pool()
    for number in range(4):
        make(vdisk, pool, f"pvc-{number}", size="4M")
    vdisk("schedule add", pool_spec=pool, interval="1h", keep="1n")
    timed.next()
    timed.until(pool, made=4, kept=4)
    vdisk.drained(pool)
    active = cluster.mgrs[cluster.active_mgr()]
    failpoint = cluster.dir / "failpoint"
    failpoint.with_suffix(".new").write_text(f"{step}:after:kill")
    failpoint.with_suffix(".new").rename(failpoint)
    timed.next()
    wait_for(lambda: not active.running, 20, f"the mgr dies after {step}", interval=0.01)
    failpoint.unlink()
    active.start()
    cluster.wait_module()
    vdisk.until("schedule ls", pool_spec=pool)
    row = timed.until(pool, made=8, kept=4, state="waiting")
    assert (row["taken"], row["failed"]) == (4, 0)
    vdisk.drained(pool)
    assert len(timed.shots(pool)) == 4
    assert len(image_names(cluster, pool)) == 8
    assert trash(cluster, pool) == {}


def test_two_years_with_restarts_and_absence(timed: Timed, new_pool: Callable[[], str]) -> None:
    vdisk, pool = timed.vdisk, new_pool()
    make(vdisk, pool, "pvc", size="4M")
    vdisk("schedule add", pool_spec=f"{pool}/pvc", interval="10d", keep="2n3w6m1y")
    keep, held, taken, number = parse_retention("2n3w6m1y"), set[float](), 0, 0
    while number < 73:
        step = 9 if number == 30 else 1
        timed.turn(timed.now + step * 10 * DAY)
        number += step
        if number in (20, 60):
            timed.restart()
        due, taken = latest(10 * 1440, None, timed.now), taken + 1
        held = keep.keeps(held | {due})
        row = timed.until(f"{pool}/pvc", made=taken, kept=len(held), state="waiting")
        assert row["failed"] == 0
    with opened(timed.cluster, pool) as ioctx:
        found = {key: json.loads(value) for key, value in omap(ioctx, "vdisk.schedules").items()}
    (made,) = (value for key, value in found.items() if key.startswith("made."))
    assert {due for due, _ in made["snaps"]} == held
    assert len(held) > 8
    uuids = sorted(uuid for _, uuid in made["snaps"])
    assert sorted(row["uuid"] for row in vdisk("snap ls", pool_spec=pool)) == uuids
    vdisk.drained(pool)
    assert trash(timed.cluster, pool) == {}
    assert len(image_names(timed.cluster, pool)) == len(held) + 1


def test_what_fails_is_a_health_warning_until_it_is_cured(timed: Timed, new_pool: Callable[[], str]) -> None:
    vdisk, cluster, pool = timed.vdisk, timed.cluster, new_pool()
    volume = make(vdisk, pool, "pvc", size="4M")
    gone = make(vdisk, pool, "gone", size="4M")
    # An image that cannot be snapshotted into a clone: a volume by adoption, without the layering feature.
    with opened(cluster, pool) as ioctx:
        rbd.RBD().create(ioctx, "plain", 4 * MIB, old_format=False, features=rbd.RBD_FEATURE_EXCLUSIVE_LOCK)
    vdisk("adopt", image_spec=f"{pool}/plain", name="plain")
    for name in ("pvc", "gone", "plain"):
        vdisk("schedule add", pool_spec=f"{pool}/{name}", interval="1h", keep="2n")
    vdisk("volume rm", volume=gone["handle"])
    timed.next()
    timed.until(f"{pool}/pvc", made=1, failed=0)
    row = timed.until(f"{pool}/plain", state="failing", failed=1, made=0)
    assert row["error"].startswith("unsupported: ")
    row = timed.until(f"{pool}/gone", state="failing", exists=False)
    assert row["error"].startswith("not_found: ")
    lines = wait_for(lambda: len(timed.health()) == 2 and timed.health(), 20, "the warning")
    assert lines[0].startswith(f"volume {pool}/gone, every 1h: 1 failed at ")
    assert "2 snapshot schedule(s)" in cluster.health()["checks"][CODE]["summary"]["message"]
    cluster.mon("health mute", code=CODE, ttl="1h")
    assert CODE in [mute["code"] for mute in cluster.health()["mutes"]]
    cluster.mon("health unmute", code=CODE)
    # A failover loses neither the warning nor the reason.
    timed.restart()
    wait_for(lambda: len(timed.health()) == 2, 20, "the warning after the failover")
    # The one is removed by the handle of what is gone, the other by name.
    assert len(vdisk("schedule rm", pool_spec=gone["handle"])["removed"]) == 1
    vdisk("release", volume=f"{pool}/plain")
    vdisk("schedule rm", pool_spec=f"{pool}/plain")
    wait_for(lambda: timed.health() == [], 20, "the end of the warning")
    assert volume["name"] == "pvc"


def test_what_failed_is_tried_again_before_the_next_run(timed: Timed, new_pool: Callable[[], str]) -> None:
    vdisk, cluster, pool = timed.vdisk, timed.cluster, new_pool()
    volume = make(vdisk, pool, "pvc", size="4M")
    vdisk("schedule add", pool_spec=f"{pool}/pvc", interval="1h")
    with opened(cluster, pool) as ioctx, contextlib.ExitStack() as undo:
        # Its header is taken away for a while: nothing that can be opened.
        header = f"rbd_header.{volume['image_id']}"
        kept = omap(ioctx, header)
        ioctx.remove_object(header)
        undo.callback(set_omap, ioctx, header, kept)
        timed.next()
        timed.until(f"{pool}/pvc", state="failing", failed=1)
        wait_for(timed.health, 20, "the warning")
    timed.turn(timed.now + 61)
    timed.until(f"{pool}/pvc", state="waiting", made=1, failed=0)
    wait_for(lambda: timed.health() == [], 20, "the end of the warning")


def test_a_full_pool_is_told_and_made_good(timed: Timed, new_pool: Callable[[], str]) -> None:
    """At its quota a pool takes no snapshot, no intent, and not even a record of the run."""
    vdisk, cluster, pool = timed.vdisk, timed.cluster, new_pool()
    make(vdisk, pool, "pvc", size="4M")
    vdisk("schedule add", pool_spec=f"{pool}/pvc", interval="1h")
    cluster.mon("osd pool set-quota", pool=pool, field="max_objects", val="3")
    wait_full(cluster, pool)
    timed.next()
    row = timed.until(f"{pool}/pvc", state="failing", made=0)
    assert row["error"].startswith("no_space: ")
    wait_for(timed.health, 20, "the warning")
    cluster.mon("osd pool set-quota", pool=pool, field="max_objects", val="0")
    wait_for(lambda: "POOL_FULL" not in cluster.health()["checks"], 60, "the pool has space again", interval=0.1)
    timed.turn(timed.now + 61)
    timed.until(f"{pool}/pvc", state="waiting", made=1, failed=0)
    wait_for(lambda: timed.health() == [], 20, "the end of the warning")


def test_records_of_another_version_are_kept(timed: Timed, new_pool: Callable[[], str]) -> None:
    vdisk, pool = timed.vdisk, new_pool()
    make(vdisk, pool, "pvc", size="4M")
    make(vdisk, pool, "other", size="4M")
    vdisk("schedule add", pool_spec=f"{pool}/pvc", interval="1h")
    newer = b'{"v": 2}'
    with opened(timed.cluster, pool) as ioctx:
        (key,) = omap(ioctx, "vdisk.schedules")
        set_omap(ioctx, "vdisk.schedules", {key: newer})
        vdisk("schedule add", pool_spec=f"{pool}/other", interval="1h")
        timed.next()
        timed.until(f"{pool}/other", made=1)
        assert timed.status(f"{pool}/pvc")["state"] == "unreadable"
        assert any(key in line for line in wait_for(timed.health, 20, "the warning"))
        assert vdisk.refused("schedule add", pool_spec=f"{pool}/pvc", interval="1h").code == "unsupported"
        assert omap(ioctx, "vdisk.schedules")[key] == newer
    assert len(timed.shots(pool)) == 1


def test_tenants_and_bad_input(timed: Timed, new_pool: Callable[[], str]) -> None:
    cluster, admin = timed.cluster, timed.vdisk
    mine, theirs = new_pool(), new_pool()
    cluster.auth("client.tenant", mon="allow r", mgr=f"allow module vdisk with pool={mine} rw")
    tenant = Vdisk(cluster, "client.tenant")
    volume = make(admin, theirs, "secret", size="4M")
    make(admin, mine, "pvc", size="4M")
    admin("schedule add", pool_spec=f"{theirs}/secret", interval="1h")
    admin("schedule add", pool_spec=f"{theirs}/ns1", interval="1d")
    tenant("schedule add", pool_spec=f"{mine}/pvc", interval="1h")
    assert [row["target"] for row in tenant("schedule ls")] == [f"{mine}/pvc"]
    assert [row["target"] for row in tenant("schedule status")] == [f"{mine}/pvc"]
    assert {f"{mine}/pvc", f"{theirs}/secret", f"{theirs}/ns1"} <= {row["target"] for row in admin("schedule ls")}
    for target in (theirs, f"{theirs}/ns1", f"{theirs}/secret", f"{theirs}/nothing", volume["handle"]):
        for words, args in (("add", {"interval": "1h"}), ("rm", {}), ("ls", {}), ("status", {})):
            assert tenant.refused(f"schedule {words}", pool_spec=target, **args).code == "denied"
    assert len(admin("schedule ls", pool_spec=theirs)) == 1
    for code, args in (
        ("invalid_argument", {"interval": "soon"}),
        ("invalid_argument", {"interval": "0h"}),
        ("invalid_argument", {"interval": 60}),
        ("invalid_argument", {"keep": "24"}),
        ("invalid_argument", {"keep": "0h"}),
        ("invalid_argument", {"start_time": "teatime"}),
        ("invalid_argument", {"pool_spec": ""}),
        ("invalid_argument", {"every": "1h"}),
        ("not_found", {"pool_spec": f"{mine}/nothing"}),
    ):
        assert tenant.refused("schedule add", **{"pool_spec": f"{mine}/pvc", "interval": "1h", **args}).code == code
    # As people type it, with the release's own tool.
    out = cluster.ceph(
        "vdisk", "schedule", "add", f"{mine}/pvc", "1d", "--start-time", "03:00", "--keep", "24h7d4w3m"
    ).out
    assert "24h7d4w3m" in out
    assert "03:00:00" in cluster.ceph("vdisk", "schedule", "ls", mine).out
    assert "waiting" in cluster.ceph("vdisk", "schedule", "status").out
    plan = cluster.ceph("vdisk", "schedule", "rm", f"{mine}/pvc", "1d", "03:00", "--dry-run", "--format", "json").out
    assert [item["start_time"] for item in json.loads(plan)["removed"]] == ["03:00:00"]
    cluster.ceph("vdisk", "schedule", "rm", f"{mine}/pvc", "1d")
    assert [row["interval"] for row in tenant("schedule ls", pool_spec=mine)] == ["1h"]
