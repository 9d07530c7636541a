"""The endpoint ``/metrics`` for Prometheus: a thread with the standard library's HTTP server, off by default.

A standby mgr serves it too, without metrics, so that no scrape of it fails (or with an error, so that each does).

The dashboard's and the prometheus module's cherrypy is one for all modules on some releases and differs between them,
so that this has a server of its own. Requests are served one after another: a scrape takes a millisecond.
"""

from __future__ import annotations

import logging
import socket
import socketserver
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

#: Seconds that one request may take, so that a client that sends nothing does not hold up the others for ever.
_TIMEOUT = 5.0
_POLL = 0.2
#: Seconds between two tries to listen at an address that did not work.
_RETRY = 5.0


class _Server(socketserver.TCPServer):
    allow_reuse_address = True
    request_queue_size = 32

    def handle_error(self, request: object, client_address: object) -> None:
        """Leave a client that went away in the middle to itself."""


def place_of(address: str, port: int, own: Callable[[], str]) -> str:
    """Return ``host:port`` under which others reach what listens there; ``own`` is asked where that is everywhere."""
    host = own() if address in ("::", "0.0.0.0") else address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Exporter:
    """Listens where the options say.

    ``text`` makes the answer and ``status`` its HTTP status; ``announce`` tells the mgr where it is, or ''; ``own`` is
    this host's address for others.
    """

    def __init__(
        self,
        address: Callable[[], str],
        port: Callable[[], int],
        text: Callable[[], str],
        content_type: str,
        announce: Callable[[str], None],
        log: logging.Logger,
        *,
        status: Callable[[], int] = lambda: 200,
        own: Callable[[], str] = lambda: "127.0.0.1",
    ) -> None:
        self._address = address
        self._port = port
        self._text = text
        self._content_type = content_type
        self._announce = announce
        self._log = log
        self._status = status
        self._own = own
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self.problem: str | None = None
        """Why it does not listen although it should."""

    def apply(self) -> None:
        """Do what the options say now; returns at once. Called at the start and whenever an option changed."""
        with self._lock:
            if self._thread is None and self._port() > 0 and not self._stopping:
                self._thread = threading.Thread(target=self._run, name="vdisk-metrics", daemon=True)
                self._thread.start()
        self._wake.set()

    def stop(self) -> None:
        """Listen no more; returns when the port is free again."""
        with self._lock:
            self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(2 * _TIMEOUT)

    def _place(self) -> tuple[str, int] | None:
        """Return where to listen now; None for nowhere."""
        port = self._port()
        return None if self._stopping or port <= 0 else (self._address(), port)

    def _run(self) -> None:
        while not self._stopping:
            self._wake.clear()
            place = self._place()
            if place is None:
                self._wake.wait()
            elif not self._serve(*place):
                self._wake.wait(_RETRY)

    def _serve(self, address: str, port: int) -> bool:
        """Serve until the options say otherwise; False when that did not work."""
        try:
            server = self._listen(address, port)
        except OSError as error:
            problem = f"{address} port {port}: {error.strerror or error}"
            if problem != self.problem:
                self._log.warning("metrics can't be served at %s", problem)
            self.problem = problem
            return False
        self.problem = None
        with server:
            url = f"http://{place_of(address, port, self._own)}/metrics"
            self._announce(url)
            self._log.info("serving metrics at %s", url)
            server.timeout = _POLL
            while self._place() == (address, port):
                server.handle_request()
        self._announce("")
        return True

    def _listen(self, address: str, port: int) -> _Server:
        text, content_type, status = self._text, self._content_type, self._status

        class Handler(BaseHTTPRequestHandler):
            """Answers GET and HEAD of ``/metrics``."""

            timeout = _TIMEOUT
            server_version = "vdisk"
            sys_version = ""

            def do_GET(self) -> None:
                """Answer."""
                found = self.path.partition("?")[0] == "/metrics"
                code = status() if found else 404
                body = (text() if found else "metrics are at /metrics\n").encode()
                self.send_response(code)
                self.send_header("Content-Type", content_type if code == 200 else "text/plain; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, format: str, *args: object) -> None:
                """Write nothing: a line for each scrape would fill the mgr's log."""

        kind = _Server6 if ":" in address else _Server
        return kind((address, port), Handler)


class _Server6(_Server):
    address_family = socket.AF_INET6
