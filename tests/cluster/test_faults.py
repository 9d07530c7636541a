"""What happens around vdisk: OSDs that pause, full pools, pools that vanish, lock owners that do not answer, restarts.

The rest goes on, errors say why and come in bounded time, and nothing is left behind.

`VDISK_OSD_PAUSE` is for how many seconds an OSD is paused at least (0 by default: as long as the commands beside take).
"""

import concurrent.futures
import contextlib
import errno
import json
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import pytest
import rbd

from cluster import inventory
from cluster.support import MIB, Vdisk, mgr_log, objects, opened, set_omap, silent_owner
from cluster.test_crash import lighten
from harness.cli import CephError, CommandTimeout
from harness.cluster import Cluster
from harness.config import FAST
from harness.releases import ensure_root
from harness.wait import wait_for

SIZE = str(8 * MIB)
PAUSE = float(os.environ.get("VDISK_OSD_PAUSE", "0"))
BOUND = 60.0
"""Seconds within which every command has to be answered, whatever hangs: `read_timeout` is 2 s here.

What hangs does so until the test lets it go on, so an answer that waited for it would not come at all.
"""


@pytest.fixture(scope="module")
def faulty(release_name: str) -> Iterator[Cluster]:
    """A cluster of this file's own: two OSDs that keep their data when killed, and failpoints."""
    ensure_root(release_name)
    cluster = Cluster(release_name, osds=2, store="bluestore", conf={**FAST, "mgr_stats_period": 1})
    for daemon in cluster.mgrs.values():
        daemon.env["VDISK_FAILPOINT"] = f"@{cluster.dir / 'failpoint'}"
    with cluster:
        lighten(cluster)
        for name, value in (("read_timeout", "2"),):
            cluster.mon("config set", who="mgr", name=f"mgr/vdisk/{name}", value=value)
        yield cluster


@pytest.fixture
def new_pool(faulty: Cluster) -> Iterator[Callable[[], str]]:
    """A factory of pools, removed after the test unless they are gone already."""
    made: list[str] = []

    def create() -> str:
        made.append(f"p{uuid.uuid4().hex[:8]}")
        faulty.create_pool(made[-1])
        return made[-1]

    yield create
    for name in made:
        with contextlib.suppress(CephError):
            faulty.delete_pool(name)


def pinned(cluster: Cluster, pool: str, osd: int) -> str:
    """Have a pool live on one OSD alone, and wait until it does."""
    rule = f"on-{osd}"
    if rule not in cluster.mon("osd crush rule ls"):
        cluster.mon("osd crush rm-device-class", ids=[str(osd)])
        cluster.mon("osd crush set-device-class", **{"class": rule, "ids": [str(osd)]})
        replicated = {"name": rule, "root": "default", "type": "osd", "class": rule}
        cluster.mon("osd crush rule create-replicated", **replicated)
    cluster.mon("osd pool set", pool=pool, var="crush_rule", val=rule)

    def there() -> bool:
        stats = cluster.mon("pg ls-by-pool", poolstr=pool)["pg_stats"]
        return all(pg["acting"] == [osd] and pg["state"] == "active+clean" for pg in stats)

    wait_for(there, 60, f"pool {pool} lives on osd.{osd}", interval=0.2)
    return pool


def timed(vdisk: Vdisk, words: str, **args: Any) -> tuple[float, int, dict[str, Any]]:
    """Send a command; return how long the answer took, its return code and JSON."""
    began = time.monotonic()
    ret, out, _ = vdisk.raw(words, format="json", **args)
    return time.monotonic() - began, ret, json.loads(out)


def error_code(answer: dict[str, Any]) -> str:
    """Return the error code of an answer, '' for a good one."""
    return str(answer["error"]["code"]) if "error" in answer else ""


def until_answered(vdisk: Vdisk, words: str, seconds: float = 60, **args: Any) -> tuple[int, dict[str, Any]]:
    """Repeat a command while it answers EAGAIN; return the final answer."""

    def final() -> tuple[int, dict[str, Any]] | None:
        _, ret, answer = timed(vdisk, words, **args)
        return None if ret == -errno.EAGAIN else (ret, answer)

    return wait_for(final, seconds, f"{words} {args} is answered", ignore=())


