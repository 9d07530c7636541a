"""Volumes and snapshots from creation to their last copy: what each command makes, answers and leaves alone."""

import json
import re
import threading
from typing import Any

import pytest
import rbd

from cluster.support import (
    GIB,
    INFO_FIELDS,
    KIB,
    MIB,
    OPERATION_FIELDS,
    SNAPSHOT_FIELDS,
    TIME,
    UUID,
    VOLUME_FIELDS,
    Vdisk,
    image_names,
    image_spec,
    opened,
    pool_id,
    read_image,
    unchanged,
    write_image,
)
from harness.cluster import Cluster
from harness.wait import wait_for


@pytest.fixture
def vdisk(cluster: Cluster) -> Vdisk:
    """vdisk's commands as client.admin."""
    return Vdisk(cluster)


def make_image(cluster: Cluster, spec: str, name: str, size: int = 8 * MIB, **options: Any) -> None:
    """Make an image that vdisk does not know."""
    with opened(cluster, spec) as ioctx:
        rbd.RBD().create(ioctx, name, size, old_format=False, **options)


# -- creating --------------------------------------------------------------------------------------------------------


def test_sizes_and_units(cluster: Cluster, vdisk: Vdisk, pool: str) -> None:
    sizes: list[tuple[object, int]] = [
        (4096, 4096),
        ("4096", 4096),
        ("1", 1),
        ("1K", KIB),
        ("3M", 3 * MIB),
        ("10MiB", 10 * MIB),
        ("1g", GIB),
        ("5 GiB", 5 * GIB),
        ("2T", 2048 * GIB),
        ("4096B", 4096),
    ]
    with opened(cluster, pool) as ioctx:
        for number, (text, size) in enumerate(sizes):
            made = vdisk("volume create", pool_spec=pool, name=f"size-{number}", size=text)
            assert made["size"] == size, text
            with rbd.Image(ioctx, made["image"], read_only=True) as image:
                assert image.size() == size


def test_layout_options_are_honoured(cluster: Cluster, vdisk: Vdisk, pool: str, pool_ns: str) -> None:
    data = pool_ns.partition("/")[0]
    options = {
        "image_features": "layering,exclusive-lock,deep-flatten",
        "object_size": "1M",
        "stripe_unit": "64K",
        "stripe_count": 4,
        "data_pool": data,
    }
    made = vdisk("volume create", pool_spec=pool, name="laid-out", size="16M", **options)
    info = cluster.rbd_json("info", image_spec(made))
    expected = {"layering", "exclusive-lock", "deep-flatten", "striping", "data-pool"}
    assert set(info["features"]) == expected
    assert info["object_size"] == MIB
    assert (info["stripe_unit"], info["stripe_count"]) == (64 * KIB, 4)
    assert info["data_pool"] == data
    assert vdisk("volume create", pool_spec=pool, name="laid-out", size="16M", **options) == made
    write_image(cluster, pool, made["image"], b"x" * MIB)
    with opened(cluster, data) as ioctx:
        assert [item.key for item in ioctx.list_objects() if item.key.startswith("rbd_data.")]

    plain = vdisk("volume create", pool_spec=pool, name="plain", size="16M")
    info = cluster.rbd_json("info", image_spec(plain))
    cluster.rbd("create", f"{pool}/reference", "--size", "16M")
    reference = cluster.rbd_json("info", f"{pool}/reference")
    same = ("features", "object_size", "size", "format")
    assert {key: info[key] for key in same} == {key: reference[key] for key in same}


