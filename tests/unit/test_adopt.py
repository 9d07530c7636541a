"""Adopting what exists and letting volumes go: no copy, one owner, every command works with names of one's own."""

import errno

import pytest

from fake.drive import GIB, a_snapshot, a_volume, uuid_of
from fake.engines import PATIENCE
from fake.inventory import faults, inventory
from vdisk.commands.access import Access
from vdisk.commands.handlers import Handlers
from vdisk.commands.table import COMMANDS
from vdisk.model.errors import VdiskError
from vdisk.model.layout import Layout
from vdisk.model.names import Kind
from vdisk.model.records import Store
from vdisk.service.checks import Wish


@pytest.fixture
def desk(mgr):
    handlers = Handlers(mgr.services, Access(mgr.service, lambda args: args.get("pool") != "other"), lambda: PATIENCE)
    every = [argument.name for command in COMMANDS for argument in command.all_arguments]
    return lambda handler, **args: getattr(handlers, handler)({**dict.fromkeys(every), **args})


@pytest.fixture
def plain(fake):
    fake.create_image(fake.where(), "plain", GIB, Layout())
    return fake.find(fake.where(), "plain")


def clean(mgr, fake):
    mgr.quiet()
    fake.run_tasks()
    assert mgr.checks.check(fake.where(), Wish(), PATIENCE)["findings"] == []


def test_an_image_becomes_a_volume_that_every_command_works_with(fake, mgr, desk, plain):
    volume = desk("adopt", image_spec="rbd/plain", name="pvc-1")
    assert (volume["image"], volume["image_id"], volume["state"]) == ("plain", plain.id, "ready")
    assert desk("adopt", image_spec="rbd/plain", name="pvc-1") == volume
    for ref in (volume["handle"], "rbd/pvc-1", "rbd/plain"):
        assert desk("volume_info", volume=ref)["uuid"] == volume["uuid"]
        assert desk("volume_info", volume=ref)["name"] == "pvc-1"
    assert desk("volume_resize", volume="rbd/plain", size=2 * GIB)["size"] == 2 * GIB
    shot = desk("snap_create", image_spec="rbd/plain", snap_name="shot")
    assert desk("volume_restore", snapshot=shot["handle"], name="restored")["source"]["handle"] == shot["handle"]
    assert desk("volume_clone", volume="rbd/plain", name="cloned")["state"] == "ready"
    clean(mgr, fake)
    removed = desk("volume_rm", volume="rbd/plain", keep_for="7d")
    assert desk("trash_restore", id=removed["removed"])["image"] == "plain"
    clean(mgr, fake)
    desk("volume_rm", volume="rbd/cloned")
    desk("volume_rm", volume="rbd/restored")
    desk("snap_rm", snapshot="rbd/shot")
    desk("volume_rm", volume="rbd/plain")
    mgr.until(lambda: not fake.run_tasks() and not fake.space(fake.where()).headers)
    clean(mgr, fake)
    assert fake.space(fake.where()).records[Store.IMAGES] == {}


def test_an_image_is_adopted_once_and_a_name_given_once(fake, mgr, desk, plain):
    a_volume(fake, 5, "taken")
    desk("adopt", image_spec="rbd/plain", name="pvc-1")
    before = inventory(fake)
    for image, name in (("plain", "pvc-2"), ("plain", "taken"), (Kind.VOLUME.image(uuid_of(5)), "pvc-3")):
        with pytest.raises(VdiskError) as raised:
            desk("adopt", image_spec=f"rbd/{image}", name=name)
        assert raised.value.errno == errno.EEXIST
    assert inventory(fake) == before


def test_a_released_volume_keeps_its_image_and_gets_its_handle_back(fake, mgr, desk):
    volume = a_volume(fake)
    before = desk("volume_info", volume="rbd/pvc-1")
    assert desk("release", volume="rbd/pvc-1")["released"] == before["handle"]
    assert fake.find(volume.where, volume.image) is not None
    assert desk("volume_ls", pool_spec="rbd") == []
    clean(mgr, fake)
    again = desk("adopt", image_spec=f"rbd/{volume.image}", name="pvc-9")
    assert again["handle"] == before["handle"]
    assert fake.space(volume.where).records[Store.IMAGES] == {}
    assert faults(fake) == []


def test_a_snapshot_of_an_image_becomes_a_snapshot(fake, mgr, desk, plain):
    where = fake.where()
    fake.cut(where, "plain", "v1")
    made = desk("adopt", image_spec="rbd/plain@v1", name="base")
    assert made["source"]["image"] == "plain"
    assert desk("adopt", image_spec="rbd/plain@v1", name="base")["handle"] == made["handle"]
    mgr.quiet()
    assert desk("snap_info", snapshot="rbd/plain@base")["sealed"]
    assert fake.find(where, "plain").snap("v1") is not None
    fake.cut(where, "plain", "v2")
    with pytest.raises(VdiskError) as raised:
        desk("adopt", image_spec="rbd/plain@v2", name="base")
    assert raised.value.errno == errno.EEXIST
    clean(mgr, fake)


@pytest.mark.parametrize(
    ("spec", "number"),
    [
        ("rbd/nothing", errno.ENOENT),
        ("rbd/plain@none", errno.ENOENT),
        ("rbd/plain@", errno.EINVAL),
        ("rbd", errno.EINVAL),
        ("other/plain", errno.EACCES),
    ],
)
def test_what_cannot_be_adopted_is_refused(fake, mgr, desk, plain, spec, number):
    before = inventory(fake)
    with pytest.raises(VdiskError) as raised:
        desk("adopt", image_spec=spec, name="x")
    assert raised.value.errno == number
    assert inventory(fake) == before


def test_the_image_of_a_snapshot_is_no_volume(fake, mgr, desk):
    shot = a_snapshot(fake)
    with pytest.raises(VdiskError) as raised:
        desk("adopt", image_spec=f"rbd/{shot.image}", name="x")
    assert raised.value.errno == errno.EINVAL


def test_nothing_is_released_twice(fake, mgr, desk):
    a_volume(fake)
    plan = desk("release", volume="rbd/pvc-1", dry_run=True)
    assert [step["step"] for step in plan["steps"]] == ["put-record", "remove-entry", "release-name", "answer"]
    desk("release", volume="rbd/pvc-1")
    with pytest.raises(VdiskError) as raised:
        desk("release", volume="rbd/pvc-1")
    assert raised.value.errno == errno.ENOENT
