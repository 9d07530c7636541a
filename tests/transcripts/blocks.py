"""Pages as what can be run of them: typed commands with the output that is shown, and remarks for whoever runs them.

A fenced block of the language ``console`` holds lines that begin with ``$ `` and what came back. HTML comments between
blocks, which no reader sees, arrange what a reader has to imagine:

* ``<!-- run: COMMAND -->``: a shell command that is not shown,
* ``<!-- open: POOL/IMAGE-OR-NAME -->``, ``<!-- close -->``: somebody has that image open, and has not any more,
* ``<!-- only: RELEASE -->``, ``<!-- only: all -->``: from here on for that release alone; for every one again.

A block of the language ``sh`` holds commands without output. The remark before it says by what it is run,
``<!-- run by: tests/... -->``, or why it can't be run on a cluster of the tests, ``<!-- not run: why -->``.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_FENCE = re.compile(r"^```(?P<language>\S*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
_REMARK = re.compile(r"^<!-- (?P<kind>run|open|close|only|run by|not run)(?:: (?P<text>.*?))? -->$", re.MULTILINE)


@dataclass(frozen=True)
class Typed:
    """A command as typed, and the lines that are shown as its output."""

    command: str
    output: tuple[str, ...] = ()


@dataclass(frozen=True)
class Remark:
    """An HTML comment for whoever runs the page."""

    kind: str
    text: str = ""


@dataclass(frozen=True)
class Block:
    """A fenced block. `start` and `end` are where its body stands in the page; `remark` is what stands before it."""

    language: str
    body: str
    start: int
    end: int
    remark: Remark | None = None
    typed: tuple[Typed, ...] = field(default=())


def _typed(body: str) -> tuple[Typed, ...]:
    found: list[tuple[str, list[str]]] = []
    for line in body.splitlines():
        if found and not found[-1][1] and found[-1][0].endswith("\\"):
            found[-1] = (found[-1][0] + "\n" + line, [])
        elif line.startswith("$ "):
            found.append((line.removeprefix("$ "), []))
        elif found:
            found[-1][1].append(line)
        else:
            raise ValueError(f"output without a command before it: {line!r}")
    return tuple(Typed(command, tuple(output)) for command, output in found)


def parts(page: str) -> Iterator[Block | Remark]:
    """Yield the blocks and remarks of a page in their order."""
    fences = list(_FENCE.finditer(page))
    inside = [(fence.start(), fence.end()) for fence in fences]
    remarks = [
        found for found in _REMARK.finditer(page) if not any(start < found.start() < end for start, end in inside)
    ]
    last: tuple[Remark, int] | None = None
    for found in sorted([*fences, *remarks], key=lambda match: match.start()):
        if found.re is _REMARK:
            remark = Remark(found["kind"], found["text"] or "")
            last = remark, found.end()
            yield remark
            continue
        before = last[0] if last is not None and not page[last[1] : found.start()].strip() else None
        typed = _typed(found["body"]) if found["language"] == "console" else ()
        yield Block(found["language"], found["body"], found.start("body"), found.end("body"), before, typed)


def blocks(page: str) -> list[Block]:
    """Return the fenced blocks of a page."""
    return [part for part in parts(page) if isinstance(part, Block)]
