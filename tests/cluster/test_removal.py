"""Removing: refused while it is needed, gone at once otherwise, its space given back when nothing hangs on it."""

import re
from typing import Any

import pytest
import rados
import rbd

from cluster.support import (
    GIB,
    MIB,
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
    rbd_tasks,
    read_image,
    snapshots,
    trash,
    unchanged,
    write_image,
)
from harness.cluster import Cluster
from harness.wait import wait_for


@pytest.fixture
def vdisk(cluster: Cluster) -> Vdisk:
    """vdisk's commands as client.admin."""
    return Vdisk(cluster)


def make(vdisk: Vdisk, spec: str, name: str = "pvc", size: object = "4M", **options: Any) -> dict[str, Any]:
    """Create a volume."""
    made: dict[str, Any] = vdisk("volume create", pool_spec=spec, name=name, size=size, **options)
    return made


def snap(vdisk: Vdisk, volume: dict[str, Any], name: str = "shot") -> dict[str, Any]:
    """Snapshot a volume and wait until the snapshot is sealed."""
    vdisk("snap create", image_spec=image_spec(volume), snap_name=name)
    return vdisk.sealed(f"{image_spec(volume)}@{name}")


def assert_nothing_left(cluster: Cluster, spec: str) -> None:
    """Assert that no image, no trash, no journal entry, no data and no intent is left in a pool and namespace."""
    assert image_names(cluster, spec) == []
    assert trash(cluster, spec) == {}
    assert not any(journal(cluster, spec).values())

    def left() -> list[str]:
        return [name for name in objects(cluster, spec) if re.match(r"rbd_(data|header|object_map|id)\.", name)]

    assert [name for name in left() if not name.startswith("rbd_data.")] == []
    # Data that was in snapshots goes when the OSD has trimmed them.
    wait_for(lambda: left() == [], 30, "no data is left")
    with opened(cluster, spec) as ioctx:
        assert omap(ioctx, "vdisk.intents") == {}


# -- refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["volume", "snapshot"])
def test_in_use_names_the_watchers(cluster: Cluster, vdisk: Vdisk, pool_spec: str, kind: str) -> None:
    volume = make(vdisk, pool_spec)
    thing = volume if kind == "volume" else snap(vdisk, volume)
    words, args = (
        ("volume rm", {"volume": thing["handle"]}) if kind == "volume" else ("snap rm", {"snapshot": thing["handle"]})
    )
    handle = cluster.new_handle()
    pool, _, namespace = pool_spec.partition("/")
    try:
        with handle.open_ioctx(pool) as ioctx:
            ioctx.set_namespace(namespace)
            with rbd.Image(ioctx, thing["image"]):
                address = handle.get_addrs().rpartition(":")[2]
                client = handle.get_instance_id()
                with unchanged(cluster):
                    refusal = vdisk.refused(words, **args)
                    assert refusal.code == "in_use"
                    [watcher] = refusal.details["watchers"]
                    assert watcher["client"] == client
                    assert watcher["address"].endswith(address)
                    assert f"client.{client}" in refusal.message
                    assert watcher["address"] in refusal.message
                info = vdisk(f"{'volume' if kind == 'volume' else 'snap'} info", **args)
                assert info["watchers"] == [watcher]
    finally:
        handle.shutdown()
    assert vdisk(words, **args)["removed"] == thing["handle"]
    vdisk.drained(pool_spec)


def test_a_reader_is_no_use(cluster: Cluster, vdisk: Vdisk, pool: str) -> None:
    volume = make(vdisk, pool)
    with opened(cluster, pool) as ioctx, rbd.Image(ioctx, volume["image"], read_only=True):
        assert vdisk("volume info", volume=volume["handle"])["watchers"] == []
        vdisk("volume rm", volume=volume["handle"])
    vdisk.drained(pool)
    assert_nothing_left(cluster, pool)


