"""What the demonstration shows: headings, words, commands as typed, and what came back."""

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping
from pathlib import Path

WIDTH = 100


class CommandFailed(Exception):
    """A command of the demonstration did not end as it has to."""


class Terminal:
    """Runs shell commands in one directory and shows them. Colour only where there is a terminal to show it."""

    def __init__(self, cwd: Path, env: Mapping[str, str]) -> None:
        self._cwd = cwd
        self._env = dict(env)
        self._colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        self._began = time.monotonic()

    def head(self, text: str) -> None:
        """Begin a chapter."""
        print(f"\n{self._paint('1', '== ' + text)}  ({time.monotonic() - self._began:.0f} s)\n", flush=True)

    def say(self, text: str) -> None:
        """Explain something, in a paragraph."""
        print(
            self._paint("32", textwrap.fill(" ".join(text.split()), WIDTH, initial_indent="# ", subsequent_indent="# "))
        )

    def typed(self, command: str) -> None:
        """Show a command without running it."""
        print(self._paint("1;36", f"$ {command}"), flush=True)

    def run(self, command: str, *, fails: bool = False, show: int | None = None, timeout: float = 60) -> str:
        """Run a shell command and show it with its output, or the first `show` lines of it; return what it printed.

        Raises `CommandFailed` when it fails, or with `fails` when it does not.
        """
        self.typed(command)
        code, text = self._run(command, timeout)
        lines = text.rstrip().splitlines()
        if show is not None and len(lines) > show:
            lines = [*lines[:show], f"... {len(lines) - show} more lines"]
        print("\n".join(lines) + "\n" if lines else "", flush=True)
        if (code != 0) != fails:
            raise CommandFailed(f"exit code {code}: {command}" + (f"\n{text}" if show == 0 else ""))
        return text

    def quietly(self, command: str, timeout: float = 60) -> str:
        """Run a command that is not worth showing; return what it printed."""
        code, text = self._run(command, timeout)
        if code != 0:
            raise CommandFailed(f"exit code {code}: {command}\n{text}")
        return text

    def _run(self, command: str, timeout: float) -> tuple[int, str]:
        try:
            done = subprocess.run(
                ["/bin/bash", "-c", command],
                cwd=self._cwd,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired as expired:
            raise CommandFailed(f"not done within {timeout:g} s: {command}") from expired
        return done.returncode, done.stdout.decode(errors="replace")

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text
