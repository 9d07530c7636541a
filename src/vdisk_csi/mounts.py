"""What is mounted where, as the kernel tells in ``/proc/self/mountinfo``, and mounting."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .tools import Run

_MOUNTINFO = Path("/proc/self/mountinfo")
#: Mounts that may lie on top of each other at one place, left by crashes of whatever made them.
_MOST = 16


@dataclass(frozen=True)
class Mount:
    """A line of mountinfo: ``root`` is the directory or file of the file system that is seen at ``path``."""

    path: str
    root: str
    device: str
    """``major:minor`` of the file system."""
    fs_type: str
    source: str
    read_only: bool


def parse_mountinfo(text: str) -> list[Mount]:
    """Parse mountinfo, in the kernel's order: of several mounts at one path the last is seen."""
    found = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields, rest = left.split(" "), right.split(" ")
        if len(fields) < 6 or len(rest) < 2:
            continue
        options = {*fields[5].split(","), *(rest[2].split(",") if len(rest) > 2 else ())}
        root, path = _unescape(fields[3]), _unescape(fields[4])
        found.append(Mount(path, root, fields[2], rest[0], _unescape(rest[1]), "ro" in options))
    return found


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text).encode("latin-1", "replace").decode(
        "utf-8", "replace"
    ) if "\\" in text else text  # fmt: skip


class Mounts:
    """Mounts of this process's mount namespace."""

    def __init__(self, run: Run, mountinfo: Path = _MOUNTINFO) -> None:
        self._run = run
        self._mountinfo = mountinfo

    def at(self, path: str) -> Mount | None:
        """Return what is mounted at a path; no file system is asked, so one that is dead does not matter."""
        real = canonical(path)
        text = self._mountinfo.read_text(encoding="utf-8", errors="surrogateescape")
        return next((mount for mount in reversed(parse_mountinfo(text)) if mount.path == real), None)

    def mount(self, device: str, path: str, fs_type: str, options: Sequence[str]) -> None:
        """Mount a device."""
        chosen = ["-o", ",".join(options)] if options else []
        self._run(["mount", "-t", fs_type, *chosen, device, path])

    def bind(self, source: str, path: str) -> None:
        """Show a directory or a file at another path too."""
        self._run(["mount", "--bind", source, path])

    def bind_read_only(self, path: str) -> None:
        """Make a bind mount read-only; what it shows stays as it is elsewhere."""
        self._run(["mount", "-o", "remount,bind,ro", path])

    def unmount(self, path: str, lazy: bool = False) -> None:
        """Unmount everything that lies at a path; nothing may."""
        for _ in range(_MOST):
            if self.at(path) is None:
                return
            self._run(["umount", *(["--lazy"] if lazy else []), canonical(path)])


def canonical(path: str) -> str:
    """Return a path as the kernel shows it: links resolved above its last part, which may be a dead mount."""
    parent, name = os.path.split(os.path.normpath(path))
    return os.path.join(os.path.realpath(parent), name)
