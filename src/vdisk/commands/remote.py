"""Commands for another module of the mgr, which the dashboard calls: the same table, parsing and handlers, as JSON."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from ..model.errors import VdiskError
from .dispatch import dispatch
from .handlers import Handlers

#: What the dashboard asks for besides commands: pools and namespaces that may hold volumes.
POOLS = "pools"


def serve(handlers: Handlers | VdiskError, words: str, arguments: str, log: logging.Logger) -> str:
    """Carry out a command; returns a JSON object with ``answer`` or ``error``. Nothing is ever raised.

    Numbers and booleans may come as text, as the query of a URL has them.
    """
    given: Mapping[str, Any] = json.loads(arguments)
    raw = {name: value for name, value in given.items() if value != ""}
    if words == POOLS and isinstance(handlers, Handlers):
        try:
            return json.dumps({"answer": handlers.places()})
        except VdiskError as error:
            return json.dumps(error.to_dict(), default=str)
    code, out, _ = dispatch(handlers, {**raw, "prefix": f"vdisk {words}", "format": "json"}, log)
    return out if code else '{"answer": ' + out + "}"
