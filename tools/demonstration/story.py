"""What the demonstration plays: the life of a volume, as the journal and the cluster's own tools show it."""

import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from demonstration.disks import Disks
from demonstration.terminal import CommandFailed, Terminal


class Mismatch(Exception):
    """A restored volume is not what was snapshotted."""


class Story:
    """The chapters, in order. `disks` makes volumes readable and writable."""

    def __init__(self, terminal: Terminal, disks: Disks) -> None:
        self._terminal = terminal
        self._disks = disks

    def play(self) -> None:
        """Play all of it. Raises `Mismatch` when restored content differs, `CommandFailed` when a command fails."""
        volume = self._volume()
        before = self._files(volume)
        self._snapshot(volume)
        self._mishap(before)
        self._restore(before)
        self._clone()
        self._in_use()
        self._delete()
        self._leave_something()

    def _volume(self) -> dict[str, Any]:
        run = self._terminal.run
        self._terminal.head("A volume")
        run("ceph vdisk volume create rbd pvc-demo --size 1G")
        self._terminal.say("What Kubernetes' drivers read and write: the journal, two RADOS objects beside the image.")
        run("rados -p rbd listomapvals csi.volumes.default")
        volume: dict[str, Any] = self._json("ceph vdisk volume info rbd/pvc-demo")
        run(f"rados -p rbd listomapvals csi.volume.{volume['uuid']}")
        return volume

    def _files(self, volume: dict[str, Any]) -> dict[str, str]:
        self._terminal.head("Files on it")
        self._disks.format(volume["image"], "disk")
        self._disks.fill("disk")
        return self._disks.sums("disk")

    def _snapshot(self, volume: dict[str, Any]) -> None:
        run = self._terminal.run
        self._terminal.head("A snapshot, while the volume is in use")
        run(f"ceph vdisk snap create rbd/{volume['image']} snapshot-demo")
        self._terminal.say(
            "It is ready: it can be restored from now on. The seal, a snapshot on the snapshot's own image, follows in "
            "the background."
        )
        self._wait("the seal", lambda: self._json("ceph vdisk snap info rbd/snapshot-demo")["sealed"])
        snapshot = self._json("ceph vdisk snap info rbd/snapshot-demo")
        run("ceph vdisk snap ls rbd")
        self._terminal.say("What is left behind: an image and a snapshot on it of the same name; none on the volume.")
        run("rbd ls -p rbd")
        run(f"rbd snap ls -p rbd {volume['image']}")
        run(f"rbd snap ls -p rbd {snapshot['image']}")
        run("rados -p rbd listomapvals csi.snaps.default")
        run(f"rados -p rbd listomapvals csi.snap.{snapshot['uuid']}")

    def _mishap(self, before: dict[str, str]) -> None:
        self._terminal.head("A mishap")
        self._disks.spoil("disk")
        if self._disks.sums("disk") == before:
            raise Mismatch("changing the volume changed nothing")

    def _restore(self, before: dict[str, str]) -> None:
        self._terminal.head("Back to the snapshot, in a new volume")
        self._terminal.run("ceph vdisk volume restore rbd/snapshot-demo pvc-restored")
        self._disks.open(self._json("ceph vdisk volume info rbd/pvc-restored")["image"], "restored")
        after = self._disks.sums("restored")
        if after != before:
            wrong = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
            raise Mismatch(f"the restored volume differs from the snapshotted one in {', '.join(wrong)}")
        self._terminal.say(
            f"All {len(after)} checksums are those from before the snapshot, and no file is there that was not."
        )

    def _clone(self) -> None:
        self._terminal.head("A copy of the volume as it is now")
        self._terminal.run("ceph vdisk volume clone rbd/pvc-demo pvc-clone")
        self._terminal.run("ceph vdisk volume ls rbd")

    def _in_use(self) -> None:
        self._terminal.head("Deleting what is in use")
        self._terminal.say("The restored volume is open. The refusal names who has it open, as rbd status does.")
        self._terminal.run("ceph vdisk volume rm rbd/pvc-restored", fails=True)
        image = self._json("ceph vdisk volume info rbd/pvc-restored")["image"]
        self._terminal.run(f"rbd status rbd/{image}")

    def _delete(self) -> None:
        run = self._terminal.run
        self._terminal.head("Deleting everything, parents first")
        images = {
            name: self._json(f"ceph vdisk volume info rbd/{name}")["image"] for name in ("pvc-demo", "pvc-restored")
        }
        for disk in ("disk", "restored"):
            self._disks.close(disk)
        for image in images.values():
            self._wait("nobody has it open", partial(self._closed, image))
        self._terminal.say("First what a dry run says:")
        run("ceph vdisk volume rm rbd/pvc-demo --dry-run")
        self._terminal.say("An answer means gone: the name is free. The space follows, a clone before its parent.")
        run("ceph vdisk volume rm rbd/pvc-demo")
        run("ceph vdisk snap rm rbd/snapshot-demo")
        run("ceph vdisk op ls")
        run("ceph vdisk volume rm rbd/pvc-clone")
        run("ceph vdisk volume rm rbd/pvc-restored")
        run("ceph rbd task list")
        self._wait("the trash is empty", lambda: not self._json("rbd trash ls rbd"))
        self._wait("all operations are over", self._idle)
        self._terminal.say("A moment later:")
        run("ceph vdisk op ls")
        for command in (
            "ceph rbd task list",
            "rbd ls -p rbd",
            "rbd trash ls -p rbd",
            "rados -p rbd listomapvals csi.volumes.default",
            "rados -p rbd listomapvals csi.snaps.default",
        ):
            if run(command).strip() not in ("", "[]"):
                raise Mismatch(f"something is left behind: {command}")
        self._terminal.say("Nothing is left.")

    def _leave_something(self) -> None:
        self._terminal.head("Something to play with")
        self._terminal.run("ceph vdisk volume create rbd pvc-play --size 1G", show=2)
        image = self._json("ceph vdisk volume info rbd/pvc-play")["image"]
        self._terminal.run(f"ceph vdisk snap create rbd/{image} snapshot-play", show=2)

    def _json(self, command: str) -> Any:
        return json.loads(self._terminal.quietly(f"{command} --format json"))

    def _closed(self, image: str) -> bool:
        return not self._json(f"rbd status rbd/{image}")["watchers"]

    def _idle(self) -> bool:
        # The refused removal stays among the failed ones for an hour.
        return all(operation["state"] in ("done", "failed") for operation in self._json("ceph vdisk op ls"))

    def _wait(self, what: str, ready: Callable[[], object], seconds: float = 180) -> None:
        until = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > until:
                raise CommandFailed(f"{what}: not so after {seconds:g} s")
            time.sleep(0.2)
