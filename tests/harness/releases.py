"""The Ceph releases that tests run against, and how to run a program of one.

The release of this machine's own packages is *native* and runs directly. The others live in a root directory made from
the Debian suite that ships them (`harness.roots`) and are entered with chroot, in a mount namespace of their own.
"""

import functools
import os
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]

SUITES = {"pacific": "bookworm", "reef": "trixie", "tentacle": "sid"}
"""Release name -> Debian suite whose packages are that release."""

PACKAGES = (
    "ceph-mon",
    "ceph-mgr",
    "ceph-osd",
    "ceph-common",
    "ceph-mgr-modules-core",
    "ceph-mgr-dashboard",
    "python3-rados",
    "python3-rbd",
)
"""What a root holds besides a minimal Debian."""

# Arguments: root, directories to bind, '--', command. Every step is an exec, so that the process that was started
# becomes the command itself and its pid can be signalled. The mounts vanish with the last process in the namespace.
# A new namespace starts with a copy of every mount there is; a daemon that kept them would keep the disks busy that
# tests have mounted meanwhile. So the old root is left behind with all of them.
_ENTER = """
set -e
root=$1
shift
mount --bind "$root" "$root"
for dir in /proc /dev /sys; do mount --rbind "$dir" "$root$dir"; done
while [ "$1" != -- ]; do
    mkdir -p "$root$1"
    mount --bind "$1" "$root$1"
    shift
done
shift
mkdir -p "$root/.outside"
cd "$root"
pivot_root . .outside
umount --lazy /.outside
exec "$@"
"""


class ReleaseUnavailable(Exception):
    """The release cannot run here: unknown, or its root is missing and could not be made."""


@dataclass(frozen=True)
class Release:
    """One Ceph release and where its programs are."""

    name: str
    suite: str
    native: bool
    root: Path | None

    def command(self, argv: Sequence[str], binds: Iterable[Path] = ()) -> list[str]:
        """Return the argument list that runs `argv` as a program of this release.

        `binds` are host directories that the program sees at the same path. The process started from the list keeps
        its pid up to and including `argv` itself.
        """
        if self.native or self.root is None:
            return list(argv)
        dirs = [str(path) for path in binds]
        enter = ["/bin/sh", "-c", _ENTER, "enter", str(self.root), *dirs, "--", *argv]
        return ["/usr/bin/unshare", "--mount", "--propagation", "private", *enter]

    def path(self, inside: str) -> Path:
        """Return the host's path of a file that the release's programs see at the absolute path `inside`."""
        return Path(inside) if self.root is None else self.root / inside.lstrip("/")


def cache_dir() -> Path:
    """Return the directory for everything that is expensive to make: `VDISK_CACHE`, or `.cache` in the repository."""
    return Path(os.environ.get("VDISK_CACHE") or REPO / ".cache").absolute()


def root_dir(name: str) -> Path:
    """Return where the root of release `name` is, or would be."""
    return cache_dir() / "roots" / name


@functools.cache
def native_release() -> Release | None:
    """Return the release that this machine's own packages are, or None if there are none that we know."""
    try:
        done = subprocess.run(["/usr/bin/ceph-mon", "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    found = re.match(r"ceph version \S+ \(\S+\) (\w+)", done.stdout)
    if found is None or found[1] not in SUITES:
        return None
    return Release(name=found[1], suite=SUITES[found[1]], native=True, root=None)


def missing_packages(root: Path) -> list[str]:
    """Return the packages that a root lacks, because it was never made or an earlier version of this made it."""
    return [name for name in PACKAGES if not (root / f"var/lib/dpkg/info/{name}.list").exists()]


def get_release(name: str) -> Release:
    """Return the release `name`, which must be usable now; raises `ReleaseUnavailable` otherwise."""
    if name not in SUITES:
        raise ReleaseUnavailable(f"unknown release {name!r}; known are {', '.join(SUITES)}")
    native = native_release()
    if native is not None and native.name == name:
        return native
    root = root_dir(name)
    if missing_packages(root):
        raise ReleaseUnavailable(f'{name} is not installed: make it with "python -m harness roots {name}"')
    return Release(name=name, suite=SUITES[name], native=False, root=root)


def ensure_root(name: str) -> Release:
    """Return the release `name`, making its root first if it is not there. Takes minutes when it does."""
    from harness.roots import build_root

    try:
        return get_release(name)
    except ReleaseUnavailable:
        if name not in SUITES:
            raise
        build_root(name, SUITES[name], root_dir(name))
        return get_release(name)
