"""Volume and snapshot ids: vdisk's handles, of which the driver reads the parts (doc/concepts.md)."""

from __future__ import annotations

import re
from dataclasses import dataclass

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_MAX_CLUSTER_ID = 72
#: (version, hex digits of the length, hex digits of the pool id) of the families cstor and ceph-csi.
_FAMILIES = (("0101", 2, 8), ("0001", 4, 16))


@dataclass(frozen=True)
class Id:
    """The parts of a volume or snapshot id. Two ids of different families can mean the same."""

    cluster_id: str
    pool_id: int
    uuid: str


def parse_id(text: str) -> Id | None:
    """Return the parts of an id, None for text that can't be one of ours."""
    for version, length_digits, pool_digits in _FAMILIES:
        head = re.match(rf"{version}-([0-9a-f]{{{length_digits}}})-", text)
        if head is None:
            continue
        length, raw = int(head[1], 16), text[head.end() :].encode()
        if not 1 <= length <= _MAX_CLUSTER_ID:
            return None
        tail = re.fullmatch(rf"-([0-9a-f]{{{pool_digits}}})-({UUID})", raw[length:].decode(errors="replace"))
        try:
            return None if tail is None else Id(raw[:length].decode(), int(tail[1], 16), tail[2])
        except UnicodeDecodeError:
            return None
    return None


def same(one: str, other: str) -> bool:
    """Tell whether two ids mean the same thing; in different families they are different texts."""
    first, second = parse_id(one), parse_id(other)
    return first is not None and second is not None and (first.pool_id, first.uuid) == (second.pool_id, second.uuid)