def test_fields_are_those_of_the_design(cluster: Cluster, vdisk: Vdisk, pool_spec: str) -> None:
    pool, _, namespace = pool_spec.partition("/")
    volume = vdisk("volume create", pool_spec=pool_spec, name="pvc", size="4M")
    assert list(volume) == VOLUME_FIELDS
    assert (volume["name"], volume["pool"], volume["namespace"]) == ("pvc", pool, namespace)
    assert (volume["size"], volume["state"], volume["source"]) == (4 * MIB, "ready", None)
    assert TIME.fullmatch(volume["created_at"])
    assert volume["image"] == f"csi-vol-{volume['uuid']}"

    made = vdisk("snap create", image_spec=image_spec(volume), snap_name="shot")
    assert list(made) == SNAPSHOT_FIELDS
    assert (made["name"], made["state"], made["ready_to_use"]) == ("shot", "ready", True)
    assert (made["size"], made["image"]) == (4 * MIB, f"csi-snap-{made['uuid']}")
    assert TIME.fullmatch(made["created_at"])
    snapshot = vdisk.sealed(f"{pool_spec}/shot")
    assert list(snapshot) == SNAPSHOT_FIELDS + INFO_FIELDS
    assert {key: snapshot[key] for key in SNAPSHOT_FIELDS} == {**made, "sealed": True}

    restored = vdisk("volume restore", snapshot=f"{pool_spec}/shot", name="pvc-2")
    assert list(restored) == VOLUME_FIELDS
    info = vdisk("volume info", volume=restored["handle"])
    assert list(info) == VOLUME_FIELDS + INFO_FIELDS
    assert {key: info[key] for key in VOLUME_FIELDS} == restored
    assert info["depth"] == 2
    assert [parent["image"] for parent in info["parents"]] == [snapshot["image"], volume["image"]]
    assert info["watchers"] == []
    assert info["used"] == 0
    for parent in info["parents"]:
        assert (parent["pool"], parent["namespace"], parent["trashed"]) == (pool, namespace, False)

    vdisk.drained(pool_spec)
    operations = vdisk.operations(pool_spec)
    assert [op["kind"] for op in operations] == ["volume create", "snap create", "volume restore"]
    for op in operations:
        assert list(op) == OPERATION_FIELDS
        assert re.fullmatch(UUID, op["id"])
        assert (op["state"], op["progress"], op["error"]) == ("done", 1.0, None)
        details = vdisk("op info", id=op["id"])
        assert {key: details[key] for key in OPERATION_FIELDS} == op
        assert all(step["seconds"] >= 0 for step in details["steps"])
        assert "answer" in [step["name"] for step in details["steps"]]


def test_every_way_to_name_a_thing_leads_to_it(cluster: Cluster, vdisk: Vdisk, pool_spec: str) -> None:
    volume = vdisk("volume create", pool_spec=pool_spec, name="pvc", size="4M")
    shot = vdisk("snap create", image_spec=image_spec(volume), snap_name="shot")
    other = f"0001-0024-{cluster.fsid}-{pool_id(cluster, pool_spec):016x}-"
    for ref in (f"{pool_spec}/pvc", image_spec(volume), volume["handle"], other + volume["uuid"]):
        assert vdisk("volume info", volume=ref)["uuid"] == volume["uuid"], ref
    at = f"{image_spec(volume)}@shot"
    for ref in (f"{pool_spec}/shot", image_spec(shot), at, shot["handle"], other + shot["uuid"]):
        assert vdisk("snap info", snapshot=ref)["uuid"] == shot["uuid"], ref
    assert vdisk.refused("snap info", snapshot=f"{pool_spec}/elsewhere@shot").code == "not_found"
    # A snapshot is no volume, whatever the handle looks like.
    assert vdisk.refused("volume info", volume=shot["handle"]).code == "not_found"
    assert vdisk.refused("snap info", snapshot=volume["handle"]).code == "not_found"


def test_same_name_for_a_volume_and_a_snapshot_in_two_places(cluster: Cluster, vdisk: Vdisk, pool_ns: str) -> None:
    pool = pool_ns.partition("/")[0]
    uuids = set()
    for spec in (pool, pool_ns):
        volume = vdisk("volume create", pool_spec=spec, name="same", size="4M")
        uuids |= {volume["uuid"], vdisk("snap create", image_spec=image_spec(volume), snap_name="same")["uuid"]}
        assert [item["name"] for item in vdisk("volume ls", pool_spec=spec)] == ["same"]
        assert [item["name"] for item in vdisk("snap ls", pool_spec=spec)] == ["same"]
        vdisk.sealed(f"{spec}/same")  # or it may be sealed between the two lists
        assert vdisk("snap ls", pool_spec=image_spec(volume)) == vdisk("snap ls", image_spec=image_spec(volume))
    assert len(uuids) == 4


