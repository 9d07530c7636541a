"""Parsers of what users type: pool and image specs, references to volumes and snapshots, sizes, durations."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Union

from .errors import InvalidArgument, OutOfRange
from .handles import Handle, decode_handle
from .names import check_request_name

_PART = re.compile(r"[^/@\x00-\x1f\x7f-\x9f]+")
_SIZE = re.compile(r"([0-9]{1,20}) ?(?:([KMGTPE])(?:iB?)?|B)?", re.IGNORECASE | re.ASCII)
_DURATION = re.compile(r"([0-9]{1,12})([smhdw]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
#: The largest image librbd can address with signed 64 bit offsets, in bytes.
MAX_SIZE = 2**63 - 1


@dataclass(frozen=True, order=True)
class PoolSpec:
    """``pool[/namespace]``; the empty namespace is the pool's default one."""

    pool: str
    namespace: str = ""

    def __str__(self) -> str:
        return f"{self.pool}/{self.namespace}" if self.namespace else self.pool


@dataclass(frozen=True, order=True)
class ImageSpec:
    """``pool[/namespace]/image``."""

    where: PoolSpec
    image: str

    def __str__(self) -> str:
        return f"{self.where}/{self.image}"


@dataclass(frozen=True)
class NameRef:
    """A volume or snapshot named by pool and image or request name; for snapshots perhaps with the source image."""

    where: PoolSpec
    name: str
    image: str | None = None

    def __str__(self) -> str:
        return f"{self.where}/{self.image}@{self.name}" if self.image is not None else f"{self.where}/{self.name}"


Ref = Union[Handle, NameRef]


def _text(value: object, argument: str, form: str) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidArgument(f"{argument} is missing: give {form}")
    return value


def _parts(text: str, argument: str, form: str, least: int, most: int) -> list[str]:
    parts = text.split("/")
    if not least <= len(parts) <= most or not all(_PART.fullmatch(part) for part in parts):
        raise InvalidArgument(f"{argument} {text!r} is not of the form {form}")
    return parts


def parse_pool_spec(value: object, argument: str = "pool_spec") -> PoolSpec:
    """Parse ``pool[/namespace]``."""
    form = "pool[/namespace]"
    return PoolSpec(*_parts(_text(value, argument, form), argument, form, 1, 2))


def parse_image_spec(value: object, argument: str = "image_spec") -> ImageSpec:
    """Parse ``pool[/namespace]/image``."""
    form = "pool[/namespace]/image"
    *where, image = _parts(_text(value, argument, form), argument, form, 2, 3)
    return ImageSpec(PoolSpec(*where), image)


def parse_volume_ref(value: object, argument: str = "volume") -> Ref:
    """Parse a handle or ``pool[/namespace]/name``."""
    form = "a handle or pool[/namespace]/name"
    text = _text(value, argument, form)
    if "/" not in text:
        return decode_handle(text)
    *where, name = _parts(text, argument, form, 2, 3)
    return NameRef(PoolSpec(*where), name)


def parse_snapshot_ref(value: object, argument: str = "snapshot") -> Ref:
    """Parse a handle, ``pool[/namespace]/name`` or ``pool[/namespace]/image@name``."""
    form = "a handle, pool[/namespace]/name or pool[/namespace]/image@name"
    text = _text(value, argument, form)
    if "/" not in text:
        return decode_handle(text)
    head, at, name = text.partition("@")
    if not at:
        return parse_volume_ref(text, argument)
    *where, image = _parts(head, argument, form, 2, 3)
    return NameRef(PoolSpec(*where), check_request_name(name, argument), image)


def parse_size(value: object, argument: str = "size") -> int:
    """Parse a size: bytes as an integer or text, or a number with K, M, G, T, P or E (binary; ``10G`` = ``10GiB``).

    Returns bytes, at least 1. Raises :class:`InvalidArgument` for text that is no size or is zero, and
    :class:`OutOfRange` beyond what an image can hold.
    """
    if isinstance(value, bool) or not isinstance(value, (int, str)) or value == "":
        raise InvalidArgument(f"{argument} is missing or no size: give bytes or a number with a unit, such as 10G")
    if isinstance(value, int):
        size = value
    else:
        match = _SIZE.fullmatch(value.strip())
        if match is None:
            raise InvalidArgument(f"{argument} {value!r} is no size: give bytes or a number with a unit, such as 10G")
        power = " KMGTPE".index(match[2].upper()) if match[2] else 0
        size = int(match[1]) << (10 * power)
    if size <= 0:
        raise InvalidArgument(f"{argument} {value!r} is not positive")
    if size > MAX_SIZE:
        raise OutOfRange(f"{argument} {value!r} is larger than any image can be", maximum=MAX_SIZE)
    return size


def parse_duration(value: object, argument: str) -> int:
    """Parse ``30``, ``30s``, ``5m``, ``12h``, ``7d`` or ``2w``; returns whole seconds, zero allowed."""
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise InvalidArgument(f"{argument} {value!r} is no duration: give a number with s, m, h, d or w, such as 7d")
    seconds = int(match[1]) * _SECONDS[match[2]]
    if seconds > 100 * 366 * 86400:
        raise OutOfRange(f"{argument} {value!r} is more than a hundred years")
    return seconds


def format_size(size: int) -> str:
    """Write bytes the way ``rbd`` does: ``1 GiB``, ``512 KiB``, ``1.5 GiB``."""
    value, unit = float(size), 0
    while value >= 1024 and unit < 6:
        value, unit = value / 1024, unit + 1
    return f"{value:.4g} {['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'][unit]}"
