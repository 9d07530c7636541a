"""The one connection to the cluster that an identity has: blocking calls of librados, for use on threads."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import rados
from grpc import StatusCode

from .errors import Again, CsiError, invalid

_log = logging.getLogger(__name__)
_CONNECT_SECONDS = 10
Answer = tuple[int, bytes, str]


@dataclass(frozen=True)
class Identity:
    """Who the driver is for the cluster. Empty fields are left to ceph.conf; the key never appears in a log."""

    conf: str = ""
    name: str = ""
    """Such as ``client.csi``."""
    keyring: str = ""
    keyfile: str = ""
    monitors: str = ""
    key: str = field(default="", repr=False)

    def with_secrets(self, secrets: Mapping[str, str]) -> Identity:
        """Return the identity that a request's secrets (``userID``, ``userKey``, ``monitors``) name, or this one."""
        user, key, monitors = secrets.get("userID", ""), secrets.get("userKey", ""), secrets.get("monitors", "")
        if not user and not key:
            return Identity(self.conf, self.name, self.keyring, self.keyfile, monitors or self.monitors, self.key)
        if not user or not key:
            raise invalid("secrets hold one of userID and userKey: both are needed")
        return Identity(self.conf, f"client.{user}", "", "", monitors or self.monitors, key)

    def arguments(self, keyfile: str = "") -> list[str]:
        """Return the options by which Ceph's tools become this identity; ``keyfile`` holds its key, if it has one."""
        options = {
            "--conf": self.conf,
            "--name": self.name,
            "--keyring": self.keyring,
            "--keyfile": keyfile or self.keyfile,
            "--mon-host": self.monitors,
        }
        return [word for option, value in options.items() if value for word in (option, value)]

    def open(self) -> rados.Rados:
        """Return a connected handle; blocks for some seconds at most."""
        conf = {
            "keyring": self.keyring,
            "keyfile": self.keyfile,
            "key": self.key,
            "mon_host": self.monitors,
            "client_mount_timeout": str(_CONNECT_SECONDS),
        }
        handle = rados.Rados(**({"name": self.name} if self.name else {}))
        try:
            handle.conf_read_file(self.conf or None)
        except rados.ObjectNotFound:
            if self.conf or not self.monitors:
                raise
        handle.conf_parse_env("CEPH_ARGS")
        for option, value in conf.items():
            if value:
                handle.conf_set(option, value)
        handle.connect()
        return handle


class Cluster:
    """Commands of one identity, over one connection that is made when it is needed and made anew when it broke."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self._lock = threading.Lock()
        self._handle: rados.Rados | None = None
        self._failure: tuple[float, CsiError] | None = None

    def fsid(self) -> str:
        """Return the cluster's fsid."""
        return str(self._use(lambda handle: handle.get_fsid()))

    def pool_name(self, pool_id: int) -> str | None:
        """Return a pool's name, None when there is none of that id."""

        def look(handle: rados.Rados) -> str | None:
            handle.wait_for_latest_osdmap()
            try:
                return str(handle.pool_reverse_lookup(pool_id))
            except rados.ObjectNotFound:
                return None

        found: str | None = self._use(look)
        return found

    def mgr_command(self, text: str) -> Answer:
        """Send a command to the active manager. Without one this blocks until there is, whatever time that takes."""
        answer: Answer = self._use(lambda handle: handle.mgr_command(text, b""))
        return answer

    def mon_command(self, text: str) -> Answer:
        """Send a command to the monitors."""
        answer: Answer = self._use(lambda handle: handle.mon_command(text, b"", timeout=_CONNECT_SECONDS))
        return answer

    def close(self) -> None:
        """Close the connection. Blocks while a command is under way."""
        with self._lock:
            handle, self._handle = self._handle, None
        if handle is not None:
            handle.shutdown()

    def _use(self, call: Any) -> Any:
        handle = self._connected()
        try:
            return call(handle)
        except (rados.RadosStateError, rados.Error) as error:
            with self._lock:
                if self._handle is handle:
                    self._handle = None  # left open: other threads may be inside of it
            raise Again(f"the connection to the cluster failed: {error}") from error

    def _connected(self) -> rados.Rados:
        came = time.monotonic()
        with self._lock:
            if self._handle is None:
                if self._failure is not None and self._failure[0] > came:
                    raise self._failure[1]  # somebody else tried while we waited; trying takes seconds
                try:
                    self._handle = self._open()
                except CsiError as error:
                    self._failure = time.monotonic(), error
                    raise
            return self._handle

    def _open(self) -> rados.Rados:
        who = self.identity.name or "client.admin"
        try:
            handle = self.identity.open()
        except (rados.PermissionError, rados.PermissionDeniedError) as error:
            raise CsiError(StatusCode.UNAUTHENTICATED, f"the cluster refuses the key of {who}") from error
        except rados.ObjectNotFound as error:
            raise CsiError(StatusCode.UNAVAILABLE, f"ceph.conf, key or monitors not found: {error}") from error
        except (rados.Error, OSError) as error:
            raise CsiError(StatusCode.UNAVAILABLE, f"the cluster can't be reached: {error}") from error
        _log.info("connected to the cluster", extra={"entity": who})
        return handle
