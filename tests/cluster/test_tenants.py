"""Tenants: a key that may work in one pool works there fully, and neither changes nor learns anything elsewhere."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import rbd

from cluster.support import GIB, Vdisk, image_spec, opened, pool_id, read_image, unchanged, write_image
from harness.cluster import Cluster

NOWHERE = "768a1126-f064-11ec-9a2d-36614e068d81"


@dataclass
class Tenants:
    """Pool `a` is the tenant's, `b` somebody else's, with a volume `secret-pvc` and a snapshot `secret-shot`."""

    cluster: Cluster
    admin: Vdisk
    mine: Vdisk
    a: str
    b: str
    volume: dict[str, Any]
    secret: dict[str, Any]
    shot: dict[str, Any]

    def told(self, text: str) -> list[str]:
        """Return what of the other tenant's names an answer gives away."""
        secrets = [self.secret["uuid"], self.shot["uuid"], self.secret["image_id"], "secret-pvc", "secret-shot"]
        return [secret for secret in secrets if secret in text]


@pytest.fixture
def tenants(cluster: Cluster, pool: str, pool_ns: str) -> Iterator[Tenants]:
    """A tenant with a key for one pool, beside another pool with a namespace."""
    a, b = pool, pool_ns.partition("/")[0]
    cluster.auth("client.tenant", mon="allow r", mgr=f"allow module vdisk with pool={a} rw")
    admin = Vdisk(cluster)
    mine = Vdisk(cluster, "client.tenant")
    volume = mine("volume create", pool_spec=a, name="pvc", size="4M")
    secret = admin("volume create", pool_spec=b, name="secret-pvc", size="4M")
    write_image(cluster, b, secret["image"], b"secret")
    admin("snap create", image_spec=image_spec(secret), snap_name="secret-shot")
    shot = admin.sealed(f"{b}/secret-shot")
    yield Tenants(cluster, admin, mine, a, b, volume, secret, shot)
    cluster.mon("auth rm", entity="client.tenant")
    # The next test's key of this name is another one.
    cluster._handles.pop("client.tenant").shutdown()


def test_everything_works_in_the_tenants_pool(tenants: Tenants) -> None:
    mine, a = tenants.mine, tenants.a
    write_image(tenants.cluster, a, tenants.volume["image"], b"mine")
    shot = mine("snap create", image_spec=image_spec(tenants.volume), snap_name="shot")
    restored = mine("volume restore", snapshot=shot["handle"], name="restored")
    assert read_image(tenants.cluster, a, restored["image"], 4) == b"mine"
    cloned = mine("volume clone", volume=f"{a}/pvc", name="cloned", pool_spec=a, size="8M")
    assert mine("volume resize", volume=cloned["handle"], size="9M")["size"] == 9 << 20
    assert [item["name"] for item in mine("volume ls", pool_spec=a)] == ["cloned", "pvc", "restored"]
    assert [item["name"] for item in mine("snap ls", pool_spec=a)] == ["shot"]
    assert [item["name"] for item in mine("snap ls", image_spec=image_spec(tenants.volume))] == ["shot"]
    assert [parent["pool"] for parent in mine("volume info", volume=restored["handle"])["parents"]] == [a, a]
    assert mine("snap info", snapshot=f"{a}/shot")["uuid"] == shot["uuid"]
    operations = mine("op ls")
    assert {op["target"].partition("/")[0] for op in operations} == {a}
    assert mine("op info", id=operations[0]["id"])["id"] == operations[0]["id"]
    assert tenants.told(json.dumps(mine("status"))) == []
    # Through the CLI too, with nothing but this key.
    typed = tenants.cluster.ceph("vdisk", "volume", "ls", a, "--format", "json", entity="client.tenant").out
    assert len(json.loads(typed)) == 3
    for thing in (cloned, restored, tenants.volume):
        mine("volume rm", volume=thing["handle"])
    mine("snap rm", snapshot=shot["handle"])
    tenants.admin.drained(a)


