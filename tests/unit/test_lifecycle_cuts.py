"""Whatever a crash cuts, planning again from what the intent holds reaches the same end (as Patroni tests its quorum).

The cuts are generated from what the operations do: before and after every step, and at every moment in the middle of
librbd's work that the fake models. A new step, or a new operation among the scenarios, is covered by itself.
"""

import functools
from dataclasses import replace

import pytest

from fake.cluster import Crash, CrashAt, FakeCluster
from fake.drive import SCENARIOS, Run, do, uuid_of
from fake.inventory import inventory
from vdisk.lifecycle.group_snap import CreateGroup, RemoveGroup
from vdisk.lifecycle.removal import RemoveSnapshot, RemoveVolume
from vdisk.model.errors import AlreadyExists, NoSpace
from vdisk.model.names import Kind

CREATING = [
    name
    for name in SCENARIOS
    if not name.startswith(("rm", "snap-rm", "group-rm", "resize", "flatten", "trash", "adopt", "release", "schedule"))
]
REMOVE = {Kind.VOLUME: RemoveVolume, Kind.SNAPSHOT: RemoveSnapshot, Kind.GROUP: RemoveGroup}
REMOVING = [
    name
    for name in SCENARIOS
    if name.startswith(("rm", "snap-rm", "group-rm")) and not name.endswith(("expired", "adopted"))
]
ADOPTING = ["adopt", "adopt-released", "adopt-snapshot"]
UNDELETING = [name for name in SCENARIOS if name.startswith("trash")]


def stage(scenario):
    fake = FakeCluster()
    return fake, SCENARIOS[scenario](fake)


@functools.cache
def uncut(scenario):
    """Return the moments of an undisturbed run, and what it leaves once rbd_support did its part."""
    fake, request = stage(scenario)
    watch = fake.hook = CrashAt()
    Run(fake, request, failpoint=watch).go()
    fake.hook = None
    fake.run_tasks()
    return tuple(watch.seen), inventory(fake)


def cut(fake, run, number):
    """Run until the crash at that moment; a run that needs fewer moments ends as usual."""
    fake.hook = run.failpoint = CrashAt(number)
    try:
        run.go()
    except Crash:
        return True
    finally:
        fake.hook = run.failpoint = None
    return False


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_step_is_cut_before_and_after(scenario):
    fake, request = stage(scenario)
    moments, _ = uncut(scenario)
    names = [step.name for step in request.plan(fake).steps]
    waits = scenario in ("rm-with-clone", "snap-rm-with-restored-volume")
    for name in names[: names.index("await-children")] if waits else names:
        assert (name, "before") in moments
        assert (name, "after") in moments


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_crash_anywhere_leads_to_the_same_end(scenario):
    moments, end = uncut(scenario)
    for number, moment in enumerate(moments):
        fake, request = stage(scenario)
        run = Run(fake, request)
        assert cut(fake, run, number)
        run.go()
        fake.run_tasks()
        assert inventory(fake) == end, f"cut {moment}"


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_second_crash_during_recovery_leads_to_the_same_end(scenario):
    moments, end = uncut(scenario)
    for number, moment in enumerate(moments):
        for second in {number * 5 % len(moments), number * 11 % len(moments), 0, 3}:
            fake, request = stage(scenario)
            run = Run(fake, request)
            assert cut(fake, run, number)
            cut(fake, run, second)
            run.go()
            fake.run_tasks()
            assert inventory(fake) == end, f"cut {moment}, then {moments[second]} or so"


@pytest.mark.parametrize("scenario", CREATING)
def test_a_crash_anywhere_in_the_removal_of_an_unfinished_image_leads_to_the_same_end(scenario):
    moments, end = uncut(scenario)
    making = [
        number for number, (name, _) in enumerate(moments) if name in ("create_image", "clone_image", "clone_member")
    ]
    for number in making:
        reached = set()
        for second in range(60):
            fake, request = stage(scenario)
            run = Run(fake, request)
            assert cut(fake, run, number)
            if not cut(fake, run, second):
                break
            reached.update(call for call in fake.calls if call == "remove_unfinished")
            run.go()
            fake.run_tasks()
            assert inventory(fake) == end, f"cut {moments[number]}, then at moment {second}"
        else:
            raise AssertionError("the second run never got to its end")
    assert reached, "no unfinished image was ever removed"


@pytest.mark.parametrize("scenario", CREATING)
def test_without_its_intent_a_cut_creation_goes_on_or_is_refused_and_can_be_removed(scenario):
    moments, end = uncut(scenario)
    kinds = set()
    for number, moment in enumerate(moments):
        fake, request = stage(scenario)
        run = Run(fake, request)
        assert cut(fake, run, number)
        again = type(request)(**{**request.__dict__, "uuid": uuid_of(9)})
        if isinstance(again, CreateGroup):
            again = replace(again, members=tuple(_proposed_anew(member) for member in again.members))
        before = inventory(fake)
        try:
            do(fake, again)
            kinds.add("went on")
        except AlreadyExists:
            kinds.add("refused")
            assert inventory(fake) == before, f"cut {moment}: a refused request changed something"
            remove = REMOVE[request.target]
            Run(fake, remove(request.where, request.name, request.uuid)).go()
            fake.run_tasks()
            do(fake, again)
        fake.run_tasks()
        if "clone-image" in dict.fromkeys(name for name, _ in moments) and inventory(fake) != end:
            # The cut that a removed volume left on its source is nobody's any more; `vdisk check` finds it.
            assert _without_cuts(inventory(fake)) == _without_cuts(end), f"cut {moment}"
        else:
            assert inventory(fake) == end, f"cut {moment}"
    assert kinds == {"went on", "refused"}


