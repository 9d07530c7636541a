"""The check on real clusters: a generator spoils a pool under live use, and the check finds exactly that and mends it.

`VDISK_CHECK_VOLUMES` says among how many healthy volumes (a dozen by default), `VDISK_CHECK_SPOILED` how many things
are spoiled besides one of each kind.
"""

import hashlib
import os
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import rbd

from cluster.corruption import Corruption, bystanders
from cluster.support import (
    CommandFailed,
    Vdisk,
    has_task_queue,
    image_spec,
    journal,
    opened,
    rbd_tasks,
    set_omap,
    write_image,
)
from cluster.test_guards import bounds
from cluster.test_vitals import health
from harness.cluster import Cluster
from harness.wait import wait_for

HEALTHY = int(os.environ.get("VDISK_CHECK_VOLUMES", "12"))
SPOILED = int(os.environ.get("VDISK_CHECK_SPOILED", "10"))


@pytest.fixture
def vdisk(cluster: Cluster) -> Iterator[Vdisk]:
    """vdisk's commands; what is a second old counts as old."""
    cluster.ceph("config", "set", "mgr", "mgr/vdisk/check_grace", "1")
    yield Vdisk(cluster)
    cluster.ceph("config", "set", "mgr", "mgr/vdisk/check_grace", "600")


def check(vdisk: Vdisk, spec: str, **args: Any) -> dict[str, Any]:
    """Check a pool."""
    result: dict[str, Any] = vdisk.until("check", 120, pool_spec=spec, wait=30, **args)
    return result


def pairs(result: dict[str, Any]) -> Counter[tuple[str, str]]:
    """Return (class, key) of what was found."""
    return Counter((item["class"], item["subject"]["key"]) for item in result["findings"])


class LiveUse:
    """Clients that create, snapshot, restore and remove without a pause while a check goes on."""

    def __init__(self, vdisk: Vdisk, spec: str, clients: int = 3) -> None:
        self.vdisk = vdisk
        self.spec = spec
        self.done = 0
        self.errors: list[BaseException] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._live, args=(number,)) for number in range(clients)]

    def __enter__(self) -> "LiveUse":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _live(self, client: int) -> None:
        turn = 0
        while not self._stop.is_set() and not self.errors:
            turn += 1
            name = f"live-{client}-{turn}"
            try:
                volume = self.vdisk.until("volume create", pool_spec=self.spec, name=name, size="4M")
                shot = self.vdisk.until("snap create", image_spec=image_spec(volume), snap_name=name)
                self.vdisk.until("volume restore", snapshot=shot["handle"], name=f"{name}-restored")
                self.vdisk.until("volume rm", volume=volume["handle"])
                self.vdisk.until("volume rm", volume=f"{self.spec}/{name}-restored")
                self.vdisk.until("snap rm", snapshot=shot["handle"])
            except CommandFailed as error:
                self.errors.append(error)
            self.done += 1


def healthy(cluster: Cluster, vdisk: Vdisk, spec: str, number: int) -> list[dict[str, Any]]:
    """Make healthy volumes with content; some are snapshotted, restored and cloned."""

    def make(at: int) -> list[dict[str, Any]]:
        volume = vdisk.until("volume create", pool_spec=spec, name=f"good-{at}", size="4M")
        write_image(cluster, spec, volume["image"], os.urandom(4096), at * 512)
        made = [volume]
        if at % 4 == 0:
            shot = vdisk.until("snap create", image_spec=image_spec(volume), snap_name=f"good-{at}")
            made.append(vdisk.sealed(shot["handle"]))
            made.append(vdisk.until("volume restore", snapshot=shot["handle"], name=f"good-restored-{at}"))
        if at % 6 == 0:
            made.append(vdisk.until("volume clone", volume=volume["handle"], name=f"good-cloned-{at}"))
        return made

    with ThreadPoolExecutor(8) as pool:
        return [thing for made in pool.map(make, range(number)) for thing in made]


def fingerprints(cluster: Cluster, spec: str, things: list[dict[str, Any]]) -> dict[str, str]:
    """Return a checksum of each thing's content, journal object and image."""
    entries = journal(cluster, spec)
    found = {}
    with opened(cluster, spec) as ioctx:
        for thing in things:
            kind = "volume" if thing["image"].startswith("csi-vol") else "snap"
            with rbd.Image(ioctx, thing["image"], read_only=True) as image:
                told = [
                    image.read(0, image.size()),
                    repr(sorted(entries[f"csi.{kind}.{thing['uuid']}"].items())).encode(),
                    entries[f"csi.{kind}s.default"][f"csi.{kind}.{thing['name']}"],
                    repr(
                        (image.id(), image.size(), image.features(), [s["name"] for s in image.list_snaps()])
                    ).encode(),
                ]
            found[thing["handle"]] = hashlib.sha256(b"\0".join(told)).hexdigest()
    return found


