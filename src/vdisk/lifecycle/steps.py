"""The steps that plans are made of. Each is plain data and idempotent; ``engine.executor`` carries them out.

Names of images are names outside of the trash, ids hold in the trash too. Every step says where it acts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..model.layout import Layout
from ..model.names import Kind
from ..model.objects import rfc3339
from ..model.observed import Location
from ..model.records import Store


@dataclass(frozen=True)
class Step:
    """Base of all steps."""

    where: Location

    @property
    def name(self) -> str:
        """The step's stable name, such as ``reserve-name``, for ``op info``, ``--dry-run`` and failpoints."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", type(self).__name__).lower()

    def describe(self) -> str:
        """One line for a person."""
        raise NotImplementedError


@dataclass(frozen=True)
class ReserveName(Step):
    """Insert the directory key only if it is absent. Somebody else's uuid there means planning anew."""

    kind: Kind
    request_name: str
    uuid: str

    def describe(self) -> str:
        """One line for a person."""
        return f"reserve {self.kind.value} name {self.request_name} for {self.uuid} in {self.where}"


@dataclass(frozen=True)
class WriteEntry(Step):
    """Create the journal object with its keys."""

    kind: Kind
    uuid: str
    values: tuple[tuple[str, str], ...]

    def describe(self) -> str:
        """One line for a person."""
        return f"write {self.kind.object(self.uuid)} in {self.where}: " + ", ".join(
            f"{key}={value}" for key, value in self.values
        )


@dataclass(frozen=True)
class CreateImage(Step):
    """Create an empty image."""

    image: str
    size: int
    layout: Layout

    def describe(self) -> str:
        """One line for a person."""
        return f"create image {self.where}/{self.image} of {self.size} bytes"


@dataclass(frozen=True)
class CutSnapshot(Step):
    """Snapshot the source of a clone under the clone's name; it goes again once the clone is linked."""

    image: str
    snap: str

    def describe(self) -> str:
        """One line for a person."""
        return f"snapshot {self.where}/{self.image}@{self.snap}"


@dataclass(frozen=True)
class CloneImage(Step):
    """Clone ``parent/image@snap`` (clone format 2) to ``where/child``."""

    parent: Location
    image: str
    snap: str
    child: str
    layout: Layout

    def describe(self) -> str:
        """One line for a person."""
        return f"clone {self.parent}/{self.image}@{self.snap} to {self.where}/{self.child}"


@dataclass(frozen=True)
class MakeGroup(Step):
    """Make the RBD group that several images are snapshotted through."""

    group: str
    images: tuple[str, ...]

    def describe(self) -> str:
        """One line for a person."""
        return f"make RBD group {self.where}/{self.group} of {', '.join(self.images)}"


@dataclass(frozen=True)
class CutGroup(Step):
    """Snapshot all images of an RBD group at one moment; ``seals`` are the clones that it is for."""

    group: str
    seals: tuple[str, ...]

    def describe(self) -> str:
        """One line for a person."""
        return f"snapshot all images of RBD group {self.where}/{self.group} at one moment"


@dataclass(frozen=True)
class CloneMember(Step):
    """Clone what the group's snapshot holds of an image."""

    group: str
    image: str
    child: str
    layout: Layout

    def describe(self) -> str:
        """One line for a person."""
        return f"clone {self.where}/{self.image} as RBD group {self.group} holds it to {self.where}/{self.child}"


@dataclass(frozen=True)
class DropGroup(Step):
    """Remove an RBD group and its snapshot; what has clones of that goes when they do."""

    group: str

    def describe(self) -> str:
        """One line for a person."""
        return f"remove RBD group {self.where}/{self.group} and its snapshot"


@dataclass(frozen=True)
class GrowImage(Step):
    """Grow an image to ``size`` bytes."""

    image: str
    size: int

    def describe(self) -> str:
        """One line for a person."""
        return f"grow {self.where}/{self.image} to {self.size} bytes"


@dataclass(frozen=True)
class StoreImageId(Step):
    """Store ``csi.imageid``: from here on the image counts as complete."""

    kind: Kind
    uuid: str
    image: str

    def describe(self) -> str:
        """One line for a person."""
        return f"store the id of image {self.where}/{self.image} in {self.kind.object(self.uuid)}"


@dataclass(frozen=True)
class DropSnapshot(Step):
    """Remove a snapshot of the image with that id, in the trash or not; with linked clones it goes when they do."""

    image_id: str
    snap: str

    def describe(self) -> str:
        """One line for a person."""
        return f"remove snapshot {self.snap} of image id {self.image_id} in {self.where}"