def leave_nothing(cluster: Cluster, spec: str) -> None:
    """Remove all volumes and snapshots and wait until nothing is left."""
    vdisk = Vdisk(cluster)
    pool, _, namespace = spec.partition("/")
    for kind, argument in (("snap", "snapshot"), ("volume", "volume")):
        # An OSD that went on, or was marked down, may still peer: its pool is listed when it does answer.
        for item in vdisk.until(f"{kind} ls", pool_spec=spec):
            assert until_answered(vdisk, f"{kind} rm", **{argument: item["handle"]})[0] == 0

    def empty() -> bool:
        found = inventory.take(cluster.connect(), pool, namespace)
        assert not found.lines, str(found)
        return True

    wait_for(empty, 60, f"nothing is left in {spec}", interval=0.2)


# -- an OSD that does not answer --------------------------------------------------------------------------------------


def test_commands_are_answered_while_an_osd_is_paused_and_done_when_it_goes_on(
    faulty: Cluster, new_pool: Callable[[], str]
) -> None:
    vdisk = Vdisk(faulty)
    slow, good = pinned(faulty, new_pool(), 1), pinned(faulty, new_pool(), 0)
    volume = vdisk("volume create", pool_spec=slow, name="old", size=SIZE)
    normal = [timed(vdisk, "volume create", pool_spec=good, name=f"n{i}", size=SIZE)[0] for i in range(15)]

    asked: list[tuple[str, dict[str, Any]]] = [
        ("volume create", {"pool_spec": slow, "name": "new", "size": SIZE, "wait": "0"}),
        ("volume create", {"pool_spec": slow, "name": "waited", "size": SIZE, "wait": "1"}),
        ("volume resize", {"volume": f"{slow}/old", "size": str(12 * MIB), "wait": "1"}),
        ("snap create", {"image_spec": f"{slow}/{volume['image']}", "snap_name": "s", "wait": "0"}),
    ]
    faulty.osds["1"].pause()
    paused = time.monotonic()
    try:
        for words, args in asked:
            seconds, ret, answer = timed(vdisk, words, **args)
            assert seconds < BOUND, (words, args, seconds)
            if "error" in answer:
                assert ret == -errno.EAGAIN, (words, args, answer)
                assert error_code(answer) in ("pending", "not_ready"), answer
            else:
                assert answer["state"] == "pending", answer
        beside = []
        for i in range(15):
            seconds, ret, answer = timed(vdisk, "volume create", pool_spec=good, name=f"b{i}", size=SIZE, wait="50")
            assert ret == 0, answer
            beside.append(seconds)
        assert timed(vdisk, "status")[1] == 0
        hanging = [op for op in vdisk.operations(slow) if op["state"] not in ("done", "failed")]
        assert hanging, "nothing hangs"
        for op in hanging:
            info = vdisk("op info", id=op["id"])
            assert info["step_started_at"] or info["waiting_for"] or info["state"] == "running", info
        while time.monotonic() < paused + PAUSE:
            _, ret, answer = timed(vdisk, "volume info", volume=f"{good}/b0")
            assert ret == 0, answer
    finally:
        faulty.osds["1"].resume()
    # Paused for eleven seconds, Pacific's OSD was seen to sit on requests for minutes: until there was another map.
    for words in ("osd set", "osd unset"):
        faulty.mon(words, key="noout")
    print(f"paused for {time.monotonic() - paused:.0f} s; beside: {median(normal):.3f} s, then {median(beside):.3f} s")
    for words, args in asked:
        ret, answer = until_answered(vdisk, words, **{**args, "wait": "10"})
        assert ret == 0, (words, answer)
        assert answer["state"] == "ready", answer
    leave_nothing(faulty, slow)
    leave_nothing(faulty, good)


