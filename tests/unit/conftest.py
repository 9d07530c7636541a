"""Engines on fake clusters: their pauses shortened, their threads stopped, deaths of fake mgrs kept quiet."""

import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import pytest

from fake.cluster import Crash, FakeCluster
from fake.engines import PATIENCE, Mgr
from vdisk.engine import engine as engine_module
from vdisk.engine import recovery

# How long an example takes says how busy the machine is, and nothing of what is tested.
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")

# No looking for garbage in what importing and collecting make, which stays to the end: it took an eighth of the time.
gc.disable()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Look for garbage from here on, rarely, and only among what the tests make."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    gc.enable()


@pytest.fixture
def fake() -> FakeCluster:
    """An empty cluster with the pool rbd and its namespace ns1."""
    return FakeCluster()


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the engine try again at once instead of in seconds; and keep a worker's death in a crash out of the log.

    An intent may take as long to become durable as a busy machine needs.
    """
    monkeypatch.setattr(engine_module, "_BACKOFF", (0.002,) * 7)
    monkeypatch.setattr(engine_module, "_WAITING_BACKOFF", (0.002,) * 6)
    monkeypatch.setattr(recovery, "_BACKOFF", (0.002,) * 7)
    monkeypatch.setattr(engine_module, "ACCEPT_SECONDS", PATIENCE)
    previous = threading.excepthook

    def quiet(failure: threading.ExceptHookArgs) -> None:
        if failure.exc_type is not Crash:
            previous(failure)

    monkeypatch.setattr(threading, "excepthook", quiet)


@pytest.fixture
def start(fake: FakeCluster, short_pauses: None) -> Iterator[Callable[..., Mgr]]:
    """Return a function that starts a mgr with the module; all are stopped after the test."""
    started: list[Mgr] = []

    def begin(cluster: FakeCluster | None = None, **options: Any) -> Mgr:
        started.append(Mgr(cluster or fake, **options))
        return started[-1]

    yield begin
    fake.hook = None
    for mgr in started:
        mgr.stop()


@pytest.fixture
def mgr(start: Callable[..., Mgr]) -> Mgr:
    """A mgr with the module at work on the fake cluster."""
    return start()
