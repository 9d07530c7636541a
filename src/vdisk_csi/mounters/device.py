"""Images as devices of the kernel's own RBD driver (krbd), or of rbd-nbd; both through ``rbd device``."""

from __future__ import annotations

import json
from pathlib import Path

from ..cluster import Identity
from ..errors import not_found
from ..failpoints import step
from ..records import Record
from ..tools import Run, ToolFailed
from .base import key_arguments

_NO_SUCH_IMAGE = "No such file or directory"


class DeviceMounter:
    """``rbd device map``; ``kind`` is its device type, ``krbd`` or ``nbd``."""

    def __init__(self, kind: str, run: Run) -> None:
        self._kind = kind
        self._run = run

    def attach(self, record: Record, identity: Identity, work: Path) -> str:
        """Map, unless it is mapped."""
        device = self.device(record, work)
        if device is not None:
            return device
        read_only = ["--read-only"] if record.read_only else []
        with step("map-device", record.image_spec), key_arguments(identity, work) as key:
            try:
                done = self._run(
                    ["rbd", *key, "device", "map", "--device-type", self._kind, *read_only, record.image_spec]
                )
            except ToolFailed as error:
                if _NO_SUCH_IMAGE in str(error):
                    raise not_found(f"image {record.image_spec} does not exist") from error
                raise
        return done.out.split()[-1]

    def device(self, record: Record, work: Path) -> str | None:
        """Look for the image among the mapped ones."""
        text = self._run(["rbd", "device", "list", "--device-type", self._kind, "--format", "json"]).out
        return find_device(text, record.pool, record.namespace, record.image)

    def detach(self, record: Record, work: Path) -> None:
        """Unmap all that is mapped of the image."""
        device = self.device(record, work)
        while device is not None:
            with step("unmap-device", device):
                self._run(["rbd", "device", "unmap", "--device-type", self._kind, device])
            left = self.device(record, work)
            if left == device:
                raise ToolFailed(f"{device} is still mapped after it was unmapped")
            device = left

    def refresh(self, record: Record, work: Path, required: int) -> None:
        """Nothing to do: the driver follows the image's size."""


def find_device(text: str, pool: str, namespace: str, image: str) -> str | None:
    """Find an image's device in what ``rbd device list --format json`` says.

    krbd calls the image ``name``, rbd-nbd ``image``; before Nautilus there was an object by id in place of the list.
    """
    found = json.loads(text or "[]")
    for entry in found.values() if isinstance(found, dict) else found:
        names = (entry.get("pool"), entry.get("namespace") or "", entry.get("name") or entry.get("image"))
        if names == (pool, namespace, image) and entry.get("snap") in (None, "", "-"):
            return str(entry["device"])
    return None
