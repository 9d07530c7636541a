"""What handlers of all subjects share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..lifecycle.base import Request
from ..model.errors import InvalidArgument
from ..model.handles import Handle
from ..model.names import check_request_name
from ..model.observed import Location
from ..model.specs import PoolSpec, Ref, parse_volume_ref
from ..service import Services
from .access import Access
from .render import Answer

Arguments = Mapping[str, Any]


class BaseHandlers:
    """Services, access, and the options ``command_wait`` (seconds) and ``trash_keep_for`` (a duration, or empty)."""

    def __init__(
        self,
        services: Services,
        access: Access,
        default_wait: Callable[[], float],
        default_keep: Callable[[], str] = str,
    ) -> None:
        self._services = services
        self._service = services.volumes
        self._access = access
        self._default_wait = default_wait
        self._default_keep = default_keep

    def _visible(self, where: Location) -> bool:
        return self._access.may(where.pool, where.namespace)

    def _wait(self, args: Arguments) -> float:
        return self._default_wait() if args["wait"] is None else float(args["wait"])

    def _volume_or_none(self, text: str) -> Ref | None:
        """Return the reference to a volume that ``pool_spec`` is, None for ``pool[/namespace]``.

        ``pool/x`` means the namespace x where there is one, else the volume x.
        """
        if "/" not in text and not text.startswith(("0101-", "0001-")):
            return None
        ref = parse_volume_ref(text, "pool_spec")
        return None if not isinstance(ref, Handle) and self._is_namespace(text) else ref

    def _is_namespace(self, text: str) -> bool:
        parts = text.split("/")
        if len(parts) != 2:
            return False
        spec = PoolSpec(*parts)
        if self._access.may(*parts) and not self._access.may(spec.pool, ""):
            return True
        root = self._access.locate(PoolSpec(spec.pool))
        return spec.namespace in self._service.namespaces(root.pool_id, root.pool)

    def _dry_run(self, request: Request) -> Answer:
        return {"dry_run": True, "kind": request.kind, "steps": self._service.plan(request)}


def page(args: Arguments) -> tuple[int | None, str]:
    """Return limit and marker of a command that lists."""
    limit = args["limit"]
    if limit is not None and limit < 1:
        raise InvalidArgument(f"limit {limit} is not positive")
    marker = "" if args["marker"] is None else check_request_name(args["marker"], "marker")
    return limit, marker
