"""The node's pure parts: choosing a mounter, the arguments of krbd and rbd-nbd, mounts, records, file systems."""

import json
import os
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

import pytest
from grpc import StatusCode

from vdisk_csi.cluster import Identity
from vdisk_csi.errors import CsiError
from vdisk_csi.failpoints import STEPS
from vdisk_csi.filesystems import Filesystems, mount_options, without_replay
from vdisk_csi.mounters import NoMounter, choose, usable
from vdisk_csi.mounters.device import DeviceMounter, find_device
from vdisk_csi.mounts import Mounts, parse_mountinfo
from vdisk_csi.records import Record, Records
from vdisk_csi.tools import Done, ToolFailed, run

RECORD = Record("id", "rbd", "ns1", "csi-vol-1", "krbd", "/staging", False, 1, False, "ext4")


class Programs:
    """Stands in for the system's programs: remembers what was run and answers by the first words."""

    def __init__(self, answers: dict[str, Done | ToolFailed] | None = None) -> None:
        self.answers = answers or {}
        self.ran: list[list[str]] = []

    def __call__(self, argv: Sequence[str], *, ok: Collection[int] = (0,)) -> Done:
        """Run."""
        self.ran.append(list(argv))
        text = " ".join(argv)
        answer = next((done for words, done in self.answers.items() if words in text), Done(0, "", ""))
        if isinstance(answer, ToolFailed):
            raise answer
        if answer.code not in ok:
            raise ToolFailed(f"{text}: exit code {answer.code}: {answer.err}")
        return answer


KRBD = [
    {"id": "0", "pool": "rbd", "namespace": "", "name": "csi-vol-1", "snap": "-", "device": "/dev/rbd0"},
    {"id": "1", "pool": "rbd", "namespace": "ns1", "name": "csi-vol-1", "snap": "s", "device": "/dev/rbd1"},
    {"id": "2", "pool": "rbd", "namespace": "ns1", "name": "csi-vol-1", "snap": "-", "device": "/dev/rbd2"},
]
NBD = [{"id": 12, "pool": "rbd", "namespace": "ns1", "image": "csi-vol-1", "snap": "-", "device": "/dev/nbd0"}]


def test_devices_are_found_in_what_rbd_lists() -> None:
    listed = json.dumps(KRBD)
    assert find_device(listed, "rbd", "ns1", "csi-vol-1") == "/dev/rbd2"
    assert find_device(listed, "rbd", "", "csi-vol-1") == "/dev/rbd0"
    assert find_device(listed, "rbd", "", "csi-vol-2") is None
    assert find_device(json.dumps({entry["id"]: entry for entry in KRBD}), "rbd", "ns1", "csi-vol-1") == "/dev/rbd2"
    assert find_device(json.dumps(NBD), "rbd", "ns1", "csi-vol-1") == "/dev/nbd0"
    assert find_device("", "rbd", "", "x") is None


@pytest.mark.parametrize("kind", ["krbd", "nbd"])
def test_mapping(kind: str, tmp_path: Path) -> None:
    programs = Programs({"device list": Done(0, "[]", ""), "device map": Done(0, "/dev/rbd7\n", "")})
    mounter = DeviceMounter(kind, programs)
    assert mounter.attach(RECORD, Identity(conf="/c", name="client.a", keyring="/k"), tmp_path) == "/dev/rbd7"
    assert programs.ran == [
        ["rbd", "device", "list", "--device-type", kind, "--format", "json"],
        ["rbd", "--conf", "/c", "--name", "client.a", "--keyring", "/k", "device", "map", "--device-type", kind,
         "rbd/ns1/csi-vol-1"],
    ]  # fmt: skip


