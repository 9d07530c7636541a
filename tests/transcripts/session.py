"""Runs a page: types its commands in order on a cluster and compares what comes back with what the page shows."""

import contextlib
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass

import rados
import rbd

from harness.cli import PATH, clean_env
from harness.cluster import Cluster
from harness.config import FAST

from .blocks import Block, Remark, Typed, parts
from .match import Known, learn, match, match_line, translate

#: Commands that change nothing: they are repeated until they show what they have to, since much follows by itself.
_LOOKS = re.compile(r"\b(ls|info|tree|status|metrics|detail|listomapvals|listomapkeys)\b|--dry-run")
#: Figures that depend on what else happens.
_FIGURES = re.compile(r"\bvdisk (status|metrics)\b")
#: What a command says that takes longer than it waits; whoever types it repeats it then.
_GOES_ON = "Error EAGAIN: pending: "
_PATIENCE = 90.0


@dataclass(frozen=True)
class Played:
    """A command that was typed: what the page shows, what was run and came back, and whether that is the same."""

    block: Block
    typed: Typed
    command: str
    came: tuple[str, ...]
    good: bool

    def __str__(self) -> str:
        shown, came = "\n".join(self.typed.output), "\n".join(self.came)
        return f"$ {self.command}\n--- the page shows\n{shown}\n--- came back\n{came}"


class Session:
    """One page on one cluster, whose pool ``rbd`` is empty at its beginning.

    With ``only_marked`` just what the page marks for the cluster's release.
    """

    def __init__(self, cluster: Cluster, only_marked: bool = False) -> None:
        self._cluster = cluster
        self._only_marked = only_marked
        self._known: Known = {}
        self._open = contextlib.ExitStack()
        self._env = clean_env({"PATH": f"{cluster.layout.bin}:{PATH}", "CEPH_CONF": str(cluster.conf_path)})

    @property
    def known(self) -> Known:
        """Id of the page → id of this run."""
        return self._known

    def play(self, page: str) -> Iterator[Played]:
        """Run a page and yield each command with what came back."""
        mine = not self._only_marked
        with self._open:
            for part in parts(page):
                if isinstance(part, Remark) and part.kind == "only":
                    mine = part.text == self._cluster.release.name or (part.text == "all" and not self._only_marked)
                elif mine and isinstance(part, Remark):
                    self._obey(part)
                elif mine and isinstance(part, Block):
                    for typed in part.typed:
                        yield self._type(part, typed)

    def _obey(self, remark: Remark) -> None:
        text = translate(remark.text, self._known)
        if remark.kind == "run":
            code, out = self._shell(text)
            assert code == 0, f"{text}: exit code {code}\n" + "\n".join(out)
        elif remark.kind == "open":
            self._hold(text)
        elif remark.kind == "close":
            self._open.close()

    def _hold(self, spec: str) -> None:
        """Open an image, as whoever mounts it does; a volume by its name."""
        pool, _, name = spec.partition("/")
        image = self._cluster.ceph_json("vdisk", "volume", "info", spec)["image"]
        client = rados.Rados(conffile=str(self._cluster.conf_path), name="client.admin")
        client.connect(timeout=20)
        self._open.callback(client.shutdown)
        ioctx = self._open.enter_context(client.open_ioctx(pool))
        handle = self._open.enter_context(rbd.Image(ioctx, image))
        assert handle.size() > 0, name
        # The watch is there once something had to be locked for writing.
        handle.write(b"x" * 4096, 0)

    def _type(self, block: Block, typed: Typed) -> Played:
        command = translate(typed.command, self._known)
        until = time.monotonic() + _PATIENCE
        while True:
            code, came = self._shell(command)
            known = match(self._shown(typed), came, self._known)
            refused = any(line.lstrip().startswith(("Error E", '"error": {')) for line in typed.output)
            good = known is not None and (refused or code == 0)
            again = _LOOKS.search(command) or any(line.startswith(_GOES_ON) for line in came)
            if good or not again or time.monotonic() > until:
                break
            time.sleep(0.2)
        self._known = known if known is not None else learn(typed.output, came, self._known)
        return Played(block, typed, command, came, good)

    def _shown(self, typed: Typed) -> tuple[str, ...]:
        if _FIGURES.search(typed.command):
            return tuple(re.sub(r"\b\d+(\.\d+)*\b", "...", line) for line in typed.output)
        # Whether the seal is there when a creation answers is a matter of milliseconds.
        if " snap create " in typed.command:
            return tuple(re.sub(r"^(sealed:\s+)(no|yes)$", r"\1...", line) for line in typed.output)
        return typed.output

    def _shell(self, command: str) -> tuple[int, tuple[str, ...]]:
        # Where a reader's keyrings are, and where this cluster's are.
        command = command.replace("/etc/ceph/ceph.", f"{self._cluster.layout.keys}/")
        done = subprocess.run(
            ["/bin/bash", "-c", command],
            env=self._env,
            cwd=self._cluster.dir,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=180,
            text=True,
            errors="replace",
        )
        return done.returncode, tuple(line.rstrip() for line in done.stdout.strip().splitlines())


def rewritten(page: str, played: list[Played], known: Known) -> str:
    """Return a page with what came back in place of what it shows, and this run's ids all over it.

    Output that is cut short with ``...`` stays so as long as it is true.
    """
    for block in reversed(list({entry.block.start: entry.block for entry in played}.values())):
        lines: list[str] = []
        for entry in played:
            if entry.block.start != block.start:
                continue
            lines.append(f"$ {translate(entry.typed.command, known)}")
            cut = entry.good and any("..." in line for line in entry.typed.output)
            lines += _renewed(entry, known) if cut else entry.came
        page = page[: block.start] + "".join(f"{line}\n" for line in lines) + page[block.end :]
    return translate(page, known)


def _renewed(entry: Played, known: Known) -> Iterator[str]:
    """Yield the lines of an output that is cut short as they are now."""
    at = 0
    for line in entry.typed.output:
        same = (at + n for n, came in enumerate(entry.came[at:]) if match_line(line, came, known) is not None)
        found = next(same, None) if line.strip() != "..." else None
        if found is None or "..." in line:
            yield translate(line, known)
        else:
            yield entry.came[found]
            at = found + 1


def fresh_cluster(release: str) -> Cluster:
    """Return a cluster for a page, not started: monitors that decide at once, and schedules that go by a file."""
    cluster = Cluster(release, conf=FAST)
    clock = cluster.dir / "clock"
    clock.write_text("1795537210")  # 2026-11-24, twenty past four in the afternoon
    for mgr in cluster.mgrs.values():
        mgr.env["VDISK_SCHEDULE_CLOCK"] = f"@{clock}"
    return cluster


def ready(cluster: Cluster) -> None:
    """Bring a cluster of `fresh_cluster` that was started to where pages begin."""
    cluster.create_pool("rbd")
    # A check that runs by itself would be among the operations that a page shows.
    cluster.ceph("config", "set", "mgr", "mgr/vdisk/check_interval", "0")
