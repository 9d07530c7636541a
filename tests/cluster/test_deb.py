"""The Debian package: built, installed into a fresh root of the release, at work in a cluster there, and removed."""

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.dashboard import ADMIN, Board
from cluster.test_install import restart_mgr
from harness.cli import Result
from harness.cluster import Cluster
from harness.config import FAST
from harness.genesis import STOCK_MODULES
from harness.releases import REPO, SUITES, Release, missing_packages, root_dir
from harness.scratch import files, inside, scratch_root
from harness.wait import wait_for
from vdisk_install import __version__

PACKAGE = "ceph-mgr-vdisk"
MODULE = f"{STOCK_MODULES}/vdisk"
CONTROLLER = f"{STOCK_MODULES}/dashboard/controllers/vdisk.py"
#: What packages leave in a root: with the package manager's own notes and logs beside that.
TOPS = ("/usr", "/etc", "/var/lib", "/opt", "/root")
NOTES = ("/var/lib/dpkg/", "/var/lib/apt/")


def build(where: Path) -> Path:
    """Build the package as `make deb` does."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run([REPO / "tools/deb.sh", where], env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    (package,) = where.glob("*.deb")
    return package


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package."""
    return build(tmp_path_factory.mktemp("deb"))


def test_the_package_holds_the_module_and_is_made_the_same_each_time(
    release_name: str, package: Path, tmp_path: Path
) -> None:
    if release_name != "tentacle":
        pytest.skip("one release is enough: it is the same package for all")
    assert package.name == f"{PACKAGE}_{__version__}-1_all.deb"
    listed = subprocess.run(["dpkg-deb", "--contents", package], capture_output=True, text=True, check=True).stdout
    held = {line.split()[5].removeprefix(".") for line in listed.splitlines() if not line.startswith("d")}
    source = REPO / "src/vdisk"
    wanted = {f"{MODULE}/{path.relative_to(source)}" for path in source.rglob("*") if path.is_file()}
    wanted = {path for path in wanted if "__pycache__" not in path}
    assert {path for path in held if path.startswith(STOCK_MODULES)} == {*wanted, CONTROLLER}
    assert {line.split()[1] for line in listed.splitlines()} == {"root/root"}
    assert build(tmp_path / "again").read_bytes() == package.read_bytes()


def root_of(release_name: str) -> Path:
    """Return the root to install into, as debootstrap and apt made it."""
    root = root_dir(release_name)
    if missing_packages(root):
        pytest.skip(f'no root of Debian {SUITES[release_name]}: "make test-deb" makes it')
    return root


def test_installed_at_work_and_gone_again(release_name: str, package: Path) -> None:
    with scratch_root(release_name, SUITES[release_name], root_of(release_name)) as release:
        with_dashboard = release_name != "reef"
        if not with_dashboard:
            # As on a host that has none: the file for it must not look like a module.
            inside(release, "dpkg", "--remove", "ceph-mgr-dashboard")
        before = files(release, *TOPS)
        place = release.path(f"/tmp/{package.name}")
        place.write_bytes(package.read_bytes())
        done = inside(release, "apt-get", "-q", "install", "-y", "--no-install-recommends", f"/tmp/{package.name}")
        assert "ceph mgr module enable vdisk" in done.out
        assert inside(release, "dpkg", "--verify", PACKAGE).out == ""
        assert list(release.path(MODULE).glob("__pycache__/module.*.pyc")), "the mgr's user may not compile it"
        use_and_remove(release, with_dashboard)
        # Nothing is left of it to purge.
        inside(release, "dpkg", "--purge", PACKAGE)
        after = files(release, *TOPS)

        def told(path: str) -> bool:
            # A mgr that runs as root compiles the stock modules as well.
            return not path.startswith(NOTES) and ("__pycache__" not in path or "vdisk" in path)

        assert {path for path in before.keys() ^ after.keys() if told(path)} == set()
        changed = {path for path in before.keys() & after.keys() if before[path] != after[path]}
        assert {path for path in changed if told(path)} == set()


