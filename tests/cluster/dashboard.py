"""The Ceph dashboard of a test cluster: switched on, with users, and its REST API as a client uses it."""

import http.client
import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.cluster import Cluster
from harness.genesis import free_ports
from harness.wait import wait_for

ADMIN, READER, STRANGER = "admin", "reader", "stranger"
PASSWORD = "Correct-horse-7-battery"
#: Role of each user: everything, only looking, and nothing that has to do with RBD.
ROLES = {ADMIN: "administrator", READER: "read-only", STRANGER: "cephfs-manager"}
ACCEPT = "application/vnd.ceph.api.v1.0+json"


@dataclass(frozen=True)
class Reply:
    """What a request was answered with."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.text)


class Board:
    """The dashboard of a cluster, on 127.0.0.1; ``prefix`` is the option ``url_prefix`` (``/ceph``).

    It is asked over plain HTTP, or HTTPS where ``tls`` says which certificate to accept; ``start`` is for plain HTTP.
    """

    def __init__(self, cluster: Cluster, prefix: str = "", tls: ssl.SSLContext | None = None) -> None:
        self.cluster = cluster
        self.prefix = prefix
        self.tls = tls
        (self.port,) = free_ports(1)
        self.tokens: dict[str, str] = {}

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}{self.prefix}"

    def start(self) -> None:
        """Switch it on, make the users, and return when it answers."""
        cluster = self.cluster
        settings = {"ssl": "false", "server_addr": "127.0.0.1", "server_port": str(self.port)}
        settings |= {"standby_behaviour": "error", "standby_error_status_code": "503"}
        settings |= {"url_prefix": self.prefix} if self.prefix else {}
        for name, value in settings.items():
            cluster.ceph("config", "set", "mgr", f"mgr/dashboard/{name}", value)
        cluster.ceph("mgr", "module", "enable", "dashboard")
        self.wait()
        path = cluster.dir / "password"
        path.write_text(PASSWORD)
        for user, role in ROLES.items():
            # Right after the module's start the mgr may not know its commands yet.
            wait_for(lambda user=user, role=role: self._make(user, role, str(path)), 40, f"user {user}", interval=0.2)
        # Modules start one after the other, and which one is first is chance.
        if "vdisk" in cluster.mgr_map()["modules"]:
            cluster.wait_module("vdisk")

    def _make(self, user: str, role: str, path: str) -> bool:
        words = ("dashboard", "ac-user-create", user, "-i", path, role, "--force-password")
        return self.cluster.ceph(*words, check=False).rc == 0

    def wait(self) -> None:
        """Wait until it answers."""
        wait_for(lambda: self.get("/docs/openapi.json", accept="*/*").status == 200, 60, "the dashboard answers",
                 ignore=(OSError, http.client.HTTPException))  # fmt: skip

    def sign_in(self, user: str) -> str:
        """Return a user's token."""
        if user not in self.tokens:
            body = {"username": user, "password": PASSWORD}
            reply = self.send("POST", "/api/auth", body=body)
            assert reply.status == 201, reply
            self.tokens[user] = str(reply.json["token"])
        return self.tokens[user]

    def get(self, path: str, user: str | None = None, **options: Any) -> Reply:
        """Send a GET."""
        return self.send("GET", path, user, **options)

    def send(
        self,
        method: str,
        path: str,
        user: str | None = None,
        *,
        body: Any = None,
        accept: str = ACCEPT,
        query: Mapping[str, Any] | None = None,
    ) -> Reply:
        """Send a request, as ``user`` if one is given."""
        url = self.url + path + ("?" + urllib.parse.urlencode(query) if query else "")
        headers = {"Accept": accept}
        if user is not None:
            headers["Cookie"] = f"token={self.sign_in(user)}"
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(url, data=data, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60, context=self.tls) as answer:
                return Reply(answer.status, answer.headers, answer.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, error.headers, error.read().decode())
