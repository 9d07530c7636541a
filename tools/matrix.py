"""What works where, from the results of the last whole test run: `python tools/matrix.py RESULTS PAGE`.

RESULTS is the directory in which `make test` leaves a JUnit file for each release (`<release>.xml`) and one for the
unit tests (`unit.xml`). A row is a file of tests; what it is about is the beginning of its docstring.

Tests that were run again after that, with VDISK_RESULTS=again (`<release>.again.xml`) or again2, count as they ended
last; how many they are is a row of its own.
"""

import argparse
import ast
import json
import os
import platform
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

REPO = Path(__file__).resolve().parent.parent
RELEASES = ("pacific", "reef", "tentacle")


@dataclass(frozen=True)
class Results:
    """One JUnit file: when the run began, what it ran on, and of each file of tests how many ended how."""

    began: str
    seconds: float
    properties: dict[str, str]
    outcomes: dict[str, Counter[str]]
    skips: dict[str, Counter[str]]
    again: int = 0
    """Tests that were run again later; what they came to then is what counts."""
    soaks: tuple[tuple[str, dict[str, Any]], ...] = ()
    """Reports of the soak (tests/cluster/test_soak.py), each with the moment at which the run of tests began."""


def read(path: Path, *later: Path) -> Results:
    """Read a JUnit file of pytest's, and those of later runs of some of its tests."""
    suites = [suite_of(found) for found in (path, *later)]
    suite = suites[0]
    properties = {found.get("name", ""): found.get("value", "") for found in suite.findall("properties/property")}
    first = cases(suite)
    afterwards = {key: found for other in suites[1:] for key, found in cases(other).items()}
    outcomes: dict[str, Counter[str]] = {}
    skips: dict[str, Counter[str]] = {}
    for (classname, _), (how, reason) in {**first, **afterwards}.items():
        file = file_of(classname)
        outcomes.setdefault(file, Counter())[how] += 1
        if how == "skipped":
            skips.setdefault(file, Counter())[reason] += 1
    soaks = tuple(
        (minute(found.get("timestamp", "")), json.loads(report.get("value", "")))
        for found in suites
        for report in found.iterfind("testcase/properties/property[@name='soak']")
    )
    began, seconds = suite.get("timestamp", ""), float(suite.get("time", 0))
    return Results(began, seconds, properties, outcomes, skips, len(afterwards), soaks)


def suite_of(path: Path) -> ElementTree.Element:
    """Return what a JUnit file holds."""
    suite = ElementTree.parse(path).getroot().find("testsuite")
    assert suite is not None, f"{path} holds no results"
    return suite


def cases(suite: ElementTree.Element) -> dict[tuple[str, str], tuple[str, str]]:
    """Return (class name, test) -> (how it ended, why it was skipped); one that failed at its end has two entries."""
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for case in suite.iter("testcase"):
        how, reason = "passed", ""
        for child in case:
            if child.tag in ("failure", "error"):
                how = "failed"
            elif child.tag == "skipped" and how == "passed":
                how, reason = "skipped", child.get("message", "")
        key = case.get("classname", ""), case.get("name", "")
        if how == "failed" or key not in found:
            found[key] = how, reason
    return found


def file_of(classname: str) -> str:
    """Return the file of tests of a class name such as `tests.cluster.test_note` or `tests.unit.test_x.TestY`."""
    words = classname.split(".")
    last = max((number for number, word in enumerate(words) if word.startswith("test_")), default=len(words) - 1)
    return "/".join(words[: last + 1]) + ".py"


def about(path: Path) -> str:
    """Return what a file of tests is about: its docstring up to the first colon or full stop."""
    text = " ".join((ast.get_docstring(ast.parse(path.read_text())) or path.stem).split())
    ends = [text.find(mark) for mark in (": ", ". ") if mark in text]
    return text[: min(ends, default=len(text))].rstrip(".").replace("``", "`").replace("|", "\\|")


def minute(timestamp: str) -> str:
    """Return the minute of an ISO timestamp."""
    return timestamp[:16].replace("T", " ")


def counted(numbers: dict[str, int]) -> str:
    """Return a total and what it is made of, the most frequent first."""
    parts = sorted(numbers.items(), key=lambda item: (-item[1], item[0]))
    return f"{sum(numbers.values()):,}: " + ", ".join(f"{name} {number:,}" for name, number in parts)


