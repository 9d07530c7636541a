"""Engines on fake clusters: their pauses shortened, their threads stopped, deaths of fake mgrs kept quiet."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fake.cluster import Crash, FakeCluster
from fake.engines import Mgr
from vdisk.engine import engine as engine_module


@pytest.fixture
def fake() -> FakeCluster:
    """An empty cluster with the pool rbd and its namespace ns1."""
    return FakeCluster()


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the engine try again at once instead of in seconds; and keep a worker's death in a crash out of the log."""
    monkeypatch.setattr(engine_module, "_BACKOFF", (0.002,) * 7)
    monkeypatch.setattr(engine_module, "_WAITING_BACKOFF", (0.002,) * 6)
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
