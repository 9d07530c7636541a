"""Guards of chains and counts: what is flattened, in which order, what waits, and what is never read."""

import pytest

from fake.cluster import FakeCluster
from fake.drive import GIB, new_uuid
from fake.engines import PATIENCE, Mgr
from fake.inventory import faults
from vdisk.engine.guards import GuardSettings
from vdisk.engine.operation import State
from vdisk.lifecycle.flatten import FlattenChain
from vdisk.lifecycle.group_snap import CreateGroup
from vdisk.lifecycle.snap_create import CreateSnapshot
from vdisk.lifecycle.volume_clone import CloneVolume
from vdisk.lifecycle.volume_create import CreateVolume
from vdisk.lifecycle.volume_restore import RestoreVolume
from vdisk.model.errors import Pending, Unsupported
from vdisk.model.groups import Member
from vdisk.model.handles import Handle
from vdisk.model.layout import SNAPSHOT_FEATURES, Layout
from vdisk.model.names import Kind
from vdisk.model.observed import LAYERING, Watcher
from vdisk.model.specs import parse_volume_ref


def settings(depth=(4, 8), snapshots=(250, 450)):
    return GuardSettings(lambda: depth[0], lambda: depth[1], lambda: snapshots[0], lambda: snapshots[1])


class Stage:
    """An engine with bounds of its own, and requests in short."""

    def __init__(self, fake: FakeCluster, **bounds):
        self.fake, self.mgr = fake, Mgr(fake, guards=settings(**bounds))
        self.mgr.engine.recover()
        self.where = fake.where()

    def run(self, request):
        return self.mgr.service.run(request, PATIENCE)[0].request

    def volume(self, name):
        return self.run(CreateVolume(self.where, name, new_uuid(), GIB, Layout()))

    def snap(self, image, name, features=SNAPSHOT_FEATURES):
        return self.run(CreateSnapshot(self.where, name, new_uuid(), image, Layout(features=features)))

    def restore(self, snap, name):
        return self.run(RestoreVolume(self.where, name, new_uuid(), self.where, snap.uuid, None, Layout()))

    def clone(self, image, name):
        return self.run(CloneVolume(self.where, name, new_uuid(), self.where, image, None, Layout()))

    def group(self, name, *volumes):
        """Snapshot volumes at one moment, and return the images of the snapshots."""
        return [Kind.SNAPSHOT.image(member.uuid) for member in self.run(self.group_request(name, *volumes)).members]

    def group_request(self, name, *volumes):
        members = []
        for volume in volumes:
            uuid = new_uuid()
            handles = (Handle("c", self.where.pool_id, each).encode() for each in (volume.uuid, uuid))
            members.append(Member(uuid, volume.image, *handles))
        return CreateGroup(self.where, name, new_uuid(), tuple(members), Layout(features=SNAPSHOT_FEATURES))

    def in_vain(self, request):
        """Wait in vain for a request, once it waits for something itself; returns what is said of that."""
        operation = self.mgr.engine.submit(request)
        self.mgr.until(lambda: operation.state is State.WAITING, "it waits")
        with pytest.raises(Pending) as raised:
            self.mgr.service.run(request, 0.02)
        return raised.value.message

    def depth(self, request):
        depth, image = 0, self.fake.find(self.where, request.image)
        while image.parent is not None:
            depth, image = depth + 1, self.fake.find_id(self.where, image.parent.image_id)
        return depth

    def flattened(self):
        return [op.request.name for op in self.mgr.engine.operations() if isinstance(op.request, FlattenChain)]

    def quiet(self):
        self.mgr.until(lambda: not self.mgr.engine._book.live, "everything ends", hurry=True)


@pytest.fixture
def stage(fake):
    made = []

    def make(**bounds):
        made.append(Stage(fake, **bounds))
        return made[-1]

    yield make
    for one in made:
        one.mgr.stop()


def generations(stage, count, drop=False):
    volume = stage.volume("v0")
    deepest = 0
    for number in range(1, count + 1):
        snap = stage.snap(volume.image, f"s{number}")
        volume = stage.restore(snap, f"v{number}")
        deepest = max(deepest, stage.depth(snap), stage.depth(volume))
    return deepest, volume


