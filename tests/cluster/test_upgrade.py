"""Three mgrs, each with modules of its own as on a host of its own: standbys, other versions, a missing module."""

import contextlib
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import inventory
from cluster.support import MIB, Vdisk, image_spec, opened, wait_recovered
from cluster.test_crash import lighten
from cluster.test_failover import PATIENCE, Actor, Client, Crowd, agree, quiet, remove_all
from cluster.versions import LATER, earliest, later
from harness.cluster import Cluster
from harness.config import FAST
from harness.genesis import SOURCE, free_ports
from harness.releases import ensure_root
from harness.wait import wait_for
from vdisk.model.version import VERSION

SIZE = 8 * MIB
THIS = SOURCE / "vdisk"


@pytest.fixture(scope="module")
def hosts(release_name: str) -> Iterator[Cluster]:
    """A cluster whose three mgrs could be on three hosts."""
    ensure_root(release_name)
    conf = {**FAST, "mon_mgr_beacon_grace": 5, "mgr:mgr/vdisk/check_grace": 0}
    with Cluster(release_name, mgrs=3, own_modules=True, conf=conf) as cluster:
        lighten(cluster)
        yield cluster


@pytest.fixture
def vdisk(hosts: Cluster) -> Vdisk:
    """vdisk's commands as client.admin."""
    return Vdisk(hosts)


@pytest.fixture(scope="module")
def later_version(hosts: Cluster) -> Path:
    """The directory of a later version of the module."""
    return later(hosts.dir / "later")


