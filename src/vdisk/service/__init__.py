"""The one API that commands, the dashboard and HTTP share, one class a subject."""

from dataclasses import dataclass

from .checks import Checks
from .core import Found, Service, Settings
from .groups import Groups
from .lineage import Lineage
from .schedules import Schedules
from .telemetry import Telemetry
from .trash import Trash

__all__ = [
    "Checks",
    "Found",
    "Groups",
    "Lineage",
    "Schedules",
    "Service",
    "Services",
    "Settings",
    "Telemetry",
    "Trash",
]


@dataclass(frozen=True)
class Services:
    """All of them."""

    volumes: Service
    checks: Checks
    trash: Trash
    lineage: Lineage
    schedules: Schedules
    groups: Groups
    telemetry: Telemetry
