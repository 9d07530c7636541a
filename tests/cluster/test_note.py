"""The source note, replayed step by step: what its transcripts show is what the cluster holds, byte for byte."""

import re
from collections.abc import Sequence
from typing import Any

import pytest
import rbd

from cluster.support import (
    GIB,
    UUID,
    Vdisk,
    has_task_queue,
    image_names,
    image_spec,
    journal,
    mgr_log,
    objects,
    omap,
    opened,
    pool_id,
    snapshots,
    trash,
)
from harness.cluster import Cluster
from harness.wait import wait_for

VOLUME = "pvc-accbfd11-8b13-4a8a-96aa-cdd86b699223"
SNAPSHOT = "snapshot-976516a4-56a6-4ebb-bee6-ab069da551c8"
RESTORED = "pvc-3603c558-fd4c-4b49-988a-efc6bce11a7a"


def volume_layout(name: str, uuid: str, image_id: str) -> dict[str, bytes]:
    """Return what `csi.volume.<uuid>` holds in the note."""
    layout = {"csi.imagename": f"csi-vol-{uuid}", "csi.volname": name, "csi.imageid": image_id}
    return {key: value.encode("ascii") for key, value in layout.items()}


def snapshot_layout(name: str, uuid: str, image_id: str, source: str) -> dict[str, bytes]:
    """Return what `csi.snap.<uuid>` holds in the note."""
    layout = {
        "csi.imagename": f"csi-snap-{uuid}",
        "csi.snapname": name,
        "csi.source": source,
        "csi.imageid": image_id,
    }
    return {key: value.encode("ascii") for key, value in layout.items()}


class Replay:
    """The note's steps in one pool and namespace, and the journal that has to be there after each."""

    def __init__(self, cluster: Cluster, spec: str) -> None:
        self.cluster = cluster
        self.spec = spec
        self.vdisk = Vdisk(cluster)
        self.expected: dict[str, dict[str, bytes]] = {}

    def create(self, name: str) -> dict[str, Any]:
        """Create a volume of 1 GiB, as the note's first volume is."""
        made: dict[str, Any] = self.vdisk("volume create", pool_spec=self.spec, name=name, size="1Gi")
        self._expect_volume(made)
        return made

    def snapshot(self, source: str, name: str) -> dict[str, Any]:
        """Snapshot an image and wait for the form that stays."""
        made = self.vdisk("snap create", image_spec=f"{self.spec}/{source}", snap_name=name)
        made = self.vdisk.sealed(f"{self.spec}/{name}")
        self.expected.setdefault("csi.snaps.default", {})[f"csi.snap.{name}"] = made["uuid"].encode()
        self.expected[f"csi.snap.{made['uuid']}"] = snapshot_layout(name, made["uuid"], made["image_id"], source)
        return made

    def restore(self, snapshot: str, name: str) -> dict[str, Any]:
        """Restore a snapshot, named by its handle, to a volume."""
        made: dict[str, Any] = self.vdisk("volume restore", snapshot=snapshot, name=name, pool_spec=self.spec)
        self._expect_volume(made)
        return made

    def _expect_volume(self, made: dict[str, Any]) -> None:
        name, uuid = made["name"], made["uuid"]
        self.expected.setdefault("csi.volumes.default", {})[f"csi.volume.{name}"] = uuid.encode()
        self.expected[f"csi.volume.{uuid}"] = volume_layout(name, uuid, made["image_id"])

    def forget(self, kind: str, thing: dict[str, Any]) -> None:
        """Expect a volume or snapshot to be gone from the journal; the directory object stays."""
        del self.expected[f"csi.{kind}s.default"][f"csi.{kind}.{thing['name']}"]
        del self.expected[f"csi.{kind}.{thing['uuid']}"]

    def check(self, images: Sequence[str]) -> None:
        """Compare the journal and the list of images with what they have to be."""
        assert journal(self.cluster, self.spec) == self.expected
        assert image_names(self.cluster, self.spec) == sorted(images)

    def check_handle(self, thing: dict[str, Any]) -> None:
        """Compare a handle with the note's layout."""
        pool = pool_id(self.cluster, self.spec)
        assert thing["handle"] == f"0101-24-{self.cluster.fsid}-{pool:08x}-{thing['uuid']}"
        assert re.fullmatch(UUID, thing["uuid"])

    def info(self, thing: dict[str, Any]) -> dict[str, Any]:
        """Return what the release's own `rbd info` tells."""
        found: dict[str, Any] = self.cluster.rbd_json("info", image_spec(thing))
        assert found["id"] == thing["image_id"]
        assert found["size"] == thing["size"] == GIB
        return found


