"""Errors that reach a user: a stable code, an errno and one line a person can act on (doc/errors.md)."""

from __future__ import annotations

import errno as _errno
from typing import Any, ClassVar


class VdiskError(Exception):
    """Base of every error that vdisk answers with.

    ``code`` is stable and meant for programs, ``errno`` (positive) becomes the command's return value, ``retryable``
    says whether the same request can succeed later with nothing changed by the caller, and ``details`` holds
    JSON-ready facts such as the watchers of an image.
    """

    code: ClassVar[str] = "internal"
    errno: ClassVar[int] = _errno.EIO
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = " ".join(message.split())
        self.details = details

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form: ``{"error": {"code", "message", "retryable", "details"}}``."""
        return {
            "error": {
                "code": self.code,
                "message": self.message,
                "retryable": self.retryable,
                "details": self.details,
            }
        }


class InvalidArgument(VdiskError):
    """An argument is malformed or makes no sense; nothing was changed."""

    code = "invalid_argument"
    errno = _errno.EINVAL


class NotFound(VdiskError):
    """The pool, namespace, image, volume, snapshot or operation does not exist."""

    code = "not_found"
    errno = _errno.ENOENT


class AlreadyExists(VdiskError):
    """The name is taken by something that differs from what was asked; the message says what differs."""

    code = "already_exists"
    errno = _errno.EEXIST


class InUse(VdiskError):
    """Somebody has the image open; ``details["watchers"]`` names them."""

    code = "in_use"
    errno = _errno.EBUSY


class HasDependents(VdiskError):
    """Something that must stay hangs on the object; ``details["dependents"]`` names it."""

    code = "has_dependents"
    errno = _errno.ENOTEMPTY


class Pending(VdiskError):
    """The operation goes on; repeating the command waits for it again."""

    code = "pending"
    errno = _errno.EAGAIN
    retryable = True


class Throttled(VdiskError):
    """Too much work is queued; nothing was begun."""

    code = "throttled"
    errno = _errno.EAGAIN
    retryable = True


class NotReady(VdiskError):
    """The module or the object cannot serve the request yet."""

    code = "not_ready"
    errno = _errno.EAGAIN
    retryable = True


class OutOfRange(VdiskError):
    """A size is outside of what the source or the format allows."""

    code = "out_of_range"
    errno = _errno.ERANGE


class NoSpace(VdiskError):
    """The pool is full or at its quota."""

    code = "no_space"
    errno = _errno.ENOSPC
    retryable = True


class Denied(VdiskError):
    """The caller's capabilities do not cover the pool or namespace."""

    code = "denied"
    errno = _errno.EACCES


class Unsupported(VdiskError):
    """This release or this image cannot do what was asked."""

    code = "unsupported"
    errno = _errno.EOPNOTSUPP


class Internal(VdiskError):
    """Something that should not happen; the mgr log has the details."""


ERROR_CLASSES: tuple[type[VdiskError], ...] = (
    InvalidArgument,
    NotFound,
    AlreadyExists,
    InUse,
    HasDependents,
    Pending,
    Throttled,
    NotReady,
    OutOfRange,
    NoSpace,
    Denied,
    Unsupported,
    Internal,
)
ERRORS_BY_CODE: dict[str, type[VdiskError]] = {cls.code: cls for cls in ERROR_CLASSES}


def error_from_dict(data: dict[str, Any]) -> VdiskError:
    """Rebuild an error from the inner object of :meth:`VdiskError.to_dict` (an operation's stored ``error``)."""
    cls = ERRORS_BY_CODE.get(str(data.get("code")), Internal)
    return cls(str(data.get("message", "")), **dict(data.get("details") or {}))


class Disconnected(NotReady):
    """The cluster connection is gone for good (blocklisted) and has to be made anew before trying again."""


class Cancelled(NotReady):
    """An operator cancelled the operation; whoever asked for it has to decide whether to ask again."""

    retryable = False


class LostRace(NotReady):
    """Another writer changed what a step was about to change; observing and planning again settles it."""
