"""Lineage: through the trash and across pools; what holds an image, and what would be freed with it."""

import pytest

from fake.cluster import FakeCluster
from fake.drive import GIB, a_snapshot, do, uuid_of
from fake.engines import PATIENCE
from vdisk.commands.access import Access
from vdisk.commands.handlers import Handlers
from vdisk.commands.render import render
from vdisk.lifecycle.removal import RemoveVolume
from vdisk.lifecycle.volume_clone import CloneVolume
from vdisk.lifecycle.volume_restore import RestoreVolume
from vdisk.model.layout import Layout
from vdisk.model.lineage import walk
from vdisk.model.observed import Watcher


@pytest.fixture
def fake():
    return FakeCluster({"rbd": {"namespaces": ["ns1"]}, "other": {}})


@pytest.fixture
def allowed():
    return {"rbd", "other"}


@pytest.fixture
def desk(mgr, allowed):
    handlers = Handlers(mgr.services, Access(mgr.service, lambda args: args.get("pool") in allowed), lambda: PATIENCE)
    return lambda handler, **args: getattr(handlers, handler)(args)


@pytest.fixture
def family(fake):
    """A removed volume with a snapshot, restored here and into another pool."""
    shot = a_snapshot(fake)
    here, there = fake.where(), fake.where("other")
    do(fake, RestoreVolume(here, "pvc-2", uuid_of(3), here, shot.uuid, None, Layout()))
    do(fake, RestoreVolume(there, "pvc-3", uuid_of(4), here, shot.uuid, None, Layout()))
    source = fake.space(here).ids[shot.source]
    fake.space(here).headers[source].used = 7 * GIB
    fake.space(here).headers[fake.space(here).ids[shot.image]].used = 1
    do(fake, RemoveVolume(here, "pvc-1", uuid_of(1)))
    return shot


def nodes(answer):
    return {node["image"]: node for root in answer for node in walk(root)}


@pytest.mark.parametrize("of", ["rbd", "rbd/pvc-2", "other/pvc-3"])
def test_a_family_is_found_from_each_of_its_members(fake, mgr, desk, family, of):
    answer = desk("tree", pool_spec=of)
    (root,) = answer
    assert (root["image"], root["trashed"], root["depth"]) == (family.source, True, 0)
    (snap,) = root["children"]
    assert (snap["image"], snap["kind"], snap["name"], snap["depth"]) == (family.image, "snapshot", "snapshot-1", 1)
    assert sorted((child["pool"], child["name"], child["depth"]) for child in snap["children"]) == [
        ("other", "pvc-3", 2),
        ("rbd", "pvc-2", 2),
    ]
    assert snap["held_by"][0] == "it is snapshot snapshot-1"
    assert len(snap["held_by"]) == 3
    assert snap["frees"] == 0


def test_the_last_clone_frees_what_was_removed_before(fake, mgr, desk):
    shot = a_snapshot(fake)
    here = fake.where()
    fake.space(here).headers[fake.space(here).ids[shot.source]].used = 7 * GIB
    do(fake, RemoveVolume(here, "pvc-1", uuid_of(1)))
    (root,) = desk("tree", pool_spec="rbd")
    (snap,) = root["children"]
    assert snap["frees"] == 7 * GIB
    assert snap["frees_with"] == [f"rbd/{shot.source} (in the trash)"]
    assert root["held_by"] == [f"clone rbd/{shot.image}"]
    text = render([root], "plain", tree=True)
    assert text.splitlines()[1].startswith(f"└─ rbd/{shot.image}: snapshot snapshot-1, 1 GiB")
    assert "frees 7 GiB with" in text


def test_info_says_the_same(fake, mgr, desk, family):
    fake.watch(fake.where(), image_of(3), Watcher("10.0.0.1:0/1", 4099, 1))
    tree = nodes(desk("tree", pool_spec="rbd"))
    for handler, argument, ref, image in (
        ("volume_info", "volume", "rbd/pvc-2", image_of(3)),
        ("snap_info", "snapshot", "rbd/snapshot-1", family.image),
    ):
        info = desk(handler, **{argument: ref})
        for name in ("used", "exclusive", "held_by", "frees", "frees_with", "depth", "watchers"):
            assert info[name] == tree[image][name], name
    assert "in use by 10.0.0.1:0/1 (client.4099)" in tree[image_of(3)]["held_by"]


def image_of(number):
    return f"csi-vol-{uuid_of(number)}"


def test_what_the_caller_may_not_see_stays_hidden(fake, mgr, desk, family, allowed):
    allowed.discard("other")
    answer = desk("tree", pool_spec="rbd")
    hidden = [node for root in answer for node in walk(root) if node["pool"] is None]
    assert len(hidden) == 1
    assert not any(value for name, value in hidden[0].items() if name not in ("depth", "children"))
    assert "pvc-3" not in str(answer)
    assert str(uuid_of(4)) not in str(answer)
    assert "1 clones that you may not see" in str(answer)
    assert str(uuid_of(4)) not in str(desk("snap_info", snapshot="rbd/snapshot-1"))
    assert "(an image that you may not see)" in render(answer, "plain", tree=True)


def test_a_namespace_is_told_from_a_volume(fake, mgr, desk):
    do(fake, CloneVolume(fake.where("rbd/ns1"), "c", uuid_of(9), fake.where(), a_snapshot(fake).source, None, Layout()))
    assert {node["namespace"] for root in desk("tree", pool_spec="rbd/ns1") for node in walk(root)} == {"", "ns1"}