def assert_clone_format_2(cluster: Cluster, spec: str) -> None:
    """Format 1 lists its children in `rbd_children` and needs protected parents; format 2 does neither."""
    assert "rbd_children" not in objects(cluster, spec)


def is_protected(cluster: Cluster, spec: str, image: str, snap: str) -> bool:
    """Tell whether a snapshot is protected."""
    with opened(cluster, spec) as ioctx, rbd.Image(ioctx, image, read_only=True) as handle:
        return bool(handle.is_protected_snap(snap))


def test_the_notes_steps_leave_what_its_transcripts_show(cluster: Cluster, pool_spec: str) -> None:
    replay = Replay(cluster, pool_spec)
    vdisk = replay.vdisk
    pool, _, namespace = pool_spec.partition("/")

    volume = replay.create(VOLUME)
    replay.check([volume["image"]])
    replay.check_handle(volume)
    assert "parent" not in replay.info(volume)

    snapshot = replay.snapshot(volume["image"], SNAPSHOT)
    replay.check([volume["image"], snapshot["image"]])
    replay.check_handle(snapshot)
    assert snapshot["source"] == {"image": volume["image"], "handle": volume["handle"]}
    assert snapshots(cluster, pool_spec, volume["image"]) == []
    assert snapshots(cluster, pool_spec, snapshot["image"]) == [snapshot["image"]]
    parent = replay.info(snapshot)["parent"]
    assert (parent["pool"], parent["pool_namespace"], parent["image"]) == (pool, namespace, volume["image"])
    assert "clone-child" in replay.info(snapshot)["op_features"]
    assert_clone_format_2(cluster, pool_spec)
    assert not is_protected(cluster, pool_spec, snapshot["image"], snapshot["image"])

    restored = replay.restore(snapshot["handle"], RESTORED)
    replay.check([volume["image"], snapshot["image"], restored["image"]])
    replay.check_handle(restored)
    assert restored["source"] == {"kind": "snapshot", "handle": snapshot["handle"], "name": SNAPSHOT}
    parent = replay.info(restored)["parent"]
    assert (parent["pool"], parent["pool_namespace"]) == (pool, namespace)
    assert (parent["image"], parent["snapshot"]) == (snapshot["image"], snapshot["image"])
    assert_clone_format_2(cluster, pool_spec)
    assert not is_protected(cluster, pool_spec, snapshot["image"], snapshot["image"])

    # The note deletes the volume while its snapshot lives.
    assert vdisk("volume rm", volume=volume["handle"])["removed"] == volume["handle"]
    replay.forget("volume", volume)
    replay.check([snapshot["image"], restored["image"]])
    assert trash(cluster, pool_spec) == {volume["image_id"]: volume["image"]}

    assert vdisk("snap rm", snapshot=snapshot["handle"])["removed"] == snapshot["handle"]
    replay.forget("snap", snapshot)
    replay.check([restored["image"]])

    assert vdisk("volume rm", volume=restored["handle"])["removed"] == restored["handle"]
    replay.forget("volume", restored)
    replay.check([])
    assert replay.expected == {"csi.volumes.default": {}, "csi.snaps.default": {}}

    vdisk.drained(pool_spec)
    assert cluster.rbd_json("ls", pool_spec) == []
    assert cluster.rbd_json("trash", "ls", "--all", pool_spec) == []
    ours = re.compile(r"csi[.-]|rbd_(data|header|object_map|id)\.")
    left = [name for name in objects(cluster, pool_spec) if ours.match(name)]
    assert left == ["csi.snaps.default", "csi.volumes.default"]
    with opened(cluster, pool_spec) as ioctx:
        assert omap(ioctx, "vdisk.intents") == {}


def lines_in_order(log: str, wanted: Sequence[str]) -> None:
    """Assert that the log holds lines with these texts, in this order."""
    rest = iter(log.splitlines())
    for text in wanted:
        assert any(text in line for line in rest), f"not in the log, or not in order: {text}"


