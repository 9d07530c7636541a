"""A few threads for calls into librados, which block and can't be cancelled."""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Threads:
    """Runs functions on at most ``size`` threads, in order.

    The threads are daemons: a call that never returns, such as a command while no manager is active, holds up neither
    the caller, who stops waiting, nor the end of the process.
    """

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._jobs: queue.SimpleQueue[tuple[asyncio.AbstractEventLoop, asyncio.Future[Any], Callable[[], Any]]] = (
            queue.SimpleQueue()
        )
        self._lock = threading.Lock()
        self._started = 0
        self._idle = 0

    def run(self, function: Callable[[], T]) -> asyncio.Future[T]:
        """Return the future of a function's result; a job that is cancelled before its turn never runs."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        context = contextvars.copy_context()
        with self._lock:
            self._jobs.put((loop, future, lambda: context.run(function)))
            if self._jobs.qsize() > self._idle and self._started < self._size:
                self._started += 1
                threading.Thread(target=self._work, name=f"{self._name}-{self._started}", daemon=True).start()
        return future

    @property
    def busy(self) -> bool:
        """Whether a call is under way or waits."""
        return not self._jobs.empty() or self._idle < self._started

    def _work(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
            loop, future, function = self._jobs.get()
            with self._lock:
                self._idle -= 1
            if future.cancelled():
                continue
            try:
                result, error = function(), None
            except Exception as failure:
                result, error = None, failure
            try:
                loop.call_soon_threadsafe(_settle, future, result, error)
            except RuntimeError:
                return  # the loop is closed: the process ends


def _settle(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
        future.exception()  # seen: nobody may be waiting any more
    else:
        future.set_result(result)
