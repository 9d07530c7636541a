"""Spoils a pool with plain rados and rbd: one method for each class of `vdisk check`, as a crash or a hand does it.

Each leaves what it spoiled in `expected`, so that a check can be compared with it exactly. Nothing of this goes through
vdisk, but for the volumes that are spoiled afterwards.
"""

import json
import random
import time
import uuid
from collections.abc import Callable
from typing import Any

import rados
import rbd

from cluster.support import MIB, Vdisk, image_spec, leave_link, omap, opened, rbd_tasks, set_omap
from harness.cluster import Cluster
from harness.wait import wait_for

LAYERING = {"features": rbd.RBD_FEATURE_LAYERING, "old_format": False}
SIZE = 4 * MIB


class Corruption:
    """Spoils things in one pool or namespace. ``prefix`` makes names that are the same each time."""

    def __init__(self, cluster: Cluster, vdisk: Vdisk, spec: str, prefix: str | None = None) -> None:
        self.cluster = cluster
        self.vdisk = vdisk
        self.spec = spec
        self.expected: list[tuple[str, str]] = []
        """(class, key of the subject)."""
        self._prefix = prefix or uuid.uuid4().hex[:8]
        self._count = 0

    def kinds(self) -> list[Callable[[], None]]:
        """Return every method that spoils something."""
        names = [name for name in vars(type(self)) if name.startswith("make_")]
        return [getattr(self, name) for name in names]

    def random(self, number: int, seed: int) -> None:
        """Spoil `number` things of random kinds."""
        choice = random.Random(seed)
        for _ in range(number):
            choice.choice(self.kinds())()

    # -- means ---------------------------------------------------------------------------------------------------

    def name(self) -> str:
        """Return a new name."""
        self._count += 1
        return f"bad-{self._prefix}-{self._count}"

    def volume(self, name: str | None = None) -> dict[str, Any]:
        """Make a volume."""
        made: dict[str, Any] = self.vdisk("volume create", pool_spec=self.spec, name=name or self.name(), size=SIZE)
        return made

    def snapshot(self) -> dict[str, Any]:
        """Make a volume and a sealed snapshot of it."""
        made = self.vdisk("snap create", image_spec=image_spec(self.volume()), snap_name=self.name())
        return self.vdisk.sealed(made["handle"])

    def found(self, trouble: str, key: str) -> None:
        """Note what a check has to find."""
        self.expected.append((trouble, key))

    def forget(self, thing: dict[str, Any], kind: str = "volume", *, key: bool = True, entry: bool = True) -> None:
        """Remove a thing's directory key and journal object."""
        with opened(self.cluster, self.spec) as ioctx:
            if key:
                with rados.WriteOpCtx() as op:
                    ioctx.remove_omap_keys(op, (f"csi.{kind}.{thing['name']}",))
                    ioctx.operate_write_op(op, f"csi.{kind}s.default")
            if entry:
                ioctx.remove_object(f"csi.{kind}.{thing['uuid']}")

    def unset(self, oid: str, key: str) -> None:
        """Remove a key of an object."""
        with opened(self.cluster, self.spec) as ioctx, rados.WriteOpCtx() as op:
            ioctx.remove_omap_keys(op, (key,))
            ioctx.operate_write_op(op, oid, mtime=int(time.time()))

    def set(self, oid: str, **values: str) -> None:
        """Set keys of an object; `_` stands for `.` in them."""
        with opened(self.cluster, self.spec) as ioctx:
            set_omap(ioctx, oid, {key.replace("_", "."): value.encode() for key, value in values.items()})

    def _reserved(self, directory: str, prefix: str, name: str) -> str:
        """Write only the key of a reservation; return its uuid."""
        ident = str(uuid.uuid4())
        with opened(self.cluster, self.spec) as ioctx:
            set_omap(ioctx, directory, {prefix + name: ident.encode()})
        return ident

    # -- journal -------------------------------------------------------------------------------------------------

    def make_key_without_object(self) -> None:
        """A driver died between the two writes of a reservation."""
        self.found("key_without_object", self._reserved("csi.volumes.default", "csi.volume.", self.name()))

    def make_key_without_object_but_image(self) -> None:
        """The object was lost."""
        volume = self.volume()
        self.forget(volume, key=False)
        self.found("key_without_object", volume["uuid"])

    def make_object_without_key(self) -> None:
        """The key was lost."""
        volume = self.volume()
        self.forget(volume, entry=False)
        self.found("object_without_key", volume["uuid"])

    def make_snapshot_object_without_key(self) -> None:
        """The key of a snapshot was lost."""
        shot = self.snapshot()
        self.forget(shot, "snap", entry=False)
        self.found("object_without_key", shot["uuid"])

    def make_object_without_key_whose_name_is_taken(self) -> None:
        """The key was lost, and somebody else got the name."""
        volume = self.volume()
        self.forget(volume, entry=False)
        self.volume(volume["name"])
        self.found("object_without_key", volume["uuid"])

    def make_object_without_key_and_image(self) -> None:
        """A removal was cut short by a driver that removes in another order."""
        ident = str(uuid.uuid4())
        self.set(f"csi.volume.{ident}", csi_imagename=f"csi-vol-{ident}", csi_volname=self.name())
        self.found("object_without_key", ident)

    def make_object_incomplete(self) -> None:
        """The object lacks its name."""
        volume = self.volume()
        self.unset(f"csi.volume.{volume['uuid']}", "csi.volname")
        self.found("object_incomplete", volume["uuid"])

    def make_name_mismatch(self) -> None:
        """Object and directory disagree."""
        volume = self.volume()
        self.set(f"csi.volume.{volume['uuid']}", csi_volname=self.name())
        self.found("name_mismatch", volume["uuid"])

    def make_duplicate_names(self) -> None:
        """Two names for one uuid."""
        volume, name = self.volume(), self.name()
        with opened(self.cluster, self.spec) as ioctx:
            set_omap(ioctx, "csi.volumes.default", {f"csi.volume.{name}": volume["uuid"].encode()})
        self.found("duplicate_names", volume["uuid"])

    def make_reserved_without_image(self) -> None:
        """A driver died before it made the image."""
        ident, name = str(uuid.uuid4()), self.name()
        with opened(self.cluster, self.spec) as ioctx:
            set_omap(ioctx, "csi.volumes.default", {f"csi.volume.{name}": ident.encode()})
        self.set(f"csi.volume.{ident}", csi_imagename=f"csi-vol-{ident}", csi_volname=name)
        self.found("reserved_without_image", ident)

    def make_snapshot_never_cut(self) -> None:
        """A driver died before it cut the snapshot."""
        ident, name, source = str(uuid.uuid4()), self.name(), self.volume()
        with opened(self.cluster, self.spec) as ioctx:
            set_omap(ioctx, "csi.snaps.default", {f"csi.snap.{name}": ident.encode()})
        values = {"csi_imagename": f"csi-snap-{ident}", "csi_snapname": name, "csi_source": source["image"]}
        self.set(f"csi.snap.{ident}", **values)
        self.found("snapshot_never_cut", ident)

    # -- images --------------------------------------------------------------------------------------------------

    def make_image_lost(self) -> None:
        """`rbd rm` behind the journal's back."""
        volume = self.volume()
        with opened(self.cluster, self.spec) as ioctx:
            rbd.RBD().remove(ioctx, volume["image"])
        self.found("image_lost", volume["uuid"])

    def make_image_trashed(self) -> None:
        """`rbd trash mv` behind the journal's back."""
        volume = self.volume()
        with opened(self.cluster, self.spec) as ioctx:
            rbd.RBD().trash_move(ioctx, volume["image"], 0)
        self.found("image_trashed", volume["uuid"])

    def make_image_renamed(self) -> None:
        """`rbd mv` behind the journal's back."""
        volume = self.volume()
        with opened(self.cluster, self.spec) as ioctx:
            rbd.RBD().rename(ioctx, volume["image"], self.name())
        self.found("image_renamed", volume["uuid"])

    def make_image_headless(self) -> None:
        """A create that was cut before the header."""
        ident = str(uuid.uuid4())
        with opened(self.cluster, self.spec) as ioctx:
            rbd.RBD().create(ioctx, f"csi-vol-{ident}", SIZE, **LAYERING)
            with rbd.Image(ioctx, f"csi-vol-{ident}", read_only=True) as image:
                image_id = image.id()
            ioctx.remove_object(f"rbd_header.{image_id}")
        self.found("image_headless", ident)

    def make_image_id_missing(self) -> None:
        """A driver died before it stored the id of an empty image."""
        volume = self.volume()
        self.unset(f"csi.volume.{volume['uuid']}", "csi.imageid")
        self.found("image_id_missing", volume["uuid"])

    def make_image_id_missing_of_a_clone(self) -> None:
        """The same for a clone, whose parent proves that it is complete."""
        shot = self.snapshot()
        self.unset(f"csi.snap.{shot['uuid']}", "csi.imageid")
        self.found("image_id_missing", shot["uuid"])

    def make_image_id_mismatch(self) -> None:
        """The image was made anew."""
        volume = self.volume()
        with opened(self.cluster, self.spec) as ioctx:
            rbd.RBD().remove(ioctx, volume["image"])
            rbd.RBD().create(ioctx, volume["image"], SIZE, **LAYERING)
        self.found("image_id_mismatch", volume["uuid"])

    def make_image_without_journal(self) -> None:
        """The journal entries were removed by hand."""
        volume = self.volume()
        self.forget(volume)
        self.found("image_without_journal", volume["uuid"])

    def make_unsealed(self) -> None:
        """The seal was removed by hand, or a driver died before it."""
        shot = self.snapshot()
        with opened(self.cluster, self.spec) as ioctx, rbd.Image(ioctx, shot["image"]) as image:
            image.remove_snap(shot["image"])
        self.found("unsealed", shot["uuid"])

    def make_leftover_cut(self) -> None:
        """A driver died between cut and clone."""
        volume = self.volume()
        with opened(self.cluster, self.spec) as ioctx, rbd.Image(ioctx, volume["image"]) as image:
            image.create_snap(f"csi-snap-{uuid.uuid4()}")
        self.found("leftover_cut", volume["image_id"])

    def make_leftover_cut_with_clone(self) -> None:
        """A driver died between clone and the removal of the cut."""
        volume, shot = self.volume(), f"csi-snap-{uuid.uuid4()}"
        with opened(self.cluster, self.spec) as ioctx, rbd.Image(ioctx, volume["image"]) as image:
            image.create_snap(shot)
        target = f"{self.spec}/{self.name()}"
        self.cluster.rbd("clone", "--rbd-default-clone-format", "2", f"{image_spec(volume)}@{shot}", target)
        self.found("leftover_cut", volume["image_id"])

    def make_leftover_temp(self) -> None:
        """An intermediate image that nobody needs."""
        volume = self.volume()
        self.found("leftover_temp", self._temp(volume["image"]))

    def make_leftover_temp_without_volume(self) -> None:
        """An intermediate image of a volume that was never finished."""
        self.found("leftover_temp", self._temp(f"csi-vol-{uuid.uuid4()}"))

    def _temp(self, image: str) -> str:
        with opened(self.cluster, self.spec) as ioctx:
            rbd.RBD().create(ioctx, f"{image}-temp", SIZE, **LAYERING)
            with rbd.Image(ioctx, f"{image}-temp", read_only=True) as temp:
                return str(temp.id())

    def make_snapshot_abandoned(self) -> None:
        """The removal of a trashed snapshot's last clone was cut short."""
        volume, hook = self.volume(), self.name()
        with opened(self.cluster, self.spec) as ioctx:
            with rbd.Image(ioctx, volume["image"]) as image:
                image.create_snap("old")
                target = f"{self.spec}/{hook}"
                self.cluster.rbd("clone", "--rbd-default-clone-format", "2", f"{image_spec(volume)}@old", target)
                image.remove_snap("old")
            header = f"rbd_header.{volume['image_id']}"
            ((key, children),) = (
                (key, value) for key, value in omap(ioctx, header).items() if key.startswith("snap_children_")
            )
            snap_id = int(key.removeprefix("snap_children_"), 16)
            ioctx.execute(header, "rbd", "child_detach", snap_id.to_bytes(8, "little") + children[4:])
            with rbd.Image(ioctx, hook, read_only=True) as image:
                hook_id = image.id()
            for oid in (f"rbd_id.{hook}", f"rbd_header.{hook_id}", f"rbd_object_map.{hook_id}"):
                ioctx.remove_object(oid)
            with rados.WriteOpCtx() as op:
                ioctx.remove_omap_keys(op, (f"name_{hook}", f"id_{hook_id}"))
                ioctx.operate_write_op(op, "rbd_directory")
        self.found("snapshot_abandoned", volume["image_id"])

    def make_flatten_unfinished(self) -> None:
        """A client died at the end of flattening a clone, before it removed the link to its parent's snapshot."""
        self._hidden_clone()

    def make_flatten_unfinished_and_parent_gone(self) -> None:
        """The same, and the parent was removed since: nothing of it says what the link was."""
        source = self._hidden_clone()
        with opened(self.cluster, self.spec) as ioctx:
            rbd.RBD().remove(ioctx, source["image"])
        self.forget(source)

    def _hidden_clone(self) -> dict[str, Any]:
        """Make a volume and a clone of it that librbd does not find; return the volume."""
        source = self.volume()
        clone = self.vdisk("volume clone", volume=source["handle"], name=self.name())
        with opened(self.cluster, self.spec) as ioctx:
            leave_link(ioctx, clone["image"])
        self.found("flatten_unfinished", clone["image_id"])
        return source

    # -- group snapshots, where the release can make them -------------------------------------------------------------

    def group_reserved_only(self) -> None:
        """A driver died between the two writes of a reservation."""
        self.found("key_without_object", self._reserved("csi.groups.default", "csi.volume.group.", self.name()))

    def group_without_key(self) -> None:
        """The directory key was lost."""
        group = self._group()
        with opened(self.cluster, self.spec) as ioctx, rados.WriteOpCtx() as op:
            ioctx.remove_omap_keys(op, (f"csi.volume.group.{group['name']}",))
            ioctx.operate_write_op(op, "csi.groups.default")
        self.found("object_without_key", group["uuid"])

    def group_unfinished(self) -> None:
        """What made it died before it cut anything, and its intent is lost."""
        self._begun_group(cut=False)

    def group_unfinished_but_cut(self) -> None:
        """The same after it was cut."""
        self._begun_group(cut=True)

    def group_member_lost(self) -> None:
        """A snapshot of the group was removed by a driver that does not know of groups."""
        group = self._group()
        lost = min(group["snapshots"], key=lambda snap: snap["name"])  # which must not be chance: runs are compared
        with opened(self.cluster, self.spec) as ioctx:
            with rbd.Image(ioctx, lost["image"]) as image:
                image.remove_snap(lost["image"])
            rbd.RBD().remove(ioctx, lost["image"])
        self.forget(lost, "snap")
        self.found("group_member_lost", group["uuid"])

    def group_left_over(self) -> None:
        """The RBD group of a complete group snapshot stayed, with its snapshot."""
        group = self._group()
        images = [snap["source"]["image"] for snap in group["snapshots"]]
        self._rbd_group(group["uuid"], images, cut=True)
        self.found("leftover_group", group["uuid"])

    def group_left_over_without_journal(self) -> None:
        """The RBD group stayed, and nothing else."""
        ident = str(uuid.uuid4())
        self._rbd_group(ident, [self.volume()["image"]], cut=False)
        self.found("leftover_group", ident)

    def _group(self) -> dict[str, Any]:
        """Make a sealed group snapshot of two volumes."""
        volumes = ",".join(self.volume()["handle"] for _ in range(2))
        made: dict[str, Any] = self.vdisk("group snap create", name=self.name(), volumes=volumes)
        for snap in made["snapshots"]:
            self.vdisk.sealed(snap["handle"])
        return made

    def _begun_group(self, cut: bool) -> None:
        name = self.name()
        ident = self._reserved("csi.groups.default", "csi.volume.group.", name)
        self.set(f"csi.volume.group.{ident}", csi_groupname=f"csi-group-{ident}", csi_volname=name)
        self._rbd_group(ident, [self.volume()["image"]], cut)
        self.found("group_unfinished", ident)

    def _rbd_group(self, ident: str, images: list[str], cut: bool) -> None:
        with opened(self.cluster, self.spec) as ioctx:
            rbd.RBD().group_create(ioctx, f"csi-group-{ident}")
            group = rbd.Group(ioctx, f"csi-group-{ident}")
            for image in images:
                group.add_image(ioctx, image)
            if cut:
                group.create_snap("cut")

    # -- trash and tasks -----------------------------------------------------------------------------------------

    def make_trash_orphan(self) -> None:
        """In the trash without journal, task and operation."""
        self.found("trash_orphan", self._trashed())

    def make_trash_remains(self) -> None:
        """All that is left of an image is its entry in the trash: its removal was cut, and nobody knows of it."""
        image_id = self._trashed()
        with opened(self.cluster, self.spec) as ioctx:
            ioctx.remove_object(f"rbd_header.{image_id}")
            ioctx.remove_object(f"rbd_object_map.{image_id}")
        self.found("trash_orphan", image_id)

    def make_trash_move_unfinished(self) -> None:
        """A move to the trash that was cut short."""
        image_id = self._trashed()
        with opened(self.cluster, self.spec) as ioctx:
            entry = omap(ioctx, "rbd_trash")[f"id_{image_id}"]
            set_omap(ioctx, "rbd_trash", {f"id_{image_id}": entry[:-1] + b"\x01"})
        self.found("trash_move_unfinished", image_id)

    def task_without_image(self) -> str:
        """A task whose image has a clone is tried again later; then the image goes, and the task stays. Its id."""
        parent, child = self.name(), self.name()
        with opened(self.cluster, self.spec) as ioctx:
            rbd.RBD().create(ioctx, parent, SIZE, **LAYERING)
            with rbd.Image(ioctx, parent) as image:
                image_id = image.id()
                image.create_snap("s")
            flags = ("--rbd-default-clone-format", "2")
            self.cluster.rbd("clone", *flags, f"{self.spec}/{parent}@s", f"{self.spec}/{child}")
            rbd.RBD().trash_move(ioctx, parent, 0)
            task = {"prefix": "rbd task add trash remove", "image_id_spec": f"{self.spec}/{image_id}"}
            ret, out, status = self.cluster.mgr_command(task)
            assert ret == 0, status
            ident = str(json.loads(out)["id"])

            def failed() -> bool:
                return any(task["id"] == ident and task.get("retry_attempts") for task in rbd_tasks(self.cluster))

            wait_for(failed, 30, "the task fails and waits for its next try")
            rbd.RBD().remove(ioctx, child)
            with rbd.Image(ioctx, image_id=image_id) as image:
                image.remove_snap("s")
            rbd.RBD().trash_remove(ioctx, image_id, True)
        self.found("task_without_image", ident)
        return ident

    def _trashed(self) -> str:
        volume = self.volume()
        with opened(self.cluster, self.spec) as ioctx:
            rbd.RBD().trash_move(ioctx, volume["image"], 0)
        self.forget(volume)
        return str(volume["image_id"])

    def make_record_without_image(self) -> None:
        """The image of an undelete record was removed from the trash by hand."""
        ident = str(uuid.uuid4())
        record = {
            "v": 1,
            "kind": "volume",
            "uuid": ident,
            "name": self.name(),
            "image": f"csi-vol-{ident}",
            "image_id": "10bad0bad0",
            "journal": "default",
            "values": {},
            "deleted_at": 1.0,
            "expires_at": 4e9,
        }
        with opened(self.cluster, self.spec) as ioctx:
            set_omap(ioctx, "vdisk.trash", {ident: json.dumps(record).encode()})
        self.found("record_without_image", ident)


