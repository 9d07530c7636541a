"""What the four creating operations share: reservation, completeness, conflicts, and undoing.

A creation reserves the name (directory key, then journal object), makes the image, and stores ``csi.imageid``. A
stored id means that the image is complete. Without one, an image under a uuid that this very request proposed is its
own unfinished work and is made anew; an image under anyone else's uuid is somebody's data and is never touched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

from ..model.errors import AlreadyExists, Internal, NotFound
from ..model.layout import Layout, check_size, check_striping, layout_differences
from ..model.names import IMAGE_NAME_KEY, SOURCE_KEY
from ..model.observed import Entry, Image, Location
from .base import Lock, Plan, Request, View, image_lock, name_lock
from .steps import ReleaseName, RemoveEntry, RemoveUnfinished, ReserveName, Step, StoreImageId, WriteEntry


@dataclass(frozen=True)
class Creation(Request):
    """A request that makes a volume or snapshot."""

    creates: ClassVar[bool] = True

    @property
    def unfinished_id(self) -> str:
        """The id of an image that an earlier try of this request began, a last field with the default "" below.

        The plan that removes the image settles it: a removal that is cut in the trash leaves nothing else that leads
        there. (Keyword-only fields, with which it would be a field of this class, came with Python 3.10.)
        """
        raise NotImplementedError


R = TypeVar("R", bound=Creation)


def _settled(request: R, image_id: str | None) -> R:
    return replace(request, unfinished_id=image_id or "")  # type: ignore[call-arg]  # a field of each class of R


def new_locks(request: Request) -> list[Lock]:
    """Locks of the name and of the image that a request makes.

    Until the answer nobody else uses the image: one that turns out unfinished is removed and made anew, and a snapshot
    or clone of it would be in the way.
    """
    return [
        name_lock(request.where, request.target, request.name, to_the_end=True),
        image_lock(request.where, request.image),
    ]


@dataclass(frozen=True)
class Reservation:
    """What exists under a request's name. ``own`` tells that this very request made the reservation.

    ``image`` is the image of that name, ``partial`` the id of one that is there in name only, and ``unfinished`` the id
    of what an earlier try of this request left, by name or in the trash.
    """

    uuid: str | None
    own: bool
    entry: Entry | None
    image: Image | None
    partial: str | None
    unfinished: str | None = None

    @property
    def complete(self) -> bool:
        """The image exists and its id was stored after everything else."""
        return self.entry is not None and self.entry.image_id is not None and self.image is not None


def reservation(request: R, view: View) -> tuple[R, Reservation]:
    """Observe the request's name; a reservation that has no image yet is taken over.

    Returns the request (with the uuid that it goes on with) and what was found.
    """
    uuid = view.lookup(request.where, request.target, request.name)
    if uuid is None:
        return request, Reservation(None, True, None, None, None, _unfinished(request, view, None, None))
    own = uuid == request.uuid
    entry = view.entry(request.where, request.target, uuid)
    image_name = entry.image if entry is not None else request.target.image(uuid)
    image = view.find(request.where, image_name)
    partial = view.partial(request.where, image_name) if image is None else None
    what = f"{request.target.value} {request.name!r} in {request.where}"
    if entry is not None and entry.name is not None and entry.name != request.name:
        raise Internal(f"{what}: the journal leads to {uuid}, which belongs to the name {entry.name!r}", uuid=uuid)
    if entry is not None and entry.image_id is not None and image is None:
        raise Internal(
            f"{what}: the journal names image {image_name}, which does not exist; "
            f"remove the {request.target.value} before creating it again",
            uuid=uuid,
        )
    if not own and image is None and partial is None:
        # A reservation whose owner never came to make the image: go on where it stopped, under its uuid.
        own = True
    request, found = replace(request, uuid=uuid), Reservation(uuid, own, entry, image, partial)
    if found.own and not found.complete:
        found = replace(found, unfinished=_unfinished(request, view, image, partial))
        request = _settled(request, found.unfinished)
    return request, found


def _unfinished(request: Creation, view: View, image: Image | None, partial: str | None) -> str | None:
    """Return the id of what an earlier try left: by name, or in the trash where its removal was cut."""
    if image is not None or partial is not None:
        return image.id if image is not None else partial
    left = view.find_id(request.where, request.unfinished_id) if request.unfinished_id else None
    return left.id if left is not None else None


def refuse_unfinished(request: Request, found: Reservation) -> None:
    """Refuse to build on an image that somebody else began and that no one can prove complete."""
    if not found.own and not found.complete and (found.image is not None or found.partial is not None):
        raise AlreadyExists(
            f"{request.target.value} {request.name!r} in {request.where} exists as {found.uuid}, "
            "but its creation was never finished; remove it before creating it again",
            uuid=found.uuid,
        )


def data_pool_id(where: Location, layout: Layout, view: View) -> int | None:
    """Return the id of the data pool that a layout asks for; ``NotFound`` for one that does not exist.

    The image's own pool is no data pool of its own: librbd makes an ordinary image of that.
    """
    found = None if layout.data_pool is None else view.pool_id(layout.data_pool)
    if layout.data_pool is not None and found is None:
        raise NotFound(f"data pool {layout.data_pool!r} does not exist")
    return found if found != where.pool_id else None


def check_derived(size: int | None, layout: Layout, source: Image) -> None:
    """Raise unless a clone of ``source`` can have that size and layout; what is not asked for is the source's."""
    check_striping(layout, source.order)
    if size is not None:
        features = source.features if layout.features is None else layout.features
        check_size(size, source.order if layout.order is None else layout.order, lambda: features)


