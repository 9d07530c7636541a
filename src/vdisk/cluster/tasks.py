"""rbd_support's task queue, reached with vdisk's own key."""

from __future__ import annotations

import contextlib
import json
import logging

from ..model.errors import Internal, InvalidArgument, NotFound
from ..model.observed import Location, Task
from . import omap
from .connection import Connection
from .mgr_commands import CommandClient

#: rbd_support's RBD_TASK_OID.
_OBJECT = "rbd_task"


class TaskQueue:
    """Adds removals to rbd_support's durable queue. Adding one that is there answers with the one that is there."""

    def __init__(self, connection: Connection, log: logging.Logger) -> None:
        self._client = CommandClient(connection)
        self._log = log

    def add_trash_remove(self, where: Location, image_id: str) -> str | None:
        """Queue the removal of a trashed image; returns the task id, None when the image is gone already."""
        spec = f"{where}/{image_id}"
        try:
            out = self._client.send({"prefix": "rbd task add trash remove", "image_id_spec": spec})
        except NotFound:
            return None
        try:
            task_id = str(json.loads(out)["id"])
        except (ValueError, LookupError, TypeError):
            raise Internal(f"rbd_support answered 'rbd task add trash remove {spec}' in an unknown form") from None
        self._log.info("rbd task add trash remove %s: task %s", spec, task_id)
        return task_id

    def of(self, connection: Connection, where: Location) -> dict[str, str]:
        """Return the removals from the trash of a pool and namespace: image id → task id.

        Read from where rbd_support keeps its tasks until they are done: the omap of the object ``rbd_task``, JSON
        values with ``id`` and ``refs``. That costs one read, and works while rbd_support itself is busy.
        """
        with connection.ioctx(where, f"reading the tasks of {where}") as ioctx:
            found = omap.get_all(ioctx, _OBJECT) or {}
        tasks = {}
        for value in found.values():
            try:
                task = json.loads(value)
                if task["refs"]["action"] == "trash remove":
                    tasks[str(task["refs"]["image_id"])] = str(task["id"])
            except (ValueError, LookupError, TypeError):
                self._log.warning("a task of rbd_support in %s has an unknown form", where)
        return tasks

    def add_flatten(self, where: Location, image: str) -> None:
        """Queue the flattening of an image; one that has no parent any more is no error."""
        spec = f"{where}/{image}"
        try:
            self._client.send({"prefix": "rbd task add flatten", "image_spec": spec})
        except InvalidArgument:
            return  # "image does not have a parent": another task, or somebody, was faster
        self._log.info("rbd task add flatten %s", spec)

    def list(self) -> list[Task]:
        """Return every queued task."""
        tasks = []
        for item in json.loads(self._client.send({"prefix": "rbd task list", "format": "json"}) or "[]"):
            refs = item.get("refs", {})
            tasks.append(
                Task(
                    id=str(item["id"]),
                    action=str(refs.get("action", "")),
                    pool=str(refs.get("pool_name", "")),
                    namespace=str(refs.get("pool_namespace", "")),
                    image=str(refs.get("image_id") or refs.get("image_name") or ""),
                    message=str(item.get("message", "")),
                    retry_message=item.get("retry_message"),
                    progress=float(item.get("progress") or 0.0),
                )
            )
        return tasks

    def cancel(self, task_id: str) -> None:
        """Cancel a task; one that is gone is no error."""
        with contextlib.suppress(NotFound):
            self._client.send({"prefix": "rbd task cancel", "task_id": task_id})
            self._log.info("rbd task cancel %s", task_id)
