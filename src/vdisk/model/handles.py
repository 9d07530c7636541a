"""Handles: what CSI calls volume id and snapshot id, in two families (doc/concepts.md)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from .errors import InvalidArgument
from .names import UUID_PATTERN

_MAX_CLUSTER_ID = 72
_TAIL = {8: re.compile(rf"([0-9a-f]{{8}})-({UUID_PATTERN})"), 16: re.compile(rf"([0-9a-f]{{16}})-({UUID_PATTERN})")}


class HandleFormat(Enum):
    """A family of handles; the value is that of the module option ``handle_format``."""

    CSTOR = "cstor"
    CEPH_CSI = "ceph-csi"

    @property
    def _layout(self) -> tuple[str, int, int]:
        """(version prefix, hex digits of the length, hex digits of the pool id)."""
        return ("0101", 2, 8) if self is HandleFormat.CSTOR else ("0001", 4, 16)


@dataclass(frozen=True)
class Handle:
    """A decoded handle. It names a pool by id and an object by uuid; the RADOS namespace is not part of it."""

    cluster_id: str
    pool_id: int
    uuid: str

    def encode(self, layout: HandleFormat = HandleFormat.CSTOR) -> str:
        """Return the text form in the given family."""
        version, length_digits, pool_digits = layout._layout
        length = len(self.cluster_id.encode())
        return f"{version}-{length:0{length_digits}x}-{self.cluster_id}-{self.pool_id:0{pool_digits}x}-{self.uuid}"


def is_cluster_id(text: str) -> bool:
    """Tell whether a text can be the cluster id of a handle: 1 to 72 bytes without separators of specs."""
    return re.fullmatch(r"[^/@\s\x00-\x1f\x7f-\x9f]+", text) is not None and len(text.encode()) <= _MAX_CLUSTER_ID


def decode_handle(text: str) -> Handle:
    """Decode a handle of either family; raise :class:`InvalidArgument` when it is malformed.

    Only the canonical text is accepted (lower-case hex, exact lengths), so ``decode(x).encode(family) == x``.
    """
    for family in HandleFormat:
        version, length_digits, pool_digits = family._layout
        if text.startswith(version + "-"):
            return _decode(text, length_digits, pool_digits)
    raise InvalidArgument(
        f"{_shown(text)} is neither a handle (0101-... or 0001-...) nor of the form pool[/namespace]/name"
    )


def _decode(text: str, length_digits: int, pool_digits: int) -> Handle:
    head = re.match(rf"[0-9]{{4}}-([0-9a-f]{{{length_digits}}})-", text)
    if head is None:
        raise InvalidArgument(f"handle {_shown(text)} has no valid length of the cluster id")
    raw = text[head.end() :].encode("utf-8", "surrogatepass")
    length = int(head[1], 16)
    cluster, rest = raw[:length], raw[length:]
    if not 1 <= length <= _MAX_CLUSTER_ID or rest[:1] != b"-":
        raise InvalidArgument(f"handle {_shown(text)} has a cluster id that is not {length} bytes long")
    tail = _TAIL[pool_digits].fullmatch(rest[1:].decode("utf-8", "replace"))
    if tail is None:
        raise InvalidArgument(f"handle {_shown(text)} does not end in a pool id of {pool_digits} hex digits and a uuid")
    try:
        cluster_id = cluster.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidArgument(f"handle {_shown(text)} has a cluster id that is not valid UTF-8") from None
    return Handle(cluster_id, int(tail[1], 16), tail[2])


def _shown(text: str) -> str:
    """Quote user input for a message, shortened to keep the message one readable line."""
    return repr(text if len(text) <= 150 else text[:147] + "...")
