"""What vdisk has to reach, as ratios within one run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from bench.stage import Row


@dataclass(frozen=True)
class Bar:
    """One demand: what was measured, compared with its limit. ``at_least`` turns the comparison round."""

    text: str
    limit: float
    measured: Callable[[Results], float | None]
    at_least: bool = False
    unit: str = "x"

    def judge(self, results: Results) -> dict[str, Any] | None:
        """Return the verdict, None when the run did not measure it."""
        value = self.measured(results)
        if value is None:
            return None
        met = value >= self.limit if self.at_least else value <= self.limit
        return {"bar": self.text, "limit": self.limit, "measured": value, "unit": self.unit, "met": met}


class Results:
    """The rows of a run, found by what they measure."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = list(rows)

    def find(self, measure: str, subject: str = "vdisk", interval: str | None = None, clients: int = 1) -> Row | None:
        """Return a row; of any interval (the first measured) unless one is named."""
        for row in self.rows:
            if (row.measure, row.subject, row.clients) == (measure, subject, clients) and interval in (
                None,
                row.interval,
            ):
                return row
        return None

    def median(self, measure: str, subject: str = "vdisk", interval: str | None = None) -> float | None:
        """Return a median in milliseconds."""
        row = self.find(measure, subject, interval)
        return None if row is None else row.median_ms

    def value(self, measure: str, subject: str = "vdisk") -> float | None:
        """Return a figure that is no latency."""
        row = self.find(measure, subject)
        return None if row is None else row.value

    def rate(self, measure: str, subject: str = "vdisk", interval: str | None = None) -> float | None:
        """Return the rate with the most clients."""
        rows = [row for row in self.rows if (row.measure, row.subject) == (measure, subject) and row.per_second]
        rows = [row for row in rows if interval in (None, row.interval)]
        return max(rows, key=lambda row: row.clients).per_second if rows else None


def ratio(above: float | None, below: float | None) -> float | None:
    """Divide what was measured."""
    return None if above is None or below is None else above / below


def _less(above: float | None, below: float | None) -> float | None:
    return None if above is None or below is None else above - below


def _journal_ratio(results: Results) -> float | None:
    """Return the worst ratio of the biggest journal to the smallest."""
    worst = None
    for what in ("lookup", "create", "delete"):
        sizes = sorted(
            (int(row.measure.rsplit(" ", 1)[1]), row.median_ms or 0.0)
            for row in results.rows
            if row.measure.startswith(f"{what} in a journal of ")
        )
        if len(sizes) > 1:
            worst = max(worst or 0.0, sizes[-1][1] / sizes[0][1])
    return worst


def _operations(results: Results) -> float | None:
    row = results.find("snapshot cost")
    return None if row is None else row.osd_ops


BARS: tuple[Bar, ...] = (
    Bar(
        "snapshot ready, one at a time, monitors at their defaults, to the bare two-round flow",
        0.52,
        lambda r: ratio(r.median("snapshot", interval="default"), r.median("snapshot", "bare", "default")),
    ),
    Bar(
        "snapshot ready, one at a time, interval 0.01, to bare snapshot + clone + snapshot removal",
        1.1,
        lambda r: ratio(r.median("snapshot", interval="0.01"), r.median("snapshot, first round", "bare", "0.01")),
    ),
    Bar(
        "snapshots ready per second, most clients, monitors at their defaults, to the bare flow",
        1.7,
        lambda r: ratio(r.rate("snapshots", interval="default"), r.rate("snapshots", "bare", "default")),
        at_least=True,
    ),
    Bar("OSD operations for one snapshot, seal included", 110, _operations, unit="ops"),
    Bar("repeat of a finished create, median", 6, lambda r: r.median("repeated create"), unit="ms"),
    Bar(
        "restore, to a bare clone", 1.3, lambda r: ratio(r.median("volume restore"), r.median("volume restore", "bare"))
    ),
    Bar(
        "volume create, more than a bare create",
        12,
        lambda r: _less(r.median("volume create"), r.median("volume create", "bare")),
        unit="ms",
    ),
    Bar(
        "volume clone, monitors at their defaults, to one bare snapshot (one monitor round)",
        1.1,
        lambda r: ratio(r.median("volume clone", interval="default"), r.median("volume clone", "bare", "default")),
    ),
    Bar("delete snapshot, answer, median", 40, lambda r: r.median("snapshot removal"), unit="ms"),
    Bar("delete snapshot, most clients", 60, lambda r: r.rate("snapshot removals"), at_least=True, unit="/s"),
    Bar(
        "space of deleted snapshots reclaimed, to rbd_support's rate",
        10,
        lambda r: ratio(r.value("space reclaimed"), r.value("space reclaimed", "rbd_support")),
        at_least=True,
    ),
    Bar(
        "deleting a snapshot of a huge volume to reclaimed, to one of 1 GiB",
        2,
        lambda r: ratio(r.median("snapshot reclaimed, huge"), r.median("snapshot reclaimed, 1 GiB")),
    ),
    Bar("lookup, create, delete in the biggest journal, to the smallest (the worst of them)", 1.2, _journal_ratio),
    Bar("volume ls --limit 1000 of the biggest journal, median", 150, lambda r: r.median("list of 1000"), unit="ms"),
    Bar("mgr memory grown by the biggest journal", 64, lambda r: r.value("mgr memory grown, MiB"), unit="MiB"),
    Bar("CPU of the whole mgr when idle", 0.5, lambda r: r.value("mgr CPU when idle, %"), unit="%"),
)
