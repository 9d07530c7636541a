"""Keyed omap access: the few librados calls that the journal, the intents and the header reader are made of."""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Iterable, Iterator, Mapping

import rados

#: An absent key compares equal to the empty value.
CMP_EQUAL = rados.LIBRADOS_CMPXATTR_OP_EQ
#: Pairs a read; the OSD gives at most 1024 (osd_max_omap_entries_per_request).
_PAGE = 1000


def get_keys(ioctx: rados.Ioctx, oid: str, keys: Iterable[str]) -> dict[str, bytes] | None:
    """Read the named keys; absent ones are left out. None when the object does not exist."""
    with rados.ReadOpCtx() as op:
        found, _ = ioctx.get_omap_vals_by_keys(op, tuple(keys))
        return dict(_Pairs(found)) if _operate(ioctx, op, oid) else None


def get_page(
    ioctx: rados.Ioctx, oid: str, after: str, prefix: str, limit: int
) -> tuple[list[tuple[str, bytes]], bool] | None:
    """Read up to ``limit`` pairs with the prefix that follow ``after``, in key order. None without the object.

    Returns the pairs and whether more may follow. There may be fewer than ``limit`` and more all the same: keys that
    are not UTF-8 are somebody else's and passed over.
    """
    with rados.ReadOpCtx() as op:
        found, _ = ioctx.get_omap_vals(op, after, prefix, min(limit, _PAGE))
        if not _operate(ioctx, op, oid):
            return None
        pairs = _Pairs(found)
        return list(pairs), pairs.count >= min(limit, _PAGE)


def get_all(ioctx: rados.Ioctx, oid: str) -> dict[str, bytes] | None:
    """Read every pair of a small object, page by page. None when the object does not exist."""
    pairs: dict[str, bytes] = {}
    after, more = "", True
    while more:
        page = get_page(ioctx, oid, after, "", _PAGE)
        if page is None:
            return pairs if after else None
        found, more = page
        if not found:
            break
        pairs.update(found)
        after = found[-1][0]
    return pairs


class Reading:
    """A read of every pair of a small object that is under way; many of them together cost one round trip.

    No callback: those of librados' binding can crash a mgr. :meth:`result` waits for the end, and has to be called.
    """

    def __init__(self, ioctx: rados.Ioctx, oid: str) -> None:
        self._ioctx = ioctx
        self._oid = oid
        self._op = rados.ReadOp()
        self._op.create()
        self._found, _ = ioctx.get_omap_vals(self._op, "", "", _PAGE)
        self._completion = ioctx.operate_aio_read_op(self._op, oid)

    def result(self) -> dict[str, bytes] | None:
        """Return the pairs, None when the object does not exist."""
        try:
            self._completion.wait_for_complete()
            number = self._completion.get_return_value()
            if number == -errno.ENOENT:
                return None
            if number < 0:
                raise rados.OSError("reading failed", errno=-number)
            pairs = _Pairs(self._found)
            found = dict(pairs)
        finally:
            self._found = None
            self._op.release()
        return get_all(self._ioctx, self._oid) if pairs.count >= _PAGE else found


class _Pairs:
    """An omap iterator made safe: empty values come as None, and a key that is not UTF-8 raises; it is passed over."""

    def __init__(self, found: Iterator[tuple[str, bytes | None]]) -> None:
        self._found = found
        self.count = 0
        """Pairs gone through so far, those passed over included."""

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        while True:
            try:
                key, value = next(self._found)
            except StopIteration:
                return
            except UnicodeDecodeError:
                self.count += 1
                continue
            self.count += 1
            yield key, value or b""


def insert_new(ioctx: rados.Ioctx, oid: str, key: str, value: bytes) -> bool:
    """Insert a pair only if the key is absent, in one atomic operation; False when the key is there.

    The object is created if need be, so "not found" can only be the pool and is raised.
    """
    with rados.WriteOpCtx() as op:
        op.new(rados.LIBRADOS_CREATE_IDEMPOTENT)
        op.omap_cmp(key, "", CMP_EQUAL)
        ioctx.set_omap(op, (key,), (value,))
        return _compared(ioctx, op, oid)


def remove_if(ioctx: rados.Ioctx, oid: str, key: str, value: str) -> bool:
    """Remove a key only if its value is ``value``; False when it is absent or another, or there is no object."""
    with rados.WriteOpCtx() as op:
        op.omap_cmp(key, value, CMP_EQUAL)
        ioctx.remove_omap_keys(op, (key,))
        try:
            return _compared(ioctx, op, oid)
        except rados.ObjectNotFound:
            return False


def set_values(ioctx: rados.Ioctx, oid: str, values: Mapping[str, bytes]) -> None:
    """Set pairs, creating the object if need be, in one operation."""
    with rados.WriteOpCtx() as op:
        op.new(rados.LIBRADOS_CREATE_IDEMPOTENT)
        ioctx.set_omap(op, tuple(values), tuple(values.values()))
        write(ioctx, op, oid)


def remove_keys(ioctx: rados.Ioctx, oid: str, keys: Iterable[str]) -> None:
    """Remove keys; absent keys and an absent object are no error."""
    with rados.WriteOpCtx() as op, contextlib.suppress(rados.ObjectNotFound):
        ioctx.remove_omap_keys(op, tuple(keys))
        write(ioctx, op, oid)


def write(ioctx: rados.Ioctx, op: rados.WriteOp, oid: str) -> None:
    """Carry out a write. Without a time the binding dates the object to 1970, whatever its documentation says."""
    ioctx.operate_write_op(op, oid, mtime=int(time.time()))


def _compared(ioctx: rados.Ioctx, op: rados.WriteOp, oid: str) -> bool:
    """Carry out a write with a comparison in it; False when that failed, which the OSD answers with ECANCELED."""
    try:
        write(ioctx, op, oid)
    except rados.Error as error:
        if getattr(error, "errno", None) == errno.ECANCELED:
            return False
        raise
    return True


def _operate(ioctx: rados.Ioctx, op: rados.ReadOp, oid: str) -> bool:
    try:
        ioctx.operate_read_op(op, oid)
    except rados.ObjectNotFound:
        return False
    return True


def ensure_object(ioctx: rados.Ioctx, oid: str) -> None:
    """Create an object unless it exists; looked at first, since a full pool refuses even an idempotent creation."""
    try:
        ioctx.stat(oid)
    except rados.ObjectNotFound:
        with rados.WriteOpCtx() as op:
            op.new(rados.LIBRADOS_CREATE_IDEMPOTENT)
            write(ioctx, op, oid)


def remove_object(ioctx: rados.Ioctx, oid: str) -> bool:
    """Remove an object; False when there was none."""
    try:
        ioctx.remove_object(oid)
    except rados.ObjectNotFound:
        return False
    return True
