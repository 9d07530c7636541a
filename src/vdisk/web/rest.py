"""The REST resources below ``/api/vdisk``: which request is which command.

Arguments, their types and help come from the table of commands, so that a resource has exactly what its command has,
and a command that this version does not have has no resource. Path parameters are arguments of the command; the others
travel in the query of a GET or DELETE, and in the JSON body of a POST or PUT.
"""

from __future__ import annotations

from dataclasses import dataclass

READ, CREATE, UPDATE, DELETE = "read", "create", "update", "delete"
#: Resources that are no command: pools and namespaces that may hold volumes, with their space.
POOLS = "pools"


@dataclass(frozen=True)
class Resource:
    """A request: ``path`` below ``/api/vdisk``, ``words`` of the command, ``permission`` on the scope rbd-image."""

    method: str
    path: str
    words: str
    permission: str
    without: tuple[str, ...] = ()
    """Arguments of the command that the request does not take."""

    @property
    def action(self) -> str:
        """The name of the function that serves it."""
        return f"{self.method.lower()}_{self.words.replace(' ', '_')}"


#: By controller: what follows ``/api/vdisk``, its description, and its requests.
RESOURCES: tuple[tuple[str, str, tuple[Resource, ...]], ...] = (
    (
        "volume",
        "Volumes: logical disks on RBD",
        (
            Resource("GET", "", "volume ls", READ),
            Resource("POST", "", "volume create", CREATE),
            Resource("GET", "/{volume}", "volume info", READ),
            Resource("DELETE", "/{volume}", "volume rm", DELETE),
            Resource("PUT", "/{volume}/size", "volume resize", UPDATE),
            Resource("POST", "/{volume}/clone", "volume clone", CREATE),
            Resource("POST", "/{volume}/flatten", "volume flatten", UPDATE),
            Resource("POST", "/{volume}/revert", "volume revert", UPDATE),
            Resource("POST", "/{volume}/release", "release", UPDATE),
        ),
    ),
    (
        "snapshot",
        "Snapshots of volumes and of any other RBD image",
        (
            Resource("GET", "", "snap ls", READ),
            Resource("POST", "", "snap create", CREATE),
            Resource("GET", "/{snapshot}", "snap info", READ),
            Resource("DELETE", "/{snapshot}", "snap rm", DELETE),
            Resource("POST", "/{snapshot}/restore", "volume restore", CREATE),
        ),
    ),
    (
        "group",
        "Snapshots of several volumes at one moment",
        (
            Resource("GET", "", "group snap ls", READ),
            Resource("POST", "", "group snap create", CREATE),
            Resource("GET", "/{group}", "group snap info", READ),
            Resource("DELETE", "/{group}", "group snap rm", DELETE),
        ),
    ),
    (
        "operation",
        "Operations under way and those that ended lately",
        (
            Resource("GET", "", "op ls", READ),
            Resource("GET", "/{id}", "op info", READ),
            Resource("POST", "/{id}/cancel", "op cancel", UPDATE),
            Resource("POST", "/{id}/retry", "op retry", UPDATE),
        ),
    ),
    (
        "trash",
        "The trash, and undelete",
        (
            Resource("GET", "", "trash ls", READ),
            Resource("DELETE", "", "trash purge", DELETE),
            Resource("POST", "/{id}/restore", "trash restore", CREATE),
        ),
    ),
    (
        "check",
        "Findings: what disagrees between journal, images, trash, tasks and operations, and its repair",
        (
            Resource("GET", "", "check", READ, without=("repair",)),
            Resource("POST", "", "check", UPDATE),
        ),
    ),
    (
        "schedule",
        "Snapshot schedules",
        (
            Resource("GET", "", "schedule ls", READ),
            Resource("GET", "/status", "schedule status", READ),
            Resource("POST", "", "schedule add", CREATE),
            Resource("DELETE", "", "schedule rm", DELETE),
        ),
    ),
    ("tree", "Lineage", (Resource("GET", "", "tree", READ),)),
    ("adopt", "Existing images as volumes", (Resource("POST", "", "adopt", CREATE),)),
    ("status", "Figures", (Resource("GET", "", "status", READ),)),
    ("pool", "Pools and namespaces that may hold volumes", (Resource("GET", "", POOLS, READ),)),
)

#: HTTP status of each error code; anything else is 500.
STATUS = {
    "invalid_argument": 400,
    "out_of_range": 400,
    "denied": 403,
    "not_found": 404,
    "already_exists": 409,
    "in_use": 409,
    "has_dependents": 409,
    "cancelled": 409,
    "unsupported": 501,
    "pending": 503,
    "throttled": 503,
    "not_ready": 503,
    "no_space": 507,
}
