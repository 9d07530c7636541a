"""The one place that turns exceptions of rados and rbd into errors of the model."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

import rados
import rbd

from ..model.errors import (
    AlreadyExists,
    Disconnected,
    HasDependents,
    Internal,
    InvalidArgument,
    NoSpace,
    NotFound,
    NotReady,
    OutOfRange,
    Unsupported,
    VdiskError,
)

#: Causes that pass by themselves. EBUSY and EROFS are a watcher or lock owner that is just going away,
#: EPERM is what a client sees whose key the monitors have not spread yet.
_PASSING = frozenset(
    {errno.EAGAIN, errno.EBUSY, errno.EROFS, errno.ETIMEDOUT, errno.EINTR, errno.ENOTCONN, errno.EPERM}
)
_CLASSES: dict[int, type[VdiskError]] = {
    errno.ENOENT: NotFound,
    errno.EEXIST: AlreadyExists,
    errno.ENOTEMPTY: HasDependents,
    errno.EINVAL: InvalidArgument,
    errno.EDOM: InvalidArgument,
    errno.ERANGE: OutOfRange,
    errno.ENOSPC: NoSpace,
    errno.EDQUOT: NoSpace,
    errno.EOPNOTSUPP: Unsupported,
    errno.ENOSYS: Unsupported,
    errno.ESHUTDOWN: Disconnected,
}


def from_errno(number: int, message: str) -> VdiskError:
    """Return the error for a (positive or negative) errno."""
    number = abs(number)
    cls = NotReady if number in _PASSING else _CLASSES.get(number, Internal)
    return cls(f"{message}: {os.strerror(number)}", errno=errno.errorcode.get(number, str(number)))


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Run a block of rados and rbd calls; ``what`` says in the message what was being done.

    A handle that was shut down under a running call raises a state error instead of an errno; both mean that the
    connection has to be made anew.
    """
    try:
        yield
    except (rados.Error, rbd.Error) as error:
        number = getattr(error, "errno", None)
        if number is None:
            if isinstance(error, (rados.RadosStateError, rados.IoctxStateError)):
                raise Disconnected(f"{what}: the cluster connection was closed") from error
            raise Internal(f"{what}: {error}") from error
        raise from_errno(number, what) from error
