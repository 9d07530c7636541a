"""Goes through a pool and namespace and judges all that is there: streamed, in parallel, and looked at twice.

What a scan remembers are uuids and ids, some dozens of bytes for each thing; everything else is read, judged and
forgotten. Each judgement reads what it needs anew, so what changes while the scan goes on can't mislead it.
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from ..engine.engine import Engine
from ..engine.ports import Cluster
from ..engine.unreadable import UnreadableIntent
from ..engine.workers import Workers
from ..lifecycle.check_image import judge_seen
from ..lifecycle.check_look import Limits, Look, Verdict, csi_uuid, finding, is_temp
from ..lifecycle.check_trash import judge
from ..model.errors import NotReady, VdiskError
from ..model.findings import Subject, SubjectKind, Trouble
from ..model.names import UUID_PATTERN, Kind
from ..model.observed import Location, Task
from ..model.records import Store
from .shaping import Shaping

T = TypeVar("T")
_PAGE = 1000
_CHUNK = 25
_SUBJECT = {kind: SubjectKind(kind.value) for kind in Kind}
#: What a scan goes through, in order, for its progress.
STEPS = ("list-objects", "check-journal", "check-images", "check-trash", "look-again", "repair")


class Stopped(Exception):
    """The module is being stopped, or an operator cancelled the check."""


@dataclass
class Progress:
    """Where a scan is. Read by any thread, written by the one that scans."""

    step: str = STEPS[0]
    counts: Counter[str] = field(default_factory=Counter)
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def fraction(self) -> float:
        """How much is done, by steps: how long each takes is not known beforehand."""
        return STEPS.index(self.step) / len(STEPS)

    def enter(self, step: str) -> None:
        """Begin a step."""
        if self.stop.is_set():
            raise Stopped
        self.step = step

    def count(self, what: str) -> None:
        """Count one thing that was looked at."""
        self.counts[what] += 1
        if self.stop.is_set():
            raise Stopped


class Scan:
    """One scan of one location. ``grace`` and ``settle`` in seconds: what is younger, or passes by, is no finding."""

    def __init__(
        self,
        cluster: Cluster,
        engine: Engine,
        readers: Workers,
        where: Location,
        progress: Progress,
        grace: float,
        settle: float,
        limits: Limits,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._cluster = cluster
        self._engine = engine
        self._readers = readers
        self._where = where
        self._progress = progress
        self._grace = grace
        self._settle = settle
        self._limits = limits
        self._clock = clock
        self._lock = threading.Lock()
        self._found: dict[str, Verdict] = {}
        self._tasks: tuple[Task, ...] | None = None
        self.shaping = Shaping(cluster, where)

    def run(self) -> list[Verdict]:
        """Scan and return what was found, sorted by class and objects."""
        self._progress.enter("list-objects")
        self._tasks = self._task_list()
        look = self._look()
        objects: set[tuple[Kind, str]] = set()
        instances = {self._where.journal}
        for item in self._cluster.survey_journal(self._where):
            if isinstance(item, str):
                instances.add(item)
            else:
                objects.add(item)
                self._progress.count("objects")
        look = replace(look, sole=len(instances) == 1)
        self._progress.enter("check-journal")
        led = self._judge_directories(look, instances)
        unled = (Subject(_SUBJECT[kind], uuid) for kind, uuid in objects - led)
        self._each(unled, partial(self._judge, look))
        self._progress.enter("check-images")
        known = objects | led
        self._each(self._images(), lambda pair: self._image(look, pair, known))
        self._progress.enter("check-trash")
        self._each(self._others(known), partial(self._judge, look))
        self._keep([_unreadable(look, intent) for intent in self._engine.unreadable() if self._here(intent.where)])
        return self._again(look)

    # -- parts ---------------------------------------------------------------------------------------------------

    def _look(self) -> Look:
        return Look(
            self._cluster,
            self._where,
            self._clock(),
            self._grace,
            self._busy(),
            limits=self._limits,
            tasks=self._tasks or (),
        )

    def _task_list(self) -> tuple[Task, ...] | None:
        """Return rbd_support's tasks; None when it does not answer: then nothing is said of trash and tasks."""
        try:
            return tuple(self._cluster.task_list())
        except NotReady:
            return None

    def _here(self, where: Location) -> bool:
        return (where.pool_id, where.namespace) == (self._where.pool_id, self._where.namespace)

    def _busy(self) -> frozenset[str]:
        """Return the uuids, names and image ids that operations under way, or stuck, are making, changing or removing.

        What they only read (the source of a copy) is not in their hands; its cut has the name of what is being made.
        Of operations that can't be read all that they name counts.
        """
        words: set[str] = set().union(*(intent.words for intent in self._engine.unreadable()))
        for operation in self._engine.unfinished():
            request = operation.request
            words |= {request.uuid, request.image, *request.goes, *request.also, getattr(request, "image_id", "")}
            if self._here(request.where):
                words.add(request.name)
        return frozenset(words - {""})

    def _judge_directories(self, look: Look, instances: Iterable[str]) -> set[tuple[Kind, str]]:
        """Judge all that directory keys lead to; returns (kind, uuid) of each."""
        led: set[tuple[Kind, str]] = set()
        for instance in sorted(instances):
            here = replace(look, where=replace(self._where, journal=instance))
            for kind in Kind:
                names: dict[str, str] = {}
                twice: dict[str, list[str]] = {}
                self._each(self._keys(here.where, kind, names, twice), partial(self._judge, here))
                again = [Subject(_SUBJECT[kind], uuid, (names[uuid], *more)) for uuid, more in twice.items()]
                for subject in again:
                    self._drop_of(subject)
                self._each(again, partial(self._judge, here))
                led |= {(kind, uuid) for uuid in names}
                if len(names) >= self._limits.keys:
                    self._keep([_large(here, kind, len(names))])
        return led

    def _keys(
        self, where: Location, kind: Kind, names: dict[str, str], twice: dict[str, list[str]]
    ) -> Iterator[Subject]:
        """Yield a subject a directory key; ``names`` and ``twice`` collect which names lead to which uuid."""
        after = ""
        while page := self._cluster.names(where, kind, after, _PAGE):
            for name, uuid in page:
                self._progress.count(f"{kind.value}s")
                if uuid in names:
                    twice.setdefault(uuid, []).append(name)
                else:
                    names[uuid] = name
                    yield Subject(_SUBJECT[kind], uuid, (name,))
            after = page[-1][0]

    def _images(self) -> Iterator[tuple[str, str]]:
        for pair in self._cluster.survey_images(self._where):
            self._progress.count("images")
            yield pair

    def _image(self, look: Look, pair: tuple[str, str], known: set[tuple[Kind, str]]) -> None:
        name, image_id = pair
        named = csi_uuid(name)
        if named is not None and named not in known and not is_temp(name):
            self._keep(judge(look, Subject(_SUBJECT[named[0]], named[1])))
        image = self._cluster.load_image(self._where, name, image_id)
        if image is not None:
            self.shaping.add(image)
            self._keep(judge_seen(look, image))

    def _others(self, known: set[tuple[Kind, str]]) -> Iterator[Subject]:
        """Yield what is in the trash, among tasks, RBD groups and records.

        An RBD group of a group snapshot that is ``known`` was judged with that, by its name: a repair that is cut after
        the journal object has only the name to go by.
        """
        if self._tasks is not None:
            for entry in self._cluster.survey_trash(self._where):
                self._progress.count("trash")
                yield Subject(SubjectKind.TRASH, entry.id)
            for task in self._tasks:
                if (task.pool, task.namespace) == (self._where.pool, self._where.namespace):
                    self._progress.count("tasks")
                    yield Subject(SubjectKind.TASK, task.id)
        for name in self._cluster.survey_groups(self._where):
            uuid = name.removeprefix(Kind.GROUP.image(""))
            if uuid != name and re.fullmatch(UUID_PATTERN, uuid):
                self._progress.count("groups")
                if (Kind.GROUP, uuid) not in known:
                    yield Subject(SubjectKind.GROUP, uuid)
        for key, _ in self._cluster.survey_records(self._where, Store.TRASH):
            self._progress.count("records")
            yield Subject(SubjectKind.RECORD, key)

    def _again(self, look: Look) -> list[Verdict]:
        """Look once more at what was found, after a while: only what is still so is a finding."""
        self._progress.enter("look-again")
        first, self._found = self._found, {}
        told = {SubjectKind.INTENT, SubjectKind.DIRECTORY}
        stay = {ident: found for ident, found in first.items() if found.finding.subject.kind in told}
        if len(stay) < len(first):
            if self._progress.stop.wait(self._settle):
                raise Stopped
            self._tasks = self._task_list()
            fresh = replace(self._look(), sole=look.sole)
            # One subject may have several findings; the place tells which instance of the journal it was found in.
            subjects = {(v.finding.where, v.finding.subject) for v in first.values() if v.finding.id not in stay}
            self._each(subjects, lambda item: self._judge(replace(fresh, where=item[0]), item[1]))
        found = {ident: verdict for ident, verdict in self._found.items() if ident in first} | stay
        order = {trouble: number for number, trouble in enumerate(Trouble)}
        return sorted(found.values(), key=lambda v: (order[v.finding.trouble], v.finding.objects))

    def _judge(self, look: Look, subject: Subject) -> None:
        self._keep(judge(look, subject))

    def _keep(self, verdicts: Iterable[Verdict]) -> None:
        with self._lock:
            self._found.update({verdict.finding.id: verdict for verdict in verdicts})

    def _drop_of(self, subject: Subject) -> None:
        """Forget what was found of a uuid by one of its names only."""
        with self._lock:
            self._found = {
                ident: found
                for ident, found in self._found.items()
                if (found.finding.subject.kind, found.finding.subject.key) != (subject.kind, subject.key)
            }

    def _each(self, items: Iterable[T], judge_one: Callable[[T], Any]) -> None:
        """Judge items side by side on reader threads, a bounded number ahead; raises the first error."""
        errors: list[BaseException] = []
        slots = threading.Semaphore(64)
        done = threading.Semaphore(0)
        jobs = 0

        def work(chunk: list[T]) -> None:
            try:
                for item in chunk:
                    if not errors:
                        judge_one(item)
            except BaseException as error:
                errors.append(error)
                if not isinstance(error, (VdiskError, Stopped)):
                    raise
            finally:
                slots.release()
                done.release()

        source = iter(items)
        while not errors and (chunk := list(islice(source, _CHUNK))):
            slots.acquire()
            jobs += 1
            self._readers.submit(self._where.pool_id, partial(work, chunk))
        for _ in range(jobs):
            while not done.acquire(timeout=1.0):
                if self._progress.stop.is_set():  # stopped readers drop what is queued
                    raise Stopped
        if errors:
            raise errors[0]


def _unreadable(look: Look, intent: UnreadableIntent) -> Verdict:
    subject = Subject(SubjectKind.INTENT, intent.id)
    return Verdict(
        finding(
            look, Trouble.INTENT_UNREADABLE, subject, [f"vdisk.intents:{intent.id}"],
            f"an operation that another version began ({intent.kind or '-'} {intent.target}): {intent.reason}", None,
            "nothing is done: run the version that began it, or a newer one", reason=intent.reason,
        )
    )  # fmt: skip


def _large(look: Look, kind: Kind, keys: int) -> Verdict:
    oid = kind.directory(look.where.journal)
    return Verdict(
        finding(
            look, Trouble.LARGE_DIRECTORY, Subject(SubjectKind.DIRECTORY, oid), [oid],
            f"the directory has {keys} keys; from 200000 on Ceph warns of a large omap object", None,
            "nothing is done: put further volumes into other pools or namespaces", keys=keys,
        )
    )  # fmt: skip
