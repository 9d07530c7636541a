"""The CSI node on real clusters: RBD images, rbd-fuse, loop devices and file systems, and a driver that is killed."""

import concurrent.futures
import contextlib
import hashlib
import json
import os
import random
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from cluster.csi_driver import GIB, MIB, Driver, Mode, create_request, mounting, raw, refused, running
from harness.cluster import Cluster
from harness.wait import wait_for
from vdisk_csi.mounters import usable
from vdisk_csi.mounts import Mounts
from vdisk_csi.proto import csi_pb2 as csi
from vdisk_csi.tools import run

pytestmark = pytest.mark.skipif("rbd-fuse" not in usable(), reason="needs root, rbd-fuse, FUSE and loop devices")

MOUNTS = Mounts(run)
FUSE = {"mounter": "rbd-fuse"}
#: Each step of a volume's life on a node, in order, for a writable file system.
STAGE = ["write-record", "start-fuse", "attach-loop", "begin-format", "format", "end-format", "check", "mount"]
PUBLISH = ["record-target", "make-target", "bind"]
UNPUBLISH = ["unbind", "remove-target", "drop-target"]
UNSTAGE = ["unmount", "detach-loop", "stop-fuse", "remove-record"]

#: A partition table as PCs have it, with one Linux partition.
PARTITIONS = bytes(446) + b"\0\0\2\0\x83\x20\x20\0" + struct.pack("<II", 2048, 16384) + bytes(48) + b"\x55\xaa"


class Disk:
    """A volume on the node."""

    def __init__(self, driver: Driver, volume: csi.Volume, capability: csi.VolumeCapability | None = None) -> None:
        self.driver = driver
        self.volume = volume
        self.capability = capability if capability is not None else mounting()
        base = driver.dir / volume.volume_id[-12:]
        self.staging, self.target = str(base / "staging"), str(base / "pod" / "mount")
        Path(self.staging).mkdir(parents=True, exist_ok=True)
        Path(self.target).parent.mkdir(parents=True, exist_ok=True)

    def stage(self) -> None:
        """Stage."""
        self.driver.node.NodeStageVolume(self.stage_request(), timeout=60)

    def publish(self, target: str = "", read_only: bool = False) -> str:
        """Publish."""
        self.driver.node.NodePublishVolume(self.publish_request(target, read_only), timeout=60)
        return target or self.target

    def unpublish(self, target: str = "") -> None:
        """Unpublish."""
        request = csi.NodeUnpublishVolumeRequest(volume_id=self.volume.volume_id, target_path=target or self.target)
        self.driver.node.NodeUnpublishVolume(request, timeout=60)

    def unstage(self) -> None:
        """Unstage."""
        request = csi.NodeUnstageVolumeRequest(volume_id=self.volume.volume_id, staging_target_path=self.staging)
        self.driver.node.NodeUnstageVolume(request, timeout=60)

    def up(self) -> str:
        """Stage and publish."""
        self.stage()
        return self.publish()

    def down(self) -> None:
        """Unpublish and unstage."""
        self.unpublish()
        self.unstage()

    def expand(self, size: int) -> int:
        """Grow the volume and what is on it."""
        capacity = csi.CapacityRange(required_bytes=size)
        self.driver.controller.ControllerExpandVolume(
            csi.ControllerExpandVolumeRequest(volume_id=self.volume.volume_id, capacity_range=capacity)
        )
        answer = self.driver.node.NodeExpandVolume(
            csi.NodeExpandVolumeRequest(
                volume_id=self.volume.volume_id, volume_path=self.target, capacity_range=capacity
            )
        )
        return int(answer.capacity_bytes)

    def stats(self, path: str = "") -> csi.NodeGetVolumeStatsResponse:
        """What is used."""
        return self.driver.node.NodeGetVolumeStats(
            csi.NodeGetVolumeStatsRequest(volume_id=self.volume.volume_id, volume_path=path or self.target)
        )

    def stage_request(self, **fields: Any) -> csi.NodeStageVolumeRequest:
        """The request."""
        given = {
            "volume_id": self.volume.volume_id,
            "staging_target_path": self.staging,
            "volume_capability": self.capability,
            "volume_context": dict(self.volume.volume_context),
            **fields,
        }
        return csi.NodeStageVolumeRequest(**given)

    def publish_request(self, target: str = "", read_only: bool = False, **fields: Any) -> csi.NodePublishVolumeRequest:
        """The request."""
        given = {
            "volume_id": self.volume.volume_id,
            "staging_target_path": self.staging,
            "target_path": target or self.target,
            "volume_capability": self.capability,
            "readonly": read_only,
            "volume_context": dict(self.volume.volume_context),
            **fields,
        }
        return csi.NodePublishVolumeRequest(**given)


