"""vdisk in the dashboard of every release: REST with its login and roles, its documentation; it harms nothing."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.dashboard import ADMIN, READER, STRANGER, Board
from cluster.support import MIB, SNAPSHOT_FIELDS, VOLUME_FIELDS, Vdisk, image_names
from harness.cluster import Cluster
from harness.config import FAST
from harness.releases import ensure_root
from harness.wait import wait_for
from vdisk.commands.table import COMMANDS

POOL = "rbd"


@pytest.fixture(scope="module")
def board(release_name: str) -> Iterator[Board]:
    """A cluster of its own with vdisk and the dashboard."""
    ensure_root(release_name)
    with Cluster(release_name, conf=FAST) as cluster:
        cluster.ceph("config", "set", "mgr", "mgr/vdisk/check_interval", "0")
        cluster.create_pool(POOL, namespaces=["ns1"])
        made = Board(cluster)
        made.start()
        yield made


@pytest.fixture
def vdisk(board: Board) -> Vdisk:
    """vdisk's commands as client.admin."""
    return Vdisk(board.cluster)


def ok(board: Board, method: str, path: str, user: str = ADMIN, **options: Any) -> Any:
    """Send a request that has to work; returns its JSON."""
    reply = board.send(method, f"/api/vdisk{path}", user, **options)
    assert reply.status in (200, 201), (method, path, reply.status, reply.text)
    return reply.json


def refused(board: Board, method: str, path: str, status: int, user: str = ADMIN, **options: Any) -> dict[str, Any]:
    """Send a request that has to fail; returns the error's JSON."""
    reply = board.send(method, f"/api/vdisk{path}", user, **options)
    assert reply.status == status, (method, path, reply.status, reply.text)
    assert "Traceback" not in reply.text
    found: dict[str, Any] = reply.json
    return found


def test_the_whole_life_of_a_volume(board: Board, vdisk: Vdisk) -> None:
    name = "pvc-ü <b>&\"'"
    made = ok(board, "POST", "/volume", body={"pool_spec": POOL, "name": name, "size": "8M"})
    assert list(made) == VOLUME_FIELDS
    assert made.items() <= vdisk("volume info", volume=made["handle"]).items()
    handle = made["handle"]
    assert ok(board, "GET", f"/volume/{handle}")["watchers"] == []
    # A name with its pool, quoted twice as the dashboard's own routes want it.
    ok(board, "POST", "/volume", body={"pool_spec": f"{POOL}/ns1", "name": "other", "size": 4 * MIB})
    assert ok(board, "GET", f"/volume/{POOL}%252Fns1%252Fother")["name"] == "other"
    assert [item["name"] for item in ok(board, "GET", "/volume", query={"pool_spec": POOL})] == [name]
    assert ok(board, "GET", "/volume", query={"pool_spec": POOL, "limit": 1, "marker": name}) == []
    assert ok(board, "PUT", f"/volume/{handle}/size", body={"size": "16M"})["size"] == 16 * MIB
    spec = {"image_spec": f"{POOL}/{made['image']}", "snap_name": "shot"}
    shot = ok(board, "POST", "/snapshot", body=spec)
    assert list(shot) == SNAPSHOT_FIELDS
    assert [item["name"] for item in ok(board, "GET", "/snapshot", query={"pool_spec": POOL})] == ["shot"]
    vdisk.sealed(shot["handle"])
    assert ok(board, "GET", f"/snapshot/{shot['handle']}")["sealed"]
    restored = ok(board, "POST", f"/snapshot/{shot['handle']}/restore", body={"name": "restored", "size": "32M"})
    assert restored["source"]["handle"] == shot["handle"]
    assert ok(board, "POST", f"/volume/{handle}/clone", body={"name": "clone"})["source"] is not None
    (tree,) = [node for node in ok(board, "GET", "/tree", query={"pool_spec": POOL}) if node["children"]]
    assert tree["name"] == name
    operations = ok(board, "GET", "/operation")
    assert {"volume create", "snap create", "volume restore"} <= {op["kind"] for op in operations}
    assert ok(board, "GET", f"/operation/{operations[0]['id']}")["steps"]
    assert ok(board, "POST", f"/volume/{restored['handle']}/flatten", body={"dry_run": True})["steps"]
    # Nothing is changed by a plan.
    plan = ok(board, "DELETE", f"/volume/{handle}", query={"dry_run": "true"})
    assert plan["steps"][0]["step"] == "trash-image"
    gone = ok(board, "DELETE", f"/volume/{handle}", query={"keep_for": "7d"})
    assert gone["removed"] == handle
    assert [item["name"] for item in ok(board, "GET", "/trash", query={"pool_spec": POOL})] == [name]
    assert ok(board, "POST", f"/trash/{handle}/restore", body={"new_name": "back"})["handle"] == handle
    assert ok(board, "DELETE", "/trash", query={"pool_spec": POOL, "older_than": "1s"}) == {"purged": []}
    assert ok(board, "POST", f"/volume/{handle}/release")["image"] == made["image"]
    adopted = ok(board, "POST", "/adopt", body={"image_spec": f"{POOL}/{made['image']}", "name": "adopted"})
    assert adopted["name"] == "adopted"
    check = ok(board, "GET", "/check", query={"pool_spec": POOL, "wait": 30})
    assert (check["state"], check["findings"]) == ("done", [])
    assert ok(board, "POST", "/check", body={"pool_spec": POOL, "repair": True, "wait": 30})["left"] == 0
    assert ok(board, "GET", "/status")["stuck"] == 0
    (place,) = ok(board, "GET", "/pool")
    assert (place["pool"], place["namespaces"]) == (POOL, ["ns1"])
    assert place["available"] > 0
    for found in ("snapshot", "volume"):
        for item in ok(board, "GET", f"/{found}", query={"pool_spec": POOL}):
            ok(board, "DELETE", f"/{found}/{item['handle']}")
    ok(board, "DELETE", f"/volume/{POOL}%252Fns1%252Fother")
    vdisk.drained(POOL)
    assert image_names(board.cluster, POOL) == []