def test_health_is_told_of_while_rbd_support_is_silent(faulty: Cluster, new_pool: Callable[[], str]) -> None:
    """Its command thread hangs in an image that cannot be opened, and so does each look at its tasks, for 30 s."""
    vdisk = Vdisk(faulty)
    slow, good = pinned(faulty, new_pool(), 1), pinned(faulty, new_pool(), 0)
    image = vdisk("volume create", pool_spec=slow, name="old", size=SIZE)["image"]
    volume = vdisk("volume create", pool_spec=good, name="new", size=SIZE)
    clone = vdisk("volume clone", volume=volume["handle"], name="clone")
    for name, value in (("housekeeping_interval", "1"), ("reaper_window", "0")):
        faulty.mon("config set", who="mgr", name=f"mgr/vdisk/{name}", value=value)

    def stuck() -> bool:
        return "VDISK_OPERATIONS_STUCK" in faulty.mon("health", detail="detail")["checks"]

    def silent() -> bool:
        try:
            faulty.mgr_command({"prefix": "rbd task list"}, entity="client.asking", timeout=3)
        except CommandTimeout:
            return True
        return False

    for client in ("client.asking", "client.flattening"):
        faulty.auth(client, mon="allow *", mgr="allow *", osd="allow *")
    faulty.osds["1"].pause()
    try:
        command = {"prefix": "rbd task add flatten", "image_spec": f"{slow}/{image}"}
        with pytest.raises(CommandTimeout):
            faulty.mgr_command(command, entity="client.flattening", timeout=3)
        wait_for(silent, 30, "rbd_support is silent")
        # A removal that stops for good, as somebody has made a snapshot of the image meanwhile.
        removal = vdisk("volume rm", volume=volume["handle"])["operation"]
        wait_for(lambda: vdisk("op info", id=removal)["step"] == "await-children", 20, "it waits for its clone")
        with opened(faulty, good) as ioctx, rbd.Image(ioctx, image_id=volume["image_id"]) as handle:
            handle.create_snap("by-hand")
        vdisk("volume rm", volume=clone["handle"])
        wait_for(lambda: vdisk("op info", id=removal)["state"] == "failed", 20, "it is stuck")
        wait_for(stuck, 10, "the warning", interval=0.2)
        with opened(faulty, good) as ioctx, rbd.Image(ioctx, image_id=volume["image_id"]) as handle:
            handle.remove_snap("by-hand")
        vdisk("op retry", id=removal)
        wait_for(lambda: not stuck(), 10, "it is cleared", interval=0.2)
        assert silent()
    finally:
        faulty.osds["1"].resume()
        for name, value in (("housekeeping_interval", "60"), ("reaper_window", "1")):
            faulty.mon("config set", who="mgr", name=f"mgr/vdisk/{name}", value=value)
    # Reef's OSD was seen to answer all but what it had been asked before it was paused: clients ask a new one again.
    faulty.mon("osd down", ids=["1"])
    wait_for(lambda: not silent(), 60, "rbd_support answers again")
    leave_nothing(faulty, slow)
    leave_nothing(faulty, good)


# -- a pool at its quota ----------------------------------------------------------------------------------------------


def wait_full(cluster: Cluster, pool: str) -> None:
    """Wait until a pool is at its quota, and the OSDs know of it."""
    wait_for(lambda: "POOL_FULL" in cluster.health()["checks"], 60, f"{pool} is full", interval=0.1)
    # Each of its placement groups is asked by someone who has that map, and answers when it has it as well.
    cluster.connect().wait_for_latest_osdmap()
    objects(cluster, pool)


def test_full_pool_refuses_creations_and_lets_removals_through(faulty: Cluster, new_pool: Callable[[], str]) -> None:
    vdisk = Vdisk(faulty)
    full, other = new_pool(), new_pool()
    for name in ("a", "b"):
        vdisk("volume create", pool_spec=full, name=name, size=SIZE)
    over(faulty, full)  # an intent goes after the answer
    before = inventory.take(faulty.connect(), full)
    faulty.mon("osd pool set-quota", pool=full, field="max_objects", val="3")
    wait_full(faulty, full)

    ret, answer = until_answered(vdisk, "volume create", seconds=20, pool_spec=full, name="c", size=SIZE, wait="5")
    assert error_code(answer) == "no_space", answer
    assert ret == -errno.ENOSPC
    vdisk.raw("volume create", pool_spec=full, name="d", size=SIZE, wait="0")
    assert vdisk("volume create", pool_spec=other, name="c", size=SIZE)["state"] == "ready"

    def undone() -> bool:
        found = inventory.take(faulty.connect(), full)
        assert found == before, found.difference(before)
        return True

    wait_for(undone, 20, "the creations that found no space left nothing")
    assert until_answered(vdisk, "volume rm", volume=f"{full}/a", wait="5")[0] == 0
    vdisk.drained(full)
    assert [volume["name"] for volume in vdisk("volume ls", pool_spec=full)] == ["b"]

    faulty.mon("osd pool set-quota", pool=full, field="max_objects", val="0")
    wait_for(lambda: "POOL_FULL" not in faulty.health()["checks"], 60, "the pool has space again", interval=0.2)
    assert until_answered(vdisk, "volume create", pool_spec=full, name="c", size=SIZE)[0] == 0
    leave_nothing(faulty, full)
    leave_nothing(faulty, other)