def loops(driver: Driver) -> list[str]:
    """The loop devices that a driver's files are behind."""
    found = json.loads(run(["losetup", "--json", "--list", "--output", "NAME,BACK-FILE"]).out or '{"loopdevices": []}')
    # Another process may detach its device while they are listed: it has no file then.
    return [loop["name"] for loop in found["loopdevices"] if str(driver.dir) in (loop["back-file"] or "")]


def leftovers(driver: Driver) -> list[str]:
    """Everything on the node that belongs to a driver's volumes."""
    inside = str(driver.dir)
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if inside in line]
    found = subprocess.run(["pgrep", "-fa", f"^rbd-fuse.*{inside}"], capture_output=True, text=True).stdout.splitlines()
    files = [str(path) for path in (driver.dir / "state").rglob("*") if path.is_file() and path.name != "lock"]
    return [*mounts, *loops(driver), *found, *files]


@contextlib.contextmanager
def node(cluster: Cluster, *options: str) -> Iterator[Driver]:
    """A driver with both parts that runs inside of the block; what a failed test leaves is cleared away."""
    with running(cluster, *options, node=True) as driver:
        try:
            yield driver
        finally:
            clear(driver)


def clear(driver: Driver) -> None:
    """Detach all that is left, without the driver."""
    mounts = [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for path in sorted((path for path in mounts if str(driver.dir) in path), key=lambda path: "/state/fuse/" in path):
        if "/state/fuse/" in path:
            for loop in loops(driver):
                subprocess.run(["losetup", "-d", loop], check=False)
        subprocess.run(["umount", "--lazy", path], check=False)
    found = subprocess.run(["pgrep", "-f", f"^rbd-fuse.*{driver.dir}/"], capture_output=True, text=True).stdout
    for pid in found.split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), 9)


@pytest.fixture(scope="module")
def driver(cluster: Cluster) -> Iterator[Driver]:
    """A driver for the tests that don't kill it."""
    with node(cluster) as found:
        yield found


@pytest.fixture
def disk(driver: Driver, pool: str) -> Iterator[Callable[..., Disk]]:
    """Create volumes in a fresh pool; they are taken down afterwards."""
    made: list[Disk] = []

    def create(name: str = "pvc-1", size: int = 64 * MIB, **more: Any) -> Disk:
        capability = more.get("capability")
        volume = driver.controller.CreateVolume(create_request(pool, name, size, **FUSE, **more)).volume
        made.append(Disk(driver, volume, capability))
        return made[-1]

    yield create
    for each in made:
        each.down()
    assert leftovers(driver) == []


def snapshot_of(driver: Driver, volume: csi.Volume, name: str = "snapshot-1") -> csi.Snapshot:
    """Take a snapshot."""
    request = csi.CreateSnapshotRequest(source_volume_id=volume.volume_id, name=name)
    return driver.controller.CreateSnapshot(request).snapshot


def fill(path: str, seed: int, files: int = 8, size: int = 256 << 10) -> dict[str, str]:
    """Write files and return their checksums."""
    source = random.Random(seed)
    sums = {}
    for number in range(files):
        data = source.randbytes(size)
        name = f"file-{seed}-{number}"
        (Path(path) / name).write_bytes(data)
        sums[name] = hashlib.sha256(data).hexdigest()
    os.sync()
    return sums


