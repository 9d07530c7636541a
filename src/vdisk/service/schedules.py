"""Snapshot schedules: asking for them, removing them, listing them, and how they do."""

from __future__ import annotations

import uuid as uuids
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..engine.operation import Operation
from ..engine.ports import Cluster
from ..engine.scheduler import Roster, Scheduler, read
from ..lifecycle.schedule_change import AddSchedule, RemoveSchedule
from ..model.names import Kind, parse_image_name
from ..model.objects import rfc3339
from ..model.observed import Entry, Location
from ..model.records import Store
from ..model.schedules import EVERY, SCHEDULE, Run, Schedule, made_from_text
from ..model.timing import Retention, format_interval, format_start_time
from .core import Found, Service

#: Failed volumes that a status names; the record of the run knows more.
_SHOWN_FAILURES = 20
#: Seconds that a list of all places waits for those that were not read yet since the start of the module.
_PLACES_SECONDS = 2.0


class Schedules:
    """The schedules of a cluster's pools. Any thread may call; reads have the deadline that all reads have."""

    def __init__(self, cluster: Cluster, scheduler: Scheduler, volumes: Service) -> None:
        self._cluster = cluster
        self._scheduler = scheduler
        self._volumes = volumes

    # -- changing ------------------------------------------------------------------------------------------------

    def add(
        self, where: Location, volume: Found | None, minutes: int, start: int | None, keep: Retention
    ) -> AddSchedule:
        """Request snapshots of a volume (or of all of a location) every ``minutes``, from a minute of a day on.

        Of a schedule that is there already only the retention changes. Have :meth:`changed` know of the operation.
        """
        uuid, name = (EVERY, "*") if volume is None else (volume.uuid, volume.name)
        return AddSchedule(
            where, name, uuid, minutes, start, uuids.uuid4().hex[:12], str(keep), self._scheduler.clock.now()
        )

    def remove(self, where: Location, uuid: str | None, minutes: int | None, start: int | None) -> list[RemoveSchedule]:
        """Request that schedules of a volume's uuid (or those of all of a location) are no more.

        ``minutes`` and ``start`` choose among them; None means any. Snapshots stay.
        """
        target = EVERY if uuid is None else uuid
        return [
            RemoveSchedule(where, found.name or "*", target, found.minutes, found.start, found.id)
            for found in self._read(where).schedules
            if found.volume == target and minutes in (None, found.minutes) and start in (None, found.start)
        ]

    def changed(self, operation: Operation) -> None:
        """Let the scheduler know of a change that was asked for."""
        self._scheduler.follow(operation)

    # -- looking -------------------------------------------------------------------------------------------------

    def places(self) -> tuple[list[Location], list[Location]]:
        """Return the locations that have schedules, and those of which that is not known yet."""
        return self._scheduler.places(_PLACES_SECONDS)

    def former(self, where: Location, name: str) -> str | None:
        """Return the uuid of the volume of a request or image name that a schedule was made for and that is gone."""
        named = parse_image_name(name)
        for found in self._read(where).schedules:
            if name == found.name or (named is not None and named[1] == found.volume):
                return found.volume
        return None

    def concerns(self, where: Location, uuid: str) -> bool:
        """Tell whether a location has a schedule for the volume of a uuid."""
        return any(found.volume == uuid for found in self._read(where).schedules)

    def listed(self, where: Location, uuid: str | None = None) -> list[dict[str, Any]]:
        """Return the schedules of a location, or those that snapshot one volume, in the order of names."""

        def look() -> list[dict[str, Any]]:
            found = read(self._cluster, where)
            names = self._names(where, found, uuid)
            rows = [self._shown(where, schedule, names) for schedule in _chosen(found, uuid)]
            return [*rows, *(self._lost(where, key) for key in found.unreadable if _lists(key, uuid))]

        return sorted(self._volumes.read(where.pool_id, look), key=_order)

    def status(self, where: Location, uuid: str | None = None) -> list[dict[str, Any]]:
        """Return what :meth:`listed` does and how each schedule does; of one volume also what it holds of that."""
        now = self._scheduler.clock.now()

        def look() -> list[dict[str, Any]]:
            found = read(self._cluster, where)
            found = replace(found, runs={**found.runs, **self._scheduler.unrecorded(where)})
            names = self._names(where, found, uuid)
            rows = [
                {
                    **self._shown(where, schedule, names),
                    **self._progress(schedule, found, now),
                    **self._kept(where, schedule, uuid),
                }
                for schedule in _chosen(found, uuid)
            ]
            lost = {key: why for key, why in found.unreadable.items() if _lists(key, uuid)}
            return [*rows, *({**self._lost(where, key), **_unread(key, why)} for key, why in lost.items())]

        return sorted(self._volumes.read(where.pool_id, look), key=_order)

    # -- inner ---------------------------------------------------------------------------------------------------

    def _read(self, where: Location) -> Roster:
        return self._volumes.read(where.pool_id, lambda: read(self._cluster, where))

    def _names(self, where: Location, found: Roster, uuid: str | None) -> Mapping[str, Entry | None]:
        """Return the journal entries of the volumes that schedules are for: a volume may have another name by now."""
        uuids_ = sorted({schedule.volume for schedule in _chosen(found, uuid) if not schedule.every})
        return dict(zip(uuids_, self._cluster.entries(where, Kind.VOLUME, uuids_)))

    def _shown(self, where: Location, schedule: Schedule, names: Mapping[str, Entry | None]) -> dict[str, Any]:
        entry = names.get(schedule.volume)
        name = None if schedule.every else (entry.name if entry is not None else None) or schedule.name
        return {
            "id": schedule.id,
            "target": str(where) if name is None else f"{where}/{name}",
            "pool": where.pool,
            "namespace": where.namespace,
            "volume": name,
            "handle": None if schedule.every else self._volumes.handle(where, schedule.volume),
            "exists": schedule.every or entry is not None,
            "interval": format_interval(schedule.minutes),
            "start_time": None if schedule.start is None else format_start_time(schedule.start),
            "keep": str(schedule.keep) or None,
            "created_at": rfc3339(schedule.created_at),
        }

    def shown(self, request: AddSchedule) -> dict[str, Any]:
        """Return the schedule that a request asks for, as it is there now or will be."""

        def look() -> dict[str, Any]:
            found = next((s for s in read(self._cluster, request.where).schedules if s.key == request.key), None)
            schedule = found or request.schedule()
            uuids_ = [] if schedule.every else [schedule.volume]
            entries = self._cluster.entries(request.where, Kind.VOLUME, uuids_)
            return self._shown(request.where, schedule, dict(zip(uuids_, entries)))

        return self._volumes.read(request.where.pool_id, look)

    def _lost(self, where: Location, key: str) -> dict[str, Any]:
        """Return the row of a record that this version can't read: what its key tells."""
        parts = key.split(".")
        volume = parts[1] if key.startswith(SCHEDULE) and len(parts) == 4 and parts[1] != EVERY else None
        return {
            "id": None,
            "target": str(where) if volume is None else f"{where}/{Kind.VOLUME.image(volume)}",
            "pool": where.pool,
            "namespace": where.namespace,
            "volume": None,
            "handle": None if volume is None else self._volumes.handle(where, volume),
            "exists": None,
            "interval": None,
            "start_time": None,
            "keep": None,
            "created_at": None,
            "unreadable": key,
        }

    def _progress(self, schedule: Schedule, found: Roster, now: float) -> dict[str, Any]:
        run = found.runs.get(schedule.id) or Run(0.0)
        broken = found.unreadable.get(schedule.run_key)
        running = self._scheduler.running(schedule.id)
        state = "unreadable" if broken else "running" if running else "failing" if run.failing else "waiting"
        ran = run.started_at > 0 or run.finished_at > 0
        first = run.failures[0] if run.failures else None
        return {
            "state": state,
            "next_run": None if broken else rfc3339(schedule.upcoming(now)),
            "next_try": rfc3339(run.next_try) if run.failing and run.next_try else None,
            "last_run": rfc3339(run.due) if ran else None,
            "last_finished_at": rfc3339(run.finished_at) if run.finished_at else None,
            "last_good": rfc3339(run.good) if run.good else None,
            "taken": run.taken,
            "failed": run.failed,
            "error": broken or (first.message if first is not None else None),
            "failures": [
                {
                    "volume": failure.name,
                    "uuid": failure.volume,
                    "error": failure.message,
                }
                for failure in run.failures[:_SHOWN_FAILURES]
            ],
            "made": run.total,
        }

    def _kept(self, where: Location, schedule: Schedule, uuid: str | None) -> dict[str, Any]:
        """Return how many snapshots a schedule has made and not removed, in all or of one volume, and the latest."""
        if uuid is None and schedule.every:
            texts = self._made(where, schedule)
        else:
            key = schedule.made_key(uuid or schedule.volume)
            text = self._cluster.record(where, Store.SCHEDULES, key)
            texts = [] if text is None else [text]
        kept, latest = 0, 0.0
        for text in texts:
            try:
                snaps = made_from_text(text).snaps
            except ValueError:
                continue  # told as a failure of the run, which does not touch that volume
            kept += len(snaps)
            latest = max(latest, *snaps)
        return {"kept": kept, "latest": rfc3339(latest) if kept else None}

    def _made(self, where: Location, schedule: Schedule) -> list[str]:
        texts = []
        for key, text in self._cluster.survey_records(where, Store.SCHEDULES, schedule.made_prefix):
            if not key.startswith(schedule.made_prefix):
                break
            texts.append(text)
        return texts


def _chosen(found: Roster, uuid: str | None) -> Sequence[Schedule]:
    return [schedule for schedule in found.schedules if uuid is None or schedule.every or schedule.volume == uuid]


def _lists(key: str, uuid: str | None) -> bool:
    """Tell whether an unreadable record is shown as a row of its own: a schedule's; that of a run is told with it."""
    return key.startswith(SCHEDULE) and (uuid is None or key.startswith((f"{SCHEDULE}{EVERY}.", f"{SCHEDULE}{uuid}.")))


def _unread(key: str, why: str) -> dict[str, Any]:
    return {
        "state": "unreadable",
        "next_run": None,
        "next_try": None,
        "last_run": None,
        "last_finished_at": None,
        "last_good": None,
        "taken": 0,
        "failed": 0,
        "error": f"{key} in {Store.SCHEDULES.value} can't be read by this version and is kept as it is: {why}",
        "failures": [],
        "made": 0,
        "kept": 0,
        "latest": None,
    }


def _order(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return str(row["volume"] or ""), str(row["interval"] or ""), str(row["start_time"] or "")
