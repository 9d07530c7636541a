"""The check: every class of trouble is found alone and in mixtures, nothing else is, and repairs leave it clean."""

import errno
import itertools
import logging
import random
from dataclasses import replace

import pytest

from fake.cluster import Crash, CrashAt
from fake.drive import GIB, Run, do, executor_on, snapshot_request, uuid_of
from fake.engines import PATIENCE, Gate
from fake.inventory import faults
from vdisk.commands.access import Access
from vdisk.commands.handlers import Handlers
from vdisk.engine.health import HealthBoard
from vdisk.lifecycle.check_look import Limits, Look
from vdisk.lifecycle.check_repair import Repair
from vdisk.lifecycle.check_trash import judge
from vdisk.lifecycle.removal import RemoveVolume
from vdisk.lifecycle.volume_clone import CloneVolume
from vdisk.lifecycle.volume_create import CreateVolume
from vdisk.model.errors import NotFound, NotReady
from vdisk.model.findings import Subject, SubjectKind, Trouble
from vdisk.model.layout import Layout
from vdisk.model.names import IMAGE_ID_KEY, IMAGE_NAME_KEY, Kind
from vdisk.model.records import Kept, Mark, Store
from vdisk.service.checks import Wish
from vdisk.service.housekeeping import Housekeeper
from vdisk.service.housekeeping import Settings as HousekeepingSettings

_numbers = itertools.count(0x100)


