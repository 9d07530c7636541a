"""The module on a standby mgr: it serves ``/metrics`` without metrics, and is otherwise only loaded.

A standby has no connection to the cluster and takes no commands; those go to the active mgr. Having the module's code
loaded is what makes it ready to take over, with the version that was there when that mgr was started.
"""

import threading
import urllib.parse
from typing import Any

from mgr_module import MgrStandbyModule, Option

from .module import Module
from .web.exporter import Exporter, place_of

#: Seconds between two looks at the options and at where the active mgr serves: nobody tells a standby of changes.
_LOOK = 1.0
_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class StandbyModule(MgrStandbyModule):
    """``/metrics`` on a standby, as the mgr's own module ``prometheus`` has it."""

    MODULE_OPTIONS: list[Option] = [option for option in Module.MODULE_OPTIONS if option["name"].startswith("metrics_")]
    MODULE_OPTION_DEFAULTS: dict[str, Any] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._stop = threading.Event()
        self._exporter = Exporter(
            self._address, self._port, self._text, _CONTENT_TYPE, lambda url: None, self.log,
            status=self._status, own=self.get_mgr_ip,
        )  # fmt: skip

    def serve(self) -> None:
        """Follow the options until the end."""
        while not self._stop.wait(_LOOK):
            self._exporter.apply()

    def shutdown(self) -> None:
        """Free the port, which the active module may be about to need."""
        self._stop.set()
        self._exporter.stop()

    def __del__(self) -> None:
        """Leave the log alone.

        What it overrides takes the handlers of Python's log away (Pacific, Reef), whenever the standby is collected: by
        then the active module, in the same interpreter, has put its own there, and would log nothing any more.
        """

    def _address(self) -> str:
        return str(self.get_localized_module_option("metrics_address") or "127.0.0.1")

    def _port(self) -> int:
        """Return the port to listen at: none while nobody is active, or where the active mgr of this host listens."""
        port = int(str(self.get_localized_module_option("metrics_port") or 0))
        active = self.get_active_uri()
        if not 0 < port <= 65535 or not active:
            return 0
        own = place_of(self._address(), port, self.get_mgr_ip)
        return 0 if urllib.parse.urlsplit(active).netloc == own else port

    def _status(self) -> int:
        if self.get_module_option("metrics_standby_behaviour") != "error":
            return 200
        code = int(str(self.get_module_option("metrics_standby_error_status_code") or 500))
        return code if 400 <= code <= 599 else 500

    def _text(self) -> str:
        return "" if self._status() == 200 else f"this mgr is a standby; metrics are at {self.get_active_uri()}\n"