def test_a_module_of_the_mgr_at_work_is_no_use(cluster: Cluster, vdisk: Vdisk, pool: str) -> None:
    if not has_task_queue(cluster):
        pytest.skip("rbd_support cannot run tasks on this release's mgr")
    # Flattening a clone of many objects keeps rbd_support's watch on it for some seconds.
    with opened(cluster, pool) as ioctx:
        rbd.RBD().create(ioctx, "golden", 48 * GIB, features=rbd.RBD_FEATURE_LAYERING)
    golden = vdisk("snap create", image_spec=f"{pool}/golden", snap_name="golden")
    volume = vdisk("volume restore", snapshot=vdisk.sealed(golden["handle"])["handle"], name="pvc")
    ret, _, status = cluster.mgr_command({"prefix": "rbd task add flatten", "image_spec": image_spec(volume)})
    assert ret == 0, status

    def watched() -> bool:
        with opened(cluster, pool) as ioctx, rbd.Image(ioctx, volume["image"], read_only=True) as image:
            return len(list(image.watchers_list())) == 1

    wait_for(watched, 20, "rbd_support has the image open", interval=0.01)
    assert vdisk("volume rm", volume=volume["handle"])["removed"] == volume["handle"]
    vdisk("snap rm", snapshot=golden["handle"])
    vdisk.drained(pool)
    assert image_names(cluster, pool) == ["golden"]
    assert trash(cluster, pool) == {}


def test_snapshots_of_an_administrator_are_kept(cluster: Cluster, vdisk: Vdisk, pool_spec: str) -> None:
    volume = make(vdisk, pool_spec)
    shot = snap(vdisk, volume)
    with opened(cluster, pool_spec) as ioctx:
        for thing in (volume, shot):
            with rbd.Image(ioctx, thing["image"]) as image:
                image.create_snap("by-hand")
    with unchanged(cluster):
        for words, args in (
            ("volume rm", {"volume": volume["handle"]}),
            ("snap rm", {"snapshot": shot["handle"]}),
        ):
            refusal = vdisk.refused(words, **args)
            assert refusal.code == "has_dependents"
            assert refusal.details == {"dependents": ["by-hand"]}
            assert "by-hand" in refusal.message
    with opened(cluster, pool_spec) as ioctx:
        for thing in (volume, shot):
            with rbd.Image(ioctx, thing["image"]) as image:
                image.remove_snap("by-hand")
    vdisk("volume rm", volume=volume["handle"])
    vdisk("snap rm", snapshot=shot["handle"])
    vdisk.drained(pool_spec)
    assert_nothing_left(cluster, pool_spec)


# -- gone at once ----------------------------------------------------------------------------------------------------


def test_journal_is_clean_and_the_name_free_at_once(cluster: Cluster, vdisk: Vdisk, pool_spec: str) -> None:
    uuids = set()
    for number in range(3):
        volume = make(vdisk, pool_spec, size=(number + 1) * MIB)
        shot = vdisk("snap create", image_spec=image_spec(volume), snap_name="shot")
        uuids |= {volume["uuid"], shot["uuid"]}
        vdisk("volume rm", volume=f"{pool_spec}/pvc")
        assert journal(cluster, pool_spec).keys() == {
            "csi.volumes.default",
            "csi.snaps.default",
            f"csi.snap.{shot['uuid']}",
        }
        vdisk("snap rm", snapshot=f"{pool_spec}/shot")
        assert not any(journal(cluster, pool_spec).values())
        assert image_names(cluster, pool_spec) == []
        for words, args in (("volume ls", {}), ("snap ls", {})):
            assert vdisk(words, pool_spec=pool_spec, **args) == []
        assert vdisk.refused("volume info", volume=volume["handle"]).code == "not_found"
        assert vdisk.refused("snap info", snapshot=shot["handle"]).code == "not_found"
    assert len(uuids) == 6
    vdisk.drained(pool_spec)
    assert_nothing_left(cluster, pool_spec)


