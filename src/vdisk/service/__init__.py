"""The one API that commands, the dashboard and HTTP share, one class a subject."""

from dataclasses import dataclass

from .checks import Checks
from .core import Found, Service, Settings

__all__ = ["Checks", "Found", "Service", "Services", "Settings"]


@dataclass(frozen=True)
class Services:
    """All of them."""

    volumes: Service
    checks: Checks
