"""The results as JSON, as tables in Markdown, and as curves in SVG."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.bars import BARS, Results
from bench.stage import Row

_COLUMNS = (
    "measure",
    "interval",
    "subject",
    "clients",
    "count",
    "median ms",
    "p95 ms",
    "/s",
    "OSD ops",
    "mgr CPU ms",
    "value",
)
_COLOURS = ("#1f5fa8", "#c2551b", "#3d8b4b", "#7a4fa3")


def verdicts(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Return the verdict on every bar that was measured."""
    results = Results(rows)
    return [verdict for bar in BARS if (verdict := bar.judge(results)) is not None]


def document(rows: Sequence[Row], about: Mapping[str, Any]) -> dict[str, Any]:
    """Return all of a run as plain data."""
    return {"about": dict(about), "rows": [row.to_dict() for row in rows], "bars": verdicts(rows)}


def tables(rows: Sequence[Row]) -> str:
    """Return the bars and the rows as Markdown."""
    bars = [
        (
            verdict["bar"],
            f"{'>=' if bar_at_least(verdict['bar']) else '<='} {verdict['limit']:g} {verdict['unit']}",
            f"{verdict['measured']:.3g} {verdict['unit']}",
            "met" if verdict["met"] else "**missed**",
        )
        for verdict in verdicts(rows)
    ]
    cells = [
        (
            row.measure,
            row.interval,
            row.subject,
            str(row.clients),
            str(row.count),
            *(
                _number(value)
                for value in (row.median_ms, row.p95_ms, row.per_second, row.osd_ops, row.mgr_cpu_ms, row.value)
            ),
        )
        for row in rows
    ]
    return f"{_table(('bar', 'limit', 'measured', ''), bars)}\n\n{_table(_COLUMNS, cells)}\n"


def bar_at_least(text: str) -> bool:
    """Tell whether a bar is a lower limit."""
    return next(bar.at_least for bar in BARS if bar.text == text)


def write(directory: Path, rows: Sequence[Row], about: Mapping[str, Any]) -> None:
    """Write ``results.json``, ``results.md`` and the curves that there are figures for."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "results.json").write_text(json.dumps(document(rows, about), indent=2) + "\n")
    (directory / "results.md").write_text(tables(rows))
    throughput = {f"{row.subject}, interval {row.interval}": [] for row in rows if row.measure == "snapshots"}  # type: dict[str, list[tuple[float, float]]]
    for row in rows:
        if row.measure == "snapshots" and row.per_second is not None:
            throughput[f"{row.subject}, interval {row.interval}"].append((row.clients, row.per_second))
    _write_curve(directory / "throughput.svg", "snapshots ready per second", "clients", "per second", throughput)
    latency: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        what, _, size = row.measure.partition(" in a journal of ")
        if size and row.median_ms is not None:
            latency.setdefault(what, []).append((float(size), row.median_ms))
    _write_curve(directory / "journal.svg", "latency by names in the journal", "names", "ms", latency)


def _write_curve(path: Path, title: str, x: str, y: str, lines: Mapping[str, list[tuple[float, float]]]) -> None:
    drawn = {label: sorted(points) for label, points in lines.items() if len(points) > 1}
    if drawn:
        path.write_text(curve(title, x, y, drawn))


def curve(title: str, x_label: str, y_label: str, lines: Mapping[str, list[tuple[float, float]]]) -> str:
    """Return a chart as SVG; the x axis is logarithmic, the y axis begins at nought."""
    width, height, left, right, top, bottom = 720, 400, 60, 200, 40, 50
    xs = sorted({x for points in lines.values() for x, _ in points})
    highest = max(y for points in lines.values() for _, y in points) * 1.1 or 1.0
    low, high = math.log10(xs[0]), math.log10(xs[-1])

    def place(x: float, y: float) -> tuple[float, float]:
        along = (math.log10(x) - low) / ((high - low) or 1.0)
        return left + along * (width - left - right), height - bottom - y / highest * (height - top - bottom)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{left}" y="24" font-size="15">{title}</text>',
        f'<text x="{left}" y="{height - 8}">{x_label}</text>',
        f'<text x="8" y="{top - 4}">{y_label}</text>',
    ]
    for x in xs:
        at, base = place(x, 0)
        parts.append(f'<line x1="{at:.1f}" y1="{base:.1f}" x2="{at:.1f}" y2="{top}" stroke="#ddd"/>')
        parts.append(f'<text x="{at:.1f}" y="{base + 18:.1f}" text-anchor="middle">{x:g}</text>')
    for step in range(6):
        value = highest * step / 5
        _, at = place(xs[0], value)
        parts.append(f'<line x1="{left}" y1="{at:.1f}" x2="{width - right}" y2="{at:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 6}" y="{at + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    for number, (label, points) in enumerate(lines.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        placed = [place(x, y) for x, y in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in placed]
        parts.append(f'<text x="{width - right + 12}" y="{top + 16 + number * 18}" fill="{colour}">{label}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
