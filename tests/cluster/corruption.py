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

from cluster.support import MIB, Vdisk, image_spec, omap, opened, set_omap
from harness.cluster import Cluster

LAYERING = {"features": rbd.RBD_FEATURE_LAYERING, "old_format": False}
SIZE = 4 * MIB


class Corruption:
    """Spoils things in one pool or namespace."""

    def __init__(self, cluster: Cluster, vdisk: Vdisk, spec: str) -> None:
        self.cluster = cluster
        self.vdisk = vdisk
        self.spec = spec
        self.expected: list[tuple[str, str]] = []
        """(class, key of the subject)."""
        self._prefix = uuid.uuid4().hex[:8]
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

    # -- journal -------------------------------------------------------------------------------------------------

    def make_key_without_object(self) -> None:
        """A driver died between the two writes of a reservation."""
        ident, name = str(uuid.uuid4()), self.name()
        with opened(self.cluster, self.spec) as ioctx:
            set_omap(ioctx, "csi.volumes.default", {f"csi.volume.{name}": ident.encode()})
        self.found("key_without_object", ident)

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

    # -- trash and tasks -----------------------------------------------------------------------------------------

    def make_trash_orphan(self) -> None:
        """In the trash without journal, task and operation."""
        self.found("trash_orphan", self._trashed())

    def make_trash_move_unfinished(self) -> None:
        """A move to the trash that was cut short."""
        image_id = self._trashed()
        with opened(self.cluster, self.spec) as ioctx:
            entry = omap(ioctx, "rbd_trash")[f"id_{image_id}"]
            set_omap(ioctx, "rbd_trash", {f"id_{image_id}": entry[:-1] + b"\x01"})
        self.found("trash_move_unfinished", image_id)

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
