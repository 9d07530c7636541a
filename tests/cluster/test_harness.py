"""The harness itself, on every release: what all other cluster tests stand on."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import rbd

from harness.cli import CephError, CommandTimeout
from harness.cluster import Cluster, ClusterFailed
from harness.config import FAST
from harness.genesis import has_module
from harness.releases import ensure_root
from harness.silence import explain
from harness.wait import wait_for

if TYPE_CHECKING:
    from conftest import NewCluster

GIB = 1 << 30


@pytest.fixture(scope="module")
def bare(release_name: str) -> Iterator[Cluster]:
    """A cluster of this module's own, without vdisk, so that its tests say nothing about the module."""
    ensure_root(release_name)
    with Cluster(release_name, mgrs=2, module=False, conf={**FAST, "mon_mgr_beacon_grace": 4}) as running:
        running.create_pool("rbd", namespaces=["tenant"])
        running.wait_module("rbd_support")
        yield running


def test_starts_healthy(new_cluster: "NewCluster") -> None:
    cluster = new_cluster(module=False)
    cluster.wait_healthy(30)
    assert cluster.active_mgr() == "x"
    assert all(daemon.running for daemon in cluster.daemons())


def test_starts_with_the_monitors_usual_pace(new_cluster: "NewCluster") -> None:
    cluster = new_cluster(module=False, fast=False)
    assert cluster.ceph_json("config", "get", "mon", "paxos_propose_interval") == 1


def test_vdisk_is_enabled_from_the_start(new_cluster: "NewCluster") -> None:
    if not has_module():
        pytest.skip("the repository holds no vdisk module yet")
    cluster = new_cluster()
    assert "vdisk" in cluster.mgr_map()["modules"]
    assert cluster.mgr_command({"prefix": "vdisk status", "format": "json"})[0] == 0


def test_is_healthy_with_a_pool(bare: Cluster) -> None:
    bare.wait_healthy(30)


def test_tools_are_the_releases_own(bare: Cluster, release_name: str) -> None:
    assert release_name in bare.ceph("--version").out
    assert release_name in str(bare.ceph_json("versions"))


def test_image_through_tools_and_librbd(bare: Cluster) -> None:
    bare.rbd("create", "rbd/tool-made", "--size", "8M")
    with bare.connect().open_ioctx("rbd") as ioctx:
        assert "tool-made" in rbd.RBD().list(ioctx)
        rbd.RBD().create(ioctx, "librbd-made", GIB)
        assert bare.rbd_json("info", "rbd/librbd-made")["size"] == GIB
        assert bare.rados("-p", "rbd", "stat", "rbd_directory").rc == 0
        with rbd.Image(ioctx, "tool-made") as image:
            image.write(b"written by librbd", 0)
    assert bare.rbd("export", "rbd/tool-made", "-").out.startswith("written by librbd")


def test_namespace_is_ready_for_images(bare: Cluster) -> None:
    bare.rbd("create", "rbd/tenant/image", "--size", "1M")
    assert bare.rbd_json("ls", "rbd/tenant") == ["image"]


def test_restricted_entity(bare: Cluster) -> None:
    bare.auth("client.reader", mon="allow r")
    assert bare.ceph("fsid", entity="client.reader").out.strip() == bare.fsid
    refused = bare.ceph("osd", "pool", "create", "nope", entity="client.reader", check=False)
    assert refused.rc != 0
    assert bare.mgr_command({"prefix": "rbd task list"}, entity="client.reader")[0] < 0
    bare.auth("client.reader", mon="allow r", mgr="allow *")
    assert bare.new_handle("client.reader").mgr_command('{"prefix": "rbd task list"}', b"")[0] == 0


def test_failure_carries_the_whole_output(bare: Cluster) -> None:
    with pytest.raises(CephError, match="no-such-image") as caught:
        bare.rbd("info", "rbd/no-such-image")
    assert caught.value.result.rc == 2


def test_module_command_and_enabling(bare: Cluster) -> None:
    ret, out, _ = bare.mgr_command({"prefix": "rbd task list", "format": "json"})
    assert (ret, out.strip()) == (0, "[]")
    bare.enable_module("selftest")
    assert bare.ceph("mgr", "self-test", "run", check=False).rc is not None
    assert "selftest" in bare.mgr_map()["modules"]
    bare.disable_module("selftest")
    assert "selftest" not in bare.mgr_map()["modules"]


def test_module_log_lines_at_info(bare: Cluster) -> None:
    active = bare.mgrs[bare.active_mgr()]
    # Tentacle's logger has the module's name, the others' is "root".
    line = re.compile(r"rbd_support INFO \w+\] TaskHandler: starting")
    wait_for(lambda: line.search(active.log()), 20, "an INFO line of rbd_support")


def test_erasure_coded_data_pool(new_cluster: "NewCluster") -> None:
    cluster = new_cluster(module=False, osds=3)
    cluster.create_pool("meta")
    cluster.create_ec_pool("data")
    cluster.rbd("create", "meta/image", "--size", "8M", "--data-pool", "data")
    cluster.rbd("bench", "--io-type", "write", "--io-total", "1M", "meta/image")
    assert cluster.rbd_json("info", "meta/image")["data_pool"] == "data"


