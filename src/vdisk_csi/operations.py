"""Waiting for many operations of vdisk at once: one command asks for all of them, however many calls wait."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from grpc import StatusCode

from .deadline import Deadline
from .errors import CsiError

_log = logging.getLogger(__name__)
#: Seconds between two looks: at least, more for each operation that is waited for, at most; and after one that failed.
#: A lone call shall not wait for its answer, and many shall not keep the module's command thread busy with looks.
_LEAST, _MORE, _MOST, _AFTER_FAILURE = 0.004, 0.0005, 0.04, 0.5
#: Operations that one command asks for.
_BATCH = 500

Row = dict[str, Any]


class Operations:
    """Operations that calls wait for. ``ask`` returns the rows of ``vdisk op ls --ids``."""

    def __init__(self, ask: Callable[[Sequence[str]], Awaitable[list[Row]]]) -> None:
        self._ask = ask
        self._waiting: dict[str, list[asyncio.Future[Row]]] = {}
        self._latest: dict[str, Row] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """How many operations are waited for."""
        return len(self._waiting)

    async def ended(self, op_id: str, deadline: Deadline) -> Row:
        """Return the row of an operation once it answered, failed, or is not known any more; ABORTED if too late."""
        future: asyncio.Future[Row] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(op_id, []).append(future)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._poll())
        try:
            return await deadline.wait(future)
        except TimeoutError:
            raise CsiError(StatusCode.ABORTED, self._explain(op_id)) from None
        finally:
            others = self._waiting.get(op_id, [])
            if future in others:
                others.remove(future)
            if not others:
                self._waiting.pop(op_id, None)
                self._latest.pop(op_id, None)

    def _explain(self, op_id: str) -> str:
        row = self._latest.get(op_id, {})
        reason = (row.get("error") or {}).get("message") or ", ".join(row.get("waiting_for") or [])
        return f"operation {op_id} goes on; the same call waits for it again" + (f" ({reason})" if reason else "")

    async def _poll(self) -> None:
        while self._waiting:
            ids = list(self._waiting)
            pause = min(_LEAST + _MORE * len(ids), _MOST)
            for start in range(0, len(ids), _BATCH):
                try:
                    rows = await self._ask(ids[start : start + _BATCH])
                except CsiError as error:
                    _log.warning("looking at operations failed: %s", error.message)
                    pause = _AFTER_FAILURE
                    continue
                for row in rows:
                    self._look(row)
            await asyncio.sleep(pause)

    def _look(self, row: Row) -> None:
        op_id = row["id"]
        if op_id in self._waiting:
            self._latest[op_id] = row
        if row["answered"] or row["state"] in ("done", "failed", "unknown"):
            for future in self._waiting.pop(op_id, []):
                if not future.done():
                    future.set_result(row)
