"""Any mixture of operations, repeats, cancels, crashes and finished tasks ends whole, and what was answered is true."""

import contextlib
import threading

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from fake.cluster import Crash, CrashAt, FakeCluster
from fake.drive import GIB, new_uuid
from fake.engines import Mgr
from fake.inventory import faults
from vdisk.lifecycle.removal import RemoveSnapshot, RemoveVolume
from vdisk.lifecycle.snap_create import CreateSnapshot
from vdisk.lifecycle.volume_clone import CloneVolume
from vdisk.lifecycle.volume_create import CreateVolume
from vdisk.lifecycle.volume_resize import ResizeVolume
from vdisk.lifecycle.volume_restore import RestoreVolume
from vdisk.model.errors import Disconnected, InvalidArgument, NoSpace, NotFound, NotReady, VdiskError
from vdisk.model.layout import Layout
from vdisk.model.names import Kind

VOLUMES = st.sampled_from(["a", "b", "c"])
SNAPSHOTS = st.sampled_from(["s", "t"])
SPECS = st.sampled_from(["rbd", "rbd", "rbd/ns1"])
ERRORS = st.sampled_from([NotReady("later"), Disconnected("blocklisted"), NoSpace("full")])
HURRY = st.sampled_from([False, False, True])
EFFECTS = st.sampled_from(
    ["clone_image", "create_image", "cut", "drop", "seal", "write_entry", "remove_trashed", "put_intent"]
)


class Lives(RuleBasedStateMachine):
    """A cluster, and the mgrs that come and go on it."""

    @initialize()
    def begin(self):
        self.fake = FakeCluster()
        self.wanted = []
        self.operations = []
        self.start()
        self.create("a", GIB, "rbd")

    def start(self):
        self.mgr = Mgr(self.fake, workers=8)
        self.mgr.engine.recover()

    def submit(self, request):
        self.wanted.append(request)
        with contextlib.suppress(NotReady):
            self.operations.append(self.mgr.engine.submit(request))

    def calm(self):
        """Wait until nothing moves any more; a mgr that died is followed by another."""
        engine = self.mgr.engine

        def still():
            live = engine._book.live.values()
            return self.mgr.idle() and all(op.state.value == "waiting" for op in live)

        self.mgr.until(lambda: self.mgr.session.dead or still(), "quiet")
        if self.mgr.session.dead:
            self.fake.hook = None
            self.mgr.stop()
            self.start()

    def found(self, kind, name, hurry, spec="rbd"):
        if not hurry:
            self.calm()
        where = self.fake.where(spec)
        return where, self.fake.space(where).directories[kind].get(name)

    @rule(name=VOLUMES, size=st.sampled_from([GIB, 2 * GIB]), spec=SPECS)
    def create(self, name, size, spec):
        self.submit(CreateVolume(self.fake.where(spec), name, new_uuid(), size, Layout()))

    @rule(source=VOLUMES, name=SNAPSHOTS, hurry=HURRY)
    def snap(self, source, name, hurry):
        where, uuid = self.found(Kind.VOLUME, source, hurry)
        if uuid is not None:
            self.submit(CreateSnapshot(where, name, new_uuid(), Kind.VOLUME.image(uuid), Layout(features=61)))

    @rule(source=SNAPSHOTS, name=VOLUMES, spec=SPECS, hurry=HURRY)
    def restore(self, source, name, spec, hurry):
        where, uuid = self.found(Kind.SNAPSHOT, source, hurry)
        if uuid is not None:
            self.submit(RestoreVolume(self.fake.where(spec), name, new_uuid(), where, uuid, None, Layout()))

    @rule(source=VOLUMES, name=VOLUMES, spec=SPECS, hurry=HURRY)
    def clone(self, source, name, spec, hurry):
        where, uuid = self.found(Kind.VOLUME, source, hurry)
        if uuid is not None and (source, "rbd") != (name, spec):
            image = Kind.VOLUME.image(uuid)
            self.submit(CloneVolume(self.fake.where(spec), name, new_uuid(), where, image, None, Layout()))

    @rule(name=VOLUMES, size=st.sampled_from([2 * GIB, 3 * GIB]), hurry=HURRY)
    def resize(self, name, size, hurry):
        where, uuid = self.found(Kind.VOLUME, name, hurry)
        if uuid is not None:
            self.submit(ResizeVolume(where, name, uuid, size))

    @rule(name=VOLUMES, spec=SPECS, hurry=HURRY)
    def remove_volume(self, name, spec, hurry):
        where, uuid = self.found(Kind.VOLUME, name, hurry, spec)
        if uuid is not None:
            self.submit(RemoveVolume(where, name, uuid))

    @rule(name=SNAPSHOTS, hurry=HURRY)
    def remove_snapshot(self, name, hurry):
        where, uuid = self.found(Kind.SNAPSHOT, name, hurry)
        if uuid is not None:
            self.submit(RemoveSnapshot(where, name, uuid))

    @rule(number=st.integers(0, 30))
    def repeat(self, number):
        request = self.wanted[number % len(self.wanted)]
        if type(request).creates:
            request = type(request)(**{**request.__dict__, "uuid": new_uuid()})
        self.submit(request)

    @rule(number=st.integers(0, 30))
    def cancel(self, number):
        live = list(self.mgr.engine._book.live.values())
        if live:
            # What has answered, or only goes forward, is not cancelled; what had nothing to do is forgotten at its end.
            with contextlib.suppress(InvalidArgument, NotFound):
                self.mgr.engine.cancel(live[number % len(live)].id)

    @rule(effect=EFFECTS, error=ERRORS)
    def trouble(self, effect, error):
        if effect == "drop" and isinstance(error, NoSpace):
            return  # removing a snapshot takes no space
        self.fake.fail_on(effect, error)

    @rule()
    def tasks(self):
        self.fake.run_tasks()

    @rule(moment=st.integers(0, 25))
    def crash_soon(self, moment):
        self.calm()
        self.fake.hook = CrashAt(moment, self.mgr.session.kill)

    @rule()
    def crash_now(self):
        self.mgr.kill()
        self.fake.hook = None
        self.start()

    def teardown(self):
        if not hasattr(self, "mgr"):
            return
        try:
            self.fake.hook = None
            self.calm()
            self.fake._failures.clear()
            self.mgr.until(lambda: len(self.mgr.engine._recovery.loaded) == 2, "recovery")
            self.mgr.until(self._settled, "the end of everything")
            wrong = [fault for fault in faults(self.fake) if "trash" not in fault and "intent" not in fault]
            assert wrong == []
            assert lies(self.fake, self.operations) == []
            self._remove_everything()
            self.mgr.until(self._settled, "the end of the removals")
            self.fake.run_tasks()
            assert faults(self.fake) == []
            assert all(not space.headers for _, space in self.fake.spaces())
        finally:
            self.mgr.stop()

    def _settled(self):
        self.fake.run_tasks()
        live = list(self.mgr.engine._book.live.values())
        # What waits for clones has come to rest; what failed for now and is tried again has not.
        busy = [op for op in live if op.state.value != "waiting" or not op.answered or op.error is not None]
        return not busy and self.mgr.idle()

    def _remove_everything(self):
        """Remove volumes and snapshots, so that removals that wait for clones end too."""
        for where, space in self.fake.spaces():
            for kind, cls in ((Kind.VOLUME, RemoveVolume), (Kind.SNAPSHOT, RemoveSnapshot)):
                for name, uuid in list(space.directories[kind].items()):
                    operation = self.mgr.engine.submit(cls(where, name, uuid))
                    self.mgr.until(lambda op=operation: op.answered or op.state.final, "a removal")
                    assert not isinstance(operation.error, VdiskError), operation.error

        def over():
            self.fake.run_tasks()
            return not self.mgr.engine._book.live

        self.mgr.until(over, "the end of waiting removals")


