"""From a wheel into a cluster: pip, vdisk-install, enable; and out again."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.dashboard import ADMIN, Board
from harness.cluster import Cluster
from harness.config import FAST
from harness.releases import REPO, ensure_root
from harness.wait import wait_for

MARK = "Told by the installed copy"
DISTRIBUTION = ("setup.py", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", "src")


def run(*argv: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a program in a clean environment to its end."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV", "CEPH"))}
    done = subprocess.run([str(arg) for arg in argv], env=env, capture_output=True, text=True, timeout=200)
    assert not check or done.returncode == 0, f"{argv}\n{done.stdout}{done.stderr}"
    return done


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the distribution in it, from a wheel built of a copy whose help text is marked."""
    work = tmp_path_factory.mktemp("wheel")
    copy = work / "repository"
    copy.mkdir()
    for name in DISTRIBUTION:
        if (REPO / name).is_dir():
            shutil.copytree(REPO / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(REPO / name, copy / name)
    table = copy / "src/vdisk/commands/table.py"
    text = table.read_text()
    assert '"Show how busy vdisk is' in text
    table.write_text(text.replace('"Show how busy vdisk is', f'"{MARK}: show how busy vdisk is'))
    # Without access to the system's packages, as on a machine that has no rados and rbd for this Python.
    run(sys.executable, "-m", "venv", work / "venv")
    pip = (work / "venv/bin/python", "-m", "pip", "--disable-pip-version-check", "-q")
    run(*pip, "wheel", "--no-deps", "--wheel-dir", work / "dist", copy)
    wheels = list((work / "dist").iterdir())
    assert [wheel.name.split("-")[0] for wheel in wheels] == ["vdisk"]
    run(*pip, "install", "--no-index", wheels[0])
    return work / "venv"


@pytest.fixture
def without_vdisk(release_name: str) -> Iterator[Cluster]:
    """A running cluster whose directory of modules holds everything but vdisk."""
    ensure_root(release_name)
    with Cluster(release_name, module=False, conf=FAST) as cluster:
        # The harness links to the repository, whether the module is enabled or not.
        (cluster.layout.modules / "vdisk").unlink()
        (cluster.layout.modules / "dashboard/controllers/vdisk.py").unlink()
        restart_mgr(cluster)
        yield cluster


def restart_mgr(cluster: Cluster) -> None:
    """Restart the manager and wait until it is active again: it looks for modules anew."""
    gid = cluster.mgr_map()["active_gid"]
    cluster.mgrs["x"].restart()
    cluster.wait_active_mgr(not_gid=gid)


def told(cluster: Cluster) -> bool:
    """Whether the running module is the marked one."""
    ret, out, _ = cluster.mgr_command({"prefix": "get_command_descriptions"})
    assert ret == 0
    return MARK in out


def test_a_wheel_becomes_a_running_module_and_goes_again(installed: Path, without_vdisk: Cluster) -> None:
    cluster = without_vdisk
    modules = cluster.layout.modules
    install = (installed / "bin/vdisk-install", "--path", modules)

    done = run(*install)
    assert "ceph mgr module enable vdisk" in done.stdout
    assert run(*install, "--check").returncode == 0
    # A mgr that runs already does not know of a module that came later.
    restart_mgr(cluster)
    wait_for(lambda: "vdisk" in str(cluster.mgr_map()["available_modules"]), 30, "the manager reports the module")
    cluster.enable_module()
    assert told(cluster)
    cluster.create_pool("rbd")
    cluster.ceph("vdisk", "volume", "create", "rbd", "pvc-1", "--size", "16M")
    assert "pvc-1" in cluster.ceph("vdisk", "volume", "ls", "rbd").out
    assert cluster.crashes() == []
    assert (modules / "dashboard/controllers/vdisk.py").is_file()
    board = Board(cluster)
    board.start()
    assert board.get("/api/vdisk/status", ADMIN).status == 200
    assert "</html>" in board.get("/vdisk", accept="text/html").text

    assert "nothing was changed" in run(*install).stdout
    cluster.disable_module()
    run(*install, "--uninstall")
    assert not (modules / "vdisk").exists()
    assert not (modules / "dashboard/controllers/vdisk.py").exists()
    restart_mgr(cluster)
    wait_for(lambda: "vdisk" not in str(cluster.mgr_map()["available_modules"]), 30, "the manager forgets the module")
    board.wait()
    assert board.get("/api/vdisk/status", ADMIN).status == 404


def test_the_repository_as_a_link_gives_way_to_the_installed_copy(installed: Path, release_name: str) -> None:
    ensure_root(release_name)
    with Cluster(release_name, conf=FAST) as cluster:
        assert not told(cluster)
        done = run(installed / "bin/vdisk-install", "--path", cluster.layout.modules)
        assert "restart" in done.stdout
        restart_mgr(cluster)
        cluster.wait_module()
        assert told(cluster)
