"""Talking to a cluster as a client: the release's own tools, and librados handles of this Python."""

import json
import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any

import rados as librados

from harness import cli, genesis, keys
from harness.layout import Layout

ADMIN = "client.admin"
Answer = tuple[int, str, str]
"""Return code (0 or a negative errno), output, status text."""

# Handles with a command that never came back. Shutting such a one down could hang, so they are kept until the end.
_abandoned: list[librados.Rados] = []


class ClusterClient:
    """The commands of one cluster, through whatever client."""

    def __init__(self, plan: genesis.Plan) -> None:
        self.plan = plan
        self.layout: Layout = plan.layout
        self._handles: dict[str, librados.Rados] = {}
        self._stuck: set[str] = set()
        self._handles_lock = threading.Lock()

    def ceph(
        self,
        *args: str,
        check: bool = True,
        entity: str = ADMIN,
        timeout: float = 60,
        input: str | bytes | None = None,
    ) -> cli.Result:
        """Run `ceph ARGS` of the cluster's release. Raises `CephError` if it fails and `check` is true."""
        return self._tool("ceph", args, check=check, entity=entity, timeout=timeout, input=input)

    def rbd(
        self,
        *args: str,
        check: bool = True,
        entity: str = ADMIN,
        timeout: float = 60,
        input: str | bytes | None = None,
    ) -> cli.Result:
        """Run `rbd ARGS` of the cluster's release."""
        return self._tool("rbd", args, check=check, entity=entity, timeout=timeout, input=input)

    def rados(
        self,
        *args: str,
        check: bool = True,
        entity: str = ADMIN,
        timeout: float = 60,
        input: str | bytes | None = None,
    ) -> cli.Result:
        """Run `rados ARGS` of the cluster's release."""
        return self._tool("rados", args, check=check, entity=entity, timeout=timeout, input=input)

    def ceph_json(self, *args: str, entity: str = ADMIN, timeout: float = 60) -> Any:
        """Run `ceph ARGS --format json` and return what the JSON holds."""
        return json.loads(self.ceph(*args, "--format", "json", entity=entity, timeout=timeout).out)

    def rbd_json(self, *args: str, entity: str = ADMIN, timeout: float = 60) -> Any:
        """Run `rbd ARGS --format json` and return what the JSON holds."""
        return json.loads(self.rbd(*args, "--format", "json", entity=entity, timeout=timeout).out)

    def connect(self, entity: str = ADMIN) -> librados.Rados:
        """Return a connected handle of this Python's librados, one per entity, closed with the cluster."""
        with self._handles_lock:
            if entity not in self._handles:
                self._handles[entity] = self.new_handle(entity)
            return self._handles[entity]

    def new_handle(self, entity: str = ADMIN, **conf: str) -> librados.Rados:
        """Return a connected handle that belongs to the caller, who shuts it down. `conf`: options to override."""
        overrides = {
            "keyring": str(self.layout.keyring(entity)),
            "log_file": "",
            "log_to_stderr": "false",
            "client_mount_timeout": "10",
            **conf,
        }
        handle = librados.Rados(name=entity, conffile=str(self.layout.conf), conf=overrides)
        handle.connect()
        return handle

    def mon_command(self, cmd: Mapping[str, Any], *, entity: str = ADMIN, timeout: float = 60) -> Answer:
        """Send a command to the monitors through librados."""
        return self._send("mon_command", cmd, entity, timeout)

    def mgr_command(self, cmd: Mapping[str, Any], entity: str = ADMIN, timeout: float = 60) -> Answer:
        """Send a command to the active manager through librados, as a JSON client does.

        Raises `CommandTimeout` when no answer came in `timeout` seconds (there may be no active manager).
        """
        return self._send("mgr_command", cmd, entity, timeout)

    def mon(self, prefix: str, **args: Any) -> Any:
        """Send a monitor command that must work; return its JSON output, or None if it has none."""
        cmd = {"prefix": prefix, "format": "json", **args}
        ret, out, status = self.mon_command(cmd)
        if ret:
            raise cli.CephError(cli.Result(rc=ret, out=out, err=status + "\n", argv=(json.dumps(cmd),)))
        return json.loads(out) if out.strip() else None

    def auth(self, entity: str, **caps: str) -> None:
        """Create an entity (or change its caps) and its keyring file, so that `ceph()` and `connect()` accept it."""
        flat = [part for pair in caps.items() for part in pair]
        made = self.mon_command({"prefix": "auth get-or-create", "entity": entity, "caps": flat})
        if made[0]:
            self.mon("auth caps", entity=entity, caps=flat)
        self.save_key(entity, self.layout.keyring(entity))

    def save_key(self, entity: str, path: Any) -> None:
        """Write the keyring file of an entity that the monitors know."""
        secret: str = self.mon("auth get-key", entity=entity)["key"]
        genesis.write_keyring(path, entity, secret, keys.NO_CAPS)

    def close_handles(self) -> None:
        """Shut the cached handles down, except those on which a command hangs."""
        with self._handles_lock:
            for entity, handle in self._handles.items():
                if entity in self._stuck:
                    _abandoned.append(handle)
                else:
                    _in_time(handle.shutdown, 10)
            self._handles.clear()
            self._stuck.clear()

    def _tool(self, tool: str, args: tuple[str, ...], *, entity: str, **options: Any) -> cli.Result:
        argv = (tool, "--conf", str(self.layout.conf), "--name", entity, *args)
        return cli.run(self.plan.command(*argv), shown=(tool, *args), **options)

    def _send(self, kind: str, cmd: Mapping[str, Any], entity: str, timeout: float) -> Answer:
        handle = self.connect(entity)
        text = json.dumps(cmd)
        answer = _in_time(lambda: getattr(handle, kind)(text, b""), timeout)
        if answer is None:
            self._stuck.add(entity)
            raise cli.CommandTimeout((kind, text), timeout)
        ret, out, status = answer
        return ret, out.decode(errors="replace"), status


def _in_time(work: Callable[[], Any], timeout: float) -> tuple[Any, ...] | None:
    """Return what `work` returns, or () for None; None if it is not done within `timeout` seconds."""
    done: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue()

    def body() -> None:
        try:
            done.put((work(), None))
        except BaseException as error:
            done.put((None, error))

    threading.Thread(target=body, name="ceph-command", daemon=True).start()
    try:
        value, failure = done.get(timeout=timeout)
    except queue.Empty:
        return None
    if failure is not None:
        raise failure
    return () if value is None else value
