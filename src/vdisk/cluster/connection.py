"""The module's RADOS connections: one for journal and images that is fenced at failover, one with a key of its own.

librados blocklists never end for a handle: everything on it fails with ESHUTDOWN. A new handle works, so
a connection is a sequence of sessions. A session that was given up is closed when the last call on it returns, never
under a running call, because librados frees the client that the call still uses.
"""

from __future__ import annotations

import errno
import json
import logging
import math
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import rados
import rbd

from ..model.errors import Disconnected, Internal, NotReady
from ..model.observed import Location
from .errors import from_errno, translated

#: The entity that vdisk makes for itself. Its key stays in memory; only its name appears in logs.
ENTITY = "client.vdisk"
_FENCE_INTERVAL = 0.1
#: Seconds for which a connection that was cut off is not made anew. At a failover it is cut off an instant before the
#: mgr starts itself anew: from then on no thread can be started (the kernel says EAGAIN to a process that executes
#: another program), and librados, which starts some to connect, aborts the mgr with a crash dump.
_PAUSE = 2.0
_CAPS = {"mon": "profile rbd", "mgr": "profile rbd", "osd": "profile rbd"}


class MgrContext(Protocol):
    """What the connections need of the mgr module that they live in."""

    def get_context(self) -> object:
        """PyCapsule of the daemon's CephContext."""

    def monitor_addresses(self) -> str:
        """Addresses for ``mon_host``."""

    def client_addresses(self) -> frozenset[str]:
        """Addresses (``ip:port/nonce``) of the RADOS clients of the active mgr's modules."""

    def blocklisted(self) -> frozenset[str]:
        """Addresses (``ip:port/nonce``) of clients that the monitors have cut off; may be some seconds old."""

    def full_pools(self) -> frozenset[int]:
        """Ids of the pools that are full or at their quota; may be some seconds old."""

    def pool_usage(self, pool_id: int) -> tuple[int, int]:
        """Return (bytes stored, bytes that can still be stored) of a pool; may be some seconds old."""

    def task_queue_is_safe(self) -> bool:
        """Tell whether rbd_support can carry out tasks on this mgr without killing it."""

    def send_mon_command(self, command: Mapping[str, Any]) -> tuple[int, str, str]:
        """Run a monitor command as the mgr; returns (errno, output, status)."""

    def register_client(self, addresses: str) -> None:
        """Have the monitors blocklist these addresses when this mgr stops being the active one."""

    def unregister_client(self, addresses: str) -> None:
        """Undo :meth:`register_client`."""


class Session:
    """One connected librados handle, its I/O contexts, and how many calls are using them."""

    def __init__(self, handle: rados.Rados, dispose: Callable[[rados.Rados], None]) -> None:
        self.handle = handle
        self._dispose = dispose
        self._lock = threading.Lock()
        self._contexts: dict[tuple[int, str], rados.Ioctx] = {}
        self._users = 0
        self._doomed = False
        self._closed = False
        self.fenced = False
        """The monitors are known to blocklist this session's address when the mgr stops being the active one."""

    @contextmanager
    def use(self) -> Iterator[rados.Rados]:
        """Hold the session open for the length of the block; ``Disconnected`` when it is closed already."""
        with self._lock:
            if self._closed:
                raise Disconnected("the cluster connection was closed")
            self._users += 1
        try:
            yield self.handle
        finally:
            with self._lock:
                self._users -= 1
                last = self._last_one_out()
            if last:
                self._close()

    def context(self, pool_id: int, namespace: str) -> rados.Ioctx:
        """Return the I/O context of a pool and namespace, kept for the life of the session."""
        key = (pool_id, namespace)
        with self._lock:
            found = self._contexts.get(key)
            if found is None:
                found = self.handle.open_ioctx2(pool_id)
                found.set_namespace(namespace)
                # A full pool or quota answers writes with ENOSPC or EDQUOT instead of holding them, and lets removals
                # and omap changes of existing objects through.
                found.set_osdmap_full_try()
                self._contexts[key] = found
            return found

    def doom(self) -> None:
        """Close the session as soon as nobody uses it."""
        with self._lock:
            self._doomed = True
            last = self._last_one_out()
        if last:
            self._close()

    def _last_one_out(self) -> bool:
        """Tell, once, that nobody uses a doomed session any more. Caller holds the lock."""
        if self._doomed and not self._closed and self._users == 0:
            self._closed = True
            return True
        return False

    def _close(self) -> None:
        for context in self._contexts.values():
            context.close()
        self._contexts.clear()
        self._dispose(self.handle)


