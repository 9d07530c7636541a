"""Authorisation and references: what a caller may name, and what a handle leads to among what it may see.

``is_authorized`` means something on the command thread only, so everything here runs there; the service is
told the outcome. A handle is looked for only where the caller may look, and a miss is ``denied`` unless the caller
may see the whole pool: the answer never tells whether another tenant's volume exists.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from ..model.errors import Denied, NotFound
from ..model.handles import Handle
from ..model.names import Kind
from ..model.observed import Location
from ..model.specs import NameRef, PoolSpec, Ref
from ..service import Found, Service

T = TypeVar("T")
Authorize = Callable[[Mapping[str, str]], bool]


class Access:
    """What the caller of one command may do. ``authorize`` is ``MgrModule.is_authorized``.

    Each question is asked once: a list may have a thousand items of one pool, and with every question the mgr loses the
    list that it makes of the arguments (``ceph_is_authorized`` in mgr/BaseMgrModule.cc, all releases).
    """

    def __init__(self, service: Service, authorize: Authorize) -> None:
        self._service = service
        self._ask = authorize
        self._answers: dict[tuple[tuple[str, str], ...], bool] = {}

    def _authorize(self, arguments: Mapping[str, str]) -> bool:
        key = tuple(sorted(arguments.items()))
        if key not in self._answers:
            self._answers[key] = self._ask(arguments)
        return self._answers[key]

    def may(self, pool: str, namespace: str) -> bool:
        """Tell whether the caller may work in a pool and namespace."""
        return self._authorize({"pool": pool, "namespace": namespace})

    def check(self, spec: PoolSpec) -> None:
        """Raise ``Denied`` unless the caller may work there; whether it exists is not looked at."""
        if not self.may(spec.pool, spec.namespace):
            raise Denied(f"no permission for {str(spec)!r}: the key's mgr caps do not allow module vdisk there")

    def check_pool(self, pool: str) -> None:
        """Raise ``Denied`` unless the caller may work in a pool, whatever the namespace."""
        if not self._authorize({"pool": pool}):
            self.check(PoolSpec(pool))

    def locate(self, spec: PoolSpec) -> Location:
        """Authorise and resolve a pool spec."""
        self.check(spec)
        return self._service.locate(spec)

    def find(self, kind: Kind, ref: Ref) -> Found:
        """Authorise and resolve a reference to a volume or snapshot."""
        if isinstance(ref, NameRef):
            return self._service.find_name(self.locate(ref.where), kind, ref)
        return self._find_handle(kind, ref)

    def holding(self, handle: Handle, holds: Callable[[Location], bool]) -> Location:
        """Return the location, among those that the caller may see, that holds something of a handle's uuid."""

        def look(pool_id: int, pool: str, namespaces: Sequence[str]) -> Location | None:
            places = (Location(pool_id, pool, namespace) for namespace in namespaces)
            return next((place for place in places if holds(place)), None)

        return self._search(handle, "a record of", look)

    def _find_handle(self, kind: Kind, handle: Handle) -> Found:
        def look(pool_id: int, pool: str, namespaces: Sequence[str]) -> Found | None:
            return self._service.find_uuid(pool_id, pool, kind, handle.uuid, namespaces)

        return self._search(handle, kind.value, look)

    def _search(self, handle: Handle, what: str, look: Callable[[int, str, Sequence[str]], T | None]) -> T:
        """Look for what a handle names where the caller may look."""
        self._service.check_cluster(handle)
        pool = self._service.pool_name(handle.pool_id)
        if pool is None and not self._authorize({}):
            raise self._denied()
        if pool is None:
            raise NotFound(f"the handle names pool id {handle.pool_id}, which does not exist")
        if self._service.likely_namespace(handle) == "" and self.may(pool, ""):
            # The one that is always there spares listing the others.
            found = look(handle.pool_id, pool, [""])
            if found is not None:
                return found
        whole = self._authorize({"pool": pool})
        namespaces = self._service.namespaces(handle.pool_id, pool) if whole else self._allowed(handle.pool_id, pool)
        found = look(handle.pool_id, pool, namespaces)
        if found is None:
            if not whole:
                raise self._denied()
            raise NotFound(f"{what} {handle.uuid} does not exist in pool {pool!r}")
        return found

    def _allowed(self, pool_id: int, pool: str) -> list[str]:
        allowed = [name for name in self._service.namespaces(pool_id, pool) if self.may(pool, name)]
        if not allowed:
            raise self._denied()
        return allowed

    @staticmethod
    def _denied() -> Denied:
        return Denied("no permission for what the handle names")
