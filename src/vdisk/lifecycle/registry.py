"""Requests by kind, and their form in durable intents."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from ..model.groups import Member
from ..model.layout import Layout
from ..model.observed import Location
from .adopt import AdoptSnapshot, AdoptVolume, ReleaseVolume
from .base import Request
from .check_repair import Repair
from .flatten import FlattenChain
from .group_snap import CreateGroup, RemoveGroup
from .removal import RemoveSnapshot, RemoveVolume
from .schedule_change import AddSchedule, RemoveSchedule
from .snap_create import CreateSnapshot
from .undelete import RestoreBare, UndeleteSnapshot, UndeleteVolume
from .volume_clone import CloneVolume
from .volume_create import CreateVolume
from .volume_flatten import FlattenVolume
from .volume_resize import ResizeVolume
from .volume_restore import RestoreVolume
from .volume_revert import RevertVolume

REQUESTS: Mapping[str, type[Request]] = {
    cls.kind: cls
    for cls in (
        CreateVolume,
        RestoreVolume,
        CloneVolume,
        ResizeVolume,
        RemoveVolume,
        CreateSnapshot,
        RemoveSnapshot,
        Repair,
        AdoptVolume,
        AdoptSnapshot,
        ReleaseVolume,
        FlattenVolume,
        FlattenChain,
        UndeleteVolume,
        UndeleteSnapshot,
        RestoreBare,
        AddSchedule,
        RemoveSchedule,
        RevertVolume,
        CreateGroup,
        RemoveGroup,
    )
}
#: Fields that are objects of their own in the JSON form, by field name.
_NESTED: Mapping[str, type[Any]] = {
    "where": Location,
    "snap_where": Location,
    "source_where": Location,
    "layout": Layout,
}
#: Fields that are lists of objects in the JSON form, by field name.
_LISTS: Mapping[str, type[Any]] = {"members": Member}


def request_to_dict(request: Request) -> dict[str, Any]:
    """Return the JSON-ready form of a request, with every field."""
    return dataclasses.asdict(request)


def request_to_intent(request: Request) -> dict[str, Any]:
    """Return the form of a request in its durable intent: without the fields that have their default.

    A version that does not know a field reads all the intents that make no use of it. So a default is part of the
    format, and a field that is added has one.
    """
    return dict(_used(request))


def _used(thing: Any) -> Iterator[tuple[str, Any]]:
    for about in dataclasses.fields(thing):
        value = getattr(thing, about.name)
        if about.default is dataclasses.MISSING or value != about.default:
            yield about.name, _plain(value)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dict(_used(value))
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def request_from_dict(kind: str, data: Mapping[str, Any]) -> Request:
    """Rebuild a request; raises ``ValueError`` for a kind or fields that this version does not know."""
    cls = REQUESTS.get(kind)
    if cls is None:
        raise ValueError(f"unknown kind of operation {kind!r}")
    unknown = sorted(set(data) - {about.name for about in dataclasses.fields(cls)})
    if unknown:
        raise ValueError(f"unknown fields of {kind!r}: {', '.join(unknown)}")
    try:
        return cls(**{key: _field(key, value) for key, value in data.items()})
    except (TypeError, AttributeError) as error:
        raise ValueError(f"fields of {kind!r}: {error}") from error


def _field(key: str, value: Any) -> Any:
    if key in _LISTS:
        return tuple(_LISTS[key](**item) for item in value)
    return _NESTED[key](**value) if key in _NESTED else value
