"""Clients outside of the mgr: processes with threads, each thread with a librados connection of its own.

A Python process with 32 busy threads measures its own interpreter lock as well, so clients are spread over processes.
The processes are kept for the whole run; what they are to do is a list of plain jobs.
"""

from __future__ import annotations

import errno
import json
import multiprocessing
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import rados
import rbd

#: Clients a process.
_PER_PROCESS = 8


@dataclass(frozen=True)
class Target:
    """The cluster to talk to: its ceph.conf and the administrator's keyring."""

    conf: Path
    keyring: Path

    def connect(self) -> rados.Rados:
        """Return a connected handle."""
        overrides = {
            "keyring": str(self.keyring),
            "log_file": "",
            "log_to_stderr": "false",
            # Pacific's clone call has no argument for it.
            "rbd_default_clone_format": "2",
        }
        handle = rados.Rados(name="client.admin", conffile=str(self.conf), conf=overrides)
        handle.connect()
        return handle


@dataclass(frozen=True)
class Command:
    """A mgr command, repeated while it is answered EAGAIN, ``pause`` seconds later each time.

    An operation that is promised only, as with ``wait`` 0, is waited for together with those of the process' other
    clients (:class:`_Polls`). With ``until`` the command is repeated until that field of its answer has that value.
    """

    arguments: Mapping[str, Any]
    until: tuple[str, Any] | None = None
    pause: float = 0.1


@dataclass(frozen=True)
class BareSnapshot:
    """The source note's flow through librbd: snapshot, clone, remove the snapshot, snapshot the clone."""

    pool: str
    image: str
    clone: str


@dataclass(frozen=True)
class BareSnap:
    """One snapshot of an image that is open already, and nothing else: what a monitor round costs."""

    pool: str
    image: str
    snap: str


@dataclass(frozen=True)
class BareClone:
    """A clone of a snapshot."""

    pool: str
    image: str
    snap: str
    clone: str


@dataclass(frozen=True)
class BareCreate:
    """An empty image."""

    pool: str
    image: str
    size: int


Job = Command | BareSnapshot | BareSnap | BareClone | BareCreate


@dataclass
class Timing:
    """How long a job took, in seconds: in all, and up to the moments with a name. ``answer`` is a command's output."""

    started: float
    seconds: float
    marks: dict[str, float] = field(default_factory=dict)
    answer: Any = None