# -- pools and namespaces that vanish ---------------------------------------------------------------------------------


@contextlib.contextmanager
def stopped_at(cluster: Cluster, point: str, words: str, **args: Any) -> Iterator[None]:
    """Send a command, run the block while the mgr stands still at a step of it, and let it run on."""
    (cluster.dir / "failpoint").write_text(f"{point}:stop")
    daemon = cluster.mgrs["x"]
    sender = threading.Thread(target=lambda: Vdisk(cluster).raw(words, format="json", **args), daemon=True)
    sender.start()
    try:

        def still() -> bool:
            with open(f"/proc/{daemon.pid}/stat") as stat:
                return stat.read().rpartition(")")[2].split()[0] == "T"

        wait_for(still, 30, f"the mgr stands still {point}", interval=0.01)
        yield
    finally:
        (cluster.dir / "failpoint").unlink(missing_ok=True)
        daemon.resume()
        sender.join(60)
    assert not sender.is_alive(), "the command was never answered"


def over(cluster: Cluster, spec: str, seconds: float = 40) -> None:
    """Wait until no operation of a pool or namespace is under way any more."""
    vdisk = Vdisk(cluster)

    def none() -> bool:
        left = [op for op in vdisk.operations(spec) if op["state"] not in ("done", "failed")]
        assert not left, left
        return True

    wait_for(none, seconds, f"nothing goes on in {spec}", interval=0.2)


@pytest.mark.parametrize("point", ["reserve-name:before", "create-image:before", "store-image-id:before"])
def test_pool_removed_under_an_operation_ends_it_and_stops_nothing_else(
    faulty: Cluster, new_pool: Callable[[], str], point: str
) -> None:
    vdisk = Vdisk(faulty)
    doomed, other = new_pool(), new_pool()
    vdisk("volume create", pool_spec=doomed, name="old", size=SIZE)
    with stopped_at(faulty, point, "volume create", pool_spec=doomed, name="new", size=SIZE, wait="2"):
        faulty.delete_pool(doomed)
    assert vdisk("volume create", pool_spec=other, name="beside", size=SIZE)["state"] == "ready"
    over(faulty, doomed)
    assert error_code(timed(vdisk, "volume create", pool_spec=doomed, name="x", size=SIZE)[2]) == "not_found"
    leave_nothing(faulty, other)


def test_what_waits_for_a_lock_in_a_pool_that_was_removed_is_given_up(
    faulty: Cluster, new_pool: Callable[[], str]
) -> None:
    """librbd asks the owner again and again, for ever: it takes "not found" for an owner that died."""
    vdisk = Vdisk(faulty)
    doomed, other = new_pool(), new_pool()
    volume = vdisk("volume create", pool_spec=doomed, name="locked", size=SIZE)
    faulty.mon("config set", who="mgr", name="mgr/vdisk/reaper_window", value="0")
    try:
        with contextlib.ExitStack() as stack:
            with stopped_at(faulty, "queue-removal:before", "volume rm", volume=volume["handle"]):
                stack.enter_context(silent_owner(faulty, doomed, volume["image_id"], by="image_id"))
            (removal,) = [op["id"] for op in vdisk.operations(doomed) if op["state"] not in ("done", "failed")]
            busy_since = wait_for(lambda: vdisk("status")["reaper"]["threads_busy"] and time.monotonic(), 20, "librbd")
            wait_for(lambda: time.monotonic() - busy_since > 2, 20, "it waits for the lock")
            assert vdisk("status")["reaper"]["threads_busy"] == 1
            faulty.delete_pool(doomed)
            over(faulty, doomed)
    finally:
        faulty.mon("config set", who="mgr", name="mgr/vdisk/reaper_window", value="1")
    given_up = vdisk("op info", id=removal)
    assert (given_up["state"], given_up["error"]["code"]) == ("failed", "not_found"), given_up
    assert f"operation {removal}: volume rm {doomed}/locked hangs" in mgr_log(faulty)
    assert vdisk("status")["background_busy"] == 0
    assert vdisk("volume create", pool_spec=other, name="beside", size=SIZE)["state"] == "ready"
    leave_nothing(faulty, other)
    # What still hangs in librbd holds up neither the end of the module nor its return.
    for verb in ("disable", "enable"):
        faulty.mon(f"mgr module {verb}", module="vdisk")
    faulty.wait_module("vdisk")
    assert vdisk.until("volume ls", pool_spec=other) == []


