"""File systems on devices: telling whether there is one, making, checking and growing it.

A device is formatted only when every way of looking at it says that it holds nothing.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Collection, Sequence

from .errors import internal, precondition
from .tools import Run, ToolFailed

#: blkid(8): nothing was found; several signatures were found that contradict each other.
_BLKID_NOTHING, _BLKID_AMBIVALENT = 2, 8
#: fsck(8): fine; corrected; corrected and the machine should restart, which concerns root file systems.
_FSCK_FINE = (0, 1, 2, 3)
_FSCK_UNCORRECTED = 4
#: Bytes at the device's begin and end that have to be zero before it is formatted.
_HEAD, _TAIL = 4 << 20, 1 << 20
#: Place of the flag in an XFS superblock that says that mkfs has not finished; libxfs calls it sb_inprogress.
_XFS_IN_PROGRESS = 126
_EXT = ("ext3", "ext4")
#: What resize2fs says when the kernel does not let it grow a mounted file system.
_DENIED = "Permission denied to resize filesystem"
#: Seconds for which a device may be in use after it was unmounted, and between two looks: who makes a mount namespace
#: just then, as for a container that starts, has a copy of every mount until it gets rid of them.
_IN_USE_SECONDS, _PAUSE = 10.0, 0.05


class Filesystems:
    """File systems, by the system's own programs."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def probe(self, device: str) -> str:
        """Return the type of the file system on a device, empty when nothing at all is recognised.

        FAILED_PRECONDITION when there is something else: partitions, a volume manager's or another signature.
        """
        with open(device, "rb") as file:  # blkid has the same exit code for "nothing there" and "can't be read"
            head = file.read(512)
        done = self._run(["blkid", "-p", "-o", "export", device], ok=(0, _BLKID_NOTHING, _BLKID_AMBIVALENT))
        if done.code == _BLKID_AMBIVALENT:
            raise precondition(f"{device} holds several signatures that contradict each other; it is left alone")
        found = dict(line.partition("=")[::2] for line in done.out.splitlines() if "=" in line)
        if found.get("USAGE") == "filesystem" and "TYPE" in found:
            if found["TYPE"] == "xfs" and len(head) > _XFS_IN_PROGRESS and head[_XFS_IN_PROGRESS]:
                return "xfs-unfinished"
            return found["TYPE"]
        if done.code == 0:
            what = found.get("TYPE") or found.get("PTTYPE") or "something"
            raise precondition(f"{device} holds {what}, which is no file system; it is left alone")
        return ""

    def check_blank(self, device: str) -> None:
        """Raise FAILED_PRECONDITION unless the device holds nothing, as far as anyone can tell."""
        signatures = self._run(["wipefs", "--no-act", "--noheadings", "--output", "TYPE", device]).out.split()
        if signatures:
            raise precondition(f"{device} holds signatures ({', '.join(signatures)}); it is not formatted")
        seen = json.loads(self._run(["lsblk", "--json", "--output", "NAME,TYPE", device]).out)
        if any(entry.get("children") for entry in seen.get("blockdevices", [])):
            raise precondition(f"{device} has partitions or something on top of it; it is not formatted")
        with open(device, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            for start, length in ((0, _HEAD), (max(0, size - _TAIL), _TAIL)):
                file.seek(start)
                data = file.read(length)
                if data.count(0) != len(data):
                    raise precondition(f"{device} holds data that is no file system; it is not formatted")

    def make(self, device: str, fs_type: str, options: Sequence[str]) -> None:
        """Make a file system. Discarding first is left out: the image is thin already."""
        flags = ["-F", "-q", "-m0", "-E", "nodiscard"] if fs_type in _EXT else ["-f", "-q", "-K"]
        if fs_type in _EXT and "-E" in options:
            flags = flags[:3]
        self._run([f"mkfs.{fs_type}", *flags, *options, device])

    def check(self, device: str, fs_type: str) -> None:
        """Check and repair what can be repaired without asking, as at boot; INTERNAL when somebody has to look."""
        if fs_type not in _EXT:
            return  # XFS replays its log when it is mounted, and refuses if there is more to do
        done = self._run(["fsck", "-T", "-a", "-t", fs_type, device], ok=range(256))
        if done.code & _FSCK_UNCORRECTED:
            raise internal(f"{device} has errors that fsck does not repair by itself: {_one_line(done.out + done.err)}")
        if done.code not in _FSCK_FINE:
            raise ToolFailed(f"fsck of {device}: exit code {done.code}: {_one_line(done.out + done.err)}")

    def grow(self, device: str, path: str, fs_type: str) -> bool:
        """Grow a mounted file system to its device, or find that it is that large already.

        Returns False where the kernel lets nobody grow a mounted ext4: that takes CAP_SYS_RESOURCE, which not even root
        has in some sandboxes. Then :meth:`grow_unmounted` can.
        """
        if fs_type == "xfs":
            self._run(["xfs_growfs", path])
            return True
        done = self._run(["resize2fs", device], ok=(0, 1))
        if done.code and _DENIED not in done.err:
            raise ToolFailed(f"resize2fs of {device}: {_one_line(done.err)}")
        return not done.code

    def grow_unmounted(self, device: str) -> None:
        """Grow an ext file system that was unmounted everywhere; it is checked in full before."""
        end = time.monotonic() + _IN_USE_SECONDS
        while _in_use(device) and time.monotonic() < end:
            time.sleep(_PAUSE)
        done = self._run(["e2fsck", "-f", "-p", device], ok=range(256))
        if done.code not in _FSCK_FINE:
            raise ToolFailed(f"e2fsck of {device}: exit code {done.code}: {_one_line(done.out + done.err)}")
        self._run(["resize2fs", device])

    def set_read_only(self, device: str, read_only: bool) -> None:
        """Make a block device read-only, or writable again."""
        self._run(["blockdev", "--setro" if read_only else "--setrw", device])


def _in_use(device: str) -> bool:
    """Tell whether a device is mounted in any mount namespace, or held by another device."""
    try:
        os.close(os.open(device, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        return error.errno == errno.EBUSY  # whatever else is the matter, the program that is run next says
    return False


def device_size(device: str) -> int:
    """Return the size of a block device in bytes."""
    with open(device, "rb") as file:
        return file.seek(0, os.SEEK_END)


def mount_options(fs_type: str, flags: Collection[str], read_only: bool) -> list[str]:
    """Return the options for mounting: those asked for, and what a clone and a read-only device need."""
    options = list(dict.fromkeys(flag.strip() for flag in flags if flag.strip()))
    if read_only and not is_read_only(options):
        options.append("ro")
    if fs_type == "xfs" and "nouuid" not in options:
        options.append("nouuid")  # a clone on the same node as its source has the same UUID
    return options


def is_read_only(options: Collection[str]) -> bool:
    """Tell whether mount options say ``ro``; one of them may hold several."""
    return any("ro" in option.split(",") for option in options)


def without_replay(fs_type: str) -> str:
    """Return the option that mounts a read-only device whose journal would have to be replayed."""
    return "norecovery" if fs_type == "xfs" else "noload"


def _one_line(text: str) -> str:
    return " ".join(text.split())[-400:]
