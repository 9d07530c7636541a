"""Makes a new cluster's files: configuration, keys, monitor and OSD stores, the directory of manager modules."""

import concurrent.futures
import random
import shlex
import shutil
import socket
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import cli, config, keys
from harness.layout import Layout
from harness.releases import REPO, Release
from harness.silence import PROBE

STOCK_MODULES = "/usr/share/ceph/mgr"
DASHBOARD = f"{STOCK_MODULES}/dashboard"
SOURCE = REPO / "src"
STUBS = Path(__file__).resolve().parent / "stubs"

# Since 20.2.4 a new cluster accepts no client that speaks only the old cipher (as librados before it does).
OLD_CIPHERS = (
    "--auth-service-cipher",
    "aes",
    "--auth-allowed-ciphers",
    "aes,aes256k",
    "--auth-preferred-cipher",
    "aes",
)

CIPHER_WARNINGS = (
    "AUTH_INSECURE_CLIENT_KEY_TYPE",
    "AUTH_INSECURE_KEYS_ALLOWED",
    "AUTH_INSECURE_KEYS_CREATABLE",
    "AUTH_INSECURE_ROTATING_SERVICE_KEY_TYPE",
    "AUTH_INSECURE_SERVICE_KEY_TYPE",
    "AUTH_INSECURE_SERVICE_TICKETS",
)


@dataclass(frozen=True)
class Plan:
    """What a cluster consists of."""

    release: Release
    layout: Layout
    fsid: str
    mons: Sequence[str]
    mgrs: Sequence[str]
    osds: int
    store: str
    conf: config.Conf
    modules: Sequence[str]
    own_modules: bool = False
    """Each manager has a directory of modules of its own, as on a host of its own."""

    @property
    def binds(self) -> list[Path]:
        """Directories that the programs must see when they run in another root."""
        return [path for path in (self.layout.dir, SOURCE, STUBS, PROBE) if path.exists()]

    def command(self, *argv: str) -> list[str]:
        """Return the argument list that runs a program of this cluster's release."""
        return self.release.command(argv, self.binds)


_claims: list[socket.socket] = []


def free_ports(count: int) -> list[int]:
    """Return ports that are free on 127.0.0.1, below the range that the kernel gives to outgoing connections.

    Some seconds pass before somebody listens there, so each is claimed as long as this process lives: the names of
    abstract sockets are the kernel's, and no other process that asks here is given the port.
    """
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(20000, 32000)
        claim = socket.socket(socket.AF_UNIX)
        with socket.socket() as probe:
            try:
                claim.bind(f"\0vdisk-tests-port-{port}")
                probe.bind(("127.0.0.1", port))
            except OSError:
                claim.close()
                continue
        _claims.append(claim)
        found.append(port)
    return found


def create(plan: Plan) -> None:
    """Make all files of the cluster. Nothing runs yet afterwards."""
    layout = plan.layout
    ports = free_ports(2 * len(plan.mons))
    pairs = zip(ports[::2], ports[1::2], strict=True)
    addresses = [f"[v2:127.0.0.1:{v2}/0,v1:127.0.0.1:{v1}/0]" for v2, v1 in pairs]
    own = {name: layout.modules_of(name) for name in plan.mgrs} if plan.own_modules else {}
    text = config.render(
        layout,
        fsid=plan.fsid,
        mon_host=" ".join(addresses),
        store=plan.store,
        modules=" ".join(plan.modules),
        extra={**plan.conf, **{f"mgr.{name}:mgr_module_path": str(path) for name, path in own.items()}},
    )
    layout.conf.write_text(text)
    for path in own.values():
        path.mkdir()
    for path in own.values() or [layout.modules]:
        link_modules(plan.release, path)
    seed = _write_keys(plan)
    _write_wrappers(plan)
    monmap = layout.dir / "monmap"
    named = [part for name, address in zip(plan.mons, addresses, strict=True) for part in ("--addv", name, address)]
    old_ciphers = OLD_CIPHERS if knows_ciphers(plan) else ()
    cli.run(plan.command("monmaptool", "--create", "--fsid", plan.fsid, *named, *old_ciphers, str(monmap)))
    common = ("--conf", str(layout.conf), "--mkfs")
    jobs: list[tuple[str, ...]] = [
        ("ceph-mon", *common, "-i", name, "--monmap", str(monmap), "--keyring", str(seed)) for name in plan.mons
    ]
    jobs += [
        ("ceph-osd", *common, "--no-mon-config", "-i", str(i), "--osd-uuid", str(uuid.uuid4()))
        for i in range(plan.osds)
    ]
    with concurrent.futures.ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(lambda job: cli.run(plan.command(*job)), jobs))