def sums_of(path: str) -> dict[str, str]:
    """The checksums of all files."""
    return {
        entry.name: hashlib.sha256(entry.read_bytes()).hexdigest() for entry in Path(path).iterdir() if entry.is_file()
    }


# -- data from end to end ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fs", ["ext4", "xfs"])
def test_data_goes_through_snapshot_restore_clone_and_growth(
    driver: Driver, disk: Callable[..., Disk], fs: str
) -> None:
    size = 320 * MIB  # the least that mkfs.xfs accepts is 300 MiB
    first = disk("pvc-1", size, capability=mounting(fs))
    path = first.up()
    kept = fill(path, 1)
    stop = threading.Event()
    written: list[int] = []

    def write() -> None:
        with open(f"{path}/journal", "ab") as file:
            while not stop.is_set():
                file.write(len(written).to_bytes(8, "big"))
                file.flush()
                os.fsync(file.fileno())
                written.append(len(written))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        wait_for(lambda: len(written) > 5, 20, "the writer writes")
        durable = len(written)
        snap = snapshot_of(driver, first.volume)
        after = len(written)
    finally:
        stop.set()
        writer.join()
    (Path(path) / "file-1-0").unlink()
    (Path(path) / "file-1-1").write_bytes(b"spoilt")
    os.sync()
    restored = disk("pvc-2", 2 * size, snapshot=snap.snapshot_id, capability=mounting(fs))
    back = restored.up()  # beside its source, which has the same UUID
    found = sums_of(back)
    journal = (Path(back) / "journal").read_bytes()
    del found["journal"]
    assert found == kept
    numbers = [int.from_bytes(journal[at : at + 8], "big") for at in range(0, len(journal) // 8 * 8, 8)]
    assert numbers == list(range(len(numbers)))
    assert durable <= len(numbers) <= after + 1, "the snapshot holds what was synced before it and nothing after it"
    assert restored.stats().usage[0].total > 1.7 * size, "the file system was not grown to the larger volume"
    clone = disk("pvc-3", size, volume=first.volume.volume_id, capability=mounting(fs))
    now = {name: value for name, value in sums_of(path).items() if name != "journal"}
    copied = sums_of(clone.up())
    assert {name: value for name, value in copied.items() if name != "journal"} == now
    before = first.stats().usage[0].total
    assert first.expand(2 * size) == 2 * size
    assert first.stats().usage[0].total > before * 1.7
    more = fill(path, 2)
    first.down()
    assert not os.path.lexists(first.target)
    again = sums_of(first.up())
    del again["journal"]
    assert again == {**now, **more}


def test_growing_waits_for_who_just_has_a_copy_of_the_mount(driver: Driver, disk: Callable[..., Disk]) -> None:
    """As whoever starts a container: its mount namespace begins with a copy of every mount."""
    volume = disk("pvc-1")
    kept = fill(volume.up(), 1)
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo copied; read line"]
    with (
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as container,
        concurrent.futures.ThreadPoolExecutor(1) as threads,
    ):
        assert container.stdout is not None
        assert container.stdout.readline() == "copied\n"
        grown = threads.submit(volume.expand, 128 * MIB)
        # Where a mounted file system can be grown it is done at once.
        wait_for(lambda: MOUNTS.at(volume.staging) is None or grown.done(), 20, "it is unmounted", interval=0.01)
        container.communicate("\n", timeout=60)
        assert grown.result(60) == 128 * MIB
    assert volume.stats().usage[0].total > 100 * MIB
    assert sums_of(volume.target) == kept


def test_a_raw_block_device_keeps_its_data(driver: Driver, disk: Callable[..., Disk]) -> None:
    volume = disk("pvc-1", 16 * MIB, capability=raw())
    path = volume.up()
    data = random.Random(1).randbytes(4 * MIB)
    with open(path, "r+b", buffering=0) as device:
        device.write(data)
        os.fsync(device.fileno())
    volume.publish()
    (usage,) = volume.stats().usage
    assert (usage.total, usage.unit) == (16 * MIB, csi.VolumeUsage.BYTES)
    assert volume.expand(32 * MIB) == 32 * MIB
    with open(path, "rb") as device:
        assert device.seek(0, os.SEEK_END) == 32 * MIB
    snap = snapshot_of(driver, volume.volume)
    volume.down()
    for each in (volume, disk("pvc-2", 32 * MIB, snapshot=snap.snapshot_id, capability=raw())):
        with open(each.up(), "rb") as device:
            assert device.read(len(data)) == data
    # The same content as a file system: that is no file system, and stays what it is.
    other = disk("pvc-3", 32 * MIB, snapshot=snap.snapshot_id)
    assert "not formatted" in refused(driver.node.NodeStageVolume, other.stage_request(), "FAILED_PRECONDITION")
    with open(Disk(driver, other.volume, raw()).up(), "rb") as device:
        assert device.read(len(data)) == data


def test_read_only(driver: Driver, disk: Callable[..., Disk]) -> None:
    volume = disk("pvc-1", capability=mounting(mode=Mode.SINGLE_NODE_MULTI_WRITER))
    kept = fill(volume.up(), 1)
    other = volume.publish(volume.target + "-2", read_only=True)
    with pytest.raises(OSError, match="Read-only"):
        (Path(other) / "x").write_text("x")
    (Path(volume.target) / "y").write_text("y")
    assert (Path(other) / "y").read_text() == "y"
    refused(driver.node.NodePublishVolume, volume.publish_request(other, read_only=False), "ALREADY_EXISTS")
    refused(driver.node.NodePublishVolume, volume.publish_request(read_only=True), "ALREADY_EXISTS")
    volume.publish(other, read_only=True)
    snap = snapshot_of(driver, volume.volume)  # of a file system that is mounted: its journal has to be replayed
    volume.unpublish(other)
    for number, mode in enumerate((Mode.SINGLE_NODE_READER_ONLY, Mode.MULTI_NODE_READER_ONLY)):
        reader = disk(f"reader-{number}", 0, snapshot=snap.snapshot_id, capability=mounting(mode=mode))
        path = reader.up()
        with pytest.raises(OSError, match="Read-only"):
            (Path(path) / "x").write_text("x")
        assert {name: value for name, value in sums_of(path).items() if name != "y"} == kept
    blank = disk("blank", capability=mounting(mode=Mode.MULTI_NODE_READER_ONLY))
    refused(driver.node.NodeStageVolume, blank.stage_request(), "FAILED_PRECONDITION")
    block = disk("block", capability=raw(Mode.SINGLE_NODE_MULTI_WRITER))
    block.stage()
    path = block.publish(read_only=True)
    with pytest.raises(OSError, match=r"permitted|denied|Read-only"), open(path, "r+b", buffering=0) as device:
        device.write(b"x" * 4096)
    refused(driver.node.NodePublishVolume, block.publish_request(block.target + "-2"), "FAILED_PRECONDITION")


def test_a_second_publication_needs_a_mode_for_several(driver: Driver, disk: Callable[..., Disk]) -> None:
    """The table of the specification for drivers with SINGLE_NODE_MULTI_WRITER."""
    for number, mode in enumerate((Mode.SINGLE_NODE_WRITER, Mode.SINGLE_NODE_SINGLE_WRITER)):
        single = disk(f"single-{number}", capability=mounting(mode=mode))
        single.up()
        single.publish()
        again = single.publish_request(single.target + "-2")
        refused(driver.node.NodePublishVolume, again, "FAILED_PRECONDITION")
        again.volume_capability.access_mode.mode = Mode.SINGLE_NODE_MULTI_WRITER
        refused(driver.node.NodePublishVolume, again, "FAILED_PRECONDITION")
        single.unpublish()
        single.publish(single.target + "-2")
        single.unpublish(single.target + "-2")
    many = disk("many", capability=mounting(mode=Mode.SINGLE_NODE_MULTI_WRITER))
    fill(many.up(), 1)
    many.publish(many.target + "-2")
    shot = snapshot_of(driver, many.volume)
    alone = many.publish_request(many.target + "-3")
    alone.volume_capability.access_mode.mode = Mode.SINGLE_NODE_WRITER
    refused(driver.node.NodePublishVolume, alone, "FAILED_PRECONDITION")
    many.unpublish(many.target + "-2")
    for mode, several in ((Mode.SINGLE_NODE_READER_ONLY, False), (Mode.MULTI_NODE_READER_ONLY, True)):
        reader = disk(f"reader-{mode}", 0, snapshot=shot.snapshot_id, capability=mounting(mode=mode))
        reader.up()
        if several:
            reader.publish(reader.target + "-2")
            reader.unpublish(reader.target + "-2")
        else:
            again = reader.publish_request(reader.target + "-2")
            refused(driver.node.NodePublishVolume, again, "FAILED_PRECONDITION")


# -- nothing is ever formatted that holds something -------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda device: run(["mkswap", device]),
        lambda device: run(["mkfs.ext3", "-q", device]),
        lambda device: Path(device).write_bytes(PARTITIONS),
        lambda device: run(["dd", "if=/dev/urandom", f"of={device}", "bs=64K", "count=1", "conv=notrunc"]),
    ],
    ids=["swap", "ext3", "partitions", "data"],
)
def test_what_holds_something_is_not_formatted(
    driver: Driver, disk: Callable[..., Disk], make: Callable[[str], Any]
) -> None:
    volume = disk("pvc-1", capability=mounting("ext4"))
    block = Disk(driver, volume.volume, raw())
    device = block.up()
    make(device)
    os.sync()
    with open(device, "rb") as file:
        before = hashlib.sha256(file.read()).hexdigest()
    block.down()
    for _ in range(2):
        refused(driver.node.NodeStageVolume, volume.stage_request(), "FAILED_PRECONDITION")
    assert leftovers(driver) == []
    with open(block.up(), "rb") as file:
        assert hashlib.sha256(file.read()).hexdigest() == before
    block.down()


