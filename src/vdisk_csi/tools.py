"""Running the system's programs: argument lists, no shell, a deadline, and a clear error."""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

_log = logging.getLogger(__name__)
_TIMEOUT = 300.0


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


def run(argv: Sequence[str], *, ok: Collection[int] = (0,)) -> Done:
    """Run a program to its end; see :class:`Run`. No argument is ever a secret."""
    try:
        ended = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT, env=environment(), check=False
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
