"""``vdisk adopt`` and ``vdisk release``."""

from __future__ import annotations

from ..model.errors import InvalidArgument
from ..model.names import Kind, check_request_name
from ..model.specs import parse_image_spec, parse_volume_ref
from .base import Arguments, BaseHandlers
from .render import Answer


class AdoptHandlers(BaseHandlers):
    """Handlers of what comes into the journal, and leaves it, without being made or removed."""

    def adopt(self, args: Arguments) -> Answer:
        """``vdisk adopt``: an image, or ``image@snapshot``."""
        text, at, snap = args["image_spec"].partition("@")
        spec, name = parse_image_spec(text), check_request_name(args["name"])
        if at and not snap:
            raise InvalidArgument(f"image_spec {args['image_spec']!r} names no snapshot after the @")
        where = self._access.locate(spec.where)
        request = self._service.adopt(where, name, spec.image, snap or None)
        if args["dry_run"]:
            return self._dry_run(request)
        operation, settled = self._service.run(request, self._wait(args))
        return self._service.created(operation, settled).to_dict()

    def release(self, args: Arguments) -> Answer:
        """``vdisk release``; repeating it answers the same as long as the operation is remembered."""
        found = self._access.find(Kind.VOLUME, parse_volume_ref(args["volume"]))
        request = self._service.release(found)
        if args["dry_run"]:
            return self._dry_run(request)
        operation, settled = self._service.run(request, self._wait(args))
        answer = {
            "released": self._service.handle(found.where, found.uuid),
            "image": found.entry.image if found.entry is not None else None,
            "operation": operation.id,
        }
        return answer if settled else {**answer, "state": "pending"}
