"""The CSI controller with many calls at once, through failovers, without a manager, and when time runs out.

``VDISK_CSI_LOAD=<volumes>,<failovers>`` makes the load larger than by default.
"""

import concurrent.futures
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import grpc

from cluster.csi_driver import MIB, create_request, refused, running
from cluster.support import Vdisk, image_names, journal, silent_owner, snapshots, trash
from harness.cluster import Cluster
from harness.wait import wait_for
from vdisk_csi.proto import csi_pb2 as csi

if TYPE_CHECKING:
    from cluster.conftest import NewCluster

THREADS = 64
COUNT, FAILOVERS = map(int, os.environ.get("VDISK_CSI_LOAD", "50,1").split(","))


def test_a_load_through_failovers_is_all_there_and_nothing_twice(new_cluster: "NewCluster") -> None:
    cluster = new_cluster(mgrs=2)
    cluster.create_pool("rbd")
    # Not one client repeats a call here: a failover only takes time.
    with (
        running(cluster, "--timeout", "150", "--mgr-timeout", "120") as driver,
        concurrent.futures.ThreadPoolExecutor(THREADS) as threads,
    ):
        done = [0]
        lock = threading.Lock()

        def count(answer: Any) -> Any:
            with lock:
                done[0] += 1
            return answer

        def create(number: int) -> csi.Volume:
            request = create_request("rbd", f"pvc-{number}", 16 * MIB)
            return count(driver.controller.CreateVolume(request, timeout=200).volume)

        def shoot(volume: csi.Volume) -> csi.Snapshot:
            name = f"snapshot-{volume.volume_id[-12:]}"
            request = csi.CreateSnapshotRequest(source_volume_id=volume.volume_id, name=name)
            return count(driver.controller.CreateSnapshot(request, timeout=200).snapshot)

        def both(number: int) -> tuple[csi.Volume, csi.Snapshot]:
            volume = create(number)
            return volume, shoot(volume)

        start = time.monotonic()
        work = [threads.submit(both, number) for number in range(COUNT)]
        for failover in range(1, FAILOVERS + 1):
            share = 2 * COUNT * failover // (FAILOVERS + 1)
            wait_for(lambda share=share: done[0] >= share, 200, f"{share} calls are through", interval=0.02)
            cluster.fail_mgr()
        made = [each.result() for each in work]
        seconds = time.monotonic() - start
        print(f"{2 * COUNT} calls with {FAILOVERS} failovers in {seconds:.1f} s")
        assert len({volume.volume_id for volume, _ in made}) == COUNT
        assert len({snap.snapshot_id for _, snap in made}) == COUNT
        for volume, snap in made:
            assert (volume.capacity_bytes, snap.size_bytes) == (16 * MIB, 16 * MIB)
            assert snap.source_volume_id == volume.volume_id
            assert snap.ready_to_use
            assert snap.creation_time.seconds
        # Repeating each call answers the same.
        again = list(threads.map(both, range(COUNT)))
        assert again == made
        listed = driver.controller.ListVolumes(csi.ListVolumesRequest(), timeout=60).entries
        assert {entry.volume.volume_id for entry in listed} == {volume.volume_id for volume, _ in made}
        shots = driver.controller.ListSnapshots(csi.ListSnapshotsRequest(), timeout=60).entries
        assert {entry.snapshot.snapshot_id for entry in shots} == {snap.snapshot_id for _, snap in made}
        # And the cluster holds just that.
        wanted = {volume.volume_context["imageName"] for volume, _ in made}
        wanted |= {f"csi-snap-{snap.snapshot_id[-36:]}" for _, snap in made}
        assert set(image_names(cluster, "rbd")) == wanted
        kept = journal(cluster, "rbd")
        assert len(kept) == 2 * COUNT + 2
        assert len(kept["csi.volumes.default"]) == len(kept["csi.snaps.default"]) == COUNT
        Vdisk(cluster).drained("rbd", timeout=120)
        assert not any(snapshots(cluster, "rbd", volume.volume_context["imageName"]) for volume, _ in made)

        def delete(pair: tuple[csi.Volume, csi.Snapshot]) -> None:
            volume, snap = pair
            driver.controller.DeleteVolume(csi.DeleteVolumeRequest(volume_id=volume.volume_id), timeout=200)
            driver.controller.DeleteSnapshot(csi.DeleteSnapshotRequest(snapshot_id=snap.snapshot_id), timeout=200)

        list(threads.map(delete, made))
        assert image_names(cluster, "rbd") == []
        assert not any(journal(cluster, "rbd").values())
        if COUNT <= 100:
            wait_for(lambda: not trash(cluster, "rbd"), 120, "the trash is empty")


