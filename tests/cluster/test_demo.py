"""The demonstration, as `make demo` and `make demo-down` run it."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.cluster import Cluster
from harness.releases import REPO, Release, ensure_root, native_release
from harness.wait import wait_for

SCRIPT = REPO / "tools/demo.py"


@pytest.fixture
def place() -> Iterator[Path]:
    """The directory for the demonstration's cluster; what runs there is stopped afterwards."""
    base = Path(tempfile.mkdtemp(prefix="vd-"))
    yield base / "demo"
    if (base / "demo/cluster.json").exists():
        Cluster.attach(base / "demo").stop()
    shutil.rmtree(base, ignore_errors=True)


@pytest.fixture
def where(release_name: str, place: Path) -> Path:
    """The same, on a machine of the test's release."""
    native = native_release()
    if native is None or native.name != release_name:
        pytest.skip("the demonstration is one of this machine's own release")
    return place


def start(where: Path, *args: str, within: Release | None = None) -> "subprocess.Popen[str]":
    """Start the demonstration. Its mount points are below `where`'s parent, where they can be counted.

    `within` is a release in whose root it runs, as on a machine that has no other.
    """
    env = {**os.environ, "VDISK_DEMO_DIR": str(where), "TMPDIR": str(where.parent)}
    argv = ["/usr/bin/python3", str(SCRIPT), *args]
    return subprocess.Popen(
        argv if within is None else within.command(argv, [REPO, where.parent]),
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def play(where: Path, *args: str, within: Release | None = None) -> str:
    """Run the demonstration to its end; return what it printed."""
    process = start(where, *args, within=within)
    try:
        out = process.communicate(timeout=800)[0]
    finally:
        process.terminate()
    assert process.returncode == 0, f"exit code {process.returncode}, at the end of this:\n{out[-3000:]}"
    return out


def left(where: Path) -> list[str]:
    """Mounts, loop devices and processes below the directory that are left of disks."""
    base = str(where.parent)
    found = [line for line in Path("/proc/mounts").read_text().splitlines() if f" {base}/" in line]
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        # Others' devices come and go meanwhile.
        with contextlib.suppress(OSError):
            if base in backing.read_text():
                found.append(str(backing))
    for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = cmdline.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if words[0].endswith("rbd-fuse") and any(word.startswith(base) for word in words):
            found.append(" ".join(words))
    return found + [str(path) for path in where.parent.glob("vdisk-demo-disks-*")]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_plays_leaves_the_cluster_up_and_plays_again(where: Path) -> None:
    out = play(where)
    assert "checksums are those from before the snapshot" in out
    assert "Error EBUSY: in_use" in out
    assert "# Nothing is left." in out
    assert "\x1b" not in out
    assert left(where) == []
    first = Cluster.attach(where)
    assert all(daemon.running for daemon in first.daemons())
    assert [volume["name"] for volume in first.ceph_json("vdisk", "volume", "ls", "rbd")] == ["pvc-play"]
    assert [snapshot["name"] for snapshot in first.ceph_json("vdisk", "snap", "ls", "rbd")] == ["snapshot-play"]
    assert first.crashes() == []

    again = play(where, "--no-mount")
    assert "is stopped first" in again
    assert "checksums are those from before the snapshot" in again
    assert not any(daemon.running for daemon in first.daemons())

    play(where, "--down")
    assert not where.exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_plays_on_a_machine_of_another_release(release_name: str, place: Path) -> None:
    release = ensure_root(release_name)
    if release.native:
        pytest.skip("that is the test above")
    place.parent.chmod(0o755)
    out = play(place, within=release)
    assert "checksums are those from before the snapshot" in out
    assert "# Nothing is left." in out
    assert Cluster.attach(place).crashes() == []
    play(place, "--down", within=release)
    assert not place.exists()


@pytest.mark.slow
def test_unmounts_when_it_is_ended_in_between(where: Path) -> None:
    process = start(where)
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if line.startswith("$ dd ") or "not mounted here" in line:
            break
    if "not mounted here" in seen[-1]:
        process.kill()
        pytest.skip(seen[-1])
    assert left(where) != []
    process.send_signal(signal.SIGTERM)
    rest = process.communicate(timeout=180)[0]
    assert process.returncode == 130, rest
    wait_for(lambda: left(where) == [], 20, "nothing is left of the disks", interval=0.1)


def test_leaves_a_directory_alone_that_is_not_its_own(where: Path) -> None:
    where.mkdir()
    (where / "precious").touch()
    process = start(where)
    out = process.communicate(timeout=180)[0]
    assert process.returncode == 1
    assert "holds no cluster" in out
    assert (where / "precious").exists()
