"""Running the system's programs: argument lists, no shell, a deadline, and a clear error."""

from __future__ import annotations

import fcntl
import logging
import os
import shlex
import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_log = logging.getLogger(__name__)
_TIMEOUT = 300.0
#: Descriptors of locks that are held as long as this process and its programs live.
_held: list[int] = []


class ToolFailed(Exception):
    """A program is missing, ended with an unexpected exit code, or did not end in time."""


@dataclass(frozen=True)
class Done:
    """How a program ended."""

    code: int
    out: str
    err: str


class Run(Protocol):
    """Runs a program to its end."""

    def __call__(self, argv: Sequence[str], *, ok: Collection[int] = (0,)) -> Done:
        """Return how it ended; raises :class:`ToolFailed` unless its exit code is one of ``ok``."""


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of programs: ours, in plain English, and without what is meant for our Python only."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON") and key != "VIRTUAL_ENV"}
    path = env.get("PATH", "")
    env.update(LC_ALL="C.UTF-8", PATH=f"{path}:/usr/sbin:/usr/bin:/sbin:/bin" if path else "/usr/sbin:/usr/bin")
    env.update(extra or {})
    return env


def take_turn(path: Path) -> None:
    """Wait until no other driver works with a directory, nor any program that one left running when it was killed.

    ``path`` is a file in that directory. It is locked, and the programs that :func:`run` runs hold the lock too.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _log.warning("waiting for another driver, or for a program that one left running", extra={"lock": str(path)})
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    _held.append(descriptor)


def run(argv: Sequence[str], *, ok: Collection[int] = (0,)) -> Done:
    """Run a program to its end; see :class:`Run`. No argument is ever a secret."""
    return _run(argv, ok, tuple(_held))


def run_starting(argv: Sequence[str], *, ok: Collection[int] = (0,)) -> Done:
    """Run a program that starts another one which stays; that one must not hold the lock of :func:`take_turn`."""
    return _run(argv, ok, ())


def _run(argv: Sequence[str], ok: Collection[int], descriptors: tuple[int, ...]) -> Done:
    try:
        ended = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT,
            env=environment(),
            check=False,
            pass_fds=descriptors,
        )
    except OSError as error:
        raise ToolFailed(f"{argv[0]}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise ToolFailed(f"{shlex.join(argv)}: not done within {_TIMEOUT:g} s") from error
    done = Done(ended.returncode, ended.stdout.decode(errors="replace"), ended.stderr.decode(errors="replace"))
    _log.debug("ran", extra={"argv": list(argv), "exit_code": done.code, "stderr": done.err[-500:]})
    if done.code not in ok:
        said = " ".join((done.err or done.out).split())[-500:]
        raise ToolFailed(f"{shlex.join(argv)}: exit code {done.code}: {said}")
    return done
