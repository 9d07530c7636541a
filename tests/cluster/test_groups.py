"""Group snapshots: several volumes at one moment where librbd can do it, and a clear refusal where it can't."""

import struct
import threading
from typing import Any

import pytest
import rbd

from cluster.support import (
    MIB,
    SNAPSHOT_FIELDS,
    UUID,
    Vdisk,
    image_names,
    journal,
    objects,
    omap,
    opened,
    pool_id,
    read_image,
    set_omap,
    snapshots,
    unchanged,
    write_image,
)
from harness.cluster import Cluster
from harness.wait import wait_for

GROUP_FIELDS = ["name", "handle", "uuid", "pool", "namespace", "created_at", "state", "ready_to_use", "snapshots"]


@pytest.fixture
def vdisk(cluster: Cluster) -> Vdisk:
    """vdisk's commands as client.admin."""
    return Vdisk(cluster)


@pytest.fixture
def able(vdisk: Vdisk) -> None:
    """For tests of what only some releases can do."""
    if not vdisk("status")["group_snapshots"]:
        pytest.skip("this release's librbd clones no group snapshots")


@pytest.fixture
def pair(vdisk: Vdisk, cluster: Cluster, pool_spec: str) -> list[dict[str, Any]]:
    """Two volumes with their names as content."""
    made = [vdisk("volume create", pool_spec=pool_spec, name=name, size="8M") for name in ("a", "b")]
    for volume in made:
        write_image(cluster, pool_spec, volume["image"], volume["name"].encode() * 100)
    return made


def named(volumes: list[dict[str, Any]]) -> str:
    """Return what the commands name volumes by."""
    return ",".join(volume["handle"] for volume in volumes)


def group_objects(cluster: Cluster, spec: str) -> list[str]:
    """Return the RBD groups of a pool and namespace."""
    with opened(cluster, spec) as ioctx:
        return sorted(rbd.RBD().group_list(ioctx))


def test_a_release_can_do_it_or_says_that_it_can_not(cluster: Cluster, vdisk: Vdisk, pool: str) -> None:
    volume = vdisk("volume create", pool_spec=pool, name="pvc", size="4M")
    able = vdisk("status")["group_snapshots"]
    assert able is (cluster.release.name == "tentacle")
    if not able:
        with unchanged(cluster):
            refusal = vdisk.refused("group snap create", name="g", volumes=volume["handle"])
            assert refusal.code == "unsupported"
            assert "rbd_clone4" in refusal.message
            assert vdisk("group snap ls", pool_spec=pool) == []
            for words in ("group snap info", "group snap rm"):
                assert vdisk.refused(words, group=f"{pool}/g").code == "not_found"


