"""What the node does with a volume, step by step. Each function may be repeated from wherever a crash stopped it."""

from __future__ import annotations

import dataclasses
import logging
import os
import stat
from pathlib import Path

from grpc import StatusCode

from .capabilities import ONE_PUBLICATION_MODES
from .cluster import Identity
from .errors import CsiError, invalid, not_found, out_of_range, precondition
from .failpoints import step
from .filesystems import Filesystems, device_size, is_read_only, mount_options, without_replay
from .mounters import Mounter, Mounters
from .mounts import Mounts, canonical
from .records import Record, Records
from .tools import ToolFailed

_log = logging.getLogger(__name__)
_DEFAULT_FS = "ext4"


class Staging:
    """The volumes of this node. Calls about one volume must not run at the same time."""

    def __init__(
        self, records: Records, work: Path, mounters: Mounters, mounts: Mounts, filesystems: Filesystems
    ) -> None:
        self._records = records
        self._work = work
        self._mounters = mounters
        self._mounts = mounts
        self._filesystems = filesystems

    # -- staging -------------------------------------------------------------------------------------------------

    def stage(self, wanted: Record, identity: Identity) -> None:
        """Attach a volume and, unless it is wanted as a block device, mount it at its staging path."""
        record = self._records.load(wanted.volume_id)
        fresh = record is None or not self._is_there(record)
        if record is None or fresh:
            # A record of what is not there, as after a restart of the node, holds nobody to anything; but for this:
            # that formatting was begun.
            self._mounter(wanted)
            record = dataclasses.replace(wanted, formatting=record is not None and record.formatting)
            with step("write-record", wanted.volume_id):
                self._records.save(record)
        _check_same(record, wanted)
        try:
            self._bring_up(record, identity)
        except (CsiError, ToolFailed, OSError):
            if fresh:
                self._take_back(wanted.volume_id)
            raise

    def unstage(self, volume_id: str, staging_path: str) -> None:
        """Undo :meth:`stage`; nothing may be left to undo."""
        record = self._records.load(volume_id)
        if record is None or canonical(record.staging_path) != canonical(staging_path):
            # Not ours, or not any more: only what lies at the path itself can be a leftover.
            self._mounts.unmount(staging_path)
            return
        for target in record.targets:
            if self._mounts.at(target) is not None:
                raise precondition(f"volume {volume_id} is still published at {target}")
        self._take_down(record)

    # -- publishing ----------------------------------------------------------------------------------------------

    def publish(self, volume_id: str, staging_path: str, target: str, block: bool, mode: int, read_only: bool) -> None:
        """Show a staged volume at a target path."""
        record = self._staged(volume_id, staging_path)
        if record.block != block:
            raise invalid(f"volume {volume_id} is staged as {'a block device' if record.block else 'a file system'}")
        read_only = read_only or record.read_only
        device = self._mounter(record).device(record, self._work)
        if device is None or (not block and self._mounts.at(staging_path) is None):
            raise precondition(f"volume {volume_id} is not staged at {staging_path} (any more)")
        source = device if block else staging_path
        there = self._mounts.at(target)
        if there is not None and not self._shows(target, source, block):
            raise CsiError(StatusCode.ALREADY_EXISTS, f"something else is mounted at {target}")
        if there is not None and record.targets.get(target, there.read_only) != read_only:
            how = "read-only" if not read_only else "writable"
            raise CsiError(StatusCode.ALREADY_EXISTS, f"volume {volume_id} is published {how} at {target}")
        self._check_others(record, target, mode, read_only)
        with step("record-target", target):
            record = record.with_target(target, read_only)
            self._records.save(record)
        if block and not record.read_only:
            self._filesystems.set_read_only(device, read_only)
        if there is None:
            with step("make-target", target):
                _make_target(target, block)
            with step("bind", target):
                self._mounts.bind(source, target)
        mounted = self._mounts.at(target)
        if read_only and mounted is not None and not mounted.read_only:
            with step("bind-read-only", target):
                self._mounts.bind_read_only(target)

    def unpublish(self, volume_id: str, target: str) -> None:
        """Undo :meth:`publish`; nothing may be left to undo."""
        record = self._records.load(volume_id)
        if self._mounts.at(target) is not None:
            with step("unbind", target):
                self._mounts.unmount(target)
        if os.path.lexists(target):
            with step("remove-target", target):
                _remove_target(target)
        if record is not None and target in record.targets:
            with step("drop-target", target):
                self._records.save(record.without_target(target))

    # -- looking and growing -------------------------------------------------------------------------------------

    def expand(self, volume_id: str, path: str, required: int) -> int:
        """Have device and file system take on the image's size; returns it, in bytes."""
        record = self.at(volume_id, path)
        mounter = self._mounter(record)
        mounter.refresh(record, self._work, required)
        device = mounter.device(record, self._work)
        if device is None:
            raise not_found(f"volume {volume_id} is not attached (any more)")
        size = device_size(device)
        if size < required:
            raise out_of_range(f"the image has {size} bytes, less than the {required} that are required")
        if not record.block:
            self._restore(record, device)
            mounted = self._mounts.at(record.staging_path)
            if mounted is not None and not mounted.read_only:
                self._grow(record, device, mounted.fs_type)
        return size

    def at(self, volume_id: str, path: str) -> Record:
        """Return the record of a volume that is to be staged or published at a path; NOT_FOUND if it is not."""
        record = self._records.load(volume_id)
        if record is None:
            raise not_found(f"volume {volume_id} is not on this node")
        real = canonical(path)
        targets = {canonical(target) for target in record.targets}
        staged = real == canonical(record.staging_path)
        if staged and record.block:
            return record
        if not (staged or real in targets):
            raise not_found(f"volume {volume_id} is not at {path}")
        return record

    def mounted(self, path: str) -> bool:
        """Tell whether something is mounted at a path."""
        return self._mounts.at(path) is not None

    def device(self, record: Record) -> str | None:
        """Return a volume's device."""
        return self._mounter(record).device(record, self._work)

    # -- inner ---------------------------------------------------------------------------------------------------

    def _mounter(self, record: Record) -> Mounter:
        mounter = self._mounters.get(record.mounter)
        if mounter is None:
            raise precondition(f"mounter {record.mounter} can't be used on this node")
        return mounter

    def _bring_up(self, record: Record, identity: Identity) -> None:
        if self._mounter(record).device(record, self._work) is None:
            self._drop_dead_mounts(record)
        device = self._mounter(record).attach(record, identity, self._work)
        if record.block:
            return
        there = self._mounts.at(record.staging_path)
        if there is not None and there.device != _number(device):
            raise precondition(f"something else is mounted at {record.staging_path}")
        if there is None:
            self._prepare_and_mount(record, device)

    def _drop_dead_mounts(self, record: Record) -> None:
        """Unmount what is left of a device that is gone, or whose image is: what held it died."""
        for path in (*record.targets, record.staging_path):
            there = self._mounts.at(path)
            if there is not None and (there.source.startswith("/dev/") or record.block):
                self._mounts.unmount(path, lazy=True)

    def _prepare_and_mount(self, record: Record, device: str) -> None:
        os.makedirs(record.staging_path, exist_ok=True)
        fs_type, formatted = self._with_filesystem(record, device)
        if not record.read_only:
            with step("check", device):
                self._filesystems.check(device, fs_type)
        options = self._mount(record, device, fs_type)
        if not formatted and not is_read_only(options):
            self._grow(record, device, fs_type)  # a clone may be larger than what it is a clone of

    def _mount(self, record: Record, device: str, fs_type: str) -> list[str]:
        """Mount a device at the staging path and return the options that were used."""
        options = mount_options(fs_type, record.mount_flags, record.read_only)
        with step("mount", device):
            try:
                self._mounts.mount(device, record.staging_path, fs_type, options)
            except ToolFailed:
                if not record.read_only:
                    raise
                options.append(without_replay(fs_type))
                self._mounts.mount(device, record.staging_path, fs_type, options)
        return options

    def _grow(self, record: Record, device: str, fs_type: str) -> None:
        with step("grow", device):
            grown = self._filesystems.grow(device, record.staging_path, fs_type)
        if grown:
            return
        targets = [target for target in record.targets if self._mounts.at(target) is not None]
        with step("grow-unmounted", device):
            try:
                for path in (*targets, record.staging_path):
                    self._mounts.unmount(path)
                self._filesystems.grow_unmounted(device)
            except ToolFailed as error:
                raise precondition(
                    f"growing a mounted {fs_type} is not permitted here, and it can't be unmounted for that: {error}"
                ) from error
            finally:
                self._restore(record, device)

    def _restore(self, record: Record, device: str) -> None:
        """Mount again what a growth unmounted, perhaps one that a crash cut."""
        if self._mounts.at(record.staging_path) is None:
            self._mount(record, device, self._filesystems.probe(device))
        for target, read_only in record.targets.items():
            if self._mounts.at(target) is None and os.path.isdir(target):
                self._mounts.bind(record.staging_path, target)
                if read_only:
                    self._mounts.bind_read_only(target)

    def _with_filesystem(self, record: Record, device: str) -> tuple[str, bool]:
        """Return the type of the file system on the device and whether it was made just now, because there was none."""
        found = self._filesystems.probe(device)
        unfinished = found == "xfs-unfinished"
        if found and not unfinished:
            if record.fs_type and found != record.fs_type:
                raise precondition(f"the volume holds {found}, not {record.fs_type}; it is left as it is")
            if record.formatting:
                with step("end-format", device):
                    self._records.save(dataclasses.replace(record, formatting=False))
            return found, False
        if unfinished and not record.formatting:
            raise precondition("the volume holds an xfs that was never finished; it is left as it is")
        if record.read_only:
            raise precondition("the volume is empty: a read-only one can't be formatted")
        fs_type = record.fs_type or _DEFAULT_FS
        if not record.formatting:
            self._filesystems.check_blank(device)
            with step("begin-format", device):
                self._records.save(dataclasses.replace(record, formatting=True))
        with step("format", device):
            self._filesystems.make(device, fs_type, record.mkfs_options)
        with step("end-format", device):
            self._records.save(dataclasses.replace(record, formatting=False))
        return fs_type, True

    def _take_down(self, record: Record, keep_record: bool = False) -> None:
        with step("unmount", record.staging_path):
            if not record.block:
                self._mounts.unmount(record.staging_path)
        self._mounter(record).detach(record, self._work)
        if keep_record:
            return
        with step("remove-record", record.volume_id):
            self._records.remove(record.volume_id)

    def _is_there(self, record: Record) -> bool:
        """Tell whether anything of a volume is on the node."""
        mounter = self._mounters.get(record.mounter)
        if mounter is None or mounter.device(record, self._work) is not None:
            return True
        return any(self._mounts.at(path) is not None for path in (record.staging_path, *record.targets))

    def _take_back(self, volume_id: str) -> None:
        """Undo a staging that failed. Where that can't be done the record stays, for the unstaging that follows.

        It also stays when formatting was begun: it alone tells that the device held nothing.
        """
        record = self._records.load(volume_id)
        if record is None:
            return
        try:
            self._take_down(record, keep_record=record.formatting)
        except (CsiError, ToolFailed, OSError) as error:
            _log.warning("a staging that failed could not be undone: %s", error, extra={"volume_id": volume_id})

    def _staged(self, volume_id: str, staging_path: str) -> Record:
        record = self._records.load(volume_id)
        if record is None or canonical(record.staging_path) != canonical(staging_path):
            raise precondition(f"volume {volume_id} is not staged at {staging_path}")
        return record

    def _check_others(self, record: Record, target: str, mode: int, read_only: bool) -> None:
        others = {path: ro for path, ro in record.targets.items() if path != target and self._mounts.at(path)}
        if others and ONE_PUBLICATION_MODES & {mode, record.mode}:
            raise precondition(f"the volume is published at {next(iter(others))} already and allows one publication")
        if record.block and any(ro != read_only for ro in others.values()):
            raise precondition("a block device can't be published both writable and read-only")

    def _shows(self, target: str, source: str, block: bool) -> bool:
        try:
            seen, wanted = os.stat(target), os.stat(source)
        except OSError:
            return False
        if block:
            return stat.S_ISBLK(seen.st_mode) and seen.st_rdev == wanted.st_rdev
        return (seen.st_dev, seen.st_ino) == (wanted.st_dev, wanted.st_ino)


