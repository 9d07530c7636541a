"""Images as loop devices on a file that rbd-fuse shows: for kernels that have neither rbd nor nbd.

There is one rbd-fuse for each image. It outlives the driver, which finds it again by its mount point.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ..cluster import Identity
from ..errors import not_found
from ..failpoints import step
from ..mounts import Mounts, canonical
from ..records import Record
from ..tools import Run, ToolFailed, environment
from .base import key_arguments

T = TypeVar("T")
_START_SECONDS, _STOP_SECONDS, _LOOP_SECONDS, _SIZE_SECONDS = 30.0, 10.0, 10.0, 5.0
_PAUSE = 0.02
#: Seconds for which the kernel believes what it knows of a file in rbd-fuse.
_ATTRIBUTES_SECONDS = 1.05


class FuseMounter:
    """rbd-fuse and losetup."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._mounts = Mounts(run)
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def attach(self, record: Record, identity: Identity, work: Path) -> str:
        """Start rbd-fuse unless it runs and works, then attach a loop device unless there is one."""
        place = _place(record, work)
        if not self._works(place, record):
            self._clear(place, record)
            with step("start-fuse", record.image_spec), key_arguments(identity, work) as key:
                self._start(record, place, identity, key)
        loop = self._loop(place / record.image)
        if loop is None:
            with step("attach-loop", record.image_spec):
                flags = ["--read-only"] if record.read_only else []
                loop = self._run(["losetup", "--find", "--show", *flags, str(place / record.image)]).out.strip()
                if not record.read_only:
                    # Whoever had the device before may have left it read-only.
                    self._run(["blockdev", "--setrw", loop])
        return loop

    def device(self, record: Record, work: Path) -> str | None:
        """Return the loop device, if rbd-fuse behind it works."""
        place = _place(record, work)
        return self._loop(place / record.image) if self._works(place, record) else None

    def detach(self, record: Record, work: Path) -> None:
        """Detach the loop device, unmount rbd-fuse, and wait for its end."""
        place = _place(record, work)
        with step("detach-loop", record.image_spec):
            self._detach_loops(place / record.image)
        with step("stop-fuse", record.image_spec):
            self._stop(place)
            place.with_suffix(".log").unlink(missing_ok=True)
            if place.is_dir():
                place.rmdir()

    def refresh(self, record: Record, work: Path, required: int) -> None:
        """Wait until rbd-fuse has heard of the size, and tell the loop device."""
        path = _place(record, work) / record.image
        if required:
            _until(lambda: os.stat(path).st_size >= required or None, _SIZE_SECONDS)
        else:
            time.sleep(_ATTRIBUTES_SECONDS)
        os.stat(path)
        loop = self._loop(path)
        if loop is not None:
            self._run(["losetup", "--set-capacity", loop])

    # -- inner ---------------------------------------------------------------------------------------------------

    def _works(self, place: Path, record: Record) -> bool:
        if self._mounts.at(str(place)) is None:
            return False
        try:
            os.stat(place / record.image)
        except OSError:
            return False  # rbd-fuse died, and left a mount that is not connected
        return True

    def _start(self, record: Record, place: Path, identity: Identity, key: list[str]) -> None:
        place.mkdir(parents=True, exist_ok=True)
        namespace = ["-s", record.namespace] if record.namespace else []
        conf = ["-c", identity.conf] if identity.conf else []
        argv = ["rbd-fuse", "-f", *conf, "-p", record.pool, *namespace, "-r", record.image, str(place)]
        ceph = {"CEPH_ARGS": shlex.join(key)} if key else {}
        log = place.with_suffix(".log")
        with log.open("wb") as output:
            # A session of its own: it has to outlive the driver.
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment(ceph),
                start_new_session=True,
            )
        self._children[str(place)] = process

        def started() -> str | None:
            if process.poll() is not None:
                return "ended"
            if self._mounts.at(str(place)) is None:
                return None
            return "shown" if (place / record.image).exists() else "missing"

        state = _until(started, _START_SECONDS)
        if state == "shown":
            return
        said = log.read_text(errors="replace").strip()
        self._stop(place)
        if state == "missing":
            raise not_found(f"image {record.image_spec} does not exist")
        raise ToolFailed(f"rbd-fuse of {record.image_spec} {state or 'did not start in time'}: {said[-300:]}")

    def _clear(self, place: Path, record: Record) -> None:
        """Remove what an rbd-fuse that died has left."""
        self._detach_loops(place / record.image)
        self._stop(place)

    def _stop(self, place: Path) -> None:
        """Unmount, which ends rbd-fuse, and see to it that it does; one that has not mounted yet has to be told."""
        mounted = self._mounts.at(str(place)) is not None
        self._mounts.unmount(str(place), lazy=self._dead(place))
        if self._gone(place, _STOP_SECONDS if mounted else 0):
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in _serving(place):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            if self._gone(place, _STOP_SECONDS):
                break
        self._mounts.unmount(str(place), lazy=True)

    def _gone(self, place: Path, seconds: float) -> bool:
        def look() -> bool | None:
            child = self._children.get(str(place))
            if child is not None and child.poll() is not None:
                del self._children[str(place)]
            return not _serving(place) or None

        return bool(_until(look, seconds))

    def _dead(self, place: Path) -> bool:
        try:
            os.listdir(place)
        except OSError:
            return True
        return False

    def _loop(self, path: Path) -> str | None:
        found = self._loops(path)
        return found[0] if found else None

    def _loops(self, path: Path) -> list[str]:
        out = self._run(["losetup", "--json", "--list", "--output", "NAME,BACK-FILE"]).out
        devices = json.loads(out)["loopdevices"] if out.strip() else []
        files = {canonical(str(path)), f"{canonical(str(path))} (deleted)"}
        return [entry["name"] for entry in devices if entry["back-file"] in files]

    def _detach_loops(self, path: Path) -> None:
        for loop in self._loops(path):
            # A device that was made read-only for its users would be so for the next ones too.
            self._run(["blockdev", "--setrw", loop])
            self._run(["losetup", "--detach", loop])
        # The kernel detaches when the last user closes it, which may be later.
        if _until(lambda: not self._loops(path) or None, _LOOP_SECONDS) is None:
            raise ToolFailed(f"{', '.join(self._loops(path))} of {path.name} is still open")


def _place(record: Record, work: Path) -> Path:
    return work / record.key


def _serving(place: Path) -> list[int]:
    """Return the rbd-fuse processes of a mount point."""
    wanted = str(place).encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                argv = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue  # it ended
            if os.path.basename(argv[0]) == b"rbd-fuse" and wanted in argv:
                found.append(int(entry.name))
    return found


def _until(look: Callable[[], T | None], seconds: float) -> T | None:
    """Return the first result that is not None, or None when time is over."""
    end = time.monotonic() + seconds
    while True:
        found = look()
        if found is not None or time.monotonic() >= end:
            return found
        time.sleep(_PAUSE)