def test_a_file_system_with_errors_is_repaired_or_reported(driver: Driver, disk: Callable[..., Disk]) -> None:
    volume = disk("pvc-1")
    kept = fill(volume.up(), 1)
    volume.down()
    block = Disk(driver, volume.volume, raw())
    device = block.up()
    run(["debugfs", "-w", "-R", "ssv free_blocks_count 1", device])
    run(["debugfs", "-w", "-R", "ssv state 2", device])
    block.down()
    assert sums_of(volume.up()) == kept


# -- calls that can't be served ---------------------------------------------------------------------------------------


def test_missing_and_malformed_fields(driver: Driver, disk: Callable[..., Disk], tmp_path: Path) -> None:
    volume = disk("pvc-1")
    stage, publish = driver.node.NodeStageVolume, driver.node.NodePublishVolume
    file = tmp_path / "file"
    file.write_text("x")
    no_type = csi.VolumeCapability(access_mode=Mode(mode=1))
    no_mode = csi.VolumeCapability(mount=csi.VolumeCapability.MountVolume())
    for fields in (
        {"volume_id": ""}, {"staging_target_path": ""}, {"staging_target_path": "relative"},
        {"volume_capability": None}, {"volume_capability": no_type}, {"volume_capability": no_mode},
        {"volume_capability": mounting("ntfs")},
        {"volume_capability": mounting(mode=Mode.MULTI_NODE_MULTI_WRITER)}, {"staging_target_path": str(file)},
        {"volume_context": {**volume.volume.volume_context, "imageName": "a@b"}},
        {"staging_target_path": "/" + "x" * 4096},
    ):  # fmt: skip
        refused(stage, volume.stage_request(**fields), "INVALID_ARGUMENT")
    context = dict(volume.volume.volume_context)
    gone = {**context, "imageName": "csi-vol-00000000-0000-4000-8000-000000000000"}
    refused(stage, volume.stage_request(volume_context=gone), "NOT_FOUND")
    refused(stage, volume.stage_request(volume_id="no-such-volume"), "NOT_FOUND")
    refused(stage, volume.stage_request(volume_context={**context, "mounter": "krbd"}), "FAILED_PRECONDITION")
    assert leftovers(driver) == []
    refused(publish, volume.publish_request(), "FAILED_PRECONDITION")
    volume.stage()
    for fields in (
        {"volume_id": ""}, {"target_path": ""}, {"target_path": "relative"}, {"volume_capability": None},
        {"volume_capability": no_type}, {"volume_capability": raw()},
    ):  # fmt: skip
        refused(publish, volume.publish_request(**fields), "INVALID_ARGUMENT")
    for path in ("", "/somewhere/else"):
        refused(publish, volume.publish_request(staging_target_path=path), "FAILED_PRECONDITION")
    refused(stage, volume.stage_request(volume_capability=mounting(flags=("noatime",))), "ALREADY_EXISTS")
    refused(stage, volume.stage_request(volume_capability=raw()), "ALREADY_EXISTS")
    refused(stage, volume.stage_request(staging_target_path=volume.staging + "-2"), "FAILED_PRECONDITION")
    target = volume.publish()
    node, volume_id = driver.node, volume.volume.volume_id
    for request in (
        csi.NodeUnpublishVolumeRequest(volume_id=volume_id),
        csi.NodeUnpublishVolumeRequest(target_path=target),
    ):
        refused(node.NodeUnpublishVolume, request, "INVALID_ARGUMENT")
    for request in (
        csi.NodeUnstageVolumeRequest(volume_id=volume_id), csi.NodeUnstageVolumeRequest(staging_target_path=target),
    ):  # fmt: skip
        refused(node.NodeUnstageVolume, request, "INVALID_ARGUMENT")
    for call, request in (
        (node.NodeGetVolumeStats, csi.NodeGetVolumeStatsRequest), (node.NodeExpandVolume, csi.NodeExpandVolumeRequest),
    ):  # fmt: skip
        refused(call, request(volume_id=volume_id), "INVALID_ARGUMENT")
        refused(call, request(volume_path=target), "INVALID_ARGUMENT")
        for path in ("/no/such/path", "some/path", "/" + "x" * 5000):
            refused(call, request(volume_id=volume_id, volume_path=path), "NOT_FOUND")
        refused(call, request(volume_id="no-such-volume", volume_path=target), "NOT_FOUND")
    too_much = csi.CapacityRange(required_bytes=4 * GIB)
    request = csi.NodeExpandVolumeRequest(volume_id=volume_id, volume_path=target, capacity_range=too_much)
    refused(node.NodeExpandVolume, request, "OUT_OF_RANGE")
    unstage = csi.NodeUnstageVolumeRequest(volume_id=volume_id, staging_target_path=volume.staging)
    refused(node.NodeUnstageVolume, unstage, "FAILED_PRECONDITION")