class Stage:
    """A pool with healthy volumes, and the means to spoil something of it."""

    def __init__(self, fake, spec="rbd"):
        self.fake, self.where = fake, fake.where(spec)
        self.space = fake.space(self.where)
        self.expected = []
        for number in range(1, 4):
            self.volume(f"healthy-{number}")
        shot = self.snapshot(self.volume("healthy-4"))
        do(fake, CloneVolume(self.where, "healthy-5", uuid_of(next(_numbers)), self.where, shot.image, None, Layout()))

    def volume(self, name=None):
        number = next(_numbers)
        return do(self.fake, CreateVolume(self.where, name or f"pvc-{number}", uuid_of(number), GIB, Layout()))

    def snapshot(self, volume, name=None):
        number = next(_numbers)
        request = snapshot_request(self.fake, volume.image, name or f"snap-{number}", number)
        return do(self.fake, replace(request, where=self.where))

    def expect(self, trouble, subject):
        self.expected.append((trouble.value, subject))

    def object(self, request):
        return self.space.objects[request.target, request.uuid]

    # -- one method a class of trouble ---------------------------------------------------------------------------

    def key_without_object(self):
        self.space.directories[Kind.VOLUME][f"pvc-lost-{next(_numbers)}"] = uuid = uuid_of(next(_numbers))
        self.expect(Trouble.KEY_WITHOUT_OBJECT, uuid)

    def key_without_object_but_image(self):
        volume = self.volume()
        del self.space.objects[Kind.VOLUME, volume.uuid]
        self.expect(Trouble.KEY_WITHOUT_OBJECT, volume.uuid)

    def object_without_key(self):
        volume = self.volume()
        del self.space.directories[Kind.VOLUME][volume.name]
        self.expect(Trouble.OBJECT_WITHOUT_KEY, volume.uuid)

    def object_without_key_whose_name_is_taken(self):
        volume = self.volume()
        del self.space.directories[Kind.VOLUME][volume.name]
        self.volume(volume.name)
        self.expect(Trouble.OBJECT_WITHOUT_KEY, volume.uuid)

    def object_without_key_and_image(self):
        uuid = uuid_of(next(_numbers))
        values = {IMAGE_NAME_KEY: Kind.SNAPSHOT.image(uuid), "csi.snapname": f"gone-{uuid}"}
        self.space.objects[Kind.SNAPSHOT, uuid] = values
        self.expect(Trouble.OBJECT_WITHOUT_KEY, uuid)

    def object_incomplete(self):
        volume = self.volume()
        del self.object(volume)["csi.volname"]
        self.expect(Trouble.OBJECT_INCOMPLETE, volume.uuid)

    def name_mismatch(self):
        volume = self.volume()
        self.object(volume)["csi.volname"] = f"other-{volume.uuid}"
        self.expect(Trouble.NAME_MISMATCH, volume.uuid)

    def duplicate_names(self):
        volume = self.volume()
        self.space.directories[Kind.VOLUME][f"again-{volume.uuid}"] = volume.uuid
        self.expect(Trouble.DUPLICATE_NAMES, volume.uuid)

    def reserved_without_image(self):
        uuid = uuid_of(next(_numbers))
        name = f"reserved-{uuid}"
        self.space.directories[Kind.VOLUME][name] = uuid
        self.space.objects[Kind.VOLUME, uuid] = {IMAGE_NAME_KEY: Kind.VOLUME.image(uuid), "csi.volname": name}
        self.expect(Trouble.RESERVED_WITHOUT_IMAGE, uuid)

    def snapshot_never_cut(self):
        uuid, source = uuid_of(next(_numbers)), self.volume()
        name = f"reserved-{uuid}"
        self.space.directories[Kind.SNAPSHOT][name] = uuid
        values = {IMAGE_NAME_KEY: Kind.SNAPSHOT.image(uuid), "csi.snapname": name, "csi.source": source.image}
        self.space.objects[Kind.SNAPSHOT, uuid] = values
        self.expect(Trouble.SNAPSHOT_NEVER_CUT, uuid)

    def snapshot_cut_but_never_cloned(self):
        self.snapshot_never_cut()
        values = self.space.objects[Kind.SNAPSHOT, self.expected[-1][1]]
        self.fake.cut(self.where, values["csi.source"], values[IMAGE_NAME_KEY])
        self.expect(Trouble.LEFTOVER_CUT, self.space.ids[values["csi.source"]])

    def image_lost(self):
        volume = self.volume()
        self.fake.remove_unfinished(self.where, volume.image, self.space.ids[volume.image])
        self.expect(Trouble.IMAGE_LOST, volume.uuid)

    def image_trashed(self):
        volume = self.volume()
        self.fake.trash(self.where, volume.image)
        self.expect(Trouble.IMAGE_TRASHED, volume.uuid)

    def image_renamed(self):
        volume = self.volume()
        image_id = self.space.ids.pop(volume.image)
        del self.space.listing[volume.image]
        self.space.ids[f"mine-{image_id}"] = self.space.listing[f"mine-{image_id}"] = image_id
        self.expect(Trouble.IMAGE_RENAMED, volume.uuid)

    def image_headless(self):
        uuid = uuid_of(next(_numbers))
        image = Kind.VOLUME.image(uuid)
        self.fake.create_image(self.where, image, GIB, Layout())
        del self.space.headers[self.space.ids[image]]
        self.expect(Trouble.IMAGE_HEADLESS, uuid)

    def image_id_missing(self):
        volume = self.volume()
        del self.object(volume)[IMAGE_ID_KEY]
        self.expect(Trouble.IMAGE_ID_MISSING, volume.uuid)

    def image_id_missing_of_a_linked_clone(self):
        shot = self.snapshot(self.volume())
        del self.object(shot)[IMAGE_ID_KEY]
        self.expect(Trouble.IMAGE_ID_MISSING, shot.uuid)

    def image_id_mismatch(self):
        volume = self.volume()
        self.object(volume)[IMAGE_ID_KEY] = "10deadbeef"
        self.expect(Trouble.IMAGE_ID_MISMATCH, volume.uuid)

    def image_without_journal(self):
        volume = self.volume()
        del self.space.objects[Kind.VOLUME, volume.uuid]
        del self.space.directories[Kind.VOLUME][volume.name]
        self.expect(Trouble.IMAGE_WITHOUT_JOURNAL, volume.uuid)

    def unsealed(self):
        shot = self.snapshot(self.volume())
        self.fake.drop(self.where, self.space.ids[shot.image], shot.image)
        self.expect(Trouble.UNSEALED, shot.uuid)

    def leftover_cut(self):
        volume = self.volume()
        self.fake.cut(self.where, volume.image, Kind.SNAPSHOT.image(uuid_of(next(_numbers))))
        self.expect(Trouble.LEFTOVER_CUT, self.space.ids[volume.image])

    def leftover_cut_with_a_linked_clone(self):
        source = self.volume()
        image, cut = self.space.ids[source.image], Kind.SNAPSHOT.image(uuid_of(next(_numbers)))
        self.fake.cut(self.where, source.image, cut)
        self.fake.clone_image(self.where, source.image, cut, self.where, f"clone-of-{image}", Layout())
        self.expect(Trouble.LEFTOVER_CUT, image)

    def leftover_temp(self):
        volume = self.volume()
        self.fake.create_image(self.where, volume.image + "-temp", GIB, Layout())
        self.expect(Trouble.LEFTOVER_TEMP, self.space.ids[volume.image + "-temp"])

    def leftover_temp_without_volume(self):
        temp = Kind.VOLUME.image(uuid_of(next(_numbers))) + "-temp"
        self.fake.create_image(self.where, temp, GIB, Layout())
        self.expect(Trouble.LEFTOVER_TEMP, self.space.ids[temp])

    def snapshot_abandoned(self):
        volume = self.volume()
        self.fake.cut(self.where, volume.image, "old")
        (snap,) = self.space.headers[self.space.ids[volume.image]].snaps
        snap.user, snap.original_name, snap.name = False, "old", "some uuid"
        self.expect(Trouble.SNAPSHOT_ABANDONED, self.space.ids[volume.image])

    def trash_orphan(self):
        volume = self.volume()
        image_id = self.space.ids[volume.image]
        self.fake.trash(self.where, volume.image)
        self.fake.remove_entry(self.where, Kind.VOLUME, volume.uuid)
        self.fake.release(self.where, Kind.VOLUME, volume.name, volume.uuid)
        self.expect(Trouble.TRASH_ORPHAN, image_id)

    def trash_move_unfinished(self):
        self.trash_orphan()
        image_id = self.expected.pop()[1]
        self.space.moving.add(image_id)
        self.expect(Trouble.TRASH_MOVE_UNFINISHED, image_id)

    def task_without_image(self):
        volume = self.volume()
        image_id = self.space.ids[volume.image]
        self.fake.trash(self.where, volume.image)
        task = self.fake.queue_removal(self.where, image_id)
        self.fake.remove_entry(self.where, Kind.VOLUME, volume.uuid)
        self.fake.release(self.where, Kind.VOLUME, volume.name, volume.uuid)
        del self.space.trash[image_id], self.space.headers[image_id]
        self.expect(Trouble.TASK_WITHOUT_IMAGE, task)

    def flatten_unfinished(self):
        source = self.volume()
        number = next(_numbers)
        clone = do(
            self.fake, CloneVolume(self.where, f"c{number}", uuid_of(number), self.where, source.image, None, Layout())
        )
        header = self.space.headers[self.space.ids[clone.image]]
        link = header.parent
        self.fake.flatten(self.where, clone.image, self.space.ids[clone.image])
        header.parent = link
        self.expect(Trouble.FLATTEN_UNFINISHED, self.space.ids[clone.image])
        return source

    def flatten_unfinished_and_parent_gone(self):
        source = self.flatten_unfinished()
        self.fake.remove_unfinished(self.where, source.image, self.space.ids[source.image])
        self.fake.remove_entry(self.where, Kind.VOLUME, source.uuid)
        self.fake.release(self.where, Kind.VOLUME, source.name, source.uuid)

    def record_without_image(self):
        uuid = uuid_of(next(_numbers))
        image = Kind.VOLUME.image(uuid)
        kept = Kept(Kind.VOLUME, uuid, "old", image, "10bad", "default", {}, 1.0, 2.0)
        self.space.records[Store.TRASH][uuid] = kept.to_text()
        self.expect(Trouble.RECORD_WITHOUT_IMAGE, uuid)

    # -- what is no trouble --------------------------------------------------------------------------------------

    def bystanders(self):
        """Make what a check must not find: others' images and trash, a released image, ceph-csi's way to clone."""
        fake, where = self.fake, self.where
        fake.create_image(where, "plain", GIB, Layout())
        fake.cut(where, "plain", "by-hand")
        fake.create_image(where, "others", GIB, Layout())
        fake.trash(where, "others")
        released = Kind.VOLUME.image(uuid_of(next(_numbers)))
        fake.create_image(where, released, GIB, Layout())
        mark = Mark("some", False).to_text()
        self.space.records[Store.IMAGES][self.space.ids[released]] = mark
        source, number = self.volume(), next(_numbers)
        made = CreateVolume(where, f"pvc-{number}", uuid_of(number), GIB, Layout())
        temp = made.image + "-temp"
        fake.cut(where, source.image, temp)
        fake.clone_image(where, source.image, temp, where, temp, Layout())
        fake.drop(where, self.space.ids[source.image], temp)
        fake.cut(where, temp, made.image)
        fake.clone_image(where, temp, made.image, where, made.image, Layout())
        fake.drop(where, self.space.ids[temp], made.image)
        self.space.directories[Kind.VOLUME][made.name] = made.uuid
        self.space.objects[Kind.VOLUME, made.uuid] = {
            IMAGE_NAME_KEY: made.image,
            "csi.volname": made.name,
            IMAGE_ID_KEY: self.space.ids[made.image],
            "csi.volume.owner": "tenant",
            "csi.journalpool": "rbd",
        }
        kept = self.volume()
        image_id = self.space.ids[kept.image]
        text = Kept(Kind.VOLUME, kept.uuid, kept.name, kept.image, image_id, "default", {}, 1.0, 2.0).to_text()
        self.space.records[Store.TRASH][kept.uuid] = text
        fake.trash(where, kept.image, 1000)
        fake.remove_entry(where, Kind.VOLUME, kept.uuid)
        fake.release(where, Kind.VOLUME, kept.name, kept.uuid)


