"""Undelete: kept, listed, brought back with handle and seal, purged by age, count and usage, expired by itself."""

import errno
import logging
import threading

import pytest

from fake.drive import GIB, a_snapshot, a_volume, do, uuid_of
from fake.engines import PATIENCE
from fake.inventory import faults, inventory
from vdisk.commands.access import Access
from vdisk.commands.handlers import Handlers
from vdisk.engine.health import HealthBoard
from vdisk.lifecycle.volume_create import CreateVolume
from vdisk.model.errors import VdiskError
from vdisk.model.layout import Layout
from vdisk.model.names import Kind
from vdisk.model.records import Kept, Store, kept_from_text, mark_from_text
from vdisk.service.checks import Wish
from vdisk.service.housekeeping import Housekeeper, Settings

DAY = 86400.0


@pytest.fixture
def desk(mgr):
    """The commands of an administrator, and what an option gives --keep-for."""
    return Desk(mgr)


class Desk:
    def __init__(self, mgr):
        self.keep = ""
        self.mgr = mgr
        access = Access(mgr.service, lambda args: args.get("pool") != "other")
        self.handlers = Handlers(mgr.services, access, lambda: PATIENCE, lambda option: self.keep)

    def __call__(self, handler, **args):
        every = ("limit", "marker", "new_name", "keep_for", "older_than", "keep_last", "threshold", "wait", "dry_run")
        return getattr(self.handlers, handler)({**dict.fromkeys(every), **args})


def kept_volume(fake, desk, number=1, name="pvc-1", spec="rbd", **args):
    volume = a_volume(fake, number, name, spec)
    return volume, desk("volume_rm", volume=f"{spec}/{name}", keep_for="7d", **args)


@pytest.mark.parametrize("spec", ["rbd", "rbd/ns1"])
@pytest.mark.parametrize("by", ["handle", "operation", "image id"])
def test_a_volume_comes_back_with_its_handle(fake, mgr, desk, spec, by):
    volume = a_volume(fake, 1, "pvc-1", spec)
    fake.write_entry(volume.where, Kind.VOLUME, volume.uuid, {"csi.volume.owner": "tenant"})
    before, handle = inventory(fake), mgr.service.handle(volume.where, volume.uuid)
    removed = desk("volume_rm", volume=f"{spec}/pvc-1", keep_for="7d")
    assert fake.lookup(volume.where, Kind.VOLUME, "pvc-1") is None
    assert fake.tasks == []
    (row,) = desk("trash_ls", pool_spec=spec)
    assert (row["name"], row["kind"], row["handle"], row["size"]) == ("pvc-1", "volume", handle, GIB)
    assert row["expires_at"] > row["deleted_at"]
    ident = {"handle": handle, "operation": removed["operation"], "image id": f"{spec}/{row['id']}"}[by]
    back = desk("trash_restore", id=ident)
    assert (back["handle"], back["name"], back["state"]) == (handle, "pvc-1", "ready")
    assert inventory(fake) == before
    assert desk("trash_ls", pool_spec=spec) == []
    assert desk("trash_restore", id=ident) == back


def test_a_snapshot_comes_back_with_its_seal(fake, mgr, desk):
    shot = a_snapshot(fake)
    before = inventory(fake)
    desk("snap_rm", snapshot="rbd/snapshot-1", keep_for="1h")
    back = desk("trash_restore", id=mgr.service.handle(shot.where, shot.uuid))
    assert back["sealed"]
    assert inventory(fake) == before


def test_another_name_is_given_when_the_first_is_taken(fake, mgr, desk):
    volume, removed = kept_volume(fake, desk)
    do(fake, CreateVolume(volume.where, "pvc-1", uuid_of(7), GIB, Layout()))
    with pytest.raises(VdiskError) as raised:
        desk("trash_restore", id=removed["operation"])
    assert raised.value.errno == errno.EEXIST
    back = desk("trash_restore", id=removed["operation"], new_name="pvc-old")
    assert (back["name"], back["uuid"]) == ("pvc-old", volume.uuid)
    assert desk("trash_restore", id=removed["operation"], new_name="pvc-old") == back
    assert faults(fake) == []


def test_the_option_keeps_by_default_and_zero_does_not(fake, mgr, desk):
    desk.keep = "7d"
    volume = a_volume(fake)
    desk("volume_rm", volume="rbd/pvc-1")
    assert fake.record(volume.where, Store.TRASH, volume.uuid) is not None
    second = a_volume(fake, 2, "pvc-2")
    desk("volume_rm", volume="rbd/pvc-2", keep_for="0")
    assert fake.record(volume.where, Store.TRASH, second.uuid) is None


