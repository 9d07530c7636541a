"""Carrying requests out step by step on one thread, the way the engine does, so that a test can cut anywhere."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from vdisk.engine.executor import Executor
from vdisk.engine.reaper import Reaper, ReaperSettings
from vdisk.engine.waiting import Waiting
from vdisk.lifecycle.adopt import AdoptSnapshot, AdoptVolume, ReleaseVolume
from vdisk.lifecycle.base import Request
from vdisk.lifecycle.group_snap import CreateGroup, RemoveGroup
from vdisk.lifecycle.removal import Removal, RemoveSnapshot, RemoveVolume
from vdisk.lifecycle.schedule_change import AddSchedule, RemoveSchedule
from vdisk.lifecycle.snap_create import CreateSnapshot
from vdisk.lifecycle.steps import Seal
from vdisk.lifecycle.undelete import RestoreBare, UndeleteSnapshot, UndeleteVolume
from vdisk.lifecycle.volume_clone import CloneVolume
from vdisk.lifecycle.volume_create import CreateVolume
from vdisk.lifecycle.volume_flatten import FlattenVolume
from vdisk.lifecycle.volume_resize import ResizeVolume
from vdisk.lifecycle.volume_restore import RestoreVolume
from vdisk.model.errors import LostRace
from vdisk.model.groups import Member
from vdisk.model.handles import Handle
from vdisk.model.layout import SNAPSHOT_FEATURES, Layout
from vdisk.model.names import temp_image
from vdisk.model.records import Store
from vdisk.model.schedules import Made
from vdisk.model.schedules import Run as ScheduleRun

from .cluster import FakeCluster

GIB = 1 << 30
R = TypeVar("R", bound=Removal)


def uuid_of(number: int) -> str:
    """Return a uuid that a test can recognise."""
    return f"{number:08x}-0000-4000-8000-000000000000"


def executor_on(fake: FakeCluster, failpoint: Callable[[str, str], None] | None = None) -> Executor:
    """Return an executor with a reaper that gives nothing to rbd_support."""
    reaper = Reaper(fake, ReaperSettings(window=lambda: 0), logging.getLogger("vdisk.test"))
    return Executor(fake, fake, reaper.remove, failpoint)


@dataclass
class Run:
    """A request being carried out. ``request`` is what a durable intent would hold, ``waits`` what it waits for."""

    fake: FakeCluster
    request: Request
    failpoint: Callable[[str, str], None] | None = None
    waits: list[str] | None = None

    def go(self) -> Run:
        """Plan, persist, carry out, until done or until only something outside can help."""
        executor = executor_on(self.fake, self.failpoint)
        for _ in range(20):
            plan = self.request.plan(self.fake)
            self.request = plan.request
            try:
                for step in plan.steps:
                    executor.run(step)
            except LostRace:
                continue
            except Waiting as waiting:
                self.waits = waiting.waiting_for
                if not self.fake.run_tasks():
                    return self
                continue
            self.waits = None
            return self
        raise AssertionError(f"{self.request} gets nowhere")

    def undo(self) -> None:
        """Undo what was begun."""
        executor = executor_on(self.fake, self.failpoint)
        plan = self.request.undo(self.fake)
        self.request = plan.request
        for step in plan.steps:
            executor.run(step)

    def step_names(self) -> list[str]:
        """Return the names of the steps that would run now."""
        return [step.name for step in self.request.plan(self.fake).steps]


def do(fake: FakeCluster, request: Request) -> Request:
    """Carry a request out to its end."""
    return Run(fake, request).go().request


def snapshot_request(fake: FakeCluster, source: str, name: str = "snapshot-1", number: int = 2) -> CreateSnapshot:
    """Return the request for a snapshot, with vdisk's own features."""
    return CreateSnapshot(fake.where(), name, uuid_of(number), source, Layout(features=SNAPSHOT_FEATURES))


def a_volume(fake: FakeCluster, number: int = 1, name: str = "pvc-1", spec: str = "rbd") -> CreateVolume:
    """Make a volume of one GiB."""
    request = CreateVolume(fake.where(spec), name, uuid_of(number), GIB, Layout())
    do(fake, request)
    return request


def a_snapshot(fake: FakeCluster, sealed: bool = True) -> CreateSnapshot:
    """Make a volume and a snapshot of it."""
    volume = a_volume(fake)
    request = snapshot_request(fake, volume.image)
    executor = executor_on(fake)
    for step in request.plan(fake).steps:
        if sealed or not isinstance(step, Seal):
            executor.run(step)
    return request


def restored(fake: FakeCluster, spec: str = "rbd", size: int | None = None, sealed: bool = True) -> RestoreVolume:
    """Make a snapshot, and return the request to restore it."""
    snap = a_snapshot(fake, sealed)
    return RestoreVolume(fake.where(spec), "pvc-2", uuid_of(3), snap.where, snap.uuid, size, Layout())