GENERATORS = [name for name in vars(Stage) if any(name.startswith(trouble.value) for trouble in Trouble)]


def found(mgr, stage, **wish):
    result = mgr.checks.check(stage.where, Wish(**wish), PATIENCE)
    return result, sorted((item["class"], item["subject"]["key"]) for item in result["findings"])


def mend(mgr, stage):
    """Repair what can be repaired by itself, then the rest by id, until nothing is left."""
    result, _ = found(mgr, stage, repair=True)
    for item in result["findings"]:
        assert item.get("outcome") == ("repaired" if item["automatic"] else None), item
    for _ in range(3):
        result, _ = found(mgr, stage)
        if not result["findings"]:
            return
        idents = tuple(item["id"] for item in result["findings"])
        repaired, _ = found(mgr, stage, repair=True, findings=idents)
        assert all(item["outcome"] in ("repaired", "gone") for item in repaired["findings"]), repaired
    raise AssertionError(result)


@pytest.mark.parametrize("spec", ["rbd", "rbd/ns1"])
@pytest.mark.parametrize("name", GENERATORS)
def test_each_trouble_is_found_and_nothing_else_and_repaired(fake, mgr, name, spec):
    stage = Stage(fake, spec)
    stage.bystanders()
    assert found(mgr, stage)[1] == []
    getattr(stage, name)()
    assert found(mgr, stage)[1] == sorted(stage.expected)
    mend(mgr, stage)
    mgr.until(lambda: fake.run_tasks() == 0 and not mgr.engine._book.live, "the end of what the repairs began")
    assert found(mgr, stage)[1] == []


