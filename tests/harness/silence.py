"""What a manager is doing that does not answer: so that a rare silence explains itself when a test meets it.

Whether the monitors count it as active, whether only one client's session is dead (an old handle, a new one, the
release's own tool), whether the manager itself answers and only its modules do not, and where its threads are.
"""

import concurrent.futures
import contextlib
import json
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.daemon import Daemon
from harness.wait import WaitTimeout, wait_for

if TYPE_CHECKING:
    from harness.admin import ClusterAdmin

PROBE = Path(__file__).resolve().parent / "probe"
"""On a manager's PYTHONPATH: has Python write the stacks of all threads to `VDISK_STACKS` at SIGUSR2."""

#: Seconds that each of those who are asked has for an answer.
SECONDS = 5
_ASKED = ({"prefix": "pg stat"}, {"prefix": "rbd task list"}, {"prefix": "vdisk status"})


def explain(cluster: "ClusterAdmin", seconds: float = SECONDS) -> str:
    """Return all that can be found out from outside about managers that do not answer; takes some seconds.

    `seconds` is how long an answer may take.
    """
    lines: list[str] = []
    with contextlib.suppress(Exception):
        dump = cluster.mgr_map()
        shown = ("epoch", "active_name", "active_gid", "available", "active_addrs")
        lines.append("mgr map: " + json.dumps({key: dump.get(key) for key in shown}))
        lines.append(f"standbys: {[standby['name'] for standby in dump['standbys']]}, clients: {len(_clients(dump))}")
    lines += _answers(cluster, seconds)
    for daemon in cluster.mgrs.values():
        lines += _process(daemon)
    return "\n".join(lines)


def stacks_path(daemon_log: Path) -> Path:
    """Return where a manager with that log writes its Python stacks."""
    return daemon_log.with_suffix(".stacks")


def _clients(dump: dict[str, Any]) -> list[Any]:
    return list(dump.get("active_clients", []))


def _answers(cluster: "ClusterAdmin", seconds: float) -> list[str]:
    """Ask the manager itself, another module and vdisk, through the handle in use, a new one, and the tool."""

    def old(command: dict[str, str]) -> object:
        return cluster.mgr_command(command, timeout=seconds)[::2]

    def new(command: dict[str, str]) -> object:
        return cluster.new_handle().mgr_command(json.dumps(command), b"", timeout=seconds)[::2]

    def tool(command: dict[str, str]) -> object:
        return cluster.ceph(*command["prefix"].split(), check=False, timeout=seconds).rc

    clients = {"the old handle": old, "a new handle": new, "the tool": tool}
    pool = concurrent.futures.ThreadPoolExecutor(max_workers=len(_ASKED) * len(clients))
    asked = {
        f"{command['prefix']}, {name}": pool.submit(ask, command) for command in _ASKED for name, ask in clients.items()
    }
    concurrent.futures.wait(asked.values(), timeout=2 * seconds)
    pool.shutdown(wait=False)
    return [f"{what}: {_result(answer)}" for what, answer in asked.items()]


def _result(answer: "concurrent.futures.Future[object]") -> str:
    if not answer.done():
        return "no answer"
    error = answer.exception()
    return str(answer.result()) if error is None else f"{type(error).__name__}: {error}"


def _process(daemon: Daemon) -> Iterator[str]:
    """Tell where the threads of a manager are, in the kernel and, where it can be asked, in Python."""
    if not daemon.running:
        yield f"{daemon.name} does not run"
        return
    where: Counter[str] = Counter()
    for task in Path(f"/proc/{daemon.pid}/task").iterdir():
        with contextlib.suppress(OSError):
            state = (task / "stat").read_text().rpartition(")")[2].split()[0]
            where[f"{(task / 'comm').read_text().strip()} {state} {(task / 'wchan').read_text()}"] += 1
    yield f"{daemon.name}, pid {daemon.pid}, threads:"
    yield from (f"  {count} x {what}" for what, count in sorted(where.items()))
    path = stacks_path(daemon.log_path)
    if "VDISK_STACKS" in daemon.env and path.exists():
        before = path.stat().st_size
        daemon.send(signal.SIGUSR2)
        sizes = [before]

        def written() -> bool:
            # Piece by piece, and nothing tells that it was the last one.
            sizes.append(path.stat().st_size)
            return sizes[-1] > before and sizes[-3:].count(sizes[-1]) == 3

        with contextlib.suppress(WaitTimeout):
            wait_for(written, 5, "stacks", interval=0.1)
        yield "Python stacks:\n" + path.read_text(errors="replace")[before:]
