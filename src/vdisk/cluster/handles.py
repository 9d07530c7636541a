"""Images that stay open between two steps of one operation.

Opening an image takes a dozen OSD operations, its exclusive lock as many again, so an image that is snapshotted and
soon loses that snapshot is opened once. Closing takes three milliseconds that nobody has to wait for.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Hashable, Iterator

import rbd

from ..model.errors import VdiskError


class Handles:
    """Open images by what they are open for. All methods may be called from any thread."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._kept: dict[Hashable, tuple[rbd.Image, contextlib.ExitStack]] = {}
        self._leaving: queue.SimpleQueue[contextlib.ExitStack | None] = queue.SimpleQueue()
        self._closer: threading.Thread | None = None

    def keep(self, key: Hashable, image: rbd.Image, opened: contextlib.ExitStack) -> None:
        """Keep an open image; ``opened`` closes it and all that it hangs on."""
        with self._lock:
            before = self._kept.pop(key, None)
            self._kept[key] = image, opened
        if before is not None:
            self._close_later(before[1])

    @contextlib.contextmanager
    def taken(self, key: Hashable) -> Iterator[rbd.Image | None]:
        """Yield the image that is kept for ``key``, None if there is none; it is closed soon after the block."""
        with self._lock:
            kept = self._kept.pop(key, None)
        if kept is None:
            yield None
            return
        try:
            yield kept[0]
        finally:
            self._close_later(kept[1])

    def close(self) -> None:
        """Close everything that is still open, and wait for it at most a second."""
        with self._lock:
            left, self._kept = list(self._kept.values()), {}
        for _, opened in left:
            self._close_later(opened)
        with self._lock:
            closer, self._closer = self._closer, None
        if closer is not None:
            self._leaving.put(None)
            closer.join(1.0)

    def _close_later(self, opened: contextlib.ExitStack) -> None:
        with self._lock:
            if self._closer is None:
                self._closer = threading.Thread(target=self._close_all, name="vdisk-closer", daemon=True)
                self._closer.start()
        self._leaving.put(opened)

    def _close_all(self) -> None:
        while (opened := self._leaving.get()) is not None:
            try:
                opened.close()
            except VdiskError as error:
                # A session that was cut off: its watches and locks go with it.
                self._log.info("closing an image failed: %s", error.message)