@pytest.mark.parametrize("seed", range(12))
def test_random_mixtures_are_found_and_repaired(fake, mgr, seed):
    choice = random.Random(seed)
    stage = Stage(fake)
    for _ in range(25):
        getattr(stage, choice.choice(GENERATORS))()
    assert found(mgr, stage)[1] == sorted(set(stage.expected))
    mend(mgr, stage)
    mgr.until(lambda: fake.run_tasks() == 0 and not mgr.engine._book.live, "the end of what the repairs began")
    left = [fault for fault in faults(fake) if "leftover" not in fault]
    assert not left


def test_repairs_touch_nothing_that_is_healthy(fake, mgr):
    stage = Stage(fake)
    healthy = {uuid: dict(values) for (_, uuid), values in stage.space.objects.items()}
    headers = set(stage.space.headers)
    for name in GENERATORS:
        getattr(stage, name)()
    mend(mgr, stage)
    assert {
        uuid: stage.space.objects[kind, uuid] for kind, uuid in list(stage.space.objects) if uuid in healthy
    } == healthy
    assert headers <= set(stage.space.headers)


def test_what_is_young_is_no_finding(fake, start):
    mgr = start(check_grace=600.0)
    stage = Stage(fake)
    for name in ("image_id_missing", "unsealed", "leftover_cut", "leftover_temp", "image_trashed", "trash_orphan"):
        getattr(stage, name)()
    assert found(mgr, stage)[1] == []


