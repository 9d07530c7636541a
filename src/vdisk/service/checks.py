"""Checks: run in the background, waited for and joined like operations, their findings kept in the pool they are of.

A check only reads, so it needs no intent: one that a failover cuts is simply run again. Its findings are durable (the
omap object ``vdisk.check``), so that a repair by id needs no new scan; each repair is an operation of the engine.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid as uuids
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..engine.engine import Engine
from ..engine.operation import Operation
from ..engine.patience import GiveWay, patient
from ..engine.ports import Cluster
from ..engine.workers import Workers
from ..lifecycle.check_look import Limits, Look, Verdict
from ..lifecycle.check_repair import Repair
from ..lifecycle.check_trash import judge
from ..model.errors import Cancelled, Internal, NotFound, NotReady, Pending, VdiskError
from ..model.findings import Subject, subject_from_dict
from ..model.objects import rfc3339
from ..model.observed import Location
from ..model.records import Store
from ..model.shape import Shape
from .scan import Progress, Scan, Stopped

_KEEP_SECONDS = 600.0
_REPAIR_SECONDS = 60.0
_SIDE_BY_SIDE = 32
_SUMMARY = "summary"
_FINDING = "finding."


@dataclass(frozen=True)
class Settings:
    """Options of checks, read anew each time. Times in seconds."""

    grace: Callable[[], float]
    """Age below which nothing is a finding."""
    settle: Callable[[], float]
    """Pause before what was found is looked at once more."""
    give_way: GiveWay
    limits: Callable[[], Limits] = Limits


@dataclass(frozen=True)
class Wish:
    """What a check is asked to do. ``findings`` are ids; with some, only those are looked at."""

    repair: bool = False
    findings: tuple[str, ...] = ()
    dry_run: bool = False


@dataclass
class Run:
    """A check under way, or over. Its fields change under the lock of :class:`Checks`."""

    id: str
    where: Location
    wish: Wish
    started_at: float
    progress: Progress = field(default_factory=Progress)
    done: threading.Event = field(default_factory=threading.Event)
    result: dict[str, Any] | None = None
    error: VdiskError | None = None
    finished_at: float | None = None
    awaited: bool = False
    """Somebody who asked for it was answered before it was over, and is to be given its result."""
    shape: Shape | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the form that operations have."""
        state = "running" if self.finished_at is None else "failed" if self.error is not None else "done"
        return {
            "id": self.id,
            "kind": "check",
            "target": str(self.where),
            "state": state,
            "step": self.progress.step if state == "running" else None,
            "progress": round(self.progress.fraction, 3) if state == "running" else 1.0,
            "waiting_for": [],
            "started_at": rfc3339(self.started_at),
            "error": self.error.to_dict()["error"] if self.error is not None else None,
        }


