"""What the engine and the service need of the cluster, as protocols; ``cluster/`` has the real thing, tests a fake."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from ..lifecycle.base import View
from ..model.layout import Layout
from ..model.names import Kind
from ..model.observed import Entry, Image, Location, Trashed
from ..model.records import Store
from ..model.specs import PoolSpec


class Effects(Protocol):
    """What steps do. Every method is idempotent as its step says; errors are those of the model."""

    def fence(self) -> None:
        """Make sure that a failover would stop what is written from here."""

    def reserve(self, where: Location, kind: Kind, name: str, uuid: str) -> bool:
        """Insert a directory key if absent."""

    def write_entry(self, where: Location, kind: Kind, uuid: str, values: Mapping[str, str]) -> None:
        """Create a journal object or add keys to it."""

    def remove_entry(self, where: Location, kind: Kind, uuid: str) -> None:
        """Remove a journal object."""

    def release(self, where: Location, kind: Kind, name: str, uuid: str) -> None:
        """Remove a directory key that leads to ``uuid``."""

    def create_image(self, where: Location, name: str, size: int, layout: Layout) -> None:
        """Create an empty image."""

    def clone_image(self, parent: Location, image: str, snap: str, where: Location, name: str, layout: Layout) -> None:
        """Clone a snapshot to a new image."""

    def cut(self, where: Location, image: str, snap: str) -> None:
        """Snapshot an image."""

    def let_go(self, where: Location, snap: str) -> None:
        """Give back what a cut keeps for the removal of its snapshot; nothing kept is no error."""

    def seal(self, where: Location, image: str) -> None:
        """Snapshot an image under its own name."""

    def drop(self, where: Location, image_id: str, snap: str) -> None:
        """Remove a snapshot."""

    def purge(self, where: Location, image_id: str, snap_id: int) -> None:
        """Remove a snapshot from librbd's trash namespace."""

    def make_group(self, where: Location, group: str, images: Sequence[str]) -> None:
        """Make an RBD group of images."""

    def cut_group(self, where: Location, group: str, seals: Sequence[str]) -> None:
        """Snapshot all images of an RBD group at one moment; ``seals`` are the clones that are to be made of that."""

    def clone_member(self, where: Location, group: str, image: str, name: str, layout: Layout) -> None:
        """Clone what a group's snapshot holds of an image to a new image."""

    def drop_group(self, where: Location, group: str) -> None:
        """Remove an RBD group with its snapshots; one that is gone is no error."""

    def grow(self, where: Location, image: str, size: int) -> None:
        """Grow an image."""

    def remove_unfinished(self, where: Location, image: str, image_id: str) -> None:
        """Remove an image that was never finished, wherever an interrupted removal left it."""

    def trash(self, where: Location, image: str, seconds: int = 0) -> None:
        """Move an image to the trash, where librbd protects it from being removed for so long."""

    def flatten(self, where: Location, image: str, image_id: str) -> None:
        """Begin to flatten an image, in the trash or not; one that is being flattened already is no error."""

    def flatten_progress(self, where: Location, image: str) -> float:
        """Return how much of an image rbd_support has flattened (0 to 1); 0 where that is not known."""

    def restore_image(self, where: Location, image_id: str, name: str) -> None:
        """Bring an image back from the trash under a name."""

    def put_records(self, where: Location, store: Store, records: Mapping[str, str]) -> None:
        """Write or replace records."""

    def erase_records(self, where: Location, store: Store, keys: list[str]) -> None:
        """Erase records."""

    def erase_prefix(self, where: Location, store: Store, prefix: str) -> None:
        """Erase all records whose keys begin with ``prefix``."""

    def queue_removal(self, where: Location, image_id: str) -> str | None:
        """Give a trashed image to rbd_support; returns the task id, None when the image is gone."""

    def may_queue(self, where: Location, image_id: str) -> bool:
        """Tell whether rbd_support can be given a trashed image."""

    def tasks_of(self, where: Location) -> Mapping[str, str]:
        """Return the images of a pool and namespace that rbd_support is to remove from the trash: id → task id."""

    def failed_tasks(self) -> Mapping[str, str]:
        """Return the tasks of rbd_support that failed and are to be tried again: id → reason."""

    def cancel_task(self, task_id: str) -> None:
        """Cancel a task of rbd_support; one that is gone is no error."""

    def removal_needs(self, where: Location, image_id: str) -> tuple[tuple[int, str, str] | None, int]:
        """Return what the removal of a trashed image takes: whose lock besides its own, and how many objects.

        The lock is that of an image (pool id, namespace, id), or None.
        """

    def remove_trashed(self, where: Location, image_id: str) -> None:
        """Remove an image from the trash with its data; one that is gone is no error."""