def test_what_an_operation_has_in_hand_is_no_finding(fake, mgr):
    stage = Stage(fake)
    source = stage.volume()
    number = next(_numbers)
    do(fake, CloneVolume(stage.where, "child", uuid_of(number), stage.where, source.image, None, Layout()))
    operation, _ = mgr.service.run(RemoveVolume(stage.where, source.name, source.uuid), PATIENCE)
    mgr.quiet()
    assert not operation.state.final, "it waits for its clone, in the trash, without a task"
    assert found(mgr, stage)[1] == []


@pytest.mark.parametrize("name", GENERATORS)
def test_a_repair_that_is_cut_after_any_step_goes_on_with_the_rest(fake, mgr, name):
    stage = Stage(fake)
    getattr(stage, name)()
    for item in found(mgr, stage)[0]["findings"]:
        subject = item["subject"]
        request = Repair(stage.where, "x", item["id"], subject["kind"], subject["key"], "\n".join(subject["names"]))
        plan, executor = request.plan(fake), executor_on(fake)
        for number, step in enumerate(plan.steps, 1):
            executor.run(step)
            left = set(plan.request.plan(fake).steps)
            assert set(plan.steps[number:]) <= left <= set(plan.steps), f"after {step.describe()}"


@pytest.mark.parametrize("name", GENERATORS)
def test_a_repair_that_is_cut_at_any_moment_of_a_step_leaves_what_an_undisturbed_one_does(fake, mgr, name):
    stage = Stage(fake)
    usual = None
    for number in itertools.chain([None], itertools.count()):
        getattr(stage, name)()
        crashed = False
        for item in found(mgr, stage)[0]["findings"]:
            subject = item["subject"]
            names = "\n".join(subject["names"])
            run = Run(fake, Repair(stage.where, "x", item["id"], subject["kind"], subject["key"], names))
            fake.hook = run.failpoint = CrashAt(number)
            try:
                run.go()
            except Crash:
                crashed = True
            fake.hook = run.failpoint = None
            run.go()
        left = [item["class"] for item in found(mgr, stage)[0]["findings"]]
        usual = left if usual is None else usual
        assert left == usual, f"cut at moment {number}"
        mend(mgr, stage)
        mgr.until(lambda: fake.run_tasks() == 0 and not mgr.engine._book.live, "the end of what the repairs began")
        if number is not None and not crashed:
            break


def test_an_interrupted_repair_finishes_the_removal_of_its_own_cut_and_no_other(fake, mgr):
    stage = Stage(fake)
    for trouble in ("leftover_cut", "snapshot_never_cut"):
        (stage.leftover_cut if trouble == "leftover_cut" else stage.snapshot_cut_but_never_cloned)()
        item = next(item for item in found(mgr, stage)[0]["findings"] if item["class"] == trouble)
        (image_id,) = [key for what, key in stage.expected if what == "leftover_cut"]
        header, subject = stage.space.headers[image_id], item["subject"]
        names = "\n".join(subject["names"])
        run = Run(fake, Repair(stage.where, "x", item["id"], subject["kind"], subject["key"], names))
        fake.hook = CrashAt(1)
        with pytest.raises(Crash):
            run.go()
        assert [snap.user for snap in header.snaps] == [False]
        fake.hook = None
        fake.cut(stage.where, next(name for name, found_id in stage.space.ids.items() if found_id == image_id), "old")
        header.snaps[-1].user, header.snaps[-1].original_name = False, "old"
        run.go()
        assert [snap.original_name for snap in header.snaps] == ["old"]
        mend(mgr, stage)
        stage.expected.clear()