def test_another_pool_can_neither_be_seen_nor_changed(tenants: Tenants) -> None:
    mine, b = tenants.mine, tenants.b
    secret, shot, volume = tenants.secret, tenants.shot, tenants.volume
    snapshot = mine("snap create", image_spec=image_spec(volume), snap_name="shot")
    tenants.admin.sealed(snapshot["handle"])
    attempts: list[tuple[str, dict[str, Any]]] = [
        ("volume create", {"pool_spec": b, "name": "new", "size": "4M"}),
        ("volume create", {"pool_spec": b, "name": "secret-pvc", "size": "4M"}),
        ("volume create", {"pool_spec": f"{b}/ns1", "name": "new", "size": "4M"}),
        ("volume create", {"pool_spec": tenants.a, "name": "new", "size": "4M", "data_pool": b}),
        ("volume ls", {"pool_spec": b}),
        ("volume ls", {"pool_spec": f"{b}/ns1"}),
        ("snap ls", {"pool_spec": b}),
        ("snap ls", {"image_spec": image_spec(secret)}),
        ("snap ls", {"pool_spec": f"{b}/ns1"}),
        ("snap ls", {"pool_spec": f"{b}/{secret['image']}"}),
        *(
            (words, {"volume": ref, **more})
            for ref in (f"{b}/secret-pvc", image_spec(secret), secret["handle"])
            for words, more in (
                ("volume info", {}),
                ("volume resize", {"size": "8M"}),
                ("volume rm", {}),
                ("volume clone", {"name": "new"}),
                ("volume clone", {"name": "new", "pool_spec": tenants.a}),
            )
        ),
        *(
            (words, {**source, "name": "new", "data_pool": b})
            for words, source in (
                ("volume clone", {"volume": volume["handle"]}),
                ("volume restore", {"snapshot": snapshot["handle"]}),
            )
        ),
        *(
            (words, {"snapshot": ref, **more})
            for ref in (f"{b}/secret-shot", f"{image_spec(secret)}@secret-shot", shot["handle"])
            for words, more in (
                ("snap info", {}),
                ("snap rm", {}),
                ("volume restore", {"name": "new"}),
                ("volume restore", {"name": "new", "pool_spec": tenants.a}),
            )
        ),
        ("snap create", {"image_spec": image_spec(secret), "snap_name": "new"}),
        ("group snap create", {"name": "new", "volumes": secret["handle"]}),
        ("group snap create", {"name": "new", "volumes": f"{volume['handle']},{b}/secret-pvc"}),
        ("group snap ls", {"pool_spec": b}),
        ("group snap info", {"group": f"{b}/any"}),
        ("group snap info", {"group": secret["handle"]}),
        ("group snap rm", {"group": f"{b}/any"}),
        ("group snap rm", {"group": secret["handle"]}),
        ("volume restore", {"snapshot": snapshot["handle"], "name": "new", "pool_spec": b}),
        ("volume clone", {"volume": volume["handle"], "name": "new", "pool_spec": f"{b}/ns1"}),
    ]
    with unchanged(tenants.cluster):
        for words, args in attempts:
            for more in ({}, {"dry_run": True}) if words.split()[-1] not in ("ls", "info") else ({},):
                refusal = mine.refused(words, **args, **more)
                assert refusal.code == "denied", (words, args, refusal)
                asked = json.dumps(args)
                given_away = [each for each in tenants.told(refusal.message) if each not in asked]
                assert given_away == [], (words, args, refusal)


