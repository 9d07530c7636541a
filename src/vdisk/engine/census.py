"""Counts the names in the journal now and then, and warns before a directory becomes a large omap object.

A directory is one RADOS object with a key for each name. RADOS copes with many, but recovers and scrubs such an object
in one piece, and from ``osd_deep_scrub_large_omap_object_key_threshold`` keys on (200,000) deep scrubs complain.
Nothing that a command does goes through a directory, so this is the only place that counts, in pages, once an hour.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from ..model.errors import VdiskError
from ..model.names import Kind
from ..model.observed import Location
from .health import HealthBoard, Severity
from .ports import Cluster

CODE = "VDISK_LARGE_JOURNAL"
_INTERVAL = 3600.0
_LIMIT = 200_000


class Census:
    """Counts on a thread of its own. ``threshold`` is how many names make a warning, 0 for none ever."""

    def __init__(
        self,
        cluster: Cluster,
        board: HealthBoard,
        threshold: Callable[[], int],
        journal: Callable[[], str],
        log: logging.Logger,
    ) -> None:
        self._cluster = cluster
        self._board = board
        self._threshold = threshold
        self._journal = journal
        self._log = log
        self._stop = threading.Event()

    def start(self) -> None:
        """Count now and then every hour."""
        threading.Thread(target=self._run, name="vdisk-census", daemon=True).start()

    def stop(self) -> None:
        """Count no more."""
        self._stop.set()

    def take(self) -> None:
        """Count every directory once, no further than the threshold, and raise or clear the health check."""
        threshold = self._threshold()
        large = []
        for where in self._places() if threshold > 0 else ():
            for kind in Kind:
                if self._stop.is_set():
                    return
                if self._cluster.count_names(where, kind, threshold) >= threshold:
                    large.append(f"{kind.directory(where.journal)} in {where} holds {threshold} names or more")
        if large:
            summary = f"{len(large)} journal directories near the {_LIMIT} keys from which RADOS calls an object large"
            self._board.set(CODE, Severity.WARNING, summary, large)
        else:
            self._board.clear(CODE)

    def _places(self) -> list[Location]:
        places = []
        for root in self._cluster.rbd_pools():
            for namespace in ["", *self._cluster.namespaces(root.pool_id, root.pool)]:
                places.append(Location(root.pool_id, root.pool, namespace, self._journal()))
        return places

    def _run(self) -> None:
        while True:
            try:
                self.take()
            except VdiskError as error:
                self._log.info("counting the names in the journal failed, trying again later: %s", error.message)
            if self._stop.wait(_INTERVAL):
                return
