"""Commands to the active mgr, with a deadline that librados does not give."""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import Mapping
from typing import Any

from ..model.errors import NotFound, NotReady
from .connection import ENTITY, Connection
from .errors import from_errno, translated

#: Seconds after which a command to the mgr counts as not answered, and how many may be waiting at a time: rbd_support
#: can hold its lock for minutes.
_COMMAND_TIMEOUT = 30
_MAX_COMMANDS = 16


class CommandClient:
    """Sends commands to the active mgr with a deadline, a bounded number at a time.

    The timeout that librados' binding takes is ignored, and the one that librados has (``rados_mon_op_timeout``) leaves
    the late reply to write into memory that is no longer its own. So each command has a thread that lives until the
    reply comes, and only the caller stops waiting.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._slots = threading.BoundedSemaphore(_MAX_COMMANDS)

    def send(self, command: Mapping[str, Any]) -> str:
        """Send a command and return its output; no answer in time is ``NotReady``."""
        what = str(command["prefix"])
        if not self._slots.acquire(blocking=False):
            raise NotReady(f"{what}: {_MAX_COMMANDS} commands are waiting for the mgr already")
        session = self._connection.session()
        answers: list[tuple[int, bytes | str, str]] = []
        errors: list[BaseException] = []

        def run() -> None:
            try:
                with session.use() as handle, translated(what):
                    answers.append(handle.mgr_command(json.dumps(command), b""))
            except BaseException as error:
                errors.append(error)
            finally:
                self._slots.release()

        thread = threading.Thread(target=run, name="vdisk-command", daemon=True)
        thread.start()
        thread.join(_COMMAND_TIMEOUT)
        if errors:
            self._connection.discard(session)
            raise errors[0]
        if not answers:
            raise NotReady(f"{what}: no answer within {_COMMAND_TIMEOUT} s")
        number, out, status = answers[0]
        if number == -errno.EACCES:
            # The key was removed or changed under us; connecting again makes it anew.
            self._connection.discard(session)
            raise NotReady(f"{what}: the key of {ENTITY} was refused: {status}")
        if number == -errno.ENOENT:
            raise NotFound(f"{what}: {status}")
        if number != 0:
            raise from_errno(number, f"{what}: {status}")
        return out.decode("utf-8", "replace") if isinstance(out, bytes) else out
