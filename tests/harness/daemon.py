"""One Ceph daemon as a process that tests may start, stop, kill and freeze."""

import concurrent.futures
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.cli import clean_env
from harness.wait import WaitTimeout, wait_for

# A parent-death signal is tied to the *thread* that started the process. All daemons are started from this one thread,
# which lives as long as the interpreter, so that a helper thread of a test takes no daemon along when it ends.
_spawner = concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawn-daemon")


def start_time(pid: int) -> int | None:
    """Return when process `pid` started (clock ticks since boot), or None if there is none, or only a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


@dataclass(frozen=True)
class Process:
    """A process by its pid and start time, so that a later process with the same pid is never taken for it."""

    pid: int
    started: int

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return start_time(self.pid) == self.started

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens if the process is gone."""
        if self.alive:
            os.kill(self.pid, number)


class Daemon:
    """One monitor, manager or OSD. `detached` ones outlive this Python process, the others die with it."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log_path: Path,
        env: Mapping[str, str] | None = None,
        detached: bool = False,
        process: Process | None = None,
    ) -> None:
        self.name = name
        self.log_path = log_path
        self.output_path = log_path.with_suffix(".out")
        self.env = dict(env or {})
        self._argv = list(argv)
        self._detached = detached
        self._popen: subprocess.Popen[bytes] | None = None
        self._process = process

    def __repr__(self) -> str:
        return f"<Daemon {self.name} {self.pid if self.running else 'not running'}>"

    @property
    def pid(self) -> int:
        """The process id; raises `ProcessLookupError` if it was never started."""
        if self._process is None:
            raise ProcessLookupError(f"{self.name} was never started")
        return self._process.pid

    @property
    def process(self) -> Process | None:
        """The process of the last start."""
        return self._process

    @property
    def running(self) -> bool:
        """Whether the process exists (a paused one does)."""
        if self._popen is not None:
            return self._popen.poll() is None
        return self._process is not None and self._process.alive

    def start(self, env: Mapping[str, str] | None = None) -> None:
        """Start the process and return at once. `env` is added to its environment, for this start only."""
        if self.running:
            raise RuntimeError(f"{self.name} runs already")
        environment = clean_env({**self.env, **(env or {})})
        self._popen = _spawner.submit(self._spawn, environment).result()
        started = start_time(self._popen.pid)
        self._process = Process(self._popen.pid, started or 0)

    def _spawn(self, env: Mapping[str, str]) -> "subprocess.Popen[bytes]":
        guard = [] if self._detached else ["/usr/bin/setpriv", "--pdeathsig", "KILL", "--"]
        with self.output_path.open("ab") as output:
            return subprocess.Popen(
                [*guard, *self._argv],
                env=dict(env),
                # As under systemd. Debian's build of Tentacle looks for an OSD's classes in lib/..., below where it is.
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def stop(self, timeout: float = 20) -> None:
        """End it in good order (SIGTERM); after `timeout` seconds by force."""
        self.send(signal.SIGTERM)
        self.send(signal.SIGCONT)
        try:
            self._wait_gone(timeout)
        except WaitTimeout:
            self.kill()

    def kill(self) -> None:
        """End it as a crash would (SIGKILL), and wait until it is gone."""
        self.send(signal.SIGKILL)
        self._wait_gone(30)

    def pause(self) -> None:
        """Freeze it (SIGSTOP): connections stay open, nothing is answered."""
        self.send(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused one run on."""
        self.send(signal.SIGCONT)

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens if it does not run."""
        if self.running and self._process is not None:
            self._process.send(number)

    def restart(self, env: Mapping[str, str] | None = None) -> None:
        """Stop it in good order and start it again."""
        self.stop()
        self.start(env)

    def log(self, lines: int | None = None) -> str:
        """Return what it logged so far, or the last `lines` lines of it."""
        try:
            text = self.log_path.read_text(errors="replace")
        except FileNotFoundError:
            return ""
        return text if lines is None else "\n".join(text.splitlines()[-lines:])

    def output(self) -> str:
        """Return what it wrote to the terminal: usually nothing but why it could not start."""
        try:
            return self.output_path.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def state(self) -> dict[str, Any]:
        """Return what another process needs to find this daemon again."""
        process = self._process
        where = {"pid": process.pid, "started": process.started} if process else {}
        return {"name": self.name, **where}

    def _wait_gone(self, timeout: float) -> None:
        wait_for(lambda: not self.running, timeout, f"{self.name} ends", interval=0.01)