@dataclass(frozen=True)
class PurgeSnapshot(Step):
    """Remove a snapshot that an interrupted removal left in librbd's trash namespace with no clone on it."""

    image_id: str
    snap_id: int

    def describe(self) -> str:
        """One line for a person."""
        return f"remove trashed snapshot id {self.snap_id} of image id {self.image_id} in {self.where}"


@dataclass(frozen=True)
class Seal(Step):
    """Snapshot the clone under its own name: what restores are made from, and what remains."""

    image: str

    def describe(self) -> str:
        """One line for a person."""
        return f"seal {self.where}/{self.image} with a snapshot of the same name"


@dataclass(frozen=True)
class RemoveUnfinished(Step):
    """Remove an image whose creation this very operation began and never finished.

    It goes through the trash. A removal that is cut there leaves an image without its name, so the step has the id.
    """

    image: str
    image_id: str

    def describe(self) -> str:
        """One line for a person."""
        return f"remove unfinished image {self.where}/{self.image}"


@dataclass(frozen=True)
class TrashImage(Step):
    """Move an image to the trash; until ``until`` (seconds since the epoch) librbd lets nobody remove it."""

    image: str
    until: float = 0.0

    def describe(self) -> str:
        """One line for a person."""
        kept = f", kept until {rfc3339(self.until)}" if self.until else ""
        return f"move {self.where}/{self.image} to the trash{kept}"


@dataclass(frozen=True)
class FlattenImage(Step):
    """Have rbd_support flatten an image, one at a time cluster-wide, and wait until it has no parent any more."""

    image: str
    image_id: str

    def describe(self) -> str:
        """One line for a person."""
        return f"rbd task add flatten {self.where}/{self.image}, and wait for it"


@dataclass(frozen=True)
class RestoreImage(Step):
    """Bring an image back from the trash under a name."""

    image_id: str
    image: str

    def describe(self) -> str:
        """One line for a person."""
        return f"restore image id {self.image_id} from the trash of {self.where} as {self.image}"


@dataclass(frozen=True)
class PutRecord(Step):
    """Write one of vdisk's own records."""

    store: Store
    key: str
    value: str

    def describe(self) -> str:
        """One line for a person."""
        return f"write {self.key} in {self.store.value} of {self.where}"


@dataclass(frozen=True)
class EraseRecord(Step):
    """Erase one of vdisk's own records."""

    store: Store
    key: str

    def describe(self) -> str:
        """One line for a person."""
        return f"erase {self.key} from {self.store.value} of {self.where}"


@dataclass(frozen=True)
class EraseRecords(Step):
    """Erase all of vdisk's own records whose keys begin so."""

    store: Store
    prefix: str

    def describe(self) -> str:
        """One line for a person."""
        return f"erase {self.prefix}* from {self.store.value} of {self.where}"


@dataclass(frozen=True)
class CancelTask(Step):
    """Cancel a task of rbd_support's."""

    task_id: str

    def describe(self) -> str:
        """One line for a person."""
        return f"rbd task cancel {self.task_id}"


@dataclass(frozen=True)
class RemoveEntry(Step):
    """Remove the journal object."""

    kind: Kind
    uuid: str

    def describe(self) -> str:
        """One line for a person."""
        return f"remove {self.kind.object(self.uuid)} from {self.where}"


@dataclass(frozen=True)
class ReleaseName(Step):
    """Remove the directory key if it still leads to this uuid."""

    kind: Kind
    request_name: str
    uuid: str

    def describe(self) -> str:
        """One line for a person."""
        return f"release {self.kind.value} name {self.request_name} in {self.where}"


@dataclass(frozen=True)
class Answer(Step):
    """From here on the command's answer is true; the rest happens in the background."""

    def describe(self) -> str:
        """One line for a person."""
        return "answer; what follows happens in the background"


@dataclass(frozen=True)
class AwaitChildren(Step):
    """Wait until no clone hangs on the trashed image any more."""

    image_id: str

    def describe(self) -> str:
        """One line for a person."""
        return f"wait until nothing hangs on image id {self.image_id} in the trash of {self.where}"


@dataclass(frozen=True)
class QueueRemoval(Step):
    """Give the trashed image to rbd_support's task queue, which removes it and its data."""

    image_id: str

    def describe(self) -> str:
        """One line for a person."""
        return f"rbd task add trash remove {self.where}/{self.image_id}"
