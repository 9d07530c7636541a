"""The mgr module: lifecycle and options. Everything else is below (doc/internals.md)."""

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import mgr_module
from mgr_module import MgrModule, Option

from .cluster.backend import CephCluster
from .cluster.shared_types import use_up_versions
from .commands.access import Access, Authorize
from .commands.dispatch import declarations, dispatch
from .commands.handlers import Handlers
from .commands.remote import serve
from .commands.turn import CommandThread
from .engine import clock, failpoints
from .engine.census import Census
from .engine.engine import Engine
from .engine.engine import Settings as EngineSettings
from .engine.guards import GuardSettings
from .engine.health import HealthBoard
from .engine.reaper import ReaperSettings
from .engine.runs import Settings as RunSettings
from .engine.scheduler import Scheduler
from .engine.workers import Workers
from .model.errors import NotReady
from .model.handles import HandleFormat, is_cluster_id
from .model.layout import SNAPSHOT_FEATURES, parse_features
from .model.names import DEFAULT_JOURNAL, is_journal
from .model.shape import Shape
from .model.specs import parse_duration
from .service import Checks, Groups, Lineage, Schedules, Service, Services, Telemetry, Trash
from .service import Settings as ServiceSettings
from .service.checks import Limits
from .service.checks import Settings as CheckSettings
from .service.housekeeping import Housekeeper
from .service.housekeeping import Settings as HousekeepingSettings
from .service.vitals import Vitals
from .web.exporter import Exporter

#: Tentacle gives each module a registry of its own and insists on the attribute; older releases have none.
_REGISTRY = getattr(mgr_module, "CLICommandBase", None)
#: Modules have an interpreter each (before Tentacle), and interpreters share next to nothing (from Python 3.12 on).
_APART = _REGISTRY is None and sys.version_info >= (3, 12)
_READERS = 32
#: Threads that checks read with: more would only wait for the interpreter.
_CHECKERS = 12
#: Seconds after which a check looks once more at what it found.
_SETTLE = 3.0
#: Seconds for which what was seen in the OSD map is kept.
_LOOK_SECONDS = 2.0


class _Context:
    """``cluster.connection.MgrContext`` on a mgr module."""

    def __init__(self, module: MgrModule) -> None:
        self._module = module
        self._lock = threading.Lock()
        self._full: frozenset[int] = frozenset()
        self._blocklisted: frozenset[str] = frozenset()
        self._looked_until = 0.0

    def get_context(self) -> object:
        return self._module.get_context()

    def monitor_addresses(self) -> str:
        monitors = self._module.get("mon_map")["mons"]
        vectors = [monitor["public_addrs"]["addrvec"] for monitor in monitors]
        return ",".join("[" + ",".join(f"{a['type']}:{a['addr']}" for a in vector) + "]" for vector in vectors)

    def client_addresses(self) -> frozenset[str]:
        clients = self._module.get("mgr_map").get("active_clients", [])
        return frozenset(f"{a['addr']}/{a['nonce']}" for client in clients for a in client["addrvec"])

    def blocklisted(self) -> frozenset[str]:
        with self._lock:
            self._look()
            return self._blocklisted

    def full_pools(self) -> frozenset[int]:
        with self._lock:
            self._look()
            return self._full

    def _look(self) -> None:
        """Look at the OSD map; a dump of the whole map is cheap once in a while, not for each of many images."""
        if time.monotonic() < self._looked_until:
            return
        osd_map = self._module.get("osd_map")
        everything = "full" in osd_map["flags"].split(",")
        self._full = frozenset(
            int(pool["pool"])
            for pool in osd_map["pools"]
            if everything or any(flag.startswith("full") for flag in pool["flags_names"].split(","))
        )
        self._blocklisted = frozenset(osd_map.get("blocklist", {}))
        self._looked_until = time.monotonic() + _LOOK_SECONDS

    def pool_usage(self, pool_id: int) -> tuple[int, int]:
        for pool in self._module.get("df")["pools"]:
            if int(pool["id"]) == pool_id:
                return int(pool["stats"]["stored"]), int(pool["stats"]["max_avail"])
        return 0, 0

    def task_queue_is_safe(self) -> bool:
        # rbd_support gives librbd a Python progress callback, which runs in a thread of librbd's with the main
        # interpreter's state. Where interpreters are apart the mgr dies of it at the first task, and again at each
        # start while the task is queued: measured on Reef with Python 3.13, where not one of twelve tasks got done.
        return not _APART

    def send_mon_command(self, command: Mapping[str, Any]) -> tuple[int, str, str]:
        number, out, status = self._module.mon_command(dict(command))
        return int(number), str(out), str(status)

    def register_client(self, addresses: str) -> None:
        if _takes_name(self._module):
            self._module._ceph_register_client(None, addresses, False)
        else:
            self._module._ceph_register_client(addresses)

    def unregister_client(self, addresses: str) -> None:
        if _takes_name(self._module):
            self._module._ceph_unregister_client(None, addresses)
        else:
            self._module._ceph_unregister_client(addresses)