def test_every_call_may_be_repeated(driver: Driver, disk: Callable[..., Disk]) -> None:
    volume = disk("pvc-1", capability=mounting(flags=("noatime", "nodev")))
    volume.unpublish()
    volume.unstage()
    for _ in range(3):
        volume.stage()
    line = next(line for line in Path("/proc/self/mountinfo").read_text().splitlines() if volume.staging in line)
    assert "noatime" in line
    assert "nodev" in line
    for _ in range(3):
        volume.publish()
    assert Path("/proc/self/mountinfo").read_text().count(f" {volume.target} ") == 1
    usage = volume.stats().usage
    assert {entry.unit for entry in usage} == {csi.VolumeUsage.BYTES, csi.VolumeUsage.INODES}
    assert all(0 < entry.available <= entry.total for entry in usage)
    assert volume.stats(volume.staging).usage
    for _ in range(3):
        volume.unpublish()
    for _ in range(3):
        volume.unstage()


def test_a_volume_that_is_described_by_its_id_alone(driver: Driver, disk: Callable[..., Disk]) -> None:
    volume = disk("pvc-1")
    driver.node.NodeStageVolume(volume.stage_request(volume_context=FUSE))
    volume.publish()


def test_what_the_node_says_of_itself(driver: Driver) -> None:
    assert driver.node.NodeGetInfo(csi.NodeGetInfoRequest()).node_id == "node-1"
    rpc = csi.NodeServiceCapability.RPC
    found = driver.node.NodeGetCapabilities(csi.NodeGetCapabilitiesRequest()).capabilities
    assert {rpc.Type.Name(each.rpc.type) for each in found} == {
        "STAGE_UNSTAGE_VOLUME", "GET_VOLUME_STATS", "EXPAND_VOLUME", "VOLUME_CONDITION", "SINGLE_NODE_MULTI_WRITER",
    }  # fmt: skip


