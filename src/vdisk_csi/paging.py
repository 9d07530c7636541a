"""Paging tokens of ListVolumes and ListSnapshots: where the last page ended, readable by any instance of the driver."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from grpc import StatusCode

from .errors import CsiError, invalid

#: Objects that one command lists.
CHUNK = 500

Row = dict[str, Any]
#: Lists what comes after a marker in a pool spec, at most so many rows.
Lister = Callable[[str, int, str], Awaitable[list[Row]]]


def encode_token(spec: str, marker: str) -> str:
    """Return the token for what comes after the name ``marker`` in a pool spec."""
    return base64.urlsafe_b64encode(json.dumps([spec, marker]).encode()).decode()


def decode_token(token: str, specs: Sequence[str]) -> tuple[str, str]:
    """Return the (pool spec, marker) of a token; ABORTED for one that the driver did not make."""
    try:
        spec, marker = json.loads(base64.b64decode(token, altchars=b"-_", validate=True))
        if isinstance(spec, str) and isinstance(marker, str) and spec in specs:
            return spec, marker
    except (ValueError, TypeError, binascii.Error):
        pass
    raise CsiError(StatusCode.ABORTED, "starting_token is not valid (any more); start again without one")


async def page(
    specs: Sequence[str], max_entries: int, token: str, lister: Lister, wanted: Callable[[Row], bool]
) -> tuple[list[Row], str]:
    """Return at most ``max_entries`` (0: all) wanted rows of several pool specs and the token of the next page."""
    if max_entries < 0:
        raise invalid(f"max_entries {max_entries} is negative")
    spec, marker = decode_token(token, specs) if token else (specs[0] if specs else "", "")
    rows: list[Row] = []
    for position in specs[specs.index(spec) :] if specs else []:
        while True:
            # One more than needed, so that there is a token only when there is more.
            limit = min(CHUNK, max_entries - len(rows) + 1) if max_entries else CHUNK
            found = await lister(position, limit, marker)
            for row in found:
                if not wanted(row):
                    continue
                if max_entries and len(rows) == max_entries:
                    return rows, encode_token(rows[-1]["_spec"], rows[-1]["name"])
                rows.append({**row, "_spec": position})
            if len(found) < limit:
                break
            marker = found[-1]["name"]
        marker = ""
    return rows, ""
