"""The module in its mgr: loading, help, options, failover, and what fences an old active mgr."""

import json
import re
import subprocess
import time
from collections.abc import Iterator

import pytest

from cluster.support import MIB, Vdisk, has_task_queue, image_spec, mgr_log, pool_id, snapshots
from harness.cluster import Cluster
from harness.releases import REPO
from harness.wait import wait_for
from vdisk.commands.table import COMMANDS


@pytest.fixture
def vdisk(cluster: Cluster) -> Vdisk:
    """vdisk's commands as client.admin."""
    return Vdisk(cluster)


@pytest.fixture
def options(cluster: Cluster) -> Iterator["Options"]:
    """The module's options, put back afterwards."""
    made = Options(cluster)
    yield made
    for name in made.changed:
        cluster.mon("config rm", who="mgr", name=f"mgr/vdisk/{name}")


class Options:
    """Sets module options the way an administrator does."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.changed: list[str] = []

    def set(self, name: str, value: str) -> None:
        """Set an option."""
        self.changed.append(name)
        self.cluster.ceph("config", "set", "mgr", f"mgr/vdisk/{name}", value)


def test_loads_and_the_cluster_is_healthy(cluster: Cluster, vdisk: Vdisk) -> None:
    assert vdisk("status")["unreadable_intents"] == 0
    cluster.wait_healthy(60)
    assert "vdisk" in cluster.mgr_map()["modules"]
    assert [crash for crash in cluster.crash_dumps() if "vdisk" in json.dumps(cluster.crash(crash))] == []


def test_help_shows_each_command_with_its_text(cluster: Cluster) -> None:
    shown = cluster.ceph("-h", "vdisk").out
    assert len(COMMANDS) >= 14
    flat = re.sub(r"\s+", " ", shown)
    for command in COMMANDS:
        assert command.prefix in flat
        assert command.help.split(".")[0].split()[0] in flat
    single = cluster.ceph("vdisk", "volume", "create", "-h").out
    # The signature is laid out in two columns and broken anywhere.
    for word in ("vdisk volume create", "<pool_spec>", "--dry-run"):
        assert word in single, word


def test_every_command_with_its_options_through_the_cli(cluster: Cluster, vdisk: Vdisk, pool: str) -> None:
    def run(*words: str) -> str:
        return cluster.ceph("vdisk", *words, timeout=30).out

    made = json.loads(run("volume", "create", pool, "pvc", "--size", "4M", "--wait", "20", "--format", "json"))
    assert '"steps"' in run("volume", "create", pool, "dry", "--size", "4M", "--dry-run", "--format", "json")
    run("volume", "create", pool, "laid-out", "--size", "8M", "--object-size", "1M", "--image-features", "layering")
    run("snap", "create", image_spec(made), "shot")
    run("volume", "restore", f"{pool}/shot", "restored", "--pool-spec", pool, "--size", "8M")
    run("volume", "clone", f"{pool}/pvc", "cloned")
    run("volume", "resize", f"{pool}/pvc", "8M")
    assert "restored" in run("volume", "ls", pool, "--limit", "1", "--marker", "pvc")
    assert "shot" in run("snap", "ls", pool)
    assert "shot" in run("snap", "ls", image_spec(made))
    assert "shot" in run("snap", "info", f"{pool}/shot")
    assert "8 MiB" in run("volume", "info", f"{pool}/pvc")
    operation = json.loads(run("op", "ls", "--format", "json-pretty"))[-1]
    assert operation["id"] in run("op", "info", operation["id"])
    run("status")
    run("snap", "rm", f"{pool}/shot")
    for name in ("pvc", "restored", "cloned", "laid-out"):
        run("volume", "rm", f"{pool}/{name}")
    vdisk.drained(pool)


def test_handle_format_acts_at_once(cluster: Cluster, vdisk: Vdisk, options: Options, pool: str) -> None:
    made = vdisk("volume create", pool_spec=pool, name="pvc", size="4M")
    upstream = f"0001-0024-{cluster.fsid}-{pool_id(cluster, pool):016x}-{made['uuid']}"
    options.set("handle_format", "ceph-csi")
    wait_for(lambda: vdisk("volume info", volume=made["handle"])["handle"] == upstream, 10, "handles of the family")
    assert vdisk("volume info", volume=upstream)["uuid"] == made["uuid"]
    options.set("handle_format", "cstor")
    wait_for(lambda: vdisk("volume info", volume=upstream)["handle"] == made["handle"], 10, "the note's handles")


def test_cluster_id_acts_at_once(cluster: Cluster, vdisk: Vdisk, options: Options, pool: str) -> None:
    made = vdisk("volume create", pool_spec=pool, name="pvc", size="4M")
    other = f"0101-07-k8s-eu1-{pool_id(cluster, pool):08x}-{made['uuid']}"
    assert vdisk.refused("volume info", volume=other).code == "not_found"
    options.set("cluster_id", "k8s-eu1")
    wait_for(lambda: vdisk("volume info", volume=made["handle"])["handle"] == other, 10, "handles with the cluster id")
    assert vdisk("volume info", volume=other)["uuid"] == made["uuid"]
    options.set("cluster_id", "")
    wait_for(lambda: vdisk("volume info", volume=made["handle"])["handle"] == made["handle"], 10, "the fsid again")


def test_command_wait_acts_at_once(cluster: Cluster, vdisk: Vdisk, options: Options, pool: str) -> None:
    options.set("command_wait", "0")

    def state() -> str:
        name = f"pvc-{time.monotonic_ns()}"
        return str(vdisk("volume create", pool_spec=pool, name=name, size="4M")["state"])

    wait_for(lambda: state() == "pending", 20, "a command that does not wait")
    options.set("command_wait", "10")
    # A command that does not wait is pending every time, or nearly so.
    wait_for(lambda: [state() for _ in range(10)] == ["ready"] * 10, 20, "commands that wait")
    vdisk.drained(pool)
    assert {item["state"] for item in vdisk("volume ls", pool_spec=pool)} == {"ready"}


def test_literal_form_of_the_note(cluster: Cluster, vdisk: Vdisk, options: Options, pool: str) -> None:
    volume = vdisk("volume create", pool_spec=pool, name="pvc", size="4M", image_features="layering")
    made = vdisk("snap create", image_spec=image_spec(volume), snap_name="default")
    # What librbd itself adds to a clone of format 2.
    own = {"operations"}
    features = set(cluster.rbd_json("info", image_spec(made))["features"]) - own
    assert features == {"layering", "exclusive-lock", "object-map", "fast-diff", "deep-flatten"}
    options.set("snapshot_image_features", "layering")

    def features_of_a_new_one() -> set[str]:
        name = f"literal-{time.monotonic_ns()}"
        shot = vdisk("snap create", image_spec=image_spec(volume), snap_name=name)
        found = set(cluster.rbd_json("info", image_spec(shot))["features"]) - own
        vdisk.sealed(shot["handle"])
        assert snapshots(cluster, pool, shot["image"]) == [shot["image"]]
        if found == {"layering"}:
            assert f"{image_spec(shot)} (features: [layering])" in mgr_log(cluster)
        return found

    wait_for(lambda: features_of_a_new_one() == {"layering"}, 20, "a snapshot with layering only")
    options.set("snapshot_image_features", "")
    wait_for(lambda: features_of_a_new_one() == features, 20, "the usual features")


def test_wrong_option_is_reported_when_it_matters(cluster: Cluster, vdisk: Vdisk, options: Options, pool: str) -> None:
    volume = vdisk("volume create", pool_spec=pool, name="pvc", size="4M")
    options.set("snapshot_image_features", "object-map")

    def refused() -> bool:
        ret, _, status = vdisk.raw(
            "snap create", image_spec=image_spec(volume), snap_name=f"shot-{time.monotonic_ns()}", format="json"
        )
        return ret == -22 and "snapshot_image_features" in status

    wait_for(refused, 20, "the option is named")
    options.set("snapshot_image_features", "")
    wait_for(lambda: not refused(), 20, "the usual features")
    assert vdisk("volume ls", pool_spec=pool) == [volume]


def test_failover_in_the_middle(cluster: Cluster, vdisk: Vdisk, pool_ns: str) -> None:
    pool = pool_ns.partition("/")[0]
    volume = vdisk("volume create", pool_spec=pool_ns, name="pvc", size="4M")
    for number in range(8):
        vdisk("snap create", image_spec=image_spec(volume), snap_name=f"shot-{number}", wait=0)
        vdisk("volume create", pool_spec=pool, name=f"pvc-{number}", size="4M", wait=0)
    before = cluster.active_mgr()
    assert cluster.fail_mgr() != before
    cluster.wait_module()
    for number in range(8):
        shot = vdisk.until("snap create", image_spec=image_spec(volume), snap_name=f"shot-{number}")
        assert shot["ready_to_use"]
    vdisk.drained(pool)
    assert len(vdisk("snap ls", pool_spec=pool_ns)) == 8
    assert all(item["sealed"] for item in vdisk("snap ls", pool_spec=pool_ns))
    assert len(vdisk("volume ls", pool_spec=pool)) == 8
    assert snapshots(cluster, pool_ns, volume["image"]) == []


def data_connection(cluster: Cluster) -> str:
    """Return the address that vdisk's data connection told in the active mgr's log, `ip:port/nonce`."""
    log = cluster.mgrs[cluster.active_mgr()].log()
    told = [line for line in log.splitlines() if "connected to the cluster as" in line and "vdisk" in line]
    return re.findall(r"[0-9.]+:[0-9]+/[0-9]+", told[-1])[-1]


def test_data_connection_is_fenced_at_failover(cluster: Cluster, vdisk: Vdisk, pool: str) -> None:
    vdisk("volume create", pool_spec=pool, name="pvc", size=4 * MIB)

    def registered() -> str | None:
        # Asked for anew each time: the log may still end with what it was when this mgr was active before.
        address = data_connection(cluster)
        clients = cluster.mgr_map()["active_clients"]
        known = {f"{each['addr']}/{each['nonce']}" for client in clients for each in client["addrvec"]}
        return address if address in known else None

    address = wait_for(registered, 20, "the data connection is registered", ignore=(IndexError,))
    cluster.fail_mgr()
    blocklisted = cluster.ceph("osd", "blocklist", "ls").out
    assert address in blocklisted
    cluster.wait_module()
    assert wait_for(lambda: data_connection(cluster), 20, "another one", ignore=(IndexError,)) != address
    assert [item["name"] for item in vdisk("volume ls", pool_spec=pool)] == ["pvc"]


def test_own_key_has_no_more_than_it_needs(cluster: Cluster, vdisk: Vdisk, pool: str) -> None:
    vdisk("volume create", pool_spec=pool, name="pvc", size=4 * MIB)
    vdisk("volume rm", volume=f"{pool}/pvc")
    vdisk.drained(pool)
    if not has_task_queue(cluster):
        return

    def caps() -> object:
        # vdisk may have removed the volume by itself, before rbd_support was ready and anybody asked for the key.
        return {entry["entity"]: entry["caps"] for entry in cluster.mon("auth ls")["auth_dump"]}["client.vdisk"]

    found = wait_for(caps, 20, "the key of client.vdisk", ignore=(KeyError,))
    assert found == {"mon": "profile rbd", "mgr": "profile rbd", "osd": "profile rbd"}


def test_disabling_and_enabling_again(cluster: Cluster, vdisk: Vdisk, pool: str) -> None:
    volume = vdisk("volume create", pool_spec=pool, name="pvc", size="4M")
    shot = vdisk("snap create", image_spec=image_spec(volume), snap_name="shot")
    vdisk.sealed(shot["handle"])
    removal = vdisk("volume rm", volume=volume["handle"])
    crashes = cluster.crash_dumps()
    try:
        cluster.disable_module()
        # The CLI parses the signatures of modules that are off, too.
        assert cluster.ceph("fsid").out.strip() == cluster.fsid
        assert cluster.ceph("osd", "pool", "ls").out
        assert cluster.ceph("-h", "osd").rc == 0
        off = cluster.ceph("vdisk", "status", check=False)
        assert off.rc != 0
    finally:
        cluster.enable_module()
    assert cluster.crash_dumps() == crashes
    assert [item["handle"] for item in vdisk("snap ls", pool_spec=pool)] == [shot["handle"]]
    assert (
        wait_for(lambda: vdisk("op info", id=removal["operation"]), 20, "the removal is resumed")["state"] != "failed"
    )
    vdisk("snap rm", snapshot=shot["handle"])
    vdisk.drained(pool)
    log = mgr_log(cluster)
    assert not re.search(r"^.*vdisk.*Traceback", log, re.MULTILINE)
    assert "Unhandled exception from module 'vdisk'" not in log
    cluster.wait_healthy(60)


def test_the_journal_can_be_changed_while_the_module_runs(cluster: Cluster, pool: str) -> None:
    def names() -> list[str]:
        return [volume["name"] for volume in cluster.ceph_json("vdisk", "volume", "ls", pool)]

    cluster.ceph("vdisk", "volume", "create", pool, "old", "--size", "8M")
    cluster.ceph("config", "set", "mgr", "mgr/vdisk/journal_instance", "k8s-2")
    try:
        wait_for(lambda: names() == [], 30, "the option's effect")
        cluster.ceph("vdisk", "volume", "create", pool, "new", "--size", "8M")
        assert names() == ["new"]
        assert cluster.rados("-p", pool, "listomapkeys", "csi.volumes.k8s-2").out == "csi.volume.new\n"
        cluster.ceph("vdisk", "volume", "rm", f"{pool}/new")
    finally:
        # Set, not only removed: a removal reaches the mgr at its next start.
        cluster.ceph("config", "set", "mgr", "mgr/vdisk/journal_instance", "default")
        cluster.ceph("config", "rm", "mgr", "mgr/vdisk/journal_instance")
    wait_for(lambda: names() == ["old"], 30, "the option's effect")


#: Run by the release's own Python: classes of a second interpreter until one has the number of a class of rados's.
_TWO_INTERPRETERS = """
import sys, types, rados, _interpreters
sys.modules["rbd"] = types.ModuleType("rbd")
rados.ObjectNotFound("x", errno=2)
inner = _interpreters.create("legacy")
failed = _interpreters.run_string(inner, '''
import importlib.util, sys, types, rados
if {mended}:
    sys.modules["rbd"] = types.ModuleType("rbd")
    spec = importlib.util.spec_from_file_location("shared_types", "{path}")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    assert made.use_up_versions() > 20
    assert made.use_up_versions() == 0
for _ in range(100000):
    class Own:
        def __init__(self, value):
            pass
    Own(1), Own(2), Own(3)
    assert rados.ObjectNotFound("x", errno=2).errno == 2
''')
print("wrong" if failed else "right")
"""


def test_classes_that_interpreters_share_are_not_mistaken_for_others(cluster: Cluster) -> None:
    if cluster.release.name != "reef":
        pytest.skip("its modules share one interpreter, or interpreters number classes together")
    path = cluster.layout.dir / "shared_types.py"
    path.write_text((REPO / "src/vdisk/cluster/shared_types.py").read_text())

    def outcome(mended: bool) -> str:
        code = _TWO_INTERPRETERS.replace("{mended}", str(mended)).replace("{path}", str(path))
        argv = cluster.release.command(["python3", "-c", code], [cluster.layout.dir])
        return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=120).stdout.strip()

    assert outcome(mended=False) == "wrong"
    assert outcome(mended=True) == "right"
