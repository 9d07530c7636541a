"""How an image is laid out: features, object size, striping, data pool; parsed and checked before anything changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import InvalidArgument, OutOfRange
from .observed import (
    EXCLUSIVE_LOCK,
    FAST_DIFF,
    FEATURE_BITS,
    JOURNALING,
    LAYERING,
    OBJECT_MAP,
    PLAIN,
    Image,
)
from .specs import parse_size

#: Features that a user may ask for; striping and data-pool follow from their own options.
CHOOSABLE = PLAIN | JOURNALING
#: Features of the images that vdisk makes for snapshots: deletion costs the same at any size.
SNAPSHOT_FEATURES = PLAIN
#: What each feature needs (librbd refuses anything else with EINVAL and no word of why).
_NEEDS = {OBJECT_MAP: EXCLUSIVE_LOCK, FAST_DIFF: OBJECT_MAP, JOURNALING: EXCLUSIVE_LOCK}
_MIN_ORDER, _MAX_ORDER = 12, 25
#: librbd's own default (rbd_default_order): objects of 4 MiB.
DEFAULT_ORDER = 22
#: librbd's bound of an object map (cls_rbd, MAX_OBJECT_MAP_OBJECT_COUNT).
MAX_OBJECT_MAP_OBJECTS = 256_000_000


@dataclass(frozen=True)
class Layout:
    """How a new image is laid out; None leaves the choice to librbd and the pool. Sizes in bytes."""

    features: int | None = None
    order: int | None = None
    stripe_unit: int | None = None
    stripe_count: int | None = None
    data_pool: str | None = None

    def arguments(self) -> Mapping[str, Any]:
        """Keyword arguments for ``rbd.RBD.create``."""
        given = {
            "features": self.features,
            "order": self.order,
            "stripe_unit": self.stripe_unit,
            "stripe_count": self.stripe_count,
            "data_pool": self.data_pool,
        }
        return {key: value for key, value in given.items() if value is not None}

    def clone_arguments(self) -> Mapping[str, Any]:
        """Keyword arguments for ``rbd.RBD.clone``.

        librbd holds on to the parent's stripe unit, which is its object size where it has no stripes: smaller objects
        it would refuse, and larger ones it would stripe. Who asks for an object size alone wants neither.
        """
        if self.order is None or self.stripe_unit is not None:
            return self.arguments()
        return {**self.arguments(), "stripe_unit": 1 << self.order, "stripe_count": 1}


def feature_names(bits: int) -> list[str]:
    """Return the names of feature bits in librbd's order."""
    return [name for name, bit in FEATURE_BITS.items() if bits & bit]


def parse_features(text: object, argument: str = "image_features") -> int:
    """Parse comma-separated feature names to bits and check that each has what it needs."""
    if not isinstance(text, str) or not text.strip():
        raise InvalidArgument(f"{argument} is empty: give names such as layering,exclusive-lock")
    bits = 0
    for name in (part.strip() for part in text.split(",")):
        bit = FEATURE_BITS.get(name, 0)
        if not bit & CHOOSABLE:
            raise InvalidArgument(f"{argument}: {name!r} is none of {', '.join(feature_names(CHOOSABLE))}")
        bits |= bit
    for bit, needed in _NEEDS.items():
        if bits & bit and not bits & needed:
            raise InvalidArgument(f"{argument}: {feature_names(bit)[0]} needs {feature_names(needed)[0]} as well")
    return bits


def parse_layout(
    image_features: object = None,
    object_size: object = None,
    stripe_unit: object = None,
    stripe_count: object = None,
    data_pool: object = None,
    default_order: int | None = DEFAULT_ORDER,
) -> Layout:
    """Check the layout options of a command and return them as a :class:`Layout`.

    ``default_order`` tells the object size where none is asked for; None where only a plan can know it.
    """
    features = None if image_features is None else parse_features(image_features)
    if features is not None and not features & LAYERING:
        raise InvalidArgument("image_features: layering is needed, since snapshots of a volume are clones")
    order = None
    if object_size is not None:
        size = parse_size(object_size, "object_size")
        order = size.bit_length() - 1
        if size != 1 << order or not _MIN_ORDER <= order <= _MAX_ORDER:
            raise InvalidArgument(f"object_size {object_size!r} is not a power of two from 4K to 32M")
    unit = count = None
    if (stripe_unit is None) != (stripe_count is None):
        raise InvalidArgument("stripe_unit and stripe_count belong together: give both or none")
    if stripe_unit is not None:
        unit = parse_size(stripe_unit, "stripe_unit")
        if unit & (unit - 1) or unit < 1 << _MIN_ORDER:
            raise InvalidArgument(f"stripe_unit {stripe_unit!r} is not a power of two of at least 4K")
        if isinstance(stripe_count, bool) or not isinstance(stripe_count, int) or not 1 <= stripe_count <= 1024:
            raise InvalidArgument(f"stripe_count {stripe_count!r} is not a whole number from 1 to 1024")
        count = stripe_count
    if data_pool is not None and (not isinstance(data_pool, str) or not data_pool):
        raise InvalidArgument("data_pool is not the name of a pool")
    layout = Layout(features, order, unit, count, data_pool)
    if default_order is not None:
        check_striping(layout, default_order)
    return layout


def check_striping(layout: Layout, order: int) -> None:
    """Raise :class:`InvalidArgument` when a stripe unit is larger than an object; ``order`` is that of the default."""
    size = 1 << (order if layout.order is None else layout.order)
    if layout.stripe_unit is not None and layout.stripe_unit > size:
        raise InvalidArgument(f"stripe_unit {layout.stripe_unit} is larger than the object size {size}")


def check_size(size: int, order: int | None, features: Callable[[], int]) -> None:
    """Raise :class:`OutOfRange` when an image of ``size`` bytes would need more objects than an object map can hold.

    ``features`` is asked for only when it matters.
    """
    objects = -(-size // (1 << (order or DEFAULT_ORDER)))
    if objects > MAX_OBJECT_MAP_OBJECTS and features() & OBJECT_MAP:
        raise OutOfRange(
            f"size {size} needs {objects} objects and an object map holds {MAX_OBJECT_MAP_OBJECTS}: "
            "give a larger --object-size or --image-features without object-map"
        )


def layout_differences(image: Image, layout: Layout, data_pool_id: int | None) -> list[str]:
    """Say in which of the options that were given ``image`` differs, for ``already_exists`` answers."""
    differs = []
    # Others come and go by themselves: "operations" with clone format 2 and membership of a group, for one.
    visible = image.features & CHOOSABLE
    if layout.features is not None and visible != layout.features:
        differs.append(f"features {','.join(feature_names(visible))}, not {','.join(feature_names(layout.features))}")
    if layout.order is not None and image.order != layout.order:
        differs.append(f"object size {1 << image.order}, not {1 << layout.order}")
    if layout.stripe_unit is not None and image.stripe_unit != layout.stripe_unit:
        differs.append(f"stripe unit {image.stripe_unit}, not {layout.stripe_unit}")
    if layout.stripe_count is not None and image.stripe_count != layout.stripe_count:
        differs.append(f"stripe count {image.stripe_count}, not {layout.stripe_count}")
    if layout.data_pool is not None and image.data_pool_id != data_pool_id:
        differs.append(f"another data pool than {layout.data_pool}")
    return differs