@pytest.fixture
def pool(hosts: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh pool."""
    name = f"p-{request.node.originalname[5:25].replace('_', '-')}"
    hosts.create_pool(name)
    yield name
    hosts.delete_pool(name)


def restart(cluster: Cluster, name: str) -> None:
    """Start a mgr anew, as an operator does after ``vdisk-install``."""
    gid = cluster.mgr_gid(name)  # which the monitors go on to list for a while
    cluster.mgrs[name].restart()
    cluster.wait_standby(name, not_gid=gid)


def step_down(cluster: Cluster) -> str:
    """Have the active mgr step down, which starts it anew; return the next one once vdisk answers on it."""
    before = cluster.active_mgr()
    name = cluster.fail_mgr()
    cluster.wait_module("vdisk")
    cluster.wait_standby(before)
    return name


def prepare(cluster: Cluster, version: Path) -> None:
    """Begin with another version as the handbook says: its files on every host, and the standbys anew."""
    active = cluster.active_mgr()
    for name in cluster.mgrs:
        cluster.put_module(name, version)
    for name in cluster.mgrs:
        if name != active:
            restart(cluster, name)


def roll(cluster: Cluster, version: Path) -> None:
    """Go to another version as the handbook says: at last the active mgr steps down."""
    prepare(cluster, version)
    step_down(cluster)


# -- standbys ---------------------------------------------------------------------------------------------------------


def answer(url: str) -> tuple[int, str]:
    """Return status and text of a URL."""
    try:
        with urllib.request.urlopen(url, timeout=10) as found:
            return found.status, found.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def get(url: str) -> str:
    """Return what is at a URL."""
    return answer(url)[1]


def refused(url: str) -> bool:
    """Tell whether nobody listens at a URL."""
    try:
        answer(url)
    except urllib.error.URLError as error:
        return isinstance(error.reason, ConnectionRefusedError)
    return False


@contextlib.contextmanager
def options(cluster: Cluster, **values: object) -> Iterator[None]:
    """Set options of the module; ``x__name`` is that of one mgr."""
    names = {name: f"mgr/vdisk/{name.replace('__', '/')}" for name in values}
    for name, value in values.items():
        cluster.ceph("config", "set", "mgr", names[name], str(value))
    try:
        yield
    finally:
        for name in names.values():
            # That an option is removed reaches a mgr when it starts next; that it is set, at once.
            if name.endswith("port"):
                cluster.ceph("config", "set", "mgr", name, "0")
            cluster.ceph("config", "rm", "mgr", name)


@pytest.mark.timeout(120)
def test_where_all_mgrs_are_told_the_same_place_a_standby_of_the_same_host_leaves_it_to_the_active_one(
    hosts: Cluster,
) -> None:
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}/metrics"
    with options(hosts, metrics_port=port):
        wait_for(lambda: "vdisk_operations_total" in get(url), 30, "the active mgr serves", ignore=(OSError,))
        step_down(hosts)
        wait_for(lambda: "vdisk_operations_total" in get(url), 30, "so does the next", ignore=(OSError,))
        hosts.ceph("config", "set", "mgr", "mgr/vdisk/metrics_port", "0")
        wait_for(lambda: refused(url), 20, "nobody listens any more")


@pytest.mark.timeout(200)
def test_each_mgr_in_turn_takes_over_under_load_and_standbys_answer_scrapes(
    hosts: Cluster, vdisk: Vdisk, pool: str
) -> None:
    ports = dict(zip(hosts.mgrs, free_ports(3), strict=True))
    urls = {name: f"http://127.0.0.1:{port}/metrics" for name, port in ports.items()}

    def served() -> bool:
        active = hosts.active_mgr()
        assert hosts.mon("mgr services").get("vdisk") == urls[active]
        found = {name: answer(url) for name, url in urls.items()}
        assert found[active][0] == 200
        assert "vdisk_operations_total" in found[active][1]
        assert [found[name] for name in found if name != active] == [(200, ""), (200, "")]
        return True

    actors = [Actor(hosts, pool, number) for number in range(4)]
    stop = threading.Event()
    with options(hosts, **{f"{name}__metrics_port": port for name, port in ports.items()}):
        wait_for(served, 30, "the active mgr serves metrics, the standbys nothing", ignore=(OSError, AssertionError))
        crowd = Crowd([lambda actor=actor: actor.run(stop.is_set) for actor in actors])  # type: ignore[misc]
        took_over = [step_down(hosts) for _ in hosts.mgrs]
        crowd.check()
        stop.set()
        crowd.join(PATIENCE)
        assert len(set(took_over)) > 1, took_over
        wait_for(served, 30, "the next ones do so as well", ignore=(OSError, AssertionError))
        with options(hosts, metrics_standby_behaviour="error", metrics_standby_error_status_code=503):
            active = hosts.active_mgr()
            standby = next(name for name in urls if name != active)
            wait_for(lambda: answer(urls[standby])[0] == 503, 20, "a standby answers with an error")
            assert urls[active] in answer(urls[standby])[1]
            assert answer(urls[active])[0] == 200
    agree(hosts, pool, actors)
    told = vdisk("volume create", pool_spec=pool, name="told", size=str(SIZE))
    line = f"rbd: create {pool}/{told['image']}"
    wait_for(lambda: line in hosts.mgrs[hosts.active_mgr()].log(), 20, "a mgr that was a standby still logs")
    remove_all(hosts, pool)


def having(cluster: Cluster) -> dict[str, bool]:
    """Return which mgrs tell the monitors that they have the module."""
    dump = cluster.mgr_map()
    mgrs = [(dump["active_name"], dump["available_modules"])]
    mgrs += [(standby["name"], standby["available_modules"]) for standby in dump["standbys"]]
    return {name: any(module["name"] == "vdisk" for module in modules) for name, modules in mgrs}


@pytest.mark.timeout(120)
def test_which_mgr_has_no_module_is_told_before_and_when_it_takes_over(hosts: Cluster, vdisk: Vdisk) -> None:
    active = hosts.active_mgr()
    bare = next(name for name in hosts.mgrs if name != active)
    hosts.put_module(bare, None)
    restart(hosts, bare)
    expected = {name: name != bare for name in hosts.mgrs}
    wait_for(lambda: having(hosts) == expected, 20, "the monitors know which has none")
    others = [name for name in hosts.mgrs if name != bare]
    for name in (*(name for name in others if name != active), active):
        hosts.mgrs[name].stop()
    wait_for(lambda: hosts.active_mgr() == bare and hosts.mgr_map()["available"], 60, "the bare one takes over")
    ret, _, status = vdisk.raw("status", format="json")
    print(ret, status, json.dumps(hosts.health()["checks"]))
    assert ret != 0
    for name in others:
        hosts.mgrs[name].start()
        hosts.wait_standby(name)
    hosts.put_module(bare, THIS)
    step_down(hosts)
    wait_for(lambda: sorted(having(hosts)) == sorted(hosts.mgrs) and all(having(hosts).values()), 30, "all have it")


# -- other versions ---------------------------------------------------------------------------------------------------


def held(vdisk: Vdisk, pool: str, name: str) -> dict[str, object]:
    """Make a volume on which a clone hangs; return the clone."""
    volume = vdisk("volume create", pool_spec=pool, name=name, size=str(SIZE))
    clone = vdisk("volume clone", volume=volume["handle"], name=f"{name}-clone")
    assert clone["state"] == "ready"
    return clone


def intents(cluster: Cluster, pool: str, ids: list[str]) -> dict[str, bytes]:
    """Return intents as they are in the pool."""
    with opened(cluster, pool) as ioctx:
        return {key: value for key, value in inventory.omap(ioctx, inventory.INTENTS).items() if key in ids}


@pytest.mark.timeout(280)
def test_operations_go_on_through_an_upgrade_and_a_downgrade_and_none_is_misread(
    hosts: Cluster, vdisk: Vdisk, pool: str, later_version: Path
) -> None:
    assert vdisk("status")["version"] == VERSION
    clones = {name: held(vdisk, pool, name) for name in ("gone", "folded", "noted", "plain")}
    vdisk("volume rm", volume=f"{pool}/gone")  # waits for its clone, through everything
    actors = [Actor(hosts, pool, number) for number in range(4)]
    stop = threading.Event()
    crowd = Crowd([lambda actor=actor: actor.run(stop.is_set) for actor in actors])  # type: ignore[misc]
    client = Client(hosts)
    option = ("config", "set", "mgr", "mgr/vdisk/resize_note")

    roll(hosts, later_version)
    assert vdisk("status")["version"] == LATER
    crowd.check()
    hosts.ceph(*option, "noted")
    for kind, name in (("fold", "folded"), ("resize", "noted")):
        ret, told = client(f"volume {kind}", volume=f"{pool}/{name}", size=str(2 * SIZE), wait="0")
        assert (ret, told["state"]) == (0, "pending")

    def waiting() -> list[str]:
        ops = vdisk.operations(pool)
        found = [op for op in ops if op["state"] == "waiting" and op["target"] in (f"{pool}/folded", f"{pool}/noted")]
        assert sorted(op["kind"] for op in found) == ["volume fold", "volume resize"], ops
        return [op["id"] for op in found]

    ids = wait_for(waiting, 20, "both wait for clones")
    before = intents(hosts, pool, ids)
    assert sorted(before) == sorted(ids)

    # Back to this version, which knows neither the kind nor the field, while clients go on.
    roll(hosts, THIS)
    crowd.check()
    assert vdisk("status")["version"] == VERSION
    wait_recovered(hosts)
    rows = {op["target"]: op for op in vdisk("op ls") if op["state"] == "unreadable"}
    assert sorted(rows) == [f"{pool}/folded", f"{pool}/noted"]
    assert rows[f"{pool}/folded"]["kind"] == "volume fold"
    assert sorted(op["id"] for op in rows.values()) == sorted(ids)
    assert vdisk("op info", id=ids[0])["state"] == "unreadable"
    assert vdisk.refused("op cancel", id=ids[0]).code == "unsupported"

    def warned() -> bool:
        check = hosts.health()["checks"]["VDISK_INTENTS_UNREADABLE"]
        print(json.dumps(check))
        return all(op_id in json.dumps(check) for op_id in ids)

    wait_for(warned, 20, "the health names both", ignore=(KeyError,))
    # Nothing comes between them and what they have half done; everything else goes on.
    refusal = vdisk.refused("volume resize", volume=f"{pool}/folded", size=str(4 * SIZE), wait="0.5")
    assert refusal.code == "pending"
    assert "another version" in refusal.message
    assert vdisk("volume info", volume=f"{pool}/folded")["size"] == SIZE
    assert vdisk("volume resize", volume=f"{pool}/plain", size=str(2 * SIZE))["size"] == 2 * SIZE
    report = vdisk.until("check", pool_spec=pool, wait="60", repair=True)
    assert {finding["class"] for finding in report["findings"]} == {"intent_unreadable"}, report["findings"]
    for clone in clones.values():
        assert client("volume rm", volume=clone["handle"])[0] == 0
    assert intents(hosts, pool, ids) == before

    # Up again: what was kept is carried out.
    roll(hosts, later_version)
    crowd.check()
    for name in ("folded", "noted"):
        wait_for(
            lambda name=name: vdisk("volume info", volume=f"{pool}/{name}")["size"] >= 2 * SIZE, 30, f"{name} grows"
        )  # type: ignore[misc]
    wait_for(lambda: "VDISK_INTENTS_UNREADABLE" not in hosts.health()["checks"], 20, "the health is clear")
    for name in ("folded", "noted", "plain"):
        assert client("volume rm", volume=f"{pool}/{name}")[0] == 0
    stop.set()
    crowd.join(PATIENCE)
    # And back, with nothing under way; an option that is set and unknown is no matter.
    quiet(hosts, pool)
    roll(hosts, THIS)
    agree(hosts, pool, actors)
    hosts.ceph("config", "rm", "mgr", option[3])
    remove_all(hosts, pool)
    assert hosts.crash_dumps() == []


@pytest.mark.timeout(200)
def test_what_the_earliest_version_began_this_one_finishes(hosts: Cluster, vdisk: Vdisk, pool: str) -> None:
    version = earliest(hosts.dir / "earliest")
    if version is None:
        pytest.skip("the repository's history is not here")
    roll(hosts, version)
    assert "version" not in vdisk("status")
    clone = held(vdisk, pool, "gone")
    source = vdisk("volume create", pool_spec=pool, name="source", size=str(SIZE))
    vdisk("volume rm", volume=f"{pool}/gone")
    active = hosts.active_mgr()
    prepare(hosts, THIS)
    # Nobody waits for these, and the mgr is killed at once: most are under way when this version takes over.
    asked = [("snap create", {"image_spec": image_spec(source), "snap_name": f"snap-{n}"}) for n in range(8)]
    asked += [("volume create", {"pool_spec": pool, "name": f"pvc-{n}", "size": str(SIZE)}) for n in range(8)]
    asked += [("volume rm", {"volume": clone["handle"]})]
    for words, args in asked:
        assert vdisk.raw(words, format="json", wait="0", **args)[0] in (0, -11), words
    hosts.mgrs[active].kill()
    wait_for(lambda: hosts.active_mgr() not in ("", active), 60, "another takes over", interval=0.1)
    hosts.wait_module("vdisk")
    hosts.mgrs[active].start()
    hosts.wait_standby(active)
    wait_recovered(hosts)
    status = vdisk("status")
    print("resumed", status["resumed"])
    assert status["version"] == VERSION
    assert status["unreadable_intents"] == 0
    assert status["resumed"] > 0
    client = Client(hosts)
    for words, args in asked:
        ret, told = client(words, **args)
        assert ret in (0, -2), told
    quiet(hosts, pool)
    assert len(vdisk("snap ls", pool_spec=pool)) == 8
    assert all(snap["sealed"] for snap in vdisk("snap ls", pool_spec=pool))
    assert [volume["name"] for volume in vdisk("volume ls", pool_spec=pool)] == [
        *(f"pvc-{n}" for n in range(8)),
        "source",
    ]
    remove_all(hosts, pool)
    assert hosts.crash_dumps() == []
