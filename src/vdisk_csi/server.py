"""The gRPC server: services from objects whose methods are named as calls are, and the one place that maps errors."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import stat
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import message_factory
from google.protobuf.message import Message

from .call import REQUEST_ID, Call
from .deadline import deadline_of
from .errors import CsiError
from .logs import shown
from .metrics import Metrics
from .proto import csi_pb2

_log = logging.getLogger(__name__)
_REQUEST_ID_HEADER = "x-request-id"
Method = Callable[[Any, Call], Awaitable[Message]]


class BadEndpoint(ValueError):
    """An endpoint that the driver can't listen at; the message says why."""


def address_of(endpoint: str) -> str:
    """Return gRPC's address of ``unix:///path``, ``unix:/path``, ``/path`` or ``tcp://host:port``."""
    if endpoint.startswith("tcp://"):
        host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
        if not host or not port.isdigit():
            raise BadEndpoint(f"{endpoint!r} is not of the form tcp://host:port")
        return f"{host}:{port}"
    path = endpoint.removeprefix("unix:")
    if path.startswith("//"):
        path = path[2:]
    if not path.startswith("/"):
        raise BadEndpoint(f"{endpoint!r} is neither unix:///path nor tcp://host:port")
    return f"unix:{path}"


def clear_socket(address: str) -> None:
    """Remove the socket that a killed driver left behind; raises :class:`BadEndpoint` if somebody listens there."""
    if not address.startswith("unix:"):
        return
    path = Path(address.removeprefix("unix:"))
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise BadEndpoint(f"{path} exists and is no socket")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            os.unlink(path)
        else:
            raise BadEndpoint(f"somebody listens at {path} already")


class Server:
    """Serves CSI. ``timeout`` is the longest that a call may take, in seconds."""

    def __init__(self, timeout: float, metrics: Metrics) -> None:
        self._timeout = timeout
        self._metrics = metrics
        self._server = grpc.aio.server()

    def add(self, service: str, parts: Sequence[object]) -> None:
        """Serve a service; each of its calls is the method of that name of one of the parts, if any has it."""
        description = csi_pb2.DESCRIPTOR.services_by_name[service]
        calls: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        for method in description.methods:
            found = [getattr(part, method.name) for part in parts if hasattr(part, method.name)]
            if found:
                request = message_factory.GetMessageClass(method.input_type)
                calls[method.name] = grpc.unary_unary_rpc_method_handler(
                    self._behaviour(f"{service}/{method.name}", found[0]),
                    request_deserializer=request.FromString,
                    response_serializer=_serialize,
                )
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(description.full_name, calls),))

    async def start(self, address: str) -> None:
        """Listen at an address; raises :class:`BadEndpoint` if that can't be."""
        clear_socket(address)
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise BadEndpoint(f"can't listen at {address}: {error}") from error
        if not port:
            raise BadEndpoint(f"can't listen at {address}")
        await self._server.start()

    async def stop(self, grace: float) -> None:
        """Take no more calls, and give those under way so many seconds to end."""
        await self._server.stop(grace)

    def _behaviour(self, name: str, method: Method) -> Callable[[Message, Any], Awaitable[Message]]:
        async def behaviour(request: Message, context: grpc.aio.ServicerContext[Any, Any]) -> Message:
            metadata: Mapping[str, Any] = dict(context.invocation_metadata() or ())
            request_id = str(metadata.get(_REQUEST_ID_HEADER) or uuid.uuid4())
            REQUEST_ID.set(request_id)
            call = Call(name, request_id, deadline_of(context.time_remaining(), self._timeout))
            code, about = grpc.StatusCode.OK, ""
            start = time.monotonic()
            self._metrics.begin(name)
            if _log.isEnabledFor(logging.DEBUG):
                _log.debug("call", extra={"method": name, "request": shown(request)})
            try:
                return await method(request, call)
            except CsiError as error:
                code, about = error.code, error.message
            except asyncio.CancelledError:
                code, about = grpc.StatusCode.CANCELLED, "the client went away"
                raise
            except Exception:
                _log.exception("unexpected error", extra={"method": name})
                code, about = grpc.StatusCode.INTERNAL, f"unexpected error; see the driver's log, request {request_id}"
            finally:
                seconds = time.monotonic() - start
                self._metrics.end(name, code.name, seconds)
                extra = {"method": name, "code": code.name, "seconds": round(seconds, 4), **_names(request)}
                _log.info(about or "done", extra=extra)
            await context.abort(code, about)
            raise AssertionError("abort raises")

        return behaviour


def _names(request: Message) -> dict[str, str]:
    """Return what a request is about, for the log."""
    fields = (
        "name",
        "volume_id",
        "snapshot_id",
        "group_snapshot_id",
        "source_volume_id",
        "target_path",
        "staging_target_path",
    )
    found = {field: str(getattr(request, field, "")) for field in fields}
    return {("volume_name" if key == "name" else key): value for key, value in found.items() if value}


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
