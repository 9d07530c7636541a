"""RBD groups, through which several images are snapshotted at one moment.

librbd's group snapshot takes the exclusive lock of every image and lets go of none before all of them are snapshotted,
so it is crash-consistent for images with that feature. Cloning what it made takes a clone call that accepts the id of
a snapshot (``rbd_clone4``), because names lead to users' own snapshots only: Tentacle has it, the others have not.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence

import rados
import rbd

from ..model.errors import Internal, NotReady
from ..model.groups import CUT, RbdGroup
from ..model.layout import Layout
from ..model.observed import Location
from . import omap
from .connection import Connection
from .header import decode_group, decode_string
from .images import Images

_DIRECTORY = "rbd_group_directory"
_MISSING = (rbd.ObjectNotFound, rbd.ImageNotFound)
_THERE = (rbd.ObjectExists, rbd.ImageExists)


def clone_takes_id() -> bool:
    """Tell whether this librbd binding can clone a snapshot by its id: its argument is no name then."""
    return "p_snapshot" in (rbd.RBD.clone.__doc__ or "").partition("\n")[0]


class Groups:
    """Groups of every pool and namespace; images and group are always of one location, as librbd wants it."""

    def __init__(self, connection: Connection, images: Images, log: logging.Logger) -> None:
        self._connection = connection
        self._images = images
        self._log = log
        self._rbd = rbd.RBD()

    # -- observing -----------------------------------------------------------------------------------------------

    def find(self, where: Location, name: str) -> RbdGroup | None:
        """Return a group by name, however far its making or removal has come. Two reads."""
        with self._connection.ioctx(where, f"reading group {where}/{name}") as ioctx:
            group_id = self._id(ioctx, name)
            if group_id is None:
                return None
            return decode_group(name, group_id, omap.get_all(ioctx, f"rbd_group_header.{group_id}") or {})

    def name_of(self, where: Location, group_id: str) -> str | None:
        """Return the name of the group of an id."""
        key = f"id_{group_id}"
        with self._connection.ioctx(where, f"reading groups of {where}") as ioctx:
            found = (omap.get_keys(ioctx, _DIRECTORY, [key]) or {}).get(key)
        return None if found is None else decode_string(found)

    # -- changing ------------------------------------------------------------------------------------------------

    def make(self, where: Location, name: str, images: Sequence[str]) -> None:
        """Make a group of images; a group of that name is no error. ``NotReady`` for an image that is in another."""
        with self._connection.ioctx(where, f"making group {where}/{name}") as ioctx:
            with contextlib.suppress(*_THERE):
                self._rbd.group_create(ioctx, name)
            group = rbd.Group(ioctx, name)
            for image in images:
                try:
                    group.add_image(ioctx, image)
                except _THERE:
                    raise NotReady(f"image {where}/{image} was put into another RBD group just now") from None
        self._log.info("rbd: group create %s/%s (images: %s)", where, name, ", ".join(images))

    def cut(self, where: Location, name: str, seals: Sequence[str]) -> None:
        """Snapshot all images of a group at one moment; ``seals`` are the clones that are to be made of it.

        A complete snapshot is no error; one that was never completed is removed first.
        """
        for seal in seals:
            self._images.order_seal(where, seal)
        found = self.find(where, name)
        if found is not None and found.cut:
            return
        with self._connection.ioctx(where, f"snapshotting group {where}/{name}") as ioctx:
            group = rbd.Group(ioctx, name)
            if found is not None and found.snapshots:
                group.remove_snap(CUT)
            group.create_snap(CUT)
        self._log.info("rbd: group snap create %s/%s@%s", where, name, CUT)

    def clone(self, where: Location, name: str, image: str, child: str, layout: Layout) -> None:
        """Clone what a group's snapshot holds of an image. An existing clone raises ``AlreadyExists``."""
        what = f"cloning {where}/{image} of group {name} to {child}"
        found, group = self._images.find(where, image), self.find(where, name)
        snaps = found.snaps if found is not None else ()
        snap = next((snap for snap in snaps if group is not None and snap.group_id == group.id), None)
        if snap is None:
            raise Internal(f"{what}: the image has no snapshot of the group")
        with self._connection.ioctx(where, what) as ioctx:
            self._rbd.clone(ioctx, image, snap.id, ioctx, child, clone_format=2, **layout.clone_arguments())
        self._log.info("rbd: clone %s/%s@%s %s/%s", where, image, snap.name, where, child)

    def drop(self, where: Location, name: str) -> None:
        """Remove a group with its snapshots; the images stay. One that is gone is no error.

        A member's snapshot that has a clone moves to librbd's trash namespace and goes when its last clone does.
        """
        found = self.find(where, name)
        if found is None:
            return
        with self._connection.ioctx(where, f"removing group {where}/{name}") as ioctx:
            group = rbd.Group(ioctx, name)
            for snap in found.snapshots:
                with contextlib.suppress(*_MISSING):
                    group.remove_snap(snap)
            with contextlib.suppress(*_MISSING):
                self._rbd.group_remove(ioctx, name)
        self._log.info("rbd: group remove %s/%s", where, name)

    @staticmethod
    def _id(ioctx: rados.Ioctx, name: str) -> str | None:
        key = f"name_{name}"
        found = (omap.get_keys(ioctx, _DIRECTORY, [key]) or {}).get(key)
        return None if found is None else decode_string(found)