def test_repeating_a_removal_answers_the_same(cluster: Cluster, vdisk: Vdisk, pool_spec: str) -> None:
    volume = make(vdisk, pool_spec)
    shot = snap(vdisk, volume)
    for words, args, thing in (
        ("volume rm", {"volume": f"{pool_spec}/pvc"}, volume),
        ("volume rm", {"volume": volume["handle"]}, volume),
        ("snap rm", {"snapshot": f"{pool_spec}/shot"}, shot),
        ("snap rm", {"snapshot": shot["handle"]}, shot),
        ("volume rm", {"volume": image_spec(volume)}, volume),
    ):
        answer = vdisk(words, **args)
        assert list(answer) == ["removed", "operation"]
        assert answer["removed"] == thing["handle"]
        assert vdisk(words, **args) == answer
    kinds = [op["kind"] for op in vdisk.operations(pool_spec)]
    assert sorted(kinds) == ["snap create", "snap rm", "volume create", "volume rm"]
    vdisk.drained(pool_spec)
    assert vdisk("volume rm", volume=volume["handle"])["removed"] == volume["handle"]
    # What never existed is not found, also in the same pool.
    assert vdisk.refused("volume rm", volume=f"{pool_spec}/never").code == "not_found"
    assert vdisk.refused("snap rm", snapshot=f"{pool_spec}/pvc").code == "not_found"


def test_removal_goes_to_rbd_supports_queue_with_its_task_id(cluster: Cluster, vdisk: Vdisk, pool_ns: str) -> None:
    pool_spec = pool_ns
    pool, _, namespace = pool_spec.partition("/")
    # Without an object map, its thousands of objects keep the task in the list for a while.
    volume = make(vdisk, pool_spec, size="48G", image_features="layering")
    vdisk("volume rm", volume=volume["handle"])
    target = f"{pool_spec}/{volume['image_id']}"
    if has_task_queue(cluster):

        def mine() -> Any:
            return [task for task in rbd_tasks(cluster) if task["refs"].get("pool_name") == pool]

        [task] = wait_for(mine, 20, "the task in the list", interval=0.02)
        assert task["refs"] == {
            "action": "trash remove",
            "pool_name": pool,
            "pool_namespace": namespace,
            "image_id": volume["image_id"],
            **({"image_name": volume["image"]} if "image_name" in task["refs"] else {}),
        }
        told = re.compile(rf"rbd task add trash remove {target}: task ({UUID})$", re.MULTILINE)
        # The list shows it before vdisk has heard of its id.
        line = wait_for(lambda: told.search(mgr_log(cluster)), 20, "the log tells of the task")
        assert line[1] == task["id"]
    vdisk.drained(pool_spec)
    if not has_task_queue(cluster):
        assert f"rbd: trash remove {target}" in mgr_log(cluster)
        assert rbd_tasks(cluster) == []
    assert_nothing_left(cluster, pool_spec)


# -- the temporary clone ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("relation", ["none", "child", "parent"])
def test_left_over_temporary_clone_goes_too(cluster: Cluster, vdisk: Vdisk, pool_spec: str, relation: str) -> None:
    volume = make(vdisk, pool_spec)
    name = volume["image"]
    temp = f"{name}-temp"
    with opened(cluster, pool_spec) as ioctx:
        librbd = rbd.RBD()
        if relation == "none":
            librbd.create(ioctx, temp, 4 * MIB)
        else:
            above, below = (name, temp) if relation == "child" else (temp, name)
            if relation == "parent":
                # What a CSI driver does for a clone: the volume hangs on its temporary clone.
                librbd.remove(ioctx, name)
                librbd.create(ioctx, temp, 4 * MIB)
            with rbd.Image(ioctx, above) as image:
                image.create_snap("s")
                clone = ("clone", "--rbd-default-clone-format", "2")
                cluster.rbd(*clone, f"{pool_spec}/{above}@s", f"{pool_spec}/{below}")
                image.remove_snap("s")
        with rbd.Image(ioctx, name, read_only=True) as image:
            ioctx_id = image.id()
        if ioctx_id != volume["image_id"]:
            with rados.WriteOpCtx() as op:
                ioctx.set_omap(op, ("csi.imageid",), (ioctx_id.encode(),))
                ioctx.operate_write_op(op, f"csi.volume.{volume['uuid']}")
    assert sorted(image_names(cluster, pool_spec)) == [name, temp]
    vdisk("volume rm", volume=volume["handle"])
    assert image_names(cluster, pool_spec) == []
    vdisk.drained(pool_spec)
    assert_nothing_left(cluster, pool_spec)


