"""Intents that this version can't read: a later version began the operation, or the record was damaged.

Such an intent is kept, reported, and never guessed at. Of what every version writes in the same form this much is
used: its ``locks``, so that nothing comes between the operation and what it has half done, and the words of its
``request``, so that no check takes that for an orphan.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..lifecycle.base import Lock
from ..model.errors import Unsupported
from ..model.objects import rfc3339
from ..model.observed import Location
from .operation import SHARED


@dataclass(frozen=True)
class UnreadableIntent:
    """One of them. ``kind``, ``name`` and ``started_at`` are what can be told of the operation, if anything."""

    where: Location
    id: str
    reason: str
    kind: str | None = None
    name: str | None = None
    started_at: float = 0.0
    locks: tuple[Lock, ...] = ()
    words: frozenset[str] = frozenset()
    request: Mapping[str, Any] | None = None

    @property
    def target(self) -> str:
        """What the operation is about, for people, as far as it can be told."""
        return f"{self.where}/{self.name}" if self.name else str(self.where)

    @property
    def error(self) -> Unsupported:
        """Why nothing is done with it."""
        return Unsupported(
            f"operation {self.id} was begun by another version of vdisk; this one can't read it ({self.reason}) and "
            "keeps it as it is: run that version, or a later one",
            operation=self.id,
        )

    def to_dict(self, details: bool = False) -> dict[str, Any]:
        """Return the JSON form, with the fields of an operation."""
        shown: dict[str, Any] = {
            "id": self.id,
            "kind": self.kind,
            "target": self.target,
            "state": "unreadable",
            "step": None,
            "progress": 0.0,
            "waiting_for": [],
            "started_at": rfc3339(self.started_at) if self.started_at else None,
            "error": self.error.to_dict()["error"],
        }
        if details:
            shown |= {
                "request": self.request,
                "answered": False,
                "undoing": False,
                "attempts": 0,
                "step_started_at": None,
                "waiting_since": None,
                "finished_at": None,
                "steps": [],
            }
        return shown


def unreadable_intent(where: Location, op_id: str, text: str, reason: str) -> UnreadableIntent:
    """Tell what can be told of an intent that can't be read. Whatever the text is, nothing is raised."""
    try:
        data = json.loads(text)
    except ValueError:
        data = None
    data = data if isinstance(data, Mapping) else {}
    request = data.get("request")
    request = request if isinstance(request, Mapping) else {}
    locks = data.get("locks")
    locks = locks if isinstance(locks, Mapping) else {}
    started_at = data.get("started_at")
    return UnreadableIntent(
        where,
        op_id,
        reason,
        kind=_text(data.get("kind")),
        name=_text(request.get("name")) or _text(request.get("uuid")),
        started_at=float(started_at) if isinstance(started_at, (int, float)) else 0.0,
        locks=tuple(Lock(str(key), shared=value == SHARED, to_the_end=True) for key, value in locks.items()),
        words=frozenset(_words(request)) - {""},
        request=request or None,
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _words(value: Any) -> Iterator[str]:
    """Yield every string in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _words(item)
    elif isinstance(value, list):
        for item in value:
            yield from _words(item)
