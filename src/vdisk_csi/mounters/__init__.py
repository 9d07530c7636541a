"""Mounters: ways to make a block device of an RBD image, and the choice among them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..tools import Run, ToolFailed, run
from .base import Mounter
from .device import DeviceMounter
from .fuse import FuseMounter

__all__ = ["Mounter", "Mounters", "NoMounter", "choose"]


class NoMounter(Exception):
    """The node can use no mounter, or not the one that was asked for."""


class Mounters:
    """The mounters that this node can use, the preferred one first."""

    def __init__(self, usable: Mapping[str, Mounter]) -> None:
        self._usable = usable

    @property
    def preferred(self) -> str:
        """The name of the mounter for volumes that ask for none."""
        return next(iter(self._usable))

    def get(self, name: str) -> Mounter | None:
        """Return a mounter by name, None when the node can't use it."""
        return self._usable.get(name)


def choose(wanted: str, found: Sequence[str] | None = None) -> Mounters:
    """Return the mounters that this node has; ``wanted`` (which may be empty) is preferred and has to be there."""
    names = list(found) if found is not None else usable()
    if wanted and wanted not in names:
        raise NoMounter(f"mounter {wanted} can't be used on this node; it has: {', '.join(names) or 'none'}")
    if not names:
        raise NoMounter("this node has neither krbd, nor rbd-nbd, nor rbd-fuse with loop devices")
    make: Mapping[str, Callable[[], Mounter]] = {
        "krbd": lambda: DeviceMounter("krbd", run),
        "rbd-nbd": lambda: DeviceMounter("nbd", run),
        "rbd-fuse": lambda: FuseMounter(run),
    }
    return Mounters({name: make[name]() for name in sorted(names, key=lambda name: name != wanted)})


def usable(
    run: Run = run,
    exists: Callable[[str], bool] = lambda path: Path(path).exists(),
    which: Callable[[str], str | None] = shutil.which,
) -> list[str]:
    """Return the names of the mounters that this node can use, the best first."""
    names = []
    if which("rbd") and (exists("/sys/bus/rbd") or _loads(run, "rbd")):
        names.append("krbd")
    if which("rbd") and which("rbd-nbd") and (exists("/sys/module/nbd") or _loads(run, "nbd")):
        names.append("rbd-nbd")
    if which("rbd-fuse") and which("losetup") and exists("/dev/fuse") and exists("/dev/loop-control"):
        names.append("rbd-fuse")
    return names


def _loads(run: Run, module: str) -> bool:
    try:
        run(["modprobe", "-q", module])
    except ToolFailed:
        return False
    return True