def test_the_log_tells_the_notes_sequence(cluster: Cluster, pool_spec: str) -> None:
    replay = Replay(cluster, pool_spec)
    pool, _, namespace = pool_spec.partition("/")

    def place(name: str) -> str:
        return f'(pool="{pool}", namespace="{namespace}", name="{name}")'

    volume = replay.create(VOLUME)
    snapshot = replay.snapshot(volume["image"], SNAPSHOT)
    restored = replay.restore(snapshot["handle"], RESTORED)
    vol, snap, new = volume["image"], snapshot["image"], restored["image"]
    replay.vdisk("volume rm", volume=volume["handle"])
    replay.vdisk("volume rm", volume=restored["handle"])
    replay.vdisk("snap rm", snapshot=snapshot["handle"])
    replay.vdisk.drained(pool_spec)

    at = pool_spec
    log = mgr_log(cluster)
    created = [
        f"set omap keys {place('csi.volumes.default')}: map[csi.volume.{VOLUME}:{volume['uuid']}]",
        f"set omap keys {place('csi.volume.' + volume['uuid'])}: map[csi.imagename:{vol} csi.volname:{VOLUME}]",
        f"rbd: create {at}/{vol}",
        f"set omap keys {place('csi.volume.' + volume['uuid'])}: map[csi.imageid:{volume['image_id']}]",
    ]
    snapped = [
        f"set omap keys {place('csi.snaps.default')}: map[csi.snap.{SNAPSHOT}:{snapshot['uuid']}]",
        f"set omap keys {place('csi.snap.' + snapshot['uuid'])}: "
        f"map[csi.imagename:{snap} csi.snapname:{SNAPSHOT} csi.source:{vol}]",
        f"rbd: snap create {at}/{vol}@{snap}",
        f"rbd: clone {at}/{vol}@{snap} {at}/{snap} (features: [layering",
        "rbd: snap rm ",
        f"rbd: snap create {at}/{snap}@{snap}",
    ]
    restoring = [
        f"set omap keys {place('csi.volumes.default')}: map[csi.volume.{RESTORED}:{restored['uuid']}]",
        f"set omap keys {place('csi.volume.' + restored['uuid'])}: map[csi.imagename:{new} csi.volname:{RESTORED}]",
        f"rbd: clone {at}/{snap}@{snap} {at}/{new}",
        f"set omap keys {place('csi.volume.' + restored['uuid'])}: map[csi.imageid:{restored['image_id']}]",
    ]
    removing = [
        f"rbd: trash move {at}/{vol}",
        f"removed omap keys {place('csi.volumes.default')}: [csi.volume.{VOLUME}]",
        f"rbd: trash move {at}/{new}",
        f"removed omap keys {place('csi.volumes.default')}: [csi.volume.{RESTORED}]",
        f"rbd: trash move {at}/{snap}",
        f"removed omap keys {place('csi.snaps.default')}: [csi.snap.{SNAPSHOT}]",
    ]
    lines_in_order(log, [*created, *snapped, *restoring, *removing])
    lines_in_order(
        log, [f"set omap keys {place('csi.snap.' + snapshot['uuid'])}: map[csi.imageid:{snapshot['image_id']}]"]
    )
    lines_in_order(log, [f"removed object {place('csi.snap.' + snapshot['uuid'])}"])
    for thing in (volume, snapshot, restored):
        target = f"{at}/{thing['image_id']}"
        # rbd_support is given one at a time where it can be given any, and vdisk removes the others meanwhile.
        ways = [rf"rbd task add trash remove {target}: task {UUID}$"] if has_task_queue(cluster) else []
        assert any(re.search(way, log, re.MULTILINE) for way in [*ways, rf"rbd: trash remove {target}$"])
    _, _, after = log.partition(f"rbd: trash move {at}/{snap}")
    assert re.search(rf"rbd: snap rm .*@{snap}", after)


def test_no_secret_is_in_any_log(cluster: Cluster, pool: str) -> None:
    Vdisk(cluster)("volume create", pool_spec=pool, name=VOLUME, size="1M")
    secrets = {entry["entity"]: entry["key"] for entry in cluster.mon("auth ls")["auth_dump"]}
    if has_task_queue(cluster) or cluster.release.name == "pacific":
        Vdisk(cluster)("volume rm", volume=f"{pool}/{VOLUME}")
        Vdisk(cluster).drained(pool)
        wait_for(lambda: cluster.mon("auth get-key", entity="client.vdisk")["key"], 20, "the key of client.vdisk")
        secrets["client.vdisk"] = cluster.mon("auth get-key", entity="client.vdisk")["key"]
    for path in sorted(cluster.layout.logs.iterdir()):
        text = path.read_text(errors="replace")
        told = [entity for entity, secret in secrets.items() if secret in text]
        assert told == [], path.name


@pytest.mark.parametrize("step", ["volume", "snapshot"])
def test_repeating_a_step_of_the_note_changes_nothing(cluster: Cluster, pool: str, step: str) -> None:
    replay = Replay(cluster, pool)
    volume = replay.create(VOLUME)
    snapshot = replay.snapshot(volume["image"], SNAPSHOT)
    before = journal(cluster, pool)
    if step == "volume":
        assert replay.create(VOLUME) == volume
    else:
        assert replay.snapshot(volume["image"], SNAPSHOT)["uuid"] == snapshot["uuid"]
    assert journal(cluster, pool) == before
