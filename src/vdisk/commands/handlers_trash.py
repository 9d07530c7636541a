"""``vdisk trash``, and how long a removal keeps."""

from __future__ import annotations

import re

from ..lifecycle.undelete import RestoreBare
from ..model.errors import InvalidArgument
from ..model.handles import decode_handle
from ..model.names import UUID_PATTERN, check_request_name
from ..model.observed import Location
from ..model.specs import PoolSpec, parse_duration, parse_pool_spec
from .base import Arguments, BaseHandlers, page
from .render import Answer

_IMAGE_ID = re.compile(r"[0-9a-z]{1,64}")


class TrashHandlers(BaseHandlers):
    """Handlers of the trash."""

    def trash_ls(self, args: Arguments) -> Answer:
        """``vdisk trash ls``."""
        where = self._access.locate(parse_pool_spec(args["pool_spec"]))
        return self._services.trash.listed(where, *page(args))

    def trash_restore(self, args: Arguments) -> Answer:
        """``vdisk trash restore``: by handle, by the operation that removed it, or by pool and image id."""
        name = None if args["new_name"] is None else check_request_name(args["new_name"], "new_name")
        text = args["id"]
        if "/" in text:
            spec, _, image_id = text.rpartition("/")
            if _IMAGE_ID.fullmatch(image_id) is None:
                raise InvalidArgument(f"id {text!r} does not end in the id of an image, as 'vdisk trash ls' shows it")
            request = self._services.trash.undelete_image(
                self._access.locate(parse_pool_spec(spec, "id")), image_id, name
            )
        elif re.fullmatch(UUID_PATTERN, text):
            done = self._service.engine.operation(text).request
            self._access.check(PoolSpec(done.where.pool, done.where.namespace))
            request = self._services.trash.undelete(done.where, done.uuid, name)
        else:
            handle = decode_handle(text)
            where = self._access.holding(handle, lambda at: self._services.trash.keeps(at, handle.uuid))
            request = self._services.trash.undelete(where, handle.uuid, name)
        if args["dry_run"]:
            return self._dry_run(request)
        operation, settled = self._service.run(request, self._wait(args))
        if isinstance(request, RestoreBare):
            where = request.where
            return {"restored": request.name, "pool": where.pool, "namespace": where.namespace, "id": request.image_id}
        return self._service.created(operation, settled).to_dict()

    def trash_purge(self, args: Arguments) -> Answer:
        """``vdisk trash purge``."""
        where = self._access.locate(parse_pool_spec(args["pool_spec"]))
        older = None if args["older_than"] is None else parse_duration(args["older_than"], "older_than")
        keep_last, threshold = args["keep_last"], args["threshold"]
        if keep_last is not None and keep_last < 0:
            raise InvalidArgument(f"keep_last {keep_last} is negative")
        if threshold is not None and not 0 <= threshold <= 1:
            raise InvalidArgument(f"threshold {threshold:g} is not between 0 and 1")
        requests = self._services.trash.purge(where, older, keep_last, threshold)
        rows = [{"handle": self._handle(where, request.uuid), "name": request.name} for request in requests]
        if args["dry_run"]:
            steps = [step for request in requests for step in self._service.plan(request)]
            return {"dry_run": True, "kind": "trash purge", "purged": rows, "steps": steps}
        operations = self._service.run_all(requests, self._wait(args))
        return {"purged": [{**row, "operation": operation.id} for row, operation in zip(rows, operations)]}

    def _keep_for(self, args: Arguments, option: str = "trash_keep_for") -> int:
        """Return for how many seconds what goes to the trash is kept there: as the command says, or the option."""
        if args["keep_for"] is not None:
            return parse_duration(args["keep_for"], "keep_for")
        default = self._default_keep(option)
        return parse_duration(default, f"option {option}") if default else 0

    def _handle(self, where: Location, uuid: str) -> str:
        return self._service.handle(where, uuid)
