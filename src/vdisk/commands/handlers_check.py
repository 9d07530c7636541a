"""``vdisk check``, and checks among the operations."""

from __future__ import annotations

import re

from ..model.errors import InvalidArgument
from ..model.specs import parse_pool_spec
from ..service.checks import Run, Wish
from .base import Arguments, BaseHandlers
from .render import Answer

_FINDING = re.compile(r"[0-9a-f]{12}")


class CheckHandlers(BaseHandlers):
    """Handlers of checks."""

    def check(self, args: Arguments) -> Answer:
        """``vdisk check``."""
        spec = parse_pool_spec(args["pool_spec"])
        findings = _findings(args["finding"])
        wish = Wish(bool(args["repair"]), findings, bool(args["dry_run"]))
        return self._services.checks.check(self._access.locate(spec), wish, self._wait(args))

    def _check_runs(self) -> list[Run]:
        """Return the checks of pools that the caller may see."""
        return [run for run in self._services.checks.runs() if self._visible(run.where)]

    def _check_run(self, ident: str) -> Run | None:
        return next((run for run in self._check_runs() if run.id == ident), None)


def _findings(text: str | None) -> tuple[str, ...]:
    if text is None:
        return ()
    idents = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    for ident in idents:
        if _FINDING.fullmatch(ident) is None:
            raise InvalidArgument(
                f"finding {ident!r} is not the id of a finding: 12 hex digits, as 'vdisk check' shows"
            )
    return idents