def mend(vdisk: Vdisk, spec: str) -> list[dict[str, Any]]:
    """Repair all: what is safe by itself, then the rest by id; returns what was repaired, and by which way."""
    repaired = []
    result = check(vdisk, spec, repair=True)
    for item in result["findings"]:
        assert item.get("outcome") == ("repaired" if item["automatic"] else None), item
        repaired += [item] if item["automatic"] else []
    for _ in range(4):
        result = check(vdisk, spec)
        idents = [item["id"] for item in result["findings"]]
        if not idents:
            return repaired
        told = check(vdisk, spec, repair=True, finding=",".join(idents))
        assert all(item["outcome"] == "repaired" for item in told["findings"]), told
        repaired += told["findings"]
    raise AssertionError(f"not clean after repairs: {result}")


def test_the_check_finds_all_that_was_spoiled_and_nothing_else(
    cluster: Cluster, vdisk: Vdisk, pool_spec: str, capsys: pytest.CaptureFixture[str]
) -> None:
    good = healthy(cluster, vdisk, pool_spec, HEALTHY)
    bystanders(cluster, pool_spec, good[1])
    before = fingerprints(cluster, pool_spec, good)
    corruption = Corruption(cluster, vdisk, pool_spec)
    with LiveUse(vdisk, pool_spec) as live:
        began = time.monotonic()
        clean = check(vdisk, pool_spec)
        assert clean["findings"] == []
        for kind in corruption.kinds():
            kind()
        corruption.random(SPOILED, seed=HEALTHY)
        expected = Counter(corruption.expected)

        def aged() -> bool:
            return time.monotonic() > spoiled_at + 1.5

        spoiled_at = time.monotonic()
        wait_for(aged, 10, "what was spoiled is older than check_grace", interval=0.1)
        result = check(vdisk, pool_spec)
        found = pairs(result)
        assert found == expected, f"missed {expected - found}, false {found - expected}"
        for item in result["findings"]:
            assert all(item[part] for part in ("objects", "cause", "repair", "risk", "evidence")), item
            assert item["held"] is None or item["held"] >= 0
        repaired = mend(vdisk, pool_spec)
        seconds = time.monotonic() - began
    assert not live.errors
    assert live.done > 0
    assert {item["class"] for item in repaired} == {trouble for trouble, _ in expected}
    assert fingerprints(cluster, pool_spec, good) == before
    if HEALTHY > 12:
        with capsys.disabled():
            print(
                f"\n{len(good)} healthy, {expected.total()} spoiled, {live.done} rounds of live use, {seconds:.0f} s: "
                f"{(found & expected).total()} found, {(found - expected).total()} false, "
                f"{(expected - found).total()} missed, {len(repaired)} repaired; checked {result['checked']}"
            )
    for item in vdisk("volume ls", pool_spec=pool_spec):
        assert item["state"] == "ready", item
    vdisk.drained(pool_spec)


def test_what_is_young_is_no_finding(cluster: Cluster, vdisk: Vdisk, pool: str) -> None:
    cluster.ceph("config", "set", "mgr", "mgr/vdisk/check_grace", "600")
    corruption = Corruption(cluster, vdisk, pool)
    corruption.make_reserved_without_image()
    corruption.make_image_id_missing()
    corruption.make_leftover_cut()
    corruption.make_leftover_temp()
    corruption.make_trash_orphan()
    corruption.make_snapshot_abandoned()
    assert check(vdisk, pool)["findings"] == []


def test_a_task_for_nothing_is_cancelled(cluster: Cluster, vdisk: Vdisk, pool: str) -> None:
    if not has_task_queue(cluster):
        pytest.skip("rbd_support cannot run tasks on this release's mgr")
    ident = Corruption(cluster, vdisk, pool).task_without_image()
    result = check(vdisk, pool)
    (item,) = result["findings"]
    assert item["class"] == "task_without_image"
    assert check(vdisk, pool, repair=True)["repaired"] == 1
    assert check(vdisk, pool)["findings"] == []
    assert ident not in [task["id"] for task in rbd_tasks(cluster)]


