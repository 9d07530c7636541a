"""An operation: a request under way, as people see it and as the durable intent remembers it."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..lifecycle.base import Request
from ..lifecycle.registry import request_from_dict, request_to_dict, request_to_intent
from ..model.errors import VdiskError, error_from_dict
from ..model.objects import rfc3339
from .waiting import Key

#: Version of the intent format. It is raised for what an older version must not leave out of account.
INTENT_VERSION = 1
#: What an intent says of a lock that it holds.
EXCLUSIVE, SHARED = "exclusive", "shared"


class State(enum.Enum):
    """Where an operation stands."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"

    @property
    def final(self) -> bool:
        """Nothing more happens by itself."""
        return self in (State.DONE, State.FAILED)


@dataclass
class StepRecord:
    """A step that was carried out: its name and how long it took, in seconds."""

    name: str
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"name": self.name, "seconds": round(self.seconds, 6)}


@dataclass
class Operation:
    """A request under way. Its fields change under the engine's lock only.

    ``answered`` says that the command's answer is true by now, ``durable`` that the intent is written, ``recorded``
    that it ever was, ``begun`` that a worker has taken it, ``accepting`` that its intent is being written before one
    did, ``abort`` that the request failed with that error and what it left is being undone, and ``counted`` that the
    time to its answer was counted. ``beside`` is what else a later version wrote into the intent; it stays there.
    """

    id: str
    request: Request
    started_at: float
    state: State = State.QUEUED
    step: str | None = None
    step_since: float | None = None
    steps_done: int = 0
    steps_total: int = 0
    progress: float = 0.0
    size: int = 0
    history: list[StepRecord] = field(default_factory=list)
    attempts: int = 0
    answered: bool = False
    durable: bool = False
    abort: VdiskError | None = None
    error: VdiskError | None = None
    waiting_for: list[str] = field(default_factory=list)
    awaits: frozenset[Key] = frozenset()
    waiting_since: float | None = None
    finished_at: float | None = None
    lock_keys: tuple[str, ...] = ()
    recorded: bool = False
    begun: bool = False
    accepting: bool = False
    counted: bool = False
    beside: Mapping[str, Any] = field(default_factory=dict)

    @property
    def stuck(self) -> bool:
        """It stopped with an error after it had begun; its intent stays until an operator decides."""
        return self.state is State.FAILED and self.durable

    @property
    def undoing(self) -> bool:
        """It failed or was cancelled, and what it did is being undone."""
        return self.abort is not None and not self.state.final

    @property
    def target(self) -> str:
        """What the operation is about, for people: ``pool/namespace/name``."""
        return f"{self.request.where}/{self.request.name or self.request.uuid}"

    def to_dict(self, details: bool = False) -> dict[str, Any]:
        """Return the JSON form, with ``details`` the steps and their timings too.

        Read while the engine goes on: the state before the error, which is written before it.
        """
        result: dict[str, Any] = {
            "id": self.id,
            "kind": self.request.kind,
            "target": self.target,
            "state": self.state.value,
            "step": self.step,
            "progress": 1.0 if self.state is State.DONE else round(self.progress, 3),
            "waiting_for": list(self.waiting_for),
            "started_at": rfc3339(self.started_at),
            "error": self.error.to_dict()["error"] if self.error is not None else None,
        }
        if details:
            result.update(
                {
                    "request": request_to_dict(self.request),
                    "answered": self.answered,
                    "undoing": self.undoing,
                    "attempts": self.attempts,
                    "step_started_at": rfc3339(self.step_since),
                    "waiting_since": rfc3339(self.waiting_since),
                    "finished_at": rfc3339(self.finished_at),
                    "steps": [record.to_dict() for record in self.history],
                }
            )
        return result

    def to_intent(self) -> str:
        """Return the durable form."""
        abort = None if self.abort is None else self.abort.to_dict()["error"]
        locks = (lock for lock in self.request.locks() if lock.to_the_end or not self.answered)
        return json.dumps(
            {
                **self.beside,
                "v": INTENT_VERSION,
                "kind": self.request.kind,
                "request": request_to_intent(self.request),
                "started_at": self.started_at,
                "answered": self.answered,
                "abort": abort,
                # For versions that can't read the rest: nothing of theirs is to come between.
                "locks": {lock.key: SHARED if lock.shared else EXCLUSIVE for lock in locks},
            },
            sort_keys=True,
        )


_FIELDS = frozenset({"v", "kind", "request", "started_at", "answered", "abort", "locks"})


def operation_from_intent(op_id: str, text: str) -> Operation:
    """Rebuild an operation; raises ``ValueError`` for what this version can't read, which must then be left alone."""
    data = json.loads(text)
    if not isinstance(data, Mapping) or data.get("v") != INTENT_VERSION:
        raise ValueError(f"format version {data.get('v') if isinstance(data, Mapping) else None!r}")
    try:
        request = request_from_dict(data["kind"], data["request"])
        list(request.locks())  # of a value that this version does not know: found out now
        abort = None if data["abort"] is None else error_from_dict(data["abort"])
        # What came after the first version has a default here as well.
        answered, started_at = bool(data.get("answered")), float(data["started_at"])
        beside = {key: value for key, value in data.items() if key not in _FIELDS}
        return Operation(
            op_id, request, started_at, answered=answered, durable=True, recorded=True, abort=abort, counted=answered,
            beside=beside,
        )  # fmt: skip
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"field {error}") from error