def test_an_interrupted_repair_does_nothing_that_it_did_not_begin_with(fake, mgr):
    stage = Stage(fake)
    stage.object_without_key()
    (item,) = found(mgr, stage)[0]["findings"]
    uuid = item["subject"]["key"]
    plan = Repair(stage.where, "x", item["id"], "volume", uuid).plan(fake)
    stage.space.directories[Kind.VOLUME]["another"] = uuid
    del stage.space.objects[Kind.VOLUME, uuid]["csi.imageid"]
    names = stage.space.objects[Kind.VOLUME, uuid]["csi.volname"]
    fake.reserve(stage.where, Kind.VOLUME, names, uuid)
    again = replace(plan.request, names="another").plan(fake)
    assert [step.name for step in again.steps] == ["answer"], "the id and the second name are findings of their own"


def test_what_changed_since_it_was_found_is_skipped(fake, mgr):
    stage = Stage(fake)
    stage.object_without_key()
    result, _ = found(mgr, stage)
    (item,) = result["findings"]
    values = stage.space.objects[Kind.VOLUME, item["subject"]["key"]]
    stage.space.directories[Kind.VOLUME][values["csi.volname"]] = item["subject"]["key"]
    again, _ = found(mgr, stage, repair=True, findings=(item["id"],))
    assert again["findings"] == []
    request = Repair(stage.where, "x", item["id"], "volume", item["subject"]["key"])
    operation, _ = mgr.service.run(request, PATIENCE)
    assert not operation.recorded


def test_a_dry_run_shows_the_steps_and_changes_nothing(fake, mgr):
    stage = Stage(fake)
    stage.object_without_key()
    stage.trash_orphan()
    before = fake.calls.copy()
    result, _ = found(mgr, stage, repair=True, dry_run=True)
    shown = {item["class"]: [step["step"] for step in item.get("steps", [])] for item in result["findings"]}
    assert shown == {"object_without_key": ["reserve-name"], "trash_orphan": []}
    (orphan,) = (item["id"] for item in result["findings"] if item["class"] == "trash_orphan")
    result, _ = found(mgr, stage, findings=(orphan,))
    assert [step["step"] for step in result["findings"][0]["steps"]] == ["await-children", "queue-removal"]
    assert set(fake.calls[len(before) :]) <= {"put_records", "erase_records"}


def test_an_unknown_finding_is_refused(fake, mgr):
    stage = Stage(fake)
    with pytest.raises(NotFound, match="has no finding"):
        found(mgr, stage, findings=("0123456789ab",))


def test_limits_are_told_of(fake, mgr):
    stage = Stage(fake)
    image = stage.volume()
    for number in range(4):
        fake.cut(stage.where, image.image, f"by-hand-{number}")
    for _ in range(3):
        number = next(_numbers)
        image = do(
            fake, CloneVolume(stage.where, f"c{number}", uuid_of(number), stage.where, image.image, None, Layout())
        )
    object.__setattr__(mgr.checks._settings, "limits", lambda: Limits(depth=3, snapshots=4, keys=5))
    assert {trouble for trouble, _ in found(mgr, stage)[1]} == {
        "depth_near_limit",
        "snapshots_near_limit",
        "large_directory",
    }


def test_an_unfinished_group_snapshot_is_found_by_its_name(fake, mgr):
    """Its RBD group leads to it as well, without a name; a repair needs that to the end."""
    stage, uuid = Stage(fake), uuid_of(next(_numbers))
    stage.space.directories[Kind.GROUP]["g"] = uuid
    stage.space.objects[Kind.GROUP, uuid] = {"csi.groupname": Kind.GROUP.image(uuid), "csi.volname": "g"}
    fake.make_group(stage.where, Kind.GROUP.image(uuid), [stage.volume().image])
    (item,) = found(mgr, stage)[0]["findings"]
    assert (item["class"], item["subject"]["names"]) == ("group_unfinished", ["g"])


def test_an_unreadable_intent_is_told_of(fake, start):
    where = fake.where()
    fake.put_intent(where, "op-1", '{"v": 99}')
    mgr = start()
    mgr.engine.recover()
    mgr.until(lambda: bool(mgr.engine.unreadable()))
    stage = Stage(fake)
    assert found(mgr, stage)[1] == [("intent_unreadable", "op-1")]


