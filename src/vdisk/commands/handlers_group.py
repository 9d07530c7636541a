"""``vdisk group snap``, but for what it shares with other removals and looks."""

from __future__ import annotations

from ..model.errors import InvalidArgument
from ..model.groups import MAX_MEMBERS
from ..model.names import Kind, check_request_name
from ..model.specs import parse_pool_spec, parse_volume_ref
from .base import Arguments, BaseHandlers, page
from .render import Answer


class GroupHandlers(BaseHandlers):
    """Handlers of group snapshots."""

    def group_snap_create(self, args: Arguments) -> Answer:
        """``vdisk group snap create``."""
        name = check_request_name(args["name"])
        texts = [part.strip() for part in args["volumes"].split(",") if part.strip()]
        if not 1 <= len(texts) <= MAX_MEMBERS:
            raise InvalidArgument(f"volumes names {len(texts)} volumes: 1 to {MAX_MEMBERS} are allowed")
        refs = [parse_volume_ref(text, "volumes") for text in texts]
        found = [self._access.find(Kind.VOLUME, ref) for ref in refs]
        request = self._services.groups.create(name, found)
        if args["dry_run"]:
            return self._dry_run(request)
        operation, settled = self._service.run(request, self._wait(args))
        shown = self._services.groups.made(operation, settled).to_dict()
        return shown if settled else {**shown, "operation": operation.id}

    def group_snap_ls(self, args: Arguments) -> Answer:
        """``vdisk group snap ls``."""
        spec = parse_pool_spec(args["pool_spec"])
        limit, marker = page(args)
        where = self._access.locate(spec)
        return [group.to_dict() for group in self._services.groups.listed(where, limit, marker)]
