"""From a raw command dictionary to the three values that a mgr module answers with; the one place that maps errors."""

from __future__ import annotations

import errno
import logging
from collections.abc import Mapping
from typing import Any

from ..model.errors import Internal, InvalidArgument, VdiskError
from .arguments import parse_format
from .handlers import Handlers
from .render import render, render_error
from .table import COMMANDS

_BY_PREFIX = {command.prefix: command for command in COMMANDS}


def declarations() -> list[dict[str, Any]]:
    """Return what ``MgrModule.COMMANDS`` has to hold."""
    return [command.declaration() for command in COMMANDS]


def dispatch(handlers: Handlers | VdiskError, raw: Mapping[str, Any], log: logging.Logger) -> tuple[int, str, str]:
    """Carry out a raw command; returns (0 or negative errno, output, status line). Nothing is ever raised.

    ``handlers`` is the error to answer with while the module cannot serve commands.
    """
    form = "plain"
    try:
        form = parse_format(raw)
        command = _BY_PREFIX.get(str(raw.get("prefix")))
        if command is None:
            raise InvalidArgument(f"unknown command {raw.get('prefix')!r}")
        arguments = command.parse(raw)
        if isinstance(handlers, VdiskError):
            raise handlers
        answer = getattr(handlers, command.handler)(arguments)
        return 0, render(answer, form, command.columns, command.tree), ""
    except VdiskError as error:
        return render_error(error, form)
    except Exception:
        log.exception("command %r", raw.get("prefix"))
        code, out, status = render_error(Internal("an unexpected error happened; see the mgr log"), form)
        return code or -errno.EIO, out, status