def test_pool_removed_while_a_removal_waits_for_clones_is_forgotten(
    faulty: Cluster, new_pool: Callable[[], str]
) -> None:
    vdisk = Vdisk(faulty)
    doomed = new_pool()
    vdisk("volume create", pool_spec=doomed, name="src", size=SIZE)
    vdisk("volume clone", volume=f"{doomed}/src", name="child")
    vdisk("volume rm", volume=f"{doomed}/src")
    faulty.delete_pool(doomed)
    over(faulty, doomed)


def test_namespace_removed_under_an_operation_is_left_without_a_trace(
    faulty: Cluster, new_pool: Callable[[], str]
) -> None:
    vdisk = Vdisk(faulty)
    pool = new_pool()
    with faulty.connect().open_ioctx(pool) as ioctx:
        rbd.RBD().namespace_create(ioctx, "gone")
        spec = f"{pool}/gone"
        with stopped_at(
            faulty, "create-image:before", "volume create", pool_spec=spec, name="new", size=SIZE, wait="2"
        ):
            rbd.RBD().namespace_remove(ioctx, "gone")
    over(faulty, spec)
    assert error_code(timed(vdisk, "volume ls", pool_spec=spec)[2]) == "not_found"
    left = inventory.take(faulty.connect(), pool, "gone")
    assert not left.lines, f"left in a namespace that nobody can name any more:\n{left}"
    assert vdisk("volume create", pool_spec=pool, name="beside", size=SIZE)["state"] == "ready"
    leave_nothing(faulty, pool)


# -- a lock owner that does not answer --------------------------------------------------------------------------------


def test_image_whose_lock_owner_is_silent_holds_up_only_itself(faulty: Cluster, new_pool: Callable[[], str]) -> None:
    vdisk = Vdisk(faulty)
    pool = new_pool()
    stuck = vdisk("volume create", pool_spec=pool, name="stuck", size=SIZE)

    def beside(tag: str) -> list[float]:
        took = []
        for i in range(8):
            made = timed(vdisk, "volume create", pool_spec=pool, name=f"{tag}{i}", size=SIZE, wait="50")
            assert made[1] == 0, made
            image_spec = f"{pool}/{made[2]['image']}"
            snapped = timed(vdisk, "snap create", image_spec=image_spec, snap_name=f"{tag}{i}", wait="50")
            assert snapped[1] == 0, snapped
            took.append(made[0] + snapped[0])
        return took

    normal = median(beside("n"))
    with silent_owner(faulty, pool, stuck["image"]) as owner:
        for words, args in (
            ("volume resize", {"volume": f"{pool}/stuck", "size": str(12 * MIB)}),
            ("snap create", {"image_spec": f"{pool}/{stuck['image']}", "snap_name": "of-stuck"}),
        ):
            seconds, ret, answer = timed(vdisk, words, wait="0", **args)
            assert seconds < BOUND
            assert ret in (0, -errno.EAGAIN), answer
        loaded = median(beside("b"))
        print(f"one image hangs: others took {normal:.3f} s before, {loaded:.3f} s now")
        held_up = {op["target"]: vdisk("op info", id=op["id"]) for op in vdisk.operations(pool)}
        ahead, behind = held_up[f"{pool}/stuck"], held_up[f"{pool}/of-stuck"]
        assert (ahead["step"], behind["state"]) == ("grow-image", "queued"), (ahead, behind)
        assert ahead["step_started_at"] is not None
        assert behind["waiting_for"] == [f"operation {ahead['id']}"]
        assert behind["waiting_since"] is not None
        owner.send_signal(signal.SIGCONT)
        resized = until_answered(vdisk, "volume resize", volume=f"{pool}/stuck", size=str(12 * MIB), wait="10")
        assert resized[0] == 0, resized
        image_spec = f"{pool}/{stuck['image']}"
        snapped = until_answered(vdisk, "snap create", image_spec=image_spec, snap_name="of-stuck", wait="10")
        assert snapped[0] == 0, snapped
        owner.communicate("", timeout=30)
    leave_nothing(faulty, pool)


