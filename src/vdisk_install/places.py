"""Where things are: the module to install, and the directory that ceph-mgr loads modules from."""

import importlib.util
import os
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from vdisk_install.errors import InstallError

MODULE = "vdisk"
#: Where the packages of ceph-mgr keep its modules (the option ``mgr_module_path``), by distribution.
KNOWN_DIRECTORIES = tuple(
    Path(name)
    for name in ("/usr/share/ceph/mgr", "/usr/lib64/ceph/mgr", "/usr/lib/ceph/mgr", "/usr/local/share/ceph/mgr")
)
#: A file that every directory of mgr modules holds.
_LANDMARK = "mgr_module.py"
_TIMEOUT = 20

Run = Callable[[Sequence[str]], str]
"""Runs a program and returns what it printed, '' when it failed or does not exist."""


def run_quietly(argv: Sequence[str]) -> str:
    """Run a program; '' when there is none, when it fails, or when it takes too long."""
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=_TIMEOUT
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else ""


def package_of(path: Path, run: Run = run_quietly) -> str:
    """Return the package of the distribution that ``path`` belongs to, '' if it is of none or there is no such system.

    A package manager knows what it has unpacked by the names at that time: ``path`` is asked for as it stands and with
    the links on the way to its directory followed.
    """
    for name in dict.fromkeys((str(path), str(path.parent.resolve() / path.name))):
        # dpkg answers "PACKAGE: PATH", rpm exactly what it is asked to print, and nothing on a path of no package.
        for line in run(["dpkg-query", "--search", name]).splitlines():
            package, _, found = line.partition(": ")
            if found == name and not package.startswith("diversion by "):
                return package
        package = run(["rpm", "--query", "--file", "--queryformat", "%{NAME}", name])
        if package:
            return package
    return ""


def source_directory() -> Path:
    """Return the directory of the vdisk package that was installed with this program."""
    spec = importlib.util.find_spec(MODULE)
    if spec is None or spec.origin is None:
        raise InstallError("the Python package vdisk is missing beside vdisk-install: install the distribution anew")
    return Path(spec.origin).resolve().parent


def is_module_directory(path: Path) -> bool:
    """Tell whether mgr modules live in ``path``; a link into another root counts, even if it leads nowhere here."""
    return os.path.lexists(path / _LANDMARK)


def module_directory(run: Run = run_quietly, known: Iterable[Path] = KNOWN_DIRECTORIES) -> Path:
    """Return the directory that the mgr of this machine loads modules from.

    In the order that the mgr itself goes by: its ceph.conf, the cluster's configuration, the package's default.
    """
    asked = (
        ["ceph-conf", "--name", "mgr.vdisk", "--lookup", "mgr_module_path"],
        ["ceph", "--connect-timeout", "5", "config", "get", "mgr", "mgr_module_path"],
    )
    for argv in asked:
        answer = run(argv)
        if answer and is_module_directory(Path(answer)):
            return Path(answer)
    for path in known:
        if is_module_directory(path):
            return path
    raise InstallError(
        "no directory of mgr modules on this machine: install ceph-mgr, or name the directory with --path"
    )


def check_module_directory(path: Path) -> Path:
    """Return ``path`` made absolute; raise unless it is a directory of mgr modules."""
    if not path.is_dir():
        raise InstallError(f"{path} is not a directory")
    if not is_module_directory(path):
        raise InstallError(f"{path} holds no {_LANDMARK}: it is not the directory that a ceph-mgr loads modules from")
    return path.absolute()


def mgr_runs(proc: Path = Path("/proc")) -> bool:
    """Tell whether a ceph-mgr runs on this machine."""
    for comm in proc.glob("[0-9]*/comm"):
        try:
            if comm.read_text().strip() == "ceph-mgr":
                return True
        except OSError:
            continue
    return False
