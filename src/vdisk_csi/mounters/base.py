"""What a mounter does."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from ..cluster import Identity
from ..records import Record


class Mounter(Protocol):
    """Makes block devices of images. All calls may be repeated, from any state that a crash left."""

    def attach(self, record: Record, identity: Identity, work: Path) -> str:
        """Return the device of an image, attaching it if it is not; NOT_FOUND when there is no such image.

        ``work`` is a directory that survives the driver.
        """

    def device(self, record: Record, work: Path) -> str | None:
        """Return the device of an image if it is attached and works."""

    def detach(self, record: Record, work: Path) -> None:
        """Give the device back, and return when nobody on this node has the image open any more."""

    def refresh(self, record: Record, work: Path, required: int) -> None:
        """Have the device take on the image's size, which is expected to be at least ``required`` bytes."""


@contextlib.contextmanager
def key_arguments(identity: Identity, work: Path) -> Iterator[list[str]]:
    """Yield the options that make a Ceph tool an identity; a key that a request brought lies in a file meanwhile."""
    if not identity.key:
        yield identity.arguments()
        return
    work.mkdir(parents=True, exist_ok=True)
    descriptor, path = tempfile.mkstemp(prefix="key-", dir=_memory(work))
    try:
        with os.fdopen(descriptor, "w") as file:  # mkstemp: readable for us alone
            file.write(identity.key)
        yield identity.arguments(path)
    finally:
        os.unlink(path)


def _memory(work: Path) -> Path:
    """Return a directory that is no disk, if there is one."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() and os.access(memory, os.W_OK) else work