def test_the_node_needs_no_more_than_profile_rbd(cluster: Cluster, pool: str) -> None:
    cluster.auth("client.csi-node", mon="profile rbd", osd="profile rbd")
    key = cluster.mon("auth get-key", entity="client.csi-node")["key"]
    with node(cluster) as driver:
        volume = driver.controller.CreateVolume(create_request(pool, "pvc-1", 32 * MIB)).volume
        disk = Disk(driver, volume)
        secrets = {"userID": "csi-node", "userKey": key}
        driver.node.NodeStageVolume(
            disk.stage_request(secrets=secrets, volume_context={**volume.volume_context, **FUSE})
        )
        kept = fill(disk.publish(), 1, files=2)
        assert sums_of(disk.target) == kept
        assert key not in driver.log()
        state = driver.dir / "state"
        assert not any(key.encode() in path.read_bytes() for path in state.rglob("*.json"))
        found = subprocess.run(["pgrep", "-fa", f"^rbd-fuse.*{driver.dir}"], capture_output=True, text=True).stdout
        assert key not in found
        disk.down()
        assert leftovers(driver) == []


# -- crashes ----------------------------------------------------------------------------------------------------------


def test_the_driver_may_be_killed_between_any_two_steps(cluster: Cluster, pool: str) -> None:
    with node(cluster) as driver:
        volume = driver.controller.CreateVolume(create_request(pool, "pvc-1", 32 * MIB, **FUSE)).volume
        disk = Disk(driver, volume)

        def through(steps: list[str], call: Callable[[], None]) -> None:
            """Make a call that kills the driver at each point of its steps, one after the other, and ends at last."""
            for point in [f"{steps[0]}:before", *(f"{name}:after" for name in steps)]:
                driver.failpoint.write_text(point)
                with pytest.raises(grpc.RpcError):
                    call()
                assert driver.died(), point
                driver.failpoint.unlink()
                driver.start()
            call()

        through(STAGE, disk.stage)
        through(PUBLISH, disk.publish)
        kept = fill(disk.target, 1)
        through(UNPUBLISH, disk.unpublish)
        through(UNSTAGE, disk.unstage)
        assert leftovers(driver) == []
        # Again, with data, so that it is not formatted whatever happens; and read-only.
        through(["mount"], disk.stage)
        through(["bind-read-only"], lambda: disk.publish(read_only=True) and None)
        assert sums_of(disk.target) == kept
        disk.down()
        assert leftovers(driver) == []
        driver.controller.DeleteVolume(csi.DeleteVolumeRequest(volume_id=volume.volume_id))