def test_depth_is_counted_through_what_is_known(fake):
    stage = Stage(fake)
    image = stage.volume()
    chain = [image]
    for _ in range(4):
        number = next(_numbers)
        chain.append(
            do(
                fake,
                CloneVolume(stage.where, f"c{number}", uuid_of(number), stage.where, chain[-1].image, None, Layout()),
            )
        )
    look = Look(fake, stage.where, 0.0)
    for number in (4, 2, 3, 1, 4, 0):
        assert look.depth(fake.find(stage.where, chain[number].image)) == number


def test_a_task_queue_that_does_not_answer_says_nothing_of_the_trash(fake, mgr):
    stage = Stage(fake)
    stage.trash_orphan()
    fake.fail_on("task_list", NotReady("no answer"), times=1)
    assert found(mgr, stage)[1] == []
    assert found(mgr, stage)[1] == stage.expected


def test_a_repeat_is_given_what_was_waited_for_in_vain(fake, mgr):
    stage = Stage(fake)
    fake.hook = gate = Gate("survey_journal", "read")
    answer = mgr.checks.check(stage.where, Wish(), 0)
    assert answer["state"] == "pending"
    gate.open()
    result, _ = found(mgr, stage)
    assert result["operation"] == answer["operation"]
    assert found(mgr, stage)[0]["operation"] != answer["operation"]


def test_nobody_is_given_the_result_of_a_check_that_ran_by_itself(fake, mgr):
    stage = Stage(fake)
    by_itself = mgr.checks.begin(stage.where, Wish())
    assert by_itself.done.wait(PATIENCE)
    stage.key_without_object()
    assert len(found(mgr, stage)[1]) == 1


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_command_answers_and_refuses(fake, mgr):
    stage = Stage(fake)
    stage.key_without_object()
    handlers = Handlers(mgr.services, Access(mgr.service, lambda args: args.get("pool") != "other"), lambda: PATIENCE)
    arguments = {"pool_spec": "rbd", "finding": None, "repair": None, "wait": None, "dry_run": None}
    answer = handlers.check(arguments)
    assert answer["found"] == 1
    assert [run["kind"] for run in handlers.op_ls({"ids": None}) if run["id"] == answer["operation"]] == ["check"]
    assert handlers.op_info({"id": answer["operation"]})["state"] == "done"
    for bad, code in (({"finding": "nonsense"}, errno.EINVAL), ({"pool_spec": "other"}, errno.EACCES)):
        with pytest.raises(Exception, match=r".") as raised:
            handlers.check({**arguments, **bad})
        assert raised.value.errno == code


def test_subjects_of_other_kinds_are_never_judged(fake):
    look = Look(fake, fake.where(), 0.0)
    for kind in (SubjectKind.INTENT, SubjectKind.DIRECTORY):
        assert judge(look, Subject(kind, "x")) == []


def test_findings_are_in_the_clusters_health_until_they_are_mended(fake, mgr):
    shown = []
    board = HealthBoard(shown.append)
    settings = HousekeepingSettings(lambda: 1.0, lambda: 0.0)
    keeper = Housekeeper(mgr.session, mgr.readers, mgr.services, settings, board, logging.getLogger("x"))
    object.__setattr__(mgr.checks, "_on_found", keeper.told)
    stage = Stage(fake)
    stage.object_without_key()
    stage.trash_orphan()
    result, _ = found(mgr, stage)
    assert shown[-1]["VDISK_CHECK_FINDINGS"]["detail"] == ["rbd: 2 finding(s); see 'ceph vdisk check rbd'"]
    found(mgr, stage, repair=True)
    assert shown[-1]["VDISK_CHECK_FINDINGS"]["summary"].startswith("checks of vdisk found 1 thing(s)")
    orphan = next(item["id"] for item in result["findings"] if item["class"] == "trash_orphan")
    found(mgr, stage, repair=True, findings=(orphan,))
    assert shown[-1] == {}
    # Another mgr learns it from the pool; a pool that is gone is forgotten.
    stage.object_without_key()
    found(mgr, stage)
    heir = Housekeeper(mgr.session, mgr.readers, mgr.services, settings, board, logging.getLogger("x"))
    board.clear("VDISK_CHECK_FINDINGS")
    heir.round()
    mgr.until(lambda: "VDISK_CHECK_FINDINGS" in shown[-1])
    mgr.until(lambda: not heir._under_way)
    fake.remove_pool("rbd")
    heir.round()
    assert shown[-1] == {}
