"""`make demo`: a cluster on the loopback address, vdisk at work in it, and both left for you to play with."""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import FrameType

REPO = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPO / "tests"), str(REPO / "tools")]

from demonstration.disks import Disks, MountedDisks, WrittenDisks, why_not_mounted  # noqa: E402
from demonstration.story import Mismatch, Story  # noqa: E402
from demonstration.terminal import CommandFailed, Terminal  # noqa: E402

from harness.cluster import Cluster  # noqa: E402

DEFAULT_DIR = "/tmp/vdisk-demo"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class DemoFailed(Exception):
    """The demonstration can't go on; the message says why."""


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="demo.py", description=__doc__)
    default = os.environ.get("VDISK_DEMO_DIR") or DEFAULT_DIR
    parser.add_argument("--dir", type=Path, default=Path(default), help=f"the cluster's directory (now {default})")
    parser.add_argument("--no-mount", action="store_true", help="write through librbd in place of mounting volumes")
    parser.add_argument("--down", action="store_true", help="stop the cluster and remove its directory")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, _terminated)
    try:
        if args.down:
            harness("down", "--dir", str(args.dir))
            return 0
        demonstrate(args.dir, args.no_mount)
    except (CommandFailed, Mismatch, DemoFailed) as error:
        print(f"\nThe demonstration failed: {error}", file=sys.stderr)
        if (args.dir / "log").exists():
            print(f"The cluster's logs are in {args.dir}/log; {how_to_end(args.dir)} stops it.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nInterrupted; {how_to_end(args.dir)} stops the cluster if it runs.", file=sys.stderr)
        return 130
    return 0


def _terminated(number: int, frame: FrameType | None) -> None:
    # As Ctrl-C does: what is mounted has to be unmounted.
    raise KeyboardInterrupt


def harness(*args: str) -> str:
    """Run `python -m harness`; return what it printed."""
    env = {**os.environ, "PYTHONPATH": str(REPO / "tests")}
    done = subprocess.run(
        [sys.executable, "-m", "harness", *args], env=env, capture_output=True, text=True, timeout=180
    )
    if done.returncode:
        raise DemoFailed((done.stderr or done.stdout).strip())
    return done.stdout


def demonstrate(where: Path, no_mount: bool) -> None:
    """Start the cluster, play the story, and say how to go on."""
    if (where / "cluster.json").exists():
        print(f"The last demonstration's cluster in {where} is stopped first.")
        harness("down", "--dir", str(where))
    elif where.exists():
        raise DemoFailed(f"{where} exists and holds no cluster: remove it, or set VDISK_DEMO_DIR to another path")
    work = Path(tempfile.mkdtemp(prefix="vdisk-demo-disks-"))
    try:
        play(where, work, no_mount)
    finally:
        _remove(work)
    print(how_to_go_on(where))


def play(where: Path, work: Path, no_mount: bool) -> None:
    """Play the whole story with a new cluster. `work` is where volumes get mounted."""
    env = {
        "PATH": f"{where}/bin:{SYSTEM_PATH}",
        "CEPH_CONF": f"{where}/ceph.conf",
        "HOME": os.environ.get("HOME", "/root"),
        "LC_ALL": "C.UTF-8",
    }
    terminal = Terminal(work, env)
    terminal.head("A Ceph cluster on this machine: a monitor, a manager, an OSD")
    harness("up", "--dir", str(where), "--no-enable")
    cluster = Cluster.attach(where)
    try:
        terminal.run("ceph --version")
        terminal.run("ceph osd pool ls")
        gid = cluster.mgr_map()["active_gid"]
        terminal.run("ceph mgr module enable vdisk")
        cluster.wait_active_mgr(not_gid=gid)
        cluster.wait_module("vdisk")
    finally:
        cluster.close_handles()
    disks = _disks(terminal, work, env, no_mount)
    try:
        Story(terminal, disks).play()
    finally:
        disks.close_all()


def _disks(terminal: Terminal, work: Path, env: dict[str, str], no_mount: bool) -> Disks:
    missing = "it was asked for" if no_mount else why_not_mounted(env)
    if missing is None:
        return MountedDisks(terminal, work, env, REPO / "src/vdisk")
    terminal.say(f"Volumes are not mounted here but written through librbd, because {missing}.")
    return WrittenDisks(terminal, env["CEPH_CONF"])


def _remove(work: Path) -> None:
    """Remove the directory of mount points, and never what is still mounted there."""
    if not any(os.path.ismount(path) for path in work.iterdir()):
        shutil.rmtree(work, ignore_errors=True)
    else:
        print(f"something is still mounted in {work}", file=sys.stderr)


def how_to_go_on(where: Path) -> str:
    """Return the last words."""
    return f"""\
The cluster runs on. In a shell of yours:

    export PATH={where}/bin:"$PATH" CEPH_CONF={where}/ceph.conf

    ceph vdisk volume ls rbd
    ceph vdisk volume restore rbd/snapshot-play pvc-again
    ceph vdisk volume info rbd/pvc-again
    ceph vdisk volume resize rbd/pvc-again 2G
    ceph vdisk snap rm rbd/snapshot-play --dry-run
    ceph vdisk op ls --format json-pretty
    tail -f {where}/log/ceph-mgr.x.log | grep vdisk

{how_to_end(where)} stops it and removes all of it."""


def how_to_end(where: Path) -> str:
    """Return the command that stops the cluster in a directory."""
    return "make demo-down" if str(where) == DEFAULT_DIR else f"make demo-down VDISK_DEMO_DIR={where}"


if __name__ == "__main__":
    sys.exit(main())