def test_temporary_clone_in_use_keeps_the_volume(cluster: Cluster, vdisk: Vdisk, pool: str) -> None:
    volume = make(vdisk, pool)
    temp = f"{volume['image']}-temp"
    with opened(cluster, pool) as ioctx:
        rbd.RBD().create(ioctx, temp, 4 * MIB)
        with rbd.Image(ioctx, temp), unchanged(cluster):
            refusal = vdisk.refused("volume rm", volume=volume["handle"], wait=5)
            assert refusal.code == "in_use"
        with rbd.Image(ioctx, temp) as image:
            image.create_snap("by-hand")
        with unchanged(cluster):
            assert vdisk.refused("volume rm", volume=volume["handle"], wait=5).code == "has_dependents"
        with rbd.Image(ioctx, temp) as image:
            image.remove_snap("by-hand")
    vdisk("volume rm", volume=volume["handle"])
    vdisk.drained(pool)
    assert_nothing_left(cluster, pool)


# -- what hangs on it ------------------------------------------------------------------------------------------------


def test_volume_goes_after_its_snapshot(cluster: Cluster, vdisk: Vdisk, pool_spec: str) -> None:
    volume = make(vdisk, pool_spec)
    write_image(cluster, pool_spec, volume["image"], b"kept")
    shot = snap(vdisk, volume)
    answer = vdisk("volume rm", volume=volume["handle"])

    def waits() -> Any:
        operation = vdisk("op info", id=answer["operation"])
        return operation if (operation["state"], operation["step"]) == ("waiting", "await-children") else None

    operation = wait_for(waits, 20, "the removal waits")
    assert operation["answered"] is True
    assert operation["waiting_for"] == [image_spec(shot)]
    assert trash(cluster, pool_spec) == {volume["image_id"]: volume["image"]}
    assert [task for task in rbd_tasks(cluster) if task["refs"]["pool_name"] == pool_spec.partition("/")[0]] == []
    # The snapshot is as good as ever, and says where it comes from.
    assert vdisk("snap info", snapshot=shot["handle"])["source"]["image"] == volume["image"]
    restored = vdisk("volume restore", snapshot=shot["handle"], name="restored")
    assert read_image(cluster, pool_spec, restored["image"], 4) == b"kept"
    parents = vdisk("volume info", volume=restored["handle"])["parents"]
    assert [(parent["image"], parent["trashed"]) for parent in parents] == [
        (shot["image"], False),
        (volume["image"], True),
    ]
    vdisk("volume rm", volume=restored["handle"])
    vdisk("snap rm", snapshot=shot["handle"])
    vdisk.drained(pool_spec)
    assert vdisk("op info", id=answer["operation"])["state"] == "done"
    assert_nothing_left(cluster, pool_spec)


def test_restored_volume_outlives_its_snapshot(cluster: Cluster, vdisk: Vdisk, pool_spec: str) -> None:
    volume = make(vdisk, pool_spec)
    write_image(cluster, pool_spec, volume["image"], b"kept")
    shot = snap(vdisk, volume)
    restored = vdisk("volume restore", snapshot=shot["handle"], name="restored")
    answer = vdisk("snap rm", snapshot=shot["handle"])
    assert vdisk("snap ls", pool_spec=pool_spec) == []
    assert snapshots(cluster, pool_spec, volume["image"]) == []
    wait_for(
        lambda: vdisk("op info", id=answer["operation"])["waiting_for"] == [image_spec(restored)],
        20,
        "the snapshot's removal waits for the volume",
    )
    write_image(cluster, pool_spec, volume["image"], b"lost")
    assert read_image(cluster, pool_spec, restored["image"], 4) == b"kept"
    info = vdisk("volume info", volume=restored["handle"])
    assert info["source"]["handle"] in (shot["handle"], None)
    assert [parent["trashed"] for parent in info["parents"]] == [True, False]
    vdisk("volume rm", volume=restored["handle"])
    vdisk("volume rm", volume=volume["handle"])
    vdisk.drained(pool_spec)
    assert_nothing_left(cluster, pool_spec)


