"""Add, change and remove a snapshot schedule: a record in the pool and namespace that it is for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..model.errors import NotFound, Unsupported
from ..model.names import Kind
from ..model.records import Store
from ..model.schedules import EVERY, Schedule, schedule_from_text, schedule_key
from ..model.timing import Retention, parse_retention
from .base import Lock, Plan, Request, View
from .steps import Answer, EraseRecord, EraseRecords, PutRecord, Step


@dataclass(frozen=True)
class ScheduleChange(Request):
    """What changes of a schedule share. ``uuid`` is the volume's, or :data:`EVERY`; ``name`` the volume's, or ``*``.

    ``minutes`` is the interval, ``start`` the minute of the day, ``schedule_id`` the schedule's id: of an existing one
    it is settled by the plan.
    """

    target: ClassVar[Kind] = Kind.VOLUME

    minutes: int
    start: int | None
    schedule_id: str

    @property
    def key(self) -> str:
        """Key of the schedule's record."""
        return schedule_key(self.uuid, self.minutes, self.start)

    def locks(self) -> Sequence[Lock]:
        """The schedule."""
        return [Lock(f"{self.where.pool_id}/{self.where.namespace}/{self.key}")]

    def _existing(self, view: View) -> Schedule | None:
        text = view.record(self.where, Store.SCHEDULES, self.key)
        try:
            return None if text is None else schedule_from_text(text)
        except ValueError as error:
            raise Unsupported(
                f"{self.key} in {Store.SCHEDULES.value} of {self.where} can't be read by this version ({error}); "
                "it is kept as it is"
            ) from error


@dataclass(frozen=True)
class AddSchedule(ScheduleChange):
    """There is such a schedule, with just this retention (``keep``, empty for everything)."""

    kind: ClassVar[str] = "schedule add"

    keep: str
    created_at: float

    def same(self, other: Request) -> bool:
        """Same schedule and retention."""
        return isinstance(other, AddSchedule) and (self.where, self.key, self.keep) == (
            other.where,
            other.key,
            other.keep,
        )

    def plan(self, view: View) -> Plan:
        """Write the record unless it says the same; one that is there keeps its id, and so what it has made."""
        found = self._existing(view)
        if self.uuid != EVERY and view.entry(self.where, Kind.VOLUME, self.uuid) is None:
            raise NotFound(f"volume {self.name!r} does not exist in {self.where}")
        wish = self.schedule(found)
        if found == wish:
            return Plan(self, (Answer(self.where),))
        return Plan(self, (PutRecord(self.where, Store.SCHEDULES, self.key, wish.to_text()), Answer(self.where)))

    def schedule(self, found: Schedule | None = None) -> Schedule:
        """Return the schedule that is wanted, in place of one that is there."""
        return Schedule(
            found.id if found is not None else self.schedule_id,
            self.uuid,
            "" if self.uuid == EVERY else self.name,
            self.minutes,
            self.start,
            parse_retention(self.keep) if self.keep else Retention(),
            self.where.journal,
            found.created_at if found is not None else self.created_at,
        )


@dataclass(frozen=True)
class RemoveSchedule(ScheduleChange):
    """There is no such schedule; the snapshots that it made stay, and nothing prunes them any more."""

    kind: ClassVar[str] = "schedule rm"

    def same(self, other: Request) -> bool:
        """Same schedule."""
        return isinstance(other, RemoveSchedule) and (self.where, self.key, self.schedule_id) == (
            other.where,
            other.key,
            other.schedule_id,
        )

    def plan(self, view: View) -> Plan:
        """Erase the schedule and its last run; answer; forget what it made."""
        found = self._existing(view)
        mine = Schedule(self.schedule_id, self.uuid, "", self.minutes, self.start, Retention(), "", 0.0)
        steps: list[Step] = []
        if found is not None and found.id == mine.id:
            steps.append(EraseRecord(self.where, Store.SCHEDULES, self.key))
        return Plan(
            self,
            (
                *steps,
                Answer(self.where),
                EraseRecord(self.where, Store.SCHEDULES, mine.run_key),
                EraseRecords(self.where, Store.SCHEDULES, mine.made_prefix),
            ),
        )