def test_a_format_that_was_cut_is_begun_again(cluster: Cluster, pool: str) -> None:
    with node(cluster) as driver:
        volume = driver.controller.CreateVolume(create_request(pool, "pvc-1", 32 * MIB, **FUSE)).volume
        disk = Disk(driver, volume, mounting("ext4"))
        driver.failpoint.write_text("format:before")
        with pytest.raises(grpc.RpcError):
            disk.stage()
        assert driver.died()
        driver.failpoint.unlink()
        # What mkfs leaves when it is killed: inode tables and no superblock.
        (loop,) = loops(driver)
        with open(loop, "r+b") as device:
            device.seek(2 * MIB)
            device.write(b"half an inode table" * 1000)
            device.flush()
            os.fsync(device.fileno())
        driver.start()
        kept = fill(disk.up(), 1, files=2)
        disk.down()
        assert sums_of(disk.up()) == kept
        disk.down()
        assert leftovers(driver) == []


def test_the_driver_may_be_killed_at_any_time(cluster: Cluster, pool: str) -> None:
    dice = random.Random(5)
    with node(cluster) as driver:
        volume = driver.controller.CreateVolume(create_request(pool, "pvc-1", 32 * MIB, **FUSE)).volume
        disk = Disk(driver, volume)
        kept = fill(disk.up(), 1, files=2)
        disk.down()
        for _ in range(4):
            moment = threading.Timer(dice.uniform(0.02, 0.9), driver._process.kill)  # type: ignore[union-attr]
            moment.start()
            with contextlib.suppress(Exception):
                while True:
                    disk.up()
                    disk.down()
            moment.join()
            driver.kill()
            driver.start()
            if dice.random() < 0.5:
                assert sums_of(disk.up()) == kept
            disk.down()
            assert leftovers(driver) == []