class Intents(Protocol):
    """Where durable intents are kept."""

    def put_intent(self, where: Location, op_id: str, value: str) -> None:
        """Write or replace an intent."""

    def erase_intent(self, where: Location, op_id: str) -> None:
        """Erase an intent."""

    def load_intents(self, where: Location) -> dict[str, str]:
        """Return the intents of a location."""


class Directory(Protocol):
    """How the service finds and lists things."""

    def locate(self, spec: PoolSpec) -> Location:
        """Resolve a pool and namespace."""

    def pool_name(self, pool_id: int) -> str | None:
        """Return a pool's name."""

    def namespaces(self, pool_id: int, pool: str) -> list[str]:
        """Return a pool's namespaces without the default one."""

    def rbd_pools(self) -> list[Location]:
        """Return every pool for RBD images."""

    def names(self, where: Location, kind: Kind, after: str, limit: int) -> list[tuple[str, str]]:
        """Return a page of (request name, uuid)."""

    def things(
        self, where: Location, kind: Kind, after: str, limit: int, source: str | None = None
    ) -> list[tuple[str, str, Entry | None, Image | None]]:
        """Return a page of (request name, uuid, journal entry, image).

        With ``source`` only the images of snapshots of that image are looked at.
        """

    def count_names(self, where: Location, kind: Kind, limit: int) -> int:
        """Count the names in a directory, no further than ``limit``."""

    def entries(self, where: Location, kind: Kind, uuids: Sequence[str]) -> list[Entry | None]:
        """Return many journal objects in their order; what is read of each is read side by side."""

    def image_of(self, where: Location, entry: Entry) -> Image | None:
        """Return an entry's image by its stored id, in one read."""


class Surveys(Protocol):
    """What a check goes through, page by page."""

    def survey_journal(self, where: Location) -> Iterator[tuple[Kind, str] | str]:
        """Yield (kind, uuid) of every journal object, and the instance of every directory object."""

    def survey_images(self, where: Location) -> Iterator[tuple[str, str]]:
        """Yield (name, image id) of every image outside of the trash."""

    def load_image(self, where: Location, name: str, image_id: str) -> Image | None:
        """Return the image of that id under a name that is known already, in one read."""

    def survey_groups(self, where: Location) -> Iterator[str]:
        """Yield the name of every RBD group."""

    def survey_trash(self, where: Location, after: str = "") -> Iterator[Trashed]:
        """Yield every entry of the trash that follows the image id ``after``, in the order of ids."""

    def survey_records(self, where: Location, store: Store, after: str = "") -> Iterator[tuple[str, str]]:
        """Yield every (key, record) of a store that follows the key ``after``, in the order of keys."""


class Figures(Protocol):
    """What the cluster knows of its own use."""

    def exclusive(self, where: Location, image: Image) -> int | None:
        """Return the bytes of an image's objects that no snapshot of it shares; None where nothing tells."""

    def pool_usage(self, pool_id: int) -> tuple[int, int]:
        """Return (bytes stored, bytes that can still be stored) of a pool; may be some seconds old."""

    def reconnected(self) -> int:
        """Return how many times the data connection had to be made anew, because it was blocklisted."""


class Cluster(View, Effects, Intents, Directory, Surveys, Figures, Protocol):
    """All of it."""

    def close(self) -> None:
        """Give the connections back."""