def soaked(results: dict[str, Results]) -> list[str]:
    """Return the soak's reports as a section, none without one."""
    rows = [
        f"| {name.capitalize()} | {began} | {soak['seed']} | {soak['seconds']:g} | {counted(soak['operations'])} "
        f"| {counted(soak['faults'])} | {soak['repeats']:,} | {soak['longest']:g} s "
        + "".join(
            f"| {', '.join(f'{usage[what]:.0f}' for usage in soak['usages'])} "
            for what in ("threads", "files", "memory")
        )
        + "|"
        for name in results
        for began, soak in results[name].soaks
    ]
    if not rows:
        return []
    return [
        "",
        "## The soak",
        "",
        "What [the soak](testing.md#the-soak) reported: operations that were answered for good and what happened",
        "to managers and OSD meanwhile, commands that were sent again, the longest that an operation took for its",
        "client, and what the active manager had after each of three rounds without faults (memory in MiB). It",
        "passes only if at the end all is as its clients were told, `vdisk check` finds nothing, and removal leaves",
        "nothing.",
        "",
        "| | run of (UTC) | seed | seconds | operations | faults | sent again | longest | threads | files | memory |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *rows,
    ]


def cell(results: Results | None, file: str) -> str:
    """Return how the tests of a file ended."""
    found = results.outcomes.get(file) if results else None
    if not found:
        return "not run"
    parts = [f"{found[how]} {how}" for how in ("failed", "passed", "skipped") if found[how]]
    return "**" + ", ".join(parts) + "**" if found["failed"] else ", ".join(parts)


def page(results: dict[str, Results], unit: Results | None, cores: int) -> str:
    """Return the page."""
    releases = [name for name in RELEASES if name in results]
    files = sorted({str(path.relative_to(REPO)) for path in (REPO / "tests/cluster").glob("test_*.py")})
    lines = [
        "# What works where",
        "",
        f"Made by `make matrix` from the results of a run of `make test` on {cores} cores. Each figure is a number of",
        "tests against real clusters of that release; what a file of tests is about is its own first sentence.",
        "",
        "| | " + " | ".join(name.capitalize() for name in releases) + " |",
        "|---|" + "---|" * len(releases),
    ]
    for title, key in (("Ceph", "ceph"), ("Python of the mgr", "python"), ("Debian", "debian")):
        lines.append(f"| {title} | " + " | ".join(results[name].properties.get(key, "?") for name in releases) + " |")
    lines.append("| run of (UTC) | " + " | ".join(minute(results[name].began) for name in releases) + " |")
    lines.append("| minutes | " + " | ".join(f"{results[name].seconds / 60:.1f}" for name in releases) + " |")
    total = {name: sum(results[name].outcomes.values(), Counter()) for name in releases}
    for how in ("passed", "skipped", "failed"):
        lines.append(f"| {how} | " + " | ".join(str(total[name][how]) for name in releases) + " |")
    if any(results[name].again for name in releases):
        lines.append("| of them run again | " + " | ".join(str(results[name].again) for name in releases) + " |")
    lines += ["", "## By subject", "", "| | tests | " + " | ".join(name.capitalize() for name in releases) + " |"]
    lines.append("|---|---|" + "---|" * len(releases))
    for file in files:
        row = " | ".join(cell(results[name], file) for name in releases)
        lines.append(f"| {about(REPO / file)} | `{file}` | {row} |")
    lines += soaked(results)
    lines += ["", "## What is skipped, and why", "", "| tests | release | number | reason |", "|---|---|---|---|"]
    for file in files:
        for name in releases:
            for reason, number in sorted(results[name].skips.get(file, Counter()).items()):
                lines.append(f"| `{file}` | {name.capitalize()} | {number} | {reason} |")
    if unit is not None:
        found = sum(unit.outcomes.values(), Counter())
        told = ", ".join(f"{found[how]} {how}" for how in ("passed", "skipped", "failed") if found[how])
        lines += [
            "",
            "## Without a cluster",
            "",
            f"{len(unit.outcomes)} files of unit tests on Python {platform.python_version()}: {told}, in "
            f"{unit.seconds:.0f} seconds ({minute(unit.began)}).",
        ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("page", type=Path)
    args = parser.parse_args()
    results = {
        name: read(args.results / f"{name}.xml", *sorted(args.results.glob(f"{name}.again*.xml")))
        for name in RELEASES
        if (args.results / f"{name}.xml").exists()
    }
    if not results:
        print(f"no results in {args.results}: run `make test` first", file=sys.stderr)
        return 1
    unit = args.results / "unit.xml"
    args.page.write_text(page(results, read(unit) if unit.exists() else None, os.cpu_count() or 1))
    for name in RELEASES:
        if name not in results:
            print(f"no results of {name}: it is not in the table", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
