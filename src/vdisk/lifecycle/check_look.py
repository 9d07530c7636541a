"""How a check looks: at one subject at a time, with keyed reads, and with an eye on what is only under way.

The same judges look during the scan, once more when it is over, and just before a repair acts; so a repair can never
act on something that has changed since.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..model.findings import Finding, Subject, Trouble
from ..model.names import Kind, parse_image_name
from ..model.observed import Image, Location, Parent, Task
from . import chains
from .base import View
from .steps import Step

_TEMP = "-temp"


@dataclass(frozen=True)
class Limits:
    """From where on a chain of clones, an image's snapshots and a directory are found too large.

    The first two are halfway between the bounds that the guards of requests have.
    """

    depth: int = 6
    snapshots: int = 350
    keys: int = 150_000


@dataclass(frozen=True)
class Verdict:
    """A finding and the steps that would repair it; none where nothing can be done."""

    finding: Finding
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True)
class Look:
    """A view of one location. Times in seconds since the epoch.

    What is younger than ``grace`` seconds may be the work of a driver that is just doing it. ``busy`` are uuids, image
    names and image ids that vdisk's own operations have in hand. ``sole`` says that the journal has one instance, so
    that a name can only be missing from that one. ``tasks`` are rbd_support's.
    """

    view: View
    where: Location
    now: float
    grace: float = 0.0
    busy: frozenset[str] = frozenset()
    sole: bool = True
    limits: Limits = field(default_factory=Limits)
    tasks: tuple[Task, ...] = ()
    depths: dict[chains.Key, int] = field(default_factory=dict)
    """Lengths of chains that are known already."""
    snaps: dict[chains.Key, frozenset[int]] = field(default_factory=dict)
    """Ids of the snapshots that parents were seen to have: an image with many clones is read once."""

    def young(self, moment: float | None) -> bool:
        """Tell whether a moment is so near that what happened then may not be over."""
        return moment is not None and self.now - moment < self.grace

    def young_object(self, oid: str) -> bool:
        """Tell whether an object was written just now."""
        return self.grace > 0 and self.young(self.view.modified(self.where, oid))

    def in_hand(self, *words: str | None) -> bool:
        """Tell whether an operation of vdisk has one of these in hand."""
        return any(word in self.busy for word in words if word)

    def tasked(self, image_id: str) -> bool:
        """Tell whether rbd_support has a task for an image of this location."""
        place = (self.where.pool, self.where.namespace, image_id)
        return any((task.pool, task.namespace, task.image) == place for task in self.tasks)

    def used(self, image: Image) -> int | None:
        """Return the bytes that an image's objects take, None where its object map can't tell."""
        return self.view.used(self.where, image)

    def linked(self, image: Image) -> bool:
        """Tell whether an image is a clone that its parent knows."""
        link = image.parent
        if link is None:
            return False
        above = chains.parent_of(link, self.view.find_id)
        children = above.children if above is not None else ()
        return any(
            (child.pool_id, child.namespace, child.image_id) == (self.where.pool_id, self.where.namespace, image.id)
            for child in children
        )

    def above(self, link: Parent) -> tuple[bool, bool]:
        """Tell whether the image that a clone's link leads to is there, and whether its snapshot is."""
        key = (link.pool_id, link.namespace, link.image_id)
        if link.snap_id in self.snaps.get(key, ()):
            return True, True
        parent = chains.parent_of(link, self._load)
        return parent is not None, parent is not None and parent.snap_by_id(link.snap_id) is not None

    def depth(self, image: Image) -> int:
        """Return how many parents an image has, through the trash and across pools."""
        return chains.depth(image, self._load, self.depths)

    def _load(self, where: Location, image_id: str) -> Image | None:
        """Return an image above another, and remember its snapshots."""
        image = self.view.find_id(where, image_id)
        if image is not None:
            self.snaps[where.pool_id, where.namespace, image_id] = frozenset(snap.id for snap in image.snaps)
        return image


def finding(
    look: Look,
    trouble: Trouble,
    subject: Subject,
    objects: list[str],
    cause: str,
    repair: str | None,
    risk: str,
    *,
    automatic: bool = False,
    held: int | None = None,
    **evidence: Any,
) -> Finding:
    """Make a finding of what was looked at."""
    return Finding(
        trouble, look.where, subject, tuple(objects), cause, repair, risk,
        automatic and repair is not None, held, evidence,
    )  # fmt: skip


def csi_uuid(name: str) -> tuple[Kind, str] | None:
    """Return (kind, uuid) of an image or snapshot name that drivers give, ``-temp`` ones included."""
    return parse_image_name(name.removesuffix(_TEMP))


def is_temp(name: str) -> bool:
    """Tell whether a name is that of a temporary clone, ``csi-vol-<uuid>-temp``."""
    return name.endswith(_TEMP) and csi_uuid(name) is not None
