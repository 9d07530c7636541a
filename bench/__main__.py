"""The benchmark: ``python -m bench --release pacific``; ``make bench`` calls it."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from bench import paths, prometheus, removal, report, scale
from bench.stage import FULL, INTERVALS, QUICK, Row, Sizes, Stage, staged
from harness.releases import SUITES, cache_dir, ensure_root, native_release

#: Measurement -> (what runs it, the monitors' intervals at which it is run).
MEASURES: dict[str, tuple[Callable[[Stage], None], tuple[str, ...]]] = {
    "snapshot": (paths.snapshots_one_at_a_time, ("default", "0.01")),
    "cost": (paths.snapshot_cost, ("0.01",)),
    "create": (paths.creates, ("default", "0.01")),
    "restore": (paths.restores, ("default", "0.01")),
    "clone": (paths.clones, ("default",)),
    "throughput": (paths.snapshots_side_by_side, ("default", "0.01")),
    "removal": (removal.snapshots_removed, ("default", "0.01")),
    "queue": (removal.rbd_supports_queue, ("default",)),
    "size": (removal.removal_of_sizes, ("0.01",)),
    "scale": (scale.journal_sizes, ("0.01",)),
}


def main() -> int:
    """Run what was asked for; returns 0 also when bars are missed: they are for people to judge."""
    args = _parser().parse_args()
    ensure_root(args.release)
    rows: list[Row] = []
    for interval in args.interval:
        wanted = [name for name in args.measure if interval in MEASURES[name][1]]
        if not wanted:
            continue
        with ExitStack() as opened:
            stage = opened.enter_context(staged(args.release, interval, _sizes(args)))
            observer = opened.enter_context(_observed(stage)) if args.prometheus else None
            version = stage.cluster.ceph("--version").out.strip()
            for name in wanted:
                started, before = time.monotonic(), len(stage.rows)
                MEASURES[name][0](stage)
                print(f"{interval}: {name} took {time.monotonic() - started:.1f} s", file=sys.stderr)
                for row in stage.rows[before:]:
                    print("   ", json.dumps(row.to_dict()), file=sys.stderr, flush=True)
            if observer is not None:
                _compare(stage, observer)
            rows += stage.rows
    about = {
        "release": args.release,
        "version": version if rows else "",
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}",
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
        "sizes": repr(_sizes(args)),
    }
    print(report.tables(rows))
    report.write(args.out / args.release, rows, about)
    print(f"written to {args.out / args.release}", file=sys.stderr)
    return 0


@contextmanager
def _observed(stage: Stage) -> Iterator[prometheus.Prometheus]:
    """Have a Prometheus scrape the stage's cluster."""
    with prometheus.endpoint(stage.cluster) as url, prometheus.scraping(url) as observer:
        yield observer


def _compare(stage: Stage, observer: prometheus.Prometheus) -> None:
    """Hold what Prometheus saw to ``vdisk status``, and add how its scrapes went; an assertion fails if it saw less."""
    stage.drain()
    compared = observer.agrees(lambda: stage.vdisk("status"))
    over = {name: f"{name}[1d]" for name in ("up", "scrape_duration_seconds", "vdisk_operations_running")}
    missed = observer.number(f"count_over_time({over['up']}) - sum_over_time({over['up']})")
    stage.add_value("scrapes", "vdisk", observer.number(f"count_over_time({over['up']})"))
    stage.add_value("scrapes that failed", "vdisk", missed)
    slowest = observer.number(f"max_over_time({over['scrape_duration_seconds']}) * 1000")
    stage.add_value("slowest scrape, ms", "vdisk", slowest)
    most = observer.number(f"max_over_time({over['vdisk_operations_running']})")
    stage.add_value("operations running, most that was scraped", "vdisk", most)
    stage.add_value("figures that Prometheus and status agree on", "vdisk", compared)


def _sizes(args: argparse.Namespace) -> Sizes:
    sizes = QUICK if args.quick else FULL
    if args.clients:
        sizes = replace(sizes, clients=tuple(sorted(args.clients)))
    if args.journal:
        sizes = replace(sizes, journal=tuple(sorted(args.journal)))
    return sizes


def _parser() -> argparse.ArgumentParser:
    native = native_release()
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    # Not Reef of Debian 13, whose mgr rbd_support's tasks kill: there is nothing to compare the reaper with.
    releases = [name for name in SUITES if name != "reef"]
    parser.add_argument("--release", default=native.name if native else "pacific", choices=releases)
    parser.add_argument("--interval", nargs="*", default=list(INTERVALS), choices=list(INTERVALS))
    parser.add_argument("--measure", nargs="*", default=list(MEASURES), choices=list(MEASURES))
    parser.add_argument("--clients", nargs="*", type=int, help="concurrency, e.g. 1 8 32")
    parser.add_argument("--journal", nargs="*", type=int, help="names in the journal, e.g. 100 100000")
    parser.add_argument("--quick", action="store_true", help="everything once and small, in about a minute")
    parser.add_argument(
        "--prometheus", action="store_true", help="a Prometheus scrapes each second and is held to vdisk status"
    )
    parser.add_argument("--out", type=Path, default=cache_dir() / "bench", help="directory of the results")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
