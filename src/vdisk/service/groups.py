"""Group snapshots: several volumes at one moment."""

from __future__ import annotations

import uuid as uuids
from collections.abc import Sequence
from functools import partial

from ..engine.operation import Operation
from ..engine.ports import Cluster
from ..lifecycle.base import Request
from ..lifecycle.group_snap import CreateGroup
from ..model.errors import InvalidArgument, NotReady
from ..model.groups import Member, mapping_of
from ..model.names import Kind
from ..model.objects import GroupSnapshot, Snapshot
from ..model.observed import Location
from .core import Found, Service

_PAGE = 1000


class Groups:
    """Group snapshots of a cluster; like :class:`Service`, for any thread."""

    def __init__(self, cluster: Cluster, service: Service) -> None:
        self._cluster = cluster
        self._service = service

    @property
    def possible(self) -> bool:
        """Whether this release's librbd can do it."""
        return self._cluster.clones_groups()

    def create(self, name: str, volumes: Sequence[Found]) -> Request:
        """Request a snapshot of volumes at one moment. They have to lie in one pool and namespace, where it lies too.

        The error for others has their places in its details.
        """
        places = {(found.where.pool_id, found.where.namespace): str(found.where) for found in volumes}
        if len(places) > 1:
            raise InvalidArgument(
                f"the volumes lie in {', '.join(sorted(places.values()))}: those of a group snapshot have to lie in "
                "one pool and namespace",
                places=sorted(places.values()),
            )
        if len({found.uuid for found in volumes}) < len(volumes):
            raise InvalidArgument("volumes names one volume twice")
        members = tuple(self._member(found) for found in volumes)
        layout = self._service.snapshot_layout()
        return CreateGroup(volumes[0].where, name, str(uuids.uuid4()), members, layout)

    def describe(self, found: Found) -> GroupSnapshot:
        """Describe a group snapshot."""
        uuids = sorted(mapping_of(found.entry).values())
        entries = self._service.read(
            found.where.pool_id, lambda: [self._cluster.entry(found.where, Kind.SNAPSHOT, uuid) for uuid in uuids]
        )
        members: list[Snapshot] = []
        for uuid, entry in zip(uuids, entries):
            if entry is not None:
                members.append(self._service.snapshot(Found(found.where, Kind.SNAPSHOT, uuid, entry.name or "", entry)))
        ready = len(members) == len(uuids) and all(member.state == "ready" for member in members)
        state = "pending" if not uuids else "ready" if ready else "incomplete"
        return self._shown(found.where, found.name, found.uuid, state, members)

    def pending(self, operation: Operation) -> GroupSnapshot:
        """Describe a group snapshot that is being made, without reading anything."""
        request = operation.request
        return self._shown(request.where, request.name, request.uuid, "pending", ())

    def made(self, operation: Operation, settled: bool) -> GroupSnapshot:
        """Describe what an operation has made, or is making."""
        request = operation.request
        if not settled:
            return self.pending(operation)
        entry = self._service.read(
            request.where.pool_id, lambda: self._cluster.entry(request.where, Kind.GROUP, request.uuid)
        )
        return self.describe(Found(request.where, Kind.GROUP, request.uuid, request.name, entry))

    def listed(self, where: Location, limit: int | None, marker: str) -> list[GroupSnapshot]:
        """Return the group snapshots of a place in the order of names, those after ``marker``, at most ``limit``."""
        found: list[Found] = []
        while limit is None or len(found) < limit:
            size = _PAGE if limit is None else min(_PAGE, limit - len(found))
            page = self._service.read(where.pool_id, partial(self._page, where, marker, size))
            found += page
            if len(page) < size:
                break
            marker = page[-1].name
        return [self.describe(each) for each in found]

    def _page(self, where: Location, after: str, size: int) -> list[Found]:
        return [
            Found(where, Kind.GROUP, uuid, name, self._cluster.entry(where, Kind.GROUP, uuid))
            for name, uuid in self._cluster.names(where, Kind.GROUP, after, size)
        ]

    def _member(self, volume: Found) -> Member:
        if volume.entry is None:
            raise NotReady(f"volume {volume.name!r} in {volume.where} is not complete yet; try again")
        handle, snapshot = self._service.handle, str(uuids.uuid4())
        return Member(
            snapshot, volume.entry.image, handle(volume.where, volume.uuid), handle(volume.where, snapshot)
        )  # fmt: skip

    def _shown(self, where: Location, name: str, uuid: str, state: str, members: Sequence[Snapshot]) -> GroupSnapshot:
        handle = self._service.handle(where, uuid)
        return GroupSnapshot(name or None, handle, uuid, where.pool, where.namespace, state, tuple(members))