class Fleet:
    """Up to ``clients`` clients at work side by side."""

    def __init__(self, target: Target, clients: int) -> None:
        self.clients = clients
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for _ in range(-(-clients // _PER_PROCESS)):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(there, target, _PER_PROCESS), daemon=True)
            process.start()
            there.close()
            self._pipes.append(here)
            self._processes.append(process)
        for pipe in self._pipes:
            pipe.recv()

    def run(self, work: Sequence[Sequence[Job]]) -> list[list[Timing]]:
        """Give each client its list of jobs, done one after the other; returns the timings in the same shape."""
        if len(work) > self.clients:
            raise ValueError(f"{len(work)} lists of jobs for {self.clients} clients")
        # Spread, so that few clients are in processes of their own.
        shares: list[list[int]] = [[] for _ in self._pipes]
        for number in range(len(work)):
            shares[number % len(shares)].append(number)
        for pipe, share in zip(self._pipes, shares, strict=True):
            pipe.send([list(work[number]) for number in share])
        results: dict[int, list[Timing]] = {}
        failures = []
        for pipe, share in zip(self._pipes, shares, strict=True):
            for number, result in zip(share, pipe.recv(), strict=True):
                if isinstance(result, str):
                    failures.append(result)
                else:
                    results[number] = result
        if failures:
            raise RuntimeError(f"{len(failures)} clients failed; the first: {failures[0]}")
        return [results[number] for number in range(len(work))]

    def one(self, job: Job) -> Timing:
        """Have one client do one job."""
        return self.run([[job]])[0][0]

    def close(self) -> None:
        """End the processes."""
        for pipe in self._pipes:
            pipe.send(None)
        for process in self._processes:
            process.join(10)
            if process.is_alive():
                process.kill()


def _serve(pipe: Connection, target: Target, clients: int) -> None:
    """Run in a process: connect, then do what comes through the pipe until None does."""
    polls = _Polls(target)
    workers = [_Client(target, polls) for _ in range(clients)]
    pipe.send("ready")
    while (work := pipe.recv()) is not None:
        results: list[Any] = [None] * len(work)
        threads = [
            threading.Thread(target=_collect, args=(workers[number], jobs, results, number))
            for number, jobs in enumerate(work)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        pipe.send(results)


def _collect(client: _Client, jobs: Sequence[Job], results: list[Any], number: int) -> None:
    try:
        results[number] = [client.do(job) for job in jobs]
    except Exception as error:
        results[number] = f"{type(error).__name__}: {error}"


def answer_is_final(answer: Any) -> bool:
    """Tell whether an answer is more than a promise, which is what ``wait`` 0 gives."""
    return not (isinstance(answer, dict) and answer.get("state") == "pending")


class _Polls:
    """Waits for operations of all clients of a process with one command at a time, as the CSI driver does."""

    _PAUSE = 0.05

    def __init__(self, target: Target) -> None:
        self._rados = target.connect()
        self._changed = threading.Condition()
        self._awaited: dict[str, dict[str, Any] | None] = {}
        threading.Thread(target=self._work, daemon=True).start()

    def answered(self, operation: str) -> dict[str, Any]:
        """Wait until an operation has answered; returns its row."""
        with self._changed:
            self._awaited[operation] = None
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._awaited[operation] is not None)
            row = self._awaited.pop(operation)
            assert row is not None
        if not row["answered"] or row["error"]:
            raise RuntimeError(f"operation {operation}: {row}")
        return row

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: None in self._awaited.values())
                ids = [operation for operation, row in self._awaited.items() if row is None]
            arguments = {"prefix": "vdisk op ls", "ids": ",".join(ids), "format": "json"}
            number, out, _ = self._rados.mgr_command(json.dumps(arguments), b"")
            rows = json.loads(out) if number == 0 else []
            with self._changed:
                for row in rows:
                    if row["answered"] or row["state"] in ("failed", "unknown"):
                        self._awaited[row["id"]] = row
                self._changed.notify_all()
            time.sleep(self._PAUSE)


class _Client:
    """One connection, and the images that it has open."""

    def __init__(self, target: Target, polls: _Polls) -> None:
        self._rados = target.connect()
        self._polls = polls
        self._contexts: dict[str, rados.Ioctx] = {}
        self._images: dict[tuple[str, str], rbd.Image] = {}

    def do(self, job: Job) -> Timing:
        """Do a job; what a bare flow is given for nothing, an open image and pool, is made before the clock starts."""
        marks: dict[str, float] = {}
        answer = None
        match job:
            case Command():
                started = time.monotonic()
                answer = self._command(job)
            case BareSnapshot(pool, name, clone):
                ioctx, image = self._ioctx(pool), self._image(pool, name)
                started = time.monotonic()
                image.create_snap(clone)
                rbd.RBD().clone(ioctx, name, clone, ioctx, clone)
                image.remove_snap(clone)
                marks["ready"] = time.monotonic() - started
                with rbd.Image(ioctx, clone) as made:
                    made.create_snap(clone)
                    marks["sealed"] = time.monotonic() - started
            case BareSnap(pool, name, snap):
                image = self._image(pool, name)
                started = time.monotonic()
                image.create_snap(snap)
            case BareClone(pool, name, snap, clone):
                ioctx = self._ioctx(pool)
                started = time.monotonic()
                rbd.RBD().clone(ioctx, name, snap, ioctx, clone)
            case BareCreate(pool, name, size):
                ioctx = self._ioctx(pool)
                started = time.monotonic()
                rbd.RBD().create(ioctx, name, size)
        return Timing(started, time.monotonic() - started, marks, answer)

    def _command(self, job: Command) -> Any:
        text = json.dumps({"format": "json", **job.arguments})
        while True:
            number, out, status = self._rados.mgr_command(text, b"")
            if number == 0:
                answer = json.loads(out) if out else {}
                if not answer_is_final(answer):
                    row = self._polls.answered(answer["operation"])
                    return {**answer, **({"handle": row["handle"]} if "handle" in answer else {}), "state": "ready"}
                if job.until is None or answer[job.until[0]] == job.until[1]:
                    return answer
            elif number != -errno.EAGAIN:
                raise RuntimeError(f"{job.arguments}: {number} {status}")
            time.sleep(job.pause)

    def _ioctx(self, pool: str) -> rados.Ioctx:
        if pool not in self._contexts:
            self._contexts[pool] = self._rados.open_ioctx(pool)
        return self._contexts[pool]

    def _image(self, pool: str, name: str) -> rbd.Image:
        if (pool, name) not in self._images:
            # One open image a client: others would be watched for nothing.
            for key in list(self._images):
                self._images.pop(key).close()
            self._images[pool, name] = rbd.Image(self._ioctx(pool), name)
        return self._images[pool, name]
