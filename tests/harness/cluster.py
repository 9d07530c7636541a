"""A whole Ceph cluster on the loopback address, in one directory, that starts in seconds and may be maltreated."""

import concurrent.futures
import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from harness import genesis, silence
from harness.admin import ClusterAdmin
from harness.config import Conf
from harness.daemon import Daemon, Process
from harness.layout import Layout
from harness.releases import Release, get_release
from harness.wait import Hopeless, wait_for

MON_IDS = "abcdefg"
MGR_IDS = "xyzwvut"


class Cluster(ClusterAdmin):
    """Monitors, managers and OSDs of one release. As a context manager it starts on entry and stops on exit.

    `release` is its name, or the release itself where its root is another than usual.
    `store` is `memstore` (fast; an OSD keeps its data over `restart()` but not over `kill()`) or `bluestore` (on a
    sparse file). `conf` are options for ceph.conf (`option` or `section:option`). `module` enables vdisk from the
    start, if the repository holds it. With `own_modules` each manager has modules of its own, as on a host of its own
    (`put_module` changes them). `env` is the daemons' extra environment. `where` is the exact directory to make,
    otherwise it is a new one under `base_dir`. `detached` daemons outlive this process.
    """

    def __init__(
        self,
        release: str | Release = "pacific",
        *,
        mons: int = 1,
        mgrs: int = 1,
        osds: int = 1,
        store: str = "memstore",
        conf: Conf | None = None,
        module: bool = True,
        own_modules: bool = False,
        base_dir: Path | None = None,
        where: Path | None = None,
        env: Mapping[str, str] | None = None,
        detached: bool = False,
    ) -> None:
        if store not in ("memstore", "bluestore"):
            raise ValueError(f"store {store!r} is neither memstore nor bluestore")
        found = get_release(release) if isinstance(release, str) else release
        plan = genesis.Plan(
            release=found,
            layout=Layout.create(where, base_dir),
            fsid=str(uuid.uuid4()),
            mons=list(MON_IDS[:mons]),
            mgrs=list(MGR_IDS[:mgrs]),
            osds=osds,
            store=store,
            conf=dict(conf or {}),
            modules=["vdisk"] if module and genesis.has_module() else [],
            own_modules=own_modules,
        )
        self._setup(plan, env, detached)
        for name in plan.mons:
            self.mons[name] = self._daemon("mon", name)
        for name in plan.mgrs:
            self.mgrs[name] = self._daemon("mgr", name)
        for number in range(osds):
            self.osds[str(number)] = self._daemon("osd", str(number))

    def _setup(self, plan: genesis.Plan, env: Mapping[str, str] | None, detached: bool) -> None:
        super().__init__(plan)
        self.release: Release = plan.release
        self.fsid = plan.fsid
        self.keep = False
        self.failed = False
        self.mons: dict[str, Daemon] = {}
        self.mgrs: dict[str, Daemon] = {}
        self.osds: dict[str, Daemon] = {}
        self._env = dict(env or {})
        self._detached = detached

    @classmethod
    def attach(cls, where: Path) -> "Cluster":
        """Return the cluster that runs in a directory, started detached by another process."""
        layout = Layout(where.resolve())
        state = json.loads(layout.state.read_text())
        plan = genesis.Plan(
            release=get_release(state["release"]),
            layout=layout,
            fsid=state["fsid"],
            mons=list(state["mons"]),
            mgrs=list(state["mgrs"]),
            osds=len(state["osds"]),
            store=state["store"],
            conf={},
            modules=[],
        )
        self = cls.__new__(cls)
        self._setup(plan, state["env"], True)
        for kind, group in (("mon", self.mons), ("mgr", self.mgrs), ("osd", self.osds)):
            for ident, entry in state[f"{kind}s"].items():
                process = Process(entry["pid"], entry["started"]) if "pid" in entry else None
                group[ident] = self._daemon(kind, ident, process)
        return self

    def __enter__(self) -> "Cluster":
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.failed = self.failed or error is not None
        self.stop()

    @property
    def dir(self) -> Path:
        """The cluster's directory."""
        return self.layout.dir

    @property
    def conf_path(self) -> Path:
        """The cluster's ceph.conf, for clients of one's own."""
        return self.layout.conf

    def daemons(self) -> Iterator[Daemon]:
        """Yield all daemons: managers, OSDs, monitors."""
        for group in (self.mgrs, self.osds, self.mons):
            yield from group.values()

    def start(self, timeout: float = 60) -> None:
        """Make and start everything; return when a manager is active, all OSDs are up and the module answers.

        If that fails, all is stopped again, the directory stays, and the exception tells what the daemons said.
        """
        try:
            genesis.create(self.plan)
            for daemon in [*self.mons.values(), *self.osds.values(), *self.mgrs.values()]:
                daemon.start()
            self.save_state()
            wait_for(self._quorum, timeout, "a monitor quorum")
            self._mute_cipher_warnings()
            self.wait_active_mgr(timeout)
            wait_for(self._osds_up, timeout, "all OSDs up")
            for module in self.plan.modules:
                self.wait_module(module, timeout)
        except BaseException as error:
            self.failed = True
            report = "\n".join(f"--- {daemon.name}\n{daemon.output()[-2000:]}" for daemon in self.daemons())
            self.stop()
            if isinstance(error, Exception):
                raise ClusterFailed(f"{self.release.name} cluster in {self.dir}: {error}\n{report}") from error
            raise

    def stop(self) -> None:
        """Stop every daemon, and remove the directory unless `keep` or `failed` is set."""
        self.close_handles()
        for daemon in self.daemons():
            with contextlib.suppress(AssertionError):
                daemon.kill()
        if not (self.keep or self.failed):
            self.layout.remove()

    def keep_logs(self, dest: Path, lines: int = 2000) -> None:
        """Copy the configuration, the last `lines` lines of every log, and the crash dumps to directory `dest`."""
        dest.mkdir(parents=True, exist_ok=True)
        for path in [self.layout.conf, *self.layout.logs.iterdir()]:
            if path.exists() and path.stat().st_size:
                tail = path.read_text(errors="replace").splitlines()[-lines:]
                (dest / path.name).write_text("\n".join(tail) + "\n")
        if any(self.layout.crash.iterdir()):
            shutil.copytree(self.layout.crash, dest / "crash", dirs_exist_ok=True)

    def add_mgr(self, ident: str) -> Daemon:
        """Create and start one more manager; return when the monitors know it."""
        data = self.layout.data("mgr", ident)
        data.mkdir()
        caps = ["mon", "allow profile mgr", "osd", "allow *", "mds", "allow *"]
        self.mon("auth get-or-create", entity=f"mgr.{ident}", caps=caps)
        self.save_key(f"mgr.{ident}", data / "keyring")
        daemon = self.mgrs[ident] = self._daemon("mgr", ident)
        daemon.start()
        self.save_state()
        self.wait_standby(ident)
        return daemon

    def put_module(self, ident: str, source: Path | None) -> None:
        """Put another version of vdisk (a directory in `dir`) where one manager finds modules; None for none at all.

        Needs `own_modules`. A manager goes on with what it has loaded until it starts anew.
        """
        link = self.layout.modules_of(ident) / "vdisk"
        link.unlink(missing_ok=True)
        if source is not None:
            link.symlink_to(source)

    def mgr_gid(self, ident: str) -> int:
        """Return the id that the monitors know a manager by, another one after each of its starts; 0 for none."""
        dump = self.mgr_map()
        known = {dump["active_name"]: dump["active_gid"], **{each["name"]: each["gid"] for each in dump["standbys"]}}
        return int(known.get(ident, 0))

    def wait_standby(self, ident: str, timeout: float = 60, *, not_gid: int = 0) -> None:
        """Wait until the monitors count a manager (by another id than `not_gid`) as active or standby."""
        wait_for(lambda: self.mgr_gid(ident) not in (0, not_gid), timeout, f"manager {ident} reports")

    def save_state(self) -> None:
        """Write what `attach` and `python -m harness down` need."""
        groups = {"mons": self.mons, "mgrs": self.mgrs, "osds": self.osds}
        state: dict[str, Any] = {
            "release": self.release.name,
            "fsid": self.fsid,
            "store": self.plan.store,
            "env": self._env,
        }
        for kind, group in groups.items():
            state[kind] = {ident: daemon.state() for ident, daemon in group.items()}
        fresh = self.layout.state.with_suffix(".new")
        fresh.write_text(json.dumps(state, indent=2))
        os.replace(fresh, self.layout.state)

    def _daemon(self, kind: str, ident: str, process: Process | None = None) -> Daemon:
        argv = self.plan.command(f"ceph-{kind}", "-f", "--conf", str(self.layout.conf), "-i", ident)
        env = dict(self._env)
        log_path = self.layout.log(f"ceph-{kind}.{ident}")
        if kind == "mgr" and self.release.name == "reef":
            # As it comes this mgr loads no module at all (test_dashboard.py shows it).
            env.setdefault("PYTHONPATH", str(genesis.STUBS))
        elif kind == "mgr" and self.release.name == "tentacle":
            # All modules share one interpreter here, so that one handler sees all of their threads.
            env |= {"PYTHONPATH": str(silence.PROBE), "VDISK_STACKS": str(silence.stacks_path(log_path))}
        return Daemon(
            f"{kind}.{ident}",
            argv,
            log_path=log_path,
            env=env,
            detached=self._detached,
            process=process,
        )

    def _mute_cipher_warnings(self) -> None:
        if genesis.knows_ciphers(self.plan):
            mutes = [{"prefix": "health mute", "code": code, "sticky": True} for code in genesis.CIPHER_WARNINGS]
            with concurrent.futures.ThreadPoolExecutor(max_workers=len(mutes)) as pool:
                list(pool.map(self.mon_command, mutes))

    def _quorum(self) -> bool:
        self._raise_if_dead()
        return len(self.mon("quorum_status")["quorum"]) == len(self.mons)

    def _osds_up(self) -> bool:
        self._raise_if_dead()
        return bool(self.mon("osd stat")["num_up_osds"] == len(self.osds))

    def _raise_if_dead(self) -> None:
        for daemon in self.daemons():
            if not daemon.running:
                raise Hopeless(f"{daemon.name} ended: {daemon.output()[-2000:] or daemon.log(20)}")


class ClusterFailed(Exception):
    """The cluster did not start. Its directory is kept."""
