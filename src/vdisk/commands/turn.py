"""Whether other commands wait for the module's command thread.

The mgr hands commands to a module through a finisher of its own whose queue length is a performance counter,
readable at the daemon's admin socket only. Whatever goes wrong there means that nobody is known to wait.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable

_TIMEOUT = 0.5


class CommandThread:
    """Looks at the queue of the finisher ``finisher-<module>`` of this daemon."""

    def __init__(self, module: str, admin_socket: Callable[[], str]) -> None:
        self._logger = f"finisher-{module}"
        self._admin_socket = admin_socket

    def wanted(self) -> bool:
        """Tell whether commands are queued besides the one that is being carried out.

        The counter goes down once all that were taken from the queue together are done, so right after a burst it may
        count some that are done already: then a wait ends early, with an answer that says how to go on.
        """
        try:
            return int(self._counters()[self._logger]["queue_len"]) > 1
        except (OSError, ValueError, LookupError, TypeError, struct.error):
            return False

    def _counters(self) -> dict[str, dict[str, int]]:
        request = {"prefix": "perf dump", "logger": self._logger, "format": "json"}
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_TIMEOUT)
            connection.connect(self._admin_socket())
            connection.sendall(json.dumps(request).encode() + b"\0")
            (length,) = struct.unpack(">I", _receive(connection, 4))
            answer: dict[str, dict[str, int]] = json.loads(_receive(connection, length))
        return answer


def _receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise ConnectionError("the admin socket closed early")
        data += part
    return data