def test_what_exists_and_what_does_not_get_the_same_answer(tenants: Tenants) -> None:
    mine, b = tenants.mine, tenants.b
    number = pool_id(tenants.cluster, b)
    handles = [tenants.secret["handle"], tenants.shot["handle"]]
    handles.append(f"0101-24-{tenants.cluster.fsid}-{number:08x}-{NOWHERE}")
    handles.append(f"0001-0024-{tenants.cluster.fsid}-{number:016x}-{tenants.secret['uuid']}")
    for words, argument in (
        ("volume info", "volume"),
        ("volume rm", "volume"),
        ("snap info", "snapshot"),
        ("snap rm", "snapshot"),
    ):
        answers = {mine.raw(words, **{argument: handle}, format="json") for handle in handles}
        assert len(answers) == 1, answers
        names = [f"{b}/secret-pvc", f"{b}/nothing-at", f"{b}/ns1/nothing", f"{b}/no-such-namespace/x"]
        refusals = [mine.refused(words, **{argument: name}) for name in names]
        assert {refusal.code for refusal in refusals} == {"denied"}
        assert refusals[0].message == refusals[1].message
    # The same for pools: whether one exists is not told either.
    denied = [mine.refused("volume ls", pool_spec=name) for name in (b, "no-such-pool")]
    assert {refusal.code for refusal in denied} == {"denied"}
    assert len({re.sub(r"'[^']*'", "", refusal.message) for refusal in denied}) == 1


def test_operations_of_others_are_hidden(tenants: Tenants) -> None:
    theirs = [op for op in tenants.admin("op ls") if op["target"].startswith(tenants.b + "/")]
    assert len(theirs) == 2
    seen = tenants.mine("op ls")
    assert seen
    assert all(op["target"].startswith(tenants.a + "/") for op in seen)
    assert tenants.told(json.dumps(seen)) == []
    hidden = tenants.mine.refused("op info", id=theirs[0]["id"])
    assert hidden.code in ("denied", "not_found")
    assert tenants.told(hidden.message) == []


def test_parents_in_another_pool_are_masked(tenants: Tenants) -> None:
    admin, mine, a = tenants.admin, tenants.mine, tenants.a
    for made in (
        admin("volume restore", snapshot=tenants.shot["handle"], name="from-snapshot", pool_spec=a),
        admin("volume clone", volume=tenants.secret["handle"], name="from-volume", pool_spec=a),
    ):
        # The tenant may use what was given to it, and learns nothing of where it came from.
        for answer in (mine("volume info", volume=made["handle"]), *mine("volume ls", pool_spec=a)):
            assert tenants.told(json.dumps(answer)) == [], answer
            assert tenants.b not in json.dumps(answer)
        info = mine("volume info", volume=made["handle"])
        assert all(parent["pool"] is None for parent in info["parents"])
        assert info["depth"] == len(info["parents"])
        seen = admin("volume info", volume=made["handle"])
        assert {parent["pool"] for parent in seen["parents"]} == {tenants.b}
        assert mine("volume rm", volume=made["handle"])["removed"] == made["handle"]
    admin.drained(a)


def test_what_a_removal_waits_for_in_another_pool_is_masked(tenants: Tenants) -> None:
    admin, mine, a, b = tenants.admin, tenants.mine, tenants.a, tenants.b
    made = admin("volume clone", volume=tenants.volume["handle"], name="given-away", pool_spec=b)
    answer = mine("volume rm", volume=tenants.volume["handle"])
    details = mine("op info", id=answer["operation"])
    assert made["image"] not in json.dumps(details)
    assert b not in json.dumps(details["waiting_for"])
    admin("volume rm", volume=made["handle"])
    admin.drained(a)


