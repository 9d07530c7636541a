"""The crash matrix of upkeep: the repairs of `vdisk check`, `trash purge`, and expiry by itself.

The same mechanism and the same demands as `test_crash`. A repair is of one finding, spoiled by `corruption`; after it,
whatever died in between, a check is clean. By default those run that have every kind of step between them, the mgr
killed once after each (before one is after the one before); `VDISK_MATRIX=full` runs every repair and every point.
(Of a task that is cancelled only that is compared: rbd_support, once started again, is done with it by itself.)
"""

import contextlib
import errno
import json
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import rados
import rbd

from cluster.corruption import Corruption
from cluster.inventory import omap, string
from cluster.support import has_task_queue, rbd_tasks, set_omap
from cluster.test_crash import MOMENTS, Matrix, Scenario, Site, expect, matrix_cluster, repeated, senders
from harness.wait import wait_for

FULL = os.environ.get("VDISK_MATRIX") == "full"
PREFIX = "check repair: "


def _check(site: Site, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = site.ask("check", pool_spec=site.spec, **more)
    return found


def _spoiled(spoil: Callable[[Corruption], None]) -> Callable[[Site], None]:
    """Spoil one thing, and have a check find it and nothing else."""

    def prepare(site: Site) -> None:
        corruption = Corruption(site.cluster, site.vdisk, site.spec, prefix="x")
        spoil(corruption)
        # What made it may not have sealed or reclaimed all yet: that is no finding, but the end state is compared.
        site.take_quiet(may_wait=True)
        found = [(item["class"], item["subject"]["key"]) for item in _check(site)["findings"]]
        assert found == corruption.expected

    return prepare


def _repair(site: Site) -> Mapping[str, Any]:
    """The command that repairs what the last check found, by its id."""
    with site.ioctx() as ioctx:
        (ident,) = (key.removeprefix("finding.") for key in omap(ioctx, "vdisk.check") if key.startswith("finding."))
    return {"prefix": "vdisk check", "pool_spec": site.spec, "repair": True, "finding": ident}


def _clean(site: Site) -> None:
    """A check finds nothing any more; and others' images, which are nobody's to remove, go so that all can."""
    assert _check(site)["findings"] == []
    with site.ioctx() as ioctx:
        for name in rbd.RBD().list(ioctx):
            if not name.startswith("csi-"):
                _remove_foreign(site, ioctx, name)


def _clean_after_both(site: Site) -> None:
    """A finished move leaves an image in the trash that nobody removes, which is a finding and a repair of its own."""
    (orphan,) = wait_for(lambda: _check(site)["findings"], 20, "librbd's protection of what was just moved is over")
    assert orphan["class"] == "trash_orphan"
    assert _check(site, repair=True, finding=orphan["id"])["repaired"] == 1
    _clean(site)


def _remove_foreign(site: Site, ioctx: rados.Ioctx, name: str) -> None:
    with rbd.Image(ioctx, name, read_only=True) as image:
        image_id = image.id()
    journalled = [row["image_id"] for row in site.ask("volume ls", pool_spec=site.spec)]
    if image_id not in journalled:
        rbd.RBD().remove(ioctx, name)


def _named(name: str) -> Callable[[Corruption], None]:
    return lambda corruption: getattr(corruption, name)()  # type: ignore[no-any-return]


def _kept(site: Site) -> None:
    site.volume()
    site.vdisk("volume rm", volume=f"{site.spec}/src", keep_for="7d")


def _kept_snapshot(site: Site) -> None:
    site.volume()
    site.snapshot()
    site.vdisk("snap rm", snapshot=f"{site.spec}/snap", keep_for="7d")


def _purge(site: Site) -> Mapping[str, Any]:
    return {"prefix": "vdisk trash purge", "pool_spec": site.spec, "older_than": "0"}


def _expire(site: Site) -> None:
    """Let the time until which things are kept be over."""
    with site.ioctx() as ioctx:
        records = {key: json.loads(value) for key, value in omap(ioctx, "vdisk.trash").items()}
        set_omap(
            ioctx, "vdisk.trash", {k: json.dumps({**v, "expires_at": 1.0}).encode() for k, v in records.items()}
        )  # fmt: skip


def _nothing_kept(site: Site) -> None:
    assert site.ask("trash ls", pool_spec=site.spec) == []
    assert _check(site)["findings"] == []


#: Repairs after which a check is not clean at once.
_AGAIN = {"make_trash_move_unfinished": _clean_after_both}
_TROUBLES = [name for name in vars(Corruption) if name.startswith("make_")]
_GROUPS = [name for name in vars(Corruption) if name.startswith("group_")]
UPKEEP = {
    scenario.name: scenario
    for scenario in (
        *(
            Scenario(PREFIX + name.removeprefix("make_"), _spoiled(_named(name)), _repair, _AGAIN.get(name, _clean))
            for name in _TROUBLES
        ),
        *(Scenario(PREFIX + name, _spoiled(_named(name)), _repair, _clean, groups=True) for name in _GROUPS),
        Scenario("trash purge", _kept, _purge, _nothing_kept),
        Scenario("trash purge, snapshot", _kept_snapshot, _purge, _nothing_kept, ("volume", "src")),
        Scenario("expiry", _kept, _purge, _nothing_kept, begin=_expire),
        Scenario("expiry, snapshot", _kept_snapshot, _purge, _nothing_kept, ("volume", "src"), begin=_expire),
    )
}
#: Of these every step of a repair is one.
_USUAL = [
    *(
        PREFIX + name
        for name in (
            "key_without_object_but_image",
            "object_without_key_whose_name_is_taken",
            "reserved_without_image",
            "image_trashed",
            "image_headless",
            "unsealed",
            "leftover_cut",
            "leftover_temp",
            "snapshot_abandoned",
            "flatten_unfinished",
            "record_without_image",
            "group_unfinished_but_cut",
            "group_member_lost",
            "group_left_over",
        )
    ),
    "trash purge",
    "expiry, snapshot",
]
CHOSEN = {name: scenario for name, scenario in UPKEEP.items() if FULL or name in _USUAL}


@pytest.fixture(scope="module")
def upkeep(release_name: str) -> Iterator[Matrix]:
    """The matrix on a cluster of this file's own."""
    if release_name == "reef" and not FULL:
        pytest.skip("shown on Pacific and Tentacle")
    with matrix_cluster(release_name, CHOSEN) as made:
        yield made


@pytest.mark.timeout(3600 if FULL else 900)
@pytest.mark.parametrize("name", list(CHOSEN))
def test_killed_at_any_step_upkeep_reaches_its_end(upkeep: Matrix, name: str) -> None:
    if name not in upkeep.scenarios:
        pytest.skip("this release's librbd clones no group snapshots")
    points = [point for point in upkeep.selected(name) if FULL or point.moment == "after"]
    outcomes = [upkeep.run(point) for point in points or upkeep.points(name)[-1:]]
    failed = [outcome for outcome in outcomes if outcome.result == "failed"]
    report = "\n\n".join(f"{outcome.point}\n{outcome.trouble}" for outcome in failed)
    assert not failed, f"{len(failed)} of {len(outcomes)} points failed\n{report}"


# -- a repair that is cut in the middle of a step ---------------------------------------------------------------------


@contextlib.contextmanager
def cut_inside(upkeep: Matrix, trouble: str, step: str, *rets: int) -> Iterator[Site]:
    """Repair a finding up to a step, yield the site for what had been done of that, and go on from there.

    The command is answered with one of ``rets``, and then all is as it is without interruption.
    """
    name = PREFIX + trouble
    scenario, reference, site = upkeep.known[name], upkeep.reference(name), upkeep.site()
    scenario.prepare(site)
    upkeep.arm(step, "before")
    answer = senders.submit(repeated, upkeep.cluster, {"format": "json", **scenario.command(site)})
    upkeep.wait_dead()
    upkeep.disarm()
    yield site
    upkeep.revive()
    ret, out, status = answer.result(90)
    assert ret in rets, f"{status or out}"
    expect(site, [reference.after], "after the restart", timeout=20)
    scenario.again(site)
    upkeep.dismantle(site)


@pytest.mark.parametrize("moving", [True, False], ids=["still moving", "in the trash"])
def test_an_image_without_header_whose_removal_was_cut_is_removed(upkeep: Matrix, moving: bool) -> None:
    """It goes through the trash, where the journal does not lead any more, and an intent that is over does not."""
    with cut_inside(upkeep, "image_headless", "remove-unfinished", 0) as site, site.ioctx() as ioctx:
        ((image, image_id),) = (
            (key.removeprefix("name_"), string(value))
            for key, value in omap(ioctx, "rbd_directory").items()
            if key.startswith("name_")
        )
        rbd.RBD().trash_move(ioctx, image, 0)
        entry = omap(ioctx, "rbd_trash")[f"id_{image_id}"]
        if moving:
            set_omap(ioctx, "rbd_trash", {f"id_{image_id}": entry[:-1] + b"\x01"})


def test_a_cut_whose_removal_was_cut_inside_librbd_is_removed(upkeep: Matrix) -> None:
    """librbd moves a snapshot to its trash namespace, under another name, before it removes it."""
    with cut_inside(upkeep, "leftover_cut", "drop-snapshot", 0, -errno.ENOENT) as site, site.ioctx() as ioctx:
        (name,) = rbd.RBD().list(ioctx)
        with rbd.Image(ioctx, name, read_only=True) as image:
            header, (cut,) = f"rbd_header.{image.id()}", list(image.list_snaps())
        ioctx.execute(header, "rbd", "snapshot_trash_add", cut["id"].to_bytes(8, "little"))


# -- tasks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_as_it_cancels_a_task_the_repair_reaches_its_end(upkeep: Matrix, moment: str) -> None:
    if not has_task_queue(upkeep.cluster):
        pytest.skip("rbd_support cannot run tasks on this release's mgr")
    site = upkeep.site()
    corruption = Corruption(site.cluster, site.vdisk, site.spec, prefix="x")
    ident = corruption.task_without_image()
    assert [(item["class"], item["subject"]["key"]) for item in _check(site)["findings"]] == corruption.expected
    upkeep.arm("cancel-task", moment)
    answer = senders.submit(repeated, upkeep.cluster, {"format": "json", **_repair(site)})
    upkeep.wait_dead()
    upkeep.disarm()
    upkeep.revive()
    ret, out, status = answer.result(90)
    assert ret in (0, -errno.ENOENT), f"{status or out}"
    wait_for(lambda: ident not in [task["id"] for task in rbd_tasks(site.cluster)], 40, "the task is gone")
    wait_for(lambda: not site.busy(), 20, "the repair is over")
    assert _check(site)["findings"] == []
    upkeep.dismantle(site)