def test_what_is_only_told_of(cluster: Cluster, vdisk: Vdisk, pool: str) -> None:
    """Classes that no repair mends: bounds that come near, a directory of many keys, what another version began."""
    for option, value in (("large_journal_names", "3"), ("housekeeping_interval", "1")):
        cluster.ceph("config", "set", "mgr", f"mgr/vdisk/{option}", value)
    with bounds(cluster, clone_depth_soft=1, clone_depth_hard=3, snapshots_soft=2, snapshots_hard=4):
        volume = vdisk("volume create", pool_spec=pool, name="v0", size="4M")
        clone = vdisk("volume clone", volume=volume["handle"], name="v1")
        with opened(cluster, pool) as ioctx:
            cluster.rbd("snap", "create", f"{image_spec(clone)}@s")
            deep = f"csi-vol-{uuid.uuid4()}"
            cluster.rbd("clone", "--rbd-default-clone-format", "2", f"{image_spec(clone)}@s", f"{pool}/{deep}")
            with rbd.Image(ioctx, deep, read_only=True) as image:
                deep_id = image.id()
            with rbd.Image(ioctx, volume["image"]) as image:
                for name in "ab":
                    image.create_snap(name)
            vdisk("adopt", image_spec=f"{pool}/{deep}", name="v2")
            set_omap(ioctx, "vdisk.intents", {"of-another-version": b'{"v": 99}'})
        try:
            cluster.fail_mgr()
            cluster.wait_module()
            expected = Counter(
                {
                    ("depth_near_limit", deep_id): 1,
                    ("snapshots_near_limit", volume["image_id"]): 1,
                    ("large_directory", "csi.volumes.default"): 1,
                    ("intent_unreadable", "of-another-version"): 1,
                }
            )
            result = check(vdisk, pool)
            assert pairs(result) == expected
            assert all(item["cause"] and item["evidence"] and not item["automatic"] for item in result["findings"])
            assert check(vdisk, pool, repair=True)["left"] == 4, "none of these is anything to repair"
            near = {"VDISK_CLONE_DEPTH": f"{pool}/{deep} has 2 parents", "VDISK_SNAPSHOT_COUNT": volume["image"]}
            for code, told in near.items():
                wait_for(lambda code=code, told=told: told in str(health(cluster).get(code)), 20, f"{code} tells of it")
        finally:
            for option, value in (("large_journal_names", "150000"), ("housekeeping_interval", "60")):
                cluster.ceph("config", "set", "mgr", f"mgr/vdisk/{option}", value)
            with opened(cluster, pool) as ioctx:
                ioctx.remove_object("vdisk.intents")
            cluster.fail_mgr()
            cluster.wait_module()
    assert check(vdisk, pool)["findings"] == []


def test_a_check_runs_by_itself_and_tells_of_what_it_finds(cluster: Cluster, vdisk: Vdisk, pool: str) -> None:
    corruption = Corruption(cluster, vdisk, pool)
    corruption.make_reserved_without_image()
    for option, value in (("check_grace", "0"), ("check_interval", "1"), ("housekeeping_interval", "1")):
        cluster.ceph("config", "set", "mgr", f"mgr/vdisk/{option}", value)
    try:
        told = f"{pool}: 1 finding(s); see 'ceph vdisk check {pool}'"
        wait_for(lambda: told in cluster.ceph("health", "detail").out, 30, "it is found and told of")
        with opened(cluster, pool) as ioctx:
            ioctx.remove_object("csi.volumes.default")
            ioctx.remove_object(f"csi.volume.{corruption.expected[0][1]}")
        wait_for(lambda: f"{pool}: " not in cluster.ceph("health", "detail").out, 30, "the next check clears it")
    finally:
        for option, value in (("check_interval", "0"), ("housekeeping_interval", "60")):
            cluster.ceph("config", "set", "mgr", f"mgr/vdisk/{option}", value)


def test_the_command_explains_plans_and_refuses(cluster: Cluster, vdisk: Vdisk, pool: str) -> None:
    corruption = Corruption(cluster, vdisk, pool)
    corruption.make_object_without_key()
    corruption.make_image_without_journal()
    time_passed = time.monotonic() + 1.5
    wait_for(lambda: time.monotonic() > time_passed, 10, "it is older than check_grace", interval=0.1)
    answer = vdisk("check", pool_spec=pool, wait=0)
    result = answer
    if answer["state"] == "pending":  # it may be over at once
        wait_for(lambda: vdisk("op info", id=answer["operation"])["state"] == "done", 60, "the check is done")
        result = check(vdisk, pool)
        assert result["operation"] == answer["operation"]
    safe, unsafe = result["findings"]
    assert (safe["automatic"], unsafe["automatic"]) == (True, False)
    for item in result["findings"]:
        assert item["objects"]
        assert item["cause"]
        assert item["repair"]
        assert item["risk"]
        assert item["evidence"]
        assert "held" in item
    planned = check(vdisk, pool, finding=unsafe["id"])
    assert [step["step"] for step in planned["findings"][0]["steps"]] == [
        "reserve-name",
        "write-entry",
        "store-image-id",
    ]
    ret, out, _ = vdisk.raw("check", pool_spec=pool, repair=True, dry_run=True, wait=30)
    assert ret == 0
    assert "put the directory key of" in out
    assert vdisk.refused("check", pool_spec=pool, finding="nonsense").code == "invalid_argument"
    assert vdisk.refused("check", pool_spec=pool, finding="0123456789ab").code == "not_found"
    assert vdisk.refused("check", pool_spec="no-such-pool").code == "not_found"
    told = f"{pool}: 2 finding(s)"
    wait_for(lambda: told in cluster.ceph("health", "detail").out, 30, "the findings are in the health")
    repaired = check(vdisk, pool, repair=True, finding=unsafe["id"])
    assert repaired["repaired"] == 1
    assert check(vdisk, pool, repair=True)["left"] == 0
    gone = "the findings are out of the health"
    wait_for(lambda: f"{pool}: " not in cluster.ceph("health", "detail").out, 30, gone)
    handle = vdisk("volume info", volume=f"{pool}/csi-vol-{unsafe['subject']['key']}")["handle"]
    assert handle.endswith(unsafe["subject"]["key"])
