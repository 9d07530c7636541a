"""What a CSI call is given beside its request."""

from __future__ import annotations

import contextvars
from dataclasses import dataclass

from .deadline import Deadline

#: The id of the call that the present task or thread works for; every line of the log has it.
REQUEST_ID: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="")


@dataclass(frozen=True)
class Call:
    """A call under way."""

    method: str
    request_id: str
    deadline: Deadline