def check_existing(request: Request, image: Image, size: int | None, layout: Layout, pool_id: int | None) -> None:
    """Raise :class:`AlreadyExists` where a volume differs from what is asked for; ``pool_id`` is the data pool's."""
    differs = layout_differences(image, layout, pool_id)
    if size is not None and image.size != size:
        differs.insert(0, f"size {image.size}, not {size}")
    if differs:
        raise AlreadyExists(
            f"volume {request.name!r} exists in {request.where} and differs: {'; '.join(differs)}", differs=differs
        )


def journal_steps(request: Request, found: Reservation, source: str | None = None) -> list[Step]:
    """Steps that reserve the name and write the journal object, as far as they are missing."""
    values = {IMAGE_NAME_KEY: request.image, request.target.name_key: request.name}
    if source is not None:
        values[SOURCE_KEY] = source
    steps: list[Step] = []
    if found.uuid is None:
        steps.append(ReserveName(request.where, request.target, request.name, request.uuid))
    if found.entry is None or any(found.entry.values.get(key) != value for key, value in values.items()):
        steps.append(WriteEntry(request.where, request.target, request.uuid, tuple(sorted(values.items()))))
    return steps


def image_steps(request: Request, found: Reservation, making: Sequence[Step]) -> list[Step]:
    """Steps that make the image (``making``) and declare it complete, removing an unfinished try first."""
    steps: list[Step] = []
    if found.unfinished is not None:
        steps.append(RemoveUnfinished(request.where, request.image, found.unfinished))
    return [*steps, *making, StoreImageId(request.where, request.target, request.uuid, request.image)]


def is_complete(request: Request, view: View) -> bool:
    """Tell whether the request's image is complete: then a failure can only be overcome, not undone."""
    entry = view.entry(request.where, request.target, request.uuid)
    return entry is not None and entry.image_id is not None


def undo_creation(request: Creation, view: View, extra: Callable[[], Sequence[Step]] = tuple) -> Plan:
    """Plan to make a creation that failed as if it had never been asked for; a complete one is brought to its end.

    ``extra`` gives the steps that go between the image's removal and the reservation's.
    """
    if is_complete(request, view):
        return request.plan(view)
    return take_back(request, view, extra)


def take_back(request: Creation, view: View, extra: Callable[[], Sequence[Step]] = tuple) -> Plan:
    """Plan to remove what a creation made, complete or not."""
    if view.lookup(request.where, request.target, request.name) != request.uuid:
        return Plan(request, ())
    image = view.find(request.where, request.image)
    partial = view.partial(request.where, request.image) if image is None else None
    left = _unfinished(request, view, image, partial)
    steps: list[Step] = [] if left is None else [RemoveUnfinished(request.where, request.image, left)]
    return Plan(
        _settled(request, left),
        (
            *steps,
            *extra(),
            RemoveEntry(request.where, request.target, request.uuid),
            ReleaseName(request.where, request.target, request.name, request.uuid),
        ),
    )