def test_names_at_the_edge_of_what_is_allowed(cluster: Cluster, vdisk: Vdisk, pool: str) -> None:
    names = ["x", "n" * 128, "ü" * 64, "with space", "quo'te\"", "dot.dash-_:;,#%&()[]{}|\\", "快照", "None", "-"]
    for name in names:
        made = vdisk("volume create", pool_spec=pool, name=name, size="1M")
        assert made["name"] == name
        assert vdisk("volume info", volume=f"{pool}/{name}")["uuid"] == made["uuid"]
    listed = [item["name"] for item in vdisk("volume ls", pool_spec=pool)]
    assert listed == sorted(names, key=str.encode)
    for name in names:
        vdisk("volume rm", volume=f"{pool}/{name}")
    assert vdisk("volume ls", pool_spec=pool) == []


# -- restoring, cloning, resizing ------------------------------------------------------------------------------------


def test_restore_and_clone_may_be_larger_never_smaller(cluster: Cluster, vdisk: Vdisk, pool: str) -> None:
    volume = vdisk("volume create", pool_spec=pool, name="pvc", size="4M")
    write_image(cluster, pool, volume["image"], b"content")
    vdisk("snap create", image_spec=image_spec(volume), snap_name="shot")
    for words, source in (
        ("volume restore", {"snapshot": f"{pool}/shot"}),
        ("volume clone", {"volume": f"{pool}/pvc"}),
    ):
        name = words.replace(" ", "-")
        larger = vdisk(words, **source, name=name, size="9M")
        assert larger["size"] == 9 * MIB
        assert read_image(cluster, pool, larger["image"], 7) == b"content"
        assert read_image(cluster, pool, larger["image"], MIB, 8 * MIB) == bytes(MIB)
        assert vdisk(words, **source, name=name, size="9M") == larger
        assert vdisk(words, **source, name=name) == larger
        assert vdisk(words, **source, name=name + "-equal", size="4M")["size"] == 4 * MIB
        smaller = vdisk.refused(words, **source, name=name + "-smaller", size="3M")
        assert (smaller.code, smaller.details) == ("out_of_range", {"minimum": 4 * MIB})
        differs = vdisk.refused(words, **source, name=name, size="10M")
        assert differs.code == "already_exists"
        assert str(9 * MIB) in differs.message


def test_resize_only_grows(cluster: Cluster, vdisk: Vdisk, pool_spec: str) -> None:
    volume = vdisk("volume create", pool_spec=pool_spec, name="pvc", size="4M")
    assert vdisk("volume resize", volume=volume["handle"], size="4M") == volume
    for _ in range(2):
        assert vdisk("volume resize", volume=f"{pool_spec}/pvc", size="8M") == {**volume, "size": 8 * MIB}
    shrink = vdisk.refused("volume resize", volume=volume["handle"], size=str(8 * MIB - 1))
    assert (shrink.code, shrink.details) == ("out_of_range", {"minimum": 8 * MIB})
    assert cluster.rbd_json("info", image_spec(volume))["size"] == 8 * MIB


def test_resize_while_somebody_has_the_image_open(cluster: Cluster, vdisk: Vdisk, pool: str) -> None:
    volume = vdisk("volume create", pool_spec=pool, name="pvc", size="4M")
    with opened(cluster, pool) as ioctx, rbd.Image(ioctx, volume["image"]) as image:
        image.write(b"held", 0)
        assert vdisk("volume resize", volume=volume["handle"], size="8M")["size"] == 8 * MIB
        assert image.size() == 8 * MIB
        image.write(b"beyond", 6 * MIB)


