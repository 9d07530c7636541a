"""RBD images: observed through their headers, changed through librbd, moved to and found in the trash."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Mapping
from typing import Any

import rados
import rbd

from ..model.errors import NotFound, NotReady
from ..model.layout import Layout, feature_names
from ..model.names import Kind, parse_image_name
from ..model.observed import (
    FAST_DIFF,
    FEATURE_BITS,
    OBJECT_MAP,
    Entry,
    Image,
    Location,
    Parent,
    Snap,
    Trashed,
    Watcher,
)
from . import omap
from .clones import Clones
from .connection import Connection, MgrContext, clone_takes_format
from .handles import Handles
from .header import decode_image, decode_string, decode_trash
from .mending import cut_link, forget_watches, mend_map
from .methods import read_id
from .seals import Seals
from .usage import count_objects

_DIRECTORY = "rbd_directory"
_TRASH = "rbd_trash"


class Images:
    """Images of every pool and namespace. Names and ids are those of one :class:`Location`."""

    def __init__(self, connection: Connection, mgr: MgrContext, log: logging.Logger) -> None:
        self._connection = connection
        self._mgr = mgr
        self._log = log
        self._rbd = rbd.RBD()
        self._handles = Handles(log)
        self._seals = Seals(connection)
        self._clones = Clones(connection)
        self._clone_format = {"clone_format": 2} if clone_takes_format() else {}

    # -- observing -----------------------------------------------------------------------------------------------

    def find(self, where: Location, name: str) -> Image | None:
        """Return the image of that name outside of the trash, or None. Two reads, no watch, no lock."""
        with self._connection.ioctx(where, f"reading image {where}/{name}") as ioctx:
            image_id = read_id(ioctx, name)
            return None if image_id is None else self._load(ioctx, name, image_id, trashed=False)

    def id_of(self, where: Location, name: str) -> str | None:
        """Return the id of the image of that name outside of the trash, or None. One read."""
        with self._connection.ioctx(where, f"reading image {where}/{name}") as ioctx:
            return read_id(ioctx, name)

    def load(self, where: Location, name: str, image_id: str) -> Image | None:
        """Return the image of that id under a name that is known already, in one read; in the trash or not."""
        with self._connection.ioctx(where, f"reading image {where}/{name}") as ioctx:
            return self._load(ioctx, name, image_id, trashed=False)

    def reading(self, ioctx: rados.Ioctx, entry: Entry | None) -> omap.Reading:
        """Begin to read the header of an entry's image."""
        return omap.Reading(ioctx, f"rbd_header.{entry.image_id if entry is not None else ''}")

    def find_id(self, where: Location, image_id: str) -> Image | None:
        """Return the image of that id, in the trash or not, or None; of one that is half removed, what remains."""
        with self._connection.ioctx(where, f"reading image {where} id {image_id}") as ioctx:
            found = self._named(ioctx, image_id)
            if isinstance(found, Trashed):
                loaded = self._load(ioctx, found.name, image_id, trashed=found.moved)
                return loaded or Image.remains(found.name, image_id)
            return None if found is None else self._load(ioctx, found, image_id, trashed=False)

    def name_of(self, where: Location, image_id: str) -> tuple[str, bool] | None:
        """Return the name of the image of that id, and whether it is in the trash; None for none. One read, or two."""
        with self._connection.ioctx(where, f"reading the name of {where} id {image_id}") as ioctx:
            found = self._named(ioctx, image_id)
        if isinstance(found, Trashed):
            return found.name, found.moved
        return None if found is None else (found, False)

    def trashed(self, where: Location, image_id: str) -> Trashed | None:
        """Return an image's entry in the trash, or None."""
        with self._connection.ioctx(where, f"reading the trash of {where}") as ioctx:
            return self._trashed(ioctx, image_id)

    def partial(self, where: Location, name: str) -> str | None:
        """Return the id of an image that is there in name only: its creation was cut short before its header."""
        with self._connection.ioctx(where, f"reading image {where}/{name}") as ioctx:
            image_id = read_id(ioctx, name)
            if image_id is None:
                return self._listed_id(ioctx, name)
            return image_id if self._load(ioctx, name, image_id, trashed=False) is None else None

    def watchers(self, where: Location, image_id: str) -> tuple[Watcher, ...]:
        """Return who has the image open; empty when the image is gone. A read-only look leaves no watch of its own."""
        with self._connection.ioctx(where, f"listing watchers of {where} id {image_id}") as ioctx:
            try:
                with rbd.Image(ioctx, image_id=image_id, read_only=True) as image:
                    found = list(image.watchers_list())
            except rbd.ImageNotFound:
                return ()
        if not found:
            return ()
        own, cut_off = self._mgr.client_addresses(), self._mgr.blocklisted()

        def watcher(entry: Mapping[str, Any]) -> Watcher:
            address = re.sub(r"^(v1|v2|any):", "", entry["addr"])
            return Watcher(entry["addr"], int(entry["id"]), int(entry["cookie"]), address in own, address in cut_off)

        return tuple(map(watcher, found))

    def used(self, where: Location, image: Image) -> int | None:
        """Return the bytes that an image's own objects take at most, None when it has no object map to tell."""
        return self._counted(where, image) if image.features & OBJECT_MAP else None

    def exclusive(self, where: Location, image: Image) -> int | None:
        """Return the bytes that an image's objects take which no snapshot of it shares; None where nothing tells."""
        if not image.snaps:
            return self.used(where, image)
        return self._counted(where, image, changed=True) if image.features & FAST_DIFF else None

    def _counted(self, where: Location, image: Image, changed: bool = False) -> int | None:
        size = 1 << image.order
        with self._connection.ioctx(where, f"reading the object map of {where}/{image.name}") as ioctx:
            count = count_objects(ioctx, image.id, -(-image.size // size), changed)
        return None if count is None else min(count * size, image.size)

    def default_features(self) -> int:
        """Return the feature bits that librbd gives a new image."""
        with self._connection.handle("reading rbd_default_features") as handle:
            return _parse_features(str(handle.conf_get("rbd_default_features")))

    # -- changing ------------------------------------------------------------------------------------------------

    def create(self, where: Location, name: str, size: int, layout: Layout) -> None:
        """Create an empty image of ``size`` bytes. An existing one raises ``AlreadyExists``."""
        with self._connection.ioctx(where, f"creating image {where}/{name}") as ioctx:
            # Made together with the first image, so that images can be moved to the trash at the pool's quota.
            omap.ensure_object(ioctx, _TRASH)
            self._rbd.create(ioctx, name, size, old_format=False, **layout.arguments())
        self._log.info("rbd: create %s/%s (size: %d)", where, name, size)

    def clone(self, parent: Location, image: str, snap: str, where: Location, name: str, layout: Layout) -> None:
        """Clone ``image@snap`` (clone format 2) to a new image. An existing one raises ``AlreadyExists``."""
        if not self._clones.write(parent, image, snap, where, name, layout):
            self._clone(parent, image, snap, where, name, layout)
        features = ", ".join(feature_names(layout.features)) if layout.features else "default"
        self._log.info("rbd: clone %s/%s@%s %s/%s (features: [%s])", parent, image, snap, where, name, features)

    def _clone(self, parent: Location, image: str, snap: str, where: Location, name: str, layout: Layout) -> None:
        what = f"cloning {parent}/{image}@{snap} to {where}/{name}"
        with self._connection.ioctx(where, what) as child_ioctx, self._connection.ioctx(parent, what) as parent_ioctx:
            arguments = {**layout.clone_arguments(), **self._clone_format}
            try:
                self._rbd.clone(parent_ioctx, image, snap, child_ioctx, name, **arguments)
            except rbd.ImageNotFound:
                if not self._mend_snapshot(parent, image, snap):
                    raise
                self._rbd.clone(parent_ioctx, image, snap, child_ioctx, name, **arguments)

    def _mend_snapshot(self, where: Location, image: str, snap: str) -> bool:
        """Give a snapshot that a crash cut what it misses; returns whether it missed anything."""
        found = self.find(where, image)
        with self._connection.ioctx(where, f"looking at snapshot {where}/{image}@{snap}") as ioctx:
            mended = found is not None and mend_map(ioctx, found, snap)
        if mended:
            self._log.warning("rbd: %s/%s@%s had no object map: its creation was cut. Made one", where, image, snap)
        return mended

    def cut(self, where: Location, image: str, snap: str) -> None:
        """Snapshot an image, which stays open until :meth:`drop` or :meth:`let_go` of that snapshot.

        A snapshot of that name that is there already is no error.
        """
        what = f"snapshotting {where}/{image}"
        with contextlib.ExitStack() as opened:
            ioctx = opened.enter_context(self._connection.ioctx(where, what))
            handle = opened.enter_context(rbd.Image(ioctx, image))
            self.order_seal(where, snap)
            with contextlib.suppress(rbd.ImageExists):
                handle.create_snap(snap)
                self._log.info("rbd: snap create %s/%s@%s", where, image, snap)
            self._handles.keep(_key(where, snap), handle, opened.pop_all())

    def drop(self, where: Location, image_id: str, snap: str) -> None:
        """Remove a snapshot of an image, in the trash or not; an absent one is no error.

        With a linked clone it moves to librbd's trash namespace and goes when its last clone does.
        """
        with self._connection.ioctx(where, f"removing snapshot {snap} in {where}") as ioctx:
            try:
                with self._handles.taken(_key(where, snap)) as kept:
                    if kept is not None:
                        kept.remove_snap(snap)
                        name = kept.get_name()
                    else:
                        with rbd.Image(ioctx, image_id=image_id) as handle:
                            handle.remove_snap(snap)
                            name = handle.get_name()
            except rbd.ImageNotFound:
                self._refuse_hidden(ioctx, where, image_id, lambda image: image.snap(snap) is not None)
                return
        self._log.info("rbd: snap rm %s/%s@%s", where, name or image_id, snap)

    def let_go(self, where: Location, snap: str) -> None:
        """Close the image that a cut left open; one that is closed already is no error."""
        with self._handles.taken(_key(where, snap)):
            pass

    def seal(self, where: Location, image: str) -> None:
        """Snapshot a clone under its own name; one that is there is no error, and made whole if a crash cut it."""
        found = self.find(where, image)
        if found is None:
            raise NotFound(f"image {where}/{image} does not exist")
        if found.snap(image) is not None:
            self._mend_snapshot(where, image, image)
            return
        if not self._seals.take(where, found, image):
            with (
                self._connection.ioctx(where, f"sealing {where}/{image}") as ioctx,
                rbd.Image(ioctx, image) as handle,
                contextlib.suppress(rbd.ImageExists),
            ):
                handle.create_snap(image)
        self._log.info("rbd: snap create %s/%s@%s", where, image, image)

    def order_seal(self, where: Location, snap: str) -> None:
        """Order the snapshot id for the seal of the clone that a cut is made for."""
        named = parse_image_name(snap)
        if named is not None and named[0] is Kind.SNAPSHOT:
            self._seals.order(where, snap)

    def purge(self, where: Location, image_id: str, snap_id: int) -> None:
        """Remove a snapshot from librbd's trash namespace, where an interrupted removal left it; gone is no error."""
        with self._connection.ioctx(where, f"removing snapshot id {snap_id} in {where}") as ioctx:
            try:
                with rbd.Image(ioctx, image_id=image_id) as handle:
                    handle.remove_snap_by_id(snap_id)
                    name = handle.get_name()
            except rbd.ImageNotFound:
                self._refuse_hidden(ioctx, where, image_id, lambda image: image.snap_by_id(snap_id) is not None)
                return
        self._log.info("rbd: snap rm %s/%s, snapshot id %d", where, name or image_id, snap_id)

    def resize(self, where: Location, name: str, size: int) -> None:
        """Grow an image to ``size`` bytes."""
        with self._connection.ioctx(where, f"resizing {where}/{name}") as ioctx, rbd.Image(ioctx, name) as image:
            image.resize(size, False)
        self._log.info("rbd: resize %s/%s to %d", where, name, size)

    def remove_unfinished(self, where: Location, name: str, image_id: str) -> None:
        """Remove an image that was never finished, whatever there is of it; gone is no error.

        librbd's own removal moves an image to the trash as well, but in a form that it does not list and whose move it
        does not take up again when that was cut. So the move is one of the ordinary kind, which both hold for.
        """
        with self._connection.ioctx(where, f"removing {where}/{name}") as ioctx:
            unlisted = read_id(ioctx, name) == image_id and self._listed_id(ioctx, name) is None
            if unlisted and self._load(ioctx, name, image_id, trashed=False) is None:
                # The id object is what a creation writes first; librbd does not find an image by it alone.
                omap.remove_object(ioctx, f"rbd_id.{name}")
        self.trash(where, name)
        self.remove_trashed(where, image_id)

    def trash(self, where: Location, name: str, seconds: int = 0) -> None:
        """Move an image to the trash; one that is not there (any more) is no error.

        For ``seconds`` librbd itself protects it from being removed.
        """
        with self._connection.ioctx(where, f"moving {where}/{name} to the trash") as ioctx:
            # librbd answers "not found" as well when it can't create this object, at the pool's quota for one.
            omap.ensure_object(ioctx, _TRASH)
            try:
                self._rbd.trash_move(ioctx, name, seconds)
            except rbd.ImageNotFound:
                if read_id(ioctx, name) is not None or self._listed_id(ioctx, name) is not None:
                    raise NotReady(f"moving {where}/{name} to the trash failed halfway") from None
                return
        self._log.info("rbd: trash move %s/%s", where, name)

    def removal_needs(self, where: Location, image_id: str) -> tuple[tuple[int, str, str] | None, int]:
        """Return the parent (pool id, namespace, id) if a snapshot of it goes too, and how many objects may go."""
        image = self.load(where, "", image_id)
        if image is None:
            return None, 0
        objects = -(-image.size >> image.order)
        link = image.parent
        if link is None:
            return None, objects
        snap = self._above(link)
        taken_along = snap is not None and snap.original_name is not None
        return (link.pool_id, link.namespace, link.image_id) if taken_along else None, objects

    def flatten(self, where: Location, image_id: str) -> None:
        """Copy what an image shares with its parent and cut the link; one without a parent, or gone, is no error."""
        with self._connection.ioctx(where, f"flattening {where} id {image_id}") as ioctx:
            try:
                with rbd.Image(ioctx, image_id=image_id) as image:
                    name = image.get_name()
                    image.flatten()  # without a progress callback: Python callbacks from librbd can crash the mgr
            except rbd.InvalidArgument:
                return
            except rbd.ImageNotFound:
                self._refuse_hidden(ioctx, where, image_id, lambda image: image.parent is not None)
                return
        self._log.info("rbd: flatten %s/%s", where, name or image_id)

    def finish_flatten(self, where: Location, image_id: str) -> bool:
        """Finish a flattening that was cut just before its end; False when there is nothing of that kind."""
        image = self.load(where, "", image_id)
        link = image.parent if image is not None else None
        if image is None or link is None or self._above(link) is not None:
            return False
        with self._connection.ioctx(where, f"finishing the flattening of {where} id {image_id}") as ioctx:
            cut_link(ioctx, image)
        self._log.warning("rbd: %s id %s was flattened all but its link to a snapshot that is gone", where, image_id)
        return True

    def _above(self, link: Parent) -> Snap | None:
        """Return the snapshot that a clone's link leads to; None when it is gone."""
        parent = self.load(Location(link.pool_id, "", link.namespace), "", link.image_id)
        return None if parent is None else parent.snap_by_id(link.snap_id)

    def _refuse_hidden(self, ioctx: rados.Ioctx, where: Location, image_id: str, left: Callable[[Image], bool]) -> None:
        """Raise ``NotReady`` for an image that librbd does not find although it is there, with work left to do."""
        found = self._load(ioctx, "", image_id, trashed=False)
        if found is not None and left(found):
            raise NotReady(f"image {where} id {image_id}, or one above it, is just being flattened")

    def restore(self, where: Location, image_id: str, name: str) -> None:
        """Bring an image back from the trash under a name; one that is not in the trash (any more) is no error."""
        with self._connection.ioctx(where, f"restoring image id {image_id} in {where} as {name}") as ioctx:
            try:
                self._rbd.trash_restore(ioctx, image_id, name)
            except (rbd.ImageNotFound, rbd.InvalidArgument):
                # librbd says "invalid argument" of what is in no state to be restored, such as restored already.
                if read_id(ioctx, name) != image_id:
                    raise
                return
        self._log.info("rbd: trash restore %s/%s as %s", where, image_id, name)

    def remove_trashed(self, where: Location, image_id: str) -> None:
        """Remove an image from the trash with all its data; one that is gone is no error.

        Only its entry tells whether it is gone. librbd reports success as well when all went but the entry, because the
        monitors cut this client off just then for one (trash/RemoveRequest.cc), and "not found" when somebody else is
        at the same image, who may never get as far as the entry.
        """
        with self._connection.ioctx(where, f"removing image id {image_id} from the trash of {where}") as ioctx:
            removed = False
            with contextlib.suppress(rbd.ImageNotFound):
                try:
                    # No progress callback: Python callbacks from librbd can crash the mgr.
                    self._rbd.trash_remove(ioctx, image_id, force=True)
                except rbd.ImageBusy as error:
                    # Who has it open passes: a dead client's watch lasts half a minute, or until it is forgotten.
                    found = self.watchers(where, image_id)
                    who = ", ".join(f"{watcher.address} (client.{watcher.client})" for watcher in found) or "-"
                    dead = bool(found) and all(watcher.dead for watcher in found)
                    if not dead or not self._forget_watches(where, image_id, who):
                        raise NotReady(f"image id {image_id} in the trash of {where} is busy; open at {who}") from error
                    self._rbd.trash_remove(ioctx, image_id, force=True)
                removed = True
            if self._trashed(ioctx, image_id) is not None:
                raise NotReady(f"removing image id {image_id} from the trash of {where} stopped before its entry there")
        if removed:
            self._log.info("rbd: trash remove %s/%s", where, image_id)

    def _forget_watches(self, where: Location, image_id: str, who: str) -> bool:
        """End the watches of dead clients on an image in the trash; False when that did not work."""
        what = f"ending watches of image id {image_id} in the trash of {where}"
        with self._connection.handle(what) as handle, handle.open_ioctx2(where.pool_id) as own:
            own.set_namespace(where.namespace)
            done = forget_watches(own, image_id)
        if done:
            self._log.warning("%s: %s, which the monitors have blocklisted", what, who)
        return done

    def close(self) -> None:
        """Close the images that are still open."""
        self._handles.close()

    # -- pools and namespaces ------------------------------------------------------------------------------------

    def namespace_exists(self, where: Location) -> bool:
        """Tell whether the RADOS namespace is one that ``rbd namespace create`` made."""
        if not where.namespace:
            return True
        root = Location(where.pool_id, where.pool)
        with self._connection.ioctx(root, f"reading the namespaces of {where.pool}") as ioctx:
            return bool(self._rbd.namespace_exists(ioctx, where.namespace))

    def namespaces(self, pool_id: int, pool: str) -> list[str]:
        """Return the names of the pool's namespaces, without the default one."""
        with self._connection.ioctx(Location(pool_id, pool), f"reading the namespaces of {pool}") as ioctx:
            return [str(name) for name in self._rbd.namespace_list(ioctx)]

    # -- inner ---------------------------------------------------------------------------------------------------

    @staticmethod
    def _named(ioctx: rados.Ioctx, image_id: str) -> str | Trashed | None:
        """Return the name that the directory lists an image by, or its entry in the trash."""
        key = f"id_{image_id}"
        listed = (omap.get_keys(ioctx, _DIRECTORY, [key]) or {}).get(key)
        return Images._trashed(ioctx, image_id) if listed is None else decode_string(listed)

    @staticmethod
    def _trashed(ioctx: rados.Ioctx, image_id: str) -> Trashed | None:
        key = f"id_{image_id}"
        value = (omap.get_keys(ioctx, _TRASH, [key]) or {}).get(key)
        return None if value is None else decode_trash(image_id, value)

    @staticmethod
    def _listed_id(ioctx: rados.Ioctx, name: str) -> str | None:
        """Return the id that the directory lists an image with."""
        key = f"name_{name}"
        value = (omap.get_keys(ioctx, _DIRECTORY, [key]) or {}).get(key)
        return None if value is None else decode_string(value)

    @staticmethod
    def _load(ioctx: rados.Ioctx, name: str, image_id: str, trashed: bool) -> Image | None:
        values = omap.get_all(ioctx, f"rbd_header.{image_id}")
        return decode_image(name, image_id, values, trashed) if values else None


def _key(where: Location, snap: str) -> tuple[int, str, str]:
    return where.pool_id, where.namespace, snap


def _parse_features(text: str) -> int:
    """Parse ``rbd_default_features``: a number or comma-separated names."""
    if text.isdigit():
        return int(text)
    return sum(FEATURE_BITS.get(name.strip(), 0) for name in text.split(","))