def test_a_key_of_a_request_is_in_a_file_only_as_long_as_it_takes(tmp_path: Path) -> None:
    seen: list[str] = []

    class Looking(Programs):
        def __call__(self, argv: Sequence[str], *, ok: Collection[int] = (0,)) -> Done:
            if "map" in argv:
                path = argv[list(argv).index("--keyfile") + 1]
                assert os.stat(path).st_mode & 0o077 == 0
                seen.append(path + ":" + Path(path).read_text())
            return super().__call__(argv, ok=ok)

    programs = Looking({"device list": Done(0, "[]", ""), "device map": Done(0, "/dev/rbd7\n", "")})
    identity = Identity(conf="/c").with_secrets({"userID": "a", "userKey": "hidden", "monitors": "m"})
    DeviceMounter("krbd", programs).attach(RECORD, identity, tmp_path)
    path, _, content = seen[0].partition(":")
    assert content == "hidden"
    assert not os.path.exists(path)
    assert "hidden" not in str(programs.ran)
    assert programs.ran[1][:9] == ["rbd", "--conf", "/c", "--name", "client.a", "--keyfile", path, "--mon-host", "m"]


def test_what_is_mapped_is_not_mapped_again_and_is_unmapped_once(tmp_path: Path) -> None:
    programs = Programs({"device list": Done(0, json.dumps(KRBD), "")})
    mounter = DeviceMounter("krbd", programs)
    assert mounter.attach(RECORD, Identity(), tmp_path) == "/dev/rbd2"
    assert len(programs.ran) == 1
    with pytest.raises(ToolFailed, match="still mapped"):
        mounter.detach(RECORD, tmp_path)
    assert ["rbd", "device", "unmap", "--device-type", "krbd", "/dev/rbd2"] in programs.ran
    missing = ToolFailed("rbd: error opening image: (2) No such file or directory")
    with pytest.raises(CsiError) as raised:
        DeviceMounter("krbd", Programs({"device list": Done(0, "[]", ""), "map": missing})).attach(
            RECORD, Identity(), tmp_path
        )
    assert raised.value.code is StatusCode.NOT_FOUND


def test_the_best_mounter_that_the_node_has_is_chosen() -> None:
    def found(programs: Collection[str], paths: Collection[str], modules: Collection[str] = ()) -> list[str]:
        def load(argv: Sequence[str], *, ok: Collection[int] = (0,)) -> Done:
            if argv[-1] not in modules:
                raise ToolFailed("no such module")
            return Done(0, "", "")

        return usable(load, lambda path: path in paths, lambda name: name if name in programs else None)

    devices = {"/dev/fuse", "/dev/loop-control"}
    everything = {"rbd", "rbd-nbd", "rbd-fuse", "losetup"}
    assert found(everything, {*devices, "/sys/bus/rbd", "/sys/module/nbd"}) == ["krbd", "rbd-nbd", "rbd-fuse"]
    assert found(everything, devices, {"rbd"}) == ["krbd", "rbd-fuse"]
    assert found(everything, devices, {"nbd"}) == ["rbd-nbd", "rbd-fuse"]
    assert found({"rbd-fuse", "losetup"}, {*devices, "/sys/bus/rbd"}) == ["rbd-fuse"]
    assert found(everything, ()) == []
    assert choose("", ["krbd", "rbd-fuse"]).preferred == "krbd"
    mounters = choose("rbd-fuse", ["krbd", "rbd-fuse"])
    assert mounters.preferred == "rbd-fuse"
    assert mounters.get("krbd") is not None
    assert mounters.get("rbd-nbd") is None
    for wanted, names in (("krbd", ["rbd-fuse"]), ("", [])):
        with pytest.raises(NoMounter):
            choose(wanted, names)


def test_mountinfo(tmp_path: Path) -> None:
    text = (
        "36 35 98:0 /mnt1 /mnt\\040two rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n"
        "37 35 0:6 /loop3 /target ro,relatime - devtmpfs udev rw\n"
        "38 35 7:0 / /mnt\\040two rw - ext4 /dev/loop0 ro\n"
        "39 35 7:1 / /\\303\\244 rw - ext4 /dev/loop1 rw\n"
        "nonsense\n"
    )
    first, second, third, fourth = parse_mountinfo(text)
    assert (first.path, first.root, first.device, first.read_only) == ("/mnt two", "/mnt1", "98:0", False)
    assert (second.root, second.fs_type, second.read_only) == ("/loop3", "devtmpfs", True)
    assert third.read_only, "a superblock that is read-only counts too"
    assert fourth.path == "/ä"
    (tmp_path / "mountinfo").write_text(text)
    mounts = Mounts(Programs(), tmp_path / "mountinfo")
    assert mounts.at("/mnt two/") == third
    assert mounts.at("/nowhere") is None