def _proposed_anew(member):
    """A member of a group as another request for the same volumes proposes it."""
    fresh = member.uuid.replace("0000-4000", "1111-4000")
    return replace(member, uuid=fresh, snapshot=member.snapshot.replace(member.uuid, fresh))


def _without_cuts(found):
    return {
        where: {
            **content,
            "images": {
                name: {**image, "snaps": [snap for snap in image["snaps"] if snap[0] in (name, "(trashed)")]}
                for name, image in content["images"].items()
            },
        }
        if where != "tasks"
        else content
        for where, content in found.items()
    }


# What led to a temp image in the trash was the intent alone, so those two scenarios are not among these.
@pytest.mark.parametrize("scenario", [name for name in REMOVING if "temp" not in name])
def test_without_its_intent_a_cut_removal_is_finished_by_a_new_one(scenario):
    moments, end = uncut(scenario)
    # Once the journal forgot the image, the intent alone leads to it.
    forgotten = moments.index(("remove_entry", "after"))
    for number, moment in enumerate(moments[:forgotten]):
        fake, request = stage(scenario)
        run = Run(fake, request)
        assert cut(fake, run, number)
        Run(fake, request).go()
        fake.run_tasks()
        assert inventory(fake) == end, f"cut {moment}"


@pytest.mark.parametrize("scenario", CREATING)
def test_a_failure_anywhere_before_completion_is_undone_without_a_trace(scenario):
    moments, _ = uncut(scenario)
    complete = _completed(moments)
    for number, moment in enumerate(moments[:complete]):
        fake, request = stage(scenario)
        before = inventory(fake)
        run = Run(fake, request)
        assert cut(fake, run, number)
        run.undo()
        sealed = _sealed_meanwhile(before, inventory(fake)) if scenario == "restore-before-seal" else before
        assert inventory(fake) == sealed, f"failed {moment}"


def _completed(moments):
    """The last moment before the id is stored, or the members of a group are written down."""
    if ("cut-group", "after") in moments:
        return len(moments) - moments[::-1].index(("write-entry", "after")) - 3
    return moments.index(("store-image-id", "after")) - 2


def _sealed_meanwhile(before, after):
    """A seal that a restore made is good work and stays."""
    name = next(name for name in before["rbd"]["images"] if name.startswith("csi-snap"))
    if after["rbd"]["images"][name]["snaps"]:
        before["rbd"]["images"][name]["snaps"] = [(name, [])]
    return before


@pytest.mark.parametrize("scenario", CREATING)
def test_a_crash_while_undoing_leads_to_the_same_end(scenario):
    moments, _ = uncut(scenario)
    complete = _completed(moments)
    for number, moment in enumerate(moments[:complete]):
        for second in range(0, 30, 3):
            fake, request = stage(scenario)
            before = inventory(fake)
            run = Run(fake, request)
            assert cut(fake, run, number)
            fake.hook = CrashAt(second)
            try:
                run.undo()
                crashed = False
            except Crash:
                crashed = True
            fake.hook = None
            run.undo()
            after = inventory(fake)
            sealed = _sealed_meanwhile(before, after) if scenario == "restore-before-seal" else before
            assert after == sealed, f"failed {moment}, undoing cut at {second}"
            if not crashed:
                break


@pytest.mark.parametrize("scenario", CREATING)
def test_a_completed_creation_is_never_undone(scenario):
    fake, request = stage(scenario)
    do(fake, request)
    before = inventory(fake)
    Run(fake, request).undo()
    assert inventory(fake) == before


@pytest.mark.parametrize("scenario", CREATING)
def test_errors_of_the_cluster_reach_the_caller_and_are_undone(scenario):
    fake, request = stage(scenario)
    before = inventory(fake)
    run = Run(fake, request)
    fake.fail_on("write_entry", NoSpace("full"), moment="after")
    with pytest.raises(NoSpace):
        run.go()
    run.undo()
    assert inventory(fake) == before


@pytest.mark.parametrize("scenario", UNDELETING)
def test_an_undelete_that_fails_before_the_image_is_back_is_undone(scenario):
    moments, end = uncut(scenario)
    for number, moment in enumerate(moments):
        fake, request = stage(scenario)
        before = inventory(fake)
        run = Run(fake, request)
        assert cut(fake, run, number)
        run.undo()
        if scenario != "trash-restore-image":
            assert inventory(fake) in (before, end), f"cut {moment}"


@pytest.mark.parametrize("scenario", ADOPTING)
def test_an_adoption_that_fails_is_undone_or_complete(scenario):
    moments, end = uncut(scenario)
    for number, moment in enumerate(moments):
        fake, request = stage(scenario)
        before = inventory(fake)
        run = Run(fake, request)
        assert cut(fake, run, number)
        run.undo()
        assert inventory(fake) in (before, end), f"cut {moment}"