@pytest.mark.usefixtures("able")
def test_a_group_snapshot_from_making_to_removal(
    cluster: Cluster, vdisk: Vdisk, pool_spec: str, pair: list[dict[str, Any]]
) -> None:
    names = [f"{pool_spec}/a", f"{pool_spec}/b"]
    plan = vdisk("group snap create", name="g", volumes=",".join(names), dry_run=True)
    assert [step["step"] for step in plan["steps"]].count("clone-member") == 2
    group = vdisk("group snap create", name="g", volumes=",".join(names))
    assert list(group) == GROUP_FIELDS
    assert (group["name"], group["state"], group["ready_to_use"]) == ("g", "ready", True)
    assert {snap["source"]["handle"] for snap in group["snapshots"]} == {volume["handle"] for volume in pair}
    for snap in group["snapshots"]:
        assert list(snap) == [*SNAPSHOT_FIELDS, "group"]
        assert (snap["group"], snap["state"], snap["size"]) == (group["handle"], "ready", 8 * MIB)
        vdisk.sealed(snap["handle"])
    assert group_objects(cluster, pool_spec) == []
    for volume in pair:
        assert snapshots(cluster, pool_spec, volume["image"]) == []
        write_image(cluster, pool_spec, volume["image"], b"later")
    _check_journal(cluster, pool_spec, group, pair)

    sealed = vdisk("group snap info", group=group["handle"])
    assert vdisk("group snap ls", pool_spec=pool_spec) == [sealed]
    with unchanged(cluster):
        assert vdisk("group snap create", name="g", volumes=named(pair)) == sealed
        assert vdisk("group snap info", group=f"{pool_spec}/g") == sealed
        other = vdisk.refused("group snap create", name="g", volumes=pair[0]["handle"])
        assert other.code == "already_exists"
        for snap in sealed["snapshots"]:
            assert vdisk("snap info", snapshot=snap["handle"])["group"] == group["handle"]
            refusal = vdisk.refused("snap rm", snapshot=snap["handle"])
            assert (refusal.code, refusal.details) == ("has_dependents", {"group": "g"})
    assert [snap["group"] for snap in vdisk("snap ls", pool_spec=pool_spec)] == [group["handle"]] * 2
    for snap in group["snapshots"]:
        volume = next(volume for volume in pair if volume["handle"] == snap["source"]["handle"])
        made = vdisk("volume restore", snapshot=snap["handle"], name=f"of-{volume['name']}")
        assert read_image(cluster, pool_spec, made["image"], 100) == volume["name"].encode() * 100
    assert vdisk("check", pool_spec=pool_spec, wait=30)["findings"] == []

    gone = vdisk("group snap rm", group=f"{pool_spec}/g")
    assert gone["removed"] == group["handle"]
    assert vdisk("group snap rm", group=group["handle"]) == gone
    assert vdisk("group snap ls", pool_spec=pool_spec) == vdisk("snap ls", pool_spec=pool_spec) == []
    assert vdisk.refused("group snap info", group=group["handle"]).code == "not_found"
    again = vdisk("group snap create", name="g", volumes=named(pair))
    assert again["uuid"] != group["uuid"]
    vdisk("group snap rm", group=again["handle"])
    for volume in vdisk("volume ls", pool_spec=pool_spec):
        vdisk("volume rm", volume=volume["handle"])
    vdisk.drained(pool_spec)
    assert image_names(cluster, pool_spec) == []
    assert [name for name in objects(cluster, pool_spec) if name.startswith(("rbd_group_header", "csi.volume."))] == []


def _check_journal(cluster: Cluster, spec: str, group: dict[str, Any], pair: list[dict[str, Any]]) -> None:
    found = journal(cluster, spec)
    uuid = group["uuid"]
    assert found["csi.groups.default"] == {"csi.volume.group.g": uuid.encode()}
    shares = {snap["source"]["handle"]: snap["handle"] for snap in group["snapshots"]}
    assert found[f"csi.volume.group.{uuid}"] == {
        "csi.groupname": f"csi-group-{uuid}".encode(),
        "csi.volname": b"g",
        **{volume["handle"]: shares[volume["handle"]].encode() for volume in pair},
    }
    for number, snap in enumerate(sorted(group["snapshots"], key=lambda snap: snap["name"])):
        assert snap["name"] == f"group-{uuid}-{number}"
        assert set(found[f"csi.snap.{snap['uuid']}"]) == {"csi.imagename", "csi.snapname", "csi.source", "csi.imageid"}


@pytest.mark.usefixtures("able")
def test_what_can_not_be_snapshotted_together_is_refused(
    cluster: Cluster, vdisk: Vdisk, pool: str, pool_ns: str
) -> None:
    one, two = (vdisk("volume create", pool_spec=pool, name=name, size="4M") for name in ("one", "two"))
    plain = vdisk("volume create", pool_spec=pool, name="plain", size="4M", image_features="layering")
    away = vdisk("volume create", pool_spec=pool_ns, name="away", size="4M")
    with opened(cluster, pool) as ioctx:
        rbd.RBD().group_create(ioctx, "mine")
        rbd.Group(ioctx, "mine").add_image(ioctx, two["image"])
    missing = one["handle"].replace(one["uuid"], "00000000-0000-4000-8000-000000000000")
    with unchanged(cluster):
        for volumes, code, told in (
            (named([one, two]), "in_use", "RBD group mine"),
            (named([one, plain]), "unsupported", "exclusive-lock"),
            (named([one, away]), "invalid_argument", pool_ns),
            (named([one, one]), "invalid_argument", "twice"),
            (f"{one['handle']},{pool}/one", "invalid_argument", "twice"),
            (f"{one['handle']},{missing}", "not_found", "does not exist"),
            (f"{pool}/nothing", "not_found", "nothing"),
            (",", "invalid_argument", "0 volumes"),
            (",".join([one["handle"]] * 101), "invalid_argument", "101 volumes"),
            ("nothing", "invalid_argument", "nothing"),
        ):
            for more in ({}, {"dry_run": True}):
                refusal = vdisk.refused("group snap create", name="g", volumes=volumes, **more)
                assert (refusal.code, told in refusal.message) == (code, True), (volumes, refusal)
        assert vdisk.refused("group snap create", name="a/b", volumes=one["handle"]).code == "invalid_argument"
    with opened(cluster, pool) as ioctx:
        rbd.Group(ioctx, "mine").remove_image(ioctx, two["image"])
        rbd.RBD().group_remove(ioctx, "mine")
    assert vdisk("group snap create", name="g", volumes=named([one, two]))["state"] == "ready"


