"""Clusters and pools for tests, one shared cluster per release.

Which releases: `--release pacific,reef` or the environment's VDISK_RELEASES ("all" for every one); by default only this
machine's own. Tests carry the release in their id, so `-k tentacle` works. When a test fails, the ends of its
daemons' logs are kept in `.cache/logs/<test>/`.
"""

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.cluster import Cluster, ClusterFailed
from harness.config import FAST
from harness.releases import SUITES, cache_dir, ensure_root, native_release

_numbers = itertools.count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --release."""
    parser.addoption("--release", default=None, help='Ceph releases to test with, a comma between; or "all"')


def _releases(config: pytest.Config) -> list[str]:
    asked = config.getoption("--release") or os.environ.get("VDISK_RELEASES") or ""
    if asked == "all":
        return list(SUITES)
    if asked:
        return [name.strip() for name in asked.split(",") if name.strip()]
    native = native_release()
    return [native.name if native else "pacific"]


_results: list[int] = []


def pytest_sessionfinish(exitstatus: int) -> None:
    """Remember how it went, for :func:`pytest_unconfigure`."""
    _results.append(int(exitstatus))


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    """Leave without taking the process down in an orderly way, when all is said and cleaned up.

    Handles that wait for an answer from a mgr that was killed can't be shut down; librados' threads for them run on
    and can crash in what the end of a process destroys under them.
    """
    if _results:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_results[-1])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that needs a cluster once per release; session scope groups them by release."""
    if "release_name" in metafunc.fixturenames:
        metafunc.parametrize("release_name", _releases(metafunc.config), scope="session")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Keep the logs of a failed test's clusters while they are still there."""
    report = yield
    if report.failed:
        funcargs = getattr(item, "funcargs", {})
        clusters = [value for value in funcargs.values() if isinstance(value, Cluster)]
        clusters += getattr(funcargs.get("new_cluster"), "clusters", [])
        for number, cluster in enumerate(clusters):
            cluster.keep_logs(_log_dir(item.nodeid) / str(number))
    return report


def _log_dir(nodeid: str) -> Path:
    return cache_dir() / "logs" / re.sub(r"[^\w.-]+", "-", nodeid.removeprefix("tests/")).strip("-")


def _start(cluster: Cluster, nodeid: str) -> None:
    try:
        cluster.start()
    except ClusterFailed:
        cluster.keep_logs(_log_dir(nodeid) / "start")
        cluster.layout.remove()
        raise
    # A check that runs by itself would write its summary just when a test looks whether anything was written.
    cluster.ceph("config", "set", "mgr", "mgr/vdisk/check_interval", "0")


@pytest.fixture(scope="session", autouse=True)
def _versions(pytestconfig: pytest.Config, record_testsuite_property: Callable[[str, object], None]) -> None:
    """Tell the results what they are of, for `make matrix`; in a run of one release, as those of `make test` are."""
    releases = _releases(pytestconfig)
    if not pytestconfig.getoption("xmlpath") or len(releases) != 1:
        return
    release = ensure_root(releases[0])
    programs = {"ceph": ["/usr/bin/ceph-mgr", "--version"], "python": ["/usr/bin/python3", "--version"]}
    for name, argv in programs.items():
        said = subprocess.run(release.command(argv), capture_output=True, text=True, check=True).stdout
        found = re.search(r"\d+\.\d+\.\d+", said)
        record_testsuite_property(name, found[0] if found else said.strip())
    record_testsuite_property("debian", release.suite)


@pytest.fixture(scope="session")
def cluster(release_name: str) -> Iterator[Cluster]:
    """A running cluster of the release, with two managers and vdisk enabled; shared by all tests, so leave it well."""
    ensure_root(release_name)
    shared = Cluster(release_name, mgrs=2, conf=FAST)
    _start(shared, f"shared-{release_name}")
    yield shared
    shared.stop()


@pytest.fixture(autouse=True)
def _cluster_left_well(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test in which a daemon of the shared cluster died or crashed, and mend the cluster for the next one."""
    if "cluster" not in request.fixturenames:
        yield
        return
    shared: Cluster = request.getfixturevalue("cluster")
    crashes = set(shared.crash_dumps())
    yield
    dead = [daemon for daemon in shared.daemons() if not daemon.running]
    for daemon in shared.daemons():
        daemon.resume()
    for daemon in dead:
        daemon.start()
    if dead:
        shared.wait_active_mgr()
    fresh = [shared.crash(ident) for ident in shared.crash_dumps() if ident not in crashes]
    assert not fresh, f"crashed during the test: {fresh}"
    assert not dead, f"found dead after the test: {dead}"


@pytest.fixture
def pool(cluster: Cluster) -> Iterator[str]:
    """The name of a fresh pool, ready for RBD images and removed afterwards."""
    name = f"pool{next(_numbers)}"
    cluster.create_pool(name)
    yield name
    cluster.delete_pool(name)


@pytest.fixture
def pool_ns(cluster: Cluster) -> Iterator[str]:
    """`pool/namespace` in a fresh pool, removed afterwards."""
    name = f"pool{next(_numbers)}"
    cluster.create_pool(name, namespaces=["ns1"])
    yield f"{name}/ns1"
    cluster.delete_pool(name)


@pytest.fixture(params=["pool", "pool_ns"], ids=["plain", "namespaced"])
def pool_spec(request: pytest.FixtureRequest) -> str:
    """Once `pool`, once `pool/namespace`: for tests of what must work in both."""
    spec: str = request.getfixturevalue(request.param)
    return spec


class NewCluster:
    """Starts clusters for one test; all are stopped after it. Arguments are those of `Cluster`."""

    def __init__(self, release: str, nodeid: str) -> None:
        self.release = release
        self.nodeid = nodeid
        self.clusters: list[Cluster] = []

    def __call__(self, release: str | None = None, *, fast: bool = True, **options: Any) -> Cluster:
        """Return a new running cluster, of the test's release. `fast=False` leaves the monitors their usual pace."""
        conf = {**(FAST if fast else {}), **(options.pop("conf", None) or {})}
        made = Cluster(release or self.release, conf=conf, **options)
        _start(made, self.nodeid)
        self.clusters.append(made)
        return made


@pytest.fixture
def new_cluster(release_name: str, request: pytest.FixtureRequest) -> Iterator[NewCluster]:
    """A factory of clusters that belong to this test alone and may be broken."""
    ensure_root(release_name)
    factory = NewCluster(release_name, request.node.nodeid)
    yield factory
    for made in factory.clusters:
        made.stop()