def test_a_plain_image_of_the_trash_comes_back_as_an_image(fake, mgr, desk):
    where = fake.where()
    fake.create_image(where, "plain", GIB, Layout())
    fake.trash(where, "plain")
    (row,) = desk("trash_ls", pool_spec="rbd")
    assert (row["name"], row["kind"], row["image"], row["handle"]) == (None, "image", "plain", None)
    answer = desk("trash_restore", id=f"rbd/{row['id']}", new_name="again")
    assert answer["restored"] == "again"
    assert fake.find(where, "again") is not None


def test_what_is_removed_for_good_is_not_brought_back(fake, mgr, desk):
    volume = a_volume(fake)
    fake.cut(volume.where, volume.image, "t")
    fake.clone_image(volume.where, volume.image, "t", volume.where, "child", Layout())
    fake.drop(volume.where, fake.find(volume.where, volume.image).id, "t")
    desk("volume_rm", volume="rbd/pvc-1")
    (row,) = desk("trash_ls", pool_spec="rbd")
    assert row["removal"] is not None
    with pytest.raises(VdiskError, match="being removed for good") as raised:
        desk("trash_restore", id=f"rbd/{row['id']}")
    assert raised.value.errno == errno.EBUSY


def purged(fake, desk, **bounds):
    names = [row["name"] for row in desk("trash_purge", pool_spec="rbd", dry_run=True, **bounds)["purged"]]
    assert [row["name"] for row in desk("trash_purge", pool_spec="rbd", **bounds)["purged"]] == names
    return names


def test_the_trash_is_listed_page_by_page(fake, mgr, desk):
    for number in range(1, 6):
        kept_volume(fake, desk, number, f"pvc-{number}")
    fake.create_image(fake.where(), "plain", GIB, Layout())
    fake.trash(fake.where(), "plain")
    rows = desk("trash_ls", pool_spec="rbd")
    assert [row["name"] for row in rows] == [None, *(f"pvc-{number}" for number in range(1, 6))]
    seen, marker = [], None
    while page := desk("trash_ls", pool_spec="rbd", limit=2, marker=marker):
        assert len(page) <= 2
        seen, marker = [*seen, *page], page[-1]["id"]
    assert seen == sorted(rows, key=lambda row: row["id"])


@pytest.mark.parametrize(
    ("bounds", "gone"),
    [
        ({}, ["v0"]),
        ({"older_than": "5d"}, ["v0", "v1", "v2"]),
        ({"keep_last": 1}, ["v0", "v1", "v2", "v3"]),
        ({"keep_last": 2, "older_than": "7d"}, ["v0", "v1"]),
        ({"threshold": 0.5}, ["v0", "v1"]),
        ({"threshold": 0.9}, []),
    ],
)
def test_purge_by_age_count_and_usage(fake, mgr, desk, bounds, gone):
    where = fake.where()
    for number in range(5):
        volume = a_volume(fake, number + 1, f"v{number}")
        image = fake.find(where, volume.image)
        values = dict(fake.entry(where, Kind.VOLUME, volume.uuid).values)
        deleted = fake.now - (9 - 2 * number) * DAY
        expires = fake.now - 1 if number == 0 else fake.now + DAY
        kept = Kept(Kind.VOLUME, volume.uuid, volume.name, volume.image, image.id, "default", values, deleted, expires)
        fake.put_records(where, Store.TRASH, {volume.uuid: kept.to_text()})
        fake.trash(where, volume.image, 1000)
        fake.remove_entry(where, Kind.VOLUME, volume.uuid)
        fake.release(where, Kind.VOLUME, volume.name, volume.uuid)
        fake.space(where).headers[image.id].used = 10
    fake.usage = (60, 40)
    assert purged(fake, desk, **bounds) == gone
    mgr.quiet()
    fake.run_tasks()
    assert [row["name"] for row in desk("trash_ls", pool_spec="rbd")] == [
        f"v{n}" for n in range(5) if f"v{n}" not in gone
    ]
    assert faults(fake) == []


