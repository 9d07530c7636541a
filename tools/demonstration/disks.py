"""Volumes as disks with content that can be compared: mounted file systems, or where that can't be, plain writes."""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Protocol

import rados
import rbd

from demonstration.terminal import CommandFailed, Terminal

PROGRAMS = ("rbd-fuse", "losetup", "mkfs.ext4", "mount", "umount")
DEVICES = (Path("/dev/fuse"), Path("/dev/loop-control"))


class Disks(Protocol):
    """The disks of the demonstration."""

    def format(self, image: str, name: str) -> None:
        """Make an empty disk of a volume's image and open it under a short name."""

    def open(self, image: str, name: str) -> None:
        """Open a volume's image that holds something already."""

    def fill(self, name: str) -> None:
        """Write files."""

    def spoil(self, name: str) -> None:
        """Change some files and delete others."""

    def sums(self, name: str) -> dict[str, str]:
        """Return the checksum of every file, showing how it is done."""

    def close(self, name: str) -> None:
        """Close a disk; nothing happens if it is not open."""

    def close_all(self) -> None:
        """Close every disk that is open, and what was needed for that."""


def why_not_mounted(env: dict[str, str]) -> str | None:
    """Return what is missing for mounting volumes here; None when nothing is. ``env`` leads to programs and cluster."""
    if os.geteuid() != 0:
        return "mounting needs root rights"
    for device in DEVICES:
        if not device.exists():
            return f"there is no {device}"
    for program in PROGRAMS:
        if shutil.which(program, path=env["PATH"]) is None:
            return f"there is no {program}"
    # Debian sid's dies of an option: libfuse 3.18 frees the default. So help is asked for after one.
    argv = ["rbd-fuse", "-c", env["CEPH_CONF"], "-p", "rbd", "--help"]
    probe = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
    return "rbd-fuse crashes here" if probe.returncode < 0 else None