class Writer:
    """Writes a counter to two images in turn, the first one first; so no moment has the second one ahead."""

    def __init__(self, cluster: Cluster, spec: str, images: list[str]) -> None:
        self._cluster = cluster
        self._spec = spec
        self._images = images
        self._stop = threading.Event()
        self.count = 0
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Writer":
        self._thread.start()
        wait_for(lambda: self.count > 20, 20, "the writer writes", interval=0.01)
        return self

    def __exit__(self, *unused: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        with (
            opened(self._cluster, self._spec) as ioctx,
            rbd.Image(ioctx, self._images[0]) as first,
            rbd.Image(ioctx, self._images[1]) as second,
        ):
            while not self._stop.is_set():
                for image in (first, second):
                    image.write(struct.pack("<Q", self.count + 1), 0)
                    image.flush()
                self.count += 1


def counters(cluster: Cluster, vdisk: Vdisk, spec: str, snaps: list[dict[str, Any]], sources: list[str]) -> list[int]:
    """Restore snapshots, and return what the images that they are of held, in the order of ``sources``."""
    found = {}
    for snap in snaps:
        made = vdisk("volume restore", snapshot=snap["handle"], name=f"r-{snap['uuid']}")
        (found[snap["source"]["image"]],) = struct.unpack("<Q", read_image(cluster, spec, made["image"], 8))
    return [found[source] for source in sources]


@pytest.mark.usefixtures("able")
def test_all_members_are_of_one_moment(
    cluster: Cluster, vdisk: Vdisk, pool_spec: str, pair: list[dict[str, Any]]
) -> None:
    images = [volume["image"] for volume in pair]
    with Writer(cluster, pool_spec, images) as writer:
        groups = []
        for number in range(4):
            begun = writer.count
            # librbd may take ten seconds to get the lock from a busy writer: the answer is "still running" then.
            groups.append((begun, vdisk.until("group snap create", name=f"g{number}", volumes=named(pair))))
            wait_for(lambda begun=writer.count: writer.count > begun + 5, 20, "the writer goes on", interval=0.01)
        # One after the other is no such thing, and the writer can show it.
        apart = []
        for number, image in enumerate(images):
            apart.append(vdisk("snap create", image_spec=f"{pool_spec}/{image}", snap_name=f"apart-{number}"))
            wait_for(lambda begun=writer.count: writer.count > begun + 5, 20, "the writer goes on", interval=0.01)
    for begun, group in groups:
        first, second = counters(cluster, vdisk, pool_spec, group["snapshots"], images)
        assert second <= first <= second + 1, group["name"]
        assert first >= begun, "what was written before the snapshot was asked for is not in it"
    first, second = counters(cluster, vdisk, pool_spec, apart, images)
    assert second > first


@pytest.mark.usefixtures("able")
def test_what_comes_right_after_the_answer_waits_until_the_volumes_have_left_the_rbd_group(
    cluster: Cluster, vdisk: Vdisk, pool_spec: str, pair: list[dict[str, Any]]
) -> None:
    """The RBD group goes after the answer, and a volume that is in one can be in no other, nor be removed."""
    plan = [step["step"] for step in vdisk("group snap create", name="g", volumes=named(pair), dry_run=True)["steps"]]
    assert plan.index("answer") < plan.index("drop-group")
    for number in range(3):
        group = vdisk("group snap create", name="g", volumes=named(pair))
        assert vdisk("group snap create", name="g", volumes=named(pair))["uuid"] == group["uuid"]
        other = vdisk("group snap create", name=f"other-{number}", volumes=named(pair))
        vdisk("group snap rm", group=group["handle"])
        vdisk("group snap rm", group=other["handle"])
    group = vdisk("group snap create", name="g", volumes=named(pair))
    for volume in pair:
        vdisk("volume rm", volume=volume["handle"])
    assert [snap["state"] for snap in vdisk("group snap info", group=group["handle"])["snapshots"]] == ["ready"] * 2
    vdisk("group snap rm", group=group["handle"])
    vdisk.drained(pool_spec)
    assert group_objects(cluster, pool_spec) == image_names(cluster, pool_spec) == []


@pytest.mark.usefixtures("able")
def test_kept_snapshots_come_back_one_by_one(
    cluster: Cluster, vdisk: Vdisk, pool_spec: str, pair: list[dict[str, Any]]
) -> None:
    group = vdisk("group snap create", name="g", volumes=named(pair))
    vdisk("group snap rm", group=group["handle"], keep_for="7d")
    assert vdisk("snap ls", pool_spec=pool_spec) == vdisk("group snap ls", pool_spec=pool_spec) == []
    back = vdisk("trash restore", id=group["snapshots"][0]["handle"])
    assert (back["handle"], back["state"], "group" in back) == (group["snapshots"][0]["handle"], "ready", False)
    vdisk("snap rm", snapshot=back["handle"])
    vdisk("trash purge", pool_spec=pool_spec, older_than="0")


@pytest.mark.usefixtures("able")
def test_a_check_finds_what_is_half_done_and_mends_it(
    cluster: Cluster, vdisk: Vdisk, pool_spec: str, pair: list[dict[str, Any]]
) -> None:
    healthy = vdisk("group snap create", name="healthy", volumes=named(pair))
    torn = vdisk("group snap create", name="torn", volumes=named(pair))
    for snap in (*healthy["snapshots"], *torn["snapshots"]):
        vdisk.sealed(snap["handle"])
    lost, left = (snap["uuid"] for snap in torn["snapshots"])
    fsid, pid = cluster.fsid, pool_id(cluster, pool_spec)
    unfinished, leftover, foreign = (f"0000000{number}-0000-4000-8000-000000000000" for number in (1, 2, 3))
    with opened(cluster, pool_spec) as ioctx:
        ioctx.remove_object(f"csi.snap.{lost}")
        set_omap(ioctx, "csi.groups.default", {"csi.volume.group.u": unfinished.encode()})
        values = {"csi.groupname": f"csi-group-{unfinished}".encode(), "csi.volname": b"u"}
        set_omap(ioctx, f"csi.volume.group.{unfinished}", values)
        for name in (unfinished, leftover):
            rbd.RBD().group_create(ioctx, f"csi-group-{name}")
        rbd.Group(ioctx, f"csi-group-{leftover}").add_image(ioctx, pair[0]["image"])
        rbd.RBD().group_create(ioctx, "csi-vol-group-of-somebody")
        set_omap(ioctx, "csi.groups.default", {"csi.volume.group.theirs": foreign.encode()})
        theirs = {"csi.groupname": b"csi-vol-group-of-somebody", "csi.volname": b"theirs"}
        set_omap(ioctx, f"csi.volume.group.{foreign}", {**theirs, f"0001-0024-{fsid}-{pid:016x}-{UUID}": b""})
    cluster.ceph("config", "set", "mgr", "mgr/vdisk/check_grace", "0")
    try:
        found = vdisk("check", pool_spec=pool_spec, wait=40)["findings"]
        classes = {item["class"]: item for item in found if item["subject"]["kind"] == "group"}
        assert set(classes) == {"group_unfinished", "group_member_lost", "leftover_group"}
        assert classes["leftover_group"]["subject"]["key"] == leftover
        vdisk("check", pool_spec=pool_spec, repair=True, wait=40)
        ident = classes["group_member_lost"]["id"]
        vdisk("check", pool_spec=pool_spec, finding=ident, repair=True, wait=40)
        again = vdisk("check", pool_spec=pool_spec, wait=40)["findings"]
        assert [item for item in again if item["subject"]["kind"] == "group"] == []
    finally:
        # Set, not only removed: a removal reaches the mgr at its next start, and other tests check too.
        cluster.ceph("config", "set", "mgr", "mgr/vdisk/check_grace", "600")
    assert group_objects(cluster, pool_spec) == ["csi-vol-group-of-somebody"]
    assert "group" not in vdisk("snap info", snapshot=f"{pool_spec}/csi-snap-{left}")
    assert vdisk("group snap info", group=healthy["handle"])["state"] == "ready"
    with opened(cluster, pool_spec) as ioctx:
        assert set(omap(ioctx, "csi.groups.default")) == {"csi.volume.group.healthy", "csi.volume.group.theirs"}
        rbd.RBD().group_remove(ioctx, "csi-vol-group-of-somebody")
