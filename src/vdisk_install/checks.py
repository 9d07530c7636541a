"""Does a copy of the module work? Files, permissions, import, signatures; nothing is written into the copy."""

from __future__ import annotations

import json
import os
import pwd
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vdisk_install.places import MODULE

_TIMEOUT = 60
_USER = "ceph"


@dataclass(frozen=True)
class Report:
    """What was found. ``problems`` keep the module from working; ``warnings`` may."""

    files: int
    commands: int
    options: int
    problems: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Reader:
    """Who has to be able to read the files: the user that ceph-mgr runs as."""

    uid: int
    gids: frozenset[int]

    def may(self, path: Path, wanted: int) -> bool:
        """Tell whether all permissions of ``wanted`` (bits of one octal digit) are there for the reader."""
        info = path.stat()
        if info.st_uid == self.uid:
            shift = 6
        elif info.st_gid in self.gids:
            shift = 3
        else:
            shift = 0
        return stat.S_IMODE(info.st_mode) >> shift & wanted == wanted


def mgr_user() -> _Reader:
    """Return the user ``ceph``, or where there is none somebody who is nobody's owner."""
    try:
        found = pwd.getpwnam(_USER)
    except KeyError:
        return _Reader(-1, frozenset())
    return _Reader(found.pw_uid, frozenset(os.getgrouplist(_USER, found.pw_gid)))


def check(module: Path, place: Path | None = None) -> Report:
    """Check the copy ``module``. ``place`` is where it is going to be, if it is not there yet."""
    reader = mgr_user()
    real = module.resolve()
    files = sorted(path for path in real.rglob("*.py") if "__pycache__" not in path.parts)
    problems = [*_compile_problems(files, real), *_mode_problems(real, reader)]
    commands = options = 0
    if not problems:
        found = _probe(module)
        commands, options = found.commands, found.options
        problems += found.problems
    above = (place or module).parent
    ways = [above, *above.parents] + ([real.parent, *real.parent.parents] if module.is_symlink() else [])
    closed = sorted({str(way) for way in ways if not reader.may(way, 1)})
    warnings = [f"user {_USER} can't reach {path}: a mgr that runs as {_USER} won't find the module" for path in closed]
    return Report(len(files), commands, options, tuple(problems), tuple(warnings))


def _compile_problems(files: list[Path], root: Path) -> Iterator[str]:
    if not files:
        yield "it holds no Python files"
    for path in files:
        try:
            compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
        except (OSError, SyntaxError, ValueError) as error:
            yield f"{path.relative_to(root)}: {error}"


def _mode_problems(root: Path, reader: _Reader) -> Iterator[str]:
    for path in [root, *sorted(root.rglob("*"))]:
        if "__pycache__" not in path.parts and not reader.may(path, 5 if path.is_dir() else 4):
            mode = stat.S_IMODE(path.stat().st_mode)
            yield f"{path.relative_to(root.parent)}: user {_USER} can't read it (mode {mode:o})"


def _probe(module: Path) -> Report:
    """Import the module in a fresh, isolated Python."""
    script = Path(__file__).with_name("probe.py")
    argv = [sys.executable, "-I", str(script), str(module.parent)]
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT)
        found = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        return Report(0, 0, 0, (f"importing {MODULE} could not be tried: {error}",), ())
    return Report(0, int(found["commands"]), int(found["options"]), tuple(map(str, found["problems"])), ())
