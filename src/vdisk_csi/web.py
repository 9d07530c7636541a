"""``/metrics`` and ``/healthz`` over plain HTTP."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from .deadline import Deadline
from .metrics import Metrics
from .server import BadEndpoint

_HEALTH_SECONDS = 5.0


def serve(endpoint: str, metrics: Metrics, ready: Callable[[Deadline], Awaitable[bool]]) -> ThreadingHTTPServer:
    """Serve at ``host:port`` or ``:port`` on a thread of its own; call it inside of the event loop.

    ``/healthz`` is 200 while the driver can work and 503 otherwise.
    """
    host, _, port = endpoint.rpartition(":")
    if not port.isdigit():
        raise BadEndpoint(f"{endpoint!r} is not of the form host:port")
    loop = asyncio.get_running_loop()

    def healthy() -> bool:
        try:
            look = asyncio.run_coroutine_threadsafe(_within(ready, _HEALTH_SECONDS), loop)
            return look.result(_HEALTH_SECONDS + 1)
        except (TimeoutError, RuntimeError):
            return False

    class Handler(BaseHTTPRequestHandler):
        """Answers the two paths."""

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(200, metrics.text(), "text/plain; version=0.0.4; charset=utf-8")
            elif path == "/healthz":
                good = healthy()
                self._answer(200 if good else 503, b"ok\n" if good else b"not ready\n", "text/plain")
            else:
                self._answer(404, b"there are /metrics and /healthz\n", "text/plain")

        def _answer(self, code: int, body: bytes, kind: str) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: probes come every few seconds."""

    try:
        server = ThreadingHTTPServer((host.strip("[]"), int(port)), Handler)
    except OSError as error:
        raise BadEndpoint(f"can't listen at {endpoint}: {error}") from error
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
    return server


async def _within(ready: Callable[[Deadline], Awaitable[bool]], seconds: float) -> bool:
    return await ready(Deadline(seconds))