class Checks:
    """Checks of a cluster's pools. Any thread may call; a check runs on a thread of its own and on ``readers``."""

    def __init__(
        self,
        cluster: Cluster,
        engine: Engine,
        readers: Workers,
        settings: Settings,
        log: logging.Logger,
        clock: Callable[[], float] = time.time,
        on_found: Callable[[Location, Mapping[str, Any]], None] = lambda where, summary: None,
    ) -> None:
        self._cluster = cluster
        self._engine = engine
        self._readers = readers
        self._settings = settings
        self._log = log
        self._clock = clock
        self._on_found = on_found
        self._lock = threading.Lock()
        self._runs: dict[tuple[int, str], Run] = {}

    # -- asking --------------------------------------------------------------------------------------------------

    def check(self, where: Location, wish: Wish, wait: float) -> dict[str, Any]:
        """Check a location and wait for the result at most ``wait`` seconds; ``Pending`` when it takes longer.

        A repeat joins the check that is under way, or is given the result of one that ended since somebody waited in
        vain. With ``wait`` 0 the answer is at once that it goes on.
        """
        run = self.begin(where, wish)
        patient(run.done.wait, wait, self._settings.give_way)
        over = run.done.is_set()
        with self._lock:
            run.awaited = not over
        if not over:
            if wait <= 0:
                return {"pool": where.pool, "namespace": where.namespace, "state": "pending", "operation": run.id}
            raise Pending(
                f"still checking ({run.progress.step}), operation {run.id}; repeat the command to go on waiting",
                operation=run.id,
            )
        if run.error is not None:
            raise run.error
        assert run.result is not None
        return run.result

    def begin(self, where: Location, wish: Wish) -> Run:
        """Start a check, or join one that does the same."""
        key = (where.pool_id, where.namespace)
        with self._lock:
            run = self._runs.get(key)
            if run is not None and run.finished_at is None:
                if run.wish != wish:
                    raise NotReady(
                        f"another check of {where} is under way (operation {run.id}); try again when it is over"
                    )
                return run
            fresh = run is not None and self._clock() - (run.finished_at or 0.0) < _KEEP_SECONDS
            if run is not None and run.wish == wish and fresh and run.awaited:
                return run
            run = self._runs[key] = Run(str(uuids.uuid4()), where, wish, self._clock())
        threading.Thread(target=self._run, args=(run,), name="vdisk-check", daemon=True).start()
        return run

    def runs(self) -> list[Run]:
        """Return the checks under way and the last one of each location."""
        with self._lock:
            return list(self._runs.values())

    def cancel(self, run: Run) -> None:
        """Stop a check; what it has repaired stays."""
        run.progress.stop.set()

    def stop(self) -> None:
        """Stop every check."""
        for run in self.runs():
            run.progress.stop.set()

    def last(self, where: Location) -> dict[str, Any] | None:
        """Return the summary of a location's last check: ``finished_at`` (seconds), ``found`` (how many), ``shape``."""
        text = self._cluster.record(where, Store.CHECK, _SUMMARY)
        try:
            data = json.loads(text or "null")
        except ValueError:
            return None
        return data if isinstance(data, dict) else None

    # -- running -------------------------------------------------------------------------------------------------

    def _run(self, run: Run) -> None:
        try:
            run.result = self._result(run, self._chosen(run) if run.wish.findings else self._scanned(run))
        except Stopped:
            run.error = Cancelled(f"the check of {run.where} was stopped")
        except VdiskError as error:
            run.error = error
        except Exception:
            self._log.exception("check of %s", run.where)
            run.error = Internal(f"the check of {run.where} met an unexpected error; see the mgr log")
        with self._lock:
            run.finished_at = self._clock()
        run.done.set()

    def _scanned(self, run: Run) -> list[Verdict]:
        settings = self._settings
        scan = Scan(
            self._cluster, self._engine, self._readers, run.where, run.progress, settings.grace(), settings.settle(),
            settings.limits(), self._clock,
        )  # fmt: skip
        verdicts = scan.run()
        run.shape = scan.shaping.shape()
        return verdicts

    def _chosen(self, run: Run) -> list[Verdict]:
        """Look again at findings of the last check; one that is not so any more is left out."""
        verdicts = []
        for ident in run.wish.findings:
            text = self._cluster.record(run.where, Store.CHECK, _FINDING + ident)
            if text is None:
                raise NotFound(f"the last check of {run.where} has no finding {ident!r}; run 'vdisk check {run.where}'")
            try:
                data = json.loads(text)
                where = Location(run.where.pool_id, run.where.pool, run.where.namespace, str(data["journal"]))
                subject = subject_from_dict(data["subject"])
            except (ValueError, KeyError, TypeError):
                raise NotFound(f"finding {ident!r} was stored in a form that this version can't read") from None
            look = Look(
                self._cluster, where, self._clock(), self._settings.grace(), limits=self._settings.limits(),
                tasks=tuple(self._cluster.task_list()),
            )  # fmt: skip
            verdicts += [verdict for verdict in judge(look, subject) if verdict.finding.id == ident]
        return verdicts

    def _result(self, run: Run, verdicts: Sequence[Verdict]) -> dict[str, Any]:
        run.progress.enter("repair")
        outcomes: dict[str, dict[str, Any]] = {}
        if run.wish.repair:
            wanted = [v for v in verdicts if v.steps and (v.finding.automatic or v.finding.id in run.wish.findings)]
            outcomes = self._repair(run, wanted)
        elif run.wish.findings or run.wish.dry_run:
            outcomes = {v.finding.id: self._planned(v) for v in verdicts}
        shown = [{**v.finding.to_dict(), **outcomes.get(v.finding.id, {})} for v in verdicts]
        left = [item for item in shown if item.get("outcome") not in ("repaired", "gone")]
        now = self._clock()
        result = {
            "pool": run.where.pool,
            "namespace": run.where.namespace,
            "state": "done",
            "operation": run.id,
            "started_at": rfc3339(run.started_at),
            "finished_at": rfc3339(now),
            "checked": dict(sorted(run.progress.counts.items())),
            "found": len(shown),
            "repaired": sum(item.get("outcome") == "repaired" for item in shown),
            "left": len(left),
            "findings": shown,
        }
        if run.wish.findings:
            gone = set(run.wish.findings) - {item["id"] for item in left}
            if run.wish.repair and not run.wish.dry_run:
                self._forget(run.where, sorted(gone))
        else:
            self._store(run, [v for v in verdicts if v.finding.id in {item["id"] for item in left}], now)
        return result

    def _planned(self, verdict: Verdict) -> dict[str, Any]:
        return {"steps": [{"step": step.name, "description": step.describe()} for step in verdict.steps]}

    def _repair(self, run: Run, verdicts: Sequence[Verdict]) -> dict[str, dict[str, Any]]:
        """Repair findings through the engine, some side by side; returns what came of each."""
        if run.wish.dry_run:
            return {v.finding.id: self._planned(v) for v in verdicts}
        outcomes: dict[str, dict[str, Any]] = {}
        for at in range(0, len(verdicts), _SIDE_BY_SIDE):
            if run.progress.stop.is_set():
                raise Stopped
            batch = [(v, self._engine.submit(_request(v))) for v in verdicts[at : at + _SIDE_BY_SIDE]]
            for verdict, operation in batch:
                outcomes[verdict.finding.id] = self._outcome(operation)
        return outcomes

    def _outcome(self, operation: Operation) -> dict[str, Any]:
        self._engine.wait(operation, _REPAIR_SECONDS)
        if operation.error is not None and not operation.answered:
            return {"outcome": "failed", "operation": operation.id, "error": operation.error.to_dict()["error"]}
        if not operation.answered:
            return {"outcome": "pending", "operation": operation.id}
        return {"outcome": "repaired", "operation": operation.id} if operation.recorded else {"outcome": "gone"}

    # -- what is kept --------------------------------------------------------------------------------------------

    def _store(self, run: Run, verdicts: Sequence[Verdict], now: float) -> None:
        old = [key for key, _ in self._cluster.survey_records(run.where, Store.CHECK) if key.startswith(_FINDING)]
        fresh = {
            _FINDING + v.finding.id: json.dumps({**v.finding.to_dict(), "journal": v.finding.where.journal})
            for v in verdicts
        }
        self._cluster.fence()
        gone = [key for key in old if key not in fresh]
        for at in range(0, len(gone), _SIDE_BY_SIDE):
            self._cluster.erase_records(run.where, Store.CHECK, gone[at : at + _SIDE_BY_SIDE])
        items = list(fresh.items())
        for at in range(0, len(items), _SIDE_BY_SIDE):
            self._cluster.put_records(run.where, Store.CHECK, dict(items[at : at + _SIDE_BY_SIDE]))
        shape = (run.shape or Shape()).to_dict()
        summary = {"finished_at": now, "started_at": run.started_at, "found": len(verdicts), "shape": shape}
        self._cluster.put_records(run.where, Store.CHECK, {_SUMMARY: json.dumps(summary)})
        self._on_found(run.where, summary)

    def _forget(self, where: Location, idents: Sequence[str]) -> None:
        """Take findings that were repaired off what is kept."""
        summary = self.last(where)
        self._cluster.fence()
        self._cluster.erase_records(where, Store.CHECK, [_FINDING + ident for ident in idents])
        if summary is not None:
            summary["found"] = max(0, int(summary.get("found", 0)) - len(idents))
            self._cluster.put_records(where, Store.CHECK, {_SUMMARY: json.dumps(summary)})
            self._on_found(where, summary)


def _request(verdict: Verdict) -> Repair:
    found = verdict.finding
    return Repair(
        found.where,
        _label(found.subject, found.objects),
        found.id,
        found.subject.kind.value,
        found.subject.key,
        "\n".join(found.subject.names),
    )


def _label(subject: Subject, objects: Sequence[str]) -> str:
    """Name what a repair is about: the image where the subject is one, for its lock; else the subject's own key."""
    return _image_name(objects[0]) if subject.kind.value == "image" else subject.key


def _image_name(text: str) -> str:
    """Return the image's name of ``image pool/namespace/name@snap`` or ``image …, trashed snapshot id 3``."""
    return text.split(",")[0].partition("@")[0].rpartition("/")[2]


__all__ = ["Checks", "Limits", "Run", "Settings", "Wish"]