def test_what_has_expired_goes_by_itself(fake, mgr, desk):
    volume, _ = kept_volume(fake, desk)
    clock = [fake.now]
    mgr.trash._clock = lambda: clock[0]
    keeper = Housekeeper(
        mgr.session,
        mgr.readers,
        mgr.services,
        Settings(lambda: 1.0, lambda: 0.0),
        HealthBoard(lambda checks: None),
        logging.getLogger("x"),
        lambda: clock[0],
    )
    keeper.round()
    mgr.until(lambda: not keeper._under_way)
    assert len(desk("trash_ls", pool_spec="rbd")) == 1
    clock[0] = fake.now = kept_from_text(fake.record(volume.where, Store.TRASH, volume.uuid)).expires_at + 1
    keeper.round()
    mgr.until(lambda: fake.record(volume.where, Store.TRASH, volume.uuid) is None)
    mgr.quiet()
    assert desk("trash_ls", pool_spec="rbd") == []
    assert faults(fake) == []


@pytest.mark.parametrize("how", ["by vdisk", "by hand"])
def test_what_was_brought_back_before_its_removal_began_stays(fake, mgr, desk, how):
    volume, removed = kept_volume(fake, desk)
    (request,) = mgr.trash.purge(volume.where, None, 0, None)
    if how == "by vdisk":
        desk("trash_restore", id=removed["operation"])
    else:
        fake.restore_image(volume.where, request.image_id, volume.image)
    before = inventory(fake)
    operation, _ = mgr.service.run(request, PATIENCE)
    mgr.ended(operation)
    assert inventory(fake) == before
    assert fake.find(volume.where, volume.image) is not None
    again = (
        mgr.service.remove(mgr.service.find_uuid(1, "rbd", Kind.VOLUME, volume.uuid, [""]))
        if how == "by vdisk"
        else None
    )
    assert again is None or not again.same(request)


def test_a_check_runs_by_itself_when_it_is_due(fake, mgr):
    keeper = Housekeeper(
        mgr.session,
        mgr.readers,
        mgr.services,
        Settings(lambda: 1.0, lambda: DAY),
        HealthBoard(lambda checks: None),
        logging.getLogger("x"),
        lambda: fake.now,
    )
    keeper.round()
    mgr.until(lambda: mgr.checks.last(fake.where()) is not None)
    first = mgr.checks.last(fake.where())
    keeper.round()
    mgr.until(lambda: not keeper._under_way)
    assert mgr.checks.last(fake.where()) == first
    fake.now += DAY + 1
    keeper.round()
    mgr.until(lambda: mgr.checks.last(fake.where()) != first)
    stop = threading.Event()
    stop.set()
    keeper.run(stop)


def test_what_is_kept_is_no_finding(fake, mgr, desk):
    kept_volume(fake, desk)
    mgr.quiet()
    assert mgr.checks.check(fake.where(), Wish(), PATIENCE)["findings"] == []


@pytest.mark.parametrize(
    ("handler", "args", "number"),
    [
        ("volume_rm", {"volume": "rbd/pvc-1", "keep_for": "soon"}, errno.EINVAL),
        ("trash_restore", {"id": "nonsense"}, errno.EINVAL),
        ("trash_restore", {"id": "rbd/No Id"}, errno.EINVAL),
        ("trash_restore", {"id": "rbd/10bad"}, errno.ENOENT),
        ("trash_restore", {"id": uuid_of(99)}, errno.ENOENT),
        ("trash_restore", {"id": f"0101-01-x-00000001-{uuid_of(99)}"}, errno.ENOENT),
        ("trash_ls", {"pool_spec": "other"}, errno.EACCES),
        ("trash_purge", {"pool_spec": "rbd", "threshold": 1.5}, errno.EINVAL),
        ("trash_purge", {"pool_spec": "rbd", "keep_last": -1}, errno.EINVAL),
        ("trash_purge", {"pool_spec": "rbd", "older_than": "x"}, errno.EINVAL),
    ],
)
def test_bad_input_is_refused(fake, mgr, desk, handler, args, number):
    a_volume(fake)
    before = inventory(fake)
    with pytest.raises(VdiskError) as raised:
        desk(handler, **args)
    assert raised.value.errno == number
    assert inventory(fake) == before


@pytest.mark.parametrize("text", [None, "", "no json", "[]", '{"v": 2}', '{"v": 1, "kind": "volume"}'])
def test_records_that_cannot_be_read_are_none(text):
    assert kept_from_text(text) is None
    assert mark_from_text(text) is None


def test_a_record_of_another_version_is_told_of_and_kept(fake, mgr, desk):
    volume, _ = kept_volume(fake, desk)
    text = '{"v": 2}'
    fake.put_records(volume.where, Store.TRASH, {volume.uuid: text})
    with pytest.raises(VdiskError, match="written by another version") as told:
        desk("trash_restore", id=mgr.service.handle(volume.where, volume.uuid))
    assert told.value.code == "unsupported"
    assert fake.record(volume.where, Store.TRASH, volume.uuid) == text
