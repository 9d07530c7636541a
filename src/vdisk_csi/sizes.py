"""Sizes out of a CSI capacity range. All are bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from .errors import out_of_range

MIB, GIB = 1 << 20, 1 << 30
#: Size of a volume for which nothing is asked.
DEFAULT = GIB
MINIMUM = MIB
_LARGEST = 2**63 - 1


class CapacityRange(Protocol):
    """The message of that name."""

    required_bytes: int
    limit_bytes: int


@dataclass(frozen=True)
class Range:
    """What is asked for; 0 means that nothing is."""

    required: int
    limit: int

    def admits(self, size: int) -> bool:
        """Tell whether a size lies in the range."""
        return size >= self.required and (not self.limit or size <= self.limit)

    def size(self) -> int | None:
        """Return the size to create, in whole MiB; None when nothing is required. OUT_OF_RANGE if none fits."""
        if not self.required:
            return None
        return self._fitting(-(-self.required // MIB) * MIB)

    def size_or_default(self) -> int:
        """Return the size to create where no source has one to offer."""
        size = self.size()
        if size is not None:
            return size
        return min(DEFAULT, self._fitting(self.limit // MIB * MIB)) if self.limit else DEFAULT

    def _fitting(self, size: int) -> int:
        if not self.admits(size) or not MINIMUM <= size <= _LARGEST:
            raise out_of_range(
                f"no whole number of MiB lies between {self.required} and {self.limit or _LARGEST} bytes"
            )
        return size


def parse_range(asked: CapacityRange) -> Range:
    """Read a capacity range; OUT_OF_RANGE when it makes no sense."""
    if asked.required_bytes < 0 or asked.limit_bytes < 0:
        raise out_of_range("capacity_range holds a negative size")
    if asked.limit_bytes and asked.required_bytes > asked.limit_bytes:
        raise out_of_range(f"required_bytes {asked.required_bytes} is more than limit_bytes {asked.limit_bytes}")
    return Range(asked.required_bytes, asked.limit_bytes)