class MountedDisks:
    """ext4 on an RBD image, through rbd-fuse and a loop device: kernels without rbd and nbd have those."""

    def __init__(self, terminal: Terminal, work: Path, env: dict[str, str], files: Path) -> None:
        self._terminal = terminal
        self._work = work
        self._env = env
        self._files = files
        self._fuse: dict[str, subprocess.Popen[bytes]] = {}
        self._loops: dict[str, str] = {}

    def format(self, image: str, name: str) -> None:
        """Attach, mkfs.ext4, mount."""
        self._attach(image, name)
        self._terminal.run(f"mkfs.ext4 -q -E nodiscard {self._loops[name]}")
        self._mount(name)

    def open(self, image: str, name: str) -> None:
        """Attach, mount."""
        self._attach(image, name)
        self._mount(name)

    def fill(self, name: str) -> None:
        """A source tree, a text and some random megabytes."""
        run = self._terminal.run
        run(f"cp -r {self._files} {name}/source && find {name} -name __pycache__ -prune -exec rm -r {{}} +")
        run(f"dd if=/dev/urandom of={name}/random bs=1M count=4 status=none")
        run(f'echo "the state that counts" > {name}/note')
        run(f"sync -f {name} && ls -l {name}")

    def spoil(self, name: str) -> None:
        """Change one, delete one, break one, add one."""
        run = self._terminal.run
        run(f'echo "overwritten by mistake" > {name}/note')
        run(f"rm -r {name}/source/model && dd if=/dev/zero of={name}/random bs=1M count=1 conv=notrunc status=none")
        run(f"touch {name}/one-too-many && sync -f {name} && ls -l {name}")

    def sums(self, name: str) -> dict[str, str]:
        """sha256sum of every file."""
        command = f"cd {name} && find . -path ./lost+found -prune -o -type f -print | sort | xargs sha256sum"
        found = {}
        for line in self._terminal.run(command, show=4).splitlines():
            value, _, path = line.partition("  ")
            found[path] = value
        return found

    def close(self, name: str) -> None:
        """Unmount, give the loop device back, end rbd-fuse; each of them only if it is there."""
        mount, fuse = self._work / name, self._work / f"{name}.rbd"
        if os.path.ismount(mount):
            self._try("umount", str(mount))
            if os.path.ismount(mount):  # a command that is being ended together with us may still hold it
                self._try("umount", "--lazy", str(mount))
        loop = self._loops.pop(name, None)
        if loop is not None:
            self._try("losetup", "-d", loop)
        process = self._fuse.pop(name, None)
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
        if os.path.ismount(fuse):
            self._try("umount", "--lazy", str(fuse))

    def close_all(self) -> None:
        """Close what is open."""
        for name in {*self._fuse, *self._loops}:
            self.close(name)

    def _attach(self, image: str, name: str) -> None:
        fuse = self._work / f"{name}.rbd"
        for path in (fuse, self._work / name):
            path.mkdir(exist_ok=True)
        # Leaves with this process, should it be killed.
        guard = ["setpriv", "--pdeathsig", "TERM", "--"]
        argv = [*guard, "rbd-fuse", "-f", "-c", self._env["CEPH_CONF"], "-p", "rbd", "-r", image, str(fuse)]
        self._terminal.typed(f"rbd-fuse -p rbd -r {image} {name}.rbd")
        with (self._work / f"{name}.log").open("wb") as log:
            self._fuse[name] = subprocess.Popen(
                argv, env=self._env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._await_file(fuse / image, name)
        self._loops[name] = self._terminal.run(f"losetup --find --show {name}.rbd/{image}").strip()

    def _await_file(self, path: Path, name: str) -> None:
        for _ in range(1200):
            if self._fuse[name].poll() is not None:
                break
            if os.path.ismount(path.parent) and path.exists():
                return
            time.sleep(0.05)
        raise CommandFailed(f"rbd-fuse shows no image: {(self._work / f'{name}.log').read_text()}")

    def _mount(self, name: str) -> None:
        self._terminal.run(f"mount {self._loops[name]} {name}")

    def _try(self, *argv: str) -> None:
        subprocess.run(argv, env=self._env, stdin=subprocess.DEVNULL, capture_output=True, timeout=30)


class WrittenDisks:
    """The same without a mount: "files" are regions of the image, written and read through librbd."""

    _REGION = 1 << 20
    _NAMES = ("note", "random", "source")

    def __init__(self, terminal: Terminal, conf: str) -> None:
        self._terminal = terminal
        self._cluster = rados.Rados(conffile=conf, name="client.admin")
        self._cluster.connect()
        self._ioctx = self._cluster.open_ioctx("rbd")
        self._images: dict[str, rbd.Image] = {}

    def format(self, image: str, name: str) -> None:
        """Open; there is nothing to format."""
        self.open(image, name)

    def open(self, image: str, name: str) -> None:
        """Open the image and hold it open."""
        self._terminal.say(f"librbd opens {image}")
        self._images[name] = rbd.Image(self._ioctx, image)

    def fill(self, name: str) -> None:
        """Random megabytes."""
        self._write(name, {region: random.randbytes(self._REGION) for region in self._NAMES})

    def spoil(self, name: str) -> None:
        """Overwrite one region and discard another."""
        self._write(name, {"note": bytes(self._REGION)})
        self._images[name].discard(self._NAMES.index("source") * self._REGION, self._REGION)

    def sums(self, name: str) -> dict[str, str]:
        """SHA-256 of every region."""
        found = {}
        for number, region in enumerate(self._NAMES):
            data = self._images[name].read(number * self._REGION, self._REGION)
            found[region] = hashlib.sha256(data).hexdigest()
            print(f"{found[region]}  {region}")
        print()
        return found

    def close(self, name: str) -> None:
        """Close the image."""
        image = self._images.pop(name, None)
        if image is not None:
            image.close()

    def close_all(self) -> None:
        """Close what is open, and the connection."""
        for name in list(self._images):
            self.close(name)
        self._ioctx.close()
        self._cluster.shutdown()

    def _write(self, name: str, regions: dict[str, bytes]) -> None:
        for region, data in regions.items():
            self._images[name].write(data, self._NAMES.index(region) * self._REGION)
        self._images[name].flush()
        self._terminal.say(f"librbd wrote {', '.join(regions)} to {name}")
