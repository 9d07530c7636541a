"""``vdisk`` commands for asynchronous callers: sent again while the manager can't answer, waited for in batches.

The module has one command thread, so everything that takes time is sent with ``wait`` 0, which answers within
milliseconds, and its end is looked for together with that of all other calls (:mod:`.operations`).
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from grpc import StatusCode

from .cluster import Answer, Cluster, Identity
from .deadline import Deadline
from .errors import TRANSIENT, Again, CsiError, from_vdisk
from .metrics import Metrics
from .operations import Operations, Row
from .threads import Threads

_log = logging.getLogger(__name__)
#: Threads inside of librados: for commands to the manager, which hang while there is none; for looking at operations,
#: so that new requests are not in the way of answers to old ones; and for what needs no manager.
_MGR_THREADS, _POLL_THREADS, _MON_THREADS = 24, 4, 4
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
#: Connections of identities that requests named in their secrets.
_KEEP_CLIENTS = 32
#: Errors without JSON, that is of the manager itself, which it answers with while it loads its modules.
_LOADING = {-errno.EOPNOTSUPP, -errno.EAGAIN, -errno.EINVAL, -errno.ETIMEDOUT, -errno.ENOTCONN, -errno.ESHUTDOWN}


class Lanes:
    """The threads that all clients share."""

    def __init__(self) -> None:
        self.mgr = Threads("mgr", _MGR_THREADS)
        self.poll = Threads("poll", _POLL_THREADS)
        self.mon = Threads("mon", _MON_THREADS)


class Client:
    """What one identity asks of the cluster. ``patience`` is in seconds: how long a manager may give no answer."""

    def __init__(self, cluster: Cluster, lanes: Lanes, patience: float, metrics: Metrics) -> None:
        self.cluster = cluster
        self._lanes = lanes
        self._patience = patience
        self._metrics = metrics
        self._fsid = ""
        self.operations = Operations(self._rows)

    async def send(self, words: str, deadline: Deadline, **arguments: Any) -> Any:
        """Send ``vdisk <words>`` and return what its JSON holds; UNAVAILABLE when no manager answers in time."""
        return await self._send(self._lanes.mgr, words, deadline, arguments)

    async def change(self, words: str, deadline: Deadline, **arguments: Any) -> Row:
        """Send a changing command and wait until its answer is true; ABORTED when time runs out before.

        Returns the answer; what was pending at first has the ``handle`` and ``image`` that it got in the end, and still
        the state ``pending``.
        """
        while True:
            answer: Row = await self.send(words, deadline, wait=0, **arguments)
            if answer.get("state") != "pending" or "operation" not in answer:
                return answer
            row = await self.operations.ended(answer["operation"], deadline)
            if row["answered"]:
                return {**answer, "handle": row["handle"], "image": row["image"]}
            if row["state"] == "unknown":
                # Forgotten, with the manager that knew it or because there was nothing to do: asking again tells.
                await asyncio.sleep(_FIRST_PAUSE)
                continue
            raise from_vdisk(row["error"] or {"code": "internal", "message": f"operation {row['id']} failed"})

    async def mon(self, prefix: str, deadline: Deadline, **arguments: Any) -> Any:
        """Send a command to the monitors and return what its JSON holds."""
        text = json.dumps({"prefix": prefix, "format": "json", **arguments}, ensure_ascii=False)
        code, out, status = await self.blocking(lambda: self.cluster.mon_command(text), deadline, "the monitors")
        if code:
            raise CsiError(StatusCode.UNAVAILABLE, f"{prefix}: {status or errno.errorcode.get(-code, code)}")
        return json.loads(out)

    async def fsid(self, deadline: Deadline) -> str:
        """Return the cluster's fsid."""
        if not self._fsid:
            self._fsid = await self.blocking(self.cluster.fsid, deadline, "the cluster")
        return self._fsid

    async def blocking(self, function: Any, deadline: Deadline, who: str) -> Any:
        """Run a blocking call of the connection that does not need a manager."""
        try:
            return await deadline.wait(self._lanes.mon.run(function))
        except TimeoutError:
            raise CsiError(StatusCode.UNAVAILABLE, f"no answer from {who} in time") from None
        except Again as again:
            raise CsiError(StatusCode.UNAVAILABLE, str(again)) from None

    async def _send(self, lane: Threads, words: str, deadline: Deadline, arguments: Mapping[str, Any]) -> Any:
        command = {"prefix": f"vdisk {words}", "format": "json", **arguments}
        # A character beyond U+FFFF as a JSON escape would kill the manager.
        text = json.dumps(command, ensure_ascii=False)
        patience = deadline.within(self._patience)
        pause = _FIRST_PAUSE
        while True:
            try:
                with self._metrics.command(words):
                    return _result(await self._answer(lane, words, text, patience))
            except Again as again:
                if patience.left() <= pause:
                    raise CsiError(StatusCode.UNAVAILABLE, str(again)) from None
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    async def _answer(self, lane: Threads, words: str, text: str, patience: Deadline) -> Answer:
        future = lane.run(lambda: self.cluster.mgr_command(text))
        try:
            return await patience.wait(future)
        except TimeoutError:
            future.cancel()  # not to be sent any more, if it still waits for a thread
            raise CsiError(
                StatusCode.UNAVAILABLE, f"vdisk {words}: no manager answered within {self._patience:g} s or in time"
            ) from None

    async def _rows(self, ids: Sequence[str]) -> list[Row]:
        rows: list[Row] = await self._send(self._lanes.poll, "op ls", Deadline(self._patience), {"ids": ",".join(ids)})
        return rows