@pytest.mark.parametrize("order", ["oldest first", "newest first"])
def test_a_chain_goes_in_any_order(cluster: Cluster, vdisk: Vdisk, pool: str, order: str) -> None:
    volume = make(vdisk, pool, "pvc-0")
    removals: list[tuple[str, dict[str, str]]] = [("volume rm", {"volume": volume["handle"]})]
    for number in range(1, 3):
        write_image(cluster, pool, volume["image"], b"%d" % number, number)
        shot = vdisk("snap create", image_spec=image_spec(volume), snap_name=f"shot-{number}")
        volume = vdisk("volume restore", snapshot=shot["handle"], name=f"pvc-{number}")
        removals += [("snap rm", {"snapshot": shot["handle"]}), ("volume rm", {"volume": volume["handle"]})]
    cloned = vdisk("volume clone", volume=volume["handle"], name="cloned")
    removals.append(("volume rm", {"volume": cloned["handle"]}))
    assert read_image(cluster, pool, cloned["image"], 3) == b"\x0012"
    for words, args in removals if order == "oldest first" else removals[::-1]:
        vdisk(words, **args)
        if words == "volume rm" and args["volume"] != cloned["handle"] and order == "oldest first":
            assert read_image(cluster, pool, cloned["image"], 3) == b"\x0012"
    vdisk.drained(pool)
    assert_nothing_left(cluster, pool)


def test_removal_right_after_creation(cluster: Cluster, vdisk: Vdisk, pool_spec: str) -> None:
    volume = make(vdisk, pool_spec)
    shot = vdisk("snap create", image_spec=image_spec(volume), snap_name="shot")
    vdisk("snap rm", snapshot=shot["handle"])
    vdisk("volume create", pool_spec=pool_spec, name="brief", size="4M", wait=0)
    vdisk.until("volume rm", volume=f"{pool_spec}/brief")
    vdisk("volume rm", volume=volume["handle"])
    vdisk.drained(pool_spec)
    assert_nothing_left(cluster, pool_spec)


def test_image_removed_behind_vdisks_back(cluster: Cluster, vdisk: Vdisk, pool_spec: str) -> None:
    volume = make(vdisk, pool_spec)
    with opened(cluster, pool_spec) as ioctx:
        rbd.RBD().remove(ioctx, volume["image"])
    assert [item["state"] for item in vdisk("volume ls", pool_spec=pool_spec)] == ["pending"]
    assert vdisk.refused("volume create", pool_spec=pool_spec, name="pvc", size="4M").code == "internal"
    vdisk("volume rm", volume=volume["handle"])
    vdisk.drained(pool_spec)
    assert_nothing_left(cluster, pool_spec)
    assert make(vdisk, pool_spec)["uuid"] != volume["uuid"]


def test_waiting_removals_go_on_after_failover(cluster: Cluster, vdisk: Vdisk, pool_ns: str) -> None:
    volume = make(vdisk, pool_ns)
    shot = snap(vdisk, volume)
    answer = vdisk("volume rm", volume=volume["handle"])
    with opened(cluster, pool_ns) as ioctx:
        intents = lambda: list(omap(ioctx, "vdisk.intents"))  # noqa: E731
        wait_for(lambda: intents() == [answer["operation"]], 20, "only the removal is under way")
    cluster.fail_mgr()
    cluster.wait_module()
    assert trash(cluster, pool_ns) == {volume["image_id"]: volume["image"]}
    vdisk.until("snap rm", snapshot=shot["handle"])
    vdisk.drained(pool_ns)
    assert_nothing_left(cluster, pool_ns)
