"""Structured logs: one JSON object a line, with the id of the call that it is about and never a secret."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from .call import REQUEST_ID

#: Attributes that every record has; what a caller gave in ``extra`` is the rest.
_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """Formats records as JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "message": record.getMessage(),
        }
        if REQUEST_ID.get():
            line["request_id"] = REQUEST_ID.get()
        line.update({key: value for key, value in vars(record).items() if key not in _USUAL})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def setup(level: str) -> None:
    """Send the process's log to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def shown(message: Message) -> dict[str, Any]:
    """Return a request for the log: without its secrets."""
    copy = type(message)()
    copy.CopyFrom(message)
    if "secrets" in copy.DESCRIPTOR.fields_by_name:
        copy.ClearField("secrets")
    found: dict[str, Any] = json_format.MessageToDict(copy, preserving_proto_field_name=True)
    return found