@contextlib.contextmanager
def at_work(release: Release, with_dashboard: bool) -> Iterator[Cluster]:
    """Enable the module in a cluster of the root's own programs, use it, disable it, and yield the cluster."""
    conf = {**FAST, "mgr:mgr_module_path": STOCK_MODULES}
    with Cluster(release, module=False, conf=conf) as cluster:
        assert "vdisk" in str(cluster.mgr_map()["available_modules"])
        cluster.enable_module()
        cluster.create_pool("rbd")
        cluster.ceph("vdisk", "volume", "create", "rbd", "pvc-1", "--size", "16M")
        (volume,) = json.loads(cluster.ceph("vdisk", "volume", "ls", "rbd", "--format", "json").out)
        cluster.ceph("vdisk", "snap", "create", f"rbd/{volume['image']}", "snapshot-1")
        cluster.ceph("vdisk", "volume", "restore", "rbd/snapshot-1", "pvc-2")
        assert "pvc-2" in cluster.ceph("vdisk", "volume", "ls", "rbd").out
        for words in (("volume", "rm", "rbd/pvc-2"), ("snap", "rm", "rbd/snapshot-1"), ("volume", "rm", "rbd/pvc-1")):
            cluster.ceph("vdisk", *words)
        if with_dashboard:
            board = Board(cluster)
            board.start()
            assert board.get("/api/vdisk/status", ADMIN).status == 200
            assert "</html>" in board.get("/vdisk", accept="text/html").text
        else:
            assert "dashboard" not in str(cluster.mgr_map()["available_modules"])
        cluster.disable_module()
        yield cluster
        assert cluster.crashes() == []


def use_and_remove(release: Release, with_dashboard: bool) -> None:
    """Use the module, remove the package, and see the manager forget it."""
    with at_work(release, with_dashboard) as cluster:
        done = inside(release, "apt-get", "-q", "remove", "-y", PACKAGE)
        assert "ceph mgr module disable vdisk" in done.out
        assert not release.path(MODULE).exists()
        restart_mgr(cluster)
        wait_for(lambda: "vdisk" not in str(cluster.mgr_map()["available_modules"]), 30, "the manager forgets it")


def test_it_and_vdisk_install_keep_their_hands_off_each_other(release_name: str, package: Path) -> None:
    if release_name == "reef":
        pytest.skip("the oldest dpkg and the newest are enough")
    with scratch_root(release_name, SUITES[release_name], root_of(release_name)) as release:
        shutil.copytree(REPO / "src", release.path("/opt/src"), ignore=shutil.ignore_patterns("__pycache__"))
        release.path(f"/tmp/{package.name}").write_bytes(package.read_bytes())

        def vdisk_install(*args: str, check: bool = True) -> Result:
            command = ["env", "PYTHONPATH=/opt/src", "python3", "-B", "-m", "vdisk_install", *args]
            return inside(release, *command, check=check)

        def apt_install(check: bool = True) -> Result:
            argv = ["apt-get", "-q", "install", "-y", "--no-install-recommends", f"/tmp/{package.name}"]
            return inside(release, *argv, check=check)

        for how in ((), ("--link",)):
            vdisk_install(*how)
            before = files(release, STOCK_MODULES, "/opt")
            done = apt_install(check=False)
            assert done.rc != 0
            assert "of no package: remove it first, with vdisk-install --uninstall" in done.err + done.out
            assert files(release, STOCK_MODULES, "/opt") == before
            assert inside(release, "dpkg", "--audit").out == "", "nothing half installed"
            vdisk_install("--uninstall")
        apt_install()
        before = files(release, STOCK_MODULES)
        for args in ((), ("--link",), ("--uninstall",)):
            done = vdisk_install(*args, check=False)
            assert done.rc == 1
            assert done.err.startswith(f"vdisk-install: {MODULE} belongs to the package {PACKAGE}: "), done.err
            assert len(done.err.splitlines()) == 1
        assert f"of the package {PACKAGE}" in vdisk_install("--check").out
        assert files(release, STOCK_MODULES) == before
        assert inside(release, "dpkg", "--verify", PACKAGE).out == ""
        # Once more, as on an upgrade: its own files are no obstacle.
        inside(release, "dpkg", "--install", f"/tmp/{package.name}")