def test_key_of_one_namespace(cluster: Cluster, pool_ns: str) -> None:
    pool = pool_ns.partition("/")[0]
    cluster.auth("client.ns", mon="allow r", mgr=f"allow module vdisk with pool={pool} namespace=ns1 rw")
    admin, mine = Vdisk(cluster), Vdisk(cluster, "client.ns")
    with opened(cluster, pool) as ioctx:
        rbd.RBD().namespace_create(ioctx, "ns2")
    volume = mine("volume create", pool_spec=pool_ns, name="pvc", size="4M")
    shot = mine("snap create", image_spec=image_spec(volume), snap_name="shot")
    assert mine("volume info", volume=volume["handle"])["uuid"] == volume["uuid"]
    restored = mine("volume restore", snapshot=shot["handle"], name="restored")
    mine.sealed(shot["handle"])
    assert len(mine("snap ls", pool_spec=pool_ns)) == 1
    assert len(mine("snap ls", image_spec=image_spec(volume))) == 1
    assert {op["target"] for op in mine("op ls")} == {f"{pool_ns}/{name}" for name in ("pvc", "shot", "restored")}
    for spec in (pool, f"{pool}/ns2"):
        secret = admin("volume create", pool_spec=spec, name="secret", size="4M")
        admin("snap create", image_spec=image_spec(secret), snap_name="secret")
        admin.sealed(f"{spec}/secret")
        with unchanged(cluster):
            attempts = [
                mine.refused("volume ls", pool_spec=spec),
                mine.refused("volume create", pool_spec=spec, name="new", size="4M"),
                mine.refused("volume info", volume=f"{spec}/secret"),
                mine.refused("volume info", volume=secret["handle"]),
                mine.refused("volume rm", volume=secret["handle"]),
                mine.refused("volume clone", volume=volume["handle"], name="new", pool_spec=spec),
                mine.refused("volume clone", volume=secret["handle"], name="new", pool_spec=pool_ns),
                mine.refused("snap create", image_spec=image_spec(secret), snap_name="new"),
            ]
            assert [each.code for each in attempts] == ["denied"] * len(attempts), attempts
    missing = f"0101-24-{cluster.fsid}-{pool_id(cluster, pool):08x}-{NOWHERE}"
    assert mine.raw("volume info", volume=secret["handle"]) == mine.raw("volume info", volume=missing)
    for thing in (volume, restored):
        mine("volume rm", volume=thing["handle"])
    mine("snap rm", snapshot=shot["handle"])
    admin.drained(pool_ns)


def test_key_that_may_only_read(tenants: Tenants) -> None:
    cluster, a = tenants.cluster, tenants.a
    cluster.auth("client.reader", mon="allow r", mgr=f"allow module vdisk with pool={a} r")
    reader = Vdisk(cluster, "client.reader")
    assert [item["name"] for item in reader("volume ls", pool_spec=a)] == ["pvc"]
    assert reader("volume info", volume=tenants.volume["handle"])["name"] == "pvc"
    assert reader("op ls")
    assert reader("status")
    with unchanged(cluster):
        for words, args in (
            ("volume create", {"pool_spec": a, "name": "new", "size": GIB}),
            ("volume rm", {"volume": tenants.volume["handle"]}),
            ("volume resize", {"volume": tenants.volume["handle"], "size": "8M"}),
            ("volume clone", {"volume": tenants.volume["handle"], "name": "new"}),
            ("snap create", {"image_spec": image_spec(tenants.volume), "snap_name": "new"}),
            ("snap rm", {"snapshot": f"{a}/shot"}),
            ("volume restore", {"snapshot": f"{a}/shot", "name": "new"}),
        ):
            for more in ({}, {"dry_run": True}):
                ret, out, status = reader.raw(words, **args, **more)
                assert ret == -13, (words, ret, out, status)
                assert "Traceback" not in status
    assert reader.refused("volume ls", pool_spec=tenants.b).code == "denied"


def test_key_without_caps_for_vdisk(tenants: Tenants) -> None:
    cluster = tenants.cluster
    cluster.auth("client.stranger", mon="allow r", mgr="allow module rbd_support rw")
    stranger = Vdisk(cluster, "client.stranger")
    for words, args in (("volume ls", {"pool_spec": tenants.a}), ("status", {}), ("op ls", {})):
        ret, out, status = stranger.raw(words, **args)
        assert (ret, tenants.told(out + status)) == (-13, [])