def test_twenty_generations_stay_shallow(fake, stage):
    desk = stage()
    deepest, _ = generations(desk, 20)
    desk.quiet()
    assert deepest <= 8
    assert desk.flattened()
    assert all(name.startswith("csi-snap-") for name in desk.flattened()), "volumes are left alone"
    assert faults(fake) == []


def test_without_flattening_the_hard_bound_holds_and_a_repeat_succeeds(fake, stage):
    desk = stage(depth=(4, 4))
    fake.flattening = True
    volume = desk.volume("v0")
    first = desk.snap(volume.image, "s1")
    volume = desk.restore(first, "v1")
    second = desk.snap(volume.image, "s2")
    volume = desk.restore(second, "v2")
    request = CreateSnapshot(desk.where, "s3", new_uuid(), volume.image, Layout(features=SNAPSHOT_FEATURES))
    said = desk.in_vain(request)
    assert "chain of clones" in said
    assert "clone_depth_hard" in said
    assert fake.image_id(desk.where, request.image) is None
    assert desk.mgr.engine.figures()["flattening"] == 1
    fake.flattening = False
    made = desk.run(request)
    assert desk.depth(made) <= 4
    desk.quiet()
    assert faults(fake) == []


def test_what_waits_can_be_cancelled_and_leaves_nothing(fake, stage):
    desk = stage(depth=(1, 1))
    fake.flattening = True
    snap = desk.snap(desk.volume("v0").image, "s1")
    request = RestoreVolume(desk.where, "v1", new_uuid(), desk.where, snap.uuid, None, Layout())
    operation, settled = desk.mgr.service.run(request, 0)
    assert not settled
    desk.mgr.until(lambda: operation.state is State.WAITING)
    desk.mgr.engine.cancel(operation.id)
    desk.mgr.until(lambda: operation.state is State.FAILED)
    assert fake.image_id(desk.where, request.image) is None
    assert operation.id not in fake.space(desk.where).intents


def test_an_image_without_deep_flatten_shortens_no_chain(fake, stage):
    desk = stage(depth=(2, 2))
    snap = desk.snap(desk.volume("v0").image, "s1", features=LAYERING)
    desk.restore(snap, "v1")
    volume = fake.find(desk.where, desk.restore(snap, "v3").image)
    fake.space(desk.where).headers[volume.id].features = LAYERING
    fake.cut(desk.where, volume.name, "by-hand")
    with pytest.raises(Unsupported, match="deep-flatten"):
        desk.clone(volume.name, "v4")


def test_least_disturbing_first(fake, stage):
    desk = stage(depth=(0, 0))
    volume = desk.volume("v0")
    one = desk.clone(volume.image, "v1")
    two = desk.clone(one.image, "v2")
    three = desk.clone(two.image, "v3")
    desk.mgr.stop()
    fake.watch(desk.where, three.image, Watcher("10.0.0.1:0/1", 1, 1))
    again = Stage(fake, depth=(4, 8))
    again.clone(three.image, "v4")
    again.quiet()
    assert again.flattened() == [two.image], "one that nobody has open, as low as possible"
    again.mgr.stop()


def test_removed_images_are_flattened_before_volumes(fake, stage):
    desk = stage(depth=(0, 0))
    one = desk.clone(desk.volume("v0").image, "v1")
    two = desk.clone(one.image, "v2")
    desk.run(desk.mgr.service.remove(desk.mgr.service.find_name(desk.where, one.target, parse_volume_ref("rbd/v1"))))
    desk.mgr.stop()
    again = Stage(fake, depth=(3, 8))
    again.clone(two.image, "v3")
    again.mgr.until(lambda: bool(again.flattened()))
    again.mgr.until(lambda: fake.find_id(again.where, fake.find(again.where, two.image).parent.image_id).parent is None)
    assert again.flattened() == [one.image]
    again.mgr.stop()


def test_snapshots_of_one_image_are_bounded(fake, stage):
    desk = stage(snapshots=(4, 6))
    volume = desk.volume("v0")
    for number in range(20):
        desk.snap(volume.image, f"s{number:02}")
        assert len(fake.find(desk.where, volume.image).snaps) <= 6
    desk.quiet()
    assert len(fake.find(desk.where, volume.image).snaps) <= 4
    assert faults(fake) == []
    oldest = fake.find(desk.where, Kind.SNAPSHOT.image(fake.lookup(desk.where, Kind.SNAPSHOT, "s00")))
    assert oldest.parent is None, "the oldest went first"