def test_records_survive_and_are_left_alone_when_they_cannot_be_read(tmp_path: Path) -> None:
    records = Records(tmp_path / "volumes")
    record = Record("id/🎈", "p", "", "i", "rbd-fuse", "/s", False, 1, True, "xfs", ("noatime",), ("-b", "4096"))
    record = record.with_target("/t", True).with_target("/u", False)
    assert records.load(record.volume_id) is None
    records.save(record)
    assert Records(tmp_path / "volumes").load(record.volume_id) == record
    assert record.without_target("/t").targets == {"/u": False}
    assert record.image_spec == "p/i"
    (path,) = (tmp_path / "volumes").iterdir()
    for bad in ("", "{}", '{"v": 2}', '{"v": 1, "x": 1}', "[]"):
        path.write_text(bad)
        with pytest.raises((CsiError, AttributeError)):
            records.load(record.volume_id)
        assert path.read_text() == bad
    records.remove(record.volume_id)
    records.remove(record.volume_id)
    assert records.load(record.volume_id) is None


def test_what_a_killed_driver_was_writing_goes_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = Records(tmp_path / "volumes")
    record = Record("id", "p", "", "i", "rbd-fuse", "/s", False, 1, True, "xfs", (), ())
    records.save(record)
    monkeypatch.setattr("os.replace", lambda *paths: sys.exit())
    with pytest.raises(SystemExit):
        records.save(record.with_target("/t", True))
    assert len(list((tmp_path / "volumes").iterdir())) == 2
    assert Records(tmp_path / "volumes").load("id") == record
    assert len(list((tmp_path / "volumes").iterdir())) == 1


def blank(tmp_path: Path, size: int = 8 << 20) -> str:
    path = tmp_path / "device"
    path.write_bytes(bytes(size))
    return str(path)


@pytest.mark.parametrize(
    ("done", "found"),
    [
        (Done(2, "", ""), ""),
        (Done(0, "DEVNAME=x\nTYPE=ext4\nUSAGE=filesystem\n", ""), "ext4"),
        (Done(0, "TYPE=LVM2_member\nUSAGE=raid\n", ""), None),
        (Done(0, "PTTYPE=gpt\n", ""), None),
        (Done(0, "TYPE=swap\nUSAGE=other\n", ""), None),
        (Done(0, "TYPE=crypto_LUKS\nUSAGE=crypto\n", ""), None),
        (Done(8, "", "ambivalent"), None),
        (Done(4, "", "usage"), ToolFailed),
    ],
)
def test_what_blkid_says_is_taken_seriously(tmp_path: Path, done: Done, found: object) -> None:
    filesystems = Filesystems(Programs({"blkid": done}))
    if isinstance(found, str):
        assert filesystems.probe(blank(tmp_path)) == found
        return
    with pytest.raises((CsiError, ToolFailed)) as raised:
        filesystems.probe(blank(tmp_path))
    if found is None:
        assert isinstance(raised.value, CsiError)
        assert raised.value.code is StatusCode.FAILED_PRECONDITION


