"""Errors that a CSI call answers with: a gRPC code and one line, and which code each error of vdisk becomes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grpc import StatusCode

#: Stable codes of vdisk (doc/errors.md) -> gRPC.
VDISK_CODES: Mapping[str, StatusCode] = {
    "invalid_argument": StatusCode.INVALID_ARGUMENT,
    "not_found": StatusCode.NOT_FOUND,
    "already_exists": StatusCode.ALREADY_EXISTS,
    "in_use": StatusCode.FAILED_PRECONDITION,
    "has_dependents": StatusCode.FAILED_PRECONDITION,
    "pending": StatusCode.ABORTED,
    "throttled": StatusCode.UNAVAILABLE,
    "not_ready": StatusCode.UNAVAILABLE,
    "out_of_range": StatusCode.OUT_OF_RANGE,
    "no_space": StatusCode.RESOURCE_EXHAUSTED,
    "denied": StatusCode.PERMISSION_DENIED,
    "unsupported": StatusCode.UNIMPLEMENTED,
    "internal": StatusCode.INTERNAL,
}
#: Codes after which the same command is simply sent again, as long as there is time.
TRANSIENT = frozenset({"pending", "throttled", "not_ready"})


class CsiError(Exception):
    """What a call answers with instead of a response. ``details`` are those of vdisk's error, if it was one."""

    def __init__(self, code: StatusCode, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = " ".join(message.split())
        self.details = details or {}


class Again(Exception):
    """The manager can't answer now; the same command can be sent again."""


def from_vdisk(error: Mapping[str, Any]) -> CsiError:
    """Convert the inner part of vdisk's ``{"error": {...}}``."""
    code = VDISK_CODES.get(str(error.get("code")), StatusCode.INTERNAL)
    return CsiError(code, str(error.get("message") or error.get("code")), error.get("details"))


def invalid(message: str) -> CsiError:
    """Return an INVALID_ARGUMENT."""
    return CsiError(StatusCode.INVALID_ARGUMENT, message)


def not_found(message: str) -> CsiError:
    """Return a NOT_FOUND."""
    return CsiError(StatusCode.NOT_FOUND, message)


def precondition(message: str) -> CsiError:
    """Return a FAILED_PRECONDITION."""
    return CsiError(StatusCode.FAILED_PRECONDITION, message)


def out_of_range(message: str) -> CsiError:
    """Return an OUT_OF_RANGE."""
    return CsiError(StatusCode.OUT_OF_RANGE, message)


def internal(message: str) -> CsiError:
    """Return an INTERNAL."""
    return CsiError(StatusCode.INTERNAL, message)


def required(value: str, field: str) -> str:
    """Return a field's value, or raise INVALID_ARGUMENT when it is empty."""
    if not value:
        raise invalid(f"{field} is missing")
    return value
