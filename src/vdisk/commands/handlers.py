"""What each command does: a few lines that parse, authorise and call the service."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..engine.operation import Operation
from ..engine.unreadable import UnreadableIntent
from ..lifecycle.base import Request
from ..lifecycle.volume_revert import RevertVolume
from ..model.errors import Denied, InvalidArgument, NotFound
from ..model.layout import DEFAULT_ORDER, Layout, parse_layout
from ..model.names import Kind, check_request_name
from ..model.objects import Snapshot, Volume, rfc3339
from ..model.observed import Location
from ..model.specs import (
    ImageSpec,
    NameRef,
    PoolSpec,
    Ref,
    parse_image_spec,
    parse_pool_spec,
    parse_size,
    parse_snapshot_ref,
    parse_volume_ref,
)
from ..service import Found
from .base import Arguments, page
from .handlers_adopt import AdoptHandlers
from .handlers_check import CheckHandlers
from .handlers_group import GroupHandlers
from .handlers_schedule import ScheduleHandlers
from .handlers_trash import TrashHandlers
from .handlers_tree import TreeHandlers
from .render import Answer

#: Operations that one ``op ls --ids`` may name.
MAX_IDS = 1000


class Handlers(CheckHandlers, TrashHandlers, AdoptHandlers, TreeHandlers, ScheduleHandlers, GroupHandlers):
    """One method a command, named in the table."""

    # -- volumes -------------------------------------------------------------------------------------------------

    def volume_create(self, args: Arguments) -> Answer:
        """``vdisk volume create``."""
        spec = parse_pool_spec(args["pool_spec"])
        name = check_request_name(args["name"])
        size = parse_size(args["size"])
        layout = _layout(args)
        self._access.check(spec)
        self._check_data_pool(layout)
        where = self._service.locate(spec)
        return self._create(args, self._service.create_volume(where, name, size, layout))

    def volume_restore(self, args: Arguments) -> Answer:
        """``vdisk volume restore``."""
        return self._derive(args, Kind.SNAPSHOT, parse_snapshot_ref(args["snapshot"]), self._service.restore_volume)

    def volume_clone(self, args: Arguments) -> Answer:
        """``vdisk volume clone``."""
        return self._derive(args, Kind.VOLUME, parse_volume_ref(args["volume"]), self._service.clone_volume)

    def volume_ls(self, args: Arguments) -> Answer:
        """``vdisk volume ls``."""
        spec = parse_pool_spec(args["pool_spec"])
        limit, marker = page(args)
        where = self._access.locate(spec)
        return [self._shown(volume) for volume in self._service.volumes(where, limit, marker)]

    def volume_info(self, args: Arguments) -> Answer:
        """``vdisk volume info``."""
        ref = parse_volume_ref(args["volume"])
        return self._info(Kind.VOLUME, ref)

    def volume_resize(self, args: Arguments) -> Answer:
        """``vdisk volume resize``."""
        ref, size = parse_volume_ref(args["volume"]), parse_size(args["size"])
        return self._create(args, self._service.resize_volume(self._access.find(Kind.VOLUME, ref), size))

    def volume_flatten(self, args: Arguments) -> Answer:
        """``vdisk volume flatten``."""
        ref = parse_volume_ref(args["volume"])
        return self._create(args, self._service.flatten_volume(self._access.find(Kind.VOLUME, ref)))

    def volume_revert(self, args: Arguments) -> Answer:
        """``vdisk volume revert``: the volume, and under which handle its former content is kept."""
        volume, snapshot = parse_volume_ref(args["volume"]), parse_snapshot_ref(args["snapshot"])
        keep_for = self._keep_for(args, "revert_keep_for")
        found = self._access.find(Kind.VOLUME, volume)
        request = self._service.revert_volume(found, self._access.find(Kind.SNAPSHOT, snapshot), keep_for)
        if args["dry_run"]:
            return self._dry_run(request)
        operation, settled = self._service.run(request, self._wait(args))
        done = operation.request
        assert isinstance(done, RevertVolume)
        shown = self._shown(self._service.created(operation, settled))
        former = self._service.handle(done.where, done.kept_uuid) if done.kept_uuid else None
        kept = None if former is None else {"handle": former, "expires_at": rfc3339(done.keep_until)}
        return {**shown, "former": kept, **({} if settled else {"operation": operation.id})}

    def volume_rm(self, args: Arguments) -> Answer:
        """``vdisk volume rm``."""
        return self._remove(args, Kind.VOLUME, parse_volume_ref(args["volume"]))

    # -- snapshots -----------------------------------------------------------------------------------------------

    def snap_create(self, args: Arguments) -> Answer:
        """``vdisk snap create``."""
        spec = parse_image_spec(args["image_spec"])
        name = check_request_name(args["snap_name"], "snap_name")
        where = self._access.locate(spec.where)
        return self._create(args, self._service.create_snapshot(where, name, spec.image))

    def snap_ls(self, args: Arguments) -> Answer:
        """``vdisk snap ls``; ``pool/x`` means the namespace x where there is one, else the image x."""
        limit, marker = page(args)
        if (args["pool_spec"] is None) == (args["image_spec"] is None):
            raise InvalidArgument("pool_spec or image_spec is missing: give pool[/namespace] or pool[/namespace]/image")
        where, image = self._pool_or_image(args)
        return [self._shown(snapshot) for snapshot in self._service.snapshots(where, image, limit, marker)]

    def snap_info(self, args: Arguments) -> Answer:
        """``vdisk snap info``."""
        return self._info(Kind.SNAPSHOT, parse_snapshot_ref(args["snapshot"]))

    def snap_rm(self, args: Arguments) -> Answer:
        """``vdisk snap rm``."""
        return self._remove(args, Kind.SNAPSHOT, parse_snapshot_ref(args["snapshot"]))

    # -- group snapshots -----------------------------------------------------------------------------------------

    def group_snap_info(self, args: Arguments) -> Answer:
        """``vdisk group snap info``."""
        ref = parse_volume_ref(args["group"], "group")
        try:
            return self._services.groups.describe(self._access.find(Kind.GROUP, ref)).to_dict()
        except (NotFound, Denied):
            engine = self._service.engine
            creation = self._remembered(ref, Kind.GROUP, engine.pending_creation, engine.pending_creation_of_uuid)
            if creation is None:
                raise
            return self._services.groups.pending(creation).to_dict()

    def group_snap_rm(self, args: Arguments) -> Answer:
        """``vdisk group snap rm``."""
        return self._remove(args, Kind.GROUP, parse_volume_ref(args["group"], "group"))

    # -- operations ----------------------------------------------------------------------------------------------

    def op_ls(self, args: Arguments) -> Answer:
        """``vdisk op ls``: those of pools that the caller may see; with ``ids`` one row for each of them."""
        engine = self._service.engine
        if args["ids"] is not None:
            return [self._polled(op_id) for op_id in dict.fromkeys(parse_ids(args["ids"]))]
        checks = [run.to_dict() for run in self._check_runs()]
        unreadable = [intent.to_dict() for intent in engine.unreadable() if self._visible(intent.where)]
        listed = [op.to_dict() for op in engine.operations() if self._visible(op.request.where)]
        return [*unreadable, *listed, *checks]

    def op_info(self, args: Arguments) -> Answer:
        """``vdisk op info``."""
        run = self._check_run(args["id"])
        if run is not None:
            return run.to_dict()
        intent = self._unreadable(args["id"])
        return intent.to_dict(details=True) if intent is not None else self._operation(args).to_dict(details=True)

    def op_cancel(self, args: Arguments) -> Answer:
        """``vdisk op cancel``."""
        run = self._check_run(args["id"])
        if run is not None:
            self._services.checks.cancel(run)
            return run.to_dict()
        operation = self._operation(args)
        if args["dry_run"]:
            return {"dry_run": True, "kind": operation.request.kind, "steps": self._service.plan_cancel(operation)}
        self._service.cancel(operation, self._wait(args))
        return operation.to_dict()

    def op_retry(self, args: Arguments) -> Answer:
        """``vdisk op retry``."""
        operation = self._operation(args)
        if args["dry_run"]:
            return {"dry_run": True, "kind": operation.request.kind, "steps": self._service.plan_retry(operation)}
        self._service.retry(operation, self._wait(args))
        return operation.to_dict()

    def status(self, args: Arguments) -> Answer:
        """``vdisk status``: figures and what this release can do, nothing that names a tenant."""
        return {**self._services.telemetry.status(), "group_snapshots": self._services.groups.possible}

    def metrics(self, args: Arguments) -> Answer:
        """``vdisk metrics``: text, in JSON a string of it."""
        return self._services.telemetry.metrics()

    def places(self) -> Answer:
        """Return pools and namespaces that may hold volumes, among those that the caller may see."""
        shown = []
        for place in self._service.places():
            namespaces = [name for name in place["namespaces"] if self._access.may(place["pool"], name)]
            if namespaces or self._access.may(place["pool"], ""):
                shown.append({**place, "namespaces": namespaces})
        return shown

    # -- inner ---------------------------------------------------------------------------------------------------

    def _polled(self, op_id: str) -> dict[str, Any]:
        """Return an operation for one who polls: also whether the command's answer is true by now, and for what.

        The handle in a pending answer may be another one: only planning finds a reservation that was there before.
        """
        operation = self._service.engine.lookup(op_id)
        intent = self._unreadable(op_id) if operation is None else None
        if intent is not None:
            return {**intent.to_dict(), "answered": False, "handle": None, "image": None}
        if operation is None or not self._visible(operation.request.where):
            return {"id": op_id, "state": "unknown", "answered": False, "error": None, "handle": None, "image": None}
        # The engine goes on meanwhile, so in the opposite order of what it writes: what an operation is answered for is
        # settled before it is answered, and it is answered before it is done.
        row = operation.to_dict()
        answered = operation.answered
        request = operation.request
        handle = self._service.handle(request.where, request.uuid)
        return {**row, "answered": answered, "handle": handle, "image": request.image}

    def _operation(self, args: Arguments) -> Operation:
        """Return the operation that a command names; another tenant's is as good as none."""
        intent = self._unreadable(args["id"])
        if intent is not None:
            raise intent.error
        operation = self._service.engine.operation(args["id"])
        if not self._visible(operation.request.where):
            raise Denied("no permission for what the operation is about")
        return operation

    def _unreadable(self, op_id: str) -> UnreadableIntent | None:
        """Return the intent of that id that this version can't read, if the caller may see it."""
        found = (intent for intent in self._service.engine.unreadable() if intent.id == op_id)
        return next((intent for intent in found if self._visible(intent.where)), None)

    def _derive(
        self,
        args: Arguments,
        kind: Kind,
        ref: Ref,
        make: Callable[[Location, str, Found, int | None, Layout], Request],
    ) -> Answer:
        """Restore or clone: both need the source's and the target's pool, and that for the data if there is one."""
        name = check_request_name(args["name"])
        size = None if args["size"] is None else parse_size(args["size"])
        target = None if args["pool_spec"] is None else parse_pool_spec(args["pool_spec"])
        layout = _layout(args, default_order=None)
        source = self._access.find(kind, ref)
        where = source.where if target is None else self._access.locate(target)
        self._check_data_pool(layout)
        return self._create(args, make(where, name, source, size, layout), source)

    def _check_data_pool(self, layout: Layout) -> None:
        if layout.data_pool is not None:
            self._access.check_pool(layout.data_pool)

    def _create(self, args: Arguments, request: Request, origin: Found | None = None) -> Answer:
        if args["dry_run"]:
            return self._dry_run(request)
        operation, settled = self._service.run(request, self._wait(args))
        shown = self._shown(self._service.created(operation, settled, origin))
        return shown if settled else {**shown, "operation": operation.id}

    def _remove(self, args: Arguments, kind: Kind, ref: Ref) -> Answer:
        """Remove; repeating it after it answered gives the same answer as long as the operation is remembered.

        What is only being created yet is removed behind its creation, so that a delete can't be overtaken by it.
        """
        keep_for = self._keep_for(args)
        try:
            found = self._access.find(kind, ref)
        except (NotFound, Denied):
            engine = self._service.engine
            creation = self._remembered(ref, kind, engine.pending_creation, engine.pending_creation_of_uuid)
            removal = self._remembered(ref, kind, engine.removal_of, engine.removal_of_uuid)
            if creation is not None:
                request = creation.request
                found = Found(request.where, kind, request.uuid, request.name, None)
            elif removal is not None and not args["dry_run"]:
                return self._removal(removal.request.where, removal.request.uuid, removal.id, True)
            else:
                raise
        request = self._service.remove(found, keep_for)
        if args["dry_run"]:
            return self._dry_run(request)
        operation, settled = self._service.run(request, self._wait(args))
        return self._removal(found.where, operation.request.uuid, operation.id, settled)

    def _remembered(
        self,
        ref: Ref,
        kind: Kind,
        by_name: Callable[[Location, Kind, str], Operation | None],
        by_uuid: Callable[[int, Kind, str], Operation | None],
    ) -> Operation | None:
        """Find an operation by what it is about, among those that the caller may see."""
        if isinstance(ref, NameRef):
            return by_name(self._access.locate(ref.where), kind, ref.name)
        operation = by_uuid(ref.pool_id, kind, ref.uuid)
        return operation if operation is not None and self._visible(operation.request.where) else None

    def _removal(self, where: Location, uuid: str, op_id: str, settled: bool) -> Answer:
        answer = {"removed": self._service.handle(where, uuid), "operation": op_id}
        return answer if settled else {**answer, "state": "pending"}

    def _info(self, kind: Kind, ref: Ref) -> Answer:
        try:
            found = self._access.find(kind, ref)
        except (NotFound, Denied):
            engine = self._service.engine
            creation = self._remembered(ref, kind, engine.pending_creation, engine.pending_creation_of_uuid)
            if creation is None:
                raise
            return self._shown(self._service.pending(creation))
        item = self._service.volume(found) if kind is Kind.VOLUME else self._service.snapshot(found)
        details = self._service.details(found)
        details.update(self._lineage(found, details["watchers"]))
        for parent in details["parents"]:
            if not self._access.may(parent["pool"] or "", parent["namespace"]):
                parent.update(dict.fromkeys(parent))
        return {**self._shown(item), **details}

    def _lineage(self, found: Found, watchers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return what ``tree`` says too: what the image alone takes, what holds it, what would be freed with it."""
        family, node = self._services.lineage.of(found, whole=False)
        if node is None:
            return {"exclusive": None, "held_by": [], "frees": 0, "frees_with": []}
        facts = family.facts(node)
        unseen = [key for key in node.children if (kin := family.nodes.get(key)) and not self._visible(kin.where)]
        if unseen:
            facts["held_by"] = [reason for reason in facts["held_by"] if not reason.startswith("clone ")]
            facts["held_by"].append(f"{len(unseen)} clones that you may not see")
        facts["held_by"][1:1] = [f"in use by {found['address']} (client.{found['client']})" for found in watchers]
        if not all(self._visible(kin.where) for kin in family.freed_with(node)):
            facts["frees_with"] = []
        return {name: facts[name] for name in ("exclusive", "held_by", "frees", "frees_with")}

    def _shown(self, item: Volume | Snapshot) -> dict[str, Any]:
        """Return an object's JSON form without what lies in pools that the caller may not see."""
        shown = item.to_dict()
        source = item.source if isinstance(item, Volume) else None
        if source is not None and not self._visible(source.where):
            shown["source"].update(handle=None, name=None)
        return shown

    def _pool_or_image(self, args: Arguments) -> tuple[Location, str | None]:
        if args["image_spec"] is not None:
            return self._of_image(parse_image_spec(args["image_spec"]))
        parts = args["pool_spec"].split("/")
        if len(parts) == 3:
            return self._of_image(parse_image_spec(args["pool_spec"], "pool_spec"))
        spec = parse_pool_spec(args["pool_spec"])
        if not spec.namespace or (self._access.may(spec.pool, spec.namespace) and not self._access.may(spec.pool, "")):
            return self._access.locate(spec), None
        root = self._access.locate(PoolSpec(spec.pool))
        if spec.namespace in self._service.namespaces(root.pool_id, root.pool):
            return self._access.locate(spec), None
        return self._of_image(ImageSpec(PoolSpec(spec.pool), spec.namespace))

    def _of_image(self, spec: ImageSpec) -> tuple[Location, str]:
        return self._access.locate(spec.where), spec.image


def _layout(args: Arguments, default_order: int | None = DEFAULT_ORDER) -> Layout:
    """Return the layout that a command's arguments ask for."""
    return parse_layout(
        args["image_features"], args["object_size"], args["stripe_unit"], args["stripe_count"], args["data_pool"],
        default_order,
    )  # fmt: skip


def parse_ids(text: str) -> list[str]:
    """Return operation ids that a comma separates; raises ``InvalidArgument`` for too many."""
    ids = [part.strip() for part in text.split(",") if part.strip()]
    if not 0 < len(ids) <= MAX_IDS:
        raise InvalidArgument(f"ids names {len(ids)} operations: 1 to {MAX_IDS} are allowed")
    return ids
