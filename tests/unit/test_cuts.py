"""Cuts that are shared between requests for the same image."""

from __future__ import annotations

import pytest

from fake.cluster import FakeCluster
from fake.drive import GIB, cloned, do, snapshot_request, uuid_of
from fake.engines import PATIENCE, Gate, Mgr
from fake.inventory import faults
from vdisk.engine.operation import State
from vdisk.lifecycle.base import SHARE_OF_A_CUT
from vdisk.lifecycle.flatten import FlattenChain
from vdisk.lifecycle.volume_create import CreateVolume
from vdisk.model.errors import Internal, NotReady
from vdisk.model.layout import Layout


@pytest.fixture
def fake() -> FakeCluster:
    return FakeCluster({"rbd": {}})


@pytest.fixture
def mgr(fake: FakeCluster, short_pauses: None):
    made = Mgr(fake)
    made.engine.recover()
    yield made
    made.engine.stop(PATIENCE)


def submit(mgr: Mgr, fake: FakeCluster, image: str, numbers: range) -> list:
    """Ask for snapshots of one image."""
    return [mgr.engine.submit(snapshot_request(fake, image, f"snapshot-{n}", n)) for n in numbers]


def a_volume(fake: FakeCluster):
    """Make a volume."""
    return do(fake, CreateVolume(fake.where(), "pvc-1", uuid_of(1), GIB, Layout()))


def gathered(mgr: Mgr, count: int) -> bool:
    """Tell whether so many share the next cut."""
    cuts = mgr.engine._executor._cuts
    return sum(len(cut.members) for cut in cuts._gathering.values()) == count


def test_who_comes_while_a_cut_is_taken_shares_the_next(fake: FakeCluster, mgr: Mgr) -> None:
    volume = a_volume(fake)
    fake.hook = gate = Gate("cut", count=1)
    first = submit(mgr, fake, volume.image, range(2, 3))
    gate.reach()
    others = submit(mgr, fake, volume.image, range(3, 2 + SHARE_OF_A_CUT))
    mgr.until(lambda: gathered(mgr, len(others)), "the others gather")
    gate.open()
    mgr.ended(*first, *others)
    assert all(operation.state is State.DONE for operation in [*first, *others])
    assert fake.calls.count("cut") == 2
    assert faults(fake) == []
    assert [snap for snap in fake.find(fake.where(), volume.image).snaps if snap.user] == []


def test_more_than_may_share_queue_up(fake: FakeCluster, mgr: Mgr) -> None:
    volume = a_volume(fake)
    fake.hook = gate = Gate("cut", count=1)
    operations = submit(mgr, fake, volume.image, range(2, 2 + SHARE_OF_A_CUT + 3))
    gate.reach()
    assert [op.state for op in operations[SHARE_OF_A_CUT:]] == [State.QUEUED] * 3
    gate.open()
    mgr.ended(*operations)
    assert faults(fake) == []


@pytest.mark.parametrize("error", [NotReady("later"), Internal("odd")])
@pytest.mark.parametrize("method", ["cut", "clone_image", "drop"])
def test_one_that_fails_takes_nobody_along(fake: FakeCluster, mgr: Mgr, method: str, error: Exception) -> None:
    volume = a_volume(fake)
    fake.hook = gate = Gate("cut", count=1)
    first = submit(mgr, fake, volume.image, range(2, 3))
    gate.reach()
    others = submit(mgr, fake, volume.image, range(3, 6))
    mgr.until(lambda: gathered(mgr, 3), "the others gather")
    fake.fail_on(method, error)
    gate.open()
    mgr.ended(*first, *others)
    failed = [operation for operation in [*first, *others] if operation.state is not State.DONE]
    assert len(failed) <= (1 if isinstance(error, Internal) else 0)
    assert faults(fake) == []
    assert [snap for snap in fake.find(fake.where(), volume.image).snaps if snap.user] == []


@pytest.mark.parametrize("method", ["cut", "clone_image", "drop"])
def test_no_flattening_begins_while_the_image_is_cut(fake: FakeCluster, mgr: Mgr, method: str) -> None:
    volume = do(fake, cloned(fake))
    fake.calls.clear()
    fake.hook = gate = Gate(method)
    snapshot = mgr.engine.submit(snapshot_request(fake, volume.image, number=4))
    gate.reach()
    image = fake.find(fake.where(), volume.image)
    assert image is not None
    flattening = mgr.engine.submit(FlattenChain(fake.where(), image.name, uuid_of(9), image_id=image.id))
    mgr.until(lambda: flattening.state is State.WAITING, "the flattening waits")
    assert [f"a snapshot of rbd/{image.name} that is being taken"] == list(flattening.waiting_for)
    assert "flatten" not in fake.calls
    gate.open()
    mgr.ended(snapshot, flattening)
    assert [call for call in fake.calls if call in ("drop", "flatten")] == ["drop", "flatten"]
    assert faults(fake) == []