def bystanders(cluster: Cluster, spec: str, volume: dict[str, Any]) -> None:
    """Make what a check must not find: others' images and trash, and a volume that ceph-csi cloned its own way."""
    with opened(cluster, spec) as ioctx:
        librbd = rbd.RBD()
        librbd.create(ioctx, "plain", SIZE, **LAYERING)
        with rbd.Image(ioctx, "plain") as image:
            image.create_snap("by-hand")
        librbd.create(ioctx, "others", SIZE, **LAYERING)
        librbd.trash_move(ioctx, "others", 0)
        ident = str(uuid.uuid4())
        clone, temp = f"csi-vol-{ident}", f"csi-vol-{ident}-temp"
        for above, cut, below in ((volume["image"], temp, temp), (temp, clone, clone)):
            with rbd.Image(ioctx, above) as image:
                image.create_snap(cut)
                flags = ("--rbd-default-clone-format", "2", "--image-feature", "layering")
                cluster.rbd("clone", *flags, f"{spec}/{above}@{cut}", f"{spec}/{below}")
                image.remove_snap(cut)
        with rbd.Image(ioctx, clone, read_only=True) as image:
            image_id = image.id()
        set_omap(ioctx, "csi.volumes.default", {f"csi.volume.{clone}": ident.encode()})
        values = {"csi.imagename": clone, "csi.volname": clone, "csi.imageid": image_id, "csi.volume.owner": "tenant"}
        set_omap(ioctx, f"csi.volume.{ident}", {key: value.encode() for key, value in values.items()})