def test_failover_on_command(bare: Cluster) -> None:
    before = bare.active_mgr()
    assert bare.fail_mgr() != before
    bare.wait_module("rbd_support")


def test_failover_after_kill_and_pause(bare: Cluster) -> None:
    for name in ("kill", "pause"):
        gid = bare.mgr_map()["active_gid"]
        victim = bare.mgrs[bare.active_mgr()]
        getattr(victim, name)()
        successor = bare.wait_active_mgr(not_gid=gid)
        assert f"mgr.{successor}" != victim.name
        assert victim.running is (name == "pause")
        victim.resume() if victim.running else victim.start()
        bare.wait_standby(victim.name.removeprefix("mgr."))


def test_command_without_manager_does_not_hang(new_cluster: "NewCluster") -> None:
    cluster = new_cluster(module=False)
    cluster.mgrs["x"].kill()
    with pytest.raises(CommandTimeout):
        cluster.mgr_command({"prefix": "rbd task list"}, timeout=2)
    cluster.mgrs["x"].start()
    cluster.wait_module("rbd_support")


def test_restart_and_environment(bare: Cluster) -> None:
    daemon = bare.mgrs[bare.active_mgr()]
    before = daemon.pid
    daemon.restart(env={"VDISK_TEST_MARK": "here"})
    assert daemon.pid != before
    # Opened anew each time: what is opened before the process has become the daemon goes on showing what it was before.
    environ = Path(f"/proc/{daemon.pid}/environ")
    wait_for(lambda: "VDISK_TEST_MARK=here" in environ.read_text(), 30, "the environment")
    bare.wait_module("rbd_support")


def test_pid_is_the_daemons_own(bare: Cluster) -> None:
    for daemon in bare.daemons():
        # One that was just started is what starts it for a moment.
        comm, wanted = Path(f"/proc/{daemon.pid}/comm"), "ceph-" + daemon.name.partition(".")[0]
        wait_for(lambda comm=comm, wanted=wanted: comm.read_text().strip() == wanted, 30, f"{daemon.name} is {wanted}")
        if bare.release.native:  # the others have a root of their own
            assert os.readlink(f"/proc/{daemon.pid}/cwd") == "/"


def test_osd_keeps_data_over_restart(bare: Cluster) -> None:
    with bare.connect().open_ioctx("rbd") as ioctx:
        ioctx.write_full("kept", b"data")
        bare.osds["0"].restart()
        assert ioctx.read("kept") == b"data"


def test_bluestore_keeps_data_over_kill(new_cluster: "NewCluster") -> None:
    cluster = new_cluster(module=False, store="bluestore")
    cluster.create_pool("rbd")
    with cluster.connect().open_ioctx("rbd") as ioctx:
        ioctx.write_full("kept", b"data")
        cluster.osds["0"].kill()
        cluster.osds["0"].start()
        assert ioctx.read("kept") == b"data"


def test_three_monitors_survive_the_loss_of_one(new_cluster: "NewCluster") -> None:
    cluster = new_cluster(module=False, mons=3)
    cluster.mons["c"].kill()
    wait_for(lambda: len(cluster.mon("quorum_status")["quorum"]) == 2, 60, "a quorum of two")
    cluster.create_pool("rbd")


def test_added_manager_takes_over(new_cluster: "NewCluster") -> None:
    cluster = new_cluster(module=False)
    cluster.add_mgr("y")
    assert cluster.fail_mgr() == "y"


def test_two_clusters_side_by_side(bare: Cluster, new_cluster: "NewCluster") -> None:
    other = new_cluster(module=False)
    assert other.fsid != bare.fsid
    assert other.ceph("fsid").out.strip() == other.fsid
    assert bare.ceph("fsid").out.strip() == bare.fsid


def test_stop_leaves_nothing(release_name: str) -> None:
    with Cluster(release_name, module=False, conf=FAST) as cluster:
        daemons = list(cluster.daemons())
    assert not cluster.dir.exists()
    assert not any(daemon.running for daemon in daemons)


def test_failed_start_tells_why(release_name: str) -> None:
    cluster = Cluster(
        release_name, module=False, conf={"mgr:mgr_module_path": "/nonexistent", "mon_host": "127.0.0.1:1"}
    )
    with pytest.raises(ClusterFailed, match=str(cluster.dir)):
        cluster.start(timeout=5)
    assert cluster.dir.exists()
    cluster.layout.remove()


def test_no_crashes(bare: Cluster) -> None:
    assert bare.crashes() == []


def test_what_a_manager_is_doing_can_be_told_from_outside(cluster: Cluster) -> None:
    told = explain(cluster, seconds=60)
    for client in ("the old handle", "a new handle"):
        assert f"pg stat, {client}: (0," in told, told
    assert "pg stat, the tool: 0" in told, told
    assert f'"active_name": "{cluster.active_mgr()}"' in told
    assert re.search(r"mgr\.x, pid \d+, threads:\n +\d+ x ", told), told
    if cluster.release.name == "tentacle":
        assert "vdisk/module.py" in told, told
