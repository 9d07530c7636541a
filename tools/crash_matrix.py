"""Runs the whole crash matrix of a release and writes its table for the documentation.

    python tools/crash_matrix.py --release pacific --out doc/crash-matrix-pacific.md

Exit code 1 when a point failed; the table then says which, and what was wrong follows on the terminal. It takes some
20 minutes a release. `--sample` runs only the points that the tests run by default.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPO / "tests"), str(REPO / "src")]

from cluster.test_crash import CLIENTS, MOMENTS, SCENARIOS, Outcome, matrix_cluster  # noqa: E402

_SHOWN = {"completed": "done", "undone": "undone", "failed": "**failed**"}


def table(release: str, version: str, outcomes: Sequence[Outcome], seconds: float) -> str:
    """Return the Markdown text: one table for each operation, one row for each step."""
    failed = [outcome for outcome in outcomes if outcome.result == "failed"]
    lines = [
        f"# Crash matrix: {release}",
        "",
        f"Made by `tools/crash_matrix.py` on {version}. At each point the mgr was killed (SIGKILL) and started again;",
        "then the client repeated its command, or had died too. *done*: the operation was completed, everything in the",
        "pool and namespace is exactly what the operation leaves when undisturbed, its name could be used again, and",
        "nothing was left once all was removed. *undone*: the same, as if it had never been asked for.",
        "",
        f"**{len(outcomes)} points, {len(failed)} failures**, "
        f"{seconds / max(1, len(outcomes)):.1f} s a point, {seconds / 60:.0f} minutes together.",
    ]
    for name in SCENARIOS:
        lines += _operation(name, [outcome for outcome in outcomes if outcome.point.scenario == name])
    return "\n".join(lines) + "\n"


def _operation(name: str, outcomes: Sequence[Outcome]) -> list[str]:
    """Return one operation's table."""
    if not outcomes:
        return []
    columns = [(moment, client) for moment in MOMENTS for client in CLIENTS]
    cells = {(o.point.step, o.point.occurrence, o.point.moment, o.point.client): _SHOWN[o.result] for o in outcomes}
    lines = ["", f"## {name}", ""]
    lines.append("| step | " + " | ".join(f"{moment}, client {client}" for moment, client in columns) + " |")
    lines.append("|---" * (len(columns) + 1) + "|")
    for step, occurrence in dict.fromkeys((o.point.step, o.point.occurrence) for o in outcomes):
        label = step if occurrence == 1 else f"{step} ({occurrence})"
        found = [cells.get((step, occurrence, moment, client), "") for moment, client in columns]
        lines.append(f"| {label} | " + " | ".join(found) + " |")
    return lines


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--release", required=True)
    parser.add_argument("--out", type=Path, help="file to write; the terminal if not given")
    parser.add_argument("--sample", action="store_true", help="only the points that the tests run by default")
    parser.add_argument("--operation", choices=list(SCENARIOS), action="append", help="only these")
    args = parser.parse_args()

    began = time.monotonic()
    with matrix_cluster(args.release) as matrix:
        version = matrix.cluster.ceph("--version").out.split(" (")[0]
        names = args.operation or list(SCENARIOS)
        points = matrix.sample() if args.sample else [point for name in names for point in matrix.points(name)]
        for number, point in enumerate(points, 1):
            outcome = matrix.run(point)
            print(f"{number}/{len(points)} {point}: {outcome.result} {outcome.seconds:.1f} s", flush=True)
            if outcome.trouble:
                print(outcome.trouble, flush=True)
        text = table(args.release, version, matrix.outcomes, time.monotonic() - began)
    if args.out is None:
        print(text)
    else:
        args.out.write_text(text)
    return 1 if any(outcome.result == "failed" for outcome in matrix.outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