def test_errors_have_the_dashboards_form_and_vdisks_codes(board: Board) -> None:
    create = {"pool_spec": POOL, "name": "x"}
    for method, path, status, code, options in (
        ("GET", f"/volume/{POOL}%252Fnone", 404, "not_found", {}),
        ("GET", "/volume/nonsense", 400, "invalid_argument", {}),
        ("POST", "/volume", 400, "invalid_argument", {"body": {**create, "size": "10 parsecs"}}),
        ("POST", "/volume", 400, "invalid_argument", {"body": {**create, "name": "a/b", "size": "1G"}}),
        ("POST", "/volume", 400, "invalid_argument", {"body": {**create, "size": "1G", "colour": "red"}}),
        ("GET", "/operation/none", 404, "not_found", {}),
        ("GET", "/volume", 404, "not_found", {"query": {"pool_spec": "none"}}),
        ("GET", "/volume", 400, "invalid_argument", {"query": {"pool_spec": POOL, "limit": "many"}}),
    ):
        error = refused(board, method, path, status, **options)
        assert (error["code"], error["component"]) == (code, "vdisk"), error
        assert error["detail"]
    # What the command needs and the request lacks is told by vdisk or by the dashboard itself.
    assert board.send("POST", "/api/vdisk/volume", ADMIN, body={"name": "x"}).status in (400, 404)
    assert board.send("GET", "/api/vdisk/check", ADMIN, query={"pool_spec": POOL, "repair": "true"}).status == 400


CHANGES = (
    ("POST", "/volume", {"pool_spec": POOL, "name": "x", "size": "4M"}),
    ("DELETE", "/volume/x", None),
    ("PUT", "/volume/x/size", {"size": "8M"}),
    ("POST", "/volume/x/clone", {"name": "y"}),
    ("POST", "/volume/x/flatten", {}),
    ("POST", "/volume/x/release", {}),
    ("POST", "/snapshot", {"image_spec": "rbd/x", "snap_name": "y"}),
    ("DELETE", "/snapshot/x", None),
    ("POST", "/snapshot/x/restore", {"name": "y"}),
    ("POST", "/operation/x/cancel", {}),
    ("POST", "/operation/x/retry", {}),
    ("POST", "/trash/x/restore", {}),
    ("DELETE", "/trash", None),
    ("POST", "/check", {"pool_spec": POOL, "repair": True}),
    ("POST", "/adopt", {"image_spec": "rbd/x", "name": "y"}),
)
LOOKS = ("/session", "/status", "/pool", "/operation", f"/volume?pool_spec={POOL}", f"/snapshot?pool_spec={POOL}",
         f"/trash?pool_spec={POOL}", f"/tree?pool_spec={POOL}", f"/check?pool_spec={POOL}")  # fmt: skip


def test_roles_decide_who_may_look_and_who_may_act(board: Board) -> None:
    for path in LOOKS:
        assert board.get(f"/api/vdisk{path}").status == 401, path
        assert board.get(f"/api/vdisk{path}", STRANGER).status == 403, path
        assert board.get(f"/api/vdisk{path}", READER).status == 200, path
    for method, path, body in CHANGES:
        for user, status in ((None, 401), (STRANGER, 403), (READER, 403)):
            assert board.send(method, f"/api/vdisk{path}", user, body=body).status == status, (method, path, user)
    assert ok(board, "GET", "/session", READER)["permissions"] == ["read"]
    assert ok(board, "GET", "/session")["permissions"] == ["read", "create", "update", "delete"]