def cloned(fake: FakeCluster, size: int | None = None, spec: str = "rbd") -> CloneVolume:
    """Make a volume, and return the request to clone it."""
    source = a_volume(fake)
    return CloneVolume(fake.where(spec), "pvc-2", uuid_of(3), source.where, source.image, size, Layout())


def removed_with_temp(fake: FakeCluster, of_itself: bool) -> RemoveVolume:
    """Make a volume with a left-over temp image, a clone of the volume or one of its own."""
    volume = a_volume(fake)
    if of_itself:
        fake.cut(volume.where, volume.image, "t")
        fake.clone_image(volume.where, volume.image, "t", volume.where, temp_image(volume.image), Layout())
        found = fake.find(volume.where, volume.image)
        assert found is not None
        fake.drop(volume.where, found.id, "t")
    else:
        fake.create_image(volume.where, temp_image(volume.image), GIB, Layout())
    return RemoveVolume(volume.where, volume.name, volume.uuid)


def removed_with_clone(fake: FakeCluster) -> RemoveVolume:
    """Make a volume and a clone of it, and return the request to remove the first."""
    request = cloned(fake)
    do(fake, request)
    return RemoveVolume(request.source_where, "pvc-1", uuid_of(1))


def removed_snapshot(fake: FakeCluster, sealed: bool = True, restore: bool = False) -> RemoveSnapshot:
    """Make a snapshot (with a volume restored from it), and return the request to remove it."""
    if restore:
        do(fake, restored(fake))
    else:
        a_snapshot(fake, sealed)
    return RemoveSnapshot(fake.where(), "snapshot-1", uuid_of(2))


def removed_plain(fake: FakeCluster) -> RemoveVolume:
    """Make a volume, and return the request to remove it."""
    volume = a_volume(fake)
    return RemoveVolume(volume.where, volume.name, volume.uuid)


def snapshot_of_plain_image(fake: FakeCluster) -> CreateSnapshot:
    """Make an image that is none of vdisk's, and return the request to snapshot it."""
    fake.create_image(fake.where(), "plain", GIB, Layout())
    return snapshot_request(fake, "plain")


def keep(fake: FakeCluster, request: R) -> R:
    """Carry out a removal that keeps for a while."""
    kept = replace(request, keep_until=fake.now + 1000, deleted_at=fake.now)
    do(fake, kept)
    return kept


def expired(fake: FakeCluster, request: R) -> R:
    """Remove and keep, and return the request that removes for good what was kept."""
    where = keep(fake, request).where
    (image_id,) = fake.space(where).trash
    return replace(request, image_id=image_id, kept_only=True)


def undeleted(fake: FakeCluster, request: RemoveVolume | RemoveSnapshot, name: str) -> Request:
    """Remove and keep, and return the request that brings it back."""
    keep(fake, request)
    (image_id,) = fake.space(request.where).trash
    cls = UndeleteVolume if isinstance(request, RemoveVolume) else UndeleteSnapshot
    return cls(request.where, name, request.uuid, image_id)


def bare(fake: FakeCluster) -> RestoreBare:
    """Move a plain image to the trash, and return the request that brings it back."""
    fake.create_image(fake.where(), "plain", GIB, Layout())
    fake.trash(fake.where(), "plain")
    (image_id,) = fake.space(fake.where()).trash
    return RestoreBare(fake.where(), "plain", image_id, image_id)


def adopted(fake: FakeCluster) -> AdoptVolume:
    """Make a plain image, and return the request to adopt it."""
    fake.create_image(fake.where(), "plain", GIB, Layout())
    return AdoptVolume(fake.where(), "pvc-1", uuid_of(1), "plain")


def released(fake: FakeCluster) -> AdoptVolume:
    """Make a volume and release it, and return the request to adopt its image again."""
    volume = a_volume(fake)
    do(fake, ReleaseVolume(volume.where, volume.name, volume.uuid))
    return AdoptVolume(fake.where(), "pvc-again", uuid_of(7), volume.image)


def adopted_snapshot(fake: FakeCluster) -> AdoptSnapshot:
    """Make a plain image with a snapshot, and return the request to adopt that."""
    fake.create_image(fake.where(), "plain", GIB, Layout())
    fake.cut(fake.where(), "plain", "v1")
    return AdoptSnapshot(fake.where(), "snapshot-1", uuid_of(2), "plain", "v1", Layout(features=SNAPSHOT_FEATURES))


def a_group(fake: FakeCluster, number: int = 6, name: str = "group-1", first: int = 1) -> CreateGroup:
    """Make two volumes, and return the request for a snapshot of both."""
    where = fake.where()
    volumes = [a_volume(fake, at, f"pvc-{at}") for at in (first, first + 0x20)]
    members = tuple(
        Member(
            uuid_of(number + 0x100 + at), volume.image, Handle("c", where.pool_id, volume.uuid).encode(),
            Handle("c", where.pool_id, uuid_of(number + 0x100 + at)).encode(),
        )
        for at, volume in enumerate(volumes)
    )  # fmt: skip
    return CreateGroup(where, name, uuid_of(number), members, Layout(features=SNAPSHOT_FEATURES))


