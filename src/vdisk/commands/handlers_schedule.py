"""``vdisk schedule``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..model.errors import Denied, NotFound, NotReady
from ..model.handles import Handle
from ..model.names import Kind
from ..model.observed import Location
from ..model.specs import Ref, parse_pool_spec
from ..model.timing import (
    Retention,
    format_interval,
    format_start_time,
    parse_interval,
    parse_retention,
    parse_start_time,
)
from ..service import Found
from .base import Arguments, BaseHandlers
from .render import Answer


@dataclass(frozen=True)
class _Scope:
    """What a schedule is for: all of a location, or the volume of a uuid, which ``found`` is unless it is gone."""

    where: Location
    uuid: str | None = None
    found: Found | None = None


class ScheduleHandlers(BaseHandlers):
    """Handlers of snapshot schedules."""

    def schedule_add(self, args: Arguments) -> Answer:
        """``vdisk schedule add``."""
        minutes, start = parse_interval(args["interval"]), _start(args)
        keep = Retention() if args["keep"] is None else parse_retention(args["keep"])
        scope = self._scope(args["pool_spec"], gone=False)
        request = self._services.schedules.add(scope.where, scope.found, minutes, start, keep)
        if args["dry_run"]:
            return self._dry_run(request)
        operation, settled = self._service.run(request, self._wait(args))
        self._services.schedules.changed(operation)
        shown = self._services.schedules.shown(request)
        return shown if settled else {**shown, "state": "pending", "operation": operation.id}

    def schedule_rm(self, args: Arguments) -> Answer:
        """``vdisk schedule rm``: all of a target's schedules, or those of an interval and start time."""
        minutes = None if args["interval"] is None else parse_interval(args["interval"])
        start = _start(args)
        scope = self._scope(args["pool_spec"])
        requests = self._services.schedules.remove(scope.where, scope.uuid, minutes, start)
        rows = [
            {
                "target": str(request.where) if scope.uuid is None else f"{request.where}/{request.name}",
                "interval": format_interval(request.minutes),
                "start_time": None if request.start is None else format_start_time(request.start),
            }
            for request in requests
        ]
        if args["dry_run"]:
            steps = [step for request in requests for step in self._service.plan(request)]
            return {"dry_run": True, "kind": "schedule rm", "removed": rows, "steps": steps}
        operations = self._service.run_all(requests, self._wait(args))
        for operation in operations:
            self._services.schedules.changed(operation)
        return {"removed": [{**row, "operation": op.id} for row, op in zip(rows, operations)]}

    def schedule_ls(self, args: Arguments) -> Answer:
        """``vdisk schedule ls``."""
        if args["pool_spec"] is None:
            return [row for where in self._places() for row in self._services.schedules.listed(where)]
        scope = self._scope(args["pool_spec"])
        return self._services.schedules.listed(scope.where, scope.uuid)

    def schedule_status(self, args: Arguments) -> Answer:
        """``vdisk schedule status``."""
        if args["pool_spec"] is None:
            return [row for where in self._places() for row in self._services.schedules.status(where)]
        scope = self._scope(args["pool_spec"])
        return self._services.schedules.status(scope.where, scope.uuid)

    def _places(self) -> list[Location]:
        """Return where there are schedules that the caller may see; what hangs elsewhere is nobody's matter here."""
        known, unread = self._services.schedules.places()
        missing = next((where for where in unread if self._visible(where)), None)
        if missing is not None:
            raise NotReady(f"the schedules of {missing} were not read yet; try again, or name a pool")
        return [where for where in known if self._visible(where)]

    def _scope(self, text: str, gone: bool = True) -> _Scope:
        """Resolve a pool, a namespace or a volume; with ``gone`` also one that only its schedules remember."""
        ref = self._volume_or_none(text)
        if ref is None:
            return _Scope(self._access.locate(parse_pool_spec(text)))
        try:
            found = self._access.find(Kind.VOLUME, ref)
        except (NotFound, Denied):
            former = self._former(ref) if gone else None
            if former is None:
                raise
            return former
        return _Scope(found.where, found.uuid, found)

    def _former(self, ref: Ref) -> _Scope | None:
        schedules = self._services.schedules
        if isinstance(ref, Handle):
            try:
                where = self._access.holding(ref, lambda at: schedules.concerns(at, ref.uuid))
            except (NotFound, Denied):
                return None
            return _Scope(where, ref.uuid)
        where = self._access.locate(ref.where)
        uuid = schedules.former(where, ref.name)
        return None if uuid is None else _Scope(where, uuid)


def _start(args: Arguments) -> int | None:
    value: Any = args["start_time"]
    return None if value is None else parse_start_time(value)
