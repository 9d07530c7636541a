"""The shape of what a pool holds: how deep its clones are chained, and how many snapshots an image has at most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Shape:
    """As the last check of a pool and namespace saw it."""

    depths: Mapping[int, int] = field(default_factory=dict)
    """Length of the parent chain, through the trash → images outside of the trash that have it."""
    snapshots: int = 0
    """Snapshots, those in librbd's trash namespace too, of the image that has most of them."""
    images: int = 0
    """Images outside of the trash."""
    size: int = 0
    """Bytes as provisioned, of all images outside of the trash."""

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, as a check's summary keeps it."""
        depths = {str(depth): count for depth, count in sorted(self.depths.items())}
        return {"depths": depths, "snapshots": self.snapshots, "images": self.images, "size": self.size}

    def __add__(self, other: Shape) -> Shape:
        """Return the shape of both places together."""
        depths = Counter(self.depths)
        depths.update(other.depths)
        return Shape(
            dict(depths), max(self.snapshots, other.snapshots), self.images + other.images, self.size + other.size
        )


def shape_from_dict(data: object) -> Shape:
    """Rebuild a shape; what another version wrote, or nobody, has none."""
    try:
        assert isinstance(data, Mapping)
        depths = {int(depth): int(count) for depth, count in data["depths"].items()}
        return Shape(depths, int(data["snapshots"]), int(data["images"]), int(data["size"]))
    except (AssertionError, KeyError, TypeError, ValueError, AttributeError):
        return Shape()
