"""vdisk in the Ceph dashboard: REST below /api/vdisk and the page /vdisk. Put here and taken away by vdisk-install.

Whatever goes wrong in it stays in it: a controller that raises would take the whole dashboard down.
"""

import importlib
import logging

_LOG = logging.getLogger("dashboard.vdisk")


def _stand_in(package: str) -> None:
    """Say at the same places that vdisk does not work."""
    api = importlib.import_module(package)
    text = "vdisk can not be shown: its mgr module is missing or does not load; see the log of the active mgr"

    def answer(self: object) -> bytes:
        """Say that vdisk does not work."""
        cherrypy = importlib.import_module("cherrypy")
        cherrypy.response.status = 503
        cherrypy.response.headers["Content-Type"] = "text/plain; charset=utf-8"
        return text.encode()

    class VdiskMissing(api.BaseController):  # type: ignore[misc,name-defined]
        """The page."""

        index = api.Endpoint("GET", "", json_response=False, version=None)(answer)

    class VdiskApiMissing(api.BaseController):  # type: ignore[misc,name-defined]
        """The first thing that a client asks for."""

        index = api.Endpoint("GET", "", json_response=False, version=None)(answer)

    api.Router("/vdisk", secure=False)(VdiskMissing)
    api.Router("/api/vdisk/session", secure=False)(VdiskApiMissing)


def _register(package: str) -> None:
    try:
        from vdisk.web.dashboard import register

        register(package)
        return
    except Exception:
        _LOG.exception("vdisk can not be shown in the dashboard")
    try:
        _stand_in(package)
    except Exception:
        _LOG.exception("not even the reason can be shown")


if __package__ and __package__.endswith(".controllers"):
    _register(__package__)
