"""Makes the root directories of the releases that are not native: a minimal Debian with Ceph's packages.

A root is made under a temporary name and renamed when it is complete, under a lock: a half-made one is never used, and
two runs at once make it once.
"""

import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.releases import PACKAGES, Release, ReleaseUnavailable, missing_packages


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(argv: Sequence[str], log: Path) -> None:
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    with log.open("ab") as out:
        done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
    if done.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-25:])
        raise ReleaseUnavailable(f"{argv[0]} failed ({done.returncode}); the end of {log}:\n{tail}")


def build_root(name: str, suite: str, target: Path) -> None:
    """Make the root of release `name` from Debian `suite` at `target`, unless it is there already.

    A root that an earlier version made gets what it lacks. Needs root rights and debootstrap. The mirror is
    debootstrap's own default, or `VDISK_MIRROR`. What the tools say
    goes to `<target>.log`. Raises `ReleaseUnavailable` when a step fails; nothing is left then.
    """
    with _locked(target.with_name(f".{name}.lock")):
        missing = missing_packages(target)
        if not missing:
            return
        if os.geteuid() != 0:
            raise ReleaseUnavailable(f"making the root of {name} needs root rights")
        work = target.with_name(f".{name}.partial")
        log = target.with_name(f"{name}.log")
        if target.exists():
            there = Release(name=name, suite=suite, native=False, root=target)
            _run(there.command(["apt-get", "install", "-y", "--no-install-recommends", *missing]), log)
            _run(there.command(["apt-get", "clean"]), log)
            return
        shutil.rmtree(work, ignore_errors=True)
        log.unlink(missing_ok=True)
        mirror = os.environ.get("VDISK_MIRROR")
        try:
            options = ["--variant=minbase", "--include=ca-certificates"]
            _run(["debootstrap", *options, suite, str(work), *([mirror] if mirror else [])], log)
            inside = Release(name=name, suite=suite, native=False, root=work)
            # No daemon may start from a package's scripts.
            policy = work / "usr/sbin/policy-rc.d"
            policy.write_text("#!/bin/sh\nexit 101\n")
            policy.chmod(0o755)
            _run(inside.command(["apt-get", "install", "-y", "--no-install-recommends", *PACKAGES]), log)
            _run(inside.command(["apt-get", "clean"]), log)
            shutil.rmtree(work / "usr/share/doc", ignore_errors=True)
            work.rename(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