def _check_same(record: Record, wanted: Record) -> None:
    if canonical(record.staging_path) != canonical(wanted.staging_path):
        raise precondition(f"volume {record.volume_id} is staged at {record.staging_path}")
    for field in ("block", "mode", "read_only", "fs_type", "mount_flags", "image_spec"):
        if getattr(record, field) != getattr(wanted, field):
            raise CsiError(
                StatusCode.ALREADY_EXISTS,
                f"volume {record.volume_id} is staged with {field} {getattr(record, field)!r}, "
                f"not {getattr(wanted, field)!r}",
            )


def _make_target(target: str, block: bool) -> None:
    if not block:
        os.makedirs(target, exist_ok=True)
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o660))


def _remove_target(target: str) -> None:
    """Remove a target path, but nothing that holds something."""
    if os.path.isdir(target) and not os.path.islink(target):
        try:
            os.rmdir(target)
        except OSError as error:
            raise precondition(f"{target} can't be removed: {error.strerror}") from error
    elif os.path.isfile(target) and os.path.getsize(target) == 0:
        os.unlink(target)
    else:
        raise precondition(f"{target} is neither an empty directory nor an empty file; it is left alone")


def _number(device: str) -> str:
    """Return ``major:minor`` of a block device."""
    number = os.stat(device).st_rdev
    return f"{os.major(number)}:{os.minor(number)}"
