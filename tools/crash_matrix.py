"""Runs the whole crash matrix of a release, in pieces if need be, and makes the page of the documentation.

    python tools/crash_matrix.py run --release pacific --results pacific.jsonl [--operation "snap rm"]...
    python tools/crash_matrix.py table pacific.jsonl tentacle.jsonl > doc/crash-matrix.md

`run` adds one line a point to the file of results and takes some 15 minutes a release; exit code 1 when a point failed,
with what was wrong on the terminal. `table` takes the latest result of each point.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPO / "tests"), str(REPO / "src")]

from cluster.test_crash import SCENARIOS, Outcome, matrix_cluster  # noqa: E402
from cluster.test_crash_upkeep import UPKEEP  # noqa: E402

EVERY = {**SCENARIOS, **UPKEEP}

_INTRODUCTION = """\
# The crash matrix in numbers

Made by `tools/crash_matrix.py`. At each point the mgr was killed (SIGKILL) and started again; then the client repeated
its command, or had died too and never did. In the end the operation was completed, and everything in the pool and
namespace was exactly what it leaves when undisturbed, its name could be used again, and nothing was left once all was
removed; or, where the client died, it was as if it had never been asked for. Anything else is a failure.
"""
_UPKEEP = """
## Upkeep

What an operator does, or what is done by itself. A repair is of one finding, spoiled as the check's own test does it
(`tests/cluster/corruption.py`); in the end a check is clean.
"""

Result = dict[str, Any]


def run(release: str, results: Path, operations: Sequence[str], sample: bool) -> int:
    """Run points and add their results to a file; return how many failed."""
    failed = 0
    with matrix_cluster(release, EVERY) as matrix, results.open("a") as out:
        version = matrix.cluster.ceph("--version").out.split(" (")[0]
        able = [name for name in operations if name in matrix.scenarios]
        points = matrix.sample() if sample else [point for name in able for point in matrix.points(name)]
        for number, point in enumerate(points, 1):
            outcome = matrix.run(point)
            failed += outcome.result == "failed"
            out.write(json.dumps(_result(release, version, outcome)) + "\n")
            out.flush()
            print(f"{number}/{len(points)} {point}: {outcome.result} {outcome.seconds:.1f} s", flush=True)
            if outcome.trouble:
                print(outcome.trouble, flush=True)
    return failed


def _result(release: str, version: str, outcome: Outcome) -> Result:
    point = dataclasses.asdict(outcome.point)
    return {"release": release, "version": version, **point, "result": outcome.result, "seconds": outcome.seconds}


def table(results: Iterable[Result]) -> str:
    """Return the page: points and failures of each operation, for each release."""
    latest = {_key(result): result for result in results}
    releases = list(dict.fromkeys(result["release"] for result in latest.values()))
    versions = list(dict.fromkeys(result["version"] for result in latest.values()))
    lines = [_INTRODUCTION, f"Releases: {', '.join(versions)}.", ""]
    for introduction, names in (("", SCENARIOS), (_UPKEEP, UPKEEP)):
        lines += [introduction] if introduction else []
        lines += ["| operation | " + " | ".join(f"{release}: points | failures" for release in releases) + " |"]
        lines += ["|---" * (1 + 2 * len(releases)) + "|"]
        for name in names:
            cells = [
                _count([r for r in latest.values() if (r["release"], r["scenario"]) == (release, name)])
                for release in releases
            ]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _key(result: Result) -> tuple[Any, ...]:
    return tuple(result[field] for field in ("release", "scenario", "step", "occurrence", "moment", "client"))


def _count(results: Sequence[Result]) -> str:
    if not results:
        return " | "
    return f"{len(results)} | {sum(result['result'] == 'failed' for result in results)}"


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="run points and keep their results")
    running.add_argument("--release", required=True)
    running.add_argument("--results", type=Path, required=True, help="file to add results to, one JSON object a line")
    running.add_argument("--sample", action="store_true", help="only the points that the tests run by default")
    running.add_argument("--operation", choices=list(EVERY), action="append", help="only these")
    making = commands.add_parser("table", help="write the page of the documentation to the terminal")
    making.add_argument("results", type=Path, nargs="+")
    args = parser.parse_args()
    if args.command == "run":
        return 1 if run(args.release, args.results, args.operation or list(EVERY), args.sample) else 0
    lines = [line for path in args.results for line in path.read_text().splitlines()]
    print(table([json.loads(line) for line in lines]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