def removed_group(fake: FakeCluster) -> RemoveGroup:
    """Make a group snapshot, and return the request to remove it."""
    group = do(fake, a_group(fake))
    assert isinstance(group, CreateGroup)
    members = tuple(Member(member.uuid) for member in group.members)
    return RemoveGroup(group.where, group.name, group.uuid, members)


def schedule_request(fake: FakeCluster, volume: Request) -> AddSchedule:
    """Return the request for a schedule of a volume."""
    return AddSchedule(volume.where, volume.name, volume.uuid, 60, None, "0123456789ab", "24h", fake.now)


def scheduled(fake: FakeCluster) -> AddSchedule:
    """Make a volume and a schedule for it that has run."""
    request = schedule_request(fake, a_volume(fake))
    do(fake, request)
    schedule = request.schedule()
    ran, made = ScheduleRun(fake.now).to_text(), Made({1.0: "x"}).to_text()
    fake.put_records(request.where, Store.SCHEDULES, {schedule.run_key: ran, schedule.made_key(request.uuid): made})
    return request


def unscheduled(request: AddSchedule) -> RemoveSchedule:
    """Return the request that removes a schedule."""
    return RemoveSchedule(
        request.where, request.name, request.uuid, request.minutes, request.start, request.schedule_id
    )


SCENARIOS: dict[str, Callable[[FakeCluster], Request]] = {
    "create": lambda fake: CreateVolume(fake.where(), "pvc-1", uuid_of(1), GIB, Layout()),
    "create-in-namespace": lambda fake: CreateVolume(
        fake.where("rbd/ns1"), "pvc-1", uuid_of(1), GIB, Layout(features=1, order=23)
    ),
    "restore": restored,
    "restore-grown": lambda fake: restored(fake, size=2 * GIB),
    "restore-before-seal": lambda fake: restored(fake, sealed=False),
    "restore-to-namespace": lambda fake: restored(fake, spec="rbd/ns1"),
    "clone": cloned,
    "clone-grown": lambda fake: cloned(fake, 2 * GIB),
    "clone-to-namespace": lambda fake: cloned(fake, spec="rbd/ns1"),
    "resize": lambda fake: ResizeVolume(fake.where(), "pvc-1", a_volume(fake).uuid, 2 * GIB),
    "flatten": lambda fake: FlattenVolume(fake.where(), "pvc-2", do(fake, cloned(fake)).uuid),
    "snap-create": lambda fake: snapshot_request(fake, a_volume(fake).image),
    "snap-create-of-plain-image": snapshot_of_plain_image,
    "group-create": a_group,
    "group-rm": removed_group,
    "group-rm-kept": lambda fake: replace(removed_group(fake), keep_until=fake.now + 1000, deleted_at=fake.now),
    "rm": removed_plain,
    "rm-kept": lambda fake: replace(removed_plain(fake), keep_until=fake.now + 1000, deleted_at=fake.now),
    "rm-expired": lambda fake: expired(fake, removed_plain(fake)),
    "snap-rm-kept": lambda fake: replace(removed_snapshot(fake), keep_until=fake.now + 1000, deleted_at=fake.now),
    "snap-rm-expired": lambda fake: expired(fake, removed_snapshot(fake)),
    "trash-restore": lambda fake: undeleted(fake, removed_plain(fake), "pvc-1"),
    "trash-restore-renamed": lambda fake: undeleted(fake, removed_plain(fake), "pvc-again"),
    "trash-restore-snapshot": lambda fake: undeleted(fake, removed_snapshot(fake), "snapshot-1"),
    "trash-restore-image": bare,
    "adopt": lambda fake: adopted(fake),
    "adopt-released": lambda fake: released(fake),
    "adopt-snapshot": lambda fake: adopted_snapshot(fake),
    "release": lambda fake: ReleaseVolume(fake.where(), "pvc-1", a_volume(fake).uuid),
    "release-adopted": lambda fake: ReleaseVolume(fake.where(), "pvc-1", do(fake, adopted(fake)).uuid),
    "rm-adopted": lambda fake: RemoveVolume(fake.where(), "pvc-1", do(fake, adopted(fake)).uuid, own_name="plain"),
    "schedule-add": lambda fake: schedule_request(fake, a_volume(fake)),
    "schedule-change": lambda fake: replace(scheduled(fake), keep="7d"),
    "schedule-rm": lambda fake: unscheduled(scheduled(fake)),
    "rm-with-temp": lambda fake: removed_with_temp(fake, False),
    "rm-with-temp-of-itself": lambda fake: removed_with_temp(fake, True),
    "rm-with-clone": removed_with_clone,
    "snap-rm": removed_snapshot,
    "snap-rm-unsealed": lambda fake: removed_snapshot(fake, sealed=False),
    "snap-rm-with-restored-volume": lambda fake: removed_snapshot(fake, restore=True),
}
"""A stage and a request on it, for every operation."""

_numbers = itertools.count(0x1000)


def new_uuid() -> str:
    """Return another uuid each time."""
    return uuid_of(next(_numbers))
