"""What the node remembers of each volume that it stages, on its own disk.

A record is written before the first step that it stands for and removed after the last, so whatever a crash leaves
behind can be found. It holds what was asked for; how far that has come is looked up in the kernel (mounts, devices)
each time.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .errors import internal

_VERSION = 1


@dataclass(frozen=True)
class Record:
    """A volume that is staged, being staged or being unstaged."""

    volume_id: str
    pool: str
    namespace: str
    image: str
    mounter: str
    staging_path: str
    block: bool
    mode: int
    read_only: bool
    fs_type: str
    mount_flags: tuple[str, ...] = ()
    mkfs_options: tuple[str, ...] = ()
    formatting: bool = False
    """The device was blank and is being formatted: until it holds a file system, that may be begun again."""
    targets: Mapping[str, bool] = field(default_factory=dict)
    """Target path -> whether it was published read-only."""

    @property
    def key(self) -> str:
        """The name of files and directories that belong to the volume."""
        return key_of(self.volume_id)

    @property
    def image_spec(self) -> str:
        """``pool[/namespace]/image``."""
        return "/".join(part for part in (self.pool, self.namespace, self.image) if part)

    def with_target(self, path: str, read_only: bool) -> Record:
        """Return the record with one more target."""
        return dataclasses.replace(self, targets={**self.targets, path: read_only})

    def without_target(self, path: str) -> Record:
        """Return the record without a target."""
        return dataclasses.replace(self, targets={key: value for key, value in self.targets.items() if key != path})


def key_of(volume_id: str) -> str:
    """Return a file name for a volume id, which may be any text."""
    return hashlib.sha256(volume_id.encode()).hexdigest()[:32]


class Records:
    """The records in a directory, one file each."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for unfinished in directory.glob("*.new"):
            # Of a driver that was killed in save(): nothing would remove it once its volume is gone.
            unfinished.unlink()

    def load(self, volume_id: str) -> Record | None:
        """Return the record of a volume; INTERNAL for one that can't be read, which is left as it is."""
        path = self._path(volume_id)
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data.pop("v") != _VERSION:
                raise ValueError("its version is not known")
            for name in ("mount_flags", "mkfs_options"):
                data[name] = tuple(data[name])
            return Record(**data)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError) as error:
            raise internal(f"the record {path} can't be read: {error}") from error

    def save(self, record: Record) -> None:
        """Write a record so that a crash leaves the old one or the new one."""
        path = self._path(record.volume_id)
        fresh = path.with_suffix(".new")
        with fresh.open("w", encoding="utf-8") as file:
            json.dump({"v": _VERSION, **dataclasses.asdict(record)}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
        self._sync()

    def remove(self, volume_id: str) -> None:
        """Remove a record; there may be none."""
        self._path(volume_id).unlink(missing_ok=True)
        self._sync()

    def _path(self, volume_id: str) -> Path:
        return self._directory / f"{key_of(volume_id)}.json"

    def _sync(self) -> None:
        descriptor = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
