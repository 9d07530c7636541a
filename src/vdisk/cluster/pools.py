"""Pools by name and id, from the client's own copy of the OSD map."""

from __future__ import annotations

from ..model.errors import InvalidArgument, NotFound
from ..model.observed import Location
from ..model.specs import PoolSpec
from .connection import Connection
from .images import Images

_APPLICATION = "rbd"


class Pools:
    """Resolves pools and namespaces; a name that is unknown costs one monitor round trip, a known one nothing."""

    def __init__(self, connection: Connection, images: Images) -> None:
        self._connection = connection
        self._images = images

    def locate(self, spec: PoolSpec) -> Location:
        """Return the location of a pool and namespace; raise when there is none or it is not for RBD images."""
        with self._connection.handle(f"looking up pool {spec.pool}") as handle:
            pool_id = handle.pool_lookup(spec.pool)
        if pool_id is None:
            raise NotFound(f"pool {spec.pool!r} does not exist")
        where = Location(int(pool_id), spec.pool, spec.namespace)
        if not self._for_images(where):
            # The pool may have been prepared after this client's copy of the OSD map was made.
            with self._connection.handle("waiting for the latest OSD map") as handle:
                handle.wait_for_latest_osdmap()
            if not self._for_images(where):
                raise InvalidArgument(
                    f"pool {where.pool!r} is not for RBD images: prepare it with 'rbd pool init {where.pool}'"
                )
        if not self._images.namespace_exists(where):
            raise NotFound(
                f"namespace {spec.namespace!r} does not exist in pool {spec.pool!r}: "
                f"create it with 'rbd namespace create {spec}'"
            )
        return where

    def id_of(self, pool: str) -> int | None:
        """Return a pool's id, None when there is no such pool."""
        with self._connection.handle(f"looking up pool {pool}") as handle:
            found = handle.pool_lookup(pool)
        return None if found is None else int(found)

    def name_of(self, pool_id: int) -> str | None:
        """Return a pool's name, None when there is no such pool."""
        if pool_id >= 1 << 63:  # more than librados can take, but a handle may say so
            return None
        with self._connection.handle(f"looking up pool id {pool_id}") as handle:
            name = handle.pool_reverse_lookup(pool_id)
        return None if name is None else str(name)

    def rbd_pools(self) -> list[Location]:
        """Return every pool whose application is rbd, by its default namespace."""
        with self._connection.handle("listing pools") as handle:
            named = [(handle.pool_lookup(name), str(name)) for name in handle.list_pools()]
        found = []
        for pool_id, name in named:
            if pool_id is None:  # removed since it was listed
                continue
            where = Location(int(pool_id), name)
            try:
                if self._for_images(where):
                    found.append(where)
            except NotFound:
                continue
        return found

    def _for_images(self, where: Location) -> bool:
        """Tell whether the pool's application is rbd: only such pools are searched for intents at start."""
        with self._connection.ioctx(Location(where.pool_id, where.pool), f"reading pool {where.pool}") as ioctx:
            return _APPLICATION in ioctx.application_list()