def refused_in_time(call: Any, request: Any, code: str, timeout: float) -> str:
    """Make a call that has to fail before its client gives up; on a busy machine the answer may take another try."""
    return wait_for(lambda: refused(call, request, code, timeout=timeout), 20, f"the client hears {code}")


def test_calls_end_in_time_where_an_image_hangs_and_without_a_manager(new_cluster: "NewCluster") -> None:
    cluster = new_cluster()
    cluster.create_pool("rbd")
    # Deadlines leave the answer half a second and more to arrive in.
    with running(cluster, "--mgr-timeout", "6") as driver:
        volume = driver.controller.CreateVolume(create_request("rbd", "pvc-1", 16 * MIB)).volume
        request = csi.CreateSnapshotRequest(source_volume_id=volume.volume_id, name="s-1")
        # Who holds the image's lock does not give it away until it is let go on.
        with silent_owner(cluster, "rbd", volume.volume_context["imageName"]) as owner:
            assert "goes on" in refused_in_time(driver.controller.CreateSnapshot, request, "ABORTED", timeout=8)
            owner.send_signal(signal.SIGCONT)
            snap = driver.controller.CreateSnapshot(request).snapshot
            owner.communicate("", timeout=60)
        assert driver.controller.CreateSnapshot(request).snapshot == snap
        shots = driver.controller.ListSnapshots(csi.ListSnapshotsRequest()).entries
        assert len(shots) == 1
        (manager,) = cluster.mgrs.values()
        manager.kill()
        requests = [create_request("rbd", f"pvc-{number}", 16 * MIB) for number in range(40)]
        with concurrent.futures.ThreadPoolExecutor(len(requests)) as threads:

            def code(request: csi.CreateVolumeRequest) -> str:
                try:
                    driver.controller.CreateVolume(request, timeout=60)
                except grpc.RpcError as error:
                    return str(error.code().name)
                return "OK"

            assert set(threads.map(code, requests)) == {"UNAVAILABLE"}
        refused_in_time(driver.controller.CreateVolume, requests[0], "UNAVAILABLE", timeout=5)
        assert driver.identity.Probe(csi.ProbeRequest()).ready.value is False
        manager.start()
        cluster.wait_module()
        driver.wait_ready()
        with concurrent.futures.ThreadPoolExecutor(len(requests)) as threads:

            def create(request: csi.CreateVolumeRequest) -> csi.Volume:
                # Forty at once, to a manager that has just begun: who is told that it took too long asks again.
                made = wait_for(
                    lambda: driver.controller.CreateVolume(request), 60, "the volume is made", ignore=(grpc.RpcError,)
                )
                return made.volume

            made = list(threads.map(create, requests))
        assert made[1] == volume
        assert len({each.volume_id for each in made}) == len(requests)
        assert driver.stop() == 0


def test_without_a_cluster_it_starts_and_says_that_it_is_not_ready(cluster: Cluster) -> None:
    with running(cluster, "--mon-host", "127.0.0.1:9", "--timeout", "20") as driver:
        assert driver.identity.Probe(csi.ProbeRequest(), timeout=30).ready.value is False
        refused(
            driver.controller.DeleteVolume,
            csi.DeleteVolumeRequest(volume_id=f"0101-24-{cluster.fsid}-00000001-{cluster.fsid}"),
            "UNAVAILABLE",
            timeout=30,
        )
        assert driver.stop() == 0