def _made(handlers: "Callable[[], Handlers] | None") -> "Handlers | NotReady":
    """Make the handlers of one command; on a mgr that is stopping there are none, which is its answer."""
    return NotReady("vdisk is stopping on this mgr; try again") if handlers is None else handlers()


def _takes_name(module: MgrModule) -> bool:
    """Tell whether client registration takes a name, as it does from Quincy (17) on."""
    return int(module.version.split("ceph version ")[-1].split(".")[0]) >= 17


class _Progress:
    """``service.vitals.Events`` on the mgr module ``progress``, which an administrator may have switched off."""

    def __init__(self, module: MgrModule) -> None:
        self._module = module
        self._told = False

    def update(self, event: str, message: str, fraction: float) -> None:
        # References that are no dictionary make the dashboard fail.
        self._call("update", event, message, fraction, {"origin": "vdisk"})

    def complete(self, event: str) -> None:
        self._call("complete", event)

    def _call(self, method: str, *args: Any) -> None:
        try:
            self._module.remote("progress", method, *args)
        except Exception as error:
            # Whatever the other module raises: progress is told as well as it can be.
            if not self._told:
                self._module.log.warning("progress can't be shown: %s", error)
            self._told = True


class Module(MgrModule):
    """``ceph vdisk``."""

    if _REGISTRY is not None:
        CLICommand = _REGISTRY.make_registry_subtype("VdiskCLICommand")

    NOTIFY_TYPES: list[Any] = []
    COMMANDS = declarations()
    MODULE_OPTIONS = [
        Option(
            "command_wait",
            type="float",
            default=10.0,
            min=0,
            max=3600,
            runtime=True,
            desc="seconds that a changing command waits for its end when --wait is not given",
        ),
        Option(
            "read_timeout",
            type="float",
            default=10.0,
            min=1,
            max=600,
            runtime=True,
            desc="seconds that a command waits for a pool to answer a read",
        ),
        Option(
            "workers",
            type="int",
            default=64,
            min=1,
            max=1024,
            runtime=True,
            desc="operations that run side by side",
        ),
        Option(
            "queue_limit",
            type="int",
            default=10000,
            min=1,
            runtime=True,
            desc="operations under way beyond which new ones are answered EAGAIN (throttled)",
        ),
        Option(
            "reaper_threads",
            type="int",
            default=64,
            min=0,
            max=256,
            runtime=True,
            desc="deleted images that vdisk removes side by side; 0 leaves them all to rbd_support, one at a time",
        ),
        Option(
            "reaper_window",
            type="int",
            default=1,
            min=0,
            max=1000,
            runtime=True,
            desc="deleted images that rbd_support is given at a time",
        ),
        Option(
            "reaper_rate",
            type="float",
            default=0.0,
            min=0,
            runtime=True,
            desc="deleted images that vdisk begins to remove per second at most; 0 for no limit",
        ),
        Option(
            "clone_depth_soft",
            type="int",
            default=4,
            min=0,
            runtime=True,
            desc="parents of a new clone from which an image in the chain is flattened in the background; 0 for never",
        ),
        Option(
            "clone_depth_hard",
            type="int",
            default=8,
            min=0,
            runtime=True,
            desc="parents of a new clone beyond which its creation waits until the chain is flattened; 0 for never",
        ),
        Option(
            "snapshots_soft",
            type="int",
            default=250,
            min=0,
            runtime=True,
            desc="snapshots of an image from which clones that keep some are flattened in the background; 0 for never",
        ),
        Option(
            "snapshots_hard",
            type="int",
            default=450,
            min=0,
            runtime=True,
            desc="snapshots of an image from which another one waits until some have gone; 0 for never",
        ),
        Option(
            "large_journal_names",
            type="int",
            default=150000,
            min=0,
            runtime=True,
            desc="names in a journal directory from which VDISK_LARGE_JOURNAL warns; 0 for never",
        ),
        Option(
            "journal_instance",
            type="str",
            default="default",
            runtime=True,
            desc="instance of the journal: the last part of csi.volumes.<instance> and csi.snaps.<instance>",
        ),
        Option(
            "handle_format",
            type="str",
            default="cstor",
            enum_allowed=[family.value for family in HandleFormat],
            runtime=True,
            desc="family of the handles that are issued; both are always understood",
        ),
        Option(
            "cluster_id",
            type="str",
            default="",
            runtime=True,
            desc="cluster id in the handles that are issued instead of the fsid; both are always understood",
        ),
        Option(
            "snapshot_image_features",
            type="str",
            default="",
            runtime=True,
            desc="comma-separated features of the images made for snapshots; empty for layering, exclusive-lock, "
            "object-map, fast-diff and deep-flatten, with which deleting costs the same at any size",
        ),
        Option(
            "check_grace",
            type="float",
            default=600.0,
            min=0,
            max=86400,
            runtime=True,
            desc="age in seconds below which nothing is a finding of a check: a driver may just be at work on it",
        ),
        Option(
            "check_interval",
            type="float",
            default=86400.0,
            min=0,
            max=31622400,
            runtime=True,
            desc="seconds between the checks that run by themselves in every pool and namespace; 0 for none",
        ),
        Option(
            "trash_keep_for",
            type="str",
            default="",
            runtime=True,
            desc="how long removed volumes and snapshots can be undeleted when --keep-for is not given, such as 7d",
        ),
        Option(
            "revert_keep_for",
            type="str",
            default="7d",
            runtime=True,
            desc="how long what a volume held before a revert can be undeleted when --keep-for is not given",
        ),
        Option(
            "housekeeping_interval",
            type="float",
            default=60.0,
            min=1,
            max=3600,
            runtime=True,
            desc="seconds between two looks for what has expired or is due",
        ),
        Option(
            "metrics_address",
            type="str",
            default="127.0.0.1",
            runtime=True,
            desc="IP address of this mgr's host at which metrics are served to Prometheus; :: for all",
        ),
        Option(
            "metrics_port",
            type="int",
            default=0,
            min=0,
            max=65535,
            runtime=True,
            desc="port at which metrics are served to Prometheus, at /metrics; 0 for none",
        ),
        Option(
            "metrics_standby_behaviour",
            type="str",
            default="default",
            enum_allowed=["default", "error"],
            runtime=True,
            desc="what standby mgrs answer at /metrics: default for nothing with status 200, or error",
        ),
        Option(
            "metrics_standby_error_status_code",
            type="int",
            default=500,
            min=400,
            max=599,
            runtime=True,
            desc="HTTP status of that error",
        ),
    ]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._stop = threading.Event()
        self._known_fsid: str | None = None
        self._command_thread = threading.local()
        self._queue = CommandThread(self.module_name, lambda: str(self.get_ceph_option("admin_socket")))
        self.health = HealthBoard(self.set_health_checks)
        self._handlers: Callable[[], Handlers] | None = None
        self._trusted: Callable[[], Handlers] | None = None
        self._engine: Engine | None = None
        self._census: Census | None = None
        self._scheduler: Scheduler | None = None
        self._readers: Workers | None = None
        self._checkers: Workers | None = None
        self._services: Services | None = None
        self._housekeeper: Housekeeper | None = None
        self._vitals: Vitals | None = None
        self._cluster: CephCluster | None = None
        self._exporter: Exporter | None = None
        self._start()

    def _start(self) -> None:
        failpoint = failpoints.from_environment(os.environ)
        if failpoint is not None:
            self.log.warning("%s is set: this mgr will stop or die at a step", failpoints.VARIABLE)
        if _APART:
            use_up_versions()
        self._cluster = CephCluster(_Context(self), self.log)
        guards = GuardSettings(
            depth_soft=lambda: int(self._number("clone_depth_soft", 0, 10**9)),
            depth_hard=lambda: int(self._number("clone_depth_hard", 0, 10**9)),
            snapshots_soft=lambda: int(self._number("snapshots_soft", 0, 10**9)),
            snapshots_hard=lambda: int(self._number("snapshots_hard", 0, 10**9)),
        )
        settings = EngineSettings(
            workers=lambda: int(self._number("workers", 1, 1024)),
            queue_limit=lambda: int(self._number("queue_limit", 1, 10**9)),
            reaper=ReaperSettings(
                threads=lambda: int(self._number("reaper_threads", 0, 256)),
                window=lambda: int(self._number("reaper_window", 0, 1000)),
                rate=lambda: self._number("reaper_rate", 0, 10**6),
            ),
            guards=guards,
        )
        self._engine = Engine(self._cluster, settings, self.log, failpoint=failpoint)
        self._readers = Workers("vdisk-reader", lambda: _READERS, self.log)
        service = Service(
            self._cluster,
            self._engine,
            self._readers,
            ServiceSettings(
                cluster_id=self._cluster_id,
                known_cluster_ids=lambda: [self._fsid(), self._cluster_id()],
                handle_format=self._handle_format,
                snapshot_features=self._snapshot_features,
                read_timeout=lambda: self._number("read_timeout", 1, 600),
                give_way=self._give_way,
                journal=self._journal,
            ),
        )
        self._census = Census(
            self._cluster,
            self.health,
            lambda: int(self._number("large_journal_names", 0, 10**9)),
            self._journal,
            self.log,
        )
        self._checkers = Workers("vdisk-checker", lambda: _CHECKERS, self.log)
        checks = Checks(
            self._cluster,
            self._engine,
            self._checkers,
            CheckSettings(
                grace=lambda: self._number("check_grace", 0, 86400),
                settle=lambda: min(_SETTLE, self._number("check_grace", 0, 86400)),
                give_way=self._give_way,
                limits=lambda: Limits(
                    guards.near_depth(),
                    guards.near_snapshots(),
                    int(self._number("large_journal_names", 0, 10**9)) or sys.maxsize,
                ),
            ),
            self.log,
            on_found=lambda where, last: None if self._housekeeper is None else self._housekeeper.told(where, last),
        )
        trash = Trash(self._cluster, self._engine, service, self.log)
        self._scheduler = Scheduler(
            self._cluster,
            self._engine,
            RunSettings(snapshot_features=self._snapshot_features, keep_for=self._keep_for),
            self.health,
            self.log,
            clock.from_environment(os.environ),
        )
        telemetry = Telemetry(
            self._engine,
            self._cluster,
            lambda: (0, Shape()) if self._housekeeper is None else self._housekeeper.known(),
        )
        self._services = Services(
            service,
            checks,
            trash,
            Lineage(self._cluster, self._engine, service),
            Schedules(self._cluster, self._scheduler, service),
            Groups(self._cluster, service),
            telemetry,
        )
        self._exporter = Exporter(
            lambda: str(self.get_localized_module_option("metrics_address") or "127.0.0.1"),
            lambda: min(65535, max(0, int(str(self.get_localized_module_option("metrics_port") or 0)))),
            telemetry.metrics,
            telemetry.content_type,
            self.set_uri,
            self.log,
            own=self.get_mgr_ip,
        )
        self._housekeeper = Housekeeper(
            self._cluster,
            self._checkers,
            self._services,
            HousekeepingSettings(
                interval=lambda: self._number("housekeeping_interval", 1, 3600),
                check_interval=lambda: self._number("check_interval", 0, 366 * 86400),
            ),
            self.health,
            self.log,
        )
        self._vitals = Vitals(
            self._cluster,
            self._engine,
            checks,
            self.health,
            _Progress(self),
            guards,
            lambda: self._number("housekeeping_interval", 1, 3600),
            self.log,
        )
        wait = lambda: self._number("command_wait", 0, 3600)  # noqa: E731
        services = self._services

        def handlers(authorize: Authorize) -> Handlers:
            """Make the handlers of one command. Until it returns, is_authorized means its caller."""
            return Handlers(services, Access(service, authorize), wait, self._text)

        self._handlers = lambda: handlers(lambda arguments: bool(self.is_authorized(dict(arguments))))
        self._trusted = lambda: handlers(lambda arguments: True)

    def serve(self) -> None:
        """Go on with what was begun before this mgr became active, then wait for the end."""
        assert self._engine is not None
        assert self._housekeeper is not None
        self._engine.recover()
        if self._census is not None:
            self._census.start()
        if self._scheduler is not None:
            self._scheduler.start()
        if self._vitals is not None:
            self._vitals.start()
        self.config_notify()
        self._housekeeper.run(self._stop)

    def config_notify(self) -> None:
        """Take over an option that has an effect by itself; the others are read where they matter."""
        if self._engine is not None:
            self._engine.reaper.settings_changed()
        if self._exporter is not None and not self._stop.is_set():
            self._exporter.apply()

    def shutdown(self) -> None:
        """Stop between steps; what is under way goes on at the next start."""
        self._stop.set()
        self._handlers = self._trusted = None
        if self._exporter is not None:
            self._exporter.stop()
        if self._census is not None:
            self._census.stop()
        if self._scheduler is not None:
            self._scheduler.stop()
        if self._vitals is not None:
            self._vitals.stop()
        if self._services is not None:
            self._services.checks.stop()
        if self._engine is not None:
            self._engine.stop()
        if self._checkers is not None:
            self._checkers.stop(0.5)
        if self._readers is not None:
            self._readers.stop(0.5)
        if self._cluster is not None:
            self._cluster.close()
        super().shutdown()

    def handle_command(self, inbuf: str, cmd: dict[str, Any]) -> tuple[int, str, str]:
        """Carry out a command; runs on the module's command thread, one at a time."""
        self._command_thread.here = True
        return dispatch(_made(self._handlers), cmd, self.log)

    def rest(self, words: str, arguments: str) -> str:
        """Carry out a command for the dashboard, which has asked for the login and the role; runs on its thread.

        ``arguments`` is a JSON object; so is what is returned, with ``answer``, or ``error`` as in an error's JSON.
        Only text crosses between the modules, which may have interpreters of their own.
        """
        return serve(_made(self._trusted), words, arguments, self.log)

    def _give_way(self) -> bool:
        """On the command thread, give way to commands that queue behind; elsewhere a wait is nobody else's matter."""
        return getattr(self._command_thread, "here", False) and self._queue.wanted()

    # -- options: min, max and enum_allowed are not enforced by the mgr ---------------------------------

    def _number(self, name: str, least: float, most: float) -> float:
        value = self.get_module_option(name)
        return min(most, max(least, float(value if value is not None else least)))

    def _text(self, name: str) -> str:
        return str(self.get_module_option(name) or "")

    def _fsid(self) -> str:
        # Asked for with every handle, and never another: the mgr would make the whole map anew each time.
        if self._known_fsid is None:
            self._known_fsid = str(self.get("mon_map")["fsid"])
        return self._known_fsid

    def _cluster_id(self) -> str:
        text = self._text("cluster_id")
        return text if is_cluster_id(text) else self._fsid()

    def _journal(self) -> str:
        text = self._text("journal_instance")
        return text if is_journal(text) else DEFAULT_JOURNAL

    def _handle_format(self) -> HandleFormat:
        try:
            return HandleFormat(self._text("handle_format"))
        except ValueError:
            return HandleFormat.CSTOR

    def _keep_for(self) -> int:
        text = self._text("trash_keep_for")
        return parse_duration(text, "option trash_keep_for") if text else 0

    def _snapshot_features(self) -> int:
        text = self._text("snapshot_image_features")
        return parse_features(text, "option snapshot_image_features") if text else SNAPSHOT_FEATURES