def test_snapshots_by_hand_are_told_of_at_the_bound(fake, stage):
    desk = stage(snapshots=(2, 3))
    volume = desk.volume("v0")
    for name in "abc":
        fake.cut(desk.where, volume.image, name)
    with pytest.raises(Unsupported, match="snapshots_hard"):
        desk.snap(volume.image, "s1")


def test_one_that_hangs_lets_others_pass(fake, stage):
    desk = stage(snapshots=(1, 2))
    fake.flattening = True
    volume, other = desk.volume("v0"), desk.volume("other")
    desk.snap(volume.image, "s1")
    desk.snap(volume.image, "s2")
    third = CreateSnapshot(desk.where, "s3", new_uuid(), volume.image, Layout(features=SNAPSHOT_FEATURES))
    assert "snapshots_hard" in desk.in_vain(third)
    desk.snap(other.image, "of-other")


def test_every_member_of_a_group_snapshot_is_held_to_the_bounds(fake, stage):
    desk = stage(depth=(2, 2), snapshots=(2, 3))
    one, two = desk.volume("one"), desk.volume("two")
    for number in range(8):
        desk.group(f"g{number}", one, two)
        assert all(len(fake.find(desk.where, volume.image).snaps) <= 3 for volume in (one, two))
    deep = desk.clone(desk.clone(one.image, "v1").image, "v2")
    _, image = desk.group("deep", two, deep)
    depth, image = 0, fake.find(desk.where, image)
    while image.parent is not None:
        depth, image = depth + 1, fake.find_id(desk.where, image.parent.image_id)
    assert depth <= 2
    desk.quiet()
    assert faults(fake) == []


def test_a_group_snapshot_waits_for_all_that_is_flattened_for_it(fake, stage):
    desk = stage(snapshots=(1, 2))
    fake.flattening = True
    one, two = desk.volume("one"), desk.volume("two")
    for number in range(2):
        desk.group(f"g{number}", one, two)
    assert "snapshots_hard" in desk.in_vain(desk.group_request("g2", one, two))
    (waits,) = [op for op in desk.mgr.engine.operations() if op.request.name == "g2"]
    assert [volume.image in reason for volume, reason in zip((one, two), waits.waiting_for, strict=True)] == [True] * 2
    assert fake.lookup(desk.where, Kind.GROUP, "g2") is None, "nothing was begun"
    fake.flattening = False
    desk.quiet()
    assert fake.lookup(desk.where, Kind.GROUP, "g2") is not None


def test_one_member_that_nothing_can_be_done_for_refuses_the_group_snapshot(fake, stage):
    desk = stage(snapshots=(2, 3))
    one, two = desk.volume("one"), desk.volume("two")
    for name in "abc":
        fake.cut(desk.where, two.image, name)
    with pytest.raises(Unsupported, match=two.image):
        desk.group("g", one, two)
    assert fake.find(desk.where, one.image).snaps == ()


def test_the_usual_snapshot_reads_nothing_more(fake, stage):
    """An image that is no clone has no chain, and that of one that was looked at once is known."""
    desk = stage()
    reads = []

    class Counting:
        def __getattr__(self, name):
            def call(*args):
                reads.append(name)
                return getattr(fake, name)(*args)

            return call

    desk.mgr.engine.guards._cluster = Counting()
    volume = desk.volume("v0")
    desk.snap(volume.image, "s1")
    assert reads == []
    restored = desk.restore(desk.snap(volume.image, "s2"), "v1")
    reads.clear()
    for number in range(3):
        desk.snap(restored.image, f"s1{number}")
    assert len(reads) <= 2
    assert set(reads) <= {"load_image"}


def test_what_is_near_a_bound_is_looked_at_anew(fake, stage):
    desk = stage(depth=(2, 4))
    fake.flattening = True
    one = desk.clone(desk.volume("v0").image, "v1")
    two = desk.clone(one.image, "v2")
    desk.clone(two.image, "v3")
    (near,) = desk.mgr.engine.guards.near()
    assert (near.name, near.what, near.number) == (two.image, "depth", 2)
    fake.flattening = False
    desk.quiet()
    assert desk.mgr.engine.guards.near() == []
