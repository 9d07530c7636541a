"""Running a Ceph tool to its end, with its output and a deadline."""

import errno
import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# What would lead a program to another cluster or another Python than its own.
_FOREIGN = (
    "CEPH_ARGS",
    "CEPH_CONF",
    "CEPH_KEYRING",
    "PYTHONPATH",
    "PYTHONHOME",
    "VIRTUAL_ENV",
    "LD_LIBRARY_PATH",
)
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Result:
    """How a program ended. `rc` is its exit code, `out` and `err` what it wrote."""

    rc: int
    out: str
    err: str
    argv: tuple[str, ...]

    def __str__(self) -> str:
        return f"$ {shlex.join(self.argv)}\nexit code {self.rc}\n{self.out}{self.err}"


class CephError(Exception):
    """A command failed. The message holds all its output; `result` (rc, out, err) the parts."""

    def __init__(self, result: Result) -> None:
        super().__init__(str(result))
        self.result = result


class CommandTimeout(CephError):
    """A command did not end in time: there is no active manager, perhaps, or no quorum."""

    def __init__(self, argv: Sequence[str], timeout: float, out: str = "", err: str = "") -> None:
        text = f"{err}no answer within {timeout:g} s\n"
        super().__init__(Result(rc=errno.ETIMEDOUT, out=out, err=text, argv=tuple(argv)))


def clean_env(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment without what would mislead a release's own programs, and with `extra`."""
    env = {key: value for key, value in os.environ.items() if key not in _FOREIGN}
    env.update(PATH=PATH, LC_ALL="C.UTF-8", HOME="/root")
    env.update(extra or {})
    return env


def _text(data: str | bytes | None) -> str:
    return data.decode(errors="replace") if isinstance(data, bytes) else data or ""


def run(
    argv: Sequence[str],
    *,
    shown: Sequence[str] | None = None,
    check: bool = True,
    timeout: float = 60,
    input: str | bytes | None = None,
    env: Mapping[str, str] | None = None,
) -> Result:
    """Run `argv` to its end. `shown` is what messages show in its place, `timeout` is in seconds.

    Raises `CommandTimeout` (after killing it), and `CephError` when `check` is true and the exit code is not 0.
    """
    shown = tuple(shown or argv)
    feed = input.encode() if isinstance(input, str) else input
    source = {"input": feed} if feed is not None else {"stdin": subprocess.DEVNULL}
    try:
        done = subprocess.run(argv, capture_output=True, timeout=timeout, env=clean_env(env), **source)
    except subprocess.TimeoutExpired as expired:
        raise CommandTimeout(shown, timeout, _text(expired.stdout), _text(expired.stderr)) from None
    result = Result(rc=done.returncode, out=_text(done.stdout), err=_text(done.stderr), argv=shown)
    if check and result.rc != 0:
        raise CephError(result)
    return result