def knows_ciphers(plan: Plan) -> bool:
    """Return whether the monitors have an opinion on which ciphers are good enough."""
    return "--auth-allowed-ciphers" in cli.run(plan.command("monmaptool", "--help"), check=False).out


def link_modules(release: Release, directory: Path) -> None:
    """Fill a mgr_module_path: links to every stock module and file of the release, and to ours if it is there."""
    _link_all(release, STOCK_MODULES, directory, ("vdisk", "dashboard"))
    if release.path(DASHBOARD).is_dir():
        # The dashboard loads no controller that is a link, and what a test adds must not end up among the stock ones.
        (directory / "dashboard/controllers").mkdir(parents=True)
        _link_all(release, DASHBOARD, directory / "dashboard", ("controllers",))
        for path in release.path(DASHBOARD).glob("controllers/*.py"):
            shutil.copy(path, directory / "dashboard/controllers")
        if has_module():
            shutil.copy(SOURCE / "vdisk_install/controller.py", directory / "dashboard/controllers/vdisk.py")
    if has_module():
        (directory / "vdisk").symlink_to(SOURCE / "vdisk")


def _link_all(release: Release, stock: str, directory: Path, without: Sequence[str]) -> None:
    for entry in release.path(stock).iterdir():
        if entry.name not in ("__pycache__", *without):
            (directory / entry.name).symlink_to(f"{stock}/{entry.name}")


def has_module() -> bool:
    """Return whether the repository holds a vdisk module that a manager could load."""
    return (SOURCE / "vdisk/__init__.py").exists() and (SOURCE / "vdisk/module.py").exists()


def write_keyring(path: Path, entity: str, secret: str, caps: keys.Caps = keys.NO_CAPS) -> None:
    """Write the keyring file of one entity."""
    path.write_text(keys.keyring_entry(entity, secret, caps))
    path.chmod(0o600)


def _write_keys(plan: Plan) -> Path:
    """Write every daemon's and the administrator's keyring; return the one that the monitors start from."""
    layout = plan.layout
    seed: list[str] = [keys.keyring_entry("mon.", keys.new_secret(), keys.MON_CAPS)]

    def add(entity: str, path: Path, caps: keys.Caps) -> None:
        secret = keys.new_secret()
        path.parent.mkdir(exist_ok=True)
        write_keyring(path, entity, secret)
        seed.append(keys.keyring_entry(entity, secret, caps))

    for name in plan.mons:
        layout.data("mon", name).mkdir()
    for name in plan.mgrs:
        add(f"mgr.{name}", layout.data("mgr", name) / "keyring", keys.MGR_CAPS)
    for ident in _numbers(plan.osds):
        add(f"osd.{ident}", layout.data("osd", ident) / "keyring", keys.OSD_CAPS)
    add("client.admin", layout.keyring("client.admin"), keys.ADMIN_CAPS)
    path = layout.keys / "seed"
    path.write_text("\n".join(seed))
    path.chmod(0o600)
    return path


def _numbers(count: int) -> Iterable[str]:
    return (str(i) for i in range(count))


def _write_wrappers(plan: Plan) -> None:
    """Write `bin/ceph` and the like, which run the release's own tools on this cluster."""
    for tool in ("ceph", "rbd", "rados"):
        quoted = shlex.join(plan.command(tool, "--conf", str(plan.layout.conf)))
        path = plan.layout.bin / tool
        path.write_text(f'#!/bin/sh\nunset PYTHONPATH PYTHONHOME LD_LIBRARY_PATH\nPATH={cli.PATH} exec {quoted} "$@"\n')
        path.chmod(0o755)