class Clients:
    """Clients by identity: the driver's own, and those whose keys requests bring along in their secrets."""

    def __init__(self, own: Identity, patience: float, metrics: Metrics) -> None:
        self._own = own
        self._patience = patience
        self._metrics = metrics
        self._lanes = Lanes()
        self._clients: OrderedDict[Identity, Client] = OrderedDict()

    def of(self, secrets: Mapping[str, str] | None = None) -> Client:
        """Return the client for a request's secrets; without any, the driver's own."""
        identity = self._own.with_secrets(secrets or {})
        client = self._clients.get(identity)
        if client is None:
            client = Client(Cluster(identity), self._lanes, self._patience, self._metrics)
            self._clients[identity] = client
            self._forget()
        self._clients.move_to_end(identity)
        return client

    def pending(self) -> int:
        """Return how many operations calls wait for."""
        return sum(client.operations.waiting for client in self._clients.values())

    async def close(self, seconds: float) -> None:
        """Close all connections, unless commands hang on them; then they end with the process."""
        if self._lanes.mgr.busy or self._lanes.poll.busy:
            return
        deadline = Deadline(seconds)
        for client in self._clients.values():
            try:
                await deadline.wait(self._lanes.mon.run(client.cluster.close))
            except TimeoutError:
                return

    def _forget(self) -> None:
        for identity in list(self._clients)[: max(0, len(self._clients) - _KEEP_CLIENTS)]:
            if identity != self._own and not self._clients[identity].operations.waiting:
                client = self._clients.pop(identity)
                self._lanes.mon.run(client.cluster.close)


def _result(answer: Answer) -> Any:
    """Return what a command's JSON holds, or raise its error."""
    code, out, status = answer
    if code == 0:
        return json.loads(out) if out.strip() else None
    try:
        error = json.loads(out)["error"]
    except (ValueError, LookupError, TypeError):
        if code in _LOADING:
            raise Again(f"the manager is not ready: {status}") from None
        known = StatusCode.PERMISSION_DENIED if code == -errno.EACCES else StatusCode.INTERNAL
        raise CsiError(known, status or f"error {code}") from None
    if error.get("code") in TRANSIENT:
        raise Again(str(error.get("message")))
    raise from_vdisk(error)
