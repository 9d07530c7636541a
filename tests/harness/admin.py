"""What an administrator does with a cluster: pools, manager modules, failover, health, crashes."""

import contextlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import rbd

from harness.cli import CephError, CommandTimeout
from harness.client import ClusterClient
from harness.daemon import Daemon
from harness.silence import explain
from harness.wait import Hopeless, WaitTimeout, wait_for

PROBES = {"vdisk": "vdisk status", "rbd_support": "rbd task list"}
"""Module -> a command that it answers with 0 as soon as it is ready."""


class ClusterAdmin(ClusterClient):
    """Administration of one running cluster."""

    mgrs: Mapping[str, Daemon]

    def create_pool(self, name: str, pg_num: int = 8, namespaces: Iterable[str] = (), rbd_init: bool = True) -> None:
        """Create a pool with one copy of everything, ready for RBD images, and RBD namespaces in it."""
        self.mon("osd pool create", pool=name, pg_num=pg_num, pool_type="replicated")
        if not rbd_init:
            return
        self.mon("osd pool application enable", pool=name, app="rbd")
        with self.connect().open_ioctx(name) as ioctx:
            rbd.RBD().pool_init(ioctx, True)
            for namespace in namespaces:
                rbd.RBD().namespace_create(ioctx, namespace)

    def create_ec_pool(self, name: str, pg_num: int = 8, k: int = 2, m: int = 1) -> None:
        """Create an erasure-coded pool that RBD images can use as their data pool. Needs k + m OSDs."""
        profile = f"{name}-k{k}m{m}"
        args = [f"k={k}", f"m={m}", "crush-failure-domain=osd"]
        self.mon("osd erasure-code-profile set", name=profile, profile=args)
        pool = {"pool": name, "pg_num": pg_num, "pool_type": "erasure", "erasure_code_profile": profile}
        self.mon("osd pool create", **pool)
        self.mon("osd pool set", pool=name, var="allow_ec_overwrites", val="true")
        self.mon("osd pool application enable", pool=name, app="rbd")

    def delete_pool(self, name: str) -> None:
        """Delete a pool with all in it."""
        self.mon("osd pool delete", pool=name, pool2=name, yes_i_really_really_mean_it=True)

    def pools(self) -> list[str]:
        """Return the names of all pools."""
        return [pool["poolname"] for pool in self.mon("osd lspools")]

    def mgr_map(self) -> dict[str, Any]:
        """Return the manager map (`ceph mgr dump`)."""
        dump: dict[str, Any] = self.mon("mgr dump")
        return dump

    def active_mgr(self) -> str:
        """Return the id of the active manager, '' if there is none."""
        return str(self.mgr_map()["active_name"])

    def wait_active_mgr(self, timeout: float = 60, *, not_gid: int = 0) -> str:
        """Wait until a manager (another one than `not_gid`) is active and has loaded its modules; return its id."""

        def ready() -> str | None:
            dump = self.mgr_map()
            fine = dump["available"] and dump["active_gid"] != not_gid
            return str(dump["active_name"]) if fine else None

        return wait_for(ready, timeout, "an active manager", interval=0.1)

    def fail_mgr(self, timeout: float = 60) -> str:
        """Make the active manager step down (`ceph mgr fail`), wait for the next one and return its id.

        Where several run it is another one: a manager that has just stepped down itself is no standby at once.
        """
        if sum(daemon.running for daemon in self.mgrs.values()) > 1:
            wait_for(lambda: self.mgr_map()["standbys"], timeout, "a standby that can take over", interval=0.1)
        dump = self.mgr_map()
        self.mon("mgr fail", who=dump["active_name"])
        return self.wait_active_mgr(timeout, not_gid=dump["active_gid"])

    def enable_module(self, name: str = "vdisk", timeout: float = 60) -> None:
        """Enable a manager module and wait until it answers. The active manager restarts itself for that."""
        dump = self.mgr_map()
        if name not in dump["modules"]:
            self.mon("mgr module enable", module=name)
            self._wait_respawn(dump, timeout)
        self.wait_module(name, timeout)

    def disable_module(self, name: str = "vdisk", timeout: float = 60) -> None:
        """Disable a manager module and wait until a manager without it is active."""
        dump = self.mgr_map()
        if name in dump["modules"]:
            self.mon("mgr module disable", module=name)
            self._wait_respawn(dump, timeout)

    def wait_module(self, name: str = "vdisk", timeout: float = 60) -> None:
        """Wait until an enabled module answers its probe command. Fails at once if the module failed to load.

        When it never answers, the exception tells what the managers are doing instead.
        """
        self.wait_active_mgr(timeout)
        probe = PROBES.get(name)

        def ready() -> bool:
            self._raise_if_broken(name)
            if probe is None:
                return True
            ret, out, status = self.mgr_command({"prefix": probe, "format": "json"}, timeout=10)
            if ret:
                raise CommandError(f"{probe}: {ret} {status or out}")
            return True

        try:
            wait_for(ready, timeout, f"module {name} answers", ignore=(CommandError, CephError))
        except WaitTimeout as silence:
            raise WaitTimeout(f"{silence}\n{explain(self)}") from None

    def health(self) -> dict[str, Any]:
        """Return `ceph health detail`: `status`, and `checks` by code."""
        health: dict[str, Any] = self.mon("health", detail="detail")
        return health

    def wait_healthy(self, timeout: float = 60) -> None:
        """Wait until the cluster is HEALTH_OK."""

        def healthy() -> bool:
            health = self.health()
            if health["status"] != "HEALTH_OK":
                raise CommandError(str(health["checks"]))
            return True

        wait_for(healthy, timeout, "HEALTH_OK")

    def crash_dumps(self) -> list[str]:
        """Return the ids of the crash dumps in the crash directory.

        Left out is what stock modules without NOTIFY_TYPES leave whenever a manager loads them.
        """
        return sorted(path.parent.name for path in self.layout.crash.glob("*/meta") if not _is_stock_noise(path))

    def crashes(self) -> list[str]:
        """Return the ids of all crashes of daemons and modules: `crash_dumps()`, and what `ceph crash ls` knows."""
        found = set(self.crash_dumps())
        with contextlib.suppress(CephError, CommandTimeout):
            found |= {crash["crash_id"] for crash in self.ceph_json("crash", "ls", timeout=15)}
        return sorted(found)

    def crash(self, ident: str) -> dict[str, Any]:
        """Return the metadata of a crash in the crash directory: daemon, backtrace, module, exception."""
        meta: dict[str, Any] = json.loads((self.layout.crash / ident / "meta").read_text())
        return meta

    def _wait_respawn(self, before: dict[str, Any], timeout: float) -> None:
        # A manager notices that its set of modules changed and starts itself anew, under a new gid.
        if before["available"]:
            self.wait_active_mgr(timeout, not_gid=before["active_gid"])

    def _raise_if_broken(self, name: str) -> None:
        checks = self.health()["checks"]
        for code in ("MGR_MODULE_ERROR", "MGR_MODULE_DEPENDENCY"):
            about = [part["message"] for part in checks.get(code, {}).get("detail", [])]
            if any(name in text for text in about):
                raise Hopeless(f"module {name} is broken: {'; '.join(about)}")


def _is_stock_noise(meta: Path) -> bool:
    # Empty while it is being written.
    crash = wait_for(lambda: json.loads(meta.read_text()), 20, f"{meta} is written", ignore=(ValueError,), interval=0.1)
    loading = crash.get("mgr_module_caller") == "PyModule::load_subclass_of"
    return bool(loading and crash.get("mgr_module") != "vdisk")


class CommandError(Exception):
    """A command answered with an error, while waiting for it to work."""
