"""``vdisk tree``."""

from __future__ import annotations

from typing import Any

from ..model.names import Kind
from ..model.specs import parse_pool_spec
from .base import Arguments, BaseHandlers
from .render import Answer


class TreeHandlers(BaseHandlers):
    """Handlers of lineage."""

    def tree(self, args: Arguments) -> Answer:
        """``vdisk tree``: of a pool or namespace, or of one volume's family."""
        text = args["pool_spec"]
        ref = self._volume_or_none(text)
        if ref is None:
            family = self._services.lineage.of_location(self._access.locate(parse_pool_spec(text)))
        else:
            family, _ = self._services.lineage.of(self._access.find(Kind.VOLUME, ref))
        return [self._masked(family.to_dict(root)) for root in family.roots()]

    def _masked(self, node: dict[str, Any], below_hidden: bool = False) -> dict[str, Any]:
        """Return a node without what lies in pools that the caller may not see, its clones likewise."""
        visible = self._access.may(node["pool"], node["namespace"])
        children = [self._masked(child, below_hidden or not visible) for child in node["children"]]
        if visible:
            if below_hidden:  # what goes with it may be another tenant's
                node["frees_with"] = []
            hidden = [child["image"] for child in children if child["pool"] is None]
            if hidden:  # its reasons may name another tenant's images
                node["held_by"] = [reason for reason in node["held_by"] if not reason.startswith("clone ")]
                node["held_by"].append(f"{len(hidden)} clones that you may not see")
            return {**node, "children": children}
        return {**dict.fromkeys(node), "depth": node["depth"], "children": children}
