"""Figures for people (``vdisk status``) and for monitoring (``vdisk metrics``, ``/metrics``): the same ones.

Nothing here reads the cluster: counters are kept where things happen, and what is known of findings and shapes comes
from the last checks. So a scrape costs milliseconds, whatever the cluster is doing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ..engine.engine import Engine
from ..engine.meter import BOUNDS, Histogram
from ..engine.ports import Cluster
from ..model.shape import Shape
from ..model.version import VERSION

#: Figures of ``vdisk status`` by path: name and type of the metric, and what it says.
FIGURES: Mapping[str, tuple[str, str, str]] = {
    "queued": ("vdisk_operations_queued", "gauge", "Operations that wait for a worker or for others before them"),
    "running": ("vdisk_operations_running", "gauge", "Operations that a worker has taken"),
    "waiting": ("vdisk_operations_waiting", "gauge", "Operations that wait for something else to pass"),
    "stuck": ("vdisk_operations_stuck", "gauge", "Operations that stopped with an error and need an operator"),
    "flattening": ("vdisk_flattening", "gauge", "Images that are being flattened, or wait for it"),
    "recovering": ("vdisk_recovering", "gauge", "Pools and namespaces whose intents are still to be read"),
    "unreadable_intents": ("vdisk_unreadable_intents", "gauge", "Intents that this version can not read"),
    "workers_busy": ("vdisk_workers_busy", "gauge", "Workers that are carrying out an operation"),
    "workers_queued": ("vdisk_workers_queued", "gauge", "Operations that no worker is free for"),
    "background_busy": ("vdisk_background_busy", "gauge", "Threads at work behind answers, such as seals"),
    "background_queued": ("vdisk_background_queued", "gauge", "Work behind answers that no thread is free for"),
    "reaper.backlog": ("vdisk_reclaim_backlog_images", "gauge", "Images that are deleted and not gone yet"),
    "reaper.waiting": ("vdisk_reclaim_waiting_images", "gauge", "Deleted images that wait for something"),
    "reaper.backlog_bytes": ("vdisk_reclaim_backlog_bytes", "gauge", "Size as provisioned of the backlog"),
    "reaper.threads_busy": ("vdisk_reclaim_threads_busy", "gauge", "Images that vdisk is removing at this moment"),
    "reaper.given_to_rbd_support": ("vdisk_rbd_support_tasks", "gauge", "Images that rbd_support has a task for"),
    "reaper.removed": ("vdisk_reclaimed_images_total", "counter", "Images removed since the module was loaded"),
    "resumed": ("vdisk_operations_resumed_total", "counter", "Operations resumed after a start or a failover"),
    "reconnected": ("vdisk_reconnects_total", "counter", "Times the mgr's client was blocklisted and connected anew"),
    "findings": ("vdisk_findings", "gauge", "Findings that the last checks left"),
    "images": ("vdisk_images", "gauge", "Images that the last checks saw"),
    "image_bytes": ("vdisk_image_bytes", "gauge", "Size as provisioned of the images that the last checks saw"),
    "snapshots_max": ("vdisk_image_snapshots_max", "gauge", "Snapshots of the image with most, as the last checks saw"),
}
#: Figures that Prometheus computes better itself.
_LEFT_OUT = frozenset({"reaper.removed_per_second"})
_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Telemetry:
    """Any thread may call. ``known`` gives (findings, shape) as the last checks saw them."""

    content_type = _CONTENT_TYPE

    def __init__(self, engine: Engine, cluster: Cluster, known: Callable[[], tuple[int, Shape]]) -> None:
        self._engine = engine
        self._cluster = cluster
        self._known = known

    def status(self) -> dict[str, Any]:
        """Return what ``vdisk status`` shows: the active mgr's version of vdisk and figures, nothing of a tenant."""
        return {"version": VERSION, **self._status(*self._known())}

    def _status(self, findings: int, shape: Shape) -> dict[str, Any]:
        return {
            **self._engine.figures(),
            "resumed": self._engine.meter.read().resumed,
            "reconnected": self._cluster.reconnected(),
            "findings": findings,
            "images": shape.images,
            "image_bytes": shape.size,
            "snapshots_max": shape.snapshots,
        }

    def metrics(self) -> str:
        """Return all figures in Prometheus' text format, version 0.0.4. No label names a tenant."""
        findings, shape = self._known()
        figures = dict(_flat(self._status(findings, shape)))
        lines: list[str] = []
        for path, value in figures.items():
            name, kind, about = FIGURES.get(path) or (f"vdisk_{path.replace('.', '_')}", "gauge", f"Figure {path}")
            if path not in _LEFT_OUT:
                lines += [*_head(name, kind, about), f"{name} {_number(value)}"]
        return "\n".join([*lines, *self._counted(), *_depths(shape), ""])

    def _counted(self) -> Iterator[str]:
        read = self._engine.meter.read()
        yield from _head("vdisk_operations_total", "counter", "Operations that ended, by kind and result")
        for (kind, result), count in sorted(read.ended.items()):
            yield f"vdisk_operations_total{_labels(kind=kind, result=result)} {count}"
        name = "vdisk_operation_answer_seconds"
        yield from _head(name, "histogram", "Seconds from taking an operation to its answer, by kind")
        for kind, histogram in sorted(read.answers.items()):
            yield from _histogram(name, histogram, kind=kind)
        name = "vdisk_step_seconds"
        yield from _head(name, "histogram", "Seconds that a step took, by kind of operation and step")
        for (kind, step), histogram in sorted(read.steps.items()):
            yield from _histogram(name, histogram, kind=kind, step=step)


def _flat(figures: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, float]]:
    """Yield (path, number) of every number in nested figures."""
    for key, value in figures.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        elif isinstance(value, (int, float)):
            yield f"{above}{key}", value


def _head(name: str, kind: str, about: str) -> list[str]:
    return [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]


def _labels(**labels: str) -> str:
    # Kinds, steps and results are words of our own, which need no escaping.
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}"


def _histogram(name: str, found: Histogram, **labels: str) -> Iterable[str]:
    count = 0
    for bound, observed in zip((*map(_number, BOUNDS), "+Inf"), found.counts):
        count += observed
        yield f"{name}_bucket{_labels(**labels, le=bound)} {count}"
    yield f"{name}_sum{_labels(**labels)} {_number(found.total)}"
    yield f"{name}_count{_labels(**labels)} {count}"


def _depths(shape: Shape) -> Iterator[str]:
    """Yield the histogram of clone depths, its buckets whole numbers."""
    name = "vdisk_image_depth"
    yield from _head(name, "histogram", "Length of images' parent chains, as the last checks saw it")
    most = max(8, *shape.depths, 0)
    count = 0
    for depth in range(most + 1):
        count += shape.depths.get(depth, 0)
        yield f"{name}_bucket{_labels(le=str(depth))} {count}"
    yield f"{name}_bucket{_labels(le='+Inf')} {count}"
    yield f"{name}_sum {sum(depth * images for depth, images in shape.depths.items())}"
    yield f"{name}_count {count}"


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.9g}"