def test_only_what_is_empty_is_blank(tmp_path: Path) -> None:
    fine = {"lsblk": Done(0, '{"blockdevices": [{"name": "x", "type": "loop"}]}', "")}
    device = blank(tmp_path)
    Filesystems(Programs(fine)).check_blank(device)
    parts = '{"blockdevices": [{"name": "x", "type": "loop", "children": [{"name": "x1", "type": "part"}]}]}'
    for answers in ({**fine, "wipefs": Done(0, "LVM2_member\n", "")}, {"lsblk": Done(0, parts, "")}):
        with pytest.raises(CsiError):
            Filesystems(Programs(answers)).check_blank(device)
    for place in (0, (4 << 20) - 1, (8 << 20) - 1):
        with open(device, "r+b") as file:
            file.seek(place)
            file.write(b"x")
        with pytest.raises(CsiError, match="not formatted"):
            Filesystems(Programs(fine)).check_blank(device)
        blank(tmp_path)


@pytest.mark.parametrize("code", range(0, 129))
def test_exit_codes_of_fsck(code: int) -> None:
    filesystems = Filesystems(Programs({"fsck": Done(code, "said", "")}))
    if code in (0, 1, 2, 3):
        filesystems.check("/dev/x", "ext4")
    else:
        with pytest.raises((CsiError, ToolFailed)):
            filesystems.check("/dev/x", "ext4")


@pytest.mark.parametrize("looks", [[False], [True, True, False]])
def test_growing_unmounted_waits_until_nobody_uses_the_device(
    monkeypatch: pytest.MonkeyPatch, looks: list[bool]
) -> None:
    programs, left = Programs(), list(looks)

    def in_use(device: str) -> bool:
        assert (device, programs.ran) == ("/dev/x", [])
        return left.pop(0)

    monkeypatch.setattr("vdisk_csi.filesystems._in_use", in_use)
    Filesystems(programs).grow_unmounted("/dev/x")
    assert left == []
    assert [argv[0] for argv in programs.ran] == ["e2fsck", "resize2fs"]


def test_growing_unmounted_leaves_it_to_the_program_to_say_what_is_the_matter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vdisk_csi.filesystems._IN_USE_SECONDS", 0.0)
    monkeypatch.setattr("vdisk_csi.filesystems._in_use", lambda device: True)
    with pytest.raises(ToolFailed, match="is in use"):
        Filesystems(Programs({"e2fsck": Done(8, "", "/dev/x is in use.")})).grow_unmounted("/dev/x")


def test_mount_options() -> None:
    assert mount_options("ext4", [], False) == []
    assert mount_options("ext4", ["noatime", "noatime", " discard"], True) == ["noatime", "discard", "ro"]
    assert mount_options("xfs", ["ro"], True) == ["ro", "nouuid"]
    assert (without_replay("ext4"), without_replay("xfs")) == ("noload", "norecovery")


def test_programs_are_run_without_a_shell_and_fail_clearly() -> None:
    assert run(["printf", "%s", "$(id) `id` ; id"]).out == "$(id) `id` ; id"
    with pytest.raises(ToolFailed, match="exit code 3: no"):
        run(["sh", "-c", "echo no >&2; exit 3"])
    with pytest.raises(ToolFailed, match="no-such-program"):
        run(["no-such-program"])


def test_a_driver_waits_for_what_a_killed_one_left_running(tmp_path: Path) -> None:
    def start(code: str) -> subprocess.Popen[str]:
        text = "from pathlib import Path\nfrom vdisk_csi.tools import run, take_turn\n"
        text += f"path = Path({str(tmp_path)!r}) / 'd/lock'\n"
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2] / "src")}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([sys.executable, "-c", text + code], text=True, env=env, **pipes)

    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    first = start(f"take_turn(path)\nprint('in', flush=True)\nrun(['cat', {str(fifo)!r}])")
    assert first.stdout is not None
    assert first.stdout.readline() == "in\n"
    with fifo.open("w"):  # cat has begun
        first.kill()
        first.wait()
        second = start("take_turn(path)\nprint('in', flush=True)")
        assert second.stderr is not None
        assert second.stderr.readline().startswith("waiting for another driver")
        assert second.poll() is None
    assert second.communicate(timeout=60)[0] == "in\n"


def test_steps_are_documented() -> None:
    text = (Path(__file__).resolve().parents[2] / "doc/csi.md").read_text()
    assert all(f"`{step}`" in text for step in STEPS)