@pytest.fixture
def short_watches(cluster: Cluster) -> Iterator[None]:
    """Have the cluster forget a client that died after five seconds in place of thirty."""
    option = {"who": "osd", "name": "osd_client_watch_timeout"}
    cluster.mon("config set", **option, value="5")
    yield
    cluster.mon("config rm", **option)


@pytest.mark.usefixtures("short_watches")
def test_an_rbd_fuse_that_died_is_reported_and_replaced(cluster: Cluster, pool: str) -> None:
    with node(cluster) as driver:
        volume = driver.controller.CreateVolume(create_request(pool, "pvc-1", 32 * MIB, **FUSE)).volume
        disk = Disk(driver, volume)
        kept = fill(disk.up(), 1, files=2)
        pid = subprocess.run(["pgrep", "-f", f"^rbd-fuse.*{driver.dir}"], capture_output=True, text=True, check=True)
        os.kill(int(pid.stdout), 9)
        wait_for(lambda: disk.stats().volume_condition.abnormal, 10, "the condition is abnormal")
        disk.unpublish()
        assert sums_of(disk.up()) == kept
        assert not disk.stats().volume_condition.abnormal
        disk.down()
        assert leftovers(driver) == []


def test_the_type_and_options_of_the_storage_class_count_where_the_capability_names_none(
    driver: Driver, disk: Callable[..., Disk]
) -> None:
    chosen = {"csi.storage.k8s.io/fstype": "ext3", "mkfsOptions": "-b 4096 -L 'two words'"}
    volume = disk("pvc-1", 64 * MIB, **chosen)
    volume.stage()
    there = MOUNTS.at(volume.staging)
    assert there is not None
    assert there.fs_type == "ext3"
    device = run(["blkid", "-p", "-o", "export", there.source]).out
    assert "LABEL=two\\ words" in device
    assert "BLOCK_SIZE=4096" in device


def test_a_format_that_failed_can_be_begun_again(driver: Driver, disk: Callable[..., Disk]) -> None:
    volume = disk("pvc-1")
    context = {**volume.volume.volume_context, "mkfsOptions": "-O no-such-feature"}
    message = refused(driver.node.NodeStageVolume, volume.stage_request(volume_context=context), "INTERNAL")
    assert "no-such-feature" in message
    assert [path for path in leftovers(driver) if not path.endswith(".json")] == []
    volume.up()


def test_a_record_from_before_a_restart_of_the_node_holds_nobody(cluster: Cluster, pool: str) -> None:
    with node(cluster) as driver:
        volume = driver.controller.CreateVolume(create_request(pool, "pvc-1", 32 * MIB, **FUSE)).volume
        disk = Disk(driver, volume)
        kept = fill(disk.up(), 1, files=2)
        driver.kill()
        (record,) = (driver.dir / "state" / "volumes").iterdir()
        text = record.read_text()
        driver.start()
        disk.down()
        driver.kill()
        record.write_text(text)  # and nothing of what it tells of: as after a restart
        driver.start()
        refused(driver.node.NodeGetVolumeStats, csi.NodeGetVolumeStatsRequest(
            volume_id=volume.volume_id, volume_path=disk.target), "NOT_FOUND")  # fmt: skip
        other = Disk(driver, volume, mounting("ext4", flags=("noatime",)))
        assert sums_of(other.up()) == kept
        other.down()
        assert leftovers(driver) == []