class Connection:
    """A connection that can be made anew. ``opener`` returns a connected handle, ``dispose`` takes it back.

    After it was cut off it is not for ``pause`` seconds, by ``clock``.
    """

    def __init__(
        self,
        opener: Callable[[], rados.Rados],
        dispose: Callable[[rados.Rados], None],
        *,
        pause: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._opener = opener
        self._dispose = dispose
        self._pause = pause
        self._clock = clock
        self._not_before = -math.inf
        self._lock = threading.Lock()
        self._session: Session | None = None
        self.sessions = 0
        """How many sessions there have been; more than one means that the module was blocklisted."""

    def session(self) -> Session:
        """Return the current session, opening one if there is none; ``Disconnected`` when it is too early for that."""
        with self._lock:
            if self._session is None:
                if self._clock() < self._not_before:
                    raise Disconnected("the cluster connection was cut off, and is made anew in a moment; try again")
                with translated("connecting to the cluster"):
                    self._session = Session(self._opener(), self._dispose)
                self.sessions += 1
            return self._session

    @contextmanager
    def ioctx(self, where: Location, what: str) -> Iterator[rados.Ioctx]:
        """Yield the I/O context of ``where`` with errors translated; ``what`` names the work in messages."""
        session = self.session()
        with session.use(), translated(what):
            try:
                yield session.context(where.pool_id, where.namespace)
            except (rados.ConnectionShutdown, rbd.ConnectionShutdown):
                self.discard(session)
                raise

    @contextmanager
    def handle(self, what: str) -> Iterator[rados.Rados]:
        """Yield the librados handle with errors translated."""
        session = self.session()
        with session.use() as handle, translated(what):
            try:
                yield handle
            except rados.ConnectionShutdown:
                self.discard(session)
                raise

    def discard(self, session: Session) -> None:
        """Give up a session that turned out to be blocklisted; a call after the pause opens another."""
        with self._lock:
            if self._session is session:
                self._session = None
                self._not_before = self._clock() + self._pause
        session.doom()

    def fence(self, registered: Callable[[], frozenset[str]], seconds: float) -> None:
        """Wait until the monitors would blocklist this connection at a failover; ``NotReady`` when they don't yet.

        A registered address reaches the monitors with the mgr's next beacon. Until it is in the map a failover does not
        stop us, and a mgr that was stopped for a while, replaced, and goes on would write beside the new one. The mgr's
        own copy of the map is proof enough: an address that is in it was committed while this mgr was active.
        """
        session = self.session()
        if session.fenced:
            return
        with session.use() as handle:
            own = _addresses(handle.get_addrs())
        end = time.monotonic() + seconds
        while not own & registered():
            if time.monotonic() > end:
                raise NotReady("the monitors have not registered this mgr's client yet; try again")
            time.sleep(_FENCE_INTERVAL)
        session.fenced = True

    def close(self) -> None:
        """Close the current session once its last call returns."""
        with self._lock:
            session, self._session = self._session, None
        if session is not None:
            session.doom()


def _addresses(text: str) -> frozenset[str]:
    """Return the ``ip:port/nonce`` parts of an address vector as ``Rados.get_addrs`` writes it."""
    return frozenset(re.findall(r"[0-9a-fA-F.:\[\]]+:[0-9]+/[0-9]+", re.sub(r"\bv[12]:", "", text)))


def clone_takes_format() -> bool:
    """Tell whether this librbd binding lets a clone name its format (Pacific's does not)."""
    return "clone_format" in (rbd.RBD.clone.__doc__ or "")


def open_data_connection(mgr: MgrContext, log: logging.Logger) -> Connection:
    """Return the connection for journal and image writes, fenced at failover by the mgr's client registration.

    It is what ``MgrModule.rados`` is: a handle on the daemon's own context. On Pacific, whose clone call cannot ask
    for format 2, the default has to come from the configuration, and that of the daemon's context belongs to every
    other module too; so there the handle has a context of its own, with our own key, registered all the same. In a
    context of its own images are opened without a cache: vdisk reads and writes no data through it, and making one with
    its thread is a seventh of a clone's CPU time.
    """

    def shared() -> rados.Rados:
        return rados.Rados(context=mgr.get_context())

    def private() -> rados.Rados:
        return _own_handle(mgr, {"rbd_default_clone_format": "2", "rbd_cache": "false"})

    def opener() -> rados.Rados:
        handle = shared() if clone_takes_format() else private()
        handle.connect()
        mgr.register_client(handle.get_addrs())
        log.info("connected to the cluster as %s", handle.get_addrs())
        return handle

    def dispose(handle: rados.Rados) -> None:
        addresses = handle.get_addrs()
        handle.shutdown()
        mgr.unregister_client(addresses)

    return Connection(opener, dispose, pause=_PAUSE)


def open_command_connection(mgr: MgrContext) -> Connection:
    """Return the connection that sends mgr commands with vdisk's own key."""

    def opener() -> rados.Rados:
        handle = _own_handle(mgr, {})
        handle.connect()
        return handle

    return Connection(opener, lambda handle: handle.shutdown())


def _own_handle(mgr: MgrContext, conf: Mapping[str, str]) -> rados.Rados:
    settings = {
        "mon_host": mgr.monitor_addresses(),
        "key": _own_key(mgr),
        "keyring": "",
        "log_to_stderr": "false",
        "log_file": "",
        "admin_socket": "",
        **conf,
    }
    return rados.Rados(name=ENTITY, conf=settings)


def _own_key(mgr: MgrContext) -> str:
    """Return the key of :data:`ENTITY`, creating the entity or correcting its capabilities."""
    caps = [part for service, cap in _CAPS.items() for part in (service, cap)]
    create = {"prefix": "auth get-or-create", "entity": ENTITY, "caps": caps, "format": "json"}
    number, out, status = mgr.send_mon_command(create)
    if number == -errno.EINVAL:
        # The entity exists with other capabilities, as an older version of the module made it.
        mgr.send_mon_command({"prefix": "auth caps", "entity": ENTITY, "caps": caps})
        number, out, status = mgr.send_mon_command(create)
    if number != 0:
        raise from_errno(number, f"creating the key of {ENTITY}: {status}")
    try:
        return str(json.loads(out)[0]["key"])
    except (ValueError, LookupError, TypeError):
        raise Internal(f"the monitors answered 'auth get-or-create {ENTITY}' in an unknown form") from None