def test_every_request_is_documented(board: Board) -> None:
    paths = board.get("/docs/openapi.json", accept="*/*").json["paths"]
    ours = {path: methods for path, methods in paths.items() if path.startswith("/api/vdisk")}
    for method, path, _ in CHANGES:
        shape = path.replace("/x", "/{id}" if path.startswith(("/operation", "/trash")) else "/{volume}")
        shape = shape.replace("{volume}", "{snapshot}") if path.startswith("/snapshot") else shape
        assert ours[f"/api/vdisk{shape}"][method.lower()]["security"] == [{"jwt": []}]
    create = ours["/api/vdisk/volume"]["post"]
    command = next(command for command in COMMANDS if command.words == "volume create")
    assert create["summary"] == command.help
    told = create["requestBody"]["content"]["application/json"]["schema"]
    assert set(told["properties"]) == {argument.name for argument in command.all_arguments}
    assert set(told["required"]) == {argument.name for argument in command.arguments if argument.required}
    listing = {item["name"]: item["in"] for item in ours["/api/vdisk/volume"]["get"]["parameters"]}
    assert listing == {"pool_spec": "query", "limit": "query", "marker": "query"}
    # What this version has no command for has no request.
    words = {command.words for command in COMMANDS}
    assert ("/api/vdisk/schedule" in ours) == ("schedule ls" in words)
    assert ("/api/vdisk/volume/{volume}/revert" in ours) == ("volume revert" in words)


def test_the_page_is_for_everybody_and_strict(board: Board) -> None:
    reply = board.get("/vdisk", accept="text/html")
    assert reply.status == 200
    assert reply.headers["Content-Type"].startswith("text/html")
    policy = reply.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert board.get("/vdisk/app.js", accept="*/*").headers["Content-Type"].startswith("text/javascript")
    icon = board.get("/vdisk/icon.svg", accept="*/*")
    assert icon.status == 200
    assert icon.headers["Content-Type"].startswith("image/svg+xml")
    for path in ("/vdisk/none.js", "/vdisk/..%2Frest.py", "/vdisk/%2e%2e%2frest.py"):
        assert board.get(path, accept="*/*").status == 404, path


def test_without_vdisk_the_dashboard_is_unharmed_and_says_so(board: Board) -> None:
    cluster = board.cluster
    controller = cluster.layout.modules / "dashboard/controllers/vdisk.py"
    link = cluster.layout.modules / "vdisk"
    cluster.disable_module()
    try:
        board.wait()
        error = refused(board, "GET", "/status", 503)
        assert (error["code"], error["component"]) == ("unavailable", "vdisk")
        assert "ceph mgr module enable vdisk" in error["detail"]
        assert board.get("/api/summary", ADMIN).status == 200
        assert board.get("/vdisk", accept="*/*").status == 200
        # The module's files are gone, as after half of an upgrade.
        target = link.readlink()
        link.unlink()
        try:
            restart(board)
            reply = board.get("/vdisk", accept="*/*")
            assert reply.status == 503
            assert "its mgr module is missing" in reply.text
            assert board.get("/api/summary", ADMIN).status == 200
        finally:
            link.symlink_to(target)
        # A controller that is broken in every way that one can think of.
        kept = controller.read_text()
        controller.write_text(kept.replace("from vdisk.web.dashboard import register", "raise MemoryError('x')"))
        restart(board)
        assert board.get("/vdisk", accept="*/*").status == 503
        assert board.get("/api/summary", ADMIN).status == 200
        controller.write_text(kept)
    finally:
        cluster.enable_module()
    board.wait()
    wait_for(lambda: board.get("/api/vdisk/status", ADMIN).status == 200, 40, "vdisk answers", ignore=(OSError,))


def restart(board: Board) -> None:
    """Restart the mgr, which loads everything anew."""
    cluster = board.cluster
    gid = cluster.mgr_map()["active_gid"]
    cluster.mgrs["x"].restart()
    cluster.wait_active_mgr(not_gid=gid)
    board.wait()


def test_a_call_that_fails_inside_of_vdisk_is_an_answer(board: Board) -> None:
    """An unexpected error is told without its insides, and the next request works."""
    reply = board.send("POST", "/api/vdisk/operation/x/retry", ADMIN, body={"wait": {"a": 1}})
    assert reply.status == 400
    assert json.loads(reply.text)["code"] == "invalid_argument"
    assert board.get("/api/vdisk/status", ADMIN).status == 200
    assert board.cluster.crash_dumps() == []