def names_of(op):
    """Return what an operation's answer is about."""
    return op.request.where, op.request.target, op.request.name


def lies(fake, operations):
    """Return which answers are not true in the end; those of mgrs that died since count too.

    ``operations`` are in the order in which they were asked for: the last word about a name counts.
    """
    found = []
    for where, kind, name in dict.fromkeys(map(names_of, operations)):
        space = fake.space(where)
        uuid = space.directories[kind].get(name)
        about = [op for op in operations if names_of(op) == (where, kind, name)]
        gone = set()
        for op in reversed(about):
            if op.request.removes:
                if not op.answered:
                    break  # after a crash it may have gone on, or not
                gone.add(op.request.uuid)
            elif op.request.creates and op.answered:
                if op.request.uuid != uuid and op.request.uuid not in gone:
                    found.append(f"{op.target}: {op.request.uuid} was answered, and it leads to {uuid}")
                break
        if uuid in gone:
            found.append(f"{op.target}: the removal of {uuid} was answered, and it still leads there")
        for op in about:
            if isinstance(op.request, ResizeVolume) and op.answered and op.request.uuid == uuid:
                size = space.headers[space.ids[op.request.image]].size
                if size < op.request.size:
                    found.append(f"{op.target}: {op.request.size} was answered, and it has {size}")
    return found


def test_any_mixture_of_operations_and_crashes_ends_whole(short_pauses, monkeypatch):
    unexpected = []

    def hook(failure):
        if failure.exc_type is not Crash:
            unexpected.append(failure)

    monkeypatch.setattr(threading, "excepthook", hook)
    run_state_machine_as_test(
        Lives,
        settings=settings(
            max_examples=120,
            stateful_step_count=30,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],  # threads make a failure too fickle to be made smaller
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert unexpected == []