# -- restarts under load ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mon", "osd", "osd killed"])
def test_restart_under_load_loses_nothing(faulty: Cluster, new_pool: Callable[[], str], kind: str) -> None:
    pool = new_pool()
    enough = threading.Event()
    done: list[str] = []

    def load(number: int) -> None:
        vdisk = Vdisk(faulty)
        turn = 0
        while not enough.is_set():
            name = f"v{number}-{turn}"
            ret, answer = until_answered(vdisk, "volume create", pool_spec=pool, name=name, size=SIZE, wait="3")
            assert ret == 0, answer
            if turn % 2:
                ret, answer = until_answered(vdisk, "volume rm", volume=answer["handle"], wait="3")
                # A repeated removal that was done before its answer got lost is not found any more.
                assert ret in (0, -errno.ENOENT), answer
            else:
                done.append(name)
            turn += 1

    with concurrent.futures.ThreadPoolExecutor(max_workers=6) as threads:
        runs = [threads.submit(load, number) for number in range(6)]
        try:
            wait_for(lambda: len(done) > 12 or any(run.done() for run in runs), 60, "the load runs")
            if kind == "mon":
                faulty.mons["a"].restart()
            elif kind == "osd":
                faulty.osds["0"].restart()
            else:
                faulty.osds["0"].kill()
                faulty.osds["0"].start()
            before = len(done)
            wait_for(lambda: len(done) > before + 30 or any(run.done() for run in runs), 90, "the load goes on")
        finally:
            enough.set()
        for run in runs:
            run.result(90)
    vdisk = Vdisk(faulty)
    assert [volume["name"] for volume in vdisk("volume ls", pool_spec=pool)] == sorted(done)
    leave_nothing(faulty, pool)


# -- intents of another version ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("namespace", ["", "ns"])
def test_intent_of_a_newer_version_is_kept_and_reported(
    faulty: Cluster, new_pool: Callable[[], str], namespace: str
) -> None:
    vdisk = Vdisk(faulty)
    pool = new_pool()
    spec = f"{pool}/{namespace}" if namespace else pool
    if namespace:
        with faulty.connect().open_ioctx(pool) as ioctx:
            rbd.RBD().namespace_create(ioctx, namespace)
    newer = {"v": 99, "kind": "volume teleport", "request": {"to": "the moon"}}
    raw = {"newer": json.dumps(newer).encode(), "damaged": b"\xff{not json"}
    with opened(faulty, spec) as ioctx:
        ioctx.write_full(inventory.INTENTS, b"")
        set_omap(ioctx, inventory.INTENTS, raw)
    faulty.mgrs["x"].kill()
    faulty.mgrs["x"].start()
    faulty.wait_module("vdisk")
    wait_for(lambda: vdisk("status")["unreadable_intents"] == 2, 20, "both are reported")
    assert vdisk("volume create", pool_spec=spec, name="beside", size=SIZE)["state"] == "ready"
    assert until_answered(vdisk, "volume rm", volume=f"{spec}/beside")[0] == 0
    vdisk.drained(spec)
    with opened(faulty, spec) as ioctx:
        assert inventory.omap(ioctx, inventory.INTENTS) == raw


def test_nothing_crashed(faulty: Cluster) -> None:
    assert faulty.crash_dumps() == []
    assert all(daemon.running for daemon in faulty.daemons())
