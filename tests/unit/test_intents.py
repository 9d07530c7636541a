"""Intents of other versions: what is on disk stays readable, and what can't be read holds its own and harms nobody.

`intents-1.json` has the request of each kind of operation in format 1, with every field, and which of them are left out
when they have their default. It is never changed; a kind or field that is new is added.
"""

import json
from pathlib import Path

import pytest

from fake.drive import GIB, uuid_of
from vdisk.engine.operation import INTENT_VERSION, State, operation_from_intent
from vdisk.engine.unreadable import unreadable_intent
from vdisk.lifecycle.base import image_lock, name_lock
from vdisk.lifecycle.registry import REQUESTS, request_to_dict
from vdisk.lifecycle.volume_create import CreateVolume
from vdisk.model.layout import Layout
from vdisk.model.names import Kind
from vdisk.model.version import VERSION
from vdisk_install import __version__

GOLDEN = json.loads((Path(__file__).parent / "intents-1.json").read_text())


def intent(request, kind, **more):
    """Return the text of an intent with what the first version wrote."""
    data = {"v": 1, "kind": kind, "request": request, "started_at": 1655723953.25, "abort": None}
    return json.dumps({**data, **more})


def test_the_module_has_the_version_of_the_distribution():
    assert __version__ == VERSION


def test_every_kind_of_operation_has_its_example():
    assert sorted(GOLDEN) == sorted(REQUESTS), "add the new kind to intents-1.json"
    assert INTENT_VERSION == 1


@pytest.mark.parametrize("kind", GOLDEN)
def test_an_intent_of_the_first_version_is_read_and_one_of_today_leaves_out_what_has_its_default(kind):
    full, left_out = GOLDEN[kind]["request"], GOLDEN[kind]["left_out"]
    operation = operation_from_intent("op-1", intent(full, kind))
    assert json.loads(json.dumps(request_to_dict(operation.request))) == full, "a field or a default has changed"
    written = json.loads(operation.to_intent())
    assert sorted(set(full) - set(written["request"])) == left_out
    assert operation_from_intent("op-1", operation.to_intent()).request == operation.request
    assert all(lock.key in written["locks"] for lock in operation.request.locks())


def test_what_a_later_version_wrote_beside_the_request_stays():
    kind = "volume rm"
    text = intent(GOLDEN[kind]["request"], kind, priority="low", locks={})
    assert json.loads(operation_from_intent("op-1", text).to_intent())["priority"] == "low"


def test_a_value_that_only_a_later_version_knows_makes_an_intent_unreadable_not_the_others():
    request = {**GOLDEN["check repair"]["request"], "subject": "galaxy"}
    with pytest.raises(ValueError, match="galaxy"):
        operation_from_intent("op-1", intent(request, "check repair"))


LATER = {
    "v": 1,
    "kind": "volume fold",
    "request": {
        "where": {"pool_id": 1, "pool": "rbd"},
        "name": "pvc-1",
        "uuid": uuid_of(1),
        "parts": [{"image_id": "1a2b"}],
    },
    "started_at": 1655723953.25,
    "answered": False,
    "abort": None,
}


def later(fake):
    """Return the intent of a kind that this version does not know, which holds the name pvc-1 and its image."""
    where = fake.where()
    locks = [name_lock(where, Kind.VOLUME, "pvc-1"), image_lock(where, Kind.VOLUME.image(uuid_of(1)), shared=True)]
    return json.dumps({**LATER, "locks": {lock.key: "shared" if lock.shared else "exclusive" for lock in locks}})


def test_what_can_be_told_of_an_unreadable_intent_is_told(fake):
    found = unreadable_intent(fake.where(), "op-1", later(fake), "unknown kind")
    shown = found.to_dict(details=True)
    assert (shown["kind"], shown["target"], shown["state"]) == ("volume fold", "rbd/pvc-1", "unreadable")
    assert shown["started_at"] == "2022-06-20T11:19:13.250Z"
    assert shown["request"]["parts"] == [{"image_id": "1a2b"}]
    assert shown["error"]["code"] == "unsupported"
    assert {"pvc-1", uuid_of(1), "1a2b"} <= found.words
    assert sorted(lock.shared for lock in found.locks) == [False, True]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "7", '{"request": 3, "locks": [1], "started_at": "x"}', '{"kind": 5, "request": {"name": {}}}'],
)
def test_whatever_an_intent_holds_nothing_is_raised(fake, text):
    found = unreadable_intent(fake.where(), "op-1", text, "damaged")
    assert found.to_dict(details=True)["target"] == "rbd"
    assert found.locks == ()


def test_nothing_comes_between_an_unreadable_operation_and_what_it_holds(fake, mgr):
    where = fake.where()
    fake.put_intent(where, "op-later", later(fake))
    same = mgr.engine.submit(CreateVolume(where, "pvc-1", uuid_of(3), GIB, Layout()))
    other = mgr.engine.submit(CreateVolume(where, "pvc-2", uuid_of(2), GIB, Layout()))
    mgr.ended(other)
    assert other.error is None
    assert (same.state, same.waiting_for) == (
        State.QUEUED,
        ["operation op-later, which another version of vdisk began"],
    )
    assert not same.durable, "nothing was begun"
    mgr.engine.cancel(same.id)
    assert same.state is State.FAILED
    assert fake.space(where).intents == {"op-later": later(fake)}


def test_what_was_begun_before_an_unreadable_operation_goes_on(fake, start):
    where = fake.where()
    first = json.loads(later(fake))
    earlier = operation_from_intent(
        "op-earlier",
        intent({**GOLDEN["volume create"]["request"], "where": {"pool_id": where.pool_id, "pool": where.pool},
                "name": "pvc-1", "uuid": uuid_of(1)}, "volume create"),
    )  # fmt: skip
    fake.put_intent(where, "op-earlier", earlier.to_intent())
    fake.put_intent(where, "op-later", json.dumps({**first, "started_at": 1655723954.0}))
    mgr = start()
    mgr.engine.recover()
    mgr.until(lambda: list(fake.space(where).intents) == ["op-later"], "the earlier one is carried out")