def test_data_of_every_point_in_time(cluster: Cluster, vdisk: Vdisk, pool_spec: str) -> None:
    volume = vdisk("volume create", pool_spec=pool_spec, name="pvc", size="12M")

    def pattern(mark: bytes) -> bytes:
        return mark * (9 * MIB // len(mark))

    for mark in (b"first---", b"second--"):
        write_image(cluster, pool_spec, volume["image"], pattern(mark), MIB)
        vdisk("snap create", image_spec=image_spec(volume), snap_name=mark.decode().strip("-"))
    write_image(cluster, pool_spec, volume["image"], pattern(b"third---"), MIB)
    cloned = vdisk("volume clone", volume=volume["handle"], name="cloned")
    write_image(cluster, pool_spec, volume["image"], pattern(b"fourth--"), MIB)
    first = vdisk("volume restore", snapshot=f"{pool_spec}/first", name="from-first")
    second = vdisk("volume restore", snapshot=f"{pool_spec}/second", name="from-second")
    for made, mark in ((first, b"first---"), (second, b"second--"), (cloned, b"third---"), (volume, b"fourth--")):
        content = read_image(cluster, pool_spec, made["image"], 12 * MIB)
        assert content == bytes(MIB) + pattern(mark) + bytes(2 * MIB), mark
    # A restored volume is one's own to write to, and to snapshot in turn.
    write_image(cluster, pool_spec, first["image"], pattern(b"fifth---"), MIB)
    vdisk("snap create", image_spec=image_spec(first), snap_name="fifth")
    fifth = vdisk("volume restore", snapshot=f"{pool_spec}/fifth", name="from-fifth")
    assert read_image(cluster, pool_spec, fifth["image"], 8, MIB) == b"fifth---"
    again = vdisk("volume restore", snapshot=f"{pool_spec}/first", name="from-first-again")
    assert read_image(cluster, pool_spec, again["image"], 8, MIB) == b"first---"
    used = vdisk("volume info", volume=volume["handle"])["used"]
    assert used == 12 * MIB


def test_snapshot_while_the_image_is_written_to(cluster: Cluster, vdisk: Vdisk, pool: str) -> None:
    volume = vdisk("volume create", pool_spec=pool, name="pvc", size="4M")
    with opened(cluster, pool) as ioctx, rbd.Image(ioctx, volume["image"]) as image:
        image.write(b"before", 0)
        image.flush()
        vdisk("snap create", image_spec=image_spec(volume), snap_name="shot")
        image.write(b"after!", 0)
        image.flush()
        restored = vdisk("volume restore", snapshot=f"{pool}/shot", name="restored")
        assert read_image(cluster, pool, restored["image"], 6) == b"before"


def test_snapshots_are_sealed_and_keep_their_creation_time(cluster: Cluster, vdisk: Vdisk, pool: str) -> None:
    volume = vdisk("volume create", pool_spec=pool, name="pvc", size="4M")
    made = vdisk("snap create", image_spec=image_spec(volume), snap_name="shot")
    assert made["ready_to_use"]
    sealed = vdisk.sealed(made["handle"])
    assert sealed["created_at"] == made["created_at"]
    assert vdisk("snap create", image_spec=image_spec(volume), snap_name="shot") == {**made, "sealed": True}
    assert vdisk("snap ls", pool_spec=pool) == [{**made, "sealed": True}]


def test_restore_right_after_the_snapshot(cluster: Cluster, vdisk: Vdisk, pool_spec: str) -> None:
    volume = vdisk("volume create", pool_spec=pool_spec, name="pvc", size="4M")
    for number in range(4):
        write_image(cluster, pool_spec, volume["image"], b"round %d" % number)
        made = vdisk("snap create", image_spec=image_spec(volume), snap_name=f"shot-{number}")
        restored = vdisk("volume restore", snapshot=made["handle"], name=f"restored-{number}")
        assert read_image(cluster, pool_spec, restored["image"], 7) == b"round %d" % number
        assert restored["source"]["name"] == f"shot-{number}"


def test_image_that_vdisk_did_not_make(cluster: Cluster, vdisk: Vdisk, pool_spec: str) -> None:
    make_image(cluster, pool_spec, "golden")
    write_image(cluster, pool_spec, "golden", b"golden")
    made = vdisk("snap create", image_spec=f"{pool_spec}/golden", snap_name="shot")
    assert made["source"] == {"image": "golden", "handle": None}
    restored = vdisk("volume restore", snapshot=f"{pool_spec}/golden@shot", name="pvc")
    assert read_image(cluster, pool_spec, restored["image"], 6) == b"golden"
    assert [item["name"] for item in vdisk("snap ls", image_spec=f"{pool_spec}/golden")] == ["shot"]
    assert vdisk.refused("volume info", volume=f"{pool_spec}/golden").code == "not_found"


def test_restore_and_clone_into_another_pool_or_namespace(
    cluster: Cluster, vdisk: Vdisk, pool: str, pool_ns: str
) -> None:
    for source, target in ((pool, pool_ns), (pool_ns, pool), (pool_ns, pool_ns.partition("/")[0])):
        name = f"from-{source}".replace("/", "-")
        volume = vdisk("volume create", pool_spec=source, name=f"{name}-to-{target}".replace("/", "-"), size="4M")
        write_image(cluster, source, volume["image"], b"wanders")
        shot = vdisk("snap create", image_spec=image_spec(volume), snap_name=volume["name"])
        restored = vdisk("volume restore", snapshot=shot["handle"], name=f"{name}-r", pool_spec=target)
        cloned = vdisk("volume clone", volume=volume["handle"], name=f"{name}-c", pool_spec=target)
        for made, kind in ((restored, "snapshot"), (cloned, "volume")):
            assert "/".join(filter(None, (made["pool"], made["namespace"]))) == target
            assert read_image(cluster, target, made["image"], 7) == b"wanders"
            assert made["source"]["kind"] == kind
            assert made["source"]["name"] == volume["name"]
        again = vdisk("volume restore", snapshot=shot["handle"], name=f"{name}-r", pool_spec=target)
        assert again == restored
    for spec in (pool, pool_ns, pool_ns.partition("/")[0]):
        for item in vdisk("snap ls", pool_spec=spec):
            vdisk("snap rm", snapshot=item["handle"])
        for item in vdisk("volume ls", pool_spec=spec):
            vdisk("volume rm", volume=item["handle"])
    for spec in (pool, pool_ns.partition("/")[0]):
        vdisk.drained(spec)
    assert image_names(cluster, pool) == image_names(cluster, pool_ns) == []


# -- repeating and conflicting ---------------------------------------------------------------------------------------


def test_repeating_answers_with_the_same_object(cluster: Cluster, vdisk: Vdisk, pool: str) -> None:
    volume = vdisk("volume create", pool_spec=pool, name="pvc", size="4M")
    shot = vdisk("snap create", image_spec=image_spec(volume), snap_name="shot")
    vdisk.sealed(shot["handle"])
    restored = vdisk("volume restore", snapshot=shot["handle"], name="restored")
    cloned = vdisk("volume clone", volume=volume["handle"], name="cloned")
    with unchanged(cluster):
        assert vdisk("volume create", pool_spec=pool, name="pvc", size=4 * MIB) == volume
        assert vdisk("snap create", image_spec=image_spec(volume), snap_name="shot") == {**shot, "sealed": True}
        assert vdisk("volume restore", snapshot=shot["handle"], name="restored") == restored
        assert vdisk("volume clone", volume=f"{pool}/pvc", name="cloned") == cloned


def test_the_same_request_at_once_makes_one_object(cluster: Cluster, vdisk: Vdisk, pool: str) -> None:
    answers: list[dict[str, Any]] = []

    def ask(number: int) -> None:
        answers.append(vdisk("volume create", pool_spec=pool, name=f"pvc-{number % 2}", size="4M"))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(answers) == 12
    assert len({item["uuid"] for item in answers}) == 2
    assert len(image_names(cluster, pool)) == 2


def test_conflicts_say_what_differs(cluster: Cluster, vdisk: Vdisk, pool: str, pool_ns: str) -> None:
    data = pool_ns.partition("/")[0]
    volume = vdisk("volume create", pool_spec=pool, name="pvc", size="4M", image_features="layering")
    make_image(cluster, pool, "golden")
    shot = vdisk("snap create", image_spec=image_spec(volume), snap_name="shot")
    vdisk.sealed(shot["handle"])
    other = vdisk("snap create", image_spec=image_spec(volume), snap_name="other")
    vdisk.sealed(other["handle"])
    vdisk("volume restore", snapshot=shot["handle"], name="restored")
    conflicts = [
        ("volume create", {"pool_spec": pool, "name": "pvc", "size": "5M"}, [str(4 * MIB), str(5 * MIB)]),
        ("volume create", {"pool_spec": pool, "name": "pvc", "size": "4M", "object_size": "1M"}, ["object size"]),
        (
            "volume create",
            {"pool_spec": pool, "name": "pvc", "size": "4M", "image_features": "layering,exclusive-lock"},
            ["features layering,", "exclusive-lock"],
        ),
        (
            "volume create",
            {"pool_spec": pool, "name": "pvc", "size": "4M", "stripe_unit": "64K", "stripe_count": 4},
            ["stripe unit", "stripe count"],
        ),
        ("volume create", {"pool_spec": pool, "name": "pvc", "size": "4M", "data_pool": data}, ["data pool"]),
        ("volume create", {"pool_spec": pool, "name": "restored", "size": "4M"}, ["clone"]),
        ("volume restore", {"snapshot": shot["handle"], "name": "pvc"}, ["not a clone"]),
        ("volume restore", {"snapshot": other["handle"], "name": "restored"}, ["clone of something else"]),
        ("volume clone", {"volume": volume["handle"], "name": "restored"}, ["clone of something else"]),
        ("snap create", {"image_spec": f"{pool}/golden", "snap_name": "shot"}, [volume["image"], "golden"]),
    ]
    with unchanged(cluster):
        for words, args, told in conflicts:
            refusal = vdisk.refused(words, **args)
            assert refusal.code == "already_exists", args
            for text in told:
                assert text in refusal.message, (args, refusal.message)


# -- lists, forms, options -------------------------------------------------------------------------------------------


def test_lists_come_in_pages_in_the_order_of_names(cluster: Cluster, vdisk: Vdisk, pool_spec: str) -> None:
    make_image(cluster, pool_spec, "golden")
    make_image(cluster, pool_spec, "silver")
    names = ["b", "a-2", "a-10", "Z", "é", "a"]
    for name in names:
        vdisk("volume create", pool_spec=pool_spec, name=name, size="1M")
        vdisk("snap create", image_spec=f"{pool_spec}/{'golden' if name != 'b' else 'silver'}", snap_name=name)
    names.sort(key=str.encode)
    golden = [name for name in names if name != "b"]
    lists = [
        ("volume ls", {"pool_spec": pool_spec}, names),
        ("snap ls", {"pool_spec": pool_spec}, names),
        ("snap ls", {"image_spec": f"{pool_spec}/golden"}, golden),
    ]
    for words, args, expected in lists:
        assert [item["name"] for item in vdisk(words, **args)] == expected
        for limit in (1, 2, 3, 6, 7):
            paged: list[str] = []
            while True:
                marker = {"marker": paged[-1]} if paged else {}
                page = [item["name"] for item in vdisk(words, **args, limit=limit, **marker)]
                paged += page
                if len(page) < limit:
                    break
            assert paged == expected, (words, args, limit)
        # A marker is a place in the order, whether or not there is such a name.
        assert [item["name"] for item in vdisk(words, **args, marker="a-1")] == expected[expected.index("a") + 1 :]
        assert vdisk(words, **args, marker="~~~~") == [] or expected[-1] > "~~~~"


def test_plain_and_json_forms(cluster: Cluster, vdisk: Vdisk, pool: str) -> None:
    volume = vdisk("volume create", pool_spec=pool, name="pvc", size="1G")
    vdisk("snap create", image_spec=image_spec(volume), snap_name="shot")
    ret, pretty, _ = vdisk.raw("volume info", volume=volume["handle"], format="json-pretty")
    assert ret == 0
    assert json.loads(pretty) == vdisk("volume info", volume=volume["handle"])
    assert "\n    " in pretty
    ret, plain, _ = vdisk.raw("volume ls", pool_spec=pool)
    head, row = plain.splitlines()
    assert head.split() == ["NAME", "IMAGE", "SIZE", "STATE", "CREATED", "AT"]
    assert row.split()[:4] == ["pvc", volume["image"], "1", "GiB"]
    assert vdisk.raw("volume ls", pool_spec=pool, format="plain")[1] == plain
    ret, plain, status = vdisk.raw("volume info", volume=volume["handle"])
    assert (ret, status) == (0, "")
    assert re.search(rf"^handle: +{volume['handle']}$", plain, re.MULTILINE)
    for words in ("snap ls", "volume ls"):
        assert vdisk.raw(words, pool_spec=pool, format="plain")[0] == 0
    for words in ("op ls", "status"):
        assert vdisk.raw(words, format="plain")[0] == 0
    ret, out, status = vdisk.raw("volume info", volume=f"{pool}/nothing")
    assert (ret, out) == (-2, "")
    assert status.startswith("not_found: ")
    # The same through the CLI, as a person types it.
    typed = cluster.ceph("vdisk", "volume", "info", f"{pool}/pvc", "--format", "json").out
    assert json.loads(typed)["uuid"] == volume["uuid"]
    listed = cluster.ceph("vdisk", "volume", "ls", pool, "--limit", "1").out
    assert "pvc" in listed
    missing = cluster.ceph("vdisk", "volume", "info", f"{pool}/nothing", check=False)
    assert missing.rc == 2
    assert "Error ENOENT: not_found: " in missing.err


def test_dry_run_shows_the_steps_and_changes_nothing(cluster: Cluster, vdisk: Vdisk, pool: str, pool_ns: str) -> None:
    volume = vdisk("volume create", pool_spec=pool, name="pvc", size="4M")
    shot = vdisk("snap create", image_spec=image_spec(volume), snap_name="shot")
    vdisk.sealed(shot["handle"])
    creation = ["reserve-name", "write-entry"]
    done = ["store-image-id", "answer"]
    runs: list[tuple[str, dict[str, Any], list[str]]] = [
        ("volume create", {"pool_spec": pool_ns, "name": "new", "size": "4M"}, [*creation, "create-image", *done]),
        ("volume create", {"pool_spec": pool, "name": "pvc", "size": "4M"}, ["answer"]),
        ("volume restore", {"snapshot": shot["handle"], "name": "new"}, [*creation, "clone-image", *done]),
        (
            "volume restore",
            {"snapshot": shot["handle"], "name": "new", "pool_spec": pool_ns, "size": "8M"},
            [*creation, "clone-image", "grow-image", *done],
        ),
        (
            "volume clone",
            {"volume": volume["handle"], "name": "new"},
            [*creation, "cut-snapshot", "clone-image", "store-image-id", "drop-snapshot", "answer"],
        ),
        (
            "snap create",
            {"image_spec": image_spec(volume), "snap_name": "new"},
            [*creation, "cut-snapshot", "clone-image", "store-image-id", "drop-snapshot", "answer", "seal"],
        ),
        ("volume resize", {"volume": volume["handle"], "size": "8M"}, ["grow-image", "answer"]),
        (
            "volume rm",
            {"volume": volume["handle"]},
            ["trash-image", "remove-entry", "release-name", "answer", "await-children", "queue-removal"],
        ),
        (
            "snap rm",
            {"snapshot": shot["handle"]},
            [
                *("trash-image", "remove-entry", "release-name", "answer"),
                *("drop-snapshot", "await-children", "queue-removal"),
            ],
        ),
    ]
    vdisk.drained(pool)
    operations = vdisk.operations(pool)
    with unchanged(cluster):
        for words, args, steps in runs:
            answer = vdisk(words, **args, dry_run=True)
            assert [step["step"] for step in answer["steps"]] == steps, words
            assert all(step["description"] for step in answer["steps"])
            assert (answer["dry_run"], answer["kind"]) == (True, words)
            assert vdisk.raw(words, **args, dry_run=True)[0] == 0
        assert vdisk.refused("volume rm", volume=f"{pool}/nothing", dry_run=True).code == "not_found"
        assert vdisk.refused("volume resize", volume=volume["handle"], size="1M", dry_run=True).code == "out_of_range"
        differs = vdisk.refused("volume create", pool_spec=pool, name="pvc", size="1M", dry_run=True)
        assert differs.code == "already_exists"
    assert vdisk.operations(pool) == operations
    assert vdisk.operations(pool_ns) == []
    changing = {"volume create", "volume restore", "volume clone", "volume resize", "volume rm", "snap create"}
    assert {words for words, _, _ in runs} == {*changing, "snap rm"}


def test_wait_0_answers_at_once_and_the_work_gets_done(cluster: Cluster, vdisk: Vdisk, pool: str) -> None:
    answer = vdisk("volume create", pool_spec=pool, name="pvc", size="4M", wait=0)
    assert list(answer) == [*VOLUME_FIELDS, *(["operation"] if answer["state"] == "pending" else [])]
    assert answer["state"] in ("pending", "ready")
    volume = vdisk("volume create", pool_spec=pool, name="pvc", size="4M")
    assert (volume["uuid"], volume["handle"], volume["state"]) == (answer["uuid"], answer["handle"], "ready")
    answer = vdisk("snap create", image_spec=image_spec(volume), snap_name="shot", wait=0)
    assert list(answer) == [*SNAPSHOT_FIELDS, *(["operation"] if answer["state"] == "pending" else [])]
    if answer["state"] == "pending":
        (polled,) = vdisk("op ls", ids=answer["operation"])
        assert [*OPERATION_FIELDS, "answered", "handle", "image"] == list(polled)
        assert (polled["handle"], polled["image"]) == (answer["handle"], answer["image"])
    assert answer["ready_to_use"] is (answer["state"] == "ready")
    assert answer["source"] == {"image": volume["image"], "handle": volume["handle"]}
    shot = vdisk("snap create", image_spec=image_spec(volume), snap_name="shot")
    assert shot["uuid"] == answer["uuid"]
    answer = vdisk("volume restore", snapshot=shot["handle"], name="restored", wait=0)
    vdisk("volume clone", volume=volume["handle"], name="cloned", wait="0")
    names = [item["name"] for item in vdisk("volume ls", pool_spec=pool)]
    vdisk.drained(pool)
    names = [item["name"] for item in vdisk("volume ls", pool_spec=pool)]
    assert names == ["cloned", "pvc", "restored"]
    assert vdisk("volume info", volume=f"{pool}/restored")["uuid"] == answer["uuid"]
    removal = vdisk("volume rm", volume=f"{pool}/cloned", wait=0)
    assert removal["removed"]
    vdisk.drained(pool)
    assert vdisk.refused("volume info", volume=f"{pool}/cloned").code == "not_found"


# -- what belongs to others ------------------------------------------------------------------------------------------


def test_settings_of_the_cluster_and_of_others_stay_as_they_are(cluster: Cluster, vdisk: Vdisk, pool: str) -> None:
    def settings() -> dict[str, Any]:
        asok = cluster.layout.sockets / f"mgr.{cluster.active_mgr()}.asok"
        option = ("config", "get", "rbd_default_clone_format")
        return {
            "clients": cluster.mon("osd dump")["require_min_compat_client"],
            "config": cluster.mon("config dump"),
            "pool": cluster.rbd_json("config", "pool", "ls", pool),
            "mgr": json.loads(cluster.ceph("--admin-daemon", str(asok), *option).out),
        }

    before = settings()
    volume = vdisk("volume create", pool_spec=pool, name="pvc", size="4M")
    shot = vdisk("snap create", image_spec=image_spec(volume), snap_name="shot")
    vdisk("volume restore", snapshot=shot["handle"], name="restored")
    vdisk("volume rm", volume=volume["handle"])
    assert settings() == before
    # Other clients still make clones of the cluster's default format: format 1 wants a protected parent.
    cluster.rbd("create", f"{pool}/theirs", "--size", "4M")
    cluster.rbd("snap", "create", f"{pool}/theirs@s")
    refused = cluster.rbd("clone", f"{pool}/theirs@s", f"{pool}/child", check=False)
    assert refused.rc != 0
    assert "must be protected" in refused.err
    cluster.rbd("snap", "protect", f"{pool}/theirs@s")
    cluster.rbd("clone", f"{pool}/theirs@s", f"{pool}/child")
    assert "clone-child" not in cluster.rbd_json("info", f"{pool}/child")["op_features"]


def test_a_pool_prepared_for_rbd_after_vdisk_saw_it_works(cluster: Cluster, vdisk: Vdisk) -> None:
    cluster.create_pool("late", rbd_init=False)
    try:
        assert vdisk.refused("volume ls", pool_spec="late").code == "invalid_argument"
        cluster.mon("osd pool application enable", pool="late", app="rbd")
        assert vdisk("volume ls", pool_spec="late") == []
    finally:
        cluster.delete_pool("late")


def test_a_pool_made_anew_under_its_name_is_the_new_one(cluster: Cluster, vdisk: Vdisk) -> None:
    for _ in range(2):
        cluster.create_pool("anew")
        try:
            assert vdisk("volume ls", pool_spec="anew") == []
            made = vdisk.until("volume create", pool_spec="anew", name="pvc", size="4M")
            assert made["handle"].split("-")[7] == f"{pool_id(cluster, 'anew'):08x}"
        finally:
            cluster.delete_pool("anew")
            # Or this process would take the next one for the old one.
            cluster.connect().wait_for_latest_osdmap()

        def gone() -> bool:
            ret, _, status = vdisk.raw("volume ls", pool_spec="anew", format="json")
            return ret != 0 and status.startswith("not_found: ")

        # An OSD serves a pool until it hears that it was deleted.
        wait_for(gone, 10, "the pool is not found")
